//! What attacks and evaluations see of a network: logits and a gradient with respect to the input.
//!
//! Definition: a classifier maps a batch of b images to logits of shape b x n_classes, sample by sample: a
//! sample's logits depend on that sample alone. The class of a sample is the index of its largest
//! logit. A sample is *correct* for its label t only if `y_t > y_j` for every other class j: a tie or a
//! NaN is a mistake.
//!
//! Cost of [`Classifier::logits_and_input_gradient`]: one forward pass and one backward pass with respect
//! to the input; no gradient of a weight is wanted.
//!
//! Not here: Lipschitz constants. Certificates need the weights, see [`Certifier`](crate::Certifier).

use candle_core::{DType, Device, Tensor, Var};
use lipconv::PlainNetwork;

use crate::error::{Error, Result};

/// A scalar objective of the logits (b x n_classes), built from differentiable operations.
pub type Objective<'a> = dyn Fn(&Tensor) -> candle_core::Result<Tensor> + 'a;

/// A differentiable map from images to logits.
pub trait Classifier {
    /// Number of classes.
    fn n_classes(&self) -> usize;

    /// Where images must live.
    fn device(&self) -> &Device;

    /// Element type of images and logits: f32 or f64.
    fn dtype(&self) -> DType;

    /// Logits, b x n_classes, of a batch of images.
    ///
    /// # Errors
    /// Those of the network, for images of the wrong shape, element type or device.
    fn logits(&self, images: &Tensor) -> Result<Tensor>;

    /// The logits of a batch of images, and the gradient of `objective(logits)` with respect to the images,
    /// of their shape.
    ///
    /// # Errors
    /// As [`logits`](Self::logits); [`Error::NoGradient`] when the logits do not depend on the images.
    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> Result<(Tensor, Tensor)>;
}

impl Classifier for PlainNetwork {
    fn n_classes(&self) -> usize {
        Self::n_classes(self)
    }

    fn device(&self) -> &Device {
        Self::device(self)
    }

    fn dtype(&self) -> DType {
        Self::dtype(self)
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        Ok(self.forward(images)?)
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let recording = self.record(images)?;
        let logits = recording.logits().detach();
        let d_logits = logit_gradient(&logits, objective)?;
        Ok((logits, recording.input_gradient(&d_logits)?))
    }
}

/// [`Classifier::logits_and_input_gradient`] by candle's autograd, for any `forward` of candle operations.
///
/// # Errors
/// Those of `forward`; [`Error::NoGradient`] when the logits do not depend on the images.
pub fn input_gradient(
    images: &Tensor,
    objective: &Objective<'_>,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let images = Var::from_tensor(images)?;
    let logits = forward(images.as_tensor())?;
    let mut gradients = objective(&logits)?.backward()?;
    let gradient = gradients.remove(images.as_tensor()).ok_or(Error::NoGradient)?;
    Ok((logits.detach(), gradient))
}

/// The gradient of `objective` with respect to the logits, at the logits given.
pub(crate) fn logit_gradient(logits: &Tensor, objective: &Objective<'_>) -> Result<Tensor> {
    Ok(input_gradient(logits, objective, |x| Ok(x.clone()))?.1)
}

/// Logits (n x n_classes) of all images, `batch_size` at a time.
///
/// # Errors
/// Those of the classifier; [`Error::InvalidSetting`] for a batch size of 0.
pub fn batched_logits(
    classifier: &dyn Classifier,
    images: &Tensor,
    batch_size: usize,
) -> Result<Tensor> {
    check_batch_size(batch_size)?;
    let (n, _) = crate::tensor::batch_size(images)?;
    let batch =
        |start: usize| classifier.logits(&images.narrow(0, start, batch_size.min(n - start))?);
    let batches = (0..n).step_by(batch_size).map(batch).collect::<Result<Vec<_>>>()?;
    match batches.as_slice() {
        [] => Ok(Tensor::zeros((0, classifier.n_classes()), DType::F64, classifier.device())?),
        batches => Ok(Tensor::cat(batches, 0)?),
    }
}

/// A batch holds an image at least.
pub(crate) fn check_batch_size(batch_size: usize) -> Result<()> {
    let (name, expected) = ("batch_size", "at least 1");
    if batch_size == 0 {
        return Err(Error::InvalidSetting { name, value: 0.0, expected });
    }
    Ok(())
}

/// The class of a row of logits: the index of its largest entry, the first of equals; 0 where a NaN leaves
/// no largest.
#[must_use]
pub fn predicted_class(logits: &[f64]) -> usize {
    let better = |best: usize, j: usize| if logits[j] > logits[best] { j } else { best };
    (1..logits.len()).fold(0, better)
}

/// Whether `label` has the strictly largest logit; false where it names none.
#[must_use]
pub fn is_correct(logits: &[f64], label: usize) -> bool {
    let Some(&top) = logits.get(label) else { return false };
    !top.is_nan() && (0..logits.len()).all(|j| j == label || top > logits[j])
}

/// Logits as rows of f64; exact for f32 and f64.
pub(crate) fn logit_rows(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(logits.to_dtype(DType::F64)?.to_vec2()?)
}

/// Checks that there is one label for each of `n` samples and that each names a class.
pub(crate) fn check_labels(labels: &[usize], n: usize, n_classes: usize) -> Result<()> {
    if labels.len() != n {
        return Err(Error::CountMismatch { what: "labels", expected: n, got: labels.len() });
    }
    match labels.iter().position(|&label| label >= n_classes) {
        Some(sample) => Err(Error::LabelOutOfRange { sample, label: labels[sample], n_classes }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_and_nans_are_not_correct() {
        assert!(is_correct(&[1.0, 0.5, 0.9], 0));
        assert!(!is_correct(&[1.0, 1.0, 0.9], 0));
        assert!(!is_correct(&[1.0, f64::NAN, 0.9], 0));
        assert!(!is_correct(&[f64::NAN], 0));
        assert!(is_correct(&[f64::INFINITY, 0.0], 0));
        assert_eq!(predicted_class(&[0.0, 2.0, 2.0]), 1);
    }

    #[test]
    fn labels_are_checked() {
        assert!(check_labels(&[0, 9], 2, 10).is_ok());
        let text = check_labels(&[0, 10], 2, 10).unwrap_err().to_string();
        assert_eq!(text, "sample 1: label 10 is not below the number of classes 10");
        let text = check_labels(&[0], 2, 10).unwrap_err().to_string();
        assert_eq!(text, "1 labels, expected 2: one for each sample");
    }
}
