//! The bound on one image size: every frequency certified by a Cholesky factor whose residual is measured.

use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, Array4, ArrayView4, Axis, concatenate, stack};
use ndarray_linalg::{Cholesky, UPLO, c64};
use projectors::rounding::{UNIT_ROUNDOFF, add_up, gamma, mul_up, sqrt_up, sum_up};
use projectors::{LipschitzBound, Real, gemm};

use super::every_size;
use super::upper::{self, Scaled, UNDERFLOW};
use crate::check;
use crate::error::Result;
use crate::frequency::{Frequency, Grid, Symbol};
use crate::hermitian::{self, Gram};
use crate::spectrum::lapack_error;

/// How far above an estimate of the largest eigenvalue a certificate is tried.
const MARGIN: f64 = 4e-5;

/// Power iterations that rank the frequencies by their norm.
const POWER_STEPS: usize = 12;

/// How many of the first in rank are decomposed to estimate the largest norm of all.
const LEADERS: usize = 8;

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
    let mut mu = largest_eigenvalue(&grid, taps, &pending)?;
    let mut worst = 0.0_f64;
    while !pending.is_empty() {
        mu *= 1.0 + MARGIN;
        let try_one =
            |&frequency: &Frequency| certify(&grid.symbol(taps, frequency), frequency, mu);
        let outcomes: Vec<_> = pending.par_iter().with_max_len(1).map(try_one).collect();
        let mut failed = Vec::new();
        for (&frequency, outcome) in pending.iter().zip(outcomes) {
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

/// An estimate from below of the largest eigenvalue of the Gram matrices: power iteration everywhere, and a
/// decomposition where that gives the largest values.
fn largest_eigenvalue(grid: &Grid, taps: &Array4<f64>, frequencies: &[Frequency]) -> Result<f64> {
    let estimate =
        |&frequency: &Frequency| (power_estimate(&grid.symbol(taps, frequency)), frequency);
    let mut estimates: Vec<_> = frequencies.par_iter().with_max_len(1).map(estimate).collect();
    estimates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let leaders = &estimates[..estimates.len().min(LEADERS)];
    let exact: Result<Vec<f64>> =
        leaders.par_iter().with_max_len(1).map(|&(_, f)| squared_norm(grid, taps, f)).collect();
    Ok(exact?.into_iter().fold(0.0, f64::max))
}

/// ‖Â‖₂² by a singular value decomposition: an estimate to rounding.
fn squared_norm(grid: &Grid, taps: &Array4<f64>, frequency: Frequency) -> Result<f64> {
    norm_estimate(&grid.symbol(taps, frequency), frequency)
}

fn norm_estimate(symbol: &Symbol, frequency: Frequency) -> Result<f64> {
    let sigma = hermitian::singular_values(symbol, frequency.multiplicity == 1);
    sigma.map(|sigma| sigma[0] * sigma[0]).map_err(|source| lapack_error(frequency, &source))
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
    let residual = if real { real_residual(symbol, mu) } else { complex_residual(symbol, mu) };
    let Some(residual) = residual else {
        return Ok(Outcome::Exceeded(norm_estimate(symbol, frequency)?));
    };
    let energy = upper::frobenius(&symbol.stacked());
    let rounding = mul_up(SQRT_2_UP, gamma(symbol.stacked().nrows()));
    let gram_error = mul_up(rounding, mul_up(energy, energy));
    Ok(Outcome::Bounded(sum_up([mu, residual, gram_error, UNDERFLOW])))
}

/// ‖E‖_F for a real symbol; `None` where there is no Cholesky factor.
fn real_residual(symbol: &Symbol, mu: f64) -> Option<f64> {
    let mut target = gemm::gram(symbol.re()).mapv_into(|x| -x);
    target.diag_mut().iter_mut().for_each(|x| *x += mu);
    let l = target.cholesky(UPLO::Lower).ok()?;
    let residual = &target - &gemm::gram(l.t());
    Some(residual_norm(&target, &residual, &l, gamma(l.nrows())))
}

/// ‖E‖_F for a complex symbol; `None` where there is no Cholesky factor.
fn complex_residual(symbol: &Symbol, mu: f64) -> Option<f64> {
    let mut target = Gram::of(symbol).to_hermitian().mapv_into(|x| -x);
    target.diag_mut().iter_mut().for_each(|x| *x += mu);
    let l = target.cholesky(UPLO::Lower).ok()?;
    // L = R + iJ: L L* = [R J][R J]ᵗ + i [J -R][R J]ᵗ
    let (both, turned) = (parts(&l), parts(&l.mapv(|x| c64::new(x.im, -x.re))));
    let product =
        concatenate![Axis(1), gemm::gram(both.t()), gemm::matmul(turned.view(), both.t())];
    let target = parts(&target);
    let residual = &target - &product;
    Some(residual_norm(&target, &residual, &both, mul_up(SQRT_2_UP, gamma(both.ncols()))))
}

/// [Re Im] side by side.
fn parts(a: &Array2<c64>) -> Array2<f64> {
    concatenate![Axis(1), a.mapv(|x| x.re), a.mapv(|x| x.im)]
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
