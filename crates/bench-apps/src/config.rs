//! The configuration of a run (data, network, training, evaluation) as a TOML file.
//!
//! Every key has a default, so an empty file is a valid configuration: the paper's BCOP-Small on MNIST with a short budget.
//! The defaults of the loss margin, of the augmentation and of the radii are those of the data set ([`RunConfig::of`]). Unknown
//! keys are refused. Flags of the command override the file.
//!
//! Errors: [`Error::Read`], [`Error::ConfigSyntax`] with the line, [`Error::ConfigValue`] with the key.
//!
//! Source of the defaults: Li et al. 2019, section 5.2, and the authors' settings: on MNIST a margin of √2 · 1.5, no
//! augmentation, ε = 1.58; on CIFAR-10 a margin of √2 · 0.5, crops and flips, ε = 36/255. A person's own images take the
//! margin and the radii of CIFAR-10, without augmentation: only they know whether a mirror image keeps its class.
//!
//! Not here: what a network of that name is made of (crate `lipconv`).

pub(crate) mod keys;
mod shipped;

use std::f64::consts::SQRT_2;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lipconv::{Averaging, CrossEntropy, LinearMethod, Loss, Optimizer};
use lipconv_datasets::RandAugment;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use certify::Eps;
use keys::one_line;
pub(crate) use keys::syntax_error;

pub use crate::names::{
    Activation, AugmentationKind, DatasetName, DecisionAttack, DeviceKind, Method, Net,
    ScheduleKind,
};
pub use shipped::Recipe;

/// A whole run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Where the arithmetic runs.
    pub device: DeviceKind,
    /// Run whose network the training begins with, as that run evaluates it. Default: a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    pub data: DataConfig,
    pub network: NetworkConfig,
    pub training: TrainingConfig,
    pub evaluation: EvaluationConfig,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Which images. Default "mnist"; "cifar10", "synthetic", "idx:DIR", "images:DIR".
    pub dataset: DatasetName,
    /// Train on this many first images only. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_limit: Option<usize>,
    /// Evaluate on this many first test images only. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<usize>,
    /// Bring every image to this height and width, 1 to 4096. Default: as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Seed of the synthetic digits. Default 0.
    pub synthetic_seed: u64,
}

/// `[network]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    pub name: Net,
    /// Convolutions, or "bjorck" for a network without. Default "bcop".
    pub layer: Method,
    pub activation: Activation,
    /// Factor of all widths of "large" but the last. Default 1, the paper's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<f64>,
    /// More 3 x 3 convolutions after each one that downsamples, at most 32. Default 0, as in the paper.
    #[serde(skip_serializing_if = "is_default")]
    pub more_convolutions: usize,
    /// The last layer: "lln" (rows of norm 1), "bjorck" or "unconstrained". Default: as the other dense layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<LinearMethod>,
    /// Singular values of the free matrices of a network that is drawn, 1e-6 to 1e6; a network from `init_from` keeps its own, and so do
    /// OSSN, SVCM and unconstrained layers, whose weights depend on it. Default, as in the paper, 1/√n for n inputs; BCOP and BRO take the larger number of inputs and outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
}

/// `[training]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingConfig {
    /// Passes over the training set, at least 1. Default 12; the paper's is 200.
    pub epochs: usize,
    /// Images per step, at least 1. Default 128.
    pub batch_size: usize,
    /// The optimiser's step size at the start, positive. Default 0.001.
    pub learning_rate: f64,
    /// How it falls. Default "linear".
    pub schedule: ScheduleKind,
    /// Epochs over which the rate of the schedule "cosine" rises at first, fewer than `epochs`. Default 0.
    #[serde(skip_serializing_if = "is_default")]
    pub warm_up: f64,
    /// Margin of the multi-class hinge loss, positive. Default, as in the paper, √2 · 1.5 on MNIST and √2 · 0.5 elsewhere.
    pub margin: f64,
    /// Cross-entropy in place of the hinge: `offset` of the true logit, `temperature`, `annealing` (0: none) and, to raise the
    /// competing logits, `radius = { start, end }`. Default: the hinge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<CrossEntropy>,
    /// What changes the parameters: `type` "adam", "nadam" or "rmsprop", and its settings. Default: Adam as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<Optimizer>,
    /// The average of the parameters that is evaluated: `type` "exponential" with `decay`, or "lookahead" with `period` and
    /// `rate`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub averaging: Option<Averaging>,
    /// What changes the images from epoch to epoch. Default "crop-flip" on CIFAR-10, as in the paper, "none" elsewhere.
    pub augmentation: AugmentationKind,
    /// RandAugment after crop and mirror image: `operations`, `magnitude`, `probability` and, to begin late, `after` epochs. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
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
            warm_up: 0.0,
            margin: SQRT_2 * 1.5,
            cross_entropy: None,
            optimizer: None,
            averaging: None,
            augmentation: AugmentationKind::None,
            rand_augment: None,
            seed: 0,
        }
    }
}

/// `[evaluation]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Radii at which certified accuracy is reported, ascending. Default 0.25, 0.5, 1, 1.58, 2 and 2.5 on
    /// MNIST, 18/255, 36/255, 72/255, 108/255, 0.5 and 1 elsewhere.
    pub eps: Vec<Eps>,
    /// Radii at which the network is attacked; none for no attacks. Default 1.58 on MNIST, 36/255 elsewhere.
    pub attack_eps: Vec<Eps>,
    /// Images per forward pass, at least 1. Default 500.
    pub batch_size: usize,
    /// Projected gradient descent as in the paper.
    pub pgd: PgdConfig,
    pub strong_pgd: StrongPgdConfig,
    pub auto_attack: AutoAttackConfig,
    /// Seed of random starts. Default 0.
    pub seed: u64,
    /// Epochs of training between two evaluations for its history, at least 1; the last one is always evaluated. Default 1.
    #[serde(skip_serializing_if = "is_one")]
    pub every: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_one(every: &usize) -> bool {
    *every == 1
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        let (eps, attack_eps) = radii(&DatasetName::Mnist);
        Self {
            eps,
            attack_eps,
            batch_size: 500,
            pgd: PgdConfig::default(),
            strong_pgd: StrongPgdConfig::default(),
            auto_attack: AutoAttackConfig::default(),
            seed: 0,
            every: 1,
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

/// `[evaluation.auto_attack]`: AutoAttack, standard version, and the nearest adversarial examples. Certified images are left out of
/// the attack; the nearest examples are looked for about all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoAttackConfig {
    /// Test images, the first ones; all where there are fewer. 0 leaves the attack out. Default 0.
    pub images: usize,
    /// Steps of APGD and FAB, at least 1. Default 100.
    pub steps: usize,
    /// Queries of Square, at least 1. Default 5000.
    pub queries: usize,
}

impl Default for AutoAttackConfig {
    fn default() -> Self {
        Self { images: 0, steps: 100, queries: 5000 }
    }
}

impl AutoAttackConfig {
    /// Stands for all images.
    pub const ALL: usize = 1_000_000_000;
}

impl RunConfig {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_for(path, None)
    }

    /// As [`RunConfig::read`], with another data set in place of the file's; see [`RunConfig::parse_for`].
    pub fn read_for(path: &Path, dataset: Option<DatasetName>) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::read(path))?;
        Self::parse_for(&path.display().to_string(), &text, dataset)
    }

    /// Parses and checks a text; `origin` names it in errors.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        Self::parse_for(origin, text, None)
    }

    /// As [`RunConfig::parse`], with another data set in place of the text's; keys that the text does not have take that
    /// one's defaults.
    pub fn parse_for(origin: &str, text: &str, dataset: Option<DatasetName>) -> Result<Self> {
        let syntax = |e: toml::de::Error| keys::explain(origin, text, &e);
        let mut config: Self = toml::from_str(text).map_err(syntax)?;
        let written: toml::Table = toml::from_str(text).map_err(syntax)?;
        if let Some(dataset) = dataset {
            config.data.dataset = dataset;
        }
        fill_recipe(&mut config, |section, key| {
            written.get(section).and_then(|table| table.get(key)).is_some()
        });
        config.validate()?;
        Ok(config)
    }

    /// The defaults for a data set.
    pub fn of(dataset: DatasetName) -> Self {
        let mut config = Self::default();
        config.data.dataset = dataset;
        fill_recipe(&mut config, |_, _| false);
        config
    }

    /// Whether a run of the other configuration trains the same network in the same way, whatever is evaluated after it.
    pub fn trains_as(&self, other: &Self) -> bool {
        Self { evaluation: other.evaluation.clone(), ..self.clone() } == *other
    }

    /// Gives the radii of the evaluation the defaults of the present data set.
    pub fn use_default_radii(&mut self) {
        (self.evaluation.eps, self.evaluation.attack_eps) = radii(&self.data.dataset);
    }

    /// The configuration as TOML, every key written out.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::ConfigSyntax {
            origin: "configuration".into(),
            reason: one_line(&e.to_string()),
        })
    }

    /// Checks every value against its domain; the flags of the command may have changed any of them.
    pub fn validate(&self) -> Result<()> {
        let (training, evaluation) = (&self.training, &self.evaluation);
        self.network.validate()?;
        count("data.train_limit", self.data.train_limit.unwrap_or(1))?;
        count("data.test_limit", self.data.test_limit.unwrap_or(1))?;
        let size = self.data.size.unwrap_or(1);
        require((1..=4096).contains(&size), "data.size", size, "1 to 4096")?;
        count("training.epochs", training.epochs)?;
        count("training.batch_size", training.batch_size)?;
        positive("training.learning_rate", training.learning_rate)?;
        positive("training.margin", training.margin)?;
        training.validate_recipe()?;
        count("evaluation.batch_size", evaluation.batch_size)?;
        count("evaluation.every", evaluation.every)?;
        ascending("evaluation.eps", &evaluation.eps)?;
        let attacked = Some(&evaluation.attack_eps).filter(|eps| !eps.is_empty());
        attacked.map_or(Ok(()), |eps| ascending("evaluation.attack_eps", eps))?;
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
        let auto = &evaluation.auto_attack;
        let expected = "0 to 1000000000";
        let fits = auto.images <= AutoAttackConfig::ALL;
        require(fits, "evaluation.auto_attack.images", auto.images, expected)?;
        count("evaluation.auto_attack.steps", auto.steps)?;
        count("evaluation.auto_attack.queries", auto.queries)?;
        seed("data.synthetic_seed", self.data.synthetic_seed)?;
        seed("training.seed", training.seed)?;
        seed("evaluation.seed", evaluation.seed)
    }
}

impl TrainingConfig {
    /// What the paper's recipe does not have.
    fn validate_recipe(&self) -> Result<()> {
        let fits = self.warm_up >= 0.0 && self.warm_up < self.epochs as f64;
        require(fits, "training.warm_up", self.warm_up, "at least 0 and fewer than the epochs")?;
        let setting = |table: &str, error: &dyn fmt::Display| Error::ConfigSyntax {
            origin: table.to_owned(),
            reason: error.to_string(),
        };
        let loss = Loss::from(self).validate();
        loss.map_err(|e| setting("training.cross_entropy", &e))?;
        let optimizer = self.optimizer.unwrap_or_default().validate();
        optimizer.map_err(|e| setting("training.optimizer", &e))?;
        let averaging = self.averaging.unwrap_or_default().validate();
        averaging.map_err(|e| setting("training.averaging", &e))?;
        let random = self.rand_augment.unwrap_or_default().validate();
        random.map_err(|e| setting("training.rand_augment", &e))
    }

    /// Refuses settings of a new run that would not count. Runs that were trained with them stay readable.
    pub(crate) fn check_effective(&self) -> Result<()> {
        let fits = self.warm_up == 0.0 || self.schedule == ScheduleKind::Cosine;
        require(fits, "training.warm_up", self.warm_up, "0, as only the schedule cosine warms up")?;
        let after = self.rand_augment.map_or(0, |random| random.after);
        let fits = after < self.epochs as u64;
        require(fits, "training.rand_augment.after", after, "fewer than the epochs")
    }
}

impl From<&TrainingConfig> for Loss {
    fn from(training: &TrainingConfig) -> Self {
        match training.cross_entropy {
            Some(settings) => Self::CrossEntropy(settings),
            None => Self::MultiClassHinge { margin: training.margin },
        }
    }
}

impl NetworkConfig {
    /// A network without convolutions has no convolution's method, and the others have one.
    fn validate(&self) -> Result<()> {
        let (fits, expected) = match self.name {
            Net::Fc3 => (
                self.layer == Method::Bjorck || self.layer.is_unconstrained(),
                "bjorck or unconstrained for fc-3",
            ),
            Net::Small | Net::Large => {
                let convolves = !matches!(self.layer, Method::Bjorck | Method::Published);
                (convolves, "a convolution's method, such as bcop")
            }
            Net::KwSmall => {
                let expected = "a network that is trained here: small, large or fc-3";
                return require(false, "network.name", self.name, expected);
            }
        };
        require(fits, "network.layer", self.layer, expected)?;
        let width = self.width.unwrap_or(1.0);
        let fits = self.width.is_none() || self.name == Net::Large;
        require(fits, "network.width", width, "absent: large alone has a width")?;
        let gain = self.gain.unwrap_or(1.0);
        require((1e-6..=1e6).contains(&gain), "network.gain", gain, "1e-6 to 1e6")?;
        let (more, convolutional) = (self.more_convolutions, self.name != Net::Fc3);
        let fits = more <= if convolutional { 32 } else { 0 };
        let expected = if convolutional { "0 to 32" } else { "0 for fc-3" };
        require(fits, "network.more_convolutions", more, expected)
    }
}

pub(crate) fn require(
    holds: bool,
    key: &'static str,
    got: impl fmt::Display,
    expected: &str,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::ConfigValue { key, got: got.to_string(), expected: expected.to_owned() })
}

pub(crate) fn count(key: &'static str, got: usize) -> Result<()> {
    require((1..=1_000_000_000).contains(&got), key, got, "1 to 1000000000")
}

pub(crate) fn positive(key: &'static str, got: f64) -> Result<()> {
    require(got.is_finite() && got > 0.0, key, got, "a positive number")
}

/// TOML's integers end at 2^63 - 1.
fn seed(key: &'static str, got: u64) -> Result<()> {
    require(i64::try_from(got).is_ok(), key, got, "0 to 9223372036854775807")
}

/// Refuses radii that are none, stand twice or are not in order.
pub(crate) fn ascending(key: &'static str, eps: &[Eps]) -> Result<()> {
    let texts: Vec<&str> = eps.iter().map(Eps::text).collect();
    let holds = !eps.is_empty() && eps.windows(2).all(|pair| pair[0].value() < pair[1].value());
    require(
        holds,
        key,
        format!("[{}]", texts.join(", ")),
        "at least one radius, in ascending order",
    )
}

/// Whether a data set is trained on as MNIST is.
fn like_mnist(dataset: &DatasetName) -> bool {
    matches!(dataset, DatasetName::Mnist | DatasetName::Synthetic)
}

/// Radii of certified accuracy and of the attacks.
fn radii(dataset: &DatasetName) -> (Vec<Eps>, Vec<Eps>) {
    let eps = |texts: &[&str]| {
        texts.iter().map(|text| text.parse().expect("a positive number")).collect()
    };
    if like_mnist(dataset) {
        (eps(&["0.25", "0.5", "1", "1.58", "2", "2.5"]), eps(&["1.58"]))
    } else {
        (eps(&["18/255", "36/255", "72/255", "108/255", "0.5", "1"]), eps(&["36/255"]))
    }
}

/// Gives every key of the recipe that was not written the value of the configuration's data set.
fn fill_recipe(config: &mut RunConfig, is_written: impl Fn(&str, &str) -> bool) {
    let dataset = &config.data.dataset;
    let (eps, attack_eps) = radii(dataset);
    if !is_written("training", "margin") {
        config.training.margin = SQRT_2 * if like_mnist(dataset) { 1.5 } else { 0.5 };
    }
    if !is_written("training", "augmentation") {
        config.training.augmentation = match dataset {
            DatasetName::Cifar10 => AugmentationKind::CropFlip,
            _ => AugmentationKind::None,
        };
    }
    if !is_written("evaluation", "eps") {
        config.evaluation.eps = eps;
    }
    if !is_written("evaluation", "attack_eps") {
        config.evaluation.attack_eps = attack_eps;
    }
}

/// Whether a value is left out of a file.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
