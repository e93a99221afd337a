//! Extreme eigenvalues of a symmetric matrix by the Lanczos method: estimates, from inside the spectrum.
//!
//! After j steps the Krylov basis V and the tridiagonal T = V^T G V give Ritz values theta with |theta - lambda| <= rho,
//! rho = beta_j |s_j| (s the eigenvector of T), for some eigenvalue lambda. The start vector is fixed, so the result
//! is a function of G alone; it has a component along every eigenvector for all but contrived matrices. Basis vectors
//! are kept orthogonal explicitly. Cost: 2 n^2 flops a step, and n j for the orthogonalisation.
//!
//! Source: Golub and Van Loan, "Matrix Computations" (2013), chapter 10. Proven bounds are in [`crate::norms`].

use ndarray::{Array1, Array2, ArrayView2, s};
use num_traits::Float;

use crate::error::Result;
use crate::gemm::single_threaded_blas;
use crate::{Real, lapack};

/// Steps between checks of the accuracy.
const CHECK_EVERY: usize = 6;

/// Estimates of the ends of a spectrum; each is within its residual of some eigenvalue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) lowest: f64,
    pub(crate) lowest_residual: f64,
    pub(crate) highest: f64,
    pub(crate) highest_residual: f64,
}

/// Runs until both residuals are at most `accuracy` times their Ritz value, at most `max_steps` steps, on a symmetric
/// matrix with at least one row.
pub(crate) fn extreme_eigenvalues<T: Real>(
    g: ArrayView2<'_, T>,
    accuracy: f64,
    max_steps: usize,
) -> Result<Ends> {
    extreme_eigenvalues_until(g, accuracy, max_steps, |_| false)
}

/// As [`extreme_eigenvalues`], or until `enough` says that the ends so far will do.
///
/// Ritz values lie inside the spectrum and move outwards, so `enough` may rely on the spectrum being at least as wide.
pub(crate) fn extreme_eigenvalues_until<T: Real>(
    g: ArrayView2<'_, T>,
    accuracy: f64,
    max_steps: usize,
    enough: impl Fn(&Ends) -> bool,
) -> Result<Ends> {
    single_threaded_blas();
    let n = g.nrows();
    let steps = max_steps.min(n);
    let mut basis = Array2::<T>::zeros((steps, n));
    let mut tridiagonal = Array2::<f64>::zeros((steps, steps));
    basis.row_mut(0).assign(&start_vector::<T>(n));
    for used in 1..=steps {
        let v = basis.row(used - 1);
        let mut next = g.dot(&v);
        let alpha = next.dot(&v).as_f64();
        tridiagonal[[used - 1, used - 1]] = alpha;
        // Twice is enough (Kahan): the second pass removes what the first left by cancellation.
        for _ in 0..2 {
            let known = basis.slice(s![..used, ..]);
            let along = known.dot(&next);
            next -= &known.t().dot(&along);
        }
        let beta = next.dot(&next).as_f64().sqrt();
        let exhausted = used == n || beta <= alpha.abs() * T::EPS * 8.0 || beta.is_nan();
        if exhausted || used == steps || used % CHECK_EVERY == 0 {
            let known = tridiagonal.slice(s![..used, ..used]);
            let ends = ends(known, if exhausted { 0.0 } else { beta })?;
            if exhausted || used == steps || ends.within(accuracy) || enough(&ends) {
                return Ok(ends);
            }
        }
        tridiagonal[[used, used - 1]] = beta;
        tridiagonal[[used - 1, used]] = beta;
        next /= T::of(beta);
        basis.row_mut(used).assign(&next);
    }
    unreachable!("the last step returns")
}

impl Ends {
    fn within(&self, accuracy: f64) -> bool {
        self.lowest_residual <= accuracy * self.lowest
            && self.highest_residual <= accuracy * self.highest
    }
}

/// First and last eigenvalue of the tridiagonal matrix, with their residuals.
fn ends(tridiagonal: ArrayView2<'_, f64>, beta: f64) -> Result<Ends> {
    let last = tridiagonal.nrows() - 1;
    let (theta, s) = lapack::eigh(tridiagonal)?;
    Ok(Ends {
        lowest: theta[0],
        lowest_residual: beta * s[[last, 0]].abs(),
        highest: theta[last],
        highest_residual: beta * s[[last, last]].abs(),
    })
}

/// A fixed unit vector with entries of irregular sign and size (a Weyl sequence of the golden ratio).
pub(crate) fn start_vector<T: Real>(n: usize) -> Array1<T> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let v = Array1::from_shape_fn(n, |i| T::of((GOLDEN * (i * i + i + 1) as f64).fract() - 0.499));
    let norm = Float::sqrt(v.dot(&v));
    if norm == T::zero() { Array1::from_elem(n, T::one()) } else { v.mapv(|x| x / norm) }
}
