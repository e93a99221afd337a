//! Layers that only move values: invertible down- and upsampling, flattening, nothing.
//!
//! Guarantee. Each is a permutation of the values: all singular values are 1 in any arithmetic.
//!
//! Plain form. Downsampling is a 1 x 1 convolution with the identity; upsampling has none yet.
//!
//! Source. Invertible downsampling: Jacobsen, Smeulders and Oyallon (2018); PyTorch's `pixel_unshuffle` and `pixel_shuffle`.

use candle_core::{DType, Device, Module, Tensor};

use super::materialize::{Materialize, no_plain_form, plain_conv};
use crate::error::Result;
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// b x c x H x W to b x c·s² x H/s x W/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downsample {
    /// The factor s.
    pub factor: usize,
}

/// b x c·s² x h x w to b x c x h·s x w·s: the inverse of [`Downsample`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upsample {
    /// The factor s.
    pub factor: usize,
}

/// Image to vector, row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flatten;

/// The input as it is: a branch of a residual layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity;

impl Module for Downsample {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(ops::pixel_unshuffle(x, self.factor)?)
    }
}

impl Materialize for Downsample {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let channels = input.n_channels() * self.factor * self.factor;
        let eye =
            Tensor::eye(channels, dtype, &Device::Cpu)?.reshape((channels, channels, 1, 1))?;
        plain_conv("downsample", input, dtype, (&eye, None), self.factor)
    }
}

impl Module for Upsample {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(ops::pixel_shuffle(x, self.factor)?)
    }
}

impl Materialize for Upsample {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        no_plain_form("upsample", "plain networks have no upsampling")
    }
}

impl Module for Flatten {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.flatten_from(1)
    }
}

impl Materialize for Flatten {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        Ok(vec![PlainLayer::Flatten])
    }
}

impl Module for Identity {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(x.clone())
    }
}

impl Materialize for Identity {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        Ok(Vec::new())
    }
}
