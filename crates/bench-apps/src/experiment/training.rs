//! A run directory brought forward: from the beginning, or from its checkpoint.
//!
//! Guarantee: on the CPU, a run that was interrupted anywhere (kill -9 included) and resumed ends with the same weights, to the
//! bit, as one that was not. A checkpoint is written every few seconds, after every epoch and on Ctrl-C, always between two
//! steps.
//!
//! Not here: the step itself (`lipconv::Trainer`).

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device};
use lipconv::{BatchSource, EpochReport, Network, Observer, StepReport, Trainer};
use lipconv_datasets::{BatchProducer, Dataset, ImageSet};
use serde::{Deserialize, Serialize};

use super::build::{augmentation, device, network_spec, on_device, train_config};
use super::evaluation::{headline, quick_test};
use crate::config::{RunConfig, require};
use crate::files::{EpochMetrics, JsonLines, RunDir, RunFiles, read_json, write_json};
use crate::interrupt::Watch;
use crate::progress::{Display, Progress};
use crate::stdout::note;
use crate::words::decimals;

/// What training needs besides the run directory.
#[derive(Debug)]
pub struct TrainJob<'a> {
    pub config: &'a RunConfig,
    pub dataset: &'a Dataset,
    /// What its progress is called: training, or the search of a rate.
    pub label: &'static str,
    pub run: &'a RunDir,
    pub display: Display,
    /// Time between checkpoints within an epoch.
    pub checkpoint_every: Duration,
}

#[derive(Debug)]
pub enum Trained {
    /// All epochs are done.
    Finished {
        network: Network,
        /// Time spent, without interruptions and evaluations.
        seconds: f64,
    },
    /// A request to stop came; the checkpoint is written.
    Interrupted { step: u64, total: u64 },
}

/// Time spent at a step, kept beside the checkpoint.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Clock {
    step: u64,
    seconds: f64,
}

/// Trains to the end or to an interruption, from the checkpoint where there is one.
pub fn train(job: &TrainJob<'_>) -> Result<Trained> {
    let watch = Watch::begin(job.checkpoint_every);
    let device = device(job.config.device)?;
    let mut trainer = open_trainer(job, &device)?;
    let training = &job.config.training;
    let augmentation = augmentation(training);
    let images = job.dataset.train.clone();
    let mut source = BatchProducer::new(images, training.batch_size, augmentation, device)?;
    let n_batches = source.n_batches();
    let total = (n_batches * training.epochs) as u64;
    let mut monitor = Monitor::new(job, &trainer, watch, total, n_batches)?;
    // the other run may be gone when this one is resumed
    if job.config.init_from.is_some() && trainer.n_steps() == 0 {
        monitor.save(&trainer)?;
    }
    let outcome = trainer.fit(&mut source, &mut monitor);
    let outcome = monitor.watch.check().and(outcome.map_err(anyhow::Error::from));
    outcome.map_err(|error| explained(error, trainer.n_steps()))?;
    let seconds = monitor.seconds();
    if trainer.is_finished() {
        monitor.progress.finish();
        tracing::info!(seconds, "training finished");
        return Ok(Trained::Finished { network: trainer.averaged_network()?, seconds });
    }
    monitor.save(&trainer)?;
    monitor.progress.finish();
    tracing::info!(step = trainer.n_steps(), "training interrupted");
    Ok(Trained::Interrupted { step: trainer.n_steps(), total })
}

/// The error of a training, with its reason where its numbers are none any more.
fn explained(error: anyhow::Error, step: u64) -> anyhow::Error {
    if error.downcast_ref().is_some_and(is_of_numbers) {
        let advice = "try a smaller learning rate";
        return error.context(format!("training has diverged after step {step}; {advice}"));
    }
    error
}

/// Whether an error says that parameters or gradients are no numbers any more, or zero.
pub(crate) fn is_of_numbers(error: &lipconv::Error) -> bool {
    use lipconv::Error as E;
    match error {
        E::Step { source, .. } => is_of_numbers(source),
        E::NonFinite { .. } | E::NonFiniteSomewhere { .. } => true,
        E::ZeroWeight { .. } | E::ZeroRow { .. } => true,
        E::Algebra { .. } | E::Orthonormalisation { .. } => true,
        _ => false,
    }
}

/// The trainer of a run, from the checkpoint where there is one.
pub fn open_trainer(job: &TrainJob<'_>, device: &Device) -> Result<Trainer> {
    let checkpoint = job.run.files().checkpoint();
    let settings = train_config(&job.config.training);
    if !checkpoint.is_file() {
        let network = first_network(job.config, &job.dataset.train, device)?;
        return on_device(Trainer::new(network, settings)?, job.config.device);
    }
    let spec = network_spec(&job.config.network, &job.dataset.train)?;
    let mut trainer = Trainer::resume(&checkpoint, device)?;
    // a run may be planned for other epochs than its checkpoint was, but not for fewer than are done
    let n_batches = job.dataset.train.len().div_ceil(job.config.training.batch_size);
    let done = trainer.n_steps().div_ceil(n_batches.max(1) as u64);
    require(
        settings.epochs as u64 >= done,
        "training.epochs",
        settings.epochs,
        &format!("at least {done}, which are begun"),
    )?;
    if settings.epochs != trainer.config().epochs {
        trainer = trainer.planned_for(settings.epochs, settings.schedule)?;
    }
    let fits = *trainer.network().spec() == spec && *trainer.config() == settings;
    ensure!(
        fits,
        "{} holds another network or other training settings than config.toml beside it",
        checkpoint.display()
    );
    on_device(trainer, job.config.device)
}

/// The network that a run begins with.
pub fn first_network(config: &RunConfig, images: &ImageSet, device: &Device) -> Result<Network> {
    let spec = network_spec(&config.network, images)?;
    let Some(from) = &config.init_from else {
        let network = Network::new(&spec, DType::F32, device, config.training.seed)?;
        return Ok(match config.network.gain {
            Some(gain) => network.with_gain(gain)?,
            None => network,
        });
    };
    let other = Trainer::resume(&RunFiles::open(from)?.checkpoint(), device)
        .with_context(|| format!("cannot begin with the network of {}", from.display()))?;
    let fits = *other.network().spec() == spec;
    ensure!(
        fits,
        "{} holds another network than this run's, expected the same layers, image size and classes",
        from.display()
    );
    Ok(other.averaged_network()?)
}

/// Shows progress, writes checkpoints and the history, and stops the run when asked to.
struct Monitor<'a> {
    job: &'a TrainJob<'a>,
    watch: Watch,
    log: JsonLines<EpochMetrics>,
    progress: Progress,
    n_batches: usize,
    /// Time of earlier processes.
    seconds_before: f64,
    start: Instant,
    learning_rate: f64,
    recent: Recent,
}

/// Exponentially weighted means over about 50 steps, for the display alone.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    weight: f64,
    loss: f64,
    correct: f64,
}

impl Recent {
    fn add(&mut self, report: &StepReport) {
        let share = report.n_correct as f64 / report.n_samples.max(1) as f64;
        self.weight = 0.98 * self.weight + 1.0;
        self.loss += (report.loss - self.loss) / self.weight;
        self.correct += (share - self.correct) / self.weight;
    }
}

impl<'a> Monitor<'a> {
    fn new(
        job: &'a TrainJob<'a>,
        trainer: &Trainer,
        watch: Watch,
        total: u64,
        n_batches: usize,
    ) -> Result<Self> {
        // without a readable clock the time spent so far is unknown, and training goes on
        let before: Clock = read_json(&job.run.files().clock()).ok().flatten().unwrap_or_default();
        let seconds_before = if trainer.n_steps() == 0 { 0.0 } else { before.seconds.max(0.0) };
        let log = job.run.metrics_at(trainer.n_steps())?;
        let path = trainer.path();
        tracing::info!(step = trainer.n_steps(), total, path, "training");
        Ok(Self {
            job,
            watch,
            log,
            progress: Progress::new(job.display, job.label, trainer.n_steps(), total),
            n_batches,
            seconds_before,
            start: Instant::now(),
            learning_rate: 0.0,
            recent: Recent::default(),
        })
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }

    fn save(&mut self, trainer: &Trainer) -> Result<()> {
        let files = self.job.run.files();
        trainer.save(&files.checkpoint())?;
        let clock = Clock { step: trainer.n_steps(), seconds: self.seconds() };
        write_json(&files.clock(), &clock)?;
        self.watch.saved();
        Ok(())
    }

    fn step_done(&mut self, trainer: &Trainer, report: &StepReport) -> Result<()> {
        self.learning_rate = report.learning_rate;
        self.recent.add(report);
        let message = format!(
            "epoch {}/{}, loss {}, accuracy {:.1} %",
            report.epoch + 1,
            self.job.config.training.epochs,
            decimals(self.recent.loss),
            100.0 * self.recent.correct
        );
        self.progress.update(report.step, &message);
        // after the last batch the epoch ends at once, and is saved then together with its line of history
        let within_epoch = report.batch + 1 < self.n_batches;
        if within_epoch && self.watch.is_save_due() {
            self.save(trainer)?;
        }
        Ok(())
    }

    fn epoch_done(&mut self, trainer: &Trainer, report: &EpochReport) -> Result<()> {
        let RunConfig { training, evaluation, .. } = self.job.config;
        let n_epochs = report.epoch + 1;
        let test = match n_epochs.is_multiple_of(evaluation.every) || n_epochs == training.epochs {
            true => {
                let begin = Instant::now();
                let plain = trainer.averaged_network()?.materialize()?;
                let test = quick_test(&plain, &self.job.dataset.test, evaluation)?;
                // the clock stands still meanwhile
                self.start += begin.elapsed();
                Some(test)
            }
            false => None,
        };
        let row = EpochMetrics {
            epoch: report.epoch + 1,
            step: trainer.n_steps(),
            loss: report.loss,
            train_clean: 100.0 * report.n_correct as f64 / report.n_samples.max(1) as f64,
            learning_rate: self.learning_rate,
            seconds: self.seconds(),
            test_clean: test.as_ref().map(|test| test.clean),
            test_certified: test.map(|test| test.certified),
        };
        self.log.push(&row)?;
        // an epoch that is not evaluated may be a second long
        if row.test_clean.is_some() || self.watch.is_save_due() {
            self.save(trainer)?;
        }
        if !row.loss.is_finite() {
            note(
                "the loss is no number any more: training has diverged; try a smaller learning rate",
            );
        }
        let line = epoch_line(&row, self.job.config);
        tracing::info!("{line}");
        self.progress.note(&line);
        Ok(())
    }
}

fn epoch_line(row: &EpochMetrics, config: &RunConfig) -> String {
    let certified = row.test_certified.as_ref().and_then(|by_eps| {
        let eps = headline(&config.evaluation)?.text();
        Some(format!(", certified at {eps} {:.2} %", by_eps.get(eps)?))
    });
    format!(
        "epoch {}/{}: loss {}, train {:.2} %{}{}",
        row.epoch,
        config.training.epochs,
        decimals(row.loss),
        row.train_clean,
        row.test_clean.map(|clean| format!(", test {clean:.2} %")).unwrap_or_default(),
        certified.unwrap_or_default()
    )
}

impl Observer for Monitor<'_> {
    fn steps_between(&self) -> usize {
        // a tenth of a second of the slowest network
        32
    }

    fn after_step(
        &mut self,
        trainer: &Trainer,
        report: &StepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let outcome = self.step_done(trainer, report);
        Ok(self.watch.decide(outcome))
    }

    fn after_epoch(
        &mut self,
        trainer: &Trainer,
        report: &EpochReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let outcome = self.epoch_done(trainer, report).context("after an epoch");
        Ok(self.watch.decide(outcome))
    }
}
