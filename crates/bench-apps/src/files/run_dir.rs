//! The folder of a run.
//!
//! Definition: a run directory holds `config.toml` (every key written out), `versions.json` ([`Provenance`]), `metrics.jsonl`
//! ([`EpochMetrics`]), `checkpoint.safetensors`, `data.json` (hashes of the images), `clock.json` (time spent), `log.txt`, after
//! training `network.safetensors` and, after an evaluation, `eval.json`.
//!
//! Guarantee: one writer at a time ([`super::lock_folder`]). Files are replaced atomically. `config.toml` is written last, so a
//! folder that has it is a run.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::claim::{Claim, claim, lock_folder};
use super::lines::{JsonLines, read_lines};
use super::{Provenance, read_json, write_atomic, write_json};
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::eps::ByEps;
use crate::error::{Error, Result};

const CONFIG: &str = "config.toml";
const VERSIONS: &str = "versions.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
const NETWORK: &str = "network.safetensors";
const DATA: &str = "data.json";
const LOG: &str = "log.txt";
const EVAL: &str = "eval.json";

/// Which images a run was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DataIdentity {
    synthetic: bool,
    train_sha256: String,
    test_sha256: String,
}

/// A line of the history. Accuracies are percentages; what was not measured is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epochs completed, from 1.
    pub epoch: usize,
    /// Optimiser steps completed.
    pub step: u64,
    /// Mean training loss over the epoch.
    pub loss: f64,
    /// Training accuracy over the epoch, measured while the weights moved.
    pub train_clean: f64,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Training time since the run's start, interruptions excluded.
    pub seconds: f64,
    /// Test accuracy after the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_clean: Option<f64>,
    /// Nominal certified test accuracy after the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_certified: Option<ByEps>,
}

/// The files of a run, for reading; any number of processes may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFiles {
    path: PathBuf,
}

/// The files of a run, for the one process that writes.
#[derive(Debug)]
pub struct RunDir {
    files: RunFiles,
    _lock: File,
}

impl RunFiles {
    /// The run in `path`, or [`Error::NotARun`].
    pub fn open(path: &Path) -> Result<Self> {
        if path.join(CONFIG).is_file() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(Error::NotARun { path: path.to_owned(), missing: CONFIG })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn config(&self) -> Result<RunConfig> {
        RunConfig::read(&self.path.join(CONFIG))
    }

    /// The versions the run was started with.
    pub fn provenance(&self) -> Result<Provenance> {
        let path = self.path.join(VERSIONS);
        read_json(&path)?.ok_or_else(|| Error::read(&path)(ErrorKind::NotFound.into()))
    }

    /// The history so far.
    pub fn metrics(&self) -> Result<Vec<EpochMetrics>> {
        read_lines(&self.path.join(METRICS))
    }

    /// Whether the run was trained on synthetic images; `None` where that is not recorded.
    #[must_use]
    pub fn is_synthetic(&self) -> Option<bool> {
        let data: Option<DataIdentity> = read_json(&self.path.join(DATA)).ok()?;
        data.map(|data| data.synthetic)
    }

    /// Where the checkpoint is, or will be.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// Where the trained network is, or will be: weights by value, without the state of training.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        self.path.join(NETWORK)
    }

    /// Where the log is, or will be.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the evaluation is, or will be.
    #[must_use]
    pub fn eval(&self) -> PathBuf {
        self.path.join(EVAL)
    }
}

impl RunDir {
    /// Begins a run in `path`, which is made where it is missing; [`Error::RunExists`] where there is one.
    pub fn create(path: &Path, config: &RunConfig, provenance: &Provenance) -> Result<Self> {
        let run = Self::locked(path)?;
        if path.join(CONFIG).exists() {
            return Err(Error::RunExists { path: path.to_owned() });
        }
        write_json(&path.join(VERSIONS), provenance)?;
        write_atomic(&path.join(CONFIG), config.to_toml()?.as_bytes())?;
        Ok(run)
    }

    /// Goes on with the run in `path`.
    pub fn resume(path: &Path) -> Result<Self> {
        RunFiles::open(path)?;
        Self::locked(path)
    }

    /// What can be read.
    #[must_use]
    pub fn files(&self) -> &RunFiles {
        &self.files
    }

    /// The history, cut off after `step`, for adding to.
    pub fn metrics_at(&self, step: u64) -> Result<JsonLines<EpochMetrics>> {
        JsonLines::open(&self.files.path.join(METRICS), |row: &EpochMetrics| row.step <= step)
    }

    /// Records which images the run is trained on, or checks that they are those it began with.
    pub fn bind_data(&self, dataset: &Dataset) -> Result<()> {
        let present = DataIdentity {
            synthetic: dataset.is_synthetic(),
            train_sha256: dataset.train.sha256(),
            test_sha256: dataset.test.sha256(),
        };
        if claim(&self.files.path.join(DATA), &present)? != Claim::Other {
            return Ok(());
        }
        Err(Error::OtherRun {
            path: self.files.path.clone(),
            what: format!(
                "on other images than those found now ({}); name their folder with --data-dir",
                dataset.source
            ),
        })
    }

    fn locked(path: &Path) -> Result<Self> {
        let lock = lock_folder(path)?;
        Ok(Self { files: RunFiles { path: path.to_owned() }, _lock: lock })
    }
}
