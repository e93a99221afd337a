//! OSSN: a convolution divided by an estimate of its operator norm, from power iteration.
//!
//! Definition. Let A be the cyclic convolution with the weight W on the layer's image size, applied to vectors of the shape
//! c_in x h x w. From the vector v of the step before, ten times: u = A v / ‖A v‖, v = Aᵗ u / ‖Aᵗ u‖. Then
//! σ = ⟨u, A v⟩ = ‖Aᵗ u‖, and the layer's weight is W / max(σ, 1): a layer within the unit ball is left alone.
//!
//! Pullback. u and v count as constants, so that dσ/dW is the weight gradient D of the convolution with input v and
//! output gradient u, and the gradient in W is G / σ - ⟨G, W⟩ / σ² · D; G itself where σ <= 1.
//!
//! Guarantee. σ is an estimate from below; no bound. A frozen layer is divided by a proven one instead.
//!
//! Cost. Twenty passes of one image through the layer, and one weight gradient.
//!
//! Source. Li et al., section 5 (OSSN); Farnia, Zhang and Tse (2019); Miyato et al. (2018) for the gradient.

use ndarray::{Array4, ArrayView1, ArrayView4};
use num_traits::Float;
use projectors::{Real, gemm};

use crate::kernels::conv::{self, ConvGeometry};
use crate::shape::ImageShape;

/// Power iterations of one forward evaluation.
pub(crate) const N_ITERATIONS: usize = 10;

/// The cyclic convolution with one weight on one image size, and its adjoint.
struct Operator<T> {
    geometry: ConvGeometry,
    packed: Vec<T>,
    padded: Vec<T>,
    wide: Vec<T>,
    gathered: Vec<T>,
}

impl<T: Real> Operator<T> {
    fn new(weight: ArrayView4<'_, T>, image: (usize, usize)) -> Self {
        gemm::single_threaded_blas();
        let (c_out, c_in, kernel, _) = weight.dim();
        let input = ImageShape::new(c_in, image.0, image.1);
        let geometry = ConvGeometry { input, downsample: 1, kernel, c_out };
        let taps: Vec<T> = weight.permuted_axes([2, 3, 0, 1]).iter().copied().collect();
        let mut packed = Vec::new();
        conv::pack_weights(&geometry, &taps, &mut packed);
        Self {
            packed,
            padded: vec![T::zero(); geometry.n_padded()],
            wide: vec![T::zero(); geometry.n_wide()],
            gathered: vec![T::zero(); geometry.n_gathered()],
            geometry,
        }
    }

    /// u = A v.
    fn apply(&mut self, v: &[T], u: &mut [T]) {
        conv::pad(&self.geometry, v, &mut self.padded);
        let (padded, gathered) = (&self.padded, &mut self.gathered);
        conv::forward(&self.geometry, &self.packed, padded, gathered, &mut self.wide);
        conv::narrow(&self.geometry, &self.wide, None, u);
    }

    /// v = Aᵗ u.
    fn adjoint(&mut self, u: &[T], v: &mut [T]) {
        conv::widen(&self.geometry, u, &mut self.wide);
        let (gathered, padded) = (&mut self.gathered, &mut self.padded);
        conv::backward_input(&self.geometry, &self.packed, &self.wide, gathered, padded);
        conv::unpad(&self.geometry, &mut self.padded, v);
    }

    /// The derivative of ⟨u, A v⟩ in the weight, OIHW.
    fn outer(&mut self, u: &[T], v: &[T]) -> Array4<T> {
        conv::pad(&self.geometry, v, &mut self.padded);
        conv::widen(&self.geometry, u, &mut self.wide);
        let mut packed = vec![T::zero(); self.packed.len()];
        let (wide, gathered) = (&self.wide, &mut self.gathered);
        conv::backward_weight_add(&self.geometry, &self.padded, wide, gathered, &mut packed);
        let mut taps = vec![T::zero(); self.geometry.n_weights()];
        conv::unpack_weights_add(&self.geometry, &packed, &mut taps);
        let ConvGeometry { kernel, c_out, .. } = self.geometry;
        let shape = (kernel, kernel, c_out, self.geometry.c_in());
        let taps = Array4::from_shape_vec(shape, taps).expect("k·k·c_out·c_in weights");
        taps.permuted_axes([2, 3, 0, 1])
    }
}

/// An estimated largest singular value with its vectors.
#[derive(Debug)]
pub(crate) struct Ossn<T> {
    image: (usize, usize),
    sigma: T,
    /// c_out x h x w.
    left: Vec<T>,
    /// c_in x h x w: where the next estimate starts.
    right: Vec<T>,
}

impl<T: Real> Ossn<T> {
    /// [`N_ITERATIONS`] of power iteration from `vector` (c_in x h x w).
    pub(crate) fn estimate(weight: ArrayView4<'_, T>, image: (usize, usize), vector: &[T]) -> Self {
        let mut operator = Operator::new(weight, image);
        let mut left = vec![T::zero(); operator.geometry.output().n_values()];
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

    /// The estimate σ.
    pub(crate) fn sigma(&self) -> T {
        self.sigma
    }

    /// Where the next estimate starts.
    pub(crate) fn vector(&self) -> &[T] {
        &self.right
    }

    /// W / max(σ, 1).
    pub(crate) fn scaled(&self, weight: ArrayView4<'_, T>) -> Array4<T> {
        let factor = Float::recip(Float::max(self.sigma, T::one()));
        weight.mapv(|x| x * factor)
    }

    /// The gradient in W of a function whose gradient in the scaled weight is `d`.
    pub(crate) fn pullback(&self, weight: ArrayView4<'_, T>, d: ArrayView4<'_, T>) -> Array4<T> {
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
    fn converged(weight: &Array4<f64>, image: (usize, usize)) -> Ossn<f64> {
        let n = weight.dim().1 * image.0 * image.1;
        let start: Vec<f64> = (0..n).map(|i| ((i * i) % 11) as f64 - 4.6).collect();
        let mut ossn = Ossn::estimate(weight.view(), image, &start);
        for _ in 0..200 {
            ossn = Ossn::estimate(weight.view(), image, ossn.vector());
        }
        ossn
    }

    #[test]
    fn the_estimate_converges_to_sigma_max() {
        for (c_out, c_in, k, image) in [(3, 2, 2, (4, 5)), (2, 5, 3, (3, 6)), (4, 30, 3, (5, 5))] {
            let weight = weight(c_out, c_in, k);
            let exact =
                blockconv::spectrum::layer_singular_values(weight.view(), image).unwrap()[0];
            let estimate = converged(&weight, image).sigma();
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
            assert!(ossn.sigma() > 1.0);
            let gradient = ossn.pullback(weight.view(), d.view());
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
        let ossn = Ossn::estimate(zero.view(), (3, 3), &start);
        assert_eq!((ossn.sigma(), ossn.vector()), (0.0, &start[..]));
        assert_eq!(ossn.scaled(zero.view()), zero);
        assert_eq!(ossn.pullback(zero.view(), zero.view()), zero);
    }
}
