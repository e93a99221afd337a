//! The errors of this crate.
//!
//! Every message is one line that names the thing, its value and what was expected, so that the command can print it as it
//! stands.
//!
//! Not here: the errors of the other libraries below, which the command wraps with `anyhow`.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// What was at `path` before is still there.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {what}", path.display())]
    Malformed { path: PathBuf, what: String },
    #[error("{name} is {got}, expected {expected}")]
    InvalidArgument { name: &'static str, got: String, expected: String },
    /// As `InvalidArgument`, for a key of a configuration with its table, as in `training.epochs`.
    #[error("{key} is {got}, expected {expected}")]
    ConfigValue { key: &'static str, got: String, expected: String },
    /// A configuration that is not TOML, has an unknown key or a value of the wrong type; `origin` is a file or a flag.
    #[error("{origin}: {reason}")]
    ConfigSyntax { origin: String, reason: String },
    #[error("{} is in use by another process", path.display())]
    RunLocked { path: PathBuf },
    #[error("{} already holds a run; resume it (--resume) or choose another folder", path.display())]
    RunExists { path: PathBuf },
    #[error("{} is not a run directory: {missing} is missing", path.display())]
    NotARun { path: PathBuf, missing: &'static str },
    #[error("{} was begun {what}", path.display())]
    OtherRun { path: PathBuf, what: String },
    #[error("{command} failed: {reason}")]
    BatchSystem { command: &'static str, reason: String },
    #[error("cannot draw {what}: {reason}")]
    Draw { what: &'static str, reason: String },
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Data(#[from] lipconv_datasets::Error),
}

impl Error {
    /// For `map_err`: names the file that could not be read.
    pub fn read(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |source| Self::Read { path: path.to_owned(), source }
    }

    /// For `map_err`: names the file that could not be written.
    pub fn write(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |source| Self::Write { path: path.to_owned(), source }
    }

    pub fn malformed(path: &Path, what: impl Display) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.to_string() }
    }

    pub fn argument(name: &'static str, got: impl Display, expected: impl Display) -> Self {
        Self::InvalidArgument { name, got: got.to_string(), expected: expected.to_string() }
    }
}
