//! The one error type of this crate.
//!
//! Every message is one line that names the thing, its value and what was expected.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file could not be written; what was at `path` before is still there.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The content of a file is not what its format asks for.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        what: String,
    },
    /// An argument is outside its domain.
    #[error("{name} is {got}, expected {expected}")]
    InvalidArgument {
        /// Name of the argument.
        name: &'static str,
        /// Its value.
        got: String,
        /// Its domain.
        expected: String,
    },
    /// A data set is nowhere.
    #[error("no {dataset}: {reason}")]
    DataNotFound {
        /// The data set.
        dataset: String,
        /// Where it was looked for, and how to get it.
        reason: String,
    },
    /// One mirror did not deliver a file.
    #[error("{url}: {reason}")]
    Transfer {
        /// The address of the file.
        url: String,
        /// What the server or the network did.
        reason: String,
    },
    /// A file was delivered whole and is not the published one.
    #[error("{file}: SHA-256 is {got}, expected {expected} (from {url})")]
    WrongHash {
        /// Name of the file.
        file: String,
        /// The hash of what came.
        got: String,
        /// The published hash.
        expected: String,
        /// The address it came from.
        url: String,
    },
    /// Several mirrors were tried, and none delivered the file.
    #[error("{file} could not be downloaded: {}", reasons.join("; "))]
    DownloadFailed {
        /// Name of the file.
        file: String,
        /// One reason for each mirror.
        reasons: Vec<String>,
    },
    /// A tensor operation failed.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: names the file that could not be read.
    pub(crate) fn read(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |source| Self::Read { path: path.to_owned(), source }
    }

    /// For `map_err`: names the file that could not be written.
    pub(crate) fn write(path: &Path) -> impl Fn(io::Error) -> Self + Copy + '_ {
        |source| Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, what: impl Display) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.to_string() }
    }

    pub(crate) fn argument(name: &'static str, got: impl Display, expected: impl Display) -> Self {
        Self::InvalidArgument { name, got: got.to_string(), expected: expected.to_string() }
    }
}

/// Channels, height and width in words, as in "3 x 32 x 32".
pub(crate) fn by(shape: &[usize; 3]) -> String {
    format!("{} x {} x {}", shape[0], shape[1], shape[2])
}
