//! Margins of logits and the nominal certificate of the paper.
//!
//! Definition, for logits y and label t: `margin = max(0, y_t - max_{j≠t} y_j)`. A network with Lipschitz
//! constant L moves a difference of two logits by at most `√2·L·‖δ‖₂` under a perturbation δ, so that no
//! perturbation of norm ε changes the class when
//!
//! ```text
//! margin > √2 · L · ε
//! ```
//!
//! The inequality is strict: at equality the two logits may tie. The certified radius is accordingly
//! `margin / (√2 L)`, and a sample is certified at ε exactly when its radius exceeds ε.
//!
//! Guarantee: *nominal* means what the paper computes: L is taken on faith and rounding errors are
//! ignored, both in the logits and here. For radii that hold for stored weights and executed arithmetic
//! see [`Certifier`](crate::Certifier).
//!
//! Source: Li et al. 2019 (arXiv 1911.00937), section 2; Tsuzuku et al. 2018.

use candle_core::Tensor;

use crate::classifier::{check_labels, is_correct, logit_rows};
use crate::error::{Error, Result};

/// `max(0, y_t - max_{j≠t} y_j)` of each row of logits (b x n_classes); 0 where a NaN occurs.
///
/// A single class has nothing to be confused with: its margin is +∞.
///
/// # Errors
/// [`Error::ShapeMismatch`] when `logits` is not a matrix; label errors.
pub fn margins(logits: &Tensor, labels: &[usize]) -> Result<Vec<f64>> {
    let (n, n_classes) = logits.dims2().map_err(|_| Error::ShapeMismatch {
        what: "logits",
        expected: "b x n_classes".into(),
        got: logits.dims().to_vec(),
    })?;
    check_labels(labels, n, n_classes)?;
    let rows = logit_rows(logits)?;
    Ok(rows.iter().zip(labels).map(|(row, &label)| margin(row, label)).collect())
}

/// The margin of one row of logits; 0 where the label is not strictly on top, or names no logit.
#[must_use]
pub fn margin(logits: &[f64], label: usize) -> f64 {
    if !is_correct(logits, label) {
        return 0.0;
    }
    let others = logits.iter().enumerate().filter(|&(j, _)| j != label);
    logits[label] - others.map(|(_, &y)| y).fold(f64::NEG_INFINITY, f64::max)
}

/// The paper's radius `margin / (√2 L)` of each row of logits, for a Lipschitz constant taken on faith.
///
/// # Errors
/// As for [`margins`]; [`Error::InvalidSetting`] when `lipschitz` is not positive and finite.
pub fn nominal_radii(logits: &Tensor, labels: &[usize], lipschitz: f64) -> Result<Vec<f64>> {
    if !(lipschitz > 0.0 && lipschitz.is_finite()) {
        let expected = "a positive finite number";
        return Err(Error::InvalidSetting { name: "lipschitz", value: lipschitz, expected });
    }
    let scale = std::f64::consts::SQRT_2 * lipschitz;
    Ok(margins(logits, labels)?.into_iter().map(|margin| margin / scale).collect())
}

/// The fraction of samples certified at `eps`, in percent: those whose radius exceeds it strictly.
///
/// ```
/// assert_eq!(certify::certified_accuracy(&[0.0, 1.0, 2.0, 3.0], 1.0), 50.0);
/// ```
#[must_use]
pub fn certified_accuracy(radii: &[f64], eps: f64) -> f64 {
    percent(radii.iter().filter(|&&radius| radius > eps).count(), radii.len())
}

/// `100·part / whole`; 0 of nothing is 0.
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn margins_of_ties_mistakes_and_nans_are_zero() {
        assert_eq!(margin(&[3.0, 1.0, 2.0], 0), 1.0);
        assert_eq!(margin(&[3.0, 1.0, 2.0], 1), 0.0);
        assert_eq!(margin(&[3.0, 3.0], 0), 0.0);
        assert_eq!(margin(&[3.0, f64::NAN], 0), 0.0);
        assert_eq!(margin(&[f64::NAN, 1.0], 0), 0.0);
        assert_eq!(margin(&[3.0], 0), f64::INFINITY);
    }

    #[test]
    fn certified_means_strictly_inside() {
        let logits = Tensor::new(&[[2f64.sqrt(), 0.0]], &Device::Cpu).unwrap();
        let radii = nominal_radii(&logits, &[0], 1.0).unwrap();
        assert_eq!(certified_accuracy(&radii, radii[0]), 0.0);
        assert_eq!(certified_accuracy(&radii, radii[0].next_down()), 100.0);
        assert_eq!(certified_accuracy(&[], 0.1), 0.0);
    }

    #[test]
    fn bad_input_is_refused() {
        let logits = Tensor::new(&[1.0, 0.0], &Device::Cpu).unwrap();
        let text = margins(&logits, &[0]).unwrap_err().to_string();
        assert_eq!(text, "logits has shape [2], expected b x n_classes");
        let logits = logits.reshape((1, 2)).unwrap();
        for lipschitz in [0.0, f64::NAN, f64::INFINITY] {
            assert!(nominal_radii(&logits, &[0], lipschitz).is_err());
        }
    }
}
