//! SLL and CPL: 1-Lipschitz residual layers of one hidden layer with ReLU.
//!
//! Definition. y = x - 2 Kᵗ (t ⊙ ReLU(K x + b)) with a cyclic convolution K from c to m channels, its adjoint Kᵗ and numbers t_i >= 0.
//! With the correlation (K Kᵗ)_ij,τ of the kernel with itself:
//! * [`StepRule::Sll`]: t_i = 1 / Σ_{j,τ} |(K Kᵗ)_ij,τ| e^(q_j - q_i) with parameters q;
//! * [`StepRule::Cpl`]: all t_i = 1 / max_i Σ_{j,τ} |(K Kᵗ)_ij,τ|.
//!
//! A sum that is 0 (below 1e-18 in f32) belongs to a zero row of K, and its t_i is 0.
//!
//! Guarantee. 1-Lipschitz. Proof. ReLU(u) - ReLU(v) = D (u - v) with a diagonal 0 <= D <= I, so y - y' = (I - 2 Fᵗ D F) (x - x') with
//! F = √t K, a symmetric matrix with eigenvalues between 1 - 2 ‖F‖² and 1. In row i the matrix e^(-q) K Kᵗ e^q has the
//! absolute row sum 1 / t_i or less, so that t K Kᵗ, which is similar to F Fᵗ, has a row-sum norm, hence a spectral radius, of at
//! most 1: ‖F‖ <= 1. For CPL likewise, where the publication divides by an estimate of ‖K‖² from power iteration, which is below it
//! and steps too far.
//!
//! Plain form. Let R = (I - Fᵗ F)^(1/2): [F; R] is an isometry, and y = [Fᵗ  R] of (φ(F x), R x) with φ(u) = u - 2 √t ReLU(u / √t + b)
//! = -|u + √t b| - √t b. So an SLL layer is an orthogonal layer, an absolute value, and the adjoint of the orthogonal layer: it
//! becomes a convolution, MaxMin and a convolution, each of norm 1 up to rounding, whose bounds are computed from their stored numbers.
//! R has the size of the image: square images, or vectors.
//!
//! Shapes. x and y b x c x H x W; for a kernel size of 1 also b x c. Parameters `weight` (m x c x k x k), `q` (m, SLL alone)
//! and `bias` (m).
//!
//! Cost. Two convolutions and three times their activations' memory; the plain form costs as much as kernels of the image's size do.
//!
//! Errors. [`Error::Zero`]; [`Error::NoPlainForm`] for images that are not square.
//!
//! Source. Araujo, Havens, Delattre, Allauzen and Hu (2023), arXiv 2303.03169; Meunier, Delattre, Araujo and Allauzen (2022), arXiv
//! 2110.12690. The plain form is our own.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::VarBuilder;

use super::complex::{Complex, backward, forward, transfer};
use super::fold::Folded;
use super::materialize::{Materialize, no_plain_form};
use super::parameter::{at_least_one, layer_name, parameter};
use super::root::of_each;
use super::spectral::response;
use crate::bounds::array;
use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, Method, Sizes, channel_sums, uniform};
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::{ImageShape, SignalShape};

/// How far a residual layer steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepRule {
    /// One step for each hidden channel.
    Sll,
    /// One step for all.
    Cpl,
}

/// Settings of a residual layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SllConfig {
    /// Channels inside; 0 for as many as outside.
    pub hidden: usize,
    /// How far it steps.
    pub rule: StepRule,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for SllConfig {
    /// SLL with as many channels inside as outside.
    fn default() -> Self {
        Self { hidden: 0, rule: StepRule::Sll, seed: 0 }
    }
}

/// A 1-Lipschitz residual layer.
#[derive(Debug, Clone)]
pub struct Sll {
    name: String,
    weight: Tensor,
    q: Option<Tensor>,
    bias: Tensor,
    config: SllConfig,
}

/// A residual layer of `channels`; parameters `weight`, `q` (SLL) and `bias`.
///
/// # Errors
/// [`Error::Zero`].
pub fn sll(
    channels: usize,
    kernel_size: usize,
    config: SllConfig,
    vb: VarBuilder<'_>,
) -> Result<Sll> {
    let name = layer_name(&vb, "sll");
    at_least_one(&name, &[("channels", channels), ("kernel_size", kernel_size)])?;
    let hidden = if config.hidden == 0 { channels } else { config.hidden };
    let sizes = Sizes::conv(hidden, channels, kernel_size, (kernel_size, kernel_size));
    let definition = Method::from(ConvMethod::Rko).definition();
    let seed = config.seed;
    let shape = sizes.weight_shape();
    let weight = parameter(&vb, "weight", &shape, seed, |rng| definition.draw(&sizes, rng))?;
    let q = (config.rule == StepRule::Sll)
        .then(|| parameter(&vb, "q", &[hidden], seed, |_| vec![0.0; hidden]));
    let bound = definition.bias_bound(&sizes);
    let bias = parameter(&vb, "bias", &[hidden], seed, |rng| uniform(hidden, bound, rng))?;
    Ok(Sll { name, weight, q: q.transpose()?, bias, config })
}

/// Sums below this are those of a zero row; their squares are normal numbers.
fn smallest_sum(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-18 } else { 1e-150 }
}

impl Sll {
    /// t.
    fn steps(&self, weight: &Tensor, q: Option<&Tensor>) -> Result<Tensor> {
        let taps = weight.permute((2, 3, 1, 0))?.contiguous()?;
        let sums = match q {
            Some(q) => {
                // (|K Kᵗ| e^q) e^(-q), from the largest q so that nothing overflows
                let scale = q.broadcast_sub(&q.detach().max(0)?)?.exp()?;
                channel_sums(&taps, Some(&scale))?.div(&scale)?
            }
            None => {
                let sums = channel_sums(&taps, None)?;
                sums.max_keepdim(0)?.broadcast_as(sums.dims())?
            }
        };
        let is_nonzero = sums.detach().gt(smallest_sum(sums.dtype()))?.to_dtype(sums.dtype())?;
        // a sum that counts as 0 becomes 1, so that no gradient is infinite
        let safe = ((&sums * &is_nonzero)? + (1.0 - &is_nonzero)?)?;
        Ok((safe.recip()? * is_nonzero)?)
    }

    /// The layer on images.
    fn on_images(&self, x: &Tensor) -> Result<Tensor> {
        let steps = self.steps(&self.weight, self.q.as_ref())?;
        let inner = ops::cyclic_conv(x, &self.weight, Some(&self.bias), 1)?.relu()?;
        // 2 Kᵗ D^-1 as one kernel: far smaller than the images
        let back = self.weight.broadcast_mul(&(steps * 2.0)?.reshape(((), 1, 1, 1))?)?;
        Ok((x - ops::cyclic_conv_adjoint(&inner, &back)?)?)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SllConfig {
        &self.config
    }
}

impl Module for Sll {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [b, c] = *x.dims() else { return Ok(self.on_images(x)?) };
        self.on_images(&x.reshape((b, c, 1, 1))?)?.reshape((b, c))
    }
}

impl Materialize for Sll {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (hidden, channels, kernel, _) = self.weight.dims4()?;
        let image = square_image(&self.name, input, (channels, kernel))?;
        let side = image.height;
        let on_host = |t: &Tensor| t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64);
        let weight = on_host(&self.weight)?;
        let q = self.q.as_ref().map(on_host).transpose()?;
        let steps = self.steps(&weight, q.as_ref())?;
        let roots = steps.sqrt()?;
        let contraction = weight.broadcast_mul(&roots.reshape((hidden, 1, 1, 1))?)?;
        let f = transfer(&contraction, (side, side))?;
        let r = complement(&self.name, &f)?;
        let shape = SignalShape::Image(image);
        let kernel_of = |matrices: &Complex| -> Result<_> {
            let kernel = response(&self.name, shape, 1, |x| {
                backward(&matrices.matmul(&forward(x)?)?, (side, side))
            })?;
            array::<f64, _>(&kernel, kernel.dims4()?)
        };
        let shape_inside = SignalShape::Image(ImageShape { channels: hidden, ..image });
        let back = response(&self.name, shape_inside, 1, |x| {
            backward(&f.adjoint()?.matmul(&forward(x)?)?, (side, side))
        })?;
        let from_straight = kernel_of(&r)?;
        let shift = to_vec::<f64>(&(&roots * on_host(&self.bias)?)?)?;
        // y = Fᵗ (-|F x + √t b| - √t b) + R R x
        let from_absolute = -array::<f64, _>(&back, back.dims4()?)?;
        let offset = from_absolute.outer_iter().map(|kernel| {
            let taps = kernel.outer_iter().zip(&shift);
            taps.map(|(taps, shift)| taps.sum() * shift).sum()
        });
        let offset = offset.collect();
        let absolute = kernel_of(&f)?;
        let straight = from_straight.clone();
        let folded = Folded { absolute, straight, shift, from_absolute, from_straight, offset };
        folded.layers(&self.name, input, dtype)
    }
}

/// The image of a layer whose plain form needs a square one, or a vector as an image of one pixel.
pub(super) fn square_image(
    name: &str,
    input: SignalShape,
    (channels, kernel): (usize, usize),
) -> Result<ImageShape> {
    let image = match input {
        SignalShape::Image(image) => image,
        SignalShape::Vector(n) => ImageShape::new(n, 1, 1),
    };
    let side = image.height;
    if side != image.width {
        let reason = format!("its image is {side} x {}, expected a square one", image.width);
        return no_plain_form(name, reason);
    }
    if image.channels != channels {
        let (what, got) = (format!("input of {name}"), vec![image.channels]);
        return Err(Error::ShapeMismatch { what, expected: vec![channels], got });
    }
    if kernel > side {
        let (layer, height, width) = (name.to_owned(), side, side);
        return Err(Error::KernelExceedsImage { layer, kernel, height, width });
    }
    Ok(image)
}

/// (I - F* F)^(1/2) for a contraction F at each frequency.
fn complement(name: &str, f: &Complex) -> Result<Complex> {
    let one = Tensor::new(&[1.0], &Device::Cpu)?;
    let rest = f.adjoint()?.matmul(f)?.times(-1.0)?.plus_identity(&one)?;
    // exactly symmetric, whatever rounding left
    let rest = rest.as_real()?;
    let rest = ((&rest + rest.t()?)? / 2.0)?;
    Complex::from_real(&of_each(name, &rest, projectors::symmetric::square_root)?)
}
