//! Losses with their gradients in closed form.
//!
//! First-order multi-class hinge, the paper's loss (section 5.2): for logits `z`, class `y` and C classes,
//! `L = 1/C Σ_{j ≠ y} max(0, m - z_y + z_j)`, averaged over the batch; PyTorch's `multi_margin_loss` with
//! p = 1. A margin m = √2·ε asks for certification at ε. Its gradient is 1/(C·b) for every class whose margin
//! is violated, and minus their sum for the class itself; at the kink it is 0.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::element::Element;
use crate::error::{Error, Result};

/// A loss on logits and class labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// Multi-class hinge of first order.
    MultiClassHinge {
        /// The margin m, in units of the logits.
        margin: f64,
    },
}

/// Loss and gradient of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LossValue<T> {
    /// Mean over the batch.
    pub value: f64,
    /// Gradient with respect to the logits, row-major b x classes.
    pub d_logits: Vec<T>,
    /// Samples whose largest logit is their class.
    pub n_correct: usize,
}

impl Loss {
    /// Value and gradient on row-major `logits` (b x `n_classes`) and their `labels`.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] for a label that is no class, [`Error::ShapeMismatch`] when there are not
    /// as many labels as rows, [`Error::NonFinite`] when a logit is not finite.
    pub fn evaluate<T: Element>(
        &self,
        logits: &[T],
        labels: &[u32],
        n_classes: usize,
    ) -> Result<LossValue<T>> {
        check(logits, labels, n_classes)?;
        let mut result =
            LossValue { value: 0.0, d_logits: vec![T::zero(); logits.len()], n_correct: 0 };
        let Self::MultiClassHinge { margin } = *self;
        // the mean over the batch and PyTorch's mean over the classes
        let weight = 1.0 / (n_classes * labels.len()) as f64;
        let rows = logits.chunks_exact(n_classes).zip(result.d_logits.chunks_exact_mut(n_classes));
        for ((logits, gradient), &label) in rows.zip(labels) {
            let label = label as usize;
            let (value, correct) = hinge_row(logits, label, margin, weight, gradient);
            result.value += value;
            result.n_correct += usize::from(correct);
        }
        Ok(result)
    }

    /// The loss as a tensor operation, differentiable by candle.
    ///
    /// # Errors
    /// As for [`Loss::evaluate`], and [`Error::Candle`].
    pub fn forward(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let Self::MultiClassHinge { margin } = *self;
        multi_class_hinge(logits, labels, margin)
    }
}

/// One sample's hinge: its share of the loss, and whether its class has the largest logit.
fn hinge_row<T: Element>(
    logits: &[T],
    label: usize,
    margin: f64,
    weight: f64,
    gradient: &mut [T],
) -> (f64, bool) {
    let own = logits[label].as_f64();
    let (mut value, mut violations, mut correct) = (0.0, 0.0, true);
    for (class, (&logit, gradient)) in logits.iter().zip(gradient.iter_mut()).enumerate() {
        if class == label {
            continue;
        }
        correct &= logit < logits[label];
        let slack = margin - own + logit.as_f64();
        if slack > 0.0 {
            value += slack * weight;
            violations += weight;
            *gradient = T::of(weight);
        }
    }
    gradient[label] = T::of(-violations);
    (value, correct)
}

fn check<T: Element>(logits: &[T], labels: &[u32], n_classes: usize) -> Result<()> {
    if n_classes == 0 || labels.is_empty() {
        return Err(Error::Zero { what: "number of classes or of labels".into() });
    }
    if logits.len() != labels.len() * n_classes {
        return Err(Error::ShapeMismatch {
            what: "logits".into(),
            expected: vec![labels.len(), n_classes],
            got: vec![logits.len() / n_classes, n_classes],
        });
    }
    check_labels(labels, n_classes)?;
    crate::finite::check_finite("logits", logits)
}

/// # Errors
/// [`Error::LabelOutOfRange`] at the first label that is no class.
pub(crate) fn check_labels(labels: &[u32], n_classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= n_classes) {
        Some(index) => Err(Error::LabelOutOfRange { index, label: labels[index], n_classes }),
        None => Ok(()),
    }
}

/// The multi-class hinge as a tensor operation: logits b x C, labels b (u32), a scalar.
///
/// # Errors
/// [`Error::Candle`] when shapes, dtypes or devices do not fit.
pub fn multi_class_hinge(logits: &Tensor, labels: &Tensor, margin: f64) -> Result<Tensor> {
    let (batch, n_classes) = logits.dims2()?;
    let own = logits.gather(&labels.unsqueeze(1)?, 1)?;
    let slack = (logits.broadcast_sub(&own)? + margin)?.relu()?;
    // the class itself contributes relu(margin), a constant: take it off again
    let total = (slack.sum_all()? - batch as f64 * margin.max(0.0))?;
    Ok((total / (batch * n_classes) as f64)?.to_dtype(match logits.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    })?)
}
