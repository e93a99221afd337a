//! The dual objective of the Wasserstein distance as a loss.

use candle_core::{DType, Tensor};

use super::{DISTRIBUTION_A, DISTRIBUTION_B, LossValue};
use crate::element::Element;
use crate::error::{Error, Result};

/// Samples of A and of B.
pub(super) fn counts(labels: &[u32]) -> Result<[usize; 2]> {
    let mut counts = [0; 2];
    for (index, &label) in labels.iter().enumerate() {
        match counts.get_mut(label as usize) {
            Some(count) => *count += 1,
            None => return Err(Error::LabelOutOfRange { index, label, n_classes: 2 }),
        }
    }
    match counts.iter().position(|&n| n == 0) {
        None => Ok(counts),
        Some(side) => {
            let label = [DISTRIBUTION_A, DISTRIBUTION_B][side];
            Err(Error::EmptyDistribution { label, n_samples: labels.len() })
        }
    }
}

/// `mean_B f - mean_A f` and its gradient.
pub(super) fn evaluate<T: Element>(logits: &[T], labels: &[u32]) -> Result<LossValue<T>> {
    let [n_a, n_b] = counts(labels)?;
    let (weight_a, weight_b) = (-1.0 / n_a as f64, 1.0 / n_b as f64);
    let weights = || labels.iter().map(|&l| if l == DISTRIBUTION_A { weight_a } else { weight_b });
    let value = weights().zip(logits).map(|(weight, logit)| weight * logit.as_f64()).sum();
    Ok(LossValue { value, d_logits: weights().map(T::of).collect(), ..LossValue::zeros(0) })
}

/// The same as a tensor operation: logits b x 1, labels b (u32), a scalar.
pub(super) fn forward(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let (batch, n_logits) = logits.dims2()?;
    super::Loss::Wasserstein.check_outputs(n_logits)?;
    // 1/n_B and -1/n_A without a look at the labels on the host
    let of_b = labels.to_dtype(logits.dtype())?;
    let of_a = (1.0 - &of_b)?;
    let mean = |side: &Tensor| -> Result<Tensor> { Ok(side.broadcast_div(&side.sum_all()?)?) };
    let weights = (mean(&of_b)? - mean(&of_a)?)?.detach();
    let value = (logits.reshape(batch)? * weights)?.sum_all()?;
    Ok(value.to_dtype(if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 })?)
}
