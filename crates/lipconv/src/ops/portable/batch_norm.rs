//! Batch normalisation in candle's operations.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::ops::BatchNormed;

/// See [`crate::ops::batch_norm`].
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when shapes, element types or devices do not fit.
pub fn batch_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, epsilon: f64) -> Result<BatchNormed> {
    let swapped = x.transpose(0, 1)?;
    let rows = swapped.flatten_from(1)?.contiguous()?;
    let mean = rows.mean_keepdim(D::Minus1)?;
    let centred = rows.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let factor = (scale.reshape(((), 1))? / (&variance + epsilon)?.sqrt()?)?;
    let output = centred.broadcast_mul(&factor)?.broadcast_add(&shift.reshape(((), 1))?)?;
    let output = output.reshape(swapped.dims())?.transpose(0, 1)?.contiguous()?;
    let (mean, variance) = (mean.detach().flatten_all()?, variance.detach().flatten_all()?);
    Ok(BatchNormed { output, mean, variance })
}
