//! Training steps on the CUDA engine.
//!
//! Between two steps the parameters are the device's; the network's variables follow when somebody asks for them, and may have been
//! changed from then on, so that the next step takes them up again. An engine is made when the first batch shows how large
//! batches are, and again for a larger one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};

use super::backend::Backend;
use super::blueprint::Blueprint;
use super::network::{plan, take};
use super::settings::StepSettings;
use super::{Descent, Engine, Place, n_streams};
use crate::element::to_vec;
use crate::error::Result;
use crate::loss::Loss;
use crate::network::Network;
use crate::optim::Update;
use crate::train::batch::{Batch, ResidentImages, Sample};
use crate::train::config::TrainConfig;
use crate::train::state::RunState;
use crate::train::stepper::Stepper;

/// Most steps between two reads: what the device has room for the settings of.
const MAX_STEPS: usize = 256;

/// Steps on a device.
#[derive(Debug)]
pub(crate) struct CudaStepper {
    place: Place,
    blueprint: Blueprint,
    descent: Descent,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    /// Opened early, so that a device that is not there is missed at once; the engine's from its first step on.
    device: Option<Box<dyn Backend>>,
    engine: Option<Engine>,
    /// The running means while there is no engine.
    state: RunState,
    /// Whether the device's parameters are newer than the variables.
    ahead: bool,
    /// Whether the variables may have been changed.
    behind: bool,
    /// Labels of the images that the device has.
    labels: Vec<u8>,
}

impl CudaStepper {
    /// A run at any place of it.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`](crate::Error::NotOnEngine) when the engine does not run the network;
    /// [`Error::Device`](crate::Error::Device) when there is no such device.
    pub(crate) fn new(
        network: &Network,
        config: &TrainConfig,
        place: Place,
        state: RunState,
    ) -> Result<Self> {
        let (blueprint, descent) = plan(network, config)?;
        let device = Some(place.open(n_streams(&blueprint))?);
        let labels = Vec::new();
        let held = Held { device, engine: None, state, ahead: false, behind: true, labels };
        Ok(Self { place, blueprint, descent, held: Mutex::new(held) })
    }

    /// Whether there can be one.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`](crate::Error::NotOnEngine) if not.
    #[cfg(feature = "cuda-engine")]
    pub(crate) fn check(network: &Network, config: &TrainConfig) -> Result<()> {
        plan(network, config).map(|_| ())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // every field is replaced as a whole
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// An engine for batches of `batch` that has the network's parameters.
    fn engine_for(
        &mut self,
        stepper: (&Blueprint, Descent, Place),
        network: &Network,
        batch: usize,
    ) -> Result<&mut Engine> {
        if self.engine.as_ref().is_some_and(|engine| engine.batch() < batch) {
            self.settle(network)?;
            self.state = self.state(network)?;
            // its memory is given back before the next one asks for more
            self.engine = None;
            self.labels.clear();
        }
        if self.engine.is_none() {
            let (blueprint, descent, place) = stepper;
            let device = match self.device.take() {
                Some(device) => device,
                None => place.open(n_streams(blueprint))?,
            };
            let mut engine = Engine::new(device, blueprint.clone(), descent, batch)?;
            engine.write_moments(&flat(&self.state.moments, network)?)?;
            engine.set_levels(&self.state.levels);
            self.engine = Some(engine);
            self.behind = true;
        }
        let engine = self.engine.as_mut().expect("made above");
        if self.behind {
            engine.write_network(network)?;
        }
        Ok(engine)
    }

    /// The variables as the device has them.
    fn settle(&mut self, network: &Network) -> Result<()> {
        if let (Some(engine), true) = (&mut self.engine, self.ahead) {
            engine.read_network(network)?;
        }
        self.ahead = false;
        Ok(())
    }

    fn state(&mut self, network: &Network) -> Result<RunState> {
        let Some(engine) = &mut self.engine else {
            let RunState { moments, levels, .. } = &self.state;
            let (moments, levels) = (moments.clone(), levels.clone());
            return Ok(RunState { moments, warm: Vec::new(), levels });
        };
        let moments = tensors(&engine.read_moments()?, network)?;
        Ok(RunState { moments, warm: Vec::new(), levels: engine.levels() })
    }

    /// After a step that has not failed.
    fn stepped(&mut self) {
        (self.ahead, self.behind) = (true, false);
    }
}

/// Each running mean for all parameters in order; 0 for those of what is not trained.
fn flat(moments: &[Vec<Tensor>], network: &Network) -> Result<Vec<Vec<f32>>> {
    let n_means = moments.iter().map(Vec::len).max().unwrap_or(0);
    let mut means = vec![Vec::new(); n_means];
    for (own, (_, variable)) in moments.iter().zip(network.variables()) {
        for (n, mean) in means.iter_mut().enumerate() {
            match own.get(n) {
                Some(tensor) => mean.extend(to_vec::<f32>(tensor)?),
                None => mean.resize(mean.len() + variable.elem_count(), 0.0),
            }
        }
    }
    Ok(means)
}

/// The running means of every variable.
fn tensors(means: &[Vec<f32>], network: &Network) -> Result<Vec<Vec<Tensor>>> {
    let mut rest: Vec<&[f32]> = means.iter().map(Vec::as_slice).collect();
    let trained = network.parameters().flat_map(|p| [(&p.weight, p.trained), (&p.bias, true)]);
    let of_variable = trained.map(|(variable, trained)| {
        let own = rest.iter_mut().map(|rest| take(rest, variable.elem_count()));
        let own = own.collect::<Vec<_>>().into_iter().filter(|_| trained);
        own.map(|own| Ok(Tensor::from_slice(own, variable.shape(), &Device::Cpu)?)).collect()
    });
    of_variable.collect()
}

/// A step on images that lie on the host, or on the engine's device.
fn step_on(
    engine: &mut Engine,
    images: &Tensor,
    labels: &[u32],
    settings: StepSettings,
) -> Result<(f64, usize)> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = images.device() {
        use candle_core::cuda_backend::cudarc::driver::DevicePtr;
        let images = images.contiguous()?;
        let (storage, layout) = images.storage_and_layout();
        if let candle_core::Storage::Cuda(storage) = &*storage {
            let values = storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
            let stream = device.cuda_stream();
            let (address, _reading) = values.device_ptr(&stream);
            // what candle was asked for is done before another stream reads it
            images.device().synchronize()?;
            return engine.step_on_device_images(address, labels, settings);
        }
    }
    engine.step_on_images(&host_values(images)?, labels, settings)
}

fn host_values(tensor: &Tensor) -> Result<Vec<f32>> {
    to_vec::<f32>(&tensor.to_device(&Device::Cpu)?)
}

impl Stepper for CudaStepper {
    fn name(&self) -> &'static str {
        "CUDA engine"
    }

    fn step(
        &mut self,
        network: &Network,
        loss: &Loss,
        batch: &Batch,
        update: Update,
    ) -> Result<(f64, usize)> {
        loss.check_labels(&batch.labels, network.n_classes())?;
        let settings = StepSettings::of(update, loss);
        let mut held = self.held();
        let own = (&self.blueprint, self.descent, self.place);
        let engine = held.engine_for(own, network, batch.labels.len())?;
        let done = step_on(engine, &batch.images, &batch.labels, settings)?;
        held.stepped();
        Ok(done)
    }

    fn hold(&mut self, network: &Network, images: &ResidentImages<'_>) -> Result<bool> {
        let ResidentImages { pixels, labels, batch_size } = *images;
        let mut held = self.held();
        let own = (&self.blueprint, self.descent, self.place);
        held.engine_for(own, network, batch_size)?.set_images(pixels, labels, MAX_STEPS)?;
        held.labels = labels.to_vec();
        Ok(true)
    }

    fn steps_on_samples(
        &mut self,
        network: &Network,
        batches: &[Vec<Sample>],
        plan: &[(Loss, Update)],
        done: &mut Vec<(f64, usize)>,
    ) -> Result<()> {
        let mut held = self.held();
        for (batch, (loss, _)) in batches.iter().zip(plan) {
            let label = |s: &Sample| held.labels.get(s.image as usize).copied().map(u32::from);
            // an image that is not there is the engine's to refuse
            let labels: Vec<u32> = batch.iter().filter_map(label).collect();
            loss.check_labels(&labels, network.n_classes())?;
        }
        let settings: Vec<_> = plan.iter().map(|(loss, u)| StepSettings::of(*u, loss)).collect();
        let largest = batches.iter().map(Vec::len).max().unwrap_or(0);
        let own = (&self.blueprint, self.descent, self.place);
        let engine = held.engine_for(own, network, largest)?;
        // the device finds a batch by its number, so that batches before the last of a call are as large as the engine's
        let is_whole = |batch: &Vec<Sample>| batch.len() == engine.batch();
        let at_once = match batches.split_last() {
            Some((_, before)) if before.iter().all(is_whole) => MAX_STEPS,
            _ => 1,
        };
        let n_before = done.len();
        let parts = batches.chunks(at_once).zip(settings.chunks(at_once));
        let ended = parts.map(|(part, own)| engine.steps_on_samples(&part.concat(), own, done));
        let ended = ended.collect::<Result<()>>();
        if done.len() > n_before {
            held.stepped();
        }
        ended
    }

    fn input_gradient(
        &mut self,
        network: &Network,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (values, d_values) = (host_values(images)?, host_values(d_logits)?);
        let mut held = self.held();
        let own = (&self.blueprint, self.descent, self.place);
        let batch = images.dims().first().copied().unwrap_or(0);
        let engine = held.engine_for(own, network, batch)?;
        let (logits, gradient) = engine.input_gradient(&values, &d_values)?;
        held.behind = false;
        let device = network.device();
        let logits = Tensor::from_vec(logits, d_logits.dims(), device)?;
        Ok((logits, Tensor::from_vec(gradient, images.dims(), device)?))
    }

    fn settle(&self, network: &Network) -> Result<()> {
        let mut held = self.held();
        held.settle(network)?;
        held.behind = true;
        Ok(())
    }

    fn state(&self, network: &Network) -> Result<RunState> {
        self.held().state(network)
    }

    fn levels(&self) -> Vec<u8> {
        let held = self.held();
        held.engine.as_ref().map_or_else(|| held.state.levels.clone(), Engine::levels)
    }
}
