//! The buffers that an engine allocates once.

use super::backend::{Address, Backend, at};
use super::blueprint::{Blueprint, LinearShape};
use super::emit::{CONTROL_BYTES, Emit};
use super::layer::{Linear, Places};
use crate::error::Result;
use crate::optim::Optimizer;

/// Places of what is not a layer's.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) control: Address,
    pub(super) defects: Address,
    pub(super) n_parameters: usize,
    pub(super) parameters: Address,
    pub(super) gradients: Address,
    /// The optimiser's running means.
    pub(super) moments: Vec<Address>,
    pub(super) rates: Address,
    pub(super) n_rates: usize,
    /// Images as the host gives them, channels first.
    pub(super) copied: Address,
    pub(super) labels: Address,
    /// Channels last.
    pub(super) images: Address,
    pub(super) d_patches: Address,
}

/// Memory of all layers, where their inputs are turned, and scratch for the gradient of patches.
pub(super) type Layers = (Vec<Linear>, Vec<Option<[usize; 2]>>, Address);

pub(super) fn layers(
    device: &mut dyn Backend,
    blueprint: &Blueprint,
    memory: &Memory,
    batch: usize,
) -> Result<Layers> {
    let mut emit = Emit::new(device, memory.control);
    let (mut layers, mut turns): (Vec<Linear>, Vec<_>) = (Vec::new(), Vec::new());
    let (mut offset, mut channels) = (0, blueprint.input.channels);
    for (n, plan) in blueprint.layers.iter().enumerate() {
        let places = Places {
            weight: at(memory.parameters, offset),
            bias: at(memory.parameters, offset + plan.n_weights),
            d_weight: at(memory.gradients, offset),
            d_bias: at(memory.gradients, offset + plan.n_weights),
            defect: at(memory.defects, n),
        };
        offset += plan.n_weights + plan.n_out;
        let before = layers.last().map_or([memory.images, 0], |layer| [layer.y, layer.dy]);
        let after_image =
            n == 0 || matches!(blueprint.layers[n - 1].shape, LinearShape::Conv { .. });
        let turn = match plan.shape {
            LinearShape::Dense { n_in } if after_image => Some([n_in / channels, channels]),
            _ => None,
        };
        let input = match (turn, plan.shape) {
            (Some([pixels, channels]), _) => {
                let n = batch * pixels * channels;
                [emit.floats(n)?, emit.floats(n)?]
            }
            (None, _) => before,
        };
        layers.push(Linear::new(&mut emit, plan, batch, places, input)?);
        turns.push(turn);
        channels = plan.n_out;
    }
    let scratch = layers.iter().map(|layer| layer.patch_values(batch)).max().unwrap_or(0);
    let d_patches = emit.floats(scratch)?;
    Ok((layers, turns, d_patches))
}

impl Memory {
    pub(super) fn new(
        device: &mut dyn Backend,
        blueprint: &Blueprint,
        optimizer: &Optimizer,
        batch: usize,
    ) -> Result<Self> {
        let n_parameters = blueprint.n_parameters();
        let images = batch * blueprint.input.n_values();
        let mut floats = |n: usize| device.allocate(4 * n);
        Ok(Self {
            control: floats(CONTROL_BYTES / 4)?,
            defects: floats(blueprint.layers.len())?,
            n_parameters,
            parameters: floats(n_parameters)?,
            gradients: floats(n_parameters)?,
            moments: optimizer
                .moment_names()
                .iter()
                .map(|_| floats(n_parameters))
                .collect::<Result<_>>()?,
            rates: floats(2)?,
            n_rates: 1,
            copied: floats(images)?,
            labels: floats(batch)?,
            images: floats(images)?,
            d_patches: 0,
        })
    }
}
