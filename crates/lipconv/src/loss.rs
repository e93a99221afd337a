//! Losses with their gradients in closed form.
//!
//! [`Loss::MultiClassHinge`], first-order multi-class hinge, the paper's loss (section 5.2): for logits `z`, class `y` and C classes,
//! `L = 1/C Σ_{j ≠ y} max(0, m - z_y + z_j)`, averaged over the batch; PyTorch's `multi_margin_loss` with
//! p = 1. A margin m = √2·ε asks for certification at ε. Its gradient is 1/(C·b) for every class whose margin
//! is violated, and minus their sum for the class itself; at the kink it is 0.
//!
//! [`Loss::Wasserstein`], minus the dual objective of Kantorovich and Rubinstein, for critics: networks f of one
//! output on batches of two distributions A (label 0) and B (label 1),
//! `L = mean_B f - mean_A f`, of gradient 1/n_B and -1/n_A. Over the 1-Lipschitz f, -L is at most the Wasserstein
//! distance of the two halves of the batch.

mod dual;

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
    /// `mean_B f - mean_A f` of one logit f; labels 0 = A, 1 = B.
    Wasserstein,
}

/// Labels of the two distributions that [`Loss::Wasserstein`] compares.
pub const DISTRIBUTION_A: u32 = 0;
/// See [`DISTRIBUTION_A`].
pub const DISTRIBUTION_B: u32 = 1;

/// Loss and gradient of one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LossValue<T> {
    /// Mean over the batch.
    pub value: f64,
    /// Gradient with respect to the logits, row-major b x classes.
    pub d_logits: Vec<T>,
    /// Samples whose largest logit is their class; 0 for a loss that knows no classes.
    pub n_correct: usize,
}

impl Loss {
    /// Checks the domain of the settings.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let Self::MultiClassHinge { margin } = *self else { return Ok(()) };
        if margin > 0.0 && margin.is_finite() {
            return Ok(());
        }
        let (value, expected) = (margin.to_string(), "a positive number");
        Err(Error::InvalidSetting { name: "margin", value, expected })
    }

    /// Whether the loss is defined for so many logits.
    ///
    /// # Errors
    /// [`Error::NumberOfOutputs`] for the Wasserstein loss of anything but one logit.
    pub fn check_outputs(&self, n_logits: usize) -> Result<()> {
        match self {
            Self::Wasserstein if n_logits != 1 => Err(Error::NumberOfOutputs {
                what: "the Wasserstein loss",
                expected: 1,
                got: n_logits,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the labels of a batch are such that the loss is defined.
    ///
    /// # Errors
    /// [`Error::LabelOutOfRange`] at the first label that is no class; for the Wasserstein loss [`Error::EmptyDistribution`]
    /// when all labels are the same.
    pub fn check_labels(&self, labels: &[u32], n_logits: usize) -> Result<()> {
        match self {
            Self::MultiClassHinge { .. } => check_labels(labels, n_logits),
            Self::Wasserstein => dual::counts(labels).map(|_| ()),
        }
    }

    /// Value and gradient on row-major `logits` (b x `n_classes`) and their `labels`.
    ///
    /// # Errors
    /// Those of [`Loss::check_outputs`] and [`Loss::check_labels`], [`Error::ShapeMismatch`] when there are not
    /// as many labels as rows, [`Error::NonFinite`] when a logit is not finite.
    pub fn evaluate<T: Element>(
        &self,
        logits: &[T],
        labels: &[u32],
        n_classes: usize,
    ) -> Result<LossValue<T>> {
        self.check(logits, labels, n_classes)?;
        let Self::MultiClassHinge { margin } = *self else {
            return dual::evaluate(logits, labels);
        };
        let mut result =
            LossValue { value: 0.0, d_logits: vec![T::zero(); logits.len()], n_correct: 0 };
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
        match *self {
            Self::MultiClassHinge { margin } => multi_class_hinge(logits, labels, margin),
            Self::Wasserstein => dual::forward(logits, labels),
        }
    }

    /// The number of correct samples of logits b x C and labels b, a scalar in f32: [`LossValue::n_correct`] as a tensor.
    pub(crate) fn n_correct(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        if *self == Self::Wasserstein {
            return Ok(Tensor::zeros((), DType::F32, logits.device())?);
        }
        let own = logits.gather(&labels.unsqueeze(1)?, 1)?;
        let not_below = logits.broadcast_ge(&own)?.to_dtype(DType::F32)?.sum(1)?;
        Ok(not_below.eq(1.0)?.to_dtype(DType::F32)?.sum_all()?)
    }

    fn check<T: Element>(&self, logits: &[T], labels: &[u32], n_classes: usize) -> Result<()> {
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
        self.check_outputs(n_classes)?;
        self.check_labels(labels, n_classes)?;
        crate::finite::check_finite("logits", logits)
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
