//! Cross-entropy with an offset, a temperature, annealing and a margin that grows with the training radius.
//!
//! Definition, for logits y of class t, with offset m, temperature T and annealing exponent β:
//!
//! ```text
//! z_j = y_j - m [j = t] + s_j          p = softmax(z / T)
//! L   = (1 - p_t)^β · T · (-ln p_t)    averaged over the batch
//! ```
//!
//! * β = 0 and s = 0: `T · CE((y - m·onehot(t)) / T)`, the loss of Prach and Lampert (2022).
//!   The true logit must win by m, and m = 2√2·ε is a good start for a target radius ε.
//! * β > 0: the logit annealing loss of Lai et al. (2025). Samples that already win lose their weight.
//! * s_j = ε_j·ε·K_tj with `K_tj = ‖w_t - w_j‖` for the rows w of the last weight and
//!   `ε_j = clip((y_t - y_j) / (ε K_tj), 0.01, 1)` for j ≠ t, s_t = 0: EMMA (Hu et al. 2024).
//!   Each competing logit is raised by what a perturbation of length ε could add, or by as much as it can afford.
//!   ε_j is a constant for the gradient and K_tj is not.
//!   Two equal rows have K_tj = 0: s_j is 0 there, and so is its gradient.
//!
//! Gradient, with q = 1 - p_t and ℓ = -T ln p_t:
//!
//! ```text
//! ∂L/∂z_j = g (p_j - [j = t])          g = q^β + β q^(β-1) p_t ℓ / T
//! ∂L/∂y_j = ∂L/∂z_j                    ∂L/∂K_tj = ε_j ε ∂L/∂z_j
//! ```
//!
//! Guarantee: finite for all logits whose differences are. The exponentials are shifted by the largest z, the true logit's distance from
//! it is not divided by T. On the CPU q is summed over the other classes; in tensor operations it is `1 - exp(-ℓ/T)`, whose gradient
//! does not cancel for large logits.
//! Cost: one exponential for each logit.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::LossValue;
use super::pairs::PairNorms;
use crate::element::Element;
use crate::error::{Error, Result};

/// Settings of the cross-entropy: see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropy {
    /// The offset m of the true logit, at least 0.
    pub offset: f64,
    /// The temperature T, positive.
    pub temperature: f64,
    /// The annealing exponent β: 0 for none, or at least 1.
    #[serde(default)]
    pub annealing: f64,
    /// The training radius of EMMA, if the competing logits are raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<TrainingRadius>,
}

/// A radius that rises linearly over the first half of the run and stays.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRadius {
    /// At the first step, positive.
    pub start: f64,
    /// From the middle of the run on, positive.
    pub end: f64,
}

impl TrainingRadius {
    /// The radius after the fraction `progress` of the run.
    #[must_use]
    pub fn at(&self, progress: f64) -> f64 {
        let risen = (2.0 * progress).clamp(0.0, 1.0);
        self.start + (self.end - self.start) * risen
    }
}

/// Smallest share ε_j of the training radius.
const SMALLEST_SHARE: f64 = 0.01;

impl CrossEntropy {
    /// Prach and Lampert's loss for a target radius: offset 2√2·`eps`.
    #[must_use]
    pub fn for_radius(eps: f64, temperature: f64) -> Self {
        let offset = 2.0 * std::f64::consts::SQRT_2 * eps;
        Self { offset, temperature, annealing: 0.0, radius: None }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let check = |name, value: f64, valid: bool, expected| {
            if valid && value.is_finite() {
                return Ok(());
            }
            Err(Error::InvalidSetting { name, value: value.to_string(), expected })
        };
        let Self { offset, temperature, annealing, radius } = *self;
        check("offset", offset, offset >= 0.0, "a number of at least 0")?;
        check("temperature", temperature, temperature > 0.0, "a positive number")?;
        let valid = annealing == 0.0 || annealing >= 1.0;
        check("annealing", annealing, valid, "0 or a number of at least 1")?;
        for eps in radius.iter().flat_map(|r| [r.start, r.end]) {
            check("training radius", eps, eps > 0.0, "a positive number")?;
        }
        Ok(())
    }

    /// The same loss with the training radius of one place in the run.
    pub(super) fn at(self, progress: f64) -> Self {
        let fixed = |r: TrainingRadius| {
            let eps = r.at(progress);
            TrainingRadius { start: eps, end: eps }
        };
        Self { radius: self.radius.map(fixed), ..self }
    }

    /// Value and gradients on row-major b x C logits; `pairs` where there is a training radius.
    pub(super) fn evaluate<T: Element>(
        &self,
        logits: &[T],
        labels: &[u32],
        n_classes: usize,
        pairs: Option<&PairNorms>,
    ) -> LossValue<T> {
        let mut result = LossValue::zeros(logits.len());
        result.d_pairs = pairs.map_or_else(Vec::new, |_| vec![0.0; n_classes * n_classes]);
        let weight = 1.0 / labels.len() as f64;
        let rows = logits.chunks_exact(n_classes).zip(result.d_logits.chunks_exact_mut(n_classes));
        for ((logits, gradient), &label) in rows.zip(labels) {
            let label = label as usize;
            let row: Vec<f64> = logits.iter().map(|y| y.as_f64()).collect();
            let shares = pairs.map(|pairs| self.shares(&row, label, pairs));
            let (value, d_row) = self.row(&row, label, pairs, shares.as_deref());
            result.value += weight * value;
            for (gradient, d) in gradient.iter_mut().zip(&d_row) {
                *gradient = T::of(weight * d);
            }
            if let Some(shares) = shares {
                let d_pairs = &mut result.d_pairs[label * n_classes..][..n_classes];
                for ((d_pair, share), d) in d_pairs.iter_mut().zip(shares).zip(&d_row) {
                    *d_pair += weight * share * d;
                }
            }
            let own = row[label];
            let wins = row.iter().enumerate().all(|(j, &y)| j == label || y < own);
            result.n_correct += usize::from(wins);
        }
        result
    }

    /// ε_j·ε of every class; 0 for the true class and for rows that are equal.
    fn shares(&self, logits: &[f64], label: usize, pairs: &PairNorms) -> Vec<f64> {
        let eps = self.radius.map_or(0.0, |r| r.start);
        let share = |(j, y): (usize, &f64)| {
            let norm = pairs.get(label, j);
            if norm > 0.0 {
                ((logits[label] - y) / norm).clamp(SMALLEST_SHARE * eps, eps)
            } else {
                0.0
            }
        };
        logits.iter().enumerate().map(share).collect()
    }

    /// One sample's loss and its gradient with respect to z.
    fn row(
        &self,
        logits: &[f64],
        label: usize,
        pairs: Option<&PairNorms>,
        shares: Option<&[f64]>,
    ) -> (f64, Vec<f64>) {
        let temperature = self.temperature;
        let mut z = logits.to_vec();
        z[label] -= self.offset;
        if let (Some(pairs), Some(shares)) = (pairs, shares) {
            for (j, (z, share)) in z.iter_mut().zip(shares).enumerate() {
                *z += share * pairs.get(label, j);
            }
        }
        let (at, largest) = largest(&z);
        let mut p: Vec<f64> = z.iter().map(|z| ((z - largest) / temperature).exp()).collect();
        let others = |p: &[f64], except: usize| -> f64 {
            p.iter().enumerate().filter(|(j, _)| *j != except).map(|(_, p)| p).sum()
        };
        let beyond_one = others(&p, at);
        let loss = temperature * beyond_one.ln_1p() - (z[label] - largest);
        p.iter_mut().for_each(|p| *p /= 1.0 + beyond_one);
        let q = others(&p, label);
        let (factor, slope) = self.annealed(q, p[label], loss);
        p[label] = -q;
        p.iter_mut().for_each(|d| *d *= slope);
        (factor * loss, p)
    }

    /// q^β, and the factor g of the gradient.
    fn annealed(&self, q: f64, p: f64, loss: f64) -> (f64, f64) {
        let beta = self.annealing;
        if beta == 0.0 {
            return (1.0, 1.0);
        }
        let factor = q.powf(beta);
        // p = 0 with an infinite quotient is the limit 0
        let falling =
            if p > 0.0 { beta * q.powf(beta - 1.0) * p * (loss / self.temperature) } else { 0.0 };
        (factor, factor + falling)
    }

    /// The loss as a tensor operation: logits b x C, labels b (u32), pair norms C x C where there is a training radius.
    pub(super) fn forward(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        pairs: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (_, n_classes) = logits.dims2()?;
        let (device, dtype) = (logits.device(), logits.dtype());
        let index = labels.unsqueeze(1)?;
        let classes = Tensor::arange(0u32, u32::try_from(n_classes).unwrap_or(u32::MAX), device)?;
        let own = classes.unsqueeze(0)?.broadcast_eq(&index)?.to_dtype(dtype)?;
        let mut z = (logits - (&own * self.offset)?)?;
        if let Some(pairs) = pairs {
            z = (z + self.raised(logits, labels, pairs)?)?;
        }
        let below = z.broadcast_sub(&z.max_keepdim(1)?.detach())?;
        let sum = (&below / self.temperature)?.exp()?.sum_keepdim(1)?;
        let mut loss = ((sum.log()? * self.temperature)? - below.gather(&index, 1)?)?;
        if self.annealing != 0.0 {
            // through the loss alone: a quotient of sums would cancel in the gradient of a large one
            let q = (1.0 - (&loss / -self.temperature)?.exp()?)?;
            loss = (q.powf(self.annealing)? * loss)?;
        }
        Ok(loss.mean_all()?.to_dtype(if dtype == DType::F64 { dtype } else { DType::F32 })?)
    }

    /// s: b x C.
    fn raised(&self, logits: &Tensor, labels: &Tensor, pairs: &Tensor) -> Result<Tensor> {
        let eps = self.radius.map_or(0.0, |r| r.start);
        let norms = pairs.index_select(labels, 0)?;
        let equal = norms.eq(0.0)?.to_dtype(norms.dtype())?;
        let index = labels.unsqueeze(1)?;
        let lead = logits.gather(&index, 1)?.broadcast_sub(logits)?;
        let shares = (lead / (&norms + equal)?)?.clamp(SMALLEST_SHARE * eps, eps)?;
        Ok((shares.detach() * norms)?)
    }
}

/// Place and value of the largest number, the first of equals.
fn largest(values: &[f64]) -> (usize, f64) {
    let start = (0, f64::NEG_INFINITY);
    values.iter().enumerate().fold(start, |best, (j, &v)| if v > best.1 { (j, v) } else { best })
}
