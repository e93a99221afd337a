//! From a [`Network`] to what the engine runs, and back.

use candle_core::{Device, Tensor};

use super::blueprint::{Blueprint, LinearPlan, LinearShape, Method};
use super::{DeviceLoss, Engine};
use crate::activation::Activation;
use crate::element::to_vec;
use crate::engine::Step;
use crate::error::Result;
use crate::loss::{CrossEntropy, Loss};
use crate::methods::{ConvMethod, LinearMethod};
use crate::network::{LayerKind, Network, Parameters};
use crate::optim::Optimizer;
use crate::train::TrainConfig;

impl DeviceLoss {
    /// The loss, if the device has it.
    pub(super) fn of(loss: &Loss) -> Option<Self> {
        match *loss {
            Loss::MultiClassHinge { margin } => Some(Self::Hinge { margin }),
            Loss::CrossEntropy(CrossEntropy {
                offset,
                temperature,
                annealing: 0.0,
                radius: None,
            }) => Some(Self::OffsetCrossEntropy { offset, temperature }),
            _ => None,
        }
    }
}

impl Blueprint {
    /// The network's blueprint, or `None` when the engine does not cover one of its layers: candle's operations run it then.
    pub(super) fn of(network: &Network) -> Option<Self> {
        let mut layers: Vec<LinearPlan> = Vec::new();
        let mut after_linear = false;
        for layer in network.layers() {
            match (&layer.parameters, layer.kind.step()) {
                (Some(p), _) => layers.push(linear(p, layer.kind)?),
                (None, Step::Activation(activation)) => {
                    let last = layers.last_mut()?;
                    if !after_linear || !fits(activation, last.n_out) {
                        return None;
                    }
                    last.activation = Some(activation);
                }
                (None, _) => {}
            }
            after_linear = layer.parameters.is_some();
        }
        Some(Self { input: network.spec().input, layers })
    }
}

fn fits(activation: Activation, channels: usize) -> bool {
    match activation {
        Activation::MaxMin => channels.is_multiple_of(2),
        Activation::GroupSort { group } => {
            activation.has_record() && channels.is_multiple_of(group)
        }
        Activation::Relu => true,
    }
}

fn linear(p: &Parameters, kind: LayerKind) -> Option<LinearPlan> {
    let shape = match kind {
        LayerKind::Conv { input, downsample } => {
            LinearShape::Conv { input, downsample, kernel: p.sizes.kernel }
        }
        _ => LinearShape::Dense { n_in: p.sizes.n_in },
    };
    let n = p.sizes.n_in.max(p.sizes.n_out);
    let method = match p.method {
        // a projector of rank 0 is no work for a device
        crate::methods::Method::Conv(ConvMethod::Bcop | ConvMethod::BcopFixed) if n >= 2 => {
            Method::Bcop { n }
        }
        crate::methods::Method::Conv(ConvMethod::Rko) => Method::Rko,
        crate::methods::Method::Linear(LinearMethod::Bjorck) => Method::Polar,
        crate::methods::Method::Linear(LinearMethod::Lln) => Method::Normalized,
        crate::methods::Method::Conv(ConvMethod::Unconstrained)
        | crate::methods::Method::Linear(LinearMethod::Unconstrained) => Method::Free,
        _ => return None,
    };
    Some(LinearPlan {
        name: p.name.clone(),
        shape,
        method,
        n_weights: p.weight.elem_count(),
        n_out: p.sizes.n_out,
        trained: p.trained,
        activation: None,
    })
}

/// What the engine is to run, if it covers all of it.
fn covered(network: &Network, config: &TrainConfig) -> Option<(Blueprint, DeviceLoss)> {
    if !matches!(config.optimizer, Optimizer::Adam(_) | Optimizer::RmsProp(_)) {
        return None;
    }
    Blueprint::of(network).zip(DeviceLoss::of(&config.loss))
}

impl Engine {
    /// An engine for the network on the CUDA device of this number, with the network's parameters, for batches of at most `batch`
    /// samples; `None` when it does not cover the network or the loss, which candle's operations run then.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when there is no such device, its driver is too old or its memory too small.
    #[cfg(feature = "cuda-engine")]
    pub fn for_network(
        network: &Network,
        config: &TrainConfig,
        ordinal: usize,
        batch: usize,
    ) -> Result<Option<Self>> {
        let Some((blueprint, loss)) = covered(network, config) else { return Ok(None) };
        let mut engine = Self::on_device(ordinal, blueprint, loss, config.optimizer, batch)?;
        engine.write_network(network)?;
        Ok(Some(engine))
    }

    /// The same on an emulated device.
    ///
    /// # Errors
    /// [`Error::Candle`](crate::Error::Candle) when the parameters cannot be read.
    #[cfg(feature = "cuda-emulation")]
    pub fn for_network_emulated(
        network: &Network,
        config: &TrainConfig,
        batch: usize,
    ) -> Result<Option<Self>> {
        let Some((blueprint, loss)) = covered(network, config) else { return Ok(None) };
        let mut engine = Self::emulated(blueprint, loss, config.optimizer, batch)?;
        engine.write_network(network)?;
        Ok(Some(engine))
    }

    /// Copies the network's parameters to the device.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) or [`Error::Candle`](crate::Error::Candle) when they cannot be copied.
    pub fn write_network(&mut self, network: &Network) -> Result<()> {
        let mut values = Vec::new();
        for p in network.parameters() {
            for variable in [&p.weight, &p.bias] {
                values.extend(to_vec::<f32>(&variable.as_tensor().to_device(&Device::Cpu)?)?);
            }
        }
        self.set_parameters(&values)
    }

    /// Copies the parameters from the device to the network.
    ///
    /// # Errors
    /// As for [`Engine::write_network`].
    pub fn read_network(&mut self, network: &Network) -> Result<()> {
        let values = self.parameters()?;
        let mut rest = values.as_slice();
        for p in network.parameters() {
            for variable in [&p.weight, &p.bias] {
                let (own, others) = rest.split_at(variable.elem_count());
                rest = others;
                variable.set(&Tensor::from_slice(own, variable.shape(), variable.device())?)?;
            }
        }
        Ok(())
    }
}
