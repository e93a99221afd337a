//! Plain networks on the engine: forward, and back to the images.

use candle_core::{DType, Device, DeviceLocation, Tensor};

use super::blueprint::{Blueprint, LinearPlan, LinearShape, Method};
use super::cache::Cache;
use super::network::push_activation;
use super::{Descent, Engine, Place, n_streams, not_on_engine};
use crate::element::to_vec;
use crate::error::Result;
use crate::loss::Loss;
use crate::optim::{Averaging, Optimizer};
use crate::plain::{PlainLayer, PlainNetwork};
use crate::shape::SignalShape;

impl PlainNetwork {
    /// The same network, evaluated by the CUDA engine on this device; its tensors stay where they are.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`](crate::Error::NotOnEngine) when the engine does not run it.
    pub fn on_cuda(&self, place: Place) -> Result<Self> {
        blueprint(self)?;
        Ok(self.with_engine(Cache::at(place)))
    }
}

/// Where the engine runs the network, if it does: where it was told to, or on the network's own device.
pub(crate) fn place_of(network: &PlainNetwork) -> Option<Place> {
    if network.engine().place.is_some() {
        return network.engine().place;
    }
    match network.device().location() {
        #[cfg(feature = "cuda-engine")]
        DeviceLocation::Cuda { gpu_id } => {
            blueprint(network).is_ok().then_some(Place::Device(gpu_id))
        }
        #[cfg(not(feature = "cuda-engine"))]
        DeviceLocation::Cuda { .. } => None,
        DeviceLocation::Cpu | DeviceLocation::Metal { .. } => None,
    }
}

/// Images that the engine is given at once: larger batches go in parts, so that they need no more memory.
const MAX_BATCH: usize = 512;

/// Logits of images that the network takes, b x classes.
pub(crate) fn forward(network: &PlainNetwork, images: &Tensor, place: Place) -> Result<Tensor> {
    let batch = images.dims()[0];
    let values = to_vec::<f32>(&images.to_device(&Device::Cpu)?)?;
    let logits = with_engine(network, place, batch, |engine| {
        let parts = values.chunks(engine.batch() * network.input().n_values());
        let logits = parts.map(|part| engine.logits(part));
        Ok(logits.collect::<Result<Vec<_>>>()?.concat())
    })?;
    Ok(Tensor::from_vec(logits, (batch, network.n_classes()), images.device())?)
}

/// The gradient of `Σ d_logits · logits` in the images.
pub(crate) fn input_gradient(
    network: &PlainNetwork,
    images: &Tensor,
    d_logits: &Tensor,
    place: Place,
) -> Result<Tensor> {
    let values = to_vec::<f32>(&images.to_device(&Device::Cpu)?)?;
    let d_values = to_vec::<f32>(&d_logits.to_device(&Device::Cpu)?)?;
    let gradient = with_engine(network, place, images.dims()[0], |engine| {
        let parts = values.chunks(engine.batch() * network.input().n_values());
        let d_parts = d_values.chunks(engine.batch() * network.n_classes());
        let gradients =
            parts.zip(d_parts).map(|(part, d_part)| Ok(engine.input_gradient(part, d_part)?.1));
        Ok(gradients.collect::<Result<Vec<_>>>()?.concat())
    })?;
    Ok(Tensor::from_vec(gradient, images.dims(), images.device())?)
}

/// Hands an engine for batches of `batch`, or of parts of it, to `f`.
fn with_engine<R>(
    network: &PlainNetwork,
    place: Place,
    batch: usize,
    f: impl FnOnce(&mut Engine) -> Result<R>,
) -> Result<R> {
    let batch = batch.clamp(1, MAX_BATCH);
    let mut held = network.engine().lock();
    if held.as_ref().is_some_and(|engine| engine.batch() < batch) {
        // its memory is given back before the next one asks for more
        *held = None;
    }
    if held.is_none() {
        *held = Some(engine_for(network, place, batch)?);
    }
    f(held.as_mut().expect("made above"))
}

fn engine_for(network: &PlainNetwork, place: Place, batch: usize) -> Result<Engine> {
    let blueprint = blueprint(network)?;
    let device = place.open(n_streams(&blueprint))?;
    // it takes no steps
    let (loss, optimizer) = (Loss::Wasserstein, Optimizer::RmsProp(Default::default()));
    let descent = Descent { loss, optimizer, averaging: Averaging::None };
    let mut parameters = Vec::new();
    for (weight, bias) in network.layers().iter().filter_map(PlainLayer::parameters) {
        let values = |tensor: &Tensor| to_vec::<f32>(&tensor.to_device(&Device::Cpu)?);
        parameters.extend(values(weight)?);
        match bias {
            Some(bias) => parameters.extend(values(bias)?),
            None => parameters.resize(parameters.len() + weight.dims()[0], 0.0),
        }
    }
    let mut engine = Engine::new(device, blueprint, descent, batch)?;
    engine.set_parameters(&parameters)?;
    Ok(engine)
}

fn blueprint(network: &PlainNetwork) -> Result<Blueprint> {
    if network.dtype() != DType::F32 {
        return Err(not_on_engine(format!("networks in {}", network.dtype().as_str())));
    }
    let mut layers: Vec<LinearPlan> = Vec::new();
    let mut after_linear = false;
    let mut shape = SignalShape::Image(network.input());
    for (layer, name) in network.layers().iter().zip(network.names()) {
        match (layer, shape) {
            (PlainLayer::CyclicConv(conv), SignalShape::Image(input)) => {
                let (downsample, kernel) = (conv.downsample(), conv.kernel_size());
                let shape = LinearShape::Conv { input, downsample, kernel };
                layers.push(linear(name, shape, conv.weight()));
            }
            (PlainLayer::Dense(dense), _) => {
                let shape = LinearShape::Dense { n_in: dense.weight().dims()[1] };
                layers.push(linear(name, shape, dense.weight()));
            }
            (PlainLayer::Activation(activation), _) => {
                push_activation(&mut layers, after_linear, *activation)?;
            }
            (PlainLayer::Flatten, _) => {}
            _ => return Err(not_on_engine(name.clone())),
        }
        after_linear = layer.parameters().is_some();
        shape = layer.output_shape(shape, name)?;
    }
    Ok(Blueprint { input: network.input(), layers })
}

fn linear(name: &str, shape: LinearShape, weight: &Tensor) -> LinearPlan {
    LinearPlan {
        name: name.to_owned(),
        shape,
        method: Method::Free,
        n_weights: weight.elem_count(),
        n_out: weight.dims()[0],
        trained: true,
        activation: None,
    }
}
