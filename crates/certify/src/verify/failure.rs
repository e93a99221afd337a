//! Why a certificate is refused.

/// A claim of a certificate that could not be confirmed, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{claim}: {reason}")]
pub struct Failure {
    /// The claim, as its place in the file: `layers[1].lipschitz`, `samples[7].executed.f32`, `model` …
    pub claim: String,
    /// What was found, and what would have been needed.
    pub reason: String,
}

/// Result of a check.
pub(super) type Verdict<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(claim: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { claim: claim.into(), reason: reason.into() }
    }
}
