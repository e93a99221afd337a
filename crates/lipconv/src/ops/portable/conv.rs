//! Cyclic convolution as one matrix product.
//!
//! y = W C(x), where C(x) stacks the k² shifted views of the cyclically padded image: (k²·c) x (b·h·w). One product for the
//! whole batch, and its two adjoints are products again. Memory: k² times the input.

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::{add_bias, cyclic_pad, pixel_unshuffle};

/// `W ⋆ pad(unshuffle(x)) + β`, as [`crate::ops::cyclic_conv`].
///
/// # Errors
/// [`Error::StrideDoesNotDivide`](crate::Error::StrideDoesNotDivide), [`Error::Candle`](crate::Error::Candle) when shapes,
/// element types or devices do not fit.
pub fn cyclic_conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    downsample: usize,
) -> Result<Tensor> {
    let x = pixel_unshuffle(x, downsample)?;
    let (batch, _, height, width) = x.dims4()?;
    let (c_out, c_in, kernel, _) = weight.dims4()?;
    let columns = columns(&x, kernel)?;
    let rows =
        weight.permute((0, 2, 3, 1))?.contiguous()?.reshape((c_out, kernel * kernel * c_in))?;
    let y = rows.matmul(&columns)?.reshape((c_out, batch, height, width))?;
    let y = y.transpose(0, 1)?.contiguous()?;
    add_bias(y, bias)
}

/// C(x): rows (tap, channel), columns (sample, pixel).
fn columns(x: &Tensor, kernel: usize) -> Result<Tensor> {
    let (batch, c_in, height, width) = x.dims4()?;
    // channels first, so that a tap is a block of rows
    let padded = cyclic_pad(x, kernel)?.transpose(0, 1)?.contiguous()?;
    let mut views = Vec::with_capacity(kernel * kernel);
    for a in 0..kernel {
        let rows = padded.narrow(2, a, height)?;
        for b in 0..kernel {
            views.push(rows.narrow(3, b, width)?);
        }
    }
    let stacked = Tensor::cat(&views, 0)?;
    Ok(stacked.reshape((kernel * kernel * c_in, batch * height * width))?)
}

/// The weight of the adjoint convolution: taps reversed, channels exchanged.
pub(crate) fn adjoint_weight(weight: &Tensor) -> Result<Tensor> {
    Ok(reversed(&reversed(weight, 2)?, 3)?.transpose(0, 1)?.contiguous()?)
}

/// The adjoint of the convolution, applied to b x c_out x h x w, for its [`adjoint_weight`].
pub(crate) fn adjoint(y: &Tensor, adjoint_weight: &Tensor) -> Result<Tensor> {
    cyclic_conv(&turned(y, adjoint_weight.dims4()?.3)?, adjoint_weight, None, 1)
}

/// The argument of a convolution's adjoint as that of the convolution with [`adjoint_weight`], whose padding before and after have
/// changed places.
pub(crate) fn turned(y: &Tensor, kernel: usize) -> Result<Tensor> {
    let shift = (kernel.saturating_sub(1) / 2) as i32 - (kernel / 2) as i32;
    if shift == 0 {
        return Ok(y.clone());
    }
    Ok(y.roll(shift, 2)?.roll(shift, 3)?.contiguous()?)
}

/// An axis in the opposite order, without an index tensor from the host.
pub(crate) fn reversed(x: &Tensor, axis: usize) -> Result<Tensor> {
    let size = x.dims()[axis];
    let slices = (0..size).rev().map(|i| x.narrow(axis, i, 1));
    Ok(Tensor::cat(&slices.collect::<candle_core::Result<Vec<_>>>()?, axis)?)
}
