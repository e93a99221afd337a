//! RK-L2NE: a kernel divided by a bound of its operator norm that costs two Gram matrices.
//!
//! Definition. With F the c_out x c_in·k² reshape of the weight W and ‖·‖_∞ the largest absolute row sum,
//! s = k √min(‖F Fᵗ‖_∞, ‖Fᵗ F‖_∞), and the layer's weight is W / s.
//!
//! Guarantee. ‖F‖₂² <= ‖F Fᵗ‖_∞ because a symmetric matrix has no eigenvalue above its largest row sum, and a cyclic
//! convolution on an image that its kernel fits has norm at most k ‖F‖₂: it is F applied to all k x k patches, in which every pixel
//! occurs k² times. So the exact quotient has norm at most 1 for every image size; the computed one up to rounding.
//!
//! Pullback. With φ the smaller of the two norms, attained by row r of the Gram matrix of A = F or Fᵗ, and t_j the signs
//! of that row: dφ/dA has rows t_j a_r, and Σ_j t_j a_j added to row r. The gradient in W of a function with gradient G
//! in W / s is G / s - ⟨G, W⟩ / s² · k / (2 √φ) · dφ/dW. Where rows tie, the first counts.
//!
//! Shapes. Parameter and weight OIHW; F starts as for RKO. Frozen, the weight is divided by a proven bound of its norm where
//! rounding left that above 1.
//!
//! Cost. c_out² c_in k² + c_out (c_in k²)² flops.
//!
//! Errors. A weight that is zero has no quotient; the caller turns `None` into an error.
//!
//! Source. Li et al., appendix (RK-L2NE), after Qian and Wegman (2018).

use candle_core::{D, Tensor};
use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, ArrayViewD, Axis};
use projectors::{Real, gemm};
use rand_chacha::ChaCha8Rng;

use super::arrays::{finite, flat, shaped_like, within_unit_ball};
use super::rko::Rko;
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::{Error, Result};

/// Division by a bound from row sums.
#[derive(Debug)]
pub(super) struct RkL2ne;

impl Parametrisation for RkL2ne {
    fn name(&self) -> &'static str {
        "rk-l2ne"
    }

    fn title(&self) -> &'static str {
        "RK-L2NE"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        Rko.draw(sizes, rng)
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, sizes: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        let flat = parameter.reshape((sizes.n_out, ()))?;
        let largest = |gram: Tensor| gram.abs()?.sum(D::Minus1)?.max(0);
        let by_output = largest(flat.matmul(&flat.t()?)?)?;
        let by_input = largest(flat.t()?.matmul(&flat)?)?;
        let divisor = (by_output.minimum(&by_input)?.sqrt()? * sizes.kernel as f64)?;
        Ok(parameter.broadcast_div(&divisor)?.into())
    }
}

impl<T: Element> CpuParametrisation<T> for RkL2ne {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        finite(layer, &parameter)?;
        let sums = RowSums::new(flat(&parameter), layer.sizes.kernel);
        let zero = || Error::ZeroWeight { layer: layer.name.to_owned() };
        Ok(Box::new(sums.ok_or_else(zero)?))
    }

    fn frozen(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        let assembled = self.assemble(layer, parameter.view(), Start::COLD)?;
        within_unit_ball(layer, assembled.weight(parameter))
    }
}

impl<T: Element> Assembled<T> for RowSums<T> {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        shaped_like(&parameter, self.scaled(flat(&parameter)))
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let d_weight = d_weight.as_standard_layout();
        let gradient = self.gradient(flat(&parameter), flat(&d_weight.view()));
        Ok(shaped_like(&parameter, gradient))
    }
}

/// The divisor of one kernel and where it comes from.
#[derive(Debug)]
struct RowSums<T> {
    kernel: usize,
    /// Whether the rows of A are those of F (output channels) or its columns.
    by_output: bool,
    row: usize,
    /// Signs of that row of the Gram matrix.
    signs: Array1<T>,
    /// The row sum φ.
    phi: f64,
}

impl<T: Real> RowSums<T> {
    /// The divisor of the reshaped weight F; `None` for a zero weight.
    fn new(flat: ArrayView2<'_, T>, kernel: usize) -> Option<Self> {
        let by_output = largest_row(&gemm::gram(flat.t()));
        let by_input = largest_row(&gemm::gram(flat));
        let output_side = by_output.1 <= by_input.1;
        let (row, phi, signs) = if output_side { by_output } else { by_input };
        (phi > 0.0).then_some(Self { kernel, by_output: output_side, row, signs, phi })
    }

    fn divisor(&self) -> f64 {
        self.kernel as f64 * self.phi.sqrt()
    }

    /// F / s.
    fn scaled(&self, flat: ArrayView2<'_, T>) -> Array2<T> {
        let factor = T::of(1.0 / self.divisor());
        flat.mapv(|x| x * factor)
    }

    /// The gradient in F of a function whose gradient in F / s is `d`.
    fn gradient(&self, flat: ArrayView2<'_, T>, d: ArrayView2<'_, T>) -> Array2<T> {
        let s = self.divisor();
        let inner: f64 = d.iter().zip(flat).map(|(d, w)| d.as_f64() * w.as_f64()).sum();
        // ds/dφ = k / (2 √φ) = s / (2 φ)
        let share = T::of(-inner / (s * s) * s / (2.0 * self.phi));
        let mut gradient = d.mapv(|x| x * T::of(1.0 / s));
        let (a, mut rows) = if self.by_output {
            (flat, gradient.view_mut())
        } else {
            (flat.reversed_axes(), gradient.view_mut().reversed_axes())
        };
        let chosen = a.row(self.row);
        for (mut row, &sign) in rows.axis_iter_mut(Axis(0)).zip(&self.signs) {
            row.scaled_add(share * sign, &chosen);
        }
        rows.row_mut(self.row).scaled_add(share, &a.t().dot(&self.signs));
        gradient
    }
}

/// The row of a Gram matrix with the largest absolute sum, that sum, and the row's signs.
fn largest_row<T: Real>(gram: &Array2<T>) -> (usize, f64, Array1<T>) {
    let sum = |row: ArrayView1<'_, T>| row.iter().map(|x| x.as_f64().abs()).sum::<f64>();
    let (mut best, mut phi) = (0, 0.0);
    for (index, row) in gram.rows().into_iter().enumerate() {
        let value = sum(row);
        if value > phi {
            (best, phi) = (index, value);
        }
    }
    // where the sum has a kink its slope counts as 0, as in candle and PyTorch
    let sign = |x: T| if x == T::zero() { x } else { num_traits::Float::signum(x) };
    (best, phi, gram.row(best).mapv(sign))
}
