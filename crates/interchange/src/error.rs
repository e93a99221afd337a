//! The one error type of this crate. Names from files are quoted with their control characters escaped.

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no ONNX model.
    #[error("not an ONNX model: {problem}")]
    Malformed {
        /// Where and why.
        problem: String,
    },
    /// A part of the model that this crate does not know or does not take.
    #[error("{what}: {problem}")]
    Unsupported {
        /// The node, the tensor or the part of the model.
        what: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The network that the file describes is none.
    #[error("the network is refused: {0}")]
    Network(#[from] lipconv::Error),
    /// A description and its weights do not fit.
    #[error("{what}: {problem}")]
    Description {
        /// The layer or the tensor.
        what: String,
        /// What was found and what was expected.
        problem: String,
    },
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A refusal of a part of a model.
pub(crate) fn unsupported<T>(what: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported { what: what.into(), problem: problem.into() })
}

pub(crate) fn malformed<T>(problem: impl Into<String>) -> Result<T> {
    Err(Error::Malformed { problem: problem.into() })
}

/// A name of a file, fit for a terminal.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 80;
    let short: String = name.chars().take(LONGEST).collect();
    let more = if short.len() < name.len() { "…" } else { "" };
    format!("`{}{more}`", short.escape_debug())
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}
