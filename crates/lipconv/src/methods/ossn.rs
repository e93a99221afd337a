//! OSSN: a convolution divided by an estimate of its operator norm, from power iteration.
//!
//! Definition. Let A be the cyclic convolution with the weight W on the layer's image size, applied to vectors of the shape
//! c_in x h x w. From the vector v of the step before, ten times: u = A v / ‖A v‖, v = Aᵗ u / ‖Aᵗ u‖. Then
//! σ = ⟨u, A v⟩ = ‖Aᵗ u‖, and the layer's weight is W / max(σ, 1): a layer within the unit ball is left alone.
//!
//! Pullback. u and v count as constants, so that dσ/dW is the weight gradient D of the convolution with input v and
//! output gradient u, and the gradient in W is G / σ - ⟨G, W⟩ / σ² · D; G itself where σ <= 1.
//!
//! Guarantee. σ is an estimate from below; no bound. Frozen, the parameter is divided by a proven bound of its norm where that
//! exceeds 1; the estimate has no part in it.
//!
//! Shapes. Parameter and weight OIHW, at first uniform in ±1/√fan_in as in PyTorch: inside the unit ball.
//!
//! Between steps. The vector v.
//!
//! Cost. Twenty passes of one image through the layer, and one weight gradient.
//!
//! Source. Li et al., section 5 (OSSN); Farnia, Zhang and Tse (2019); Miyato et al. (2018) for the gradient.

use candle_core::Tensor;
use ndarray::{Array4, ArrayD, ArrayView1, ArrayView4, ArrayViewD, Ix4};
use num_traits::Float;
use projectors::Real;
use rand_chacha::ChaCha8Rng;

use super::arrays::{finite, ranked, within_unit_ball};
use super::unconstrained::Unconstrained;
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;
use crate::finite::check_finite;
use crate::kernels::conv::{Conv, ConvGeometry, ConvScratch};
use crate::kernels::lanes::Lanes;
use crate::ops::portable::{adjoint, adjoint_weight, cyclic_conv};
use crate::shape::ImageShape;

/// Power iterations of one forward evaluation.
const N_ITERATIONS: usize = 10;

/// One-sided spectral normalisation.
#[derive(Debug)]
pub(super) struct Ossn;

impl Parametrisation for Ossn {
    fn name(&self) -> &'static str {
        "ossn"
    }

    fn title(&self) -> &'static str {
        "OSSN"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        Unconstrained.draw(sizes, rng)
    }

    fn vector_shape(&self, sizes: &Sizes) -> Option<Vec<usize>> {
        Some(vec![sizes.n_in, sizes.image.0, sizes.image.1])
    }

    fn weight(&self, _: &Sizes, parameter: &Tensor, vector: Option<&Tensor>) -> Result<Weight> {
        let vector = vector.expect("every OSSN layer has its vector");
        let fixed = parameter.detach();
        let transposed = adjoint_weight(&fixed)?;
        let round = |right: &Tensor| -> Result<(Tensor, Tensor)> {
            let left = unit(&cyclic_conv(right, &fixed, None, 1)?)?;
            let right = unit(&adjoint(&left, &transposed)?)?;
            Ok((left, right))
        };
        let (mut left, mut right) = round(&vector.detach().unsqueeze(0)?)?;
        for _ in 1..N_ITERATIONS {
            (left, right) = round(&right)?;
        }
        let image = cyclic_conv(&right.detach(), parameter, None, 1)?;
        let sigma = (image * left.detach())?.sum_all()?;
        let divisor = sigma.maximum(&sigma.ones_like()?)?;
        let weight = parameter.broadcast_div(&divisor)?;
        Ok(Weight { weight, vector: Some(right.squeeze(0)?.detach()), defect: None })
    }
}

/// `x / ‖x‖`; a zero tensor stays.
fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?;
    let least = (norm.ones_like()? * f64::from(f32::MIN_POSITIVE))?;
    Ok(x.broadcast_div(&norm.maximum(&least)?)?)
}

impl<T: Element> CpuParametrisation<T> for Ossn {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        finite(layer, &parameter)?;
        let vector = start.vector.expect("every OSSN layer has its vector");
        let estimate = Estimate::new(ranked(parameter), layer.sizes.image, vector);
        check_finite(&format!("{}: the estimated norm", layer.name), &[estimate.sigma])?;
        Ok(Box::new(estimate))
    }

    fn frozen(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        within_unit_ball(layer, parameter.to_owned())
    }
}

impl<T: Element> Assembled<T> for Estimate<T> {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        self.scaled(ranked(parameter)).into_dyn()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        Ok(self.gradient(ranked(parameter), ranked(d_weight.view())).into_dyn())
    }

    fn next_vector(&self) -> Option<Vec<T>> {
        Some(self.right.clone())
    }
}

/// The largest singular value of a cyclic convolution by a hundred power iterations, from `vector` or a fixed start: an
/// estimate.
pub(crate) fn estimated_norm<T: Element>(
    weight: ArrayViewD<'_, T>,
    image: (usize, usize),
    vector: Option<Vec<T>>,
) -> f64 {
    let n = weight.shape()[1] * image.0 * image.1;
    // without symmetry, so that no frequency is missed
    let fixed = || (0..n).map(|i| T::of((i * 7919 % 1009) as f64 / 1009.0 - 0.45)).collect();
    let start: Vec<T> = vector.unwrap_or_else(fixed);
    let weight = ranked::<T, Ix4>(weight);
    let mut estimate = Estimate::new(weight, image, &start);
    for _ in 1..10 {
        estimate = Estimate::new(weight, image, &estimate.right);
    }
    estimate.sigma.as_f64()
}

/// The cyclic convolution with one weight on one image size, and its adjoint.
struct Operator<T> {
    conv: Conv<T>,
    adjoint_factors: Vec<Lanes<T>>,
    scratch: ConvScratch<T>,
}

impl<T: Element> Operator<T> {
    fn new(weight: ArrayView4<'_, T>, image: (usize, usize)) -> Self {
        let (c_out, c_in, kernel, _) = weight.dim();
        let input = ImageShape::new(c_in, image.0, image.1);
        let geometry = ConvGeometry { input, downsample: 1, kernel, c_out };
        let weight = weight.as_standard_layout();
        let conv = Conv::new(geometry, weight.as_slice().expect("in standard layout"), None);
        let mut scratch = ConvScratch::default();
        scratch.reserve(&conv);
        Self { adjoint_factors: conv.adjoint_factors(), conv, scratch }
    }

    /// u = A v.
    fn apply(&mut self, v: &[T], u: &mut [T]) {
        self.conv.forward(v, u, &mut self.scratch);
    }

    /// v = Aᵗ u.
    fn adjoint(&mut self, u: &[T], v: &mut [T]) {
        self.conv.input_gradient(&self.adjoint_factors, u, v, &mut self.scratch);
    }

    /// The derivative of ⟨u, A v⟩ in the weight, OIHW.
    fn outer(&mut self, u: &[T], v: &[T]) -> Array4<T> {
        let mut lanes = vec![Lanes::zero(); self.conv.gradient_len()];
        self.conv.add_gradients(v, u, &mut lanes, &mut self.scratch);
        let ConvGeometry { kernel, c_out, .. } = self.conv.geometry;
        let shape = (c_out, self.conv.geometry.c_in(), kernel, kernel);
        Array4::from_shape_vec(shape, self.conv.gradients(&lanes).0)
            .expect("c_out·c_in·k·k weights")
    }
}

/// An estimated largest singular value with its vectors.
#[derive(Debug)]
struct Estimate<T> {
    image: (usize, usize),
    sigma: T,
    /// c_out x h x w.
    left: Vec<T>,
    /// c_in x h x w: where the next estimate starts.
    right: Vec<T>,
}

impl<T: Element> Estimate<T> {
    /// [`N_ITERATIONS`] of power iteration from `vector` (c_in x h x w).
    fn new(weight: ArrayView4<'_, T>, image: (usize, usize), vector: &[T]) -> Self {
        let mut operator = Operator::new(weight, image);
        let mut left = vec![T::zero(); operator.conv.geometry.output().n_values()];
        let mut right = vector.to_vec();
        let mut sigma = T::zero();
        for _ in 0..N_ITERATIONS {
            operator.apply(&right, &mut left);
            if normalise(&mut left) == T::zero() {
                // the zero operator, or a start that it does not see: no scaling, and the same start next time
                return Self { image, sigma: T::zero(), left, right: vector.to_vec() };
            }
            operator.adjoint(&left, &mut right);
            sigma = normalise(&mut right);
        }
        Self { image, sigma, left, right }
    }

    /// W / max(σ, 1).
    fn scaled(&self, weight: ArrayView4<'_, T>) -> Array4<T> {
        let factor = Float::recip(Float::max(self.sigma, T::one()));
        weight.mapv(|x| x * factor)
    }

    /// The gradient in W of a function whose gradient in the scaled weight is `d`.
    fn gradient(&self, weight: ArrayView4<'_, T>, d: ArrayView4<'_, T>) -> Array4<T> {
        if self.sigma <= T::one() {
            return d.to_owned();
        }
        let mut gradient = Operator::new(weight, self.image).outer(&self.left, &self.right);
        let inner: f64 = d.iter().zip(weight).map(|(d, w)| d.as_f64() * w.as_f64()).sum();
        let share = T::of(inner / self.sigma.as_f64());
        let factor = Float::recip(self.sigma);
        gradient.zip_mut_with(&d, |g, &d| *g = (d - share * *g) * factor);
        gradient
    }
}

/// Divides by the Euclidean norm and returns it; a zero vector stays.
fn normalise<T: Real>(values: &mut [T]) -> T {
    let view = ArrayView1::from(&*values);
    let norm = Float::sqrt(view.dot(&view));
    if norm > T::zero() {
        let factor = Float::recip(norm);
        values.iter_mut().for_each(|x| *x *= factor);
    }
    norm
}

#[cfg(test)]
mod tests {
    use ndarray::Array4;

    use super::*;

    fn weight(c_out: usize, c_in: usize, k: usize) -> Array4<f64> {
        Array4::from_shape_fn((c_out, c_in, k, k), |(o, c, i, j)| {
            let n = 31 * o + 17 * c + 7 * i + 3 * j;
            ((n * n + 5) % 23) as f64 / 23.0 - 0.4
        })
    }

    /// Enough starts one after the other for any gap that the cases have.
    fn converged(weight: &Array4<f64>, image: (usize, usize)) -> Estimate<f64> {
        let n = weight.dim().1 * image.0 * image.1;
        let start: Vec<f64> = (0..n).map(|i| ((i * i) % 11) as f64 - 4.6).collect();
        let mut ossn = Estimate::new(weight.view(), image, &start);
        for _ in 0..200 {
            ossn = Estimate::new(weight.view(), image, &ossn.right);
        }
        ossn
    }

    #[test]
    fn the_estimate_converges_to_sigma_max() {
        for (c_out, c_in, k, image) in [(3, 2, 2, (4, 5)), (2, 5, 3, (3, 6)), (4, 30, 3, (5, 5))] {
            let weight = weight(c_out, c_in, k);
            let exact =
                blockconv::spectrum::layer_singular_values(weight.view(), image).unwrap()[0];
            let estimate = converged(&weight, image).sigma;
            assert!((estimate - exact).abs() < 1e-10 * exact, "{c_out} {c_in} {k}: {estimate}");
        }
    }

    #[test]
    fn the_pullback_is_the_derivative_of_the_scaled_weight() {
        for (c_out, c_in, k, image) in [(3, 2, 2, (4, 5)), (2, 5, 3, (3, 6))] {
            let weight = weight(c_out, c_in, k);
            let (d, direction) =
                (weight.mapv(|x| (9.0 * x).sin()), weight.mapv(|x| (5.0 * x).cos()));
            let ossn = converged(&weight, image);
            assert!(ossn.sigma > 1.0);
            let gradient = ossn.gradient(weight.view(), d.view());
            // converged again at both ends: the derivative through u and v vanishes there
            let value = |t: f64| {
                let moved = &weight + &(&direction * t);
                (converged(&moved, image).scaled(moved.view()) * &d).sum()
            };
            let difference = (value(1e-6) - value(-1e-6)) / 2e-6;
            let derivative = (&gradient * &direction).sum();
            assert!(
                (difference - derivative).abs() < 1e-7 * derivative.abs().max(1.0),
                "{difference} {derivative}"
            );
        }
    }

    #[test]
    fn the_zero_weight_is_left_alone_and_keeps_its_start() {
        let zero = Array4::<f32>::zeros((2, 2, 3, 3));
        let start: Vec<f32> = (0..18).map(|i| i as f32).collect();
        let ossn = Estimate::new(zero.view(), (3, 3), &start);
        assert_eq!((ossn.sigma, &ossn.right[..]), (0.0, &start[..]));
        assert_eq!(ossn.scaled(zero.view()), zero);
        assert_eq!(ossn.gradient(zero.view(), zero.view()), zero);
    }
}
