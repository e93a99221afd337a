//! The bound on one image size: every frequency certified by a Cholesky factor whose residual is measured.

use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, ArrayView4, Axis, concatenate, stack};
use ndarray_linalg::{Cholesky, EigValsh, UPLO, c64};
use projectors::rounding::{UNIT_ROUNDOFF, add_up, gamma, mul_up, sqrt_up, sum_up};
use projectors::{LipschitzBound, Real, gemm};

use super::every_size;
use super::upper::{self, Scaled, UNDERFLOW};
use crate::check;
use crate::error::Result;
use crate::frequency::{Frequency, Grid, Symbol};
use crate::hermitian::Gram;
use crate::spectrum::lapack_error;

/// How far above an estimate of the largest eigenvalue a certificate is tried.
const MARGIN: f64 = 4e-5;

/// Power iterations for that estimate.
const POWER_STEPS: usize = 24;

/// √2 rounded to nearest, which is upwards.
const SQRT_2_UP: f64 = std::f64::consts::SQRT_2;

/// The error of a product of two twiddle factors (7).
const TWIDDLE_ERROR: f64 = 256.0 * UNIT_ROUNDOFF;

/// An upper bound of the operator norm of the cyclic convolution with an OIHW layer weight on h x w images.
///
/// Rigorous for the stored numbers, and within about 2e-5 relative for every kernel, orthogonal or not.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty), [`Error::NonFinite`](crate::Error::NonFinite),
/// [`Error::KernelExceedsImage`](crate::Error::KernelExceedsImage), [`Error::Overflow`](crate::Error::Overflow),
/// [`Error::Lapack`](crate::Error::Lapack).
///
/// # Example
/// ```
/// use blockconv::bounds::cyclic_norm_bound_on;
/// use ndarray::array;
///
/// // a difference filter: its norm is 2 on even widths, 2 cos(π / 10) on width 5
/// let difference = array![[[[1.0, -1.0]]]];
/// let odd = cyclic_norm_bound_on(difference.view(), (1, 5)).unwrap().value();
/// let exact = 2.0 * (std::f64::consts::PI / 10.0).cos();
/// assert!(odd >= exact && odd < exact * (1.0 + 1e-4));
/// assert!(cyclic_norm_bound_on(difference.view(), (1, 1)).is_err());
/// ```
pub fn cyclic_norm_bound_on<T: Real>(
    weight: ArrayView4<'_, T>,
    size: (usize, usize),
) -> Result<LipschitzBound> {
    let (_, _, kh, kw) = weight.dim();
    check::fits_image(&[kh, kw], &[size.0, size.1])?;
    match Scaled::of_weight(weight)? {
        None => upper::zero(),
        Some(scaled) => {
            let bound = norm_on(&scaled, size)?.min(every_size::norm_of(&scaled));
            scaled.restore(bound)
        }
    }
}

fn norm_on(scaled: &Scaled, size: (usize, usize)) -> Result<f64> {
    gemm::single_threaded_blas();
    let (grid, taps) = (Grid::new(size), &scaled.taps);
    let mut pending = grid.frequencies();
    let estimates = pending.par_iter().map(|&f| power_estimate(&grid.symbol(taps, f)));
    let mut mu = estimates.collect::<Vec<_>>().into_iter().fold(0.0, f64::max);
    let mut worst = 0.0_f64;
    while !pending.is_empty() {
        mu *= 1.0 + MARGIN;
        let tried: Vec<_> =
            pending.par_iter().map(|&f| certify(&grid.symbol(taps, f), f, mu)).collect();
        let mut failed = Vec::new();
        for (&frequency, outcome) in pending.iter().zip(tried) {
            match outcome? {
                Outcome::Bounded(squared) => worst = worst.max(squared),
                Outcome::Exceeded(lambda) => {
                    failed.push(frequency);
                    mu = mu.max(lambda);
                }
            }
        }
        pending = failed;
    }
    let symbol = sqrt_up(add_up(worst, UNDERFLOW));
    Ok(add_up(symbol, symbol_error(scaled)))
}

/// ε_A of step 7.
fn symbol_error(scaled: &Scaled) -> f64 {
    let (kh, kw, ..) = scaled.taps.dim();
    let per_tap = scaled
        .taps
        .outer_iter()
        .flat_map(|row| row.outer_iter().map(|x| upper::frobenius(&x)).collect::<Vec<_>>());
    let relative = add_up(mul_up(gamma(kh * kw + 1), add_up(1.0, TWIDDLE_ERROR)), TWIDDLE_ERROR);
    mul_up(mul_up(SQRT_2_UP, relative), sum_up(per_tap))
}

/// A lower estimate of λ_max(A* A) by power iteration from a fixed vector.
fn power_estimate(symbol: &Symbol) -> f64 {
    let n = symbol.n_in();
    let (z, turned) = (symbol.stacked(), symbol.turned());
    // fixed and without symmetry: an unlucky start costs a second round, not correctness
    let mut x =
        Array2::from_shape_fn((n, 2), |(i, part)| 1.0 + ((i * (7 + 4 * part)) % 13) as f64 / 13.0);
    let mut lambda = 0.0;
    for _ in 0..POWER_STEPS {
        let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
        x.mapv_inplace(|v| v / norm);
        // A x = Z a - W b in stacked form, for x = a + ib and W = [Im; -Re] the stack of -i A
        let (a, b) = (x.column(0), x.column(1));
        let y = z.dot(&a) - turned.dot(&b);
        let next = columns(&z.t().dot(&y), &turned.t().dot(&y).mapv(|v| -v));
        lambda = y.iter().map(|v| v * v).sum::<f64>();
        if lambda == 0.0 {
            break;
        }
        x = next;
    }
    lambda
}

fn columns(a: &Array1<f64>, b: &Array1<f64>) -> Array2<f64> {
    stack![Axis(1), *a, *b]
}

/// What trying to certify λ_max <= μ came to.
enum Outcome {
    /// ‖Â‖₂² is at most this.
    Bounded(f64),
    /// λ_max is above μ, about this.
    Exceeded(f64),
}

/// Steps 8 and 9 for one frequency.
fn certify(symbol: &Symbol, frequency: Frequency, mu: f64) -> Result<Outcome> {
    let real = frequency.multiplicity == 1;
    let energy = upper::frobenius(&symbol.stacked());
    let energy = mul_up(energy, energy);
    let rows = symbol.stacked().nrows();
    let gram_error = sum_up([mul_up(SQRT_2_UP, mul_up(gamma(rows), energy)), UNDERFLOW]);
    let residual = if real { real_residual(symbol, mu) } else { complex_residual(symbol, mu) };
    match residual {
        Ok(residual) => Ok(Outcome::Bounded(sum_up([mu, residual, gram_error]))),
        Err(lambda) => {
            Ok(Outcome::Exceeded(lambda.map_err(|source| lapack_error(frequency, &source))?))
        }
    }
}

/// ‖E‖_F, or the largest eigenvalue where there is no Cholesky factor.
type Residual =
    std::result::Result<f64, std::result::Result<f64, ndarray_linalg::error::LinalgError>>;

fn real_residual(symbol: &Symbol, mu: f64) -> Residual {
    let gram = gemm::gram(symbol.re());
    let mut target = gram.mapv(|x| -x);
    target.diag_mut().iter_mut().for_each(|x| *x += mu);
    let Ok(l) = target.cholesky(UPLO::Lower) else {
        return Err(gram.eigvalsh(UPLO::Lower).map(|lambda| lambda[lambda.len() - 1]));
    };
    let product = gemm::gram(l.t());
    Ok(residual_norm(&target, &(&target - &product), &l, gamma(l.nrows())))
}

fn complex_residual(symbol: &Symbol, mu: f64) -> Residual {
    let gram = Gram::of(symbol).to_hermitian();
    let mut target = gram.mapv(|x| -x);
    target.diag_mut().iter_mut().for_each(|x| *x += mu);
    let Ok(l) = target.cholesky(UPLO::Lower) else {
        return Err(gram.eigvalsh(UPLO::Lower).map(|lambda| lambda[lambda.len() - 1]));
    };
    // L L* = (Lᵗ)ᵗ conj(Lᵗ) in real parts: Re = [R J][R J]ᵗ, Im = [R J][-J R]ᵗ read as J Rᵗ - R Jᵗ
    let (r, j) = (l.mapv(|x| x.re), l.mapv(|x| x.im));
    let stack = |a: &Array2<f64>, b: &Array2<f64>| concatenate![Axis(1), *a, *b];
    let both = stack(&r, &j);
    let turned = stack(&j, &r.mapv(|x| -x));
    let re = gemm::gram(both.t());
    let im = gemm::matmul(turned.view(), both.t());
    let parts = |m: &Array2<c64>| stack(&m.mapv(|x| x.re), &m.mapv(|x| x.im));
    let target = parts(&target);
    let residual = &target - &stack(&re, &im);
    Ok(residual_norm(&target, &residual, &both, mul_up(SQRT_2_UP, gamma(both.ncols()))))
}

/// ‖E‖_F from its computed value, with the rounding of L L* and of the two subtractions.
fn residual_norm(
    target: &Array2<f64>,
    residual: &Array2<f64>,
    l: &Array2<f64>,
    product_error: f64,
) -> f64 {
    let (target, residual, l) =
        (upper::frobenius(target), upper::frobenius(residual), upper::frobenius(l));
    let subtractions = mul_up(2.0 * UNIT_ROUNDOFF, add_up(target, residual));
    sum_up([residual, subtractions, mul_up(product_error, mul_up(l, l)), UNDERFLOW])
}

#[cfg(test)]
mod tests {
    use projectors::rounding::mul_down;

    #[test]
    fn the_constant_is_not_below_the_square_root_of_two() {
        assert!(mul_down(super::SQRT_2_UP, super::SQRT_2_UP) >= 2.0);
    }
}
