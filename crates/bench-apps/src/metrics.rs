//! The history of a run: one JSON object per line and epoch.
//!
//! Guarantee: each line is flushed when it is written. Going on after an interruption first drops a line that was cut off in
//! the middle and every line that lies after the checkpoint, so that no epoch appears twice.
//!
//! Errors: [`Error::Read`], [`Error::Write`], [`Error::BadJson`] with the line number.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic::write_atomic;
use crate::eps::ByEps;
use crate::error::{Error, Result};

/// One epoch. Accuracies are percentages; what was not measured is absent.
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

/// An open history.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens a history for a run that stands at `step`, dropping what lies after it.
    ///
    /// # Errors
    /// See the module.
    pub fn open_at(path: &Path, step: u64) -> Result<Self> {
        let mut rows = read_metrics(path)?;
        rows.retain(|row| row.step <= step);
        let mut text = String::new();
        for row in &rows {
            text += &line(row);
        }
        write_atomic(path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(path);
        let file = file.map_err(|source| Error::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn push(&mut self, row: &EpochMetrics) -> Result<()> {
        let written = self.file.write_all(line(row).as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

/// Reads a history; a missing file is an empty one, and a last line without an end is dropped.
///
/// # Errors
/// [`Error::Read`], [`Error::BadJson`].
pub fn read_metrics(path: &Path) -> Result<Vec<EpochMetrics>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|e| Error::BadJson {
            path: path.to_owned(),
            reason: format!("line {}: {e}", i + 1),
        })
    };
    complete.lines().enumerate().map(parse).collect()
}

fn line(row: &EpochMetrics) -> String {
    serde_json::to_string(row).expect("numbers and texts have a JSON form") + "\n"
}
