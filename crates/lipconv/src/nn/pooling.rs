//! Pooling and centring with norm at most 1.
//!
//! Definition, on windows of s x s pixels side by side:
//! * [`AveragePool`]: the sum of a window divided by s, which has norm 1 (the mean, divided by s², has norm 1/s).
//! * [`NormPool`]: the Euclidean norm of a window, channel by channel.
//! * [`Centring`]: an image minus its mean over the pixels, channel by channel; a vector minus its mean. An orthogonal projection.
//!
//! Guarantee. Each is 1-Lipschitz: windows are disjoint, and in a window the sum over s pixels divided by s, the norm and the
//! projection are. The norm of a window below 1e-15 counts as that number, so that its gradient is finite; a maximum with a
//! constant is 1-Lipschitz too.
//!
//! Plain form. Average pooling is a 1 x 1 convolution after invertible downsampling, centring a cyclic kernel of the image's
//! size, for square images. Norm pooling has none.

use candle_core::{D, DType, Device, Module, Tensor};
use ndarray::Array4;

use super::materialize::{Materialize, no_plain_form, plain_conv, plain_linear};
use crate::error::Result;
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// Norms below this count as this.
const SMALLEST_NORM: f64 = 1e-15;

/// Sums of s x s windows, divided by s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AveragePool {
    /// The side s of a window; it divides height and width.
    pub size: usize,
}

/// Norms of s x s windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormPool {
    /// The side s of a window; it divides height and width.
    pub size: usize,
}

/// The input minus its mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Centring;

/// b x c x s² x h x w.
fn windows(x: &Tensor, size: usize) -> Result<Tensor> {
    let channels = x.dims4()?.1;
    let (b, _, h, w) = ops::pixel_unshuffle(x, size)?.dims4()?;
    Ok(ops::pixel_unshuffle(x, size)?.reshape((b, channels, size * size, h, w))?)
}

impl Module for AveragePool {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        windows(x, self.size)?.sum(2)? / self.size as f64
    }
}

impl Materialize for AveragePool {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (channels, area) = (input.n_channels(), self.size * self.size);
        let share = 1.0 / self.size as f64;
        let weight = (0..channels * channels * area).map(|index| {
            let (row, column) = (index / (channels * area), index % (channels * area));
            if column / area == row { share } else { 0.0 }
        });
        let shape = (channels, channels * area, 1, 1);
        let weight = Tensor::from_vec(weight.collect::<Vec<f64>>(), shape, &Device::Cpu)?;
        plain_conv("average pooling", input, dtype, (&weight, None), self.size)
    }
}

impl Module for NormPool {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let squares = windows(x, self.size)?.sqr()?.sum(2)?;
        squares.maximum(SMALLEST_NORM * SMALLEST_NORM)?.sqrt()
    }
}

impl Materialize for NormPool {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        no_plain_form("norm pooling", "plain networks have no norms of windows")
    }
}

impl Module for Centring {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if x.rank() < 4 {
            return x.broadcast_sub(&x.mean_keepdim(D::Minus1)?);
        }
        x.broadcast_sub(&x.mean_keepdim((2, 3))?)
    }
}

impl Materialize for Centring {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (channels, side) = match input {
            SignalShape::Vector(n) => {
                let share = 1.0 / n as f64;
                let entry = |(o, i, _, _): (usize, usize, usize, usize)| {
                    if o == i { 1.0 - share } else { -share }
                };
                let weight = Array4::from_shape_fn((n, n, 1, 1), entry);
                return plain_linear("centring", input, dtype, weight, vec![0.0; n]);
            }
            SignalShape::Image(image) if image.height == image.width => {
                (image.channels, image.height)
            }
            SignalShape::Image(image) => {
                let (height, width) = (image.height, image.width);
                let reason = format!("the image is {height} x {width}, expected a square one");
                return no_plain_form("centring", reason);
            }
        };
        let share = 1.0 / (side * side) as f64;
        let entry = |(o, i, a, b): (usize, usize, usize, usize)| match o == i {
            true if a == side / 2 && b == side / 2 => 1.0 - share,
            true => -share,
            false => 0.0,
        };
        let weight = Array4::from_shape_fn((channels, channels, side, side), entry);
        plain_linear("centring", input, dtype, weight, vec![0.0; channels])
    }
}
