//! Multi-class hinge of first order.

use candle_core::{DType, Tensor};

use super::LossValue;
use crate::element::Element;
use crate::error::Result;

/// Value and gradient on row-major b x C logits.
pub(super) fn evaluate<T: Element>(
    logits: &[T],
    labels: &[u32],
    n_classes: usize,
    margin: f64,
) -> LossValue<T> {
    let mut result = LossValue::zeros(logits.len());
    // the mean over the batch and PyTorch's mean over the classes
    let weight = 1.0 / (n_classes * labels.len()) as f64;
    let rows = logits.chunks_exact(n_classes).zip(result.d_logits.chunks_exact_mut(n_classes));
    for ((logits, gradient), &label) in rows.zip(labels) {
        let label = label as usize;
        let (value, correct) = hinge_row(logits, label, margin, weight, gradient);
        result.value += value;
        result.n_correct += usize::from(correct);
    }
    result
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

/// The multi-class hinge as a tensor operation: logits b x C, labels b (u32), a scalar.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when shapes, dtypes or devices do not fit.
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
