//! The LAPACK factorisations used, on one thread, with this crate's errors.

use ndarray::{Array1, Array2, ArrayView2};
use ndarray_linalg::{CholeskyInto, Eigh, InverseInto, JobSvd, QR, SVDDCInto, UPLO};

use crate::error::{Error, Result};
use crate::gemm::single_threaded_blas;
use crate::{Real, eigen, tolerance};

/// Up to this size the QR iteration for eigenvectors is as fast as divide and conquer.
const QR_ITERATION: usize = 24;

/// A copy in row-major order with the plain strides that the wrappers ask for; views may have others along axes of
/// length one.
fn plain<T: Real>(a: ArrayView2<'_, T>) -> Array2<T> {
    let mut copy = Array2::zeros(a.dim());
    copy.assign(&a);
    copy
}

/// Thin QR factorisation of a non-empty matrix with at least as many rows as columns.
pub(crate) fn qr<T: Real>(a: ArrayView2<'_, T>) -> Result<(Array2<T>, Array2<T>)> {
    single_threaded_blas();
    plain(a).qr().map_err(Error::lapack("qr"))
}

/// Lower Cholesky factor; `None` when a pivot is not positive.
pub(crate) fn cholesky<T: Real>(a: ArrayView2<'_, T>) -> Option<Array2<T>> {
    single_threaded_blas();
    plain(a).cholesky_into(UPLO::Lower).ok()
}

/// Eigenvalues in ascending order and orthonormal eigenvectors (columns) of a symmetric matrix.
pub(crate) fn eigh<T: Real>(a: ArrayView2<'_, T>) -> Result<(Array1<T>, Array2<T>)> {
    if a.nrows() > QR_ITERATION {
        return eigen::decompose(a);
    }
    single_threaded_blas();
    plain(a).eigh(UPLO::Lower).map_err(Error::lapack("eigh"))
}

/// The inverse of a non-empty square matrix by LU factors with pivots by rows.
pub(crate) fn inverse<T: Real>(a: ArrayView2<'_, T>) -> Result<Array2<T>> {
    single_threaded_blas();
    plain(a).inv_into().map_err(Error::lapack("getri"))
}

/// Thin singular value decomposition `U diag(sigma) V^T` with descending sigma; returns (U, sigma, V^T).
pub(crate) fn svd<T: Real>(a: ArrayView2<'_, T>) -> Result<(Array2<T>, Array1<T>, Array2<T>)> {
    single_threaded_blas();
    let (u, sigma, vt) = plain(a).svddc_into(JobSvd::Some).map_err(Error::lapack("svd"))?;
    match (u, vt) {
        (Some(u), Some(vt)) => Ok((u, sigma, vt)),
        _ => unreachable!("both factors were asked for"),
    }
}

/// Singular values in descending order.
pub(crate) fn singular_values<T: Real>(a: ArrayView2<'_, T>) -> Result<Array1<T>> {
    single_threaded_blas();
    plain(a).svddc_into(JobSvd::None).map(|(_, sigma, _)| sigma).map_err(Error::lapack("svd"))
}

/// Number of singular values above [`tolerance::rank`] times the largest.
pub(crate) fn numerical_rank<T: Real>(a: ArrayView2<'_, T>) -> Result<usize> {
    let sigma = singular_values(a)?;
    let smallest =
        sigma.first().map_or(0.0, |s| s.as_f64()) * tolerance::rank::<T>(a.nrows(), a.ncols());
    Ok(sigma.iter().filter(|s| s.as_f64() > smallest).count())
}
