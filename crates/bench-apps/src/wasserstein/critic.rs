//! Critics: the network, its training settings, and its training from the beginning or from a checkpoint.
//!
//! Definition: the paper's critic has convolutions 64, 128, 256 and 512 of kernel 4 and stride 2 and a linear layer to one output, times a
//! width; the *vector* critic is for low-dimensional exact distributions on 1 x 8 x 8. Training is RMSprop on minus the dual
//! objective, the learning rate falling by the paper's factor 0.96235^256 over the whole run, however short. Every step draws 64
//! samples (say) of each distribution and moves f to raise mean_A f - mean_B f. Some 12 times over the run the critic is frozen,
//! bounded and measured on samples kept for choosing: the curve.
//!
//! Guarantee: as for classifiers, on the CPU an interrupted training ends with the same weights as an uninterrupted one. A step that
//! cannot be computed (weights beyond what f32 holds) ends the training, and the critic before it is the result: any
//! critic gives a lower bound.
//!
//! Source: Li et al. 2019, section 5.3, and the authors' settings: 256 epochs of 100 steps of 64 + 64 images.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use certify::{Distribution, SamplePart};
use lipconv::loss::{DISTRIBUTION_A, DISTRIBUTION_B};
use lipconv::optim::PAPER_GAMMA;
use lipconv::{
    Activation, Batch, EpochReport, ImageShape, LayerSpec, Loss, Methods, Network, NetworkSpec,
    Observer, Optimizer, Outcome, PlainNetwork, RmsPropConfig, Schedule, StepReport, TrainConfig,
    Trainer,
};
use serde::{Deserialize, Serialize};

use super::distribution::{Drawn, Estimate, batch_seed, estimate};
use crate::config::{self, Method, require};
use crate::files::{read_json, write_json};
use crate::interrupt::Watch;
use crate::progress::Progress;

/// Epochs of the paper's critics.
pub const PAPER_EPOCHS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CriticNetwork {
    /// The paper's, all widths times this.
    Paper {
        /// 1 is the paper's.
        width: f64,
    },
    /// Two convolutions and two dense layers, for exact distributions.
    Vector,
}

/// How a critic is built and trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticConfig {
    pub network: CriticNetwork,
    /// How convolutions are constrained; dense layers are orthogonal.
    pub method: Method,
    pub activation: config::Activation,
    /// Epochs, at least 1.
    pub epochs: usize,
    /// Steps in an epoch, at least 1.
    pub epoch_steps: usize,
    /// Samples of each distribution in a step, at least 1.
    pub batch_size: usize,
    /// RMSprop's step size at the start, positive.
    pub learning_rate: f64,
    pub seed: u64,
}

impl CriticConfig {
    /// The network for samples of a shape.
    pub fn spec(&self, [c, h, w]: [usize; 3]) -> Result<NetworkSpec> {
        let input = ImageShape::new(c, h, w);
        let methods = self.methods()?;
        let spec = match self.network {
            CriticNetwork::Paper { width } => NetworkSpec::critic(input, methods, width)?,
            CriticNetwork::Vector => vector(input, methods),
        };
        Ok(spec.with_activation(self.activation.layer()))
    }

    fn methods(&self) -> Result<Methods> {
        let constrained = self.method.conv().is_some() && !self.method.is_unconstrained();
        let expected = "a method that constrains convolutions, such as bcop, rko or ossn";
        require(constrained, "critic.method", self.method, expected)?;
        Ok(self.method.methods())
    }

    pub fn train_config(&self) -> Result<TrainConfig> {
        for (key, value) in
            [("critic.epoch_steps", self.epoch_steps), ("critic.batch_size", self.batch_size)]
        {
            require((1..=1_000_000).contains(&value), key, value, "1 to 1000000")?;
        }
        let config = TrainConfig {
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            schedule: paper_schedule(self.epochs),
            optimizer: Optimizer::RmsProp(RmsPropConfig::default()),
            averaging: lipconv::Averaging::None,
            loss: Loss::Wasserstein,
            seed: self.seed,
        };
        config.validate()?;
        Ok(config)
    }

    pub fn n_steps(&self) -> u64 {
        (self.epochs * self.epoch_steps) as u64
    }
}

/// The decay of 256 of the paper's epochs, spread over so many.
fn paper_schedule(epochs: usize) -> Schedule {
    let per_epoch = PAPER_EPOCHS as f64 / epochs.max(1) as f64;
    Schedule::Exponential { gamma: PAPER_GAMMA.powf(per_epoch) }
}

/// Isometries up to the dense layers, so that no direction of a short vector is lost.
fn vector(input: ImageShape, methods: Methods) -> NetworkSpec {
    let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method: methods.conv };
    let linear = |out_features| LayerSpec::Linear { out_features, method: methods.linear };
    let layers = vec![
        conv(16),
        LayerSpec::Activation(Activation::MaxMin),
        conv(64),
        LayerSpec::Activation(Activation::MaxMin),
        LayerSpec::Flatten,
        linear(128),
        LayerSpec::Activation(Activation::MaxMin),
        linear(64),
        LayerSpec::Activation(Activation::MaxMin),
        linear(1),
    ];
    NetworkSpec { input, layers }
}

/// Points of the curve.
const N_POINTS: usize = 12;
/// Largest number of pairs that a point is measured on. With few pairs, the brightness of the sample hides the critic.
const POINT_PAIRS: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    pub step: u64,
    /// What the critic shows, divided by its rigorous bound; absent where it could not be bounded.
    pub estimate: Option<f64>,
    /// Rigorous bound of its Lipschitz constant.
    pub lipschitz: Option<f64>,
}

#[derive(Debug)]
pub struct CriticJob<'a> {
    pub config: &'a CriticConfig,
    /// The distribution with the larger critic.
    pub a: &'a dyn Distribution,
    pub b: &'a dyn Distribution,
    pub device: &'a Device,
    /// Folder of checkpoint and curve; nothing is kept without.
    pub folder: Option<&'a Path>,
    pub checkpoint_every: Duration,
}

#[derive(Debug)]
pub enum CriticEnd {
    /// The critic, frozen.
    Finished(Box<Critic>),
    /// A critic that cannot be frozen any more, as one that has lost its rank.
    Lost { reason: String, curve: Vec<CurvePoint>, n_steps: u64 },
    /// A request to stop came; the checkpoint is written.
    Interrupted,
}

#[derive(Debug)]
pub struct Critic {
    pub network: PlainNetwork,
    pub curve: Vec<CurvePoint>,
    pub n_steps: u64,
    /// Why training ended early, where it did.
    pub stopped: Option<String>,
}

/// Trains to the end or to an interruption; `progress` counts from `done` on.
pub fn train_critic(
    job: &CriticJob<'_>,
    progress: &mut Progress,
    done: u64,
    label: &str,
) -> Result<CriticEnd> {
    let watch = Watch::begin(job.checkpoint_every);
    let (mut trainer, curve) = open(job)?;
    let mut pairs = Drawn::new(job.config.epoch_steps, |seed, index| pairs(job, seed, index));
    let mut monitor = Monitor { job, watch, progress, done, label, curve };
    let outcome = trainer.fit(&mut pairs, &mut monitor);
    monitor.watch.check()?;
    let stopped = match outcome {
        Ok(Outcome::Finished) => None,
        Ok(Outcome::Stopped) => {
            monitor.save(&trainer)?;
            return Ok(CriticEnd::Interrupted);
        }
        // the state before the step is whole
        Err(error @ lipconv::Error::Step { .. }) => Some(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let curve = std::mem::take(&mut monitor.curve);
    let n_steps = trainer.n_steps();
    let network = match trainer.into_network().materialize() {
        Ok(network) => network.to_device(&Device::Cpu)?,
        Err(error) => {
            let reason = format!("the critic cannot be frozen: {error}");
            return Ok(CriticEnd::Lost { reason, curve, n_steps });
        }
    };
    Ok(CriticEnd::Finished(Box::new(Critic { network, curve, n_steps, stopped })))
}

fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

fn curve_file(folder: &Path) -> PathBuf {
    folder.join("curve.json")
}

fn open(job: &CriticJob<'_>) -> Result<(Trainer, Vec<CurvePoint>)> {
    let spec = job.config.spec(job.a.shape())?;
    let settings = job.config.train_config()?;
    let saved = job.folder.map(checkpoint).filter(|path| path.is_file());
    let Some(path) = saved else {
        let network = Network::new(&spec, DType::F32, job.device, job.config.seed)?;
        return Ok((Trainer::new(network, settings)?, Vec::new()));
    };
    let trainer = Trainer::resume(&path, job.device)?;
    let same = *trainer.network().spec() == spec && *trainer.config() == settings;
    let shown = path.display();
    ensure!(
        same,
        "{shown} holds another critic or other training settings; remove it or choose another folder"
    );
    let mut curve: Vec<CurvePoint> = match job.folder.map(curve_file) {
        Some(path) => read_json(&path)?.unwrap_or_default(),
        None => Vec::new(),
    };
    curve.retain(|point| point.step <= trainer.n_steps());
    Ok((trainer, curve))
}

/// A batch of both distributions.
fn pairs(job: &CriticJob<'_>, epoch_seed: u64, index: usize) -> lipconv::Result<Batch> {
    let n = job.config.batch_size;
    let draw = |of: &dyn Distribution, side| {
        of.draw(n, batch_seed(epoch_seed, index, side))?.to_device(job.device)
    };
    let images = Tensor::cat(&[draw(job.a, 0)?, draw(job.b, 1)?], 0)?;
    let mut labels = vec![DISTRIBUTION_A; n];
    labels.resize(2 * n, DISTRIBUTION_B);
    Ok(Batch { images, labels })
}

/// Shows progress, measures the curve, saves, and stops when asked to.
struct Monitor<'a, 'b> {
    job: &'a CriticJob<'a>,
    watch: Watch,
    progress: &'b mut Progress,
    done: u64,
    label: &'a str,
    curve: Vec<CurvePoint>,
}

impl Monitor<'_, '_> {
    fn save(&mut self, trainer: &Trainer) -> Result<()> {
        if let Some(folder) = self.job.folder {
            write_json(&curve_file(folder), &self.curve)?;
            trainer.save(&checkpoint(folder))?;
        }
        self.watch.saved();
        Ok(())
    }

    /// A point after every n-th epoch; a critic that cannot be bounded leaves a gap.
    fn measure(&mut self, trainer: &Trainer) {
        let job = self.job;
        let network =
            trainer.network().materialize().and_then(|network| network.to_device(&Device::Cpu));
        let found = network
            .map_err(anyhow::Error::from)
            .and_then(|network| estimate(&network, job.a, job.b, SamplePart::Select, POINT_PAIRS));
        let found: Option<Estimate> = found.ok();
        self.curve.push(CurvePoint {
            step: trainer.n_steps(),
            estimate: found.as_ref().map(|e| e.value),
            lipschitz: found.as_ref().map(|e| e.lipschitz),
        });
    }
}

impl Observer for Monitor<'_, '_> {
    fn after_step(
        &mut self,
        trainer: &Trainer,
        report: &StepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let last = self.curve.last().and_then(|point| point.estimate);
        let shown = last.map_or_else(String::new, |value| format!(", estimate {value:.3}"));
        let message = format!("{}, objective {:.3}{shown}", self.label, -report.loss);
        self.progress.update(self.done + report.step, &message);
        let saved = if self.watch.is_save_due() { self.save(trainer) } else { Ok(()) };
        Ok(self.watch.decide(saved))
    }

    fn after_epoch(
        &mut self,
        trainer: &Trainer,
        report: &EpochReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let every = self.job.config.epochs.div_ceil(N_POINTS);
        let epoch = report.epoch + 1;
        if epoch.is_multiple_of(every) || epoch == self.job.config.epochs {
            self.measure(trainer);
        }
        Ok(self.watch.decide(Ok(())))
    }
}
