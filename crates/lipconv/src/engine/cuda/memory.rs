//! The buffers that an engine allocates once.

use super::backend::{Address, Backend, at};
use super::blueprint::{Blueprint, LinearShape};
use super::emit::{CONTROL_BYTES, Emit};
use super::layer::Linear;
use super::settings::SETTINGS_BYTES;
use super::status::OUTCOME_BYTES;
use super::weight::Places;
use crate::error::Result;

/// Places of what is not a layer's.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) control: Address,
    pub(super) defects: Address,
    pub(super) n_parameters: usize,
    pub(super) parameters: Address,
    pub(super) gradients: Address,
    /// The optimiser's running means, and then the average where there is one.
    pub(super) moments: Vec<Address>,
    /// The vectors that methods keep between steps, one after the other.
    pub(super) vectors: Address,
    /// The kernels' structure `StepSettings` for each step between two reads.
    pub(super) settings: Address,
    /// The kernels' structure `StepOutcome` for each of them.
    pub(super) outcomes: Address,
    /// Steps that both have room for.
    pub(super) n_settings: usize,
    /// The weight of a layer on its own, or its gradient.
    pub(super) weight: Address,
    /// Images as the host gives them, channels first.
    pub(super) copied: Address,
    pub(super) labels: Address,
    /// Channels last.
    pub(super) images: Address,
    pub(super) d_images: Address,
    pub(super) d_patches: Address,
    /// Distances of the rows of the last weight, their gradients, and those of every sample.
    pub(super) pairs: [Address; 3],
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
    let (mut offset, mut vector, mut channels) = (0, 0, blueprint.input.channels);
    for (n, plan) in blueprint.layers.iter().enumerate() {
        let places = Places {
            weight: at(memory.parameters, offset),
            bias: at(memory.parameters, offset + plan.n_weights),
            d_weight: at(memory.gradients, offset),
            d_bias: at(memory.gradients, offset + plan.n_weights),
            vector: at(memory.vectors, vector),
            defect: at(memory.defects, n),
        };
        offset += plan.n_weights + plan.n_out;
        vector += plan.n_vector();
        let outside = [memory.images, memory.d_images];
        let before = layers.last().map_or(outside, |layer| [layer.y, layer.dy]);
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
    /// For `n_means` running means and averages of every parameter; `pairs` where the loss depends on the rows of the last weight.
    pub(super) fn new(
        device: &mut dyn Backend,
        blueprint: &Blueprint,
        n_means: usize,
        pairs: bool,
        batch: usize,
    ) -> Result<Self> {
        let (n_parameters, n_classes) = (blueprint.n_parameters(), blueprint.n_classes());
        let images = batch * blueprint.input.n_values();
        let squares = if pairs { n_classes * n_classes } else { 0 };
        let mut floats = |n: usize| device.allocate(4 * n);
        Ok(Self {
            control: floats(CONTROL_BYTES / 4)?,
            defects: floats(blueprint.layers.len())?,
            n_parameters,
            parameters: floats(n_parameters)?,
            gradients: floats(n_parameters)?,
            moments: (0..n_means).map(|_| floats(n_parameters)).collect::<Result<_>>()?,
            vectors: floats(blueprint.n_vectors())?,
            settings: floats(SETTINGS_BYTES / 4)?,
            outcomes: floats(OUTCOME_BYTES / 4)?,
            n_settings: 1,
            weight: 0,
            copied: floats(images)?,
            labels: floats(batch)?,
            images: floats(images)?,
            d_images: floats(images)?,
            d_patches: 0,
            pairs: match pairs {
                true => [floats(squares)?, floats(squares)?, floats(batch * n_classes)?],
                false => [0; 3],
            },
        })
    }
}
