//! Moving numbers between tensors and slices.

use candle_core::{DType, Device, Tensor, WithDType};
use ndarray::NdFloat;

use crate::error::{Error, Result};

/// Element type of images: f32 or f64.
pub(crate) trait Pixel: WithDType + NdFloat + Default {
    /// Largest relative error of one rounding.
    const UNIT_ROUNDOFF: f64;

    fn of(value: f64) -> Self;
}

impl Pixel for f32 {
    const UNIT_ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

    fn of(value: f64) -> Self {
        value as Self
    }
}

impl Pixel for f64 {
    const UNIT_ROUNDOFF: f64 = f64::EPSILON / 2.0;

    fn of(value: f64) -> Self {
        value
    }
}

/// The values of a tensor, row-major, as f64; exact for f32 and f64.
pub(crate) fn to_f64(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
}

/// The values of a slice as f64; exact.
pub(crate) fn widened<T: Pixel>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| WithDType::to_f64(v)).collect()
}

/// The number of images in a batch (b x …) and of values in each.
pub(crate) fn batch_size(images: &Tensor) -> Result<(usize, usize)> {
    match images.dims() {
        [n, rest @ ..] if !rest.is_empty() => Ok((*n, rest.iter().product())),
        dims => Err(Error::ShapeMismatch {
            what: "batch of images",
            expected: "b x …".into(),
            got: dims.to_vec(),
        }),
    }
}

/// Checks that a batch has the shape b x c x h x w of a network's input, and returns b.
pub(crate) fn check_images(images: &Tensor, input: lipconv::ImageShape) -> Result<usize> {
    let lipconv::ImageShape { channels, height, width } = input;
    match images.dims() {
        [n, c, h, w] if [*c, *h, *w] == [channels, height, width] => Ok(*n),
        dims => Err(Error::ShapeMismatch {
            what: "batch of images",
            expected: format!("b x {channels} x {height} x {width}"),
            got: dims.to_vec(),
        }),
    }
}

/// Checks that no value is NaN or infinite.
pub(crate) fn check_finite(what: &'static str, values: &[f64], n_values: usize) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(Error::NonFinite { what, sample: at / n_values.max(1), value: values[at] }),
        None => Ok(()),
    }
}
