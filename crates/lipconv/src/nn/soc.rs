//! SOC: skew orthogonal convolutions, the exponential of a skew-symmetric convolution.
//!
//! Definition. With M the parameter, n x n x k x k for an odd k and n = max(c_out, c_in), A = M - M*, where M* is the adjoint kernel
//! (taps reversed, channels exchanged), scaled by min(1, 1 / N) with N = max_o Σ |A_oia|. y = Σ_{i <= t} Aⁱ x / i! + β, of which
//! channels are added as zeros before and dropped after where c_in and c_out differ. A stride is an invertible downsampling.
//!
//! Guarantee. exp(A) is orthogonal. A is normal and N its largest absolute row sum, so ‖A‖ <= N, and <= 1 after scaling; the
//! truncated series differs from the exponential by at most 2 / (t + 1)! in the norm: 3e-3 for t = 5, 4e-10 for t = 12 (the
//! default), 1e-13 for t = 15. Its norm is at most 1 plus that, and the plain form has a bound of what it is: a certificate of a
//! network with few terms divides by it.
//!
//! Plain form. The cyclic kernel of the image's size, for square images.
//!
//! Shapes. Parameters `weight` (n x n x k x k) and `bias` (c_out).
//!
//! Cost. t convolutions each way.
//!
//! Errors. [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::InvalidSetting`] for an even kernel.
//!
//! Source. Singla and Feizi (2021), arXiv 2105.11417. There A is scaled by power iteration and a factor .7, and ‖A‖ only known to
//! be at most about 2.1.

use candle_core::{DType, Module, Tensor};
use candle_nn::VarBuilder;

use super::materialize::{Materialize, plain_conv};
use super::parameter::{at_least_one, layer_name, parameter};
use super::spectral::response;
use crate::error::{Error, Result};
use crate::methods::{inverse_root, uniform};
use crate::ops;
use crate::ops::portable::adjoint_weight;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// Settings of a skew orthogonal convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocConfig {
    /// Terms of the series beyond the identity.
    pub terms: usize,
    /// Factor of the invertible downsampling before the convolution; it divides the kernel size.
    pub stride: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for SocConfig {
    /// 12 terms, stride 1, a bias.
    fn default() -> Self {
        Self { terms: 12, stride: 1, bias: true, seed: 0 }
    }
}

/// A skew orthogonal convolution.
#[derive(Debug, Clone)]
pub struct SocConv2d {
    name: String,
    /// Channels after downsampling.
    channels: (usize, usize),
    weight: Tensor,
    bias: Option<Tensor>,
    config: SocConfig,
}

/// A convolution from `c_in` to `c_out` channels; parameters `weight` and `bias`.
///
/// # Errors
/// [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::InvalidSetting`] for an even kernel.
pub fn soc_conv2d(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: SocConfig,
    vb: VarBuilder<'_>,
) -> Result<SocConv2d> {
    let name = layer_name(&vb, "soc-conv2d");
    let SocConfig { terms, stride, bias, seed } = config;
    let counts = [
        ("c_in", c_in),
        ("c_out", c_out),
        ("kernel_size", kernel_size),
        ("stride", stride),
        ("terms", terms),
    ];
    at_least_one(&name, &counts)?;
    if !kernel_size.is_multiple_of(stride) {
        let (what, size) = ("kernel size", kernel_size);
        return Err(Error::StrideDoesNotDivide { layer: name, what, size, stride });
    }
    let (c_in, kernel) = (c_in * stride * stride, kernel_size / stride);
    if kernel.is_multiple_of(2) {
        let (name, value) = ("kernel size after downsampling", kernel.to_string());
        let expected = "an odd number: a skew kernel is symmetric about its centre";
        return Err(Error::InvalidSetting { name, value, expected });
    }
    let n = c_out.max(c_in);
    let draw = |rng: &mut _| {
        let bound = inverse_root(n * kernel * kernel);
        uniform(n * n * kernel * kernel, bound, rng)
    };
    let weight = parameter(&vb, "weight", &[n, n, kernel, kernel], seed, draw)?;
    let bound = inverse_root(c_out);
    let bias =
        bias.then(|| parameter(&vb, "bias", &[c_out], seed, |rng| uniform(c_out, bound, rng)));
    Ok(SocConv2d { name, channels: (c_in, c_out), weight, bias: bias.transpose()?, config })
}

impl SocConv2d {
    /// The skew kernel A, n x n x k x k.
    ///
    /// # Errors
    /// [`Error::Candle`].
    pub fn skew_kernel(&self) -> Result<Tensor> {
        skew_kernel(&self.weight)
    }

    /// The series without the bias, for a downsampled image.
    fn linear(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let (_, channels, ..) = x.dims4()?;
        let (c_in, c_out) = self.channels;
        if channels != c_in {
            let (what, got) = (format!("downsampled input of {}", self.name), x.dims().to_vec());
            let mut expected = got.clone();
            expected[1] = c_in;
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        let kernel = skew_kernel(weight)?;
        let mut term = x.pad_with_zeros(1, 0, c_out.max(c_in) - c_in)?;
        let mut sum = term.clone();
        for i in 1..=self.config.terms {
            term = (ops::cyclic_conv(&term, &kernel, None, 1)? / i as f64)?;
            sum = (sum + &term)?;
        }
        Ok(sum.narrow(1, 0, c_out)?.contiguous()?)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SocConfig {
        &self.config
    }
}

fn skew_kernel(weight: &Tensor) -> Result<Tensor> {
    let a = (weight - adjoint_weight(weight)?)?;
    let largest = a.abs()?.flatten_from(1)?.sum(1)?.max(0)?;
    Ok(a.broadcast_div(&largest.maximum(1.0)?)?)
}

impl Module for SocConv2d {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = ops::pixel_unshuffle(x, self.config.stride)?;
        let y = self.linear(&x, &self.weight)?;
        Ok(ops::add_bias(y, self.bias.as_ref())?)
    }
}

impl Materialize for SocConv2d {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let stride = self.config.stride;
        let weight = self.weight.detach().to_dtype(DType::F64)?;
        let kernel = response(&self.name, input, stride, |x| {
            self.linear(&x.to_device(weight.device())?, &weight)
        })?;
        plain_conv(&self.name, input, dtype, (&kernel, self.bias.as_ref()), stride)
    }
}
