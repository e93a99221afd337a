//! Generators, critics and anchors: names, settings, results.

use serde::{Deserialize, Serialize};

use crate::config::{Activation, DatasetName, DeviceKind, Method};
use crate::files::Provenance;
use crate::wasserstein::Estimate;
use crate::wasserstein::gan::GanSettings;
use crate::wasserstein::search::RateResult;
use crate::words::at_least;

/// Steps in an epoch of an anchor's critic.
pub(super) const ANCHOR_STEPS: usize = 25;

/// A generator of images like those of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorJob {
    pub budget: String,
    pub dataset: DatasetName,
    pub size: usize,
    pub device: DeviceKind,
    pub settings: GanSettings,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratorResult {
    pub plan: GeneratorJob,
    pub dataset: String,
    pub synthetic: bool,
    /// SHA-256 of the frozen generator's file.
    pub sha256: String,
    /// 64 of its images, a PNG as a `data:` address.
    pub samples: String,
    /// 64 of the data's.
    pub images: String,
    /// Time of training by the process that finished it.
    pub seconds: f64,
    pub provenance: Provenance,
    pub notes: Vec<String>,
}

/// Critics on known distances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorsJob {
    pub budget: String,
    pub seeds: Vec<u64>,
    pub methods: Vec<Method>,
    pub activations: Vec<Activation>,
    /// Epochs of 25 steps.
    pub epochs: usize,
    pub learning_rates: Vec<f64>,
}

/// A critic's estimate of an anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnchorResult {
    pub name: String,
    pub method: Method,
    pub activation: Activation,
    pub exact: f64,
    pub estimate: Estimate,
    pub seed: u64,
}

impl AnchorResult {
    pub fn ratio(&self) -> f64 {
        self.estimate.value / self.exact
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnchorsResult {
    pub plan: AnchorsJob,
    /// One for each anchor, method, nonlinearity and seed.
    pub rows: Vec<AnchorResult>,
    pub seconds: f64,
    pub provenance: Provenance,
}

impl AnchorsResult {
    pub(super) fn headline(&self) -> String {
        let least = self.rows.iter().map(AnchorResult::ratio).fold(1.0, f64::min);
        format!("every estimate is at least {} of the exact distance", at_least(least, 3))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticJob {
    /// The generator, which also names data set, size, budget and device.
    pub generator: GeneratorJob,
    pub method: Method,
    pub activation: Activation,
    pub seed: u64,
    /// Width; 1 is the paper's.
    pub width: f64,
    pub epochs: usize,
    pub epoch_steps: usize,
    /// Samples of each side in a step.
    pub batch_size: usize,
    pub learning_rates: Vec<f64>,
    /// Pairs to choose on.
    pub n_select: usize,
    pub n_report: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriticResult {
    pub plan: CriticJob,
    pub dataset: String,
    pub synthetic: bool,
    /// SHA-256 of the frozen generator's file.
    pub generator_sha256: String,
    pub rates: Vec<RateResult>,
    /// Index of the best on the samples kept for choosing.
    pub best: usize,
    /// Time of training and measuring, all rates together.
    pub seconds: f64,
    pub provenance: Provenance,
}

impl CriticResult {
    /// The reported estimate of the chosen rate.
    pub fn estimate(&self) -> Option<Estimate> {
        self.rates.get(self.best)?.report
    }

    pub(super) fn headline(&self) -> String {
        match self.estimate() {
            Some(found) => format!(
                "at least {} ± {:.3} with rate {}",
                at_least(found.value, 3),
                found.standard_error,
                self.rates[self.best].learning_rate
            ),
            None => "no estimate".into(),
        }
    }
}

/// Steps of a critic of some width, in units of a step at a quarter of the paper's width; rough, as wider critics cost more.
pub(super) fn at_width(steps: usize, width: f64) -> u64 {
    (steps as f64 * (4.0 * width).max(1.0)) as u64
}

impl GeneratorJob {
    /// The beginning of the names of jobs on these images.
    pub(super) fn stem(&self) -> String {
        format!("{}-{}px", self.dataset.file_name(), self.size)
    }

    pub fn id(&self) -> String {
        format!("{}-generator", self.stem())
    }

    /// Steps of training, in units of a critic's step at a quarter of the paper's width.
    pub(super) fn cost(&self) -> u64 {
        // measured: a step of both players takes about three steps of the critic alone
        at_width(3 * self.settings.steps, self.settings.critic_width)
    }
}

impl CriticJob {
    pub fn id(&self) -> String {
        let Self { method, activation, seed, .. } = self;
        format!("{}-{method}-{}-seed{seed}", self.generator.stem(), activation)
    }

    pub(super) fn cost(&self) -> u64 {
        // a sample that is measured costs about a sixth of one that is trained on
        let pairs = (self.n_select + self.n_report) / (6 * self.batch_size.max(1));
        let steps = self.epochs * self.epoch_steps + pairs;
        at_width(self.learning_rates.len() * steps, self.width)
    }
}

impl AnchorsJob {
    /// Steps of training, in units of a critic's step at a quarter of the paper's width.
    pub(super) fn cost(&self) -> u64 {
        let critics = self.seeds.len() * self.methods.len() * self.activations.len();
        (critics * self.learning_rates.len() * self.epochs * ANCHOR_STEPS * 4) as u64
    }
}
