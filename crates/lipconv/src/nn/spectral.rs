//! Cyclic convolutions whose transfer matrix is orthogonal at each frequency: [Cayley](SpectralMethod::Cayley),
//! [BRO](SpectralMethod::Bro), [LOT](SpectralMethod::Lot).
//!
//! Definition. The free parameter is a k x k kernel. Its transfer matrix Ŵ at each frequency of the image is made orthogonal by
//! the method, and y is the inverse transform of Q x̂, plus a bias. A stride is an invertible downsampling before that. The kernel that results
//! has the size of the image: another image size is another layer with the same parameters.
//! * Cayley: its file has the formula. The parameter is scaled to α W / ‖W‖_F with a parameter α, which starts at ‖W‖_F.
//! * BRO: likewise. The parameter has max(c_out, c_in) outputs and half as many inputs.
//! * LOT: the polar factor (Ŵ Ŵ*)^(-1/2) Ŵ, by Newton-Schulz steps; without the zero padding of the publication, which makes it a
//!   contraction instead of an orthogonal layer.
//!
//! Shapes. x b x c_in x H x W, y b x c_out x H/s x W/s. Parameters `weight` (OIHW), `alpha` (1, Cayley alone), `bias` (c_out).
//!
//! Guarantee. Orthogonal in exact arithmetic for Cayley; of norm at most 1 for BRO, and of singular values within 1e-6 of 1 where
//! W is square and V well-conditioned; orthogonal for LOT where no Ŵ is close to deficient rank, of norm at most 1 else, and undefined
//! (NaN) for a zero parameter.
//! The matrices are computed in f64 whatever the element type. The plain form is the cyclic kernel of the image's size, for
//! square images, with a bound computed from its stored numbers. The bound assumes nothing about the method.
//!
//! Cost. h (w/2 + 1) complex products c_out x c_in with the batch, and an inverse of a complex matrix for each frequency and step.
//!
//! Errors. [`Error::Zero`], [`Error::StrideDoesNotDivide`]; [`Error::NoPlainForm`] for images that are not square.
//!
//! Source. Trockman and Kolter (2021); Lai et al. (2025); Xu, Li and Li (2022), arXiv 2210.11620.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;

use super::cayley::orthogonal;
use super::complex::{Complex, backward, forward, transfer};
use super::materialize::{Materialize, no_plain_form, plain_conv};
use super::parameter::{at_least_one, layer_name, parameter};
use super::reflector::reflector;
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, Method, Sizes, uniform};
use crate::ops::{self, portable};
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// How a transfer matrix is made orthogonal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpectralMethod {
    /// The Cayley transform.
    Cayley,
    /// A block reflector.
    Bro,
    /// The polar factor.
    Lot,
}

/// Settings of a convolution in the frequency domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpectralConfig {
    /// How a transfer matrix is made orthogonal.
    pub method: SpectralMethod,
    /// Factor of the invertible downsampling before the convolution; it divides the kernel size.
    pub stride: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for SpectralConfig {
    /// Cayley, stride 1, a bias.
    fn default() -> Self {
        Self { method: SpectralMethod::Cayley, stride: 1, bias: true, seed: 0 }
    }
}

/// A convolution that is orthogonal at each frequency.
#[derive(Debug, Clone)]
pub struct SpectralConv2d {
    name: String,
    /// Channels after downsampling.
    channels: (usize, usize),
    weight: Tensor,
    alpha: Option<Tensor>,
    bias: Option<Tensor>,
    config: SpectralConfig,
}

/// A convolution from `c_in` to `c_out` channels; parameters `weight`, `alpha` (Cayley) and `bias`.
///
/// # Errors
/// [`Error::Zero`], [`Error::StrideDoesNotDivide`].
pub fn spectral_conv2d(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: SpectralConfig,
    vb: VarBuilder<'_>,
) -> Result<SpectralConv2d> {
    let name = layer_name(&vb, "spectral-conv2d");
    let SpectralConfig { method, stride, bias, seed } = config;
    let counts =
        [("c_in", c_in), ("c_out", c_out), ("kernel_size", kernel_size), ("stride", stride)];
    at_least_one(&name, &counts)?;
    if !kernel_size.is_multiple_of(stride) {
        let (what, size) = ("kernel size", kernel_size);
        return Err(Error::StrideDoesNotDivide { layer: name, what, size, stride });
    }
    let c_in = c_in * stride * stride;
    let kernel = kernel_size / stride;
    let n = c_out.max(c_in);
    let (rows, columns) =
        if method == SpectralMethod::Bro { (n, (n / 2).max(1)) } else { (c_out, c_in) };
    let sizes = Sizes::conv(rows, columns, kernel, (kernel, kernel));
    // orthonormal rows or columns of the reshaped kernel
    let definition = Method::from(ConvMethod::Rko).definition();
    let shape = sizes.weight_shape();
    let weight = parameter(&vb, "weight", &shape, seed, |rng| definition.draw(&sizes, rng))?;
    let alpha = (method == SpectralMethod::Cayley).then(|| {
        let norm = weight.to_dtype(DType::F64)?.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>()?;
        parameter(&vb, "alpha", &[1], seed, |_| vec![norm])
    });
    let bound = definition.bias_bound(&Sizes::conv(c_out, c_in, kernel, (kernel, kernel)));
    let bias =
        bias.then(|| parameter(&vb, "bias", &[c_out], seed, |rng| uniform(c_out, bound, rng)));
    let (alpha, bias) = (alpha.transpose()?, bias.transpose()?);
    Ok(SpectralConv2d { name, channels: (c_in, c_out), weight, alpha, bias, config })
}

impl SpectralConv2d {
    /// The transfer matrices of the parameter, scaled where it is, on images of one size, in f64.
    pub(super) fn transfer(&self, image: (usize, usize)) -> Result<Complex> {
        let mut weight = self.weight.to_dtype(DType::F64)?;
        let energy = weight.sqr()?.sum_all()?;
        if let Some(alpha) = &self.alpha {
            let norm = energy.maximum(SMALLEST_ENERGY)?.sqrt()?;
            let factor = alpha.to_dtype(DType::F64)?.broadcast_div(&norm)?;
            weight = weight.broadcast_mul(&factor.reshape((1, 1, 1, 1))?)?;
        }
        transfer(&weight, image)
    }

    /// The layer's transfer matrices, likewise.
    fn matrices(&self, image: (usize, usize)) -> Result<Complex> {
        let (c_in, c_out) = self.channels;
        let w = self.transfer(image)?;
        match self.config.method {
            SpectralMethod::Cayley => orthogonal(&w),
            SpectralMethod::Bro => {
                let energy = self.weight.to_dtype(DType::F64)?.sqr()?.sum_all()?;
                reflector(&w, &energy, (c_out, c_in))
            }
            SpectralMethod::Lot => Complex::from_real(&portable::polar(&w.as_real()?)?.matrix),
        }
    }

    /// W x without the bias, for a downsampled image.
    fn linear(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        if channels != self.channels.0 {
            let (what, got) = (format!("downsampled input of {}", self.name), x.dims().to_vec());
            let mut expected = got.clone();
            expected[1] = self.channels.0;
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        let matrices = self.matrices((height, width))?.to_dtype(x.dtype())?;
        backward(&matrices.matmul(&forward(x)?)?, (height, width))
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SpectralConfig {
        &self.config
    }
}

/// A zero parameter is scaled as if its squares added up to this.
const SMALLEST_ENERGY: f64 = 1e-300;

impl Module for SpectralConv2d {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = self.linear(&ops::pixel_unshuffle(x, self.config.stride)?)?;
        Ok(ops::add_bias(y, self.bias.as_ref())?)
    }
}

/// The OIHW kernel of the size of an s x s image that a linear cyclic map of images has: its responses to a pixel in each channel.
pub(super) fn response(
    name: &str,
    input: SignalShape,
    stride: usize,
    linear: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let image = match input {
        SignalShape::Image(image) => image.downsampled(stride, name)?,
        SignalShape::Vector(n) => {
            let (layer, previous) = (name.to_owned(), format!("a vector of {n} features"));
            let reason = "a convolution needs an image";
            return Err(Error::LayerOrder { layer, previous, reason });
        }
    };
    let (c_in, side) = (image.channels, image.height);
    if side != image.width {
        let (height, width) = (image.height, image.width);
        let reason = format!("its image is {height} x {width}, expected a square one");
        return no_plain_form(name, reason);
    }
    let eye = Tensor::eye(c_in, DType::F64, &Device::Cpu)?.reshape((c_in, c_in, 1, 1))?;
    let pixels = eye.pad_with_zeros(2, 0, side - 1)?.pad_with_zeros(3, 0, side - 1)?;
    // y[i] = W[a] with i + a - side/2 = 0 mod side
    let y = linear(&pixels.contiguous()?)?.transpose(0, 1)?.contiguous()?;
    let places = (0..side).map(|a| ((side / 2 + side - a) % side) as u32).collect::<Vec<_>>();
    let places = Tensor::from_vec(places, side, y.device())?;
    Ok(y.index_select(&places, 2)?.index_select(&places, 3)?)
}

impl Materialize for SpectralConv2d {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let stride = self.config.stride;
        let device = self.weight.device();
        let kernel = response(&self.name, input, stride, |x| self.linear(&x.to_device(device)?))?;
        plain_conv(&self.name, input, dtype, (&kernel, self.bias.as_ref()), stride)
    }
}
