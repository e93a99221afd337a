//! What rounding may cost in the theorems, as functions of the element type and the size.
//!
//! A kernel of size k assembled from matrices of size n has an autocorrelation defect of a few eps √n for each of its
//! factors and shifts. The thresholds below grow with n k, so that kernels from elsewhere in the same precision are
//! welcome, and stay far below any defect that would matter to what is derived from the kernel.

use projectors::Real;

/// Largest [defect](crate::Kernel2::orthogonality_defect) of an n x n block kernel with `n_taps` taps that is accepted as
/// orthogonal: 64 eps n `n_taps`.
#[must_use]
pub fn orthogonal<T: Real>(n: usize, n_taps: usize) -> f64 {
    64.0 * T::EPS * (n * n_taps) as f64
}

/// Length below which a row of a tap of an n x n block kernel counts as zero: 4 eps n.
#[must_use]
pub fn vanishing_row<T: Real>(n: usize) -> f64 {
    4.0 * T::EPS * n as f64
}

/// Frobenius distance within which factors fit a kernel as well as rounding lets them: 8 eps n `n_taps`.
#[must_use]
pub fn factors<T: Real>(n: usize, n_taps: usize) -> f64 {
    8.0 * T::EPS * (n * n_taps) as f64
}
