//! Transposed convolution of kernel size 4, stride 2 and padding 1 as one matrix product.
//!
//! Definition, with W of shape c_in x c_out x 4 x 4: `y[o, 2i + a - 1, 2j + b - 1] += W[c, o, a, b] x[c, i, j]` over
//! all c, i, j, a, b, where the index stays in the image: PyTorch's `ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1)`.
//! One product gives all W[c, o, a, b] x[c, i, j] summed over c; then an even row 2i receives tap 1 of row i and tap 3 of row
//! i - 1, an odd row 2i + 1 tap 2 of row i and tap 0 of row i + 1, and columns alike. Memory: 16 c_out values for each
//! pixel of x.

use candle_core::Tensor;

use crate::error::Result;
use crate::ops::add_bias;

/// See [`crate::ops::conv_transpose`].
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when shapes, element types or devices do not fit.
pub fn conv_transpose(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (batch, c_in, height, width) = x.dims4()?;
    let (_, c_out, ..) = weight.dims4()?;
    // channels first, so that the whole batch is one product
    let columns = x.transpose(0, 1)?.contiguous()?.reshape((c_in, batch * height * width))?;
    let taps = weight.reshape((c_in, c_out * 16))?.t()?.matmul(&columns)?;
    let taps = taps.reshape(&[c_out, 4, 4, batch, height, width])?;
    let y = interleave(&interleave(&taps, 1, 4)?, 2, 5)?;
    let y = y.permute(vec![3, 0, 4, 1, 5, 2])?.contiguous()?;
    let y = y.reshape((batch, c_out, 2 * height, 2 * width))?;
    add_bias(y, bias)
}

/// Sums the four taps of one axis into the even and the odd results: the tap axis shrinks from 4 to 2.
fn interleave(taps: &Tensor, tap_axis: usize, axis: usize) -> Result<Tensor> {
    let size = taps.dims()[axis];
    let tap = |n: usize| taps.narrow(tap_axis, n, 1);
    let from_before = tap(3)?.pad_with_zeros(axis, 1, 0)?.narrow(axis, 0, size)?;
    let from_after = tap(0)?.pad_with_zeros(axis, 0, 1)?.narrow(axis, 1, size)?;
    let even = (tap(1)? + from_before)?;
    let odd = (tap(2)? + from_after)?;
    Ok(Tensor::cat(&[even, odd], tap_axis)?)
}
