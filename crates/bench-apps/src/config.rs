//! What a run is: data, network, training and evaluation, as a TOML file.
//!
//! Every key has a default, so an empty file is a valid configuration: the paper's BCOP-Small on MNIST with a short budget.
//! Unknown keys are refused. Flags of the command override the file.
//!
//! Errors: [`Error::Read`], [`Error::ConfigSyntax`] with the line, [`Error::ConfigValue`] with the key.
//!
//! Source of the defaults: Li et al. 2019, section 5.2, and the authors' settings.
//!
//! Not here: what a network of that name is made of (crate `lipconv`).

use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::eps::Eps;
use crate::error::{Error, Result};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Where the arithmetic runs.
    pub device: DeviceKind,
    /// Images.
    pub data: DataConfig,
    /// Network.
    pub network: NetworkConfig,
    /// Training.
    pub training: TrainingConfig,
    /// Evaluation.
    pub evaluation: EvaluationConfig,
}

/// Where the arithmetic runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor, f32.
    #[default]
    Cpu,
    /// The first CUDA device, f32; an error where there is none.
    Cuda,
}

/// Which images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetName {
    /// MNIST, or the synthetic digits, labelled as such, where it cannot be had.
    #[default]
    Mnist,
    /// Digits drawn by the program.
    Synthetic,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Which images. Default "mnist".
    pub dataset: DatasetName,
    /// Train on the first so many images only. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Evaluate on the first so many test images only. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Seed of the synthetic digits. Default 0.
    pub synthetic_seed: u64,
}

/// The paper's architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkName {
    /// Two convolutions (16 and 32 channels, 4 x 4, stride 2) and two dense layers (100 and 10).
    #[default]
    Small,
    /// Four convolutions (32, 32, 64 and 64 channels, the second and fourth 4 x 4 with stride 2, the others
    /// 3 x 3) and three dense layers (512, 512 and 10).
    Large,
}

/// How convolutions are kept orthogonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// Block convolution orthogonal parametrisation; dense layers by their polar factor.
    #[default]
    Bcop,
    /// No constraint: a network that certifies next to nothing, for comparison.
    Unconstrained,
}

/// Nonlinearity between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationKind {
    /// Maxima and minima of channel pairs; norm-preserving.
    #[default]
    MaxMin,
    /// max(x, 0), which is 1-Lipschitz but loses gradient norm; for comparison.
    Relu,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Architecture. Default "small".
    pub name: NetworkName,
    /// Convolutions. Default "bcop".
    pub layer: LayerKind,
    /// Nonlinearity. Default "maxmin".
    pub activation: ActivationKind,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The paper's total decay, 0.96235062639^200, in equal steps after every epoch of whatever budget is given.
    Exponential,
    /// From the initial rate to 0, every step; better for short budgets.
    #[default]
    Linear,
    /// No change.
    Constant,
}

/// `[training]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Passes over the training set, at least 1. Default 12; the paper's is 200.
    pub epochs: usize,
    /// Images per step, at least 1. Default 128.
    pub batch_size: usize,
    /// Adam's step size at the start, positive. Default 0.001.
    pub learning_rate: f64,
    /// How it falls. Default "linear".
    pub schedule: ScheduleKind,
    /// Margin of the multi-class hinge loss, positive. Default √2 · 1.5, the paper's for MNIST.
    pub margin: f64,
    /// Seed of initialisation and batch order. Default 0.
    pub seed: u64,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: 12,
            batch_size: 128,
            learning_rate: 1e-3,
            schedule: ScheduleKind::default(),
            margin: std::f64::consts::SQRT_2 * 1.5,
            seed: 0,
        }
    }
}

/// `[evaluation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Radii at which certified accuracy is reported, ascending. Default 0.25, 0.5, 1, 1.58, 2 and 2.5.
    pub eps: Vec<Eps>,
    /// Radii at which the network is attacked. Default 1.58.
    pub attack_eps: Vec<Eps>,
    /// Images per forward pass, at least 1. Default 500.
    pub batch_size: usize,
    /// Projected gradient descent as in the paper.
    pub pgd: PgdConfig,
    /// A stronger one.
    pub strong_pgd: StrongPgdConfig,
    /// Seed of random starts. Default 0.
    pub seed: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        let eps = |texts: &[&str]| {
            texts.iter().map(|text| text.parse().expect("a positive number")).collect()
        };
        Self {
            eps: eps(&["0.25", "0.5", "1", "1.58", "2", "2.5"]),
            attack_eps: eps(&["1.58"]),
            batch_size: 500,
            pgd: PgdConfig::default(),
            strong_pgd: StrongPgdConfig::default(),
            seed: 0,
        }
    }
}

/// `[evaluation.pgd]`; the defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PgdConfig {
    /// Steps, at least 1. Default 200.
    pub steps: usize,
    /// Length of a step, positive. Default 0.01.
    pub step_size: f64,
    /// κ of the Carlini-Wagner loss, not negative. Default 50.
    pub kappa: f64,
}

impl Default for PgdConfig {
    fn default() -> Self {
        Self { steps: 200, step_size: 0.01, kappa: 50.0 }
    }
}

/// `[evaluation.strong_pgd]`: a stronger attack beside the paper's, with steps of 2.5 ε / steps and several starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrongPgdConfig {
    /// Steps from each start, at least 1. Default 100.
    pub steps: usize,
    /// Random starts; 0 leaves the attack out. Default 0.
    pub restarts: usize,
}

impl Default for StrongPgdConfig {
    fn default() -> Self {
        Self { steps: 100, restarts: 0 }
    }
}

impl RunConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::ConfigSyntax`], [`Error::ConfigValue`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses and checks a text; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::ConfigSyntax`], [`Error::ConfigValue`].
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| syntax_error(origin, text, &e))?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as TOML, every key written out.
    ///
    /// # Errors
    /// [`Error::ConfigSyntax`] for a value that TOML cannot hold, such as an integer beyond 2^63.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::ConfigSyntax {
            origin: "configuration".into(),
            reason: one_line(&e.to_string()),
        })
    }

    /// Checks every value against its domain; the flags of the command may have changed any of them.
    ///
    /// # Errors
    /// [`Error::ConfigValue`] for the first value that is outside.
    pub fn validate(&self) -> Result<()> {
        let (training, evaluation) = (&self.training, &self.evaluation);
        count("data.train_limit", self.data.train_limit.unwrap_or(1))?;
        count("data.test_limit", self.data.test_limit.unwrap_or(1))?;
        count("training.epochs", training.epochs)?;
        count("training.batch_size", training.batch_size)?;
        positive("training.learning_rate", training.learning_rate)?;
        positive("training.margin", training.margin)?;
        count("evaluation.batch_size", evaluation.batch_size)?;
        ascending("evaluation.eps", &evaluation.eps)?;
        ascending("evaluation.attack_eps", &evaluation.attack_eps)?;
        count("evaluation.pgd.steps", evaluation.pgd.steps)?;
        positive("evaluation.pgd.step_size", evaluation.pgd.step_size)?;
        let kappa = evaluation.pgd.kappa;
        require(
            kappa.is_finite() && kappa >= 0.0,
            "evaluation.pgd.kappa",
            kappa,
            "a number not below 0",
        )?;
        count("evaluation.strong_pgd.steps", evaluation.strong_pgd.steps)?;
        let restarts = evaluation.strong_pgd.restarts;
        require(restarts <= 65_536, "evaluation.strong_pgd.restarts", restarts, "0 to 65536")?;
        seed("data.synthetic_seed", self.data.synthetic_seed)?;
        seed("training.seed", training.seed)?;
        seed("evaluation.seed", evaluation.seed)
    }
}

fn require(holds: bool, key: &'static str, got: impl fmt::Display, expected: &str) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::ConfigValue { key, got: got.to_string(), expected: expected.to_owned() })
}

fn count(key: &'static str, got: usize) -> Result<()> {
    require((1..=1_000_000_000).contains(&got), key, got, "1 to 1000000000")
}

fn positive(key: &'static str, got: f64) -> Result<()> {
    require(got.is_finite() && got > 0.0, key, got, "a positive number")
}

/// TOML's integers end at 2^63 - 1.
fn seed(key: &'static str, got: u64) -> Result<()> {
    require(i64::try_from(got).is_ok(), key, got, "0 to 9223372036854775807")
}

fn ascending(key: &'static str, eps: &[Eps]) -> Result<()> {
    let texts: Vec<&str> = eps.iter().map(Eps::text).collect();
    let holds = !eps.is_empty() && eps.windows(2).all(|pair| pair[0].value() < pair[1].value());
    require(
        holds,
        key,
        format!("[{}]", texts.join(", ")),
        "at least one radius, in ascending order",
    )
}

fn syntax_error(origin: &str, text: &str, error: &toml::de::Error) -> Error {
    let line =
        error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let place = line.map_or_else(|| origin.to_owned(), |line| format!("{origin}, line {line}"));
    Error::ConfigSyntax { origin: place, reason: one_line(error.message()) }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
