//! What came out of a cell of Table 4.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::cell::RESULT;
use super::plan::{AnchorsPlan, CriticPlan, DistancePlan, GeneratorPlan};
use crate::error::Result;
use crate::files::{Provenance, read_json, write_json};
use crate::wasserstein::Estimate;
use crate::wasserstein::anchors::AnchorResult;
use crate::wasserstein::search::RateResult;

/// The result of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DistanceResult {
    /// A generator.
    Generator(GeneratorResult),
    /// Critics on known distances.
    Anchors(AnchorsResult),
    /// A critic.
    Critic(CriticResult),
}

/// A trained generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratorResult {
    /// The plan that was followed.
    pub plan: GeneratorPlan,
    /// The images, by name.
    pub dataset: String,
    /// Whether they were drawn by a program.
    pub synthetic: bool,
    /// SHA-256 of the frozen generator's file.
    pub sha256: String,
    /// 64 of its images, a PNG as a `data:` address.
    pub samples: String,
    /// 64 of the data's.
    pub images: String,
    /// Time of training by the process that finished it.
    pub seconds: f64,
    /// Versions, commit, command, machine.
    pub provenance: Provenance,
    /// Lines that a reader should see.
    pub notes: Vec<String>,
}

/// Critics on known distances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnchorsResult {
    /// The plan that was followed.
    pub plan: AnchorsPlan,
    /// One for each anchor, method, nonlinearity and seed.
    pub rows: Vec<AnchorResult>,
    /// Time of training.
    pub seconds: f64,
    /// Versions, commit, command, machine.
    pub provenance: Provenance,
}

/// A trained critic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriticResult {
    /// The plan that was followed.
    pub plan: CriticPlan,
    /// The images, by name.
    pub dataset: String,
    /// Whether they were drawn by a program.
    pub synthetic: bool,
    /// SHA-256 of the frozen generator's file.
    pub generator_sha256: String,
    /// Every learning rate.
    pub rates: Vec<RateResult>,
    /// Index of the best on the samples kept for choosing.
    pub best: usize,
    /// Time of training and measuring, all rates together.
    pub seconds: f64,
    /// Versions, commit, command, machine.
    pub provenance: Provenance,
}

impl CriticResult {
    /// The reported estimate of the chosen rate.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        self.rates.get(self.best)?.report
    }
}

impl DistanceResult {
    /// Reads the result in a cell's folder, if there is one.
    ///
    /// # Errors
    /// [`Error::Read`](crate::Error::Read), [`Error::Malformed`](crate::Error::Malformed).
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULT))
    }

    /// Puts the result into its cell's folder; this is the last thing that happens to a cell.
    ///
    /// # Errors
    /// [`Error::Write`](crate::Error::Write).
    pub fn put(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RESULT), self)
    }

    /// The plan that was followed.
    #[must_use]
    pub fn plan(&self) -> DistancePlan {
        match self {
            Self::Generator(result) => DistancePlan::Generator(result.plan.clone()),
            Self::Anchors(result) => DistancePlan::Anchors(result.plan.clone()),
            Self::Critic(result) => DistancePlan::Critic(result.plan.clone()),
        }
    }

    /// The outcome in a few words.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Generator(result) => format!("trained on {}", result.dataset),
            Self::Anchors(result) => {
                let ratios = result.rows.iter().map(AnchorResult::ratio);
                format!(
                    "estimates reach {:.3} of the exact distances or more",
                    ratios.fold(1.0, f64::min)
                )
            }
            Self::Critic(result) => match result.estimate() {
                Some(found) => format!(
                    "at least {:.3} ± {:.3} with rate {}",
                    found.value, found.standard_error, result.rates[result.best].learning_rate
                ),
                None => "no estimate".into(),
            },
        }
    }
}
