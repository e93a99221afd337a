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
//! On a CUDA device the images may stay there, and batches are made of [`Sample`]s of them.
//!
//! A step that fails changes nothing: neither parameters nor running means nor the vectors of OSSN. SVCM kernels are
//! clipped after every [`SVCM_PERIOD`] steps of an epoch and at its end.

pub(crate) mod batch;
pub(crate) mod config;
mod in_memory;
mod portable;
pub(crate) mod state;
pub(crate) mod stepper;

use std::collections::HashMap;
use std::ops::ControlFlow;

use candle_core::{DType, Tensor};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::engine::cpu::stepper::CpuStepper;
#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
use crate::engine::cuda::{Place, stepper::CudaStepper};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::network::Network;
use crate::optim::{Schedule, Update};
use crate::plain::check_same_device;
use crate::spec::LayerSpec;
use portable::PortableStepper;
use state::{Progress, RunState, check_told};
use stepper::Stepper;

pub use crate::methods::{SVCM_PERIOD, SVCM_ROUNDS};
pub use batch::{Batch, BatchSource, EpochReport, Outcome, ResidentImages, Sample, StepReport};
pub use config::TrainConfig;
pub use in_memory::InMemory;

/// Sees a run go by; `Break` stops it after the current step or epoch.
pub trait Observer {
    /// Maximal number n of steps between two reads of the device. A device that keeps the images takes n steps at once. Then
    /// [`Observer::after_step`] is called for each: the trainer may be ahead of the report, and a `Break` stops it where it is.
    fn steps_between(&self) -> usize {
        1
    }

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

/// Trains one network.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    config: TrainConfig,
    pub(crate) progress: Progress,
    /// Batches in an epoch; 0 before anyone has told.
    pub(crate) n_batches: usize,
    stepper: Box<dyn Stepper>,
}

impl Trainer {
    /// A run from its beginning.
    ///
    /// # Errors
    /// As for [`TrainConfig::validate`]; [`Error::NumberOfOutputs`] when the loss is not defined for the network's outputs.
    pub fn new(network: Network, config: TrainConfig) -> Result<Self> {
        let state = RunState::zeros(&network, config.mean_names().len())?;
        let rng = ChaCha8Rng::seed_from_u64(config.seed);
        let totals = EpochReport::default();
        let progress = Progress { step: 0, epoch: 0, batch: 0, epoch_seed: None, totals, rng };
        Self::at(network, config, progress, state)
    }

    /// A run at any place; chooses once how it steps.
    pub(crate) fn at(
        network: Network,
        config: TrainConfig,
        progress: Progress,
        state: RunState,
    ) -> Result<Self> {
        config.validate()?;
        config.loss.check_outputs(network.n_classes())?;
        let last = network.spec().layers.last();
        if config.loss.needs_pairs() && !matches!(last, Some(LayerSpec::Linear { .. })) {
            return Err(Error::NoLastWeight);
        }
        let stepper = stepper(&network, &config, state)?;
        Ok(Self { network, config, progress, n_batches: 0, stepper })
    }

    /// Sets the number of batches in an epoch, which schedules and annealed losses need. [`Trainer::fit`] takes it from its
    /// source; before [`Trainer::step`] it must be set here.
    ///
    /// # Errors
    /// [`Error::Zero`] for no batches, [`Error::InvalidSetting`] when more are done in the present epoch.
    pub fn epochs_of(mut self, n_batches: usize) -> Result<Self> {
        self.plan_epochs(n_batches).map(|()| self)
    }

    pub(crate) fn plan_epochs(&mut self, n_batches: usize) -> Result<()> {
        self.progress.check_batches(n_batches)?;
        self.n_batches = n_batches;
        Ok(())
    }

    /// What takes the steps, in a few words: the CPU's engine, the CUDA engine or candle's operations.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.stepper.name()
    }

    /// The same run at the same place, with all further steps on the CUDA engine; the network stays where it is.
    ///
    /// # Errors
    /// [`Error::NotOnEngine`] when the engine does not run the network; [`Error::Device`] when there is no such device or its driver is
    /// too old. A device whose memory is too small says so in the first step.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    pub fn on_cuda(mut self, place: Place) -> Result<Self> {
        self.settle()?;
        let state = self.stepper.state(&self.network)?;
        self.stepper = Box::new(CudaStepper::new(&self.network, &self.config, place, state)?);
        Ok(self)
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
        self.settle()?;
        let state = self.stepper.state(&self.network)?;
        self.stepper = Box::new(PortableStepper::new(&self.network, state)?);
        Ok(self)
    }

    /// The same run at the same place, planned for another number of epochs. The next step takes the learning rate that a run of so
    /// many epochs with this schedule has there.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for fewer epochs than are done; as for [`TrainConfig::validate`].
    pub fn planned_for(mut self, epochs: usize, schedule: Schedule) -> Result<Self> {
        if epochs < self.progress.epoch {
            let (name, value, expected) =
                ("epochs", epochs.to_string(), "at least the epochs done");
            return Err(Error::InvalidSetting { name, value, expected });
        }
        self.config = TrainConfig { epochs, schedule, ..self.config };
        self.config.validate()?;
        Ok(self)
    }

    /// What a checkpoint stores beside the network.
    pub(crate) fn state(&self) -> Result<RunState> {
        self.stepper.state(&self.network)
    }

    /// How patient the CUDA engine's iterations have become.
    pub(crate) fn levels(&self) -> Vec<u8> {
        self.stepper.levels()
    }

    /// Brings the network's variables up to date: between two steps on the CUDA engine the parameters are the device's.
    /// [`Trainer::network`] does so too.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Candle`] when they cannot be copied.
    pub fn settle(&self) -> Result<()> {
        self.stepper.settle(&self.network)
    }

    /// The network in its present state. What is written to its variables counts from the next step on.
    ///
    /// # Panics
    /// When a CUDA device that holds the parameters can no longer be read, which [`Trainer::settle`] returns as an error.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.settle().expect("the device that holds the parameters can be read");
        &self.network
    }

    /// The network for evaluation: with averaged parameters if the run averages them, otherwise a copy of the current
    /// network.
    ///
    /// # Errors
    /// [`Error::Candle`] when the parameters cannot be copied.
    pub fn averaged_network(&self) -> Result<Network> {
        self.settle()?;
        let Self { network, .. } = self;
        let averages = match self.progress.step == 0 || self.config.averaging.is_none() {
            true => Vec::new(),
            false => self.state()?.moments,
        };
        let mut averages = averages.iter().map(|means| means.last());
        let mut values: HashMap<_, _> = network.vectors().into_iter().collect();
        for (name, variable) in network.variables() {
            let value = match averages.next().flatten() {
                Some(average) => average.to_device(network.device())?,
                None => variable.as_tensor().detach().copy()?,
            };
            values.insert(name, value);
        }
        let take = |name: &str, _: &[usize]| {
            Ok(values.remove(name).expect("a network of the same spec has the same names"))
        };
        Network::from_tensors(network.spec(), network.dtype(), network.device(), take)
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
    ///
    /// # Panics
    /// As for [`Trainer::network`].
    #[must_use]
    pub fn into_network(self) -> Network {
        let _ = self.network();
        self.network
    }

    /// Trains to the end, or until the observer stops.
    ///
    /// # Errors
    /// Those of [`Trainer::step`], of the source and of the observer; [`Error::Zero`] when the source has no
    /// batches, [`Error::InvalidSetting`] when more are done in the present epoch than it has.
    pub fn fit(
        &mut self,
        source: &mut dyn BatchSource,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        self.plan_epochs(source.n_batches())?;
        let resident = match source.resident() {
            Some(images) => self.stepper.hold(&self.network, &images)?,
            None => false,
        };
        while !self.is_finished() {
            source.start_epoch(self.progress.epoch, self.epoch_seed());
            let mut stop = false;
            while !stop && self.progress.batch < self.n_batches {
                let (reports, ended) = match resident {
                    true => self.steps_on_samples(source, observer.steps_between()),
                    false => {
                        let batch = source.batch(self.progress.batch)?;
                        (vec![self.step(&batch)?], Ok(()))
                    }
                };
                for report in &reports {
                    stop |= observer.after_step(self, report)?.is_break();
                }
                ended?;
            }
            if self.progress.batch == self.n_batches {
                self.settle()?;
                let report = self.end_epoch();
                stop |= observer.after_epoch(self, &report)?.is_break();
            }
            if stop && !self.is_finished() {
                self.settle()?;
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

    /// One step on one batch, of a run that knows how many an epoch has ([`Trainer::epochs_of`]).
    ///
    /// # Errors
    /// [`Error::Zero`] when it does not know. [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::DeviceMismatch`], [`Error::LabelOutOfRange`] or
    /// [`Error::EmptyDistribution`] when the batch does not fit the network or the loss. [`Error::Step`] with the number of the step when the computation
    /// fails: around [`Error::NonFinite`] when logits or a gradient are not finite, around [`Error::Algebra`],
    /// [`Error::Orthonormalisation`] or [`Error::ZeroWeight`] when a parameter has become rank-deficient. All but a
    /// failed clipping leave everything as it was.
    pub fn step(&mut self, batch: &Batch) -> Result<StepReport> {
        check_told(self.n_batches)?;
        let images = self.network.spec().input.batch(&batch.images)?;
        let n_samples = batch.labels.len();
        self.check_images(&images, n_samples)?;
        let batch = &Batch { images, labels: batch.labels.clone() };
        let (loss, update) = self.planned(0);
        let done = self.stepper.step(&self.network, &loss, batch, update);
        let done = done.map_err(|source| in_step(update.step, source))?;
        self.count(n_samples, update, done)
    }

    /// At most `at_once` steps on samples of the images that the device has; how those that were done went, and why the next one was
    /// not.
    fn steps_on_samples(
        &mut self,
        source: &mut dyn BatchSource,
        at_once: usize,
    ) -> (Vec<StepReport>, Result<()>) {
        let (first, n_batches) = (self.progress.batch, self.n_batches);
        let last = first.saturating_add(at_once.max(1)).min(n_batches) - 1;
        // what the host does to the parameters comes between two calls
        let last =
            (first..last).find(|&n| self.network.projects_after(n, n_batches)).unwrap_or(last);
        let batches = match (first..=last).map(|n| source.samples(n)).collect::<Result<Vec<_>>>() {
            Ok(batches) => batches,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let plan: Vec<_> = (0..batches.len()).map(|ahead| self.planned(ahead as u64)).collect();
        let mut done = Vec::new();
        let ended = self.stepper.steps_on_samples(&self.network, &batches, &plan, &mut done);
        let mut reports = Vec::new();
        for ((batch, (_, update)), done) in batches.iter().zip(&plan).zip(done) {
            match self.count(batch.len(), *update, done) {
                Ok(report) => reports.push(report),
                Err(error) => return (reports, Err(error)),
            }
        }
        (reports, ended.map_err(|source| in_step(self.progress.step + 1, source)))
    }

    /// The loss and the update of the step that is `ahead` of the next one.
    fn planned(&self, ahead: u64) -> (Loss, Update) {
        let total = self.config.epochs.saturating_mul(self.n_batches) as u64;
        let Progress { step, epoch, .. } = self.progress;
        let step = step + ahead;
        let TrainConfig { optimizer, averaging, loss, schedule, .. } = self.config;
        let learning_rate = self.config.learning_rate * schedule.factor(epoch, step, total);
        let update = Update { optimizer, averaging, learning_rate, step: step + 1 };
        (loss.at(step as f64 / total.max(1) as f64), update)
    }

    /// Moves on by a step that has been done, after the projection where it is due.
    fn count(
        &mut self,
        n_samples: usize,
        update: Update,
        (loss, n_correct): (f64, usize),
    ) -> Result<StepReport> {
        let Progress { step, epoch, batch: index, .. } = self.progress;
        if self.network.projects_after(index, self.n_batches) {
            self.settle()
                .and_then(|()| self.network.project_after(index, self.n_batches))
                .map_err(|source| in_step(step + 1, source))?;
        }
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
            learning_rate: update.learning_rate,
        })
    }

    /// The logits (b x n_logits) of a batch of images (b x c x h x w) in the network's present state, and the gradient of
    /// `Σ d_logits · logits` with respect to the images. The parameters are constants, and nothing of the run changes.
    /// An orthogonal factor has the defect that a training step allows, on a CPU `projectors::tolerance::applied`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when a tensor does not fit; as
    /// for [`Network::forward`] when a parameter has no orthogonal weight.
    pub fn logits_and_input_gradient(
        &mut self,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let batch = images.dims().first().copied().unwrap_or(0);
        self.check_images(images, batch)?;
        let expected = vec![batch, self.network.n_classes()];
        if d_logits.dims() != expected {
            let (what, got) = ("gradient of the logits".into(), d_logits.dims().to_vec());
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        self.stepper.input_gradient(&self.network, images, d_logits)
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

/// What takes the steps of a run: the engine of the network's device where it runs the network, candle's operations otherwise.
#[cfg_attr(
    not(feature = "cuda-engine"),
    expect(unused_variables, reason = "only a device asks for the settings")
)]
fn stepper(network: &Network, config: &TrainConfig, state: RunState) -> Result<Box<dyn Stepper>> {
    if !network.device().is_cpu() {
        #[cfg(feature = "cuda-engine")]
        if let candle_core::DeviceLocation::Cuda { gpu_id } = network.device().location()
            && CudaStepper::check(network, config).is_ok()
        {
            let place = Place::Device(gpu_id);
            return Ok(Box::new(CudaStepper::new(network, config, place, state)?));
        }
        return Ok(Box::new(PortableStepper::new(network, state)?));
    }
    Ok(match network.dtype() {
        _ if !network.has_block_form() => Box::new(PortableStepper::on_cpu(network, state)?),
        DType::F64 => Box::new(CpuStepper::<f64>::new(state)?),
        _ => Box::new(CpuStepper::<f32>::new(state)?),
    })
}

/// An error of the computation, with the step in which it happened.
fn in_step(step: u64, source: Error) -> Error {
    match source {
        Error::LabelOutOfRange { .. } | Error::EmptyDistribution { .. } => source,
        source => Error::Step { step, source: Box::new(source) },
    }
}
