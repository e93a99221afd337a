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
        Self { claim: escaped(claim.into()), reason: escaped(reason.into()) }
    }
}

/// Without characters that could erase, forge or turn around lines of a terminal.
fn escaped(text: String) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(steers) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}
