//! Björck orthonormalisation of first and higher order.
//!
//! For W (m x n, tall or square; a wide W is treated as its transpose) of norm |W|_2 <= 1 and E = I - W^T W,
//!
//! ```text
//! W <- W (I + 1/2 E + 3/8 E^2 + ... + c_p E^p),   c_j = (2j - 1)/(2j) c_{j-1},
//! ```
//!
//! the order-p truncation of W (W^T W)^-1/2, converges to the polar factor of W with order p + 1. Order 1 is
//! W <- W (3/2 I - 1/2 W^T W), i.e. `(1 + beta) W - beta W W^T W` with beta = 1/2. A small singular value s grows
//! only by the factor 1 + 1/2 + ... + c_p a step (1.5 for order 1), so that a fixed number of steps does not
//! orthonormalise an ill-conditioned matrix: here the iteration stops on the measured defect |W^T W - I|_F.
//!
//! Every iterate is W p(G), G = W^T W, with commuting symmetric p(G). The iteration therefore runs on the small side
//! (n x n), and one final product gives the result. When the product shows a defect above the tolerance, because
//! forming G squares the condition number, the iteration is finished on the full side.
//!
//! W is scaled first by a proven upper bound of its norm, so the iteration cannot diverge; the scaling does not change
//! the polar factor. The bound is the smaller of the row-sum and Frobenius norms of the Gram matrix, rounding included.
//!
//! Guarantee: `residual` is measured on the returned matrix and is <= the tolerance. Cost: one Gram matrix, p + 2
//! products of n x n per iteration, one product m x n x n, and one Gram matrix to measure the defect.
//! Errors: [`Error::NonFinite`], [`Error::Empty`], [`Error::RankDeficient`], [`Error::NotConverged`],
//! [`Error::InvalidSetting`].
//!
//! Source: Björck and Bowie, "An iterative algorithm for computing the best estimate of an orthogonal matrix", SIAM J.
//! Numer. Anal. 8 (1971); Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation" (2019).
//! Not here: the polar factor to working precision for any conditioning, in [`crate::polar`].

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::gemm::oriented_product;
use crate::{Real, dense, gemm, lanczos, lapack, rounding, tolerance};

/// Settings of [`bjorck`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BjorckConfig {
    /// Order p >= 1 of the truncation; each step converges with order p + 1.
    pub order: usize,
    /// Largest accepted `|W^T W - I|_F`; `None` for [`tolerance::orthonormal`].
    pub tolerance: Option<f64>,
    /// Largest number of steps, on both sides together.
    pub max_iterations: usize,
}

impl Default for BjorckConfig {
    fn default() -> Self {
        Self { order: 1, tolerance: None, max_iterations: 100 }
    }
}

impl BjorckConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for order 0 or a tolerance that is not positive.
    pub fn validate(&self) -> Result<()> {
        if self.order == 0 {
            return Err(Error::InvalidSetting {
                name: "order",
                value: 0.0,
                expected: "an order of at least 1",
            });
        }
        match self.tolerance {
            Some(value) if !(value > 0.0 && value.is_finite()) => Err(Error::InvalidSetting {
                name: "tolerance",
                value,
                expected: "a positive finite number",
            }),
            _ => Ok(()),
        }
    }
}

/// A matrix with orthonormal columns (rows if wide), and how it was reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Orthonormalised<T> {
    /// The result, of the shape of the argument.
    pub matrix: Array2<T>,
    /// Steps taken.
    pub iterations: usize,
    /// `|W^T W - I|_F` measured on the result (`W W^T` if wide).
    pub residual: f64,
}

/// Orthonormalises W (m x n) by the Björck iteration.
///
/// # Errors
/// [`Error::NonFinite`], [`Error::Empty`], [`Error::InvalidSetting`]; [`Error::RankDeficient`] when W has a singular
/// value that is zero to rounding, so that no polar factor exists; [`Error::NotConverged`] when the steps run out.
///
/// ```
/// use projectors::bjorck::{BjorckConfig, bjorck};
/// let result = bjorck(ndarray::array![[3.0, 0.0], [0.0, -0.5], [0.0, 0.0]].view(), &BjorckConfig::default())?;
/// assert!(result.residual < 1e-14 && (result.matrix[[1, 1]] + 1.0_f64).abs() < 1e-14);
/// assert!(bjorck(ndarray::array![[1.0, 1.0], [1.0, 1.0]].view(), &BjorckConfig::default()).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn bjorck<T: Real>(w: ArrayView2<'_, T>, config: &BjorckConfig) -> Result<Orthonormalised<T>> {
    config.validate()?;
    dense::check_not_empty("matrix", w)?;
    dense::check_finite("matrix", w)?;
    if w.nrows() < w.ncols() {
        let mut result = bjorck_tall(w.t(), config)?;
        result.matrix = result.matrix.reversed_axes();
        return Ok(result);
    }
    bjorck_tall(w, config)
}

/// The plain recurrence, `n` steps of order 1 on the full side without scaling or check.
///
/// What fixed-count implementations in the literature compute; for comparison with them.
#[must_use]
pub fn bjorck_iterations<T: Real>(w: ArrayView2<'_, T>, n: usize) -> Array2<T> {
    if w.nrows() < w.ncols() {
        return bjorck_iterations(w.t(), n).reversed_axes();
    }
    let mut x = w.to_owned();
    for _ in 0..n {
        let step = step_polynomial(gemm::gram(x.view()), 1);
        x = gemm::matmul(x.view(), step.view());
    }
    x
}

fn bjorck_tall<T: Real>(w: ArrayView2<'_, T>, config: &BjorckConfig) -> Result<Orthonormalised<T>> {
    let (m, n) = w.dim();
    let tolerance = config.tolerance.unwrap_or_else(|| tolerance::orthonormal::<T>(m, n));
    let deficient = Error::RankDeficient { what: "matrix", rank: 0, expected: n };
    let scale = dense::unit_scale(w).ok_or(deficient)?;
    if scale != T::one() {
        return bjorck_tall(w.mapv(|x| x * scale).view(), config);
    }
    let gram = gemm::gram(w);
    // The factor is rounded down, so that the scaled norm stays at or below one.
    let factor = T::of(rounding::div_down(1.0 - 2.0 * T::EPS, norm_bound(&gram, m)));
    let small = small_side(gram.mapv(|x| x * factor * factor), config, tolerance)?;
    let matrix = match small.factor {
        Some(p) => oriented_product(w, dense::scaled(p.view(), factor.as_f64()).view()),
        // The Gram matrix does not tell: the iteration starts over on the full side, unless there is nothing to find.
        // Rounding noise in place of a zero singular value would be orthonormalised like anything else.
        None => {
            let rank = lapack::numerical_rank(w)?;
            if rank < n {
                return Err(Error::RankDeficient { what: "matrix", rank, expected: n });
            }
            dense::scaled(w, factor.as_f64())
        }
    };
    full_side(matrix, small.iterations, config, tolerance)
}

/// A proven upper bound of |W|_2 from the computed Gram matrix of the m x n matrix W.
fn norm_bound<T: Real>(gram: &Array2<T>, m: usize) -> f64 {
    let gamma = rounding::gamma_for(m, T::EPS / 2.0);
    let trace = rounding::sum_up(gram.diag().iter().map(|x| x.as_f64()));
    // |fl(W^T W) - W^T W|_2 <= gamma_m |W|_F^2, and |W|_F^2 <= trace / (1 - gamma_m).
    let frobenius_square = rounding::div_up(trace, rounding::sub_down(1.0, gamma));
    let slack = 1.0 + 1e-9;
    let crude = dense::max_row_sum(gram.view()).min(dense::frobenius(gram.view())) * slack;
    let square = rounding::add_up(crude, rounding::mul_up(gamma, frobenius_square));
    rounding::sqrt_up(square.min(frobenius_square))
}

/// Where the small-side iteration ended.
struct SmallSide<T> {
    /// `p(G)`, or `None` when it did not converge or G does not determine it well enough.
    factor: Option<Array2<T>>,
    iterations: usize,
}

/// Runs `S <- S T`, `M <- T M T` with `M = S G S` until `|M - I|_F <= tolerance`.
fn small_side<T: Real>(
    mut m: Array2<T>,
    config: &BjorckConfig,
    tolerance: f64,
) -> Result<SmallSide<T>> {
    let mut factor: Option<Array2<T>> = None;
    for iterations in 0..=config.max_iterations {
        if dense::distance_to_identity(m.view()) <= tolerance {
            let factor = factor.unwrap_or_else(|| Array2::eye(m.nrows()));
            // |S|_2^2 = 1 / sigma_min^2 multiplies the rounding error of G in the polar direction.
            let amplification =
                lanczos::extreme_eigenvalues(factor.view(), 0.5, 12)?.highest.powi(2);
            let trusted = amplification * T::EPS <= tolerance.max(64.0 * T::EPS);
            return Ok(SmallSide {
                factor: trusted.then_some(factor),
                iterations: if trusted { iterations } else { 0 },
            });
        }
        if iterations == config.max_iterations {
            break;
        }
        let step = step_polynomial(m.clone(), config.order);
        m = gemm::matmul(gemm::matmul(step.view(), m.view()).view(), step.view());
        factor = Some(match factor {
            Some(s) => gemm::matmul(s.view(), step.view()),
            None => step,
        });
    }
    Ok(SmallSide { factor: None, iterations: 0 })
}

/// Steps on the full side until the measured defect is within the tolerance.
fn full_side<T: Real>(
    mut matrix: Array2<T>,
    done: usize,
    config: &BjorckConfig,
    tolerance: f64,
) -> Result<Orthonormalised<T>> {
    let mut iterations = done;
    loop {
        let gram = gemm::gram(matrix.view());
        let residual = dense::distance_to_identity(gram.view());
        if residual <= tolerance {
            return Ok(Orthonormalised { matrix, iterations, residual });
        }
        if iterations >= config.max_iterations || !residual.is_finite() {
            let method = "bjorck iteration";
            return Err(Error::NotConverged { method, iterations, residual, tolerance });
        }
        matrix = gemm::matmul(matrix.view(), step_polynomial(gram, config.order).view());
        iterations += 1;
    }
}

/// `I + c_1 E + ... + c_p E^p` for `E = I - M`, by Horner's rule.
fn step_polynomial<T: Real>(m: Array2<T>, order: usize) -> Array2<T> {
    let mut e = m;
    e.mapv_inplace(|x| -x);
    dense::add_diagonal(&mut e, T::one());
    let coefficients = coefficients(order);
    let mut sum = dense::scaled(e.view(), coefficients[order]);
    dense::add_diagonal(&mut sum, T::of(coefficients[order - 1]));
    for &c in coefficients[..order - 1].iter().rev() {
        sum = gemm::matmul(sum.view(), e.view());
        dense::add_diagonal(&mut sum, T::of(c));
    }
    sum
}

/// `c_0 = 1, c_j = c_{j-1} (2j - 1) / (2j)`, the Taylor coefficients of `(1 - x)^-1/2`.
fn coefficients(order: usize) -> Vec<f64> {
    let mut c = vec![1.0];
    for j in 1..=order {
        c.push(c[j - 1] * (2 * j - 1) as f64 / (2 * j) as f64);
    }
    c
}
