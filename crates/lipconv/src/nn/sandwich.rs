//! Sandwich: a 1-Lipschitz layer with ReLU between two parts of one orthogonal matrix.
//!
//! Definition. y = √2 Aᵗ ReLU(√2 B x + b). At each frequency of the image [Â* ; B̂*] is the [Cayley transform](super::cayley) of a tall
//! matrix of c_out + c_in rows and c_out columns, the transfer matrix of a k x k kernel that is scaled as Cayley's, so that A Aᵗ + B Bᵗ = I.
//!
//! The publication has a positive diagonal Ψ = e^ψ, y = √2 Aᵗ Ψ ReLU(√2 Ψ⁻¹ B x + b). ReLU(Ψ z) = Ψ ReLU(z), so that it only
//! scales b and is not needed here; nor is its risk, a number that is none where a ψ has grown.
//!
//! Guarantee. 1-Lipschitz. Proof. ReLU(u) - ReLU(v) = D (u - v) with a diagonal 0 <= D <= I, and y - y' = 2 Aᵗ D B (x - x'). M = [A  B] has
//! M Mᵗ = I, so S = Mᵗ D M lies between 0 and I, and so does R S R with R = diag(I, -I). S - R S R, which lies between -I and I, is twice the part
//! of S off the diagonal: ‖2 Aᵗ D B‖ <= 1.
//!
//! Plain form. Let [C  E] complete [A  B] to an orthogonal matrix: E is in closed form in that of Cayley's. Then Aᵗ B = -Cᵗ E, and with
//! ReLU(z) = (z + |z|) / 2 it is y = Aᵗ |B x + β| - Cᵗ E x + Aᵗ β for β = b / √2. [B; E] is an isometry and [Aᵗ  Cᵗ] the adjoint of one: a
//! convolution, MaxMin and a convolution, each of norm 1 up to rounding, whose bounds are computed from their stored numbers. Square images,
//! or vectors.
//!
//! Shapes. x b x c_in x H x W, y b x c_out x H x W; for a kernel size of 1 also b x c. Parameters `weight` (c_out + c_in x c_out x k x k),
//! `alpha` (1) and `bias` (c_out). It starts as Cayley's.
//!
//! Cost. An inverse for each frequency and two Fourier transforms each way.
//!
//! Errors. [`Error::Zero`]; [`Error::NoPlainForm`] for images that are not square.
//!
//! Source. Wang and Manchester (2023), arXiv 2301.11526, Theorem 3.3. The proof and the plain form are our own.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;

use super::cayley::{completion, orthogonal};
use super::complex::{Complex, backward, forward};
use super::fold::Folded;
use super::materialize::Materialize;
use super::parameter::{at_least_one, layer_name, parameter};
use super::sll::square_image;
use super::spectral::{SpectralConfig, SpectralConv2d, response, spectral_conv2d};
use crate::bounds::array;
use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::methods::{inverse_root, uniform};
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::{ImageShape, SignalShape};

/// Settings of a sandwich layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SandwichConfig {
    /// Seed of the starting values.
    pub seed: u64,
}

/// A sandwich layer.
#[derive(Debug, Clone)]
pub struct Sandwich {
    name: String,
    c_in: usize,
    c_out: usize,
    kernel: usize,
    /// From c_out to c_out + c_in channels: A* above B*.
    orthogonal: SpectralConv2d,
    bias: Tensor,
    config: SandwichConfig,
}

/// A layer from `c_in` to `c_out` channels; parameters `weight`, `alpha` and `bias`.
///
/// # Errors
/// [`Error::Zero`].
pub fn sandwich(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: SandwichConfig,
    vb: VarBuilder<'_>,
) -> Result<Sandwich> {
    let name = layer_name(&vb, "sandwich");
    at_least_one(&name, &[("c_in", c_in), ("c_out", c_out), ("kernel_size", kernel_size)])?;
    let SandwichConfig { seed } = config;
    let cayley = SpectralConfig { bias: false, seed, ..SpectralConfig::default() };
    let orthogonal = spectral_conv2d(c_out, c_out + c_in, kernel_size, cayley, vb.clone())?;
    let draw = |rng: &mut _| uniform(c_out, inverse_root(c_out), rng);
    let bias = parameter(&vb, "bias", &[c_out], seed, draw)?;
    Ok(Sandwich { name, c_in, c_out, kernel: kernel_size, orthogonal, bias, config })
}

impl Sandwich {
    /// A* and B of [A*; B*] at each frequency.
    fn parts(&self, both: &Complex) -> Result<(Complex, Complex)> {
        let b = both.narrow(1, self.c_out, self.c_in)?.adjoint()?;
        Ok((both.narrow(1, 0, self.c_out)?, b))
    }

    /// The layer on images.
    fn on_images(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        if channels != self.c_in {
            let (what, got) = (format!("input of {}", self.name), x.dims().to_vec());
            let mut expected = got.clone();
            expected[1] = self.c_in;
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        let image = (height, width);
        let (a, b) = self.parts(&orthogonal(&self.orthogonal.transfer(image)?)?)?;
        let inner = (backward(&b.to_dtype(x.dtype())?.matmul(&forward(x)?)?, image)? * SQRT_2)?;
        let inner = ops::add_bias(inner, Some(&self.bias))?.relu()?;
        let outer = backward(&a.to_dtype(x.dtype())?.matmul(&forward(&inner)?)?, image)?;
        Ok((outer * SQRT_2)?)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SandwichConfig {
        &self.config
    }
}

impl Module for Sandwich {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [b, c] = *x.dims() else { return Ok(self.on_images(x)?) };
        self.on_images(&x.reshape((b, c, 1, 1))?)?.reshape((b, self.c_out))
    }
}

impl Materialize for Sandwich {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let image = square_image(&self.name, input, (self.c_in, self.kernel))?;
        let size = (image.height, image.width);
        let on_host = |m: &Complex| -> Result<Complex> {
            let part = |t: &Tensor| t.detach().to_device(&Device::Cpu);
            Ok(Complex { re: part(&m.re)?, im: part(&m.im)? })
        };
        let w = on_host(&self.orthogonal.transfer(size)?)?;
        let both = orthogonal(&w)?;
        let (a, b) = self.parts(&both)?;
        // C* and E*
        let completed = completion(&w)?;
        let (c, e) = completed.expect("c_in is at least 1, so that there are more rows");
        let kernel = |matrices: &Complex, channels: usize| {
            let shape = SignalShape::Image(ImageShape { channels, ..image });
            let kernel = response(&self.name, shape, 1, |x| {
                backward(&matrices.matmul(&forward(x)?)?, size)
            })?;
            array::<f64, _>(&kernel, kernel.dims4()?)
        };
        let bias = self.bias.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let shift = to_vec::<f64>(&(bias * FRAC_1_SQRT_2)?)?;
        let from_absolute = kernel(&a, self.c_out)?;
        let offset = from_absolute.outer_iter().map(|kernel| {
            let taps = kernel.outer_iter().zip(&shift);
            taps.map(|(taps, shift)| taps.sum() * shift).sum()
        });
        let offset = offset.collect();
        let folded = Folded {
            absolute: kernel(&b, self.c_in)?,
            straight: kernel(&e.adjoint()?, self.c_in)?,
            shift,
            from_absolute,
            from_straight: kernel(&c.times(-1.0)?, self.c_in)?,
            offset,
        };
        folded.layers(&self.name, input, dtype)
    }
}
