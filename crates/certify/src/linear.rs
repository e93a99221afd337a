//! An affine classifier, for which every quantity of this crate has a closed form.
//!
//! Definition: `y = W x + b` with x the image flattened row-major, W of shape n_classes x n_values. The
//! distance of a sample with label t to the decision boundary against class j is
//! `(y_t - y_j) / ‖w_t - w_j‖₂`, attained along `w_j - w_t`: attacks can be measured against it.

use candle_core::{DType, Device, Tensor};

use crate::classifier::{
    Classifier, Objective, check_labels, input_gradient, is_correct, logit_rows,
};
use crate::error::{Error, Result};

/// `y = W x + b` as a [`Classifier`].
#[derive(Debug, Clone)]
pub struct LinearClassifier {
    weight: Tensor,
    bias: Tensor,
}

impl LinearClassifier {
    /// A classifier from its `weight` (n_classes x n_values) and `bias` (n_classes).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when they do not fit, [`Error::DTypeMismatch`] when their element types differ.
    pub fn new(weight: Tensor, bias: Tensor) -> Result<Self> {
        let [n_classes, _] = weight.dims() else {
            let (expected, got) = ("n_classes x n_values".into(), weight.dims().to_vec());
            return Err(Error::ShapeMismatch { what: "linear weight", expected, got });
        };
        if bias.dims() != [*n_classes] {
            let (expected, got) = (n_classes.to_string(), bias.dims().to_vec());
            return Err(Error::ShapeMismatch { what: "linear bias", expected, got });
        }
        if bias.dtype() != weight.dtype() {
            let (expected, got) = (weight.dtype().as_str().into(), bias.dtype().as_str().into());
            return Err(Error::DTypeMismatch { what: "linear bias", expected, got });
        }
        Ok(Self { weight, bias })
    }

    /// Distance of each sample to the nearest decision boundary, in f64; 0 where the label is not on top.
    ///
    /// # Errors
    /// As for [`Classifier::logits`]; label errors.
    pub fn distances(&self, images: &Tensor, labels: &[usize]) -> Result<Vec<f64>> {
        let logits = logit_rows(&self.logits(images)?)?;
        check_labels(labels, logits.len(), self.n_classes())?;
        let rows = logit_rows(&self.weight)?;
        let gap = |t: usize, j: usize| {
            rows[t].iter().zip(&rows[j]).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
        };
        let distance = |(y, &t): (&Vec<f64>, &usize)| {
            // with equal rows and equal biases there is no boundary, and 0/0
            if !is_correct(y, t) {
                return 0.0;
            }
            let others = (0..y.len()).filter(|&j| j != t);
            others.map(|j| (y[t] - y[j]) / gap(t, j)).fold(f64::INFINITY, f64::min)
        };
        Ok(logits.iter().zip(labels).map(distance).collect())
    }
}

impl Classifier for LinearClassifier {
    fn n_classes(&self) -> usize {
        self.weight.dims()[0]
    }

    fn device(&self) -> &Device {
        self.weight.device()
    }

    fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let x = images.flatten_from(1)?;
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> Result<(Tensor, Tensor)> {
        input_gradient(images, objective, |x| self.logits(x))
    }
}
