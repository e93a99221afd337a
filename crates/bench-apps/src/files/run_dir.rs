//! The folder of a run.
//!
//! Definition: a run directory holds `config.toml` (every key written out), `versions.json` ([`Provenance`]), `metrics.jsonl`
//! ([`EpochMetrics`]), `checkpoint.safetensors`, `data.json` (hashes of the images, and the settings at the start), `clock.json` (time spent), `log.txt`, after
//! training `network.safetensors` and, after an evaluation, `eval.json`. The network of a run that is extended beyond it becomes
//! `network-epoch-N.safetensors`.
//!
//! Guarantee: one writer at a time ([`super::lock_folder`]). Files are replaced atomically. `config.toml` is written last, so a
//! folder that has it is a run.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use lipconv_datasets::Dataset;
use serde::{Deserialize, Deserializer, Serialize};

use super::claim::{Claim, claim, lock_folder};
use super::json::{JsonLines, read_lines};
use super::{Provenance, read_json, write_atomic, write_json};
use crate::config::keys::{Settings, changed};
use crate::config::{DatasetName, RunConfig};
use crate::error::{Error, Result};
use crate::stdout::note;
use certify::ByEps;

const CONFIG: &str = "config.toml";
const VERSIONS: &str = "versions.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
const NETWORK: &str = "network.safetensors";
/// How the name of a network begins that the run has been extended beyond; its epochs follow.
const EARLIER: &str = "network-epoch-";
const DATA: &str = "data.json";
const CLOCK: &str = "clock.json";
const LOG: &str = "log.txt";
const EVAL: &str = "eval.json";

/// Which images a run was trained on.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct DataIdentity {
    synthetic: bool,
    train_sha256: String,
    test_sha256: String,
    /// What the classes are called, where they have names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    classes: Vec<String>,
    /// Settings with which the run began; runs of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
}

/// Names do not change the images, and settings are compared key by key.
impl PartialEq for DataIdentity {
    fn eq(&self, other: &Self) -> bool {
        let same = self.train_sha256 == other.train_sha256 && self.test_sha256 == other.test_sha256;
        same && self.synthetic == other.synthetic
    }
}

/// A line of the history. Accuracies are percentages; figures that were not measured are absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epochs completed, from 1.
    pub epoch: usize,
    /// Optimiser steps completed.
    pub step: u64,
    /// Mean training loss over the epoch; of a run that diverged, no number, which JSON calls null.
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Training accuracy over the epoch, measured while the weights moved.
    pub train_clean: f64,
    /// Learning rate of the epoch's last step.
    pub learning_rate: f64,
    /// Training time since the run's start, without interruptions and evaluations.
    pub seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_clean: Option<f64>,
    /// Nominal certified test accuracy after the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_certified: Option<ByEps>,
}

fn null_as_nan<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or(f64::NAN))
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
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Declares what the training wrote inputs of this process, which no output replaces.
    pub fn protect(&self) {
        for name in [CONFIG, VERSIONS, METRICS, CHECKPOINT, NETWORK, DATA, CLOCK, LOG] {
            lipconv::output::protect(&self.path.join(name));
        }
    }

    pub fn config(&self) -> Result<RunConfig> {
        RunConfig::read(&self.path.join(CONFIG))
    }

    pub fn provenance(&self) -> Result<Provenance> {
        let path = self.path.join(VERSIONS);
        read_json(&path)?.ok_or_else(|| Error::read(&path)(ErrorKind::NotFound.into()))
    }

    pub fn metrics(&self) -> Result<Vec<EpochMetrics>> {
        read_lines(&self.path.join(METRICS))
    }

    /// The configuration with the images that the run was trained on: where synthetic digits stood in for others, the digits.
    pub fn config_as_trained(&self) -> Result<RunConfig> {
        let mut config = self.config()?;
        let data = self.data()?;
        if data.as_ref().is_some_and(|data| data.synthetic) {
            config.data.dataset = DatasetName::Synthetic;
        }
        let is_trained = self.checkpoint().is_file() || self.network().is_file();
        if data.is_none() && is_trained && config.data.dataset == DatasetName::Mnist {
            let file = self.path.join(DATA).display().to_string();
            note(&format!("{file} is missing: synthetic digits may have stood in for MNIST"));
        }
        Ok(config)
    }

    /// What the classes are called; empty where they have no names.
    pub fn classes(&self) -> Result<Vec<String>> {
        Ok(self.data()?.map(|data| data.classes).unwrap_or_default())
    }

    /// What was recorded of the images; None before the first step.
    fn data(&self) -> Result<Option<DataIdentity>> {
        read_json(&self.path.join(DATA))
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// The weights: the trained network, or the checkpoint of a run that has not ended; None before both.
    pub fn weights(&self) -> Option<PathBuf> {
        [self.network(), self.checkpoint()].into_iter().find(|file| file.is_file())
    }

    /// Networks of ends that the run has been extended beyond, the latest last.
    pub fn earlier_networks(&self) -> Vec<PathBuf> {
        let names = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        let is_earlier = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(EARLIER) && name.ends_with(".safetensors"))
        };
        let mut found: Vec<PathBuf> = names.map(|entry| entry.path()).filter(is_earlier).collect();
        // by the number of epochs
        found.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        found
    }

    /// Where the trained network is, or will be: weights by value, without the state of training.
    pub fn network(&self) -> PathBuf {
        self.path.join(NETWORK)
    }

    pub fn clock(&self) -> PathBuf {
        self.path.join(CLOCK)
    }

    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

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
        // a run takes nothing for its own that it did not write
        let foreign = [METRICS, CHECKPOINT, NETWORK, DATA, CLOCK, LOG, EVAL];
        if let Some(name) = foreign.iter().find(|name| path.join(name).symlink_metadata().is_ok()) {
            let what = format!(
                "holds {name} but no {CONFIG}, expected a run or a folder without one's files"
            );
            return Err(Error::malformed(path, what));
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

    pub fn put_config(&self, config: &RunConfig) -> Result<()> {
        write_atomic(&self.files.path.join(CONFIG), config.to_toml()?.as_bytes())
    }

    /// Gives the network of an end that is no longer the end a name of its own.
    pub fn set_network_aside(&self, epochs: usize) -> Result<()> {
        let network = self.files.network();
        if !network.is_file() {
            return Ok(());
        }
        let aside = self.files.path.join(format!("{EARLIER}{epochs}.safetensors"));
        std::fs::rename(&network, &aside).map_err(Error::write(&aside))
    }

    /// Removes an evaluation of another network than the present one.
    pub fn forget_evaluation(&self) -> Result<()> {
        let path = self.files.eval();
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(Error::Write { path, source })
            }
            _ => Ok(()),
        }
    }

    pub fn files(&self) -> &RunFiles {
        &self.files
    }

    /// The history, cut off after `step`, for adding to.
    pub fn metrics_at(&self, step: u64) -> Result<JsonLines<EpochMetrics>> {
        JsonLines::open(&self.files.path.join(METRICS), |row: &EpochMetrics| row.step <= step)
    }

    /// Records on which images and with which settings the run is trained, or checks that they are those it began with.
    pub fn bind_data(&self, dataset: &Dataset) -> Result<()> {
        let settings = self.files.config()?.kept_settings();
        let before = self.files.data()?.and_then(|data| data.settings);
        let has_settings = before.is_some();
        if let Some(before) = before
            && let Some((key, before, now)) = changed(&before, &settings)
        {
            let what = format!("{key} is {now}, expected {before}, with which the run began");
            return Err(Error::malformed(&self.files.path.join(CONFIG), what));
        }
        let present = DataIdentity {
            synthetic: dataset.is_synthetic(),
            train_sha256: dataset.train.sha256(),
            test_sha256: dataset.test.sha256(),
            classes: dataset.classes.clone(),
            settings: Some(settings),
        };
        let path = self.files.path.join(DATA);
        match claim(&path, &present)? {
            Claim::Other => {}
            // a run of an earlier version begins to be held to its settings
            Claim::Same if !has_settings => return write_json(&path, &present),
            Claim::Same | Claim::New => return Ok(()),
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
