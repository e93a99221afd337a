//! The projector on the range of a matrix, without iteration, and its closed-form pullback.
//!
//! For M (n x k, full column rank, 0 <= k <= n) the orthogonal projector on its range is P = M (M^T M)^-1 M^T. With a
//! factorisation M = Q R, Q orthonormal and R square, P = Q Q^T and M (M^T M)^-1 = Q R^-T. A first-order change dM
//! gives dP = S + S^T with S = (I - P) dM (M^T M)^-1 M^T, so a cotangent C of P pulls back to
//!
//! ```text
//! (I - P) (C + C^T) Q R^-T.
//! ```
//!
//! Q comes from a Cholesky factor of M^T M (CholeskyQR) and is corrected until the measured defect |Q^T Q - I|_F is at
//! rounding level, by first-order corrections Q (I + E/2), E = I - Q^T Q. Where M^T M is too ill-conditioned to have a
//! trustworthy Cholesky factor, Householder QR replaces it.
//!
//! Guarantee: Q is orthonormal to [`tolerance::orthonormal`] whatever the conditioning, so P is a projector to
//! rounding; its range is that of M up to eps times the condition number of M.
//!
//! Cost: n k^2 flops for the Gram matrix, 2 n k^2 for Q and again for a correction, n k^2 for each measured defect, n^2 k
//! for P; pullback 2 n^2 k + 6 n k^2. Errors: [`Error::NonFinite`], [`Error::RankDeficient`].
//!
//! Source: the paper obtains the same P as U U^T from an iterated polar factor U of M (section 3.2); the identity
//! P = M (M^T M)^-1 M^T replaces the iteration. CholeskyQR2: Yamamoto et al., ETNA 44 (2015).

use ndarray::{Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::{Real, dense, gemm, lapack, tolerance, triangular};

/// First-order corrections before turning to Householder QR; each squares the defect.
const MAX_CORRECTIONS: usize = 6;
/// Defect below which the first-order correction is used; it leaves 3/4 of the square.
const SMALL_DEFECT: f64 = 0.1;

/// A projector `P = M (M^T M)^-1 M^T` with what its pullback needs: Q and R^-1.
#[derive(Debug, Clone)]
pub struct RangeProjection<T> {
    matrix: Array2<T>,
    basis: Array2<T>,
    r_inverse: Array2<T>,
}

/// The projector on the range of M (n x k, full column rank); k = 0 gives the zero projector.
///
/// # Errors
/// [`Error::NonFinite`] and [`Error::RankDeficient`], the latter also when k > n.
///
/// ```
/// use projectors::range::project_range;
/// let p = project_range(ndarray::array![[2.0], [0.0]].view())?;
/// assert_eq!(p.matrix(), ndarray::array![[1.0, 0.0], [0.0, 0.0]]);
/// assert!(project_range(ndarray::array![[1.0, 2.0], [2.0, 4.0]].view()).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn project_range<T: Real>(m: ArrayView2<'_, T>) -> Result<RangeProjection<T>> {
    dense::check_finite("matrix", m)?;
    let (n, k) = m.dim();
    if k > n {
        return Err(Error::RankDeficient { what: "matrix", rank: n, expected: k });
    }
    let (basis, r_inverse) = orthonormal_basis(m)?;
    Ok(RangeProjection { matrix: gemm::gram(basis.t()), basis, r_inverse })
}

impl<T: Real> RangeProjection<T> {
    /// The n x n projector, exactly symmetric.
    #[must_use]
    pub fn matrix(&self) -> ArrayView2<'_, T> {
        self.matrix.view()
    }

    /// The n x n projector, by value.
    #[must_use]
    pub fn into_matrix(self) -> Array2<T> {
        self.matrix
    }

    /// The orthonormal basis Q (n x k) of the range, `P = Q Q^T`.
    #[must_use]
    pub fn basis(&self) -> ArrayView2<'_, T> {
        self.basis.view()
    }

    /// Gradient in M (n x k) of a function whose gradient in P is `cotangent` (n x n, symmetric or not).
    ///
    /// # Panics
    /// If `cotangent` is not n x n.
    #[must_use]
    pub fn pullback(&self, cotangent: ArrayView2<'_, T>) -> Array2<T> {
        let n = self.matrix.nrows();
        assert_eq!(cotangent.dim(), (n, n), "cotangent of an {n} x {n} projector");
        let (q, one) = (self.basis.view(), T::one());
        let mut d = gemm::matmul(dense::symmetric_part_doubled(cotangent).view(), q);
        let along = gemm::matmul(q.t(), d.view());
        gemm::matmul_into(-one, q, along.view(), one, d.view_mut());
        gemm::matmul(d.view(), self.r_inverse.t())
    }
}

/// Q (n x k, orthonormal) and R^-1 (k x k) with M = Q R.
fn orthonormal_basis<T: Real>(m: ArrayView2<'_, T>) -> Result<(Array2<T>, Array2<T>)> {
    let (n, k) = m.dim();
    if k == 0 {
        return Ok((m.to_owned(), Array2::zeros((0, 0))));
    }
    let scale = dense::unit_scale(m).ok_or_else(|| deficient(0, k))?;
    if scale == T::one() {
        return cholesky_basis(m).map_or_else(|| householder_basis(m), Ok);
    }
    let (q, mut r_inverse) = orthonormal_basis(m.mapv(|x| x * scale).view())?;
    r_inverse.mapv_inplace(|x| x * scale);
    debug_assert_eq!(q.dim(), (n, k));
    Ok((q, r_inverse))
}

/// CholeskyQR with first-order corrections; `None` where the conditioning asks for Householder QR.
fn cholesky_basis<T: Real>(m: ArrayView2<'_, T>) -> Option<(Array2<T>, Array2<T>)> {
    let (n, k) = m.dim();
    let mut r_inverse = inverse_cholesky_factor(&gemm::gram(m))?;
    let mut q = gemm::matmul(m, r_inverse.view());
    for _ in 0..MAX_CORRECTIONS {
        let mut step = gemm::gram(q.view());
        let defect = dense::distance_to_identity(step.view());
        if defect <= tolerance::orthonormal::<T>(n, k) {
            return Some((q, r_inverse));
        }
        if dense::exceeds(defect, SMALL_DEFECT) {
            return None;
        }
        dense::scale(&mut step, -0.5);
        dense::add_diagonal(&mut step, T::of(1.5));
        q = gemm::matmul(q.view(), step.view());
        r_inverse = gemm::matmul(r_inverse.view(), step.view());
    }
    None
}

/// `L^-T` for `G = L L^T`, or `None` where a pivot shows that G is singular to rounding.
fn inverse_cholesky_factor<T: Real>(gram: &Array2<T>) -> Option<Array2<T>> {
    let mut l = lapack::cholesky(gram.view())?;
    let pivots = l.diag().into_iter().map(|x| x.as_f64().powi(2));
    let (smallest, largest) =
        pivots.fold((f64::INFINITY, 0.0), |(lo, hi), x| (x.min(lo), x.max(hi)));
    if smallest <= 8.0 * tolerance::rank::<T>(gram.nrows(), 1) * largest {
        return None;
    }
    triangular::invert_lower(l.view_mut());
    Some(l.reversed_axes())
}

/// Householder QR for matrices whose Gram matrix has no Cholesky factor.
fn householder_basis<T: Real>(m: ArrayView2<'_, T>) -> Result<(Array2<T>, Array2<T>)> {
    let (n, k) = m.dim();
    let (q, r) = lapack::qr(m)?;
    let sigma = lapack::singular_values(r.view())?;
    let smallest = sigma[0].as_f64() * tolerance::rank::<T>(n, k);
    let rank = sigma.iter().filter(|s| s.as_f64() > smallest).count();
    if rank < k {
        return Err(deficient(rank, k));
    }
    let mut l = r.reversed_axes().as_standard_layout().into_owned();
    triangular::invert_lower(l.view_mut());
    Ok((q, l.reversed_axes()))
}

fn deficient(rank: usize, expected: usize) -> Error {
    Error::RankDeficient { what: "matrix", rank, expected }
}
