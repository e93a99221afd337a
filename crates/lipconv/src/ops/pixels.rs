//! Cyclic padding and invertible downsampling, which only move pixels, and biases of channels.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::shape::ImageShape;

/// PyTorch's `pixel_unshuffle`: b x c x H x W to b x c·s² x H/s x W/s, channels ordered (c, dy, dx). A
/// permutation of the values.
///
/// # Errors
/// [`Error::StrideDoesNotDivide`](crate::Error::StrideDoesNotDivide) when `factor` does not divide H and W.
pub fn pixel_unshuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    if factor == 1 {
        return Ok(x.clone());
    }
    let (b, c, height, width) = x.dims4()?;
    let after = ImageShape::new(c, height, width).downsampled(factor, "pixel_unshuffle")?;
    let (h, w) = (after.height, after.width);
    let split = x.reshape(&[b, c, h, factor, w, factor])?.permute(vec![0, 1, 3, 5, 2, 4])?;
    Ok(split.contiguous()?.reshape((b, after.channels, h, w))?)
}

/// PyTorch's `pixel_shuffle`, the inverse of [`pixel_unshuffle`]: b x c·s² x h x w to b x c x h·s x w·s.
///
/// # Errors
/// [`Error::GroupsDoNotDivide`] when factor² does not divide the channels, [`Error::Zero`] for a factor of 0.
pub fn pixel_shuffle(x: &Tensor, factor: usize) -> Result<Tensor> {
    let (b, channels, h, w) = x.dims4()?;
    let (layer, group) = ("pixel_shuffle", factor * factor);
    if factor == 0 {
        return Err(Error::Zero { what: format!("{layer}: factor") });
    }
    if !channels.is_multiple_of(group) {
        return Err(Error::GroupsDoNotDivide { layer: layer.into(), channels, group });
    }
    let c = channels / group;
    let split = x.reshape(&[b, c, factor, factor, h, w])?.permute(vec![0, 1, 4, 2, 5, 3])?;
    Ok(split.contiguous()?.reshape((b, c, h * factor, w * factor))?)
}

/// Cyclic padding of both spatial axes by k/2 before and (k-1)/2 after.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when the image is smaller than the padding.
pub fn cyclic_pad(x: &Tensor, kernel: usize) -> Result<Tensor> {
    let mut padded = x.clone();
    for axis in [2, 3] {
        let size = x.dims4().map(|_| x.dims()[axis])?;
        let (before, after) = (kernel / 2, kernel.saturating_sub(1) / 2);
        let mut pieces = vec![padded.clone()];
        if before > 0 {
            pieces.insert(0, padded.narrow(axis, size - before, before)?);
        }
        if after > 0 {
            pieces.push(padded.narrow(axis, 0, after)?);
        }
        padded = Tensor::cat(&pieces, axis)?;
    }
    Ok(padded)
}

/// b x c x h x w plus a value for each channel.
///
/// The gradient of the bias is summed over pixels first and over images after, each at the speed of memory: candle's sum over
/// both at once computes every index anew and was a quarter of a step.
pub(crate) fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(y) };
    let (batch, channels, ..) = y.dims4()?;
    let of_each_image = bias.reshape((1, channels, 1, 1))?.broadcast_as((batch, channels, 1, 1))?;
    Ok(y.broadcast_add(&of_each_image)?)
}
