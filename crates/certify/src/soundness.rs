//! The check that no attack succeeds inside a certified radius.
//!
//! Definition: a certificate with radius r claims that every image at Euclidean distance less than r keeps its
//! class. An attack that reports an image of another class at distance d, rounded up, with d < r refutes it.
//!
//! The claim is about the function as executed, so that attack and radius must be for the same arithmetic. A
//! refutation is a defect (of a bound, of the arithmetic's model, or of the machine), never a matter of
//! tolerance; that is why there is none.

use crate::arithmetic::Arithmetic;
use crate::attack::AttackOutcome;
use crate::error::{Error, Result};

/// Checks the outcome of an attack against the radii certified for the arithmetic that it attacked.
///
/// # Errors
/// [`Error::Unsound`] for the first sample broken strictly inside its radius, [`Error::CountMismatch`] when
/// the lists have different lengths.
pub fn check_soundness(
    attack: &str,
    outcome: &AttackOutcome,
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
    // a distance that is no number refutes too: nothing unsound passes because it cannot be compared
    let is_inside = |i: usize| outcome.distances[i].is_nan() || outcome.distances[i] < radii[i];
    let refuted = |&i: &usize| changed(i) && radii[i] > 0.0 && is_inside(i);
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

/// Checks that an attack left at least the share of samples that is certified at its ε, both in percent.
///
/// # Errors
/// [`Error::BelowCertified`].
pub(crate) fn check_accuracy(attack: &str, eps: f64, accuracy: f64, certified: f64) -> Result<()> {
    if accuracy >= certified {
        return Ok(());
    }
    Err(Error::BelowCertified { attack: attack.to_owned(), eps, accuracy, certified })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accuracy_below_the_certified_one_is_an_error() {
        assert!(check_accuracy("pgd", 1.58, 39.0, 39.0).is_ok());
        for accuracy in [5.0, f64::NAN] {
            let text = check_accuracy("pgd", 1.58, accuracy, 39.0).unwrap_err().to_string();
            let start =
                format!("unsound: under pgd at 1.58 the accuracy is {accuracy} %, below the ");
            assert!(
                text.starts_with(&start) && text.ends_with("certified accuracy of 39 %"),
                "{text}"
            );
        }
    }
}
