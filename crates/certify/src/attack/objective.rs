//! What an attack climbs: losses of a row of logits, and their gradients.

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
    /// Croce and Hein's difference of logits ratio `-(y_t - max_{j≠t} y_j) / (y_(1) - y_(3) + 1e-12)`, which no scale of the
    /// logits changes; y_(i) is the i-th largest. With fewer than four classes the margin `max_{j≠t} y_j - y_t`.
    DifferenceOfLogitsRatio,
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

    /// The loss of one row of logits.
    pub(super) fn value(self, logits: &[f64], label: usize) -> f64 {
        match self {
            Self::CarliniWagner { confidence } => {
                let gap = best_rival(logits, label).map(|rival| logits[label] - logits[rival]);
                gap.map_or(0.0, |gap| -(gap + confidence).max(0.0))
            }
            Self::CrossEntropy => {
                let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = logits.iter().map(|y| (y - top).exp()).sum();
                sum.ln() + top - logits[label]
            }
            Self::DifferenceOfLogitsRatio => best_rival(logits, label)
                .map_or(0.0, |rival| Ratio::untargeted(logits, label, rival).value(logits)),
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
            Self::DifferenceOfLogitsRatio => {
                let Some(rival) = best_rival(logits, label) else { return };
                Ratio::untargeted(logits, label, rival).gradient(logits, row);
            }
        }
    }
}

/// What a single sample's search wants to increase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// A loss for a label.
    Loss(Loss, usize),
    /// The targeted ratio `-(y_t - y_j) / (y_(1) - (y_(3) + y_(4)) / 2 + 1e-12)`; `y_j - y_t` with fewer than four classes.
    TargetedRatio { label: usize, target: usize },
    /// `y_j - y_t`.
    Difference { label: usize, target: usize },
}

impl Goal {
    pub(super) fn value(self, logits: &[f64]) -> f64 {
        match self {
            Self::Loss(loss, label) => loss.value(logits, label),
            Self::TargetedRatio { label, target } => {
                Ratio::targeted(logits, label, target).value(logits)
            }
            Self::Difference { label, target } => logits[target] - logits[label],
        }
    }

    fn gradient(self, logits: &[f64], row: &mut [f64]) {
        match self {
            Self::Loss(loss, label) => loss.gradient(logits, label, row),
            Self::TargetedRatio { label, target } => {
                Ratio::targeted(logits, label, target).gradient(logits, row);
            }
            Self::Difference { label, target } => {
                row[label] -= 1.0;
                row[target] += 1.0;
            }
        }
    }

    /// A scalar whose gradient with respect to `logits` is that of the sum of the samples' goals: the goals
    /// linearised at the logits themselves.
    pub(super) fn linearised(goals: &[Self], logits: &Tensor) -> candle_core::Result<Tensor> {
        let (b, n_classes) = logits.dims2()?;
        let values: Vec<Vec<f64>> = logits.detach().to_dtype(DType::F64)?.to_vec2()?;
        let mut gradient = vec![0.0; b * n_classes];
        for ((row, logits), goal) in gradient.chunks_exact_mut(n_classes).zip(&values).zip(goals) {
            goal.gradient(logits, row);
        }
        let gradient = Tensor::from_vec(gradient, (b, n_classes), logits.device())?;
        (logits * gradient.to_dtype(logits.dtype())?)?.sum_all()
    }
}

/// `(y_rival - y_label) / (Σ weight · y + 1e-12)`, or its numerator where `weights` is empty.
struct Ratio {
    label: usize,
    rival: usize,
    weights: Vec<(usize, f64)>,
}

impl Ratio {
    /// Fewer classes than this have no third and fourth logit to divide by.
    const CLASSES: usize = 4;

    fn untargeted(logits: &[f64], label: usize, rival: usize) -> Self {
        Self::new(logits, label, rival, &[(0, 1.0), (2, -1.0)])
    }

    fn targeted(logits: &[f64], label: usize, target: usize) -> Self {
        Self::new(logits, label, target, &[(0, 1.0), (2, -0.5), (3, -0.5)])
    }

    /// With weights for places of the ranking.
    fn new(logits: &[f64], label: usize, rival: usize, places: &[(usize, f64)]) -> Self {
        let weights = if logits.len() < Self::CLASSES {
            Vec::new()
        } else {
            let ranked = ranking(logits);
            places.iter().map(|&(place, weight)| (ranked[place], weight)).collect()
        };
        Self { label, rival, weights }
    }

    fn denominator(&self, logits: &[f64]) -> f64 {
        if self.weights.is_empty() {
            return 1.0;
        }
        self.weights.iter().map(|&(j, weight)| weight * logits[j]).sum::<f64>() + 1e-12
    }

    fn value(&self, logits: &[f64]) -> f64 {
        (logits[self.rival] - logits[self.label]) / self.denominator(logits)
    }

    fn gradient(&self, logits: &[f64], row: &mut [f64]) {
        let denominator = self.denominator(logits);
        let value = self.value(logits);
        row[self.rival] += 1.0 / denominator;
        row[self.label] -= 1.0 / denominator;
        self.weights.iter().for_each(|&(j, weight)| row[j] -= value * weight / denominator);
    }
}

/// The classes from the largest logit to the smallest; equals in their own order.
pub(super) fn ranking(logits: &[f64]) -> Vec<usize> {
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    classes.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    classes
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

    fn goal_gradient(goal: Goal, logits: &[f64]) -> Vec<f64> {
        let mut row = vec![0.0; logits.len()];
        goal.gradient(logits, &mut row);
        row
    }

    #[test]
    fn goals_have_the_gradients_of_their_values() {
        // 3 classes: the margin in place of the ratio
        for logits in [&[0.3, -1.0, 2.0, 0.7, 1.1][..], &[0.4, 1.3, -0.6], &[0.2, 0.9]] {
            for label in 0..logits.len() {
                let loss = Goal::Loss(Loss::DifferenceOfLogitsRatio, label);
                let mut goals = vec![loss, Goal::Loss(Loss::CrossEntropy, label)];
                for target in (0..logits.len()).filter(|&j| j != label) {
                    goals.push(Goal::TargetedRatio { label, target });
                    goals.push(Goal::Difference { label, target });
                }
                for goal in goals {
                    let expected = differences(|y| goal.value(y), logits);
                    check_close(&goal_gradient(goal, logits), &expected);
                }
            }
        }
    }

    #[test]
    fn the_ratio_is_what_the_formula_says_and_knows_no_scale() {
        let (logits, label) = ([4.0, 3.0, 1.0, 0.0, -1.0], 0);
        let value = |logits: &[f64]| Loss::DifferenceOfLogitsRatio.value(logits, label);
        assert!((value(&logits) + 1.0 / 3.0).abs() < 1e-12);
        let targeted = Goal::TargetedRatio { label, target: 3 }.value(&logits);
        assert!((targeted + 4.0 / 3.5).abs() < 1e-12);
        assert!((value(&logits.map(|y| 1e6 * y)) - value(&logits)).abs() < 1e-12);
        let margin = Loss::DifferenceOfLogitsRatio.value(&[1.0, 3.0, 0.0], 1);
        assert_eq!(margin, -2.0);
        assert_eq!(ranking(&[0.5, 2.0, 0.5, -1.0]), [1, 0, 2, 3]);
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        assert_eq!(gradient(Loss::CrossEntropy, &[1e4, -1e4], 0), [0.0, 0.0]);
        assert_eq!(gradient(Loss::CrossEntropy, &[1e4, -1e4], 1), [1.0, -1.0]);
    }
}
