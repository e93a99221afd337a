//! The folder of a run.
//!
//! Definition: a run directory holds `config.toml` (every key written out), `versions.json` ([`crate::provenance`]),
//! `metrics.jsonl` ([`crate::metrics`]), `checkpoint.safetensors`, `data.json` (hashes of the images), `clock.json` (time spent), `log.txt`, after training
//! `network.safetensors` and, after an evaluation, `eval.json`.
//!
//! Guarantee: one writer at a time, by a lock that the system gives back when the process ends, however it ends. Files are
//! replaced atomically. `config.toml` is written last, so a folder that has it is a run.
//!
//! Errors: [`Error::Write`], [`Error::RunLocked`], [`Error::RunExists`], [`Error::NotARun`], and those of
//! [`crate::config`].

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::metrics::{EpochMetrics, MetricsLog, read_metrics};
use crate::provenance::Provenance;

const CONFIG: &str = "config.toml";
const VERSIONS: &str = "versions.json";
const METRICS: &str = "metrics.jsonl";
const CHECKPOINT: &str = "checkpoint.safetensors";
const NETWORK: &str = "network.safetensors";
const DATA: &str = "data.json";
const LOG: &str = "log.txt";
const EVAL: &str = "eval.json";
const LOCK: &str = "run.lock";

/// Which images a run was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DataIdentity {
    synthetic: bool,
    train_sha256: String,
    test_sha256: String,
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
    /// The run in `path`.
    ///
    /// # Errors
    /// [`Error::NotARun`].
    pub fn open(path: &Path) -> Result<Self> {
        if path.join(CONFIG).is_file() {
            return Ok(Self { path: path.to_owned() });
        }
        Err(Error::NotARun { path: path.to_owned(), missing: CONFIG })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    ///
    /// # Errors
    /// Those of [`RunConfig::read`].
    pub fn config(&self) -> Result<RunConfig> {
        RunConfig::read(&self.path.join(CONFIG))
    }

    /// The versions the run was started with.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::BadJson`].
    pub fn provenance(&self) -> Result<Provenance> {
        let path = self.path.join(VERSIONS);
        let text = fs::read_to_string(&path)
            .map_err(|source| Error::Read { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|e| Error::BadJson { path, reason: e.to_string() })
    }

    /// The history so far.
    ///
    /// # Errors
    /// Those of [`read_metrics`].
    pub fn metrics(&self) -> Result<Vec<EpochMetrics>> {
        read_metrics(&self.path.join(METRICS))
    }

    /// Whether the run was trained on synthetic images; `None` where that is not recorded.
    #[must_use]
    pub fn is_synthetic(&self) -> Option<bool> {
        let text = fs::read_to_string(self.path.join(DATA)).ok()?;
        Some(serde_json::from_str::<DataIdentity>(&text).ok()?.synthetic)
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
    /// Begins a run in `path`, which is made where it is missing.
    ///
    /// # Errors
    /// [`Error::Write`], [`Error::RunLocked`], [`Error::RunExists`].
    pub fn create(path: &Path, config: &RunConfig, provenance: &Provenance) -> Result<Self> {
        let run = Self::locked(path)?;
        if path.join(CONFIG).exists() {
            return Err(Error::RunExists { path: path.to_owned() });
        }
        run.write_json(&path.join(VERSIONS), provenance)?;
        write_atomic(&path.join(CONFIG), config.to_toml()?.as_bytes())?;
        Ok(run)
    }

    /// Goes on with the run in `path`.
    ///
    /// # Errors
    /// [`Error::NotARun`], [`Error::Write`], [`Error::RunLocked`].
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
    ///
    /// # Errors
    /// Those of [`MetricsLog::open_at`].
    pub fn metrics_at(&self, step: u64) -> Result<MetricsLog> {
        MetricsLog::open_at(&self.files.path.join(METRICS), step)
    }

    /// Records which images the run is trained on, or checks that they are those it began with.
    ///
    /// # Errors
    /// [`Error::OtherData`]; [`Error::Write`], [`Error::Read`], [`Error::BadJson`].
    pub fn bind_data(&self, dataset: &Dataset) -> Result<()> {
        let path = self.files.path.join(DATA);
        let present = DataIdentity {
            synthetic: dataset.is_synthetic(),
            train_sha256: dataset.train.sha256(),
            test_sha256: dataset.test.sha256(),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return write_json(&path, &present),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let before: DataIdentity = serde_json::from_str(&text)
            .map_err(|e| Error::BadJson { path, reason: e.to_string() })?;
        if before == present {
            return Ok(());
        }
        Err(Error::OtherData {
            path: self.files.path.clone(),
            source_now: dataset.source.to_string(),
        })
    }

    /// Writes a value as indented JSON, atomically.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        write_json(path, value)
    }

    fn locked(path: &Path) -> Result<Self> {
        let lock = lock_folder(path)?;
        Ok(Self { files: RunFiles { path: path.to_owned() }, _lock: lock })
    }
}

/// Makes the folder where it is missing, and holds it for this process as long as the returned file lives.
///
/// # Errors
/// [`Error::Write`]; [`Error::RunLocked`] when another process holds it.
pub fn lock_folder(path: &Path) -> Result<File> {
    let write_error = |source| Error::Write { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(write_error)?;
    let lock = File::create(path.join(LOCK)).map_err(write_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::RunLocked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(write_error(source)),
    }
}

/// Renames a folder to a free name beside it, which is returned.
///
/// # Errors
/// [`Error::Write`].
pub fn move_aside(path: &Path) -> Result<PathBuf> {
    let write_error = |source| Error::Write { path: path.to_owned(), source };
    let name = |i: u32| PathBuf::from(format!("{}-old-{i}", path.display()));
    let free = (1..10_000).map(name).find(|path| !path.exists());
    let free = free.ok_or_else(|| write_error(ErrorKind::AlreadyExists.into()))?;
    fs::rename(path, &free).map_err(write_error)?;
    Ok(free)
}

/// Writes a value as indented JSON with a final line end, atomically.
///
/// # Errors
/// [`Error::Write`].
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .expect("numbers, texts and maps with text keys have a JSON form");
    write_atomic(path, (text + "\n").as_bytes())
}
