//! The check that no attack succeeds inside a certified radius.
//!
//! Definition: a certificate with radius r claims that every image at Euclidean distance less than r keeps its
//! class. An attack that reports an image of another class at distance d, rounded up, with d < r refutes it.
//!
//! The claim is about the function as executed, so that attack and radius must be for the same arithmetic. A
//! refutation is a defect (of a bound, of the arithmetic's model, or of the machine), never a matter of
//! tolerance; that is why there is none.

use crate::arithmetic::Arithmetic;
use crate::attack::Outcome;
use crate::error::{Error, Result};

/// Checks the outcome of an attack against the radii certified for the arithmetic that it attacked.
///
/// # Errors
/// [`Error::Unsound`] for the first sample broken strictly inside its radius, [`Error::CountMismatch`] when
/// the lists have different lengths.
pub fn check_soundness(
    attack: &str,
    outcome: &Outcome,
    labels: &[usize],
    radii: &[f64],
    arithmetic: Arithmetic,
) -> Result<()> {
    let n = outcome.broken.len();
    for (what, got) in [("labels", labels.len()), ("radii", radii.len())] {
        if got != n {
            return Err(Error::CountMismatch { what, expected: n, got });
        }
    }
    // an image of another class refutes the certificate even where it is too far away to count as broken
    let changed = |i: usize| outcome.broken[i] || outcome.predictions[i] != labels[i];
    let refuted = |&i: &usize| changed(i) && outcome.distances[i] < radii[i];
    match (0..n).find(refuted) {
        Some(sample) => Err(Error::Unsound {
            attack: attack.to_owned(),
            sample,
            label: labels[sample],
            prediction: outcome.predictions[sample],
            distance: outcome.distances[sample],
            radius: radii[sample],
            arithmetic: arithmetic.name(),
        }),
        None => Ok(()),
    }
}
