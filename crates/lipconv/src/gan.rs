//! Training a generator against a 1-Lipschitz critic.
//!
//! Definition. The critic f, a [`Network`] of one output that is 1-Lipschitz by construction, ascends
//! `E f(x) - E f(G(z))` over images x of the data and latent vectors z, the dual objective of the Wasserstein
//! distance ([`Loss::Wasserstein`], data = A, generated = B); the generator G descends the same, that is, it ascends
//! `E f(G(z))`, once for every `n_critic` steps of the critic. No gradient penalty and no clipping: the constraint is in
//! the layers.
//!
//! The generator's gradient is the critic's input gradient at the generated images, fed into candle's graph of the
//! generator as `Σ d_images · G(z)`. Both steps generate by the statistics of their own batch, and the running ones take both up.
//!
//! A [`GanTrainer`] knows no data set, clock, file name or terminal, as [`Trainer`] does not: images come from a
//! [`BatchSource`] whose labels are ignored, and a [`GanObserver`] sees every step and may stop the run. One
//! step is one of the critic. All random numbers come from the configuration's seed; a run resumed from its
//! [checkpoint](GanTrainer::save) at any step ends with the same bits as one that was never interrupted (on the CPU, with the
//! same binary).
//!
//! Errors: a critic's step that fails changes nothing. A generator's step that fails leaves the generator as it was, after the
//! critic's.
//!
//! Source: Arjovsky, Chintala, Bottou, "Wasserstein GAN" (2017); Anil, Lucas, Grosse, "Sorting out Lipschitz function
//! approximation" (2019) for critics with the constraint built in. The defaults are the paper's settings (Adam 2e-4, β 0.5 and
//! 0.999).

mod checkpoint;
mod descent;

use std::ops::ControlFlow;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::generator::{Generator, TrainForward, draw_latents};
use crate::loss::{DISTRIBUTION_A, DISTRIBUTION_B, Loss};
use crate::network::Network;
use crate::optim::{AdamConfig, Averaging, Optimizer, Schedule, Update};
use crate::train::{Batch, BatchSource, Outcome, StepReport, TrainConfig, Trainer};
use descent::VariableState;

/// How one of the two players moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlayerConfig {
    /// Initial learning rate.
    pub learning_rate: f64,
    /// How it falls, over the critic's steps.
    pub schedule: Schedule,
    /// What changes the parameters.
    pub optimizer: Optimizer,
}

impl Default for PlayerConfig {
    /// Adam with rate 2e-4 and β 0.5 and 0.999, constant.
    fn default() -> Self {
        let adam = AdamConfig { beta1: 0.5, ..AdamConfig::default() };
        let (learning_rate, schedule) = (2e-4, Schedule::Constant);
        Self { learning_rate, schedule, optimizer: Optimizer::Adam(adam) }
    }
}

/// Settings of the training of a generator.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GanConfig {
    /// Passes of the critic over the data.
    pub epochs: usize,
    /// Steps of the critic for one of the generator.
    pub n_critic: usize,
    /// The critic's side.
    pub critic: PlayerConfig,
    /// The generator's side.
    pub generator: PlayerConfig,
    /// Seed of the order of the data and of the latent vectors.
    pub seed: u64,
}

impl GanConfig {
    /// Checks every domain.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] or [`Error::Zero`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        if self.n_critic == 0 {
            return Err(Error::Zero { what: "n_critic".into() });
        }
        self.train_config(self.critic).validate()?;
        self.train_config(self.generator).validate()
    }

    /// One side as the settings of a trainer.
    fn train_config(&self, player: PlayerConfig) -> TrainConfig {
        let PlayerConfig { learning_rate, schedule, optimizer } = player;
        let (epochs, seed) = (self.epochs, self.seed);
        let (averaging, loss) = (Averaging::None, Loss::Wasserstein);
        TrainConfig { epochs, learning_rate, schedule, optimizer, averaging, loss, seed }
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GanStepReport {
    /// Steps of the critic in the whole run, this one included.
    pub step: u64,
    /// 0-based epoch.
    pub epoch: usize,
    /// 0-based index of the batch in its epoch.
    pub batch: usize,
    /// `mean f(x) - mean f(G(z))` of the critic's batch before its update.
    pub objective: f64,
    /// `mean f(G(z))` of the generator's batch before its update, where this step had one.
    pub generator: Option<f64>,
    /// Images of the data in the batch.
    pub n_images: usize,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GanEpochReport {
    /// 0-based epoch.
    pub epoch: usize,
    /// Mean of the critic's objective over the samples.
    pub objective: f64,
}

/// Sees a run go by; `Break` stops it after the current step or epoch.
pub trait GanObserver {
    /// After every step.
    ///
    /// # Errors
    /// Ends the run with the error.
    fn after_step(
        &mut self,
        _trainer: &GanTrainer,
        _report: &GanStepReport,
    ) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// After every epoch.
    ///
    /// # Errors
    /// Ends the run with the error.
    fn after_epoch(
        &mut self,
        _trainer: &GanTrainer,
        _report: &GanEpochReport,
    ) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

/// An observer that lets everything pass.
impl GanObserver for () {}

/// Trains one generator.
#[derive(Debug)]
pub struct GanTrainer {
    generator: Generator,
    /// The critic with its place in the run, which is that of the whole.
    critic: Trainer,
    config: GanConfig,
    state: VariableState,
    /// Where latent vectors come from.
    rng: ChaCha8Rng,
}

/// Of a batch of latent vectors.
struct GeneratorGradient {
    forward: TrainForward,
    /// mean f(G(z))
    value: f64,
    /// Of -value, with respect to the generator's parameters.
    gradients: GradStore,
}

impl GanTrainer {
    /// A run from its beginning.
    ///
    /// # Errors
    /// As for [`GanConfig::validate`]; [`Error::NumberOfOutputs`], [`Error::ShapeMismatch`], [`Error::DTypeMismatch`] or
    /// [`Error::DeviceMismatch`] when critic and generator do not fit each other.
    pub fn new(generator: Generator, critic: Network, config: GanConfig) -> Result<Self> {
        config.validate()?;
        check_fit(&generator, &critic)?;
        let critic = Trainer::new(critic, config.train_config(config.critic))?;
        let state = VariableState::new(&config.generator.optimizer, &generator.variables())?;
        Ok(Self { generator, critic, config, state, rng: latent_rng(&config) })
    }

    /// As [`GanTrainer::new`], with the critic's steps and both updates in candle's operations even on the CPU: slow there,
    /// and the same path that a GPU takes.
    ///
    /// # Errors
    /// As [`GanTrainer::new`].
    pub fn portable(generator: Generator, critic: Network, config: GanConfig) -> Result<Self> {
        config.validate()?;
        check_fit(&generator, &critic)?;
        let state = VariableState::on_device(&config.generator.optimizer, &generator.variables())?;
        let critic = Trainer::portable(critic, config.train_config(config.critic))?;
        Ok(Self { generator, critic, config, state, rng: latent_rng(&config) })
    }

    /// The generator in its present state.
    #[must_use]
    pub fn generator(&self) -> &Generator {
        &self.generator
    }

    /// The critic in its present state.
    #[must_use]
    pub fn critic(&self) -> &Network {
        self.critic.network()
    }

    /// The run's settings.
    #[must_use]
    pub fn config(&self) -> &GanConfig {
        &self.config
    }

    /// Sets the number of batches in an epoch, which the schedules need. [`GanTrainer::fit`] takes it from its source.
    ///
    /// # Errors
    /// As for [`Trainer::epochs_of`].
    pub fn epochs_of(mut self, n_batches: usize) -> Result<Self> {
        self.critic.plan_epochs(n_batches).map(|()| self)
    }

    /// Steps of the critic done so far.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        self.critic.n_steps()
    }

    /// The epoch that the next step belongs to.
    #[must_use]
    pub fn epoch(&self) -> usize {
        self.critic.epoch()
    }

    /// Whether all epochs are done.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.critic.is_finished()
    }

    /// Gives up the run and keeps the generator.
    #[must_use]
    pub fn into_generator(self) -> Generator {
        self.generator
    }

    /// Trains to the end, or until the observer stops.
    ///
    /// # Errors
    /// Those of [`GanTrainer::step`], of the source and of the observer; [`Error::Zero`] when the source has no batches,
    /// [`Error::InvalidSetting`] when more are done in the present epoch than it has.
    pub fn fit(
        &mut self,
        source: &mut dyn BatchSource,
        observer: &mut dyn GanObserver,
    ) -> Result<Outcome> {
        self.critic.plan_epochs(source.n_batches())?;
        while !self.is_finished() {
            source.start_epoch(self.epoch(), self.critic.epoch_seed());
            let mut stop = false;
            while !stop && self.critic.progress.batch < self.critic.n_batches {
                let batch = source.batch(self.critic.progress.batch)?;
                let report = self.step(&batch.images)?;
                stop = observer.after_step(self, &report)?.is_break();
            }
            if self.critic.progress.batch == self.critic.n_batches {
                let totals = self.critic.end_epoch();
                let report = GanEpochReport { epoch: totals.epoch, objective: -totals.loss };
                stop |= observer.after_epoch(self, &report)?.is_break();
            }
            if stop && !self.is_finished() {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// One step of the critic on images of the data and as many generated ones and, after every `n_critic` of them, one of
    /// the generator, of a run that knows how many an epoch has ([`GanTrainer::epochs_of`]).
    ///
    /// # Errors
    /// [`Error::Zero`] when it does not know; [`Error::ShapeMismatch`], [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when the images do not fit;
    /// [`Error::InvalidSetting`] for a batch of one image, which batch normalisation cannot take; [`Error::Step`] when the computation
    /// fails.
    pub fn step(&mut self, images: &Tensor) -> Result<GanStepReport> {
        let n_images = images.dims().first().copied().unwrap_or(0);
        self.critic.check_images(images, n_images)?;
        let rng = self.rng.clone();
        let done = self.critic_step(images);
        if done.is_err() {
            self.rng = rng;
        }
        let done = done?;
        let generator = match done.step.is_multiple_of(self.config.n_critic as u64) {
            false => None,
            true => {
                let in_step = |source| Error::Step { step: done.step, source: Box::new(source) };
                Some(self.generator_step(n_images).map_err(in_step)?)
            }
        };
        let (step, epoch, batch, objective) = (done.step, done.epoch, done.batch, -done.loss);
        Ok(GanStepReport { step, epoch, batch, objective, generator, n_images })
    }

    fn critic_step(&mut self, images: &Tensor) -> Result<StepReport> {
        let n = images.dims()[0];
        let latents = self.latents(n)?;
        let forward = self.generator.forward_batch(&latents)?;
        let both = Tensor::cat(&[images, &forward.images.detach()], 0)?;
        let mut labels = vec![DISTRIBUTION_A; n];
        labels.resize(2 * n, DISTRIBUTION_B);
        let report = self.critic.step(&Batch { images: both, labels })?;
        self.generator.update_statistics(&forward)?;
        Ok(report)
    }

    /// Moves the generator up the critic's slope; returns the critic's mean before.
    fn generator_step(&mut self, n: usize) -> Result<f64> {
        let latents = self.latents(n)?;
        let GeneratorGradient { forward, value, gradients } = self.generator_gradient(&latents)?;
        let update = self.generator_update();
        self.state.step(&self.generator.variables(), &gradients, update)?;
        self.generator.update_statistics(&forward)?;
        Ok(value)
    }

    /// The gradient of `-mean f(G(z))`.
    fn generator_gradient(&mut self, latents: &Tensor) -> Result<GeneratorGradient> {
        let forward = self.generator.forward_batch(latents)?;
        let images = forward.images.detach();
        let n = images.dims()[0];
        let ones = Tensor::ones((n, 1), images.dtype(), images.device())?;
        let d_values = (ones * (-1.0 / n as f64))?;
        let (values, d_images) = self.critic.logits_and_input_gradient(&images, &d_values)?;
        let gradients = (&forward.images * d_images)?.sum_all()?.backward()?;
        let value = values.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(GeneratorGradient { forward, value, gradients })
    }

    /// The optimiser's step for the generator, after the critic's step has been counted.
    fn generator_update(&self) -> Update {
        let PlayerConfig { learning_rate, schedule, optimizer } = self.config.generator;
        let steps = self.critic.n_steps();
        let total = self.config.epochs.saturating_mul(self.critic.n_batches) as u64;
        let factor = schedule.factor(self.critic.epoch(), steps - 1, total);
        let step = steps / self.config.n_critic as u64;
        let learning_rate = learning_rate * factor;
        Update { optimizer, averaging: Averaging::None, learning_rate, step }
    }

    fn latents(&mut self, n: usize) -> Result<Tensor> {
        let Self { generator, rng, .. } = self;
        draw_latents(generator.spec().latent, n, rng, generator.dtype(), generator.device())
    }
}

/// Another stream than the order of the data, which has the same seed.
fn latent_rng(config: &GanConfig) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(1);
    rng
}

/// Whether the critic takes the generator's images.
fn check_fit(generator: &Generator, critic: &Network) -> Result<()> {
    let (output, input) = (generator.spec().output, critic.spec().input);
    if output != input {
        return Err(Error::ShapeMismatch {
            what: "image of the generator".into(),
            expected: vec![input.channels, input.height, input.width],
            got: vec![output.channels, output.height, output.width],
        });
    }
    if generator.dtype() != critic.dtype() {
        let expected = critic.dtype().as_str().into();
        let got = generator.dtype().as_str().into();
        return Err(Error::DTypeMismatch { what: "generator".into(), expected, got });
    }
    let weight = generator.variables().swap_remove(0).1;
    crate::plain::check_same_device("generator", critic.device(), &weight)
}

#[cfg(test)]
mod tests;
