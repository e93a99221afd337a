//! Spectral norms: a proven upper bound, and an estimate.
//!
//! |W|_2 = sqrt(lambda_max(W^T W)). The bound holds for the numbers stored in W, with every rounding accounted for:
//!
//! 1. W = 2^e A with entries of A below 2, exactly. The Gram matrix of A on its small side is computed in `f64`; its
//!    rounding error satisfies |fl(A^T A) - A^T A| <= gamma_m |A|^T |A| entrywise for any order of summation and with
//!    or without fused operations, hence in norm <= gamma_m |A|_F^2.
//! 2. lambda_max of the computed Gram matrix G is bounded. Near a multiple of an isometry, lambda_max <= c + |G - cI|_F
//!    is sharp. Otherwise an estimate mu is shifted up and proven by a Cholesky factorisation of mu I - G that runs
//!    to completion (see [`definite`]).
//! 3. Square root and scaling are rounded up.
//!
//! Domain: any matrix of finite entries, of any scale including subnormal numbers; zero and empty matrices have
//! bound 0. Guarantee: bound >= |W|_2; the relative excess is about 1e-7 near an isometry and at most 1e-4 elsewhere
//! (gamma_m and n limit it for sizes beyond 1e5). Cost: m n^2 flops for the Gram matrix, n^3 / 3 for the proof.
//! Errors: [`crate::Error::NonFinite`]; [`crate::Error::InvalidBound`] where the norm itself exceeds the largest `f64`.
//!
//! Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.5 and Theorem 10.3; Rump,
//! "Verification of positive definiteness", BIT 46 (2006).

pub mod definite;

use ndarray::{Array2, ArrayView2};

use crate::error::Result;
use crate::rounding::{add_up, div_up, gamma, mul_up, sqrt_up, sub_down, sub_up, sum_up};
use crate::{LipschitzBound, Real, dense, gemm, lanczos, lapack};

/// Lanczos steps behind an estimate.
const LANCZOS_STEPS: usize = 80;
/// Relative excess of `c + |G - cI|_F` below which it is taken as the bound of `lambda_max`.
const SHARP: f64 = 1e-7;
/// Relative shifts of the estimate tried in turn; the bound of the norm exceeds it by half as much.
const SHIFTS: [f64; 4] = [2e-11, 1e-8, 1e-6, 1e-4];

/// A proven upper bound of the spectral norm of the stored matrix.
///
/// # Errors
/// [`crate::Error::NonFinite`], and [`crate::Error::InvalidBound`] if the norm overflows.
///
/// ```
/// use projectors::norms::spectral_norm_bound;
/// let bound = spectral_norm_bound(ndarray::array![[3.0, 0.0], [4.0, 0.0]].view())?;
/// assert!(bound.is_rigorous() && bound.value() >= 5.0 && bound.value() < 5.0 + 1e-6);
/// assert!(spectral_norm_bound(ndarray::array![[f64::NAN]].view()).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn spectral_norm_bound<T: Real>(w: ArrayView2<'_, T>) -> Result<LipschitzBound> {
    dense::check_finite("matrix", w)?;
    let Some((a, exponent)) = scaled_to_unit(w) else {
        return LipschitzBound::exact(0.0);
    };
    let square = gram_norm_bound(&a)?;
    LipschitzBound::upper_bound(scale_up(sqrt_up(square), exponent))
}

/// An estimate of the spectral norm, from below up to rounding.
///
/// # Errors
/// [`crate::Error::NonFinite`], [`crate::Error::InvalidBound`] if the norm overflows, [`crate::Error::Lapack`].
pub fn spectral_norm_estimate<T: Real>(w: ArrayView2<'_, T>) -> Result<LipschitzBound> {
    dense::check_finite("matrix", w)?;
    let Some((a, exponent)) = scaled_to_unit(w) else {
        return LipschitzBound::estimate(0.0);
    };
    let highest =
        lanczos::extreme_eigenvalues(gemm::gram(a.view()).view(), 1e-7, LANCZOS_STEPS)?.highest;
    LipschitzBound::estimate(scale_up(highest.max(0.0).sqrt(), exponent))
}

/// `w = 2^exponent a` exactly (up to underflow far below the largest entry), a tall or square, its largest entry in
/// [1, 2); `None` for a matrix without nonzero entries.
fn scaled_to_unit<T: Real>(w: ArrayView2<'_, T>) -> Option<(Array2<f64>, i32)> {
    let largest = dense::largest_magnitude(w);
    if largest == 0.0 {
        return None;
    }
    let exponent = dense::exponent(largest);
    // Two factors, because 2^1074 is not a number.
    let (half, rest) = (-exponent / 2, -exponent - -exponent / 2);
    let (first, second) = (f64::powi(2.0, half), f64::powi(2.0, rest));
    let tall = if w.nrows() < w.ncols() { w.t() } else { w };
    Some((tall.mapv(|x| x.as_f64() * first * second), exponent))
}

/// `2^exponent x` rounded up; infinite when it overflows.
fn scale_up(x: f64, exponent: i32) -> f64 {
    let (half, rest) = (exponent / 2, exponent - exponent / 2);
    mul_up(mul_up(x, f64::powi(2.0, half)), f64::powi(2.0, rest))
}

/// An upper bound of `lambda_max(A^T A)` for a tall matrix with largest entry in [1, 2).
fn gram_norm_bound(a: &Array2<f64>) -> Result<f64> {
    let (m, n) = a.dim();
    let g = gemm::gram(a.view());
    // trace(A^T A) = |A|_F^2, and the computed trace is too small by at most the factor 1 - gamma_m.
    let trace = sum_up(g.diag().iter().copied());
    // Products below the normal range, and entries lost in scaling, each cost less than the smallest normal number
    // times the largest entry.
    let underflow = mul_up(8.0 * f64::MIN_POSITIVE, mul_up(m as f64, n as f64));
    let frobenius_square = add_up(div_up(trace, sub_down(1.0, gamma(m))), underflow);
    let rounding = add_up(mul_up(gamma(m), frobenius_square), underflow);
    Ok(add_up(largest_eigenvalue_bound(&g)?, rounding).min(frobenius_square))
}

/// An upper bound of the largest eigenvalue of an exactly symmetric matrix with positive trace.
fn largest_eigenvalue_bound(g: &Array2<f64>) -> Result<f64> {
    let centred = centred_bound(g);
    let n = g.nrows();
    let mean = g.diag().sum() / n as f64;
    if centred <= mean * (1.0 + SHARP) {
        return Ok(centred);
    }
    let crude = centred.min(max_row_sum_up(g));
    let ends = lanczos::extreme_eigenvalues(g.view(), 1e-7, LANCZOS_STEPS)?;
    let proven = |estimate: f64, uncertainty: f64| {
        let shifts = SHIFTS.iter().filter(|&&shift| shift >= uncertainty);
        shifts
            .into_iter()
            .find_map(|shift| definite::eigenvalue_bound(g.view(), estimate * (1.0 + shift)))
    };
    // The error of a Ritz value is about the square of its residual.
    let uncertainty = (ends.highest_residual / ends.highest).powi(2);
    if let Some(bound) = proven(ends.highest, uncertainty) {
        return Ok(bound.min(crude));
    }
    // The start vector missed the top eigenvector: take the estimate from a full decomposition.
    let (eigenvalues, _) = lapack::eigh(g.view())?;
    Ok(proven(eigenvalues[n - 1], 0.0).map_or(crude, |bound| bound.min(crude)))
}

/// `c + |G - cI|_F >= lambda_max(G)`, with c the mean of the diagonal.
fn centred_bound(g: &Array2<f64>) -> f64 {
    let centre = g.diag().sum() / g.nrows() as f64;
    let square = g.indexed_iter().map(|((i, j), &x)| {
        // The larger of both roundings of |x - c| bounds it.
        let deviation =
            if i == j { sub_up(x, centre).abs().max(sub_up(centre, x).abs()) } else { x };
        mul_up(deviation, deviation)
    });
    add_up(centre, sqrt_up(sum_up(square)))
}

/// The largest absolute row sum, rounded up.
fn max_row_sum_up(g: &Array2<f64>) -> f64 {
    g.rows().into_iter().map(|row| sum_up(row.iter().map(|x| x.abs()))).fold(0.0, f64::max)
}
