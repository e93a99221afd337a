//! A cell: what it is, its folder, its plan and its result.
//!
//! Definition. The folder of a cell is `DIR/cells/BUDGET/DATASET-NETWORK-METHOD-seedN`. It holds `cell.json`, the plan: the
//! cell and its configuration, all that a worker needs; `run/`, a run directory; `worker.log`, what workers said; and, at
//! the end, `result.json`.
//!
//! Guarantee: plans and results are replaced whole. A result counts for a plan when it was made with the same
//! configuration, the device aside, and has all the attacks that are asked for.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::evidence::{AdversarialSample, FirstImages, Spectra};
use crate::config::{DatasetName, NetworkName, RunConfig};
use crate::error::{Error, Result};
use crate::files::{EpochMetrics, Provenance, read_json, write_json};
use crate::report::CertifiedCurve;
use crate::results::ResultRow;

pub(super) const PLAN: &str = "cell.json";
pub(super) const RESULT: &str = "result.json";

/// What is trained and evaluated once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Images.
    pub dataset: DatasetName,
    /// Architecture.
    pub network: String,
    /// Method.
    pub method: String,
    /// Seed.
    pub seed: u64,
    /// Name of the budget.
    pub budget: String,
    /// Attacks beside PGD and FGSM.
    pub attacks: Vec<String>,
}

/// A cell with all that it takes to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The cell.
    pub cell: Cell,
    /// Its configuration.
    pub config: RunConfig,
    /// Images for the attacks that see decisions alone.
    pub decision_images: usize,
    /// Steps of the boundary attack.
    pub boundary_steps: usize,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// The plan that was followed.
    pub plan: Plan,
    /// The row of `results.json`, without the experiment's name.
    pub row: ResultRow,
    /// The epoch with the best test accuracy, which is the one that the authors report.
    pub best: Option<BestEpoch>,
    /// Accuracy on the first test images under the attacks that see decisions alone.
    pub first_images: Option<FirstImages>,
    /// Certified accuracy over the radius.
    pub curve: CertifiedCurve,
    /// Training, epoch by epoch.
    pub history: Vec<EpochMetrics>,
    /// Singular values of the second convolution, where there is one.
    pub spectra: Option<Spectra>,
    /// Test images with certificates and adversarial examples beyond them.
    pub samples: Vec<AdversarialSample>,
    /// Rigorous bound of the network's norm; absent for a network that is not ours.
    pub lipschitz: Option<f64>,
    /// Versions, commit, command, machine.
    pub provenance: Provenance,
    /// Lines that a reader should see.
    pub notes: Vec<String>,
}

/// An epoch chosen by its test accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// Epochs completed.
    pub epoch: usize,
    /// Test accuracy, percent.
    pub clean: f64,
    /// Nominal certified accuracy at the radius of the attacks.
    pub certified: Option<f64>,
}

impl Cell {
    /// Name of the folder, and the name that people see.
    #[must_use]
    pub fn id(&self) -> String {
        // a person's folder may have any name; a path cannot
        let dataset: String = self
            .dataset
            .to_string()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        format!("{dataset}-{}-{}-seed{}", self.network, self.method, self.seed)
    }

    /// The folder under `dir`.
    #[must_use]
    pub fn folder(&self, dir: &Path) -> PathBuf {
        dir.join("cells").join(&self.budget).join(self.id())
    }

    /// Whether the network is a published one, which is not trained here.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.method == "published"
    }

    /// The architecture.
    ///
    /// # Errors
    /// [`Error::ConfigValue`] for an unknown one.
    pub fn network_name(&self) -> Result<NetworkName> {
        match self.network.as_str() {
            "small" => Ok(NetworkName::Small),
            "large" => Ok(NetworkName::Large),
            "fc-3" => Ok(NetworkName::Fc3),
            other => Err(Error::ConfigValue {
                key: "network.name",
                got: other.to_owned(),
                expected: "small, large or fc-3".into(),
            }),
        }
    }
}

impl Plan {
    /// Reads the plan in a cell's folder.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(PLAN);
        read_json(&path)?.ok_or_else(|| Error::Read { path, source: ErrorKind::NotFound.into() })
    }

    /// Puts the plan into its folder under `dir`, together with the attacks that an earlier one asks for.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn put(&mut self, dir: &Path) -> Result<PathBuf> {
        let folder = self.cell.folder(dir);
        // a plan that cannot be read is replaced: nothing is lost by it
        let before = Self::read(&folder).ok();
        if let Some(before) = &before {
            for attack in &before.cell.attacks {
                if !self.cell.attacks.contains(attack) {
                    self.cell.attacks.push(attack.clone());
                }
            }
        }
        self.cell.attacks.sort();
        if before.as_ref() != Some(self) {
            write_json(&folder.join(PLAN), self)?;
        }
        Ok(folder)
    }

    /// The result in a cell's folder, where there is one that counts for this plan.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn result(&self, folder: &Path) -> Result<Option<CellResult>> {
        let result = CellResult::read(folder)?;
        Ok(result.filter(|result| self.is_fulfilled_by(&result.plan)))
    }

    fn is_fulfilled_by(&self, done: &Self) -> bool {
        let config = RunConfig { device: self.config.device, ..done.config.clone() };
        let has_attacks = self.cell.attacks.iter().all(|a| done.cell.attacks.contains(a));
        let same_effort = self.cell.attacks.is_empty()
            || (self.decision_images == done.decision_images
                && self.boundary_steps == done.boundary_steps);
        self.cell.id() == done.cell.id() && config == self.config && has_attacks && same_effort
    }
}

impl CellResult {
    /// Reads the result in a cell's folder, if there is one.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read_json(&folder.join(RESULT))
    }

    /// Puts the result into its cell's folder; this is the last thing that happens to a cell.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn put(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RESULT), self)
    }
}
