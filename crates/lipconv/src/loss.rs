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
//!
//! [`Loss::CrossEntropy`], with an offset, a temperature and what goes with them: see [`cross_entropy`].

pub mod cross_entropy;
mod dual;
mod hinge;
mod pairs;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

pub use cross_entropy::{CrossEntropy, TrainingRadius};
pub use hinge::multi_class_hinge;
pub use pairs::PairNorms;
pub(crate) use pairs::pair_norms;

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
    /// Cross-entropy with an offset and a temperature.
    CrossEntropy(CrossEntropy),
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
    /// Gradient with respect to the distances of the last weight's rows, row-major classes x classes; empty for a loss that does not
    /// depend on them.
    pub d_pairs: Vec<f64>,
}

impl<T: Element> LossValue<T> {
    /// No loss and no gradient.
    fn zeros(n_logits: usize) -> Self {
        let d_logits = vec![T::zero(); n_logits];
        Self { value: 0.0, d_logits, n_correct: 0, d_pairs: Vec::new() }
    }
}

impl Loss {
    /// Checks the domain of the settings.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::MultiClassHinge { margin } if !(margin > 0.0 && margin.is_finite()) => {
                let (value, expected) = (margin.to_string(), "a positive number");
                Err(Error::InvalidSetting { name: "margin", value, expected })
            }
            Self::CrossEntropy(settings) => settings.validate(),
            Self::MultiClassHinge { .. } | Self::Wasserstein => Ok(()),
        }
    }

    /// The loss after the fraction `progress` of the run: a training radius that rises stands at its value there.
    #[must_use]
    pub fn at(self, progress: f64) -> Self {
        match self {
            Self::CrossEntropy(settings) => Self::CrossEntropy(settings.at(progress)),
            _ => self,
        }
    }

    /// Whether the loss depends on the distances of the last weight's rows.
    #[must_use]
    pub fn needs_pairs(&self) -> bool {
        matches!(self, Self::CrossEntropy(CrossEntropy { radius: Some(_), .. }))
    }

    /// Whether the loss is defined for this number of logits.
    ///
    /// # Errors
    /// [`Error::NumberOfOutputs`] for the Wasserstein loss of anything but one logit, and for a cross-entropy of fewer than two.
    pub fn check_outputs(&self, n_logits: usize) -> Result<()> {
        match self {
            Self::Wasserstein if n_logits != 1 => Err(Error::NumberOfOutputs {
                what: "the Wasserstein loss",
                expected: 1,
                got: n_logits,
            }),
            Self::CrossEntropy(_) if n_logits < 2 => Err(Error::NumberOfOutputs {
                what: "a cross-entropy of two classes or more",
                expected: 2,
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
            Self::MultiClassHinge { .. } | Self::CrossEntropy(_) => check_labels(labels, n_logits),
            Self::Wasserstein => dual::counts(labels).map(|_| ()),
        }
    }

    /// Value and gradient on row-major `logits` (b x `n_classes`) and their `labels`.
    ///
    /// # Errors
    /// Those of [`Loss::check_outputs`] and [`Loss::check_labels`], [`Error::ShapeMismatch`] when there are not
    /// as many labels as rows, [`Error::NonFinite`] when a logit is not finite, [`Error::NoLastWeight`] for a loss that depends on the
    /// last weight.
    pub fn evaluate<T: Element>(
        &self,
        logits: &[T],
        labels: &[u32],
        n_classes: usize,
    ) -> Result<LossValue<T>> {
        self.evaluate_with_pairs(logits, labels, n_classes, None)
    }

    /// As [`Loss::evaluate`], with the distances of the last weight's rows for a loss that depends on them.
    ///
    /// # Errors
    /// As [`Loss::evaluate`], and [`Error::ShapeMismatch`] for distances of another number of classes.
    pub fn evaluate_with_pairs<T: Element>(
        &self,
        logits: &[T],
        labels: &[u32],
        n_classes: usize,
        pairs: Option<&PairNorms>,
    ) -> Result<LossValue<T>> {
        self.check(logits, labels, n_classes)?;
        let pairs = self.checked_pairs(pairs, PairNorms::n_classes, n_classes)?;
        match *self {
            Self::MultiClassHinge { margin } => {
                Ok(hinge::evaluate(logits, labels, n_classes, margin))
            }
            Self::Wasserstein => dual::evaluate(logits, labels),
            Self::CrossEntropy(settings) => Ok(settings.evaluate(logits, labels, n_classes, pairs)),
        }
    }

    /// The loss as a tensor operation, differentiable by candle.
    ///
    /// No value is copied to the host: logits that are not finite and [`Loss::Wasserstein`] of one distribution alone give NaN.
    ///
    /// # Errors
    /// Those of [`Loss::check_outputs`], [`Error::NoLastWeight`], [`Error::Candle`], which on the CPU names a label that is no class.
    pub fn forward(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
        self.forward_with_weight(logits, labels, None)
    }

    /// As [`Loss::forward`], with the last weight (classes x n) for a loss that depends on the distances of its rows.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    pub fn forward_with_weight(
        &self,
        logits: &Tensor,
        labels: &Tensor,
        weight: Option<&Tensor>,
    ) -> Result<Tensor> {
        let n_classes = logits.dims2()?.1;
        self.check_outputs(n_classes)?;
        let rows = |weight: &Tensor| weight.dims().first().copied().unwrap_or(0);
        let pairs = self.checked_pairs(weight, rows, n_classes)?.map(pair_norms).transpose()?;
        match *self {
            Self::MultiClassHinge { margin } => multi_class_hinge(logits, labels, margin),
            Self::Wasserstein => dual::forward(logits, labels),
            Self::CrossEntropy(settings) => settings.forward(logits, labels, pairs.as_ref()),
        }
    }

    /// What gives the distances of the rows, if the loss depends on them.
    fn checked_pairs<'a, P>(
        &self,
        pairs: Option<&'a P>,
        n_rows: impl Fn(&P) -> usize,
        n_classes: usize,
    ) -> Result<Option<&'a P>> {
        if !self.needs_pairs() {
            return Ok(None);
        }
        let pairs = pairs.ok_or(Error::NoLastWeight)?;
        let got = n_rows(pairs);
        if got != n_classes {
            let (expected, got) = (vec![n_classes, 0], vec![got, 0]);
            return Err(Error::ShapeMismatch { what: "last weight".into(), expected, got });
        }
        Ok(Some(pairs))
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

/// # Errors
/// [`Error::LabelOutOfRange`] at the first label that is no class.
pub(crate) fn check_labels(labels: &[u32], n_classes: usize) -> Result<()> {
    match labels.iter().position(|&label| label as usize >= n_classes) {
        Some(index) => Err(Error::LabelOutOfRange { index, label: labels[index], n_classes }),
        None => Ok(()),
    }
}
