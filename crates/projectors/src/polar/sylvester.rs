//! The Sylvester equation A X + X A = K for symmetric positive definite A and antisymmetric K, X.
//!
//! Because A X + X A = A X - (A X)^T for antisymmetric X, applying the operator costs one product. Its condition number
//! is that of A, k = b/a for a spectrum in [a, b], and conjugate gradients gain the factor
//! r = (sqrt(k) - 1)/(sqrt(k) + 1) a step. For larger k the doubling form of Smith's method does it in fewer products:
//! with p = sqrt(ab), B = (A + pI)^-1 and C = I - 2pB, |C| = r,
//!
//! ```text
//! X = 2p sum_j C^j B K B C^j,   X <- X + C X C,   C <- C^2,
//! ```
//!
//! three products per doubling of the number of terms. With a known eigendecomposition A = V diag(a) V^T the solution is
//! V ((V^T K V)_ij / (a_i + a_j)) V^T, four products.
//!
//! Source: Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 16 (1968).

use ndarray::{Array1, Array2, ArrayView2};

use crate::{Real, dense, gemm, lapack, triangular};

/// Products that conjugate gradients may take before doubling is cheaper.
const MAX_CONJUGATE_GRADIENT_PRODUCTS: f64 = 18.0;

/// Conjugate gradients stop at this many eps of the right-hand side.
const RELATIVE_RESIDUAL: f64 = 4.0;

/// What is known of the spectrum of A.
#[derive(Debug, Clone)]
pub(super) enum Spectrum<T> {
    /// Everything: eigenvectors (columns) and eigenvalues.
    Known { v: Array2<T>, values: Array1<T> },
    /// An interval that contains it.
    Within { lowest: f64, highest: f64 },
}

/// Solves by the cheapest method for an A with spectrum in `[lowest, highest]`, to working precision.
///
/// A and K are brought to ordinary size first, so that sums of squares neither overflow nor vanish.
pub(super) fn solve<T: Real>(
    a: ArrayView2<'_, T>,
    mut k: Array2<T>,
    lowest: f64,
    highest: f64,
) -> Array2<T> {
    let middle = lowest.sqrt() * highest.sqrt();
    let (Some(k_scale), a_scale) = (dense::unit_scale(k.view()), T::of(1.0 / middle)) else {
        return k;
    };
    k.mapv_inplace(|x| x * k_scale);
    let mut x = solve_scaled(a.mapv(|x| x * a_scale).view(), k, lowest / middle, highest / middle);
    let scale = a_scale / k_scale;
    x.mapv_inplace(|x| x * scale);
    x
}

fn solve_scaled<T: Real>(
    a: ArrayView2<'_, T>,
    k: Array2<T>,
    lowest: f64,
    highest: f64,
) -> Array2<T> {
    let root = (highest / lowest).sqrt();
    let rate = (root - 1.0) / (root + 1.0);
    let n_products = (1.0 / T::EPS).ln() / -(rate.max(1e-6)).ln();
    if n_products <= MAX_CONJUGATE_GRADIENT_PRODUCTS {
        conjugate_gradients(a, k, n_products.ceil() as usize + 4)
    } else {
        doubling(a, &k, lowest, highest)
            .unwrap_or_else(|| conjugate_gradients(a, k, 4 * n_products.ceil() as usize))
    }
}

/// Solves with the eigendecomposition of A.
pub(super) fn solve_diagonalised<T: Real>(
    v: ArrayView2<'_, T>,
    values: &Array1<T>,
    k: ArrayView2<'_, T>,
) -> Array2<T> {
    let mut x = gemm::matmul(gemm::matmul(v.t(), k).view(), v);
    for ((i, j), x) in x.indexed_iter_mut() {
        *x /= values[i] + values[j];
    }
    gemm::matmul(gemm::matmul(v, x.view()).view(), v.t())
}

fn conjugate_gradients<T: Real>(a: ArrayView2<'_, T>, k: Array2<T>, max_steps: usize) -> Array2<T> {
    let mut x = Array2::zeros(k.dim());
    let mut residual = k;
    let mut direction = residual.clone();
    let mut square = dense::inner(&residual, &residual);
    let small = square * (RELATIVE_RESIDUAL * T::EPS).powi(2);
    let mut image = Array2::zeros(x.dim());
    for _ in 0..max_steps {
        gemm::matmul_into(T::one(), a, direction.view(), T::zero(), image.view_mut());
        dense::skew_part_doubled(&mut image);
        let curvature = dense::inner(&direction, &image);
        if curvature <= 0.0 || curvature.is_nan() {
            break;
        }
        let step = T::of(square / curvature);
        dense::update(&mut x, &direction, |x, d| x + step * d);
        dense::update(&mut residual, &image, |r, i| r - step * i);
        let next = dense::inner(&residual, &residual);
        if next <= small {
            break;
        }
        let ratio = T::of(next / square);
        dense::update(&mut direction, &residual, |d, r| r + ratio * d);
        square = next;
    }
    x
}

/// Smith's method with squaring; `None` if A + pI has no Cholesky factor.
fn doubling<T: Real>(
    a: ArrayView2<'_, T>,
    k: &Array2<T>,
    lowest: f64,
    highest: f64,
) -> Option<Array2<T>> {
    let shift = (lowest * highest).sqrt();
    let mut shifted = a.to_owned();
    dense::add_diagonal(&mut shifted, T::of(shift));
    let mut l = lapack::cholesky(shifted.view())?;
    triangular::invert_lower(l.view_mut());
    let inverse = gemm::gram(l.view());
    let mut x = gemm::matmul(gemm::matmul(inverse.view(), k.view()).view(), inverse.view());
    dense::scale(&mut x, 2.0 * shift);
    let mut c = dense::scaled(inverse.view(), -2.0 * shift);
    dense::add_diagonal(&mut c, T::one());
    let root = (highest / lowest).sqrt();
    let mut rate = (root - 1.0) / (root + 1.0);
    // After the terms below index N the rest is rate^(2N) of the whole.
    while rate * rate > T::EPS / 4.0 {
        let cx = gemm::matmul(c.view(), x.view());
        gemm::matmul_into(T::one(), cx.view(), c.view(), T::one(), x.view_mut());
        c = gemm::gram(c.view());
        rate *= rate;
    }
    dense::skew_part_doubled(&mut x);
    dense::scale(&mut x, 0.5);
    Some(x)
}
