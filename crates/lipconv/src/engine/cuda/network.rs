//! From a [`Network`] to what the engine runs, and back.

use candle_core::{DType, Device, Tensor, Var};

use super::blueprint::{Blueprint, LinearPlan, LinearShape};
use super::constraint::on_device;
use super::{Descent, Engine, Place, n_streams, not_on_engine};
use crate::activation::Activation;
use crate::element::to_vec;
use crate::engine::Step;
use crate::error::Result;
use crate::network::{LayerKind, Network, Parameters};
use crate::train::config::TrainConfig;

impl Blueprint {
    /// The network's blueprint.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`](crate::Error::NotOnEngine) naming what the engine does not run; candle's operations do.
    pub(super) fn of(network: &Network) -> Result<Self> {
        if network.dtype() != DType::F32 {
            return Err(not_on_engine(format!("networks in {}", network.dtype().as_str())));
        }
        let mut layers: Vec<LinearPlan> = Vec::new();
        let mut after_linear = false;
        for layer in network.layers() {
            match (&layer.parameters, layer.kind.step()) {
                (Some(p), Step::Other) => {
                    return Err(not_on_engine(format!("the layer of {}", p.name)));
                }
                (Some(p), _) => layers.push(linear(p, layer.kind)?),
                (None, Step::Activation(activation)) => {
                    push_activation(&mut layers, after_linear, activation)?;
                }
                (None, _) => {}
            }
            after_linear = layer.parameters.is_some();
        }
        if layers.is_empty() {
            return Err(not_on_engine("networks without a linear layer".into()));
        }
        Ok(Self { input: network.spec().input, layers })
    }
}

/// Puts an activation after the last linear layer.
///
/// # Errors
/// [`Error::NotOnEngine`](crate::Error::NotOnEngine) when it does not directly follow one, or its groups are too large for a byte.
pub(super) fn push_activation(
    layers: &mut [LinearPlan],
    after_linear: bool,
    activation: Activation,
) -> Result<()> {
    let last = layers.last_mut().filter(|_| after_linear);
    let Some(last) = last.filter(|last| fits(activation, last.n_out)) else {
        let name = activation.name();
        let what = format!("{name} that does not follow a linear layer or has too large groups");
        return Err(not_on_engine(what));
    };
    last.activation = Some(activation);
    Ok(())
}

fn fits(activation: Activation, channels: usize) -> bool {
    activation.kernel_number().is_some() && channels.is_multiple_of(activation.group())
}

fn linear(p: &Parameters, kind: LayerKind) -> Result<LinearPlan> {
    let shape = match kind {
        LayerKind::Conv { input, downsample } => {
            LinearShape::Conv { input, downsample, kernel: p.sizes.kernel }
        }
        _ => LinearShape::Dense { n_in: p.sizes.n_in },
    };
    let method = on_device(p.method, &p.sizes)
        .ok_or_else(|| not_on_engine(format!("{} in {}", p.method.definition().title(), p.name)))?;
    Ok(LinearPlan {
        name: p.name.clone(),
        shape,
        method,
        n_weights: p.weight.elem_count(),
        n_out: p.sizes.n_out,
        trained: p.trained,
        activation: None,
    })
}

/// What an engine is to run.
///
/// # Errors
/// [`Error::NotOnEngine`](crate::Error::NotOnEngine).
pub(super) fn plan(network: &Network, config: &TrainConfig) -> Result<(Blueprint, Descent)> {
    let TrainConfig { loss, optimizer, averaging, .. } = *config;
    Ok((Blueprint::of(network)?, Descent { loss, optimizer, averaging }))
}

impl Engine {
    /// An engine for the network on a device, with the network's parameters, for batches of at most `batch` samples.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`](crate::Error::NotOnEngine) when it does not run the network, which candle's operations do; [`Error::Device`](crate::Error::Device) when there is no such
    /// device, its driver is too old or its memory too small.
    pub fn for_network(
        network: &Network,
        config: &TrainConfig,
        place: Place,
        batch: usize,
    ) -> Result<Self> {
        let (blueprint, descent) = plan(network, config)?;
        let device = place.open(n_streams(&blueprint))?;
        let mut engine = Self::new(device, blueprint, descent, batch)?;
        engine.write_network(network)?;
        Ok(engine)
    }

    /// Copies the network's parameters and its methods' vectors to the device.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) or [`Error::Candle`](crate::Error::Candle) when they cannot be copied.
    pub fn write_network(&mut self, network: &Network) -> Result<()> {
        let values = |variable: &Var| -> Result<Vec<f32>> {
            to_vec::<f32>(&variable.as_tensor().to_device(&Device::Cpu)?)
        };
        let (mut parameters, mut vectors) = (Vec::new(), Vec::new());
        for (p, plan) in network.parameters().zip(&self.blueprint.layers) {
            parameters.extend(values(&p.weight)?);
            parameters.extend(values(&p.bias)?);
            if let Some(vector) = &p.vector {
                vectors.extend(channels_last(plan, &values(vector)?));
            }
        }
        self.set_parameters(&parameters)?;
        self.set_vectors(&vectors)
    }

    /// Copies parameters and vectors from the device to the network.
    ///
    /// # Errors
    /// As for [`Engine::write_network`].
    pub fn read_network(&mut self, network: &Network) -> Result<()> {
        let (parameters, vectors) = (self.parameters()?, self.vectors()?);
        let set = |variable: &Var, values: &[f32]| -> Result<()> {
            let tensor = Tensor::from_slice(values, variable.shape(), variable.device())?;
            Ok(variable.set(&tensor)?)
        };
        let (mut parameters, mut vectors) = (parameters.as_slice(), vectors.as_slice());
        for (p, plan) in network.parameters().zip(&self.blueprint.layers) {
            set(&p.weight, take(&mut parameters, p.weight.elem_count()))?;
            set(&p.bias, take(&mut parameters, p.bias.elem_count()))?;
            if let Some(vector) = &p.vector {
                let own = take(&mut vectors, vector.elem_count());
                set(vector, &channels_first(plan, own))?;
            }
        }
        Ok(())
    }
}

/// The first `n` of the values that are left.
pub(super) fn take<'a>(values: &mut &'a [f32], n: usize) -> &'a [f32] {
    let (own, rest) = values.split_at(n);
    *values = rest;
    own
}

/// For every value of a downsampled image, channels first, its place in the image before, channels last.
fn places(plan: &LinearPlan) -> Vec<usize> {
    let LinearShape::Conv { input, downsample: s, .. } = plan.shape else { return Vec::new() };
    let (h, w) = (input.height / s, input.width / s);
    let mut places = Vec::with_capacity(input.n_values());
    for channel in 0..input.channels * s * s {
        let (c, dy, dx) = (channel / (s * s), channel / s % s, channel % s);
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            places.push(((y * s + dy) * input.width + x * s + dx) * input.channels + c);
        }
    }
    places
}

fn channels_last(plan: &LinearPlan, values: &[f32]) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    places(plan).iter().zip(values).for_each(|(&place, &value)| turned[place] = value);
    turned
}

fn channels_first(plan: &LinearPlan, values: &[f32]) -> Vec<f32> {
    places(plan).iter().map(|&place| values[place]).collect()
}
