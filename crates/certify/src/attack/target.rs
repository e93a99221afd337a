//! What is attacked.

use candle_core::Tensor;

use crate::classifier::{Classifier, check_labels};
use crate::error::{Error, Result};
use crate::tensor::{batch_size, to_f64};

/// Images of a classifier, with their labels.
#[derive(Clone, Copy)]
pub struct AttackTarget<'a> {
    /// The network.
    pub classifier: &'a dyn Classifier,
    /// n x …, of the classifier's dtype and on its device, pixels in [0, 1].
    pub images: &'a Tensor,
    /// The class of each image.
    pub labels: &'a [usize],
}

impl<'a> AttackTarget<'a> {
    /// Images of a classifier, with their labels.
    #[must_use]
    pub const fn new(
        classifier: &'a dyn Classifier,
        images: &'a Tensor,
        labels: &'a [usize],
    ) -> Self {
        Self { classifier, images, labels }
    }

    /// Checks images and labels against the classifier.
    pub(super) fn check(&self) -> Result<()> {
        let Self { classifier, images, labels } = *self;
        let (n, n_values) = batch_size(images)?;
        check_labels(labels, n, classifier.n_classes())?;
        if images.dtype() != classifier.dtype() {
            return Err(Error::DTypeMismatch {
                what: "batch of images",
                expected: classifier.dtype().as_str().into(),
                got: images.dtype().as_str().into(),
            });
        }
        check_pixels(&to_f64(images)?, n_values)
    }
}

impl std::fmt::Debug for AttackTarget<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("AttackTarget");
        debug.field("images", &self.images.dims()).finish_non_exhaustive()
    }
}

/// Pixels must be numbers in [0, 1]: the range that every iterate is clamped to.
fn check_pixels(values: &[f64], n_values: usize) -> Result<()> {
    match values.iter().position(|v| !(0.0..=1.0).contains(v)) {
        Some(at) => Err(Error::PixelRange { sample: at / n_values.max(1), value: values[at] }),
        None => Ok(()),
    }
}
