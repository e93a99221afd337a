//! What an attack climbs: losses as gradients with respect to the logits.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The loss that an attack increases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// Carlini and Wagner's `-max(0, y_t - max_{j≠t} y_j + κ)`: it stops to push once a sample is misclassified
    /// by κ.
    CarliniWagner {
        /// κ ≥ 0.
        confidence: f64,
    },
    /// Cross-entropy `log Σ_j exp(y_j) - y_t`.
    CrossEntropy,
}

impl Default for Loss {
    /// Carlini and Wagner's with the paper's κ = 50.
    fn default() -> Self {
        Self::CarliniWagner { confidence: 50.0 }
    }
}

impl Loss {
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::CarliniWagner { confidence }
                if !(confidence >= 0.0 && confidence.is_finite()) =>
            {
                let expected = "a finite number of at least 0";
                Err(Error::InvalidSetting { name: "confidence", value: confidence, expected })
            }
            _ => Ok(()),
        }
    }

    /// `∂ loss / ∂y` of one row of logits, added to a row of zeros.
    fn gradient(self, logits: &[f64], label: usize, row: &mut [f64]) {
        match self {
            Self::CarliniWagner { confidence } => {
                let Some(rival) = best_rival(logits, label) else { return };
                if logits[label] - logits[rival] + confidence > 0.0 {
                    row[label] -= 1.0;
                    row[rival] += 1.0;
                }
            }
            Self::CrossEntropy => {
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|y| (y - top).exp()).sum();
                row.iter_mut().zip(logits).for_each(|(r, y)| *r += (y - top).exp() / sum);
                row[label] -= 1.0;
            }
        }
    }

    /// A scalar whose gradient with respect to `logits` is that of the sum of the samples' losses: the loss
    /// linearised at the logits themselves.
    pub(super) fn linearised(
        self,
        logits: &Tensor,
        labels: &[usize],
    ) -> candle_core::Result<Tensor> {
        let (b, n_classes) = logits.dims2()?;
        let values: Vec<Vec<f64>> = logits.detach().to_dtype(DType::F64)?.to_vec2()?;
        let mut gradient = vec![0.0; b * n_classes];
        for ((row, logits), &label) in gradient.chunks_exact_mut(n_classes).zip(&values).zip(labels)
        {
            self.gradient(logits, label, row);
        }
        let gradient = Tensor::from_vec(gradient, (b, n_classes), logits.device())?;
        (logits * gradient.to_dtype(logits.dtype())?)?.sum_all()
    }
}

/// The class other than `label` with the largest logit.
pub(super) fn best_rival(logits: &[f64], label: usize) -> Option<usize> {
    let rivals = (0..logits.len()).filter(|&j| j != label);
    rivals.reduce(|best, j| if logits[j] > logits[best] { j } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(loss: Loss, logits: &[f64], label: usize) -> Vec<f64> {
        let mut row = vec![0.0; logits.len()];
        loss.gradient(logits, label, &mut row);
        row
    }

    /// Central differences of the loss itself.
    fn differences(loss: impl Fn(&[f64]) -> f64, logits: &[f64]) -> Vec<f64> {
        let h = 1e-5;
        let shifted = |i: usize, h: f64| {
            let mut y = logits.to_vec();
            y[i] += h;
            loss(&y)
        };
        (0..logits.len()).map(|i| (shifted(i, h) - shifted(i, -h)) / (2.0 * h)).collect()
    }

    #[track_caller]
    fn check_close(a: &[f64], b: &[f64]) {
        // central differences with h = 1e-5: h² of truncation, eps / h of rounding
        a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() < 1e-9, "{a} {b}"));
    }

    #[test]
    fn gradients_are_those_of_the_losses() {
        let logits = [0.3, -1.0, 2.0, 0.7];
        for label in 0..4 {
            let cross_entropy = |y: &[f64]| y.iter().map(|v| v.exp()).sum::<f64>().ln() - y[label];
            check_close(
                &gradient(Loss::CrossEntropy, &logits, label),
                &differences(cross_entropy, &logits),
            );
            for confidence in [0.0, 2.0, 50.0] {
                let carlini_wagner = |y: &[f64]| {
                    let rival = y.iter().enumerate().filter(|&(j, _)| j != label);
                    let rival = rival.map(|(_, &v)| v).fold(f64::NEG_INFINITY, f64::max);
                    -(y[label] - rival + confidence).max(0.0)
                };
                check_close(
                    &gradient(Loss::CarliniWagner { confidence }, &logits, label),
                    &differences(carlini_wagner, &logits),
                );
            }
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        assert_eq!(gradient(Loss::CrossEntropy, &[1e4, -1e4], 0), [0.0, 0.0]);
        assert_eq!(gradient(Loss::CrossEntropy, &[1e4, -1e4], 1), [1.0, -1.0]);
    }
}
