//! Training: steps, epochs and what a caller may do between them.
//!
//! A [`Trainer`] owns a [`Network`], its optimiser's running means, its place in the run and a random generator. It knows no
//! data set, clock, file name or terminal: batches come from a [`BatchSource`], and an [`Observer`] sees every
//! step and may stop the run.
//!
//! Reproducibility: an epoch's order is decided by one number drawn from the trainer's generator and handed to
//! [`BatchSource::start_epoch`]; batch `n` of the epoch can be asked for without the ones before it. Everything
//! else is deterministic, so a run resumed from a [checkpoint](crate::checkpoint) at any step ends with the
//! same weights, to the bit, as one that was never interrupted (on the CPU, with the same binary).
//!
//! A step that fails changes nothing: neither parameters nor running means nor the vectors of OSSN. SVCM kernels are
//! clipped after every [`SVCM_PERIOD`] steps of an epoch and at its end.

mod input_gradient;

use std::ops::ControlFlow;

use candle_core::{DType, Tensor, Var};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::checkpoint::on_device;
use crate::element::Element;
use crate::engine::has_block_form;
use crate::engine::training::{ParameterGradient, TrainBuffers, loss_and_gradients};
use crate::error::{Error, Result};
use crate::finite::check_finite;
use crate::loss::{Loss, LossValue};
use crate::network::{LayerKind, Network};
use crate::optim::{Moments, Optimizer, Schedule, Update, update_variable};
use crate::plain::check_same_device;
use crate::portable_step::{PortableState, portable_step};

pub use crate::methods::{SVCM_PERIOD, SVCM_ROUNDS};

/// Settings of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Initial learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// What changes the parameters.
    pub optimizer: Optimizer,
    /// The loss.
    pub loss: Loss,
    /// Seed of the order of the data.
    pub seed: u64,
}

impl TrainConfig {
    /// Checks every domain.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] or [`Error::Zero`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        if self.epochs == 0 {
            return Err(Error::Zero { what: "epochs".into() });
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let value = self.learning_rate.to_string();
            return Err(Error::InvalidSetting {
                name: "learning_rate",
                value,
                expected: "a positive number",
            });
        }
        self.loss.validate()?;
        self.optimizer.validate()?;
        self.schedule.validate()
    }
}

/// Where batches come from.
pub trait BatchSource {
    /// Batches in an epoch; the same for all epochs.
    fn n_batches(&self) -> usize;

    /// Begins epoch `epoch`, whose random choices (order, augmentation) follow from `seed` alone.
    fn start_epoch(&mut self, epoch: usize, seed: u64);

    /// Batch `index` of the current epoch: images b x c x h x w in the network's element type and b labels.
    ///
    /// # Errors
    /// Whatever prevents the batch from being made.
    fn batch(&mut self, index: usize) -> Result<Batch>;
}

/// Images and their labels.
#[derive(Debug, Clone)]
pub struct Batch {
    /// b x c x h x w.
    pub images: Tensor,
    /// One class for each image.
    pub labels: Vec<u32>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done in the whole run, this one included.
    pub step: u64,
    /// 0-based epoch.
    pub epoch: usize,
    /// 0-based index of the batch in its epoch.
    pub batch: usize,
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// Samples of the batch classified correctly before the update.
    pub n_correct: usize,
    /// Samples in the batch.
    pub n_samples: usize,
    /// The learning rate used.
    pub learning_rate: f64,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReport {
    /// 0-based epoch.
    pub epoch: usize,
    /// Mean loss over the samples.
    pub loss: f64,
    /// Samples classified correctly when they were trained on.
    pub n_correct: usize,
    /// Samples seen.
    pub n_samples: usize,
}

/// Sees a run go by; `Break` stops it after the current step or epoch.
pub trait Observer {
    /// After every step.
    ///
    /// # Errors
    /// Ends the run with the error.
    fn after_step(&mut self, _trainer: &Trainer, _report: &StepReport) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// After every epoch.
    ///
    /// # Errors
    /// Ends the run with the error.
    fn after_epoch(
        &mut self,
        _trainer: &Trainer,
        _report: &EpochReport,
    ) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

/// An observer that lets everything pass.
impl Observer for () {}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The observer stopped it.
    Stopped,
}

/// The place of a run between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: u64,
    /// Current epoch.
    pub(crate) epoch: usize,
    /// Batches done in it.
    pub(crate) batch: usize,
    /// The current epoch's seed, once it has begun.
    pub(crate) epoch_seed: Option<u64>,
    /// Sums over the current epoch so far.
    pub(crate) totals: EpochReport,
    /// State of the generator that epoch seeds are drawn from.
    pub(crate) rng: ChaCha8Rng,
}

/// Trains one network.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    config: TrainConfig,
    pub(crate) progress: Progress,
    pub(crate) state: State,
}

/// Numbers in the network's element type.
#[derive(Debug)]
pub(crate) enum State {
    F32(TypedState<f32>),
    F64(TypedState<f64>),
    /// Tensors on the network's device, whatever their type.
    Portable(PortableState),
}

/// The optimiser's running means of every parameter (weight, bias, weight, …) and the engine's buffers.
#[derive(Debug)]
pub(crate) struct TypedState<T> {
    pub(crate) moments: Vec<Moments<T>>,
    pub(crate) buffers: TrainBuffers<T>,
}

impl<T: Element> TypedState<T> {
    fn new(network: &Network, optimizer: &Optimizer) -> Self {
        let zeros = |variable: &Var, trained: bool| match trained {
            true => Moments::zeros(optimizer, variable.elem_count()),
            false => Moments(Vec::new()),
        };
        let layers = network.parameters();
        let moments = layers.flat_map(|p| [zeros(&p.weight, p.trained), zeros(&p.bias, true)]);
        Self { moments: moments.collect(), buffers: TrainBuffers::default() }
    }
}

impl Trainer {
    /// A run from its beginning.
    ///
    /// # Errors
    /// As for [`TrainConfig::validate`]; [`Error::NumberOfOutputs`] when the loss is not defined for the network's outputs.
    pub fn new(network: Network, config: TrainConfig) -> Result<Self> {
        config.validate()?;
        config.loss.check_outputs(network.n_classes())?;
        let state = match network.dtype() {
            _ if !network.device().is_cpu() => {
                State::Portable(PortableState::new(&network, &config.optimizer)?)
            }
            DType::F64 => State::F64(TypedState::new(&network, &config.optimizer)),
            _ => State::F32(TypedState::new(&network, &config.optimizer)),
        };
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        let totals = EpochReport::default();
        let progress = Progress { step: 0, epoch: 0, batch: 0, epoch_seed: None, totals, rng };
        Ok(Self { network, config, progress, state })
    }

    /// As [`Trainer::new`], with every step in candle's operations even on the CPU: slow there, and the same path that a
    /// GPU takes.
    ///
    /// # Errors
    /// As [`Trainer::new`].
    pub fn portable(network: Network, config: TrainConfig) -> Result<Self> {
        Self::new(network, config)?.into_portable()
    }

    /// The same run at the same place, with all further steps in candle's operations.
    ///
    /// # Errors
    /// [`Error::Candle`] when the running means cannot be copied.
    pub fn into_portable(mut self) -> Result<Self> {
        self.state = State::Portable(match self.state {
            State::F32(state) => on_device(&self.network, state)?,
            State::F64(state) => on_device(&self.network, state)?,
            State::Portable(state) => state,
        });
        Ok(self)
    }

    /// The network in its present state.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The run's settings.
    #[must_use]
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Steps done so far.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.progress.step
    }

    /// The epoch that the next step belongs to.
    #[must_use]
    pub fn epoch(&self) -> usize {
        self.progress.epoch
    }

    /// Whether all epochs are done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.progress.epoch >= self.config.epochs
    }

    /// Gives up the run and keeps the network.
    #[must_use]
    pub fn into_network(self) -> Network {
        self.network
    }

    /// Trains to the end, or until the observer stops.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], of the source and of the observer; [`Error::Zero`] when the source has no
    /// batches.
    pub fn fit(
        &mut self,
        source: &mut dyn BatchSource,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let n_batches = source.n_batches();
        if n_batches == 0 {
            return Err(Error::Zero { what: "number of batches in an epoch".into() });
        }
        while !self.is_finished() {
            source.start_epoch(self.progress.epoch, self.epoch_seed());
            let mut stop = false;
            while !stop && self.progress.batch < n_batches {
                let batch = source.batch(self.progress.batch)?;
                let report = self.step(&batch, n_batches)?;
                stop = observer.after_step(self, &report)?.is_break();
            }
            if self.progress.batch == n_batches {
                let report = self.end_epoch();
                stop |= observer.after_epoch(self, &report)?.is_break();
            }
            if stop && !self.is_finished() {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    pub(crate) fn epoch_seed(&mut self) -> u64 {
        let rng = &mut self.progress.rng;
        *self.progress.epoch_seed.get_or_insert_with(|| rng.next_u64())
    }

    pub(crate) fn end_epoch(&mut self) -> EpochReport {
        let progress = &mut self.progress;
        let report = EpochReport { epoch: progress.epoch, ..progress.totals };
        progress.epoch += 1;
        progress.batch = 0;
        progress.epoch_seed = None;
        progress.totals = EpochReport::default();
        report
    }

    /// One step on one batch; `n_batches` is the number of batches in an epoch, which the schedule needs.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::DeviceMismatch`], [`Error::LabelOutOfRange`] or
    /// [`Error::EmptyDistribution`] when the batch does not fit the network or the loss. [`Error::Step`] with the number of the step when the computation
    /// fails: around [`Error::NonFinite`] when logits or a gradient are not finite, around [`Error::Algebra`],
    /// [`Error::Orthonormalisation`] or [`Error::ZeroWeight`] when a parameter has become rank-deficient. All but a
    /// failed clipping leave everything as it was.
    pub fn step(&mut self, batch: &Batch, n_batches: usize) -> Result<StepReport> {
        self.check_images(&batch.images, batch.labels.len())?;
        let total = (self.config.epochs * n_batches) as u64;
        let Progress { step, epoch, batch: index, .. } = self.progress;
        let learning_rate =
            self.config.learning_rate * self.config.schedule.factor(epoch, step, total);
        let update = Update { optimizer: self.config.optimizer, learning_rate, step: step + 1 };
        let done = match &mut self.state {
            State::F32(state) => typed_step(&self.network, &self.config.loss, batch, update, state),
            State::F64(state) => typed_step(&self.network, &self.config.loss, batch, update, state),
            State::Portable(state) => {
                portable_step(&self.network, &self.config.loss, batch, update, state)
            }
        };
        let (loss, n_correct) = done.map_err(|source| in_step(step + 1, source))?;
        let projected = self.network.project_after(index, n_batches);
        projected.map_err(|source| in_step(step + 1, source))?;
        let n_samples = batch.labels.len();
        let totals = &mut self.progress.totals;
        let seen = totals.n_samples + n_samples;
        totals.loss += (loss - totals.loss) * n_samples as f64 / seen as f64;
        totals.n_correct += n_correct;
        totals.n_samples = seen;
        self.progress.step += 1;
        self.progress.batch += 1;
        Ok(StepReport {
            step: step + 1,
            epoch,
            batch: index,
            loss,
            n_correct,
            n_samples,
            learning_rate,
        })
    }

    /// Whether `images` are `n_images` of those that the network takes.
    pub(crate) fn check_images(&self, images: &Tensor, n_images: usize) -> Result<()> {
        let input = self.network.spec().input;
        let expected = vec![n_images, input.channels, input.height, input.width];
        if images.dims() != expected {
            let got = images.dims().to_vec();
            return Err(Error::ShapeMismatch { what: "batch of images".into(), expected, got });
        }
        if images.dtype() != self.network.dtype() {
            let expected = self.network.dtype().as_str().into();
            let got = images.dtype().as_str().into();
            return Err(Error::DTypeMismatch { what: "batch of images".into(), expected, got });
        }
        check_same_device("batch of images", self.network.device(), images)
    }
}

/// Loss, gradients and update; returns the loss and the number of correct samples.
fn typed_step<T: Element>(
    network: &Network,
    loss: &Loss,
    batch: &Batch,
    update: Update,
    state: &mut TypedState<T>,
) -> Result<(f64, usize)> {
    let steps = network.layers().iter().map(|layer| LayerKind::step(layer.kind));
    let on_engine = has_block_form(steps);
    let (value, gradients) = if on_engine {
        loss_and_gradients(network, loss, &batch.images, &batch.labels, &mut state.buffers)?
    } else {
        graph_gradients::<T>(network, loss, batch)?
    };
    for (gradient, p) in gradients.iter().zip(network.parameters()) {
        check_finite(&format!("gradient of {}.bias", p.name), &gradient.bias)?;
        if let Some(weight) = &gradient.weight {
            check_finite(&format!("gradient of {}.weight", p.name), weight)?;
        }
    }
    state.buffers.warm.clear();
    let moments = state.moments.chunks_exact_mut(2);
    for ((gradient, p), moments) in gradients.into_iter().zip(network.parameters()).zip(moments) {
        let [of_weight, of_bias] = moments else { unreachable!("chunks of two") };
        if let Some(weight) = &gradient.weight {
            update_variable(&p.weight, weight, of_weight, update)?;
        }
        update_variable(&p.bias, &gradient.bias, of_bias, update)?;
        if let (Some(next), Some(vector)) = (gradient.vector, &p.vector) {
            vector.set(&Tensor::from_vec(next, vector.shape(), vector.device())?)?;
        }
        state.buffers.warm.push(gradient.warm);
    }
    Ok((value.value, value.n_correct))
}

/// An error of the computation, with the step in which it happened.
fn in_step(step: u64, source: Error) -> Error {
    match source {
        Error::LabelOutOfRange { .. } | Error::EmptyDistribution { .. } => source,
        source => Error::Step { step, source: Box::new(source) },
    }
}

/// The same by candle's graph: for networks outside the engine's block form.
fn graph_gradients<T: Element>(
    network: &Network,
    loss: &Loss,
    batch: &Batch,
) -> Result<(LossValue<T>, Vec<ParameterGradient<T>>)> {
    let (logits, vectors) = network.forward_with_vectors(&batch.images)?;
    let value =
        loss.evaluate(&crate::element::to_vec::<T>(&logits)?, &batch.labels, network.n_classes())?;
    let labels = Tensor::new(batch.labels.as_slice(), network.device())?;
    let gradients = loss.forward(&logits, &labels)?.backward()?;
    let of = |v: &Var| match gradients.get(v.as_tensor()) {
        Some(gradient) => crate::element::to_vec::<T>(gradient),
        None => Ok(vec![T::zero(); v.elem_count()]),
    };
    let gradients = network.parameters().zip(vectors).map(|(p, vector)| {
        Ok(ParameterGradient {
            weight: p.trained.then(|| of(&p.weight)).transpose()?,
            bias: of(&p.bias)?,
            vector: vector.as_ref().map(crate::element::to_vec::<T>).transpose()?,
            warm: None,
        })
    });
    Ok((value, gradients.collect::<Result<_>>()?))
}
