//! A generator brought forward, from the beginning or from its checkpoint, in a folder of its own.
//!
//! Definition: the folder holds `gan.json` (the settings), `checkpoint.safetensors`, `samples/step-N.png` (64 images of the same latent
//! vectors after N steps, by the statistics that a frozen generator has), `history.jsonl`, `sums.json` and, at the end,
//! `generator.safetensors`: the frozen generator. One process writes at a time.
//!
//! Guarantee: on the CPU, an interrupted training ends with the same generator, to the bit, as an uninterrupted one. Nothing is written
//! before every setting is checked and the folder is held and claimed, nor into the folder of something else. A generator with
//! numbers that are not finite is never the result.
//!
//! Errors: [`Error::RunLocked`], [`Error::OtherRun`] for a folder that was begun with other settings, [`Error::Malformed`] for the
//! folder of something else; a training that diverged, with its step and the cause; those of files and tensors.
//!
//! Source: Li et al. 2019, section 5.3, with a 1-Lipschitz critic in place of a gradient penalty.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use certify::Distribution;
use lipconv::gan::{GanConfig, GanObserver, GanStepReport, GanTrainer, PlayerConfig};
use lipconv::generator::{FrozenGenerator, Generator, GeneratorSpec};
use lipconv::{Batch, ImageShape, Methods, Network, NetworkSpec, Outcome, Schedule};
use lipconv_datasets::png_grid;
use serde::{Deserialize, Serialize};

use super::distribution::{Drawn, ImagePool, batch_seed};
use super::{check_own, number_text};
use crate::error::Error;
use crate::experiment::training::is_of_numbers;
use crate::files::{Claim, JsonLines, claim, lock_folder, read_json, write_atomic, write_json};
use crate::interrupt::Watch;
use crate::progress::{Display, Progress};

/// What the folder was begun for.
const BEGUN: &str = "gan.json";
/// Running sums that belong to a checkpoint.
const SUMS: &str = "sums.json";
/// Files of other runs, and those that are written here after [`BEGUN`].
const FOREIGN: [&str; 12] = [
    "config.toml",
    "network.safetensors",
    "metrics.jsonl",
    "cell.json",
    "wasserstein.json",
    "checkpoint.safetensors",
    "generator.safetensors",
    "samples",
    "history.jsonl",
    SUMS,
    "versions.json",
    "log.txt",
];
/// Images of a grid, and how many stand in a row.
const GRID: (usize, usize) = (64, 8);
/// Seed of the latent vectors of the grids.
const GRID_SEED: u64 = 0x9e1d;

/// Settings of a generator and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct GanSettings {
    /// Features of the generator's first layer; the paper's are 1024.
    #[arg(skip = Self::default().hidden)]
    pub hidden: usize,
    /// Channels of its first image; the paper's are 32.
    #[arg(skip = Self::default().channels)]
    pub channels: usize,
    /// Width of the critic; 1 is the paper's
    #[arg(long, value_name = "X", default_value_t = Self::default().critic_width, allow_negative_numbers = true)]
    pub critic_width: f64,
    /// Steps of the critic
    #[arg(long, value_name = "N", default_value_t = Self::default().steps)]
    pub steps: usize,
    /// Steps of the critic for one of the generator
    #[arg(long, value_name = "N", default_value_t = Self::default().n_critic)]
    pub n_critic: usize,
    /// Images of the data in a step
    #[arg(long, value_name = "N", default_value_t = Self::default().batch_size)]
    pub batch_size: usize,
    /// Adam's initial step size for the generator; both step sizes fall linearly to 0
    #[arg(long, value_name = "X", default_value_t = Self::default().learning_rate, allow_negative_numbers = true)]
    pub learning_rate: f64,
    /// Adam's initial step size for the critic
    #[arg(long, value_name = "X", default_value_t = Self::default().critic_learning_rate, allow_negative_numbers = true)]
    pub critic_learning_rate: f64,
    /// Seed of initialisation, latent vectors and the order of images
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

impl Default for GanSettings {
    fn default() -> Self {
        Self {
            hidden: 1024,
            channels: 32,
            critic_width: 0.25,
            steps: 6000,
            n_critic: 2,
            batch_size: 64,
            learning_rate: 5e-4,
            critic_learning_rate: 1e-3,
            seed: 0,
        }
    }
}

impl GanSettings {
    /// Refuses every number that no training could have, by its flag.
    pub fn validate(&self) -> Result<()> {
        for (flag, n) in [("--steps", self.steps), ("--n-critic", self.n_critic)] {
            ensure!((1..=100_000_000).contains(&n), "{flag} is {n}, expected 1 to 100000000");
        }
        // batch normalisation of one image divides by nothing
        let n = self.batch_size;
        ensure!((2..=65_536).contains(&n), "--batch-size is {n}, expected 2 to 65536");
        let rates = [
            ("--learning-rate", self.learning_rate),
            ("--critic-learning-rate", self.critic_learning_rate),
        ];
        for (flag, rate) in rates {
            let shown = number_text(rate);
            ensure!(
                rate.is_finite() && rate > 0.0,
                "{flag} is {shown}, expected a positive number"
            );
        }
        // what depends on the images is checked with them
        let shape = ImageShape::new(3, 32, 32);
        let width = number_text(self.critic_width);
        ensure!(
            NetworkSpec::critic(shape, Methods::BCOP, self.critic_width).is_ok(),
            "--critic-width is {width}, expected a positive factor that leaves every width an even whole number"
        );
        // no flag sets the others
        self.generator(shape).validate()?;
        Ok(self.config().validate()?)
    }

    fn generator(&self, shape: ImageShape) -> GeneratorSpec {
        let (hidden, channels) = (self.hidden, self.channels);
        GeneratorSpec { hidden, channels, ..GeneratorSpec::paper(shape) }
    }

    fn config(&self) -> GanConfig {
        // falling to 0: the images settle instead of following the critic's last turn
        let schedule = Schedule::Linear;
        let rate =
            |learning_rate| PlayerConfig { learning_rate, schedule, ..PlayerConfig::default() };
        GanConfig {
            epochs: 1,
            n_critic: self.n_critic,
            critic: rate(self.critic_learning_rate),
            generator: rate(self.learning_rate),
            seed: self.seed,
        }
    }
}

/// What the folder was begun with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Begun {
    settings: GanSettings,
    /// Name and shape of the images.
    images: String,
    shape: [usize; 3],
    synthetic: bool,
    train_sha256: String,
}

#[derive(Debug)]
pub struct GanJob<'a> {
    pub settings: &'a GanSettings,
    /// Images; only those for training are used.
    pub images: &'a ImagePool,
    pub device: &'a Device,
    pub folder: &'a Path,
    pub grid_every: usize,
    pub checkpoint_every: Duration,
    pub display: Display,
}

#[derive(Debug)]
pub enum GanEnd {
    /// The frozen generator, which is saved as well.
    Finished(Box<FrozenGenerator>),
    /// A request to stop came; the checkpoint is written.
    Interrupted { step: u64 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GanMetrics {
    /// Steps of the critic.
    pub step: u64,
    /// What the critic shows between images and generated ones, mean over the steps since the line before.
    pub objective: f64,
}

/// The objectives since the last line of the history, as they stood at a checkpoint.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sum {
    step: u64,
    sum: f64,
    n: usize,
}

/// Where the frozen generator of a folder is, or will be.
pub fn generator_file(folder: &Path) -> PathBuf {
    folder.join("generator.safetensors")
}

/// The newest grid of a folder.
pub fn last_grid(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder.join("samples")).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "png"));
    paths.sort();
    paths.pop()
}

/// A folder that is held as long as this lives, and was begun for a job.
#[derive(Debug)]
pub struct Claimed {
    _lock: File,
}

/// Holds the folder of a job and records what it is for, or checks that it is for this.
///
/// What cannot be trained or built is refused before the folder is made, and the folder of something else before anything is written
/// there.
pub fn claim_folder(job: &GanJob<'_>) -> Result<Claimed> {
    job.settings.validate()?;
    new_players(job).map(drop)?;
    let check_own = || check_own(job.folder, BEGUN, &FOREIGN, "a generator's run");
    check_own()?;
    let lock = lock_folder(job.folder)?;
    check_own()?;
    begin(job)?;
    Ok(Claimed { _lock: lock })
}

/// Claims the folder and trains to the end or to an interruption.
pub fn train_gan(job: &GanJob<'_>) -> Result<GanEnd> {
    train_claimed(job, &claim_folder(job)?)
}

/// Trains in a folder that was claimed for the job.
pub fn train_claimed(job: &GanJob<'_>, _claimed: &Claimed) -> Result<GanEnd> {
    let file = generator_file(job.folder);
    if file.is_file() {
        let generator = FrozenGenerator::load(&file, job.device)?;
        return Ok(GanEnd::Finished(Box::new(generator)));
    }
    let watch = Watch::begin(job.checkpoint_every);
    let mut trainer = open(job)?;
    // all in one long epoch
    let mut images = Drawn::new(job.settings.steps, |seed, index| real_images(job, seed, index));
    let mut monitor = Monitor::new(job, watch, trainer.n_steps())?;
    if trainer.n_steps() == 0 {
        monitor.grid(&trainer)?;
    }
    let outcome = trainer.fit(&mut images, &mut monitor);
    monitor.watch.check()?;
    if outcome.map_err(step_failed)? == Outcome::Stopped {
        monitor.save(&trainer)?;
        return Ok(GanEnd::Interrupted { step: trainer.n_steps() });
    }
    let frozen = monitor.grid(&trainer)?;
    monitor.progress.finish();
    frozen.save(&file)?;
    Ok(GanEnd::Finished(Box::new(frozen)))
}

/// What the error of a step means: a training that diverged, where the numbers themselves are the reason.
fn step_failed(error: lipconv::Error) -> anyhow::Error {
    match error {
        lipconv::Error::Step { step, source } if is_of_numbers(&source) => diverged(step, *source),
        other => other.into(),
    }
}

fn diverged(step: u64, cause: lipconv::Error) -> anyhow::Error {
    anyhow::Error::new(cause).context(format!(
        "training has diverged at step {step}; try smaller learning rates, in another folder"
    ))
}

/// Checks that all numbers of a tensor after a step are finite.
fn check_finite(step: u64, what: &str, tensor: &Tensor) -> Result<()> {
    // 0 for finite numbers, NaN otherwise
    let sum = (tensor * 0.0)?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if sum == 0.0 {
        return Ok(());
    }
    Err(diverged(step, lipconv::Error::NonFiniteSomewhere { what: what.to_owned() }))
}

/// Records what the folder is for, or checks that it is for this.
fn begin(job: &GanJob<'_>) -> Result<()> {
    let images = job.images.training_images();
    let present = Begun {
        settings: job.settings.clone(),
        images: job.images.name(),
        shape: job.images.shape(),
        synthetic: job.images.is_synthetic(),
        train_sha256: images.sha256(),
    };
    if claim(&job.folder.join(BEGUN), &present)? != Claim::Other {
        return Ok(());
    }
    let what = "with other settings or other images; choose another folder".into();
    Err(Error::OtherRun { path: job.folder.to_owned(), what }.into())
}

fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

fn open(job: &GanJob<'_>) -> Result<GanTrainer> {
    let path = checkpoint(job.folder);
    if path.is_file() {
        return Ok(GanTrainer::resume(&path, job.device)?);
    }
    let (generator, critic) = new_players(job)?;
    Ok(GanTrainer::new(generator, critic, job.settings.config())?)
}

fn new_players(job: &GanJob<'_>) -> Result<(Generator, Network)> {
    let (settings, [c, h, w]) = (job.settings, job.images.shape());
    let shape = ImageShape::new(c, h, w);
    let generator =
        Generator::new(&settings.generator(shape), DType::F32, job.device, settings.seed)?;
    let critic = NetworkSpec::critic(shape, Methods::BCOP, settings.critic_width)?;
    let critic = Network::new(&critic, DType::F32, job.device, settings.seed)
        .with_context(|| format!("images of {h} x {w}"))?;
    Ok((generator, critic))
}

/// A batch of real images.
fn real_images(job: &GanJob<'_>, epoch_seed: u64, index: usize) -> lipconv::Result<Batch> {
    let n = job.settings.batch_size;
    let images = job.images.draw(n, batch_seed(epoch_seed, index, 0))?;
    Ok(Batch { images: images.to_device(job.device)?, labels: vec![0; n] })
}

/// Shows progress, saves, draws grids, and stops when asked to.
struct Monitor<'a> {
    job: &'a GanJob<'a>,
    watch: Watch,
    progress: Progress,
    history: JsonLines<GanMetrics>,
    /// At the last checkpoint, which may be the one that an interruption leaves.
    saved: Sum,
    sum: Sum,
}

impl<'a> Monitor<'a> {
    fn new(job: &'a GanJob<'a>, watch: Watch, step: u64) -> Result<Self> {
        let progress = Progress::new(job.display, "generator", step, job.settings.steps as u64);
        // what lies after the checkpoint will be written again
        let history = job.folder.join("history.jsonl");
        let history = JsonLines::open(&history, |row: &GanMetrics| row.step <= step)?;
        let sums: Vec<Sum> = read_json(&job.folder.join(SUMS))?.unwrap_or_default();
        let sum = sums.into_iter().find(|sum| sum.step == step).unwrap_or_default();
        Ok(Self { job, watch, progress, history, saved: sum, sum })
    }

    fn save(&mut self, trainer: &GanTrainer) -> Result<()> {
        self.sum.step = trainer.n_steps();
        // first, and together with the one before: whichever checkpoint is left has its own
        write_json(&self.job.folder.join(SUMS), &[self.saved, self.sum])?;
        trainer.save(&checkpoint(self.job.folder))?;
        self.saved = self.sum;
        self.watch.saved();
        Ok(())
    }

    /// Freezes the generator and writes images of it.
    fn grid(&self, trainer: &GanTrainer) -> Result<FrozenGenerator> {
        let (frozen, step) = (trainer.generator().freeze()?, trainer.n_steps());
        for (name, weight, bias) in frozen.layers() {
            check_finite(step, &format!("{name}.weight of the generator"), weight)?;
            check_finite(step, &format!("{name}.bias of the generator"), bias)?;
        }
        let images: Tensor = frozen.sample(GRID.0, GRID_SEED, 0)?;
        check_finite(step, "the generated images", &images)?;
        let name = format!("samples/step-{step:06}.png");
        write_grid(&self.job.folder.join(name), &images, GRID.1)?;
        Ok(frozen)
    }

    fn record(&mut self, step: u64) -> Result<()> {
        let Sum { sum, n, .. } = std::mem::take(&mut self.sum);
        Ok(self.history.push(&GanMetrics { step, objective: sum / n.max(1) as f64 })?)
    }

    fn step_done(&mut self, trainer: &GanTrainer, report: &GanStepReport) -> Result<()> {
        self.sum.sum += report.objective;
        self.sum.n += 1;
        let mean = self.sum.sum / self.sum.n as f64;
        self.progress.update(report.step, &format!("objective {mean:.3}"));
        if report.step.is_multiple_of(self.job.grid_every.max(1) as u64) {
            self.grid(trainer)?;
            self.record(report.step)?;
        }
        if self.watch.is_save_due() {
            self.save(trainer)?;
        }
        Ok(())
    }
}

impl GanObserver for Monitor<'_> {
    fn after_step(
        &mut self,
        trainer: &GanTrainer,
        report: &GanStepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let outcome = self.step_done(trainer, report);
        Ok(self.watch.decide(outcome))
    }
}

/// Writes images as one picture, `n_columns` in a row.
pub fn write_grid(path: &Path, images: &Tensor, n_columns: usize) -> crate::Result<()> {
    write_atomic(path, &png_grid(images, n_columns)?)
}
