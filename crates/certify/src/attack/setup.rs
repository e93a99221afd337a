//! What every attack checks before it starts.

use candle_core::Tensor;

use crate::classifier::{Classifier, check_labels};
use crate::error::{Error, Result};
use crate::tensor::{batch_size, to_f64};

/// Checks images and labels against the classifier; the number of images and of values in each.
pub(super) fn check(
    classifier: &dyn Classifier,
    images: &Tensor,
    labels: &[usize],
) -> Result<(usize, usize)> {
    let (n, n_values) = batch_size(images)?;
    check_labels(labels, n, classifier.n_classes())?;
    if images.dtype() != classifier.dtype() {
        return Err(Error::DTypeMismatch {
            what: "batch of images",
            expected: classifier.dtype().as_str().into(),
            got: images.dtype().as_str().into(),
        });
    }
    check_pixels(&to_f64(images)?, n_values)?;
    Ok((n, n_values))
}

/// Pixels must be numbers in [0, 1]: the range that every iterate is clamped to.
fn check_pixels(values: &[f64], n_values: usize) -> Result<()> {
    match values.iter().position(|v| !(0.0..=1.0).contains(v)) {
        Some(at) => Err(Error::PixelRange { sample: at / n_values.max(1), value: values[at] }),
        None => Ok(()),
    }
}

/// A setting that must be positive and finite.
pub(super) fn check_positive(name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value, expected: "a positive finite number" })
}

/// A setting that counts something.
pub(super) fn check_at_least_one(name: &'static str, value: usize) -> Result<()> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::InvalidSetting { name, value: 0.0, expected: "at least 1" })
}

/// A number of random starts; rounds are told apart by sixteen bits of a random stream's number.
pub(super) fn check_restarts(restarts: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&restarts) {
        return Ok(());
    }
    let expected = if most == ONE_CLASS { "1 to 65536" } else { "1 to 4096" };
    Err(Error::InvalidSetting { name: "restarts", value: restarts as f64, expected })
}

/// The most random starts of an attack that aims at one class after the other, and of one that does not.
pub(super) const EACH_CLASS: usize = 4096;
pub(super) const ONE_CLASS: usize = 65536;
