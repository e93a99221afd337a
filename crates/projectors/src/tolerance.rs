//! What rounding may cost, as functions of the element type and the size.
//!
//! Every threshold of this crate is one of these functions, so that `f32` and `f64` run the same code and no bare
//! constant decides whether a matrix is accepted. Defects are Frobenius norms: an n x n matrix of rounding errors of
//! relative size eps has norm about eps sqrt(n).

use crate::Real;

/// Allowed `|B^T B - I|_F` for k columns of length n orthonormalised in type `T`.
///
/// A dot product of two unit vectors of length n summed in blocks has a rounding error of a few eps, growing slowly
/// with n; there are k of them that matter.
#[must_use]
pub fn orthonormal<T: Real>(n: usize, k: usize) -> f64 {
    T::EPS * (k.max(1) as f64).sqrt() * (6.0 + (n as f64).sqrt() / 4.0)
}

/// Allowed root mean square, over the rows, of Q Q^T - I for a factor Q that a training step applies: half of the digits.
///
/// A gradient of a batch of samples is known to a percent at best.
#[must_use]
pub fn applied<T: Real>() -> f64 {
    6.0 * T::EPS.sqrt()
}

/// Allowed `|P^2 - P|_F` and `|P - P^T|_F` when a caller's n x n matrix is accepted as a projector.
///
/// Wider than what this crate's own constructors reach, so that a projector computed elsewhere in the same precision
/// is welcome, and far below any error that would matter to what is built from it.
#[must_use]
pub fn projector<T: Real>(n: usize) -> f64 {
    64.0 * T::EPS * (n.max(1) as f64)
}

/// Relative size below which a singular value of an m x n matrix counts as zero.
#[must_use]
pub fn rank<T: Real>(m: usize, n: usize) -> f64 {
    T::EPS * m.max(n) as f64
}
