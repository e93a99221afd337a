//! Symmetric eigendecomposition by divide and conquer: LAPACK's `ssyevd` and `dsyevd`.
//!
//! G = V diag(lambda) V^T with ascending lambda and orthonormal columns of V. ndarray-linalg offers the QR iteration
//! (`syev`) only, which takes several times as long from a few dozen rows on.
//!
//! Cost: about 4 n^3 flops for the tridiagonal reduction and the back transformation, and less than that in between;
//! for n = 512 in `f32` about twenty products of that size on one thread.

use std::ffi::c_int;

use ndarray::{Array1, Array2, ArrayView2};

use crate::Real;
use crate::error::{Error, Result};
use crate::gemm::single_threaded_blas;
use crate::syevd::Problem;

/// Eigenvalues in ascending order and orthonormal eigenvectors (columns) of a symmetric matrix.
pub(crate) fn decompose<T: Real>(a: ArrayView2<'_, T>) -> Result<(Array1<T>, Array2<T>)> {
    single_threaded_blas();
    let n = a.nrows();
    assert_eq!(n, a.ncols(), "only square matrices are symmetric");
    let mut matrix: Vec<T> = a.iter().copied().collect();
    let mut eigenvalues = Array1::zeros(n);
    // The lengths that LAPACK documents for jobz = 'V'.
    let mut work = vec![T::zero(); 1 + 6 * n + 2 * n * n];
    let mut integer_work = vec![0; 3 + 5 * n];
    let info = T::syevd(Problem {
        n: c_int::try_from(n).expect("a matrix in memory has fewer than 2^31 rows"),
        matrix: &mut matrix,
        eigenvalues: eigenvalues.as_slice_mut().expect("contiguous"),
        work: &mut work,
        integer_work: &mut integer_work,
    });
    if info != 0 {
        let reason = format!("info = {info}, the eigenvalues did not converge");
        return Err(Error::Lapack { routine: "syevd", reason });
    }
    // Column-major in LAPACK: the i-th run of n values is the i-th eigenvector.
    let rows = Array2::from_shape_vec((n, n), matrix).expect("n^2 values");
    Ok((eigenvalues, rows.reversed_axes()))
}
