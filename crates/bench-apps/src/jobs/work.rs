//! How a worker works, and how a job ends.

use std::path::Path;
use std::time::Duration;

use crate::experiment::build::DataOptions;
use crate::progress::Display;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where images may come from.
    pub data: DataOptions,
    /// Time between checkpoints within an epoch.
    pub checkpoint_every: Duration,
    /// How progress is shown.
    pub display: Display,
    /// Which earlier work is used.
    pub reuse: Reuse,
    /// Opens the log of a run.
    pub log: fn(&Path) -> anyhow::Result<()>,
}

/// Which earlier work of a job is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Its result, or its training with the same settings.
    Results,
    /// Its training with the same settings, by the same commit of the source.
    Training,
    Nothing,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The result is written.
    Finished,
    /// There was a result already.
    FinishedBefore,
    /// A request to stop came; training is saved.
    Interrupted,
}
