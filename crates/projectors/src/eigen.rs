//! Symmetric eigendecomposition by divide and conquer: LAPACK's `ssyevd` and `dsyevd`.
//!
//! G = V diag(lambda) V^T with ascending lambda and orthonormal columns of V. ndarray-linalg offers the QR iteration
//! (`syev`) only, which takes several times as long from a few dozen rows on.
//!
//! Cost: about 4 n^3 flops for the tridiagonal reduction and the back transformation, and less than that in between;
//! for n = 512 in `f32` about twenty products of that size on one thread.

use std::ffi::{c_char, c_int};

use ndarray::{Array1, Array2, ArrayView2};

use crate::Real;
use crate::error::{Error, Result};
use crate::gemm::single_threaded_blas;

/// The arguments of `?syevd` after the two letters, in LAPACK's order.
#[derive(Debug)]
pub struct Problem<'a, T> {
    /// Rows of the matrix.
    n: c_int,
    /// The matrix in any order of storage (it is symmetric), replaced by the eigenvectors, one after another.
    matrix: &'a mut [T],
    eigenvalues: &'a mut [T],
    work: &'a mut [T],
    integer_work: &'a mut [c_int],
}

/// The LAPACK routine of a scalar type.
pub trait DivideAndConquer: Sized {
    /// Runs the routine; returns LAPACK's `info`.
    fn syevd(problem: Problem<'_, Self>) -> c_int;
}

macro_rules! divide_and_conquer {
    ($scalar:ty, $routine:path) => {
        impl DivideAndConquer for $scalar {
            #[expect(unsafe_code, reason = "LAPACK has a C interface only")]
            fn syevd(problem: Problem<'_, Self>) -> c_int {
                let Problem { n, matrix, eigenvalues, work, integer_work } = problem;
                let (n_work, n_integer) = (length(work), length(integer_work));
                let mut info = 0;
                // SAFETY: LAPACK reads and writes n^2 values of the matrix, n eigenvalues, and as much of the work
                // arrays as their lengths say. `decompose`, the only caller, allocated exactly these; all are
                // exclusively borrowed, and the letters and lengths are only read.
                unsafe {
                    $routine(
                        &(b'V' as c_char),
                        &(b'U' as c_char),
                        &n,
                        matrix.as_mut_ptr(),
                        &n,
                        eigenvalues.as_mut_ptr(),
                        work.as_mut_ptr(),
                        &n_work,
                        integer_work.as_mut_ptr(),
                        &n_integer,
                        &mut info,
                    );
                }
                info
            }
        }
    };
}

divide_and_conquer!(f32, lapack_sys::ssyevd_);
divide_and_conquer!(f64, lapack_sys::dsyevd_);

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

fn length<T>(slice: &[T]) -> c_int {
    c_int::try_from(slice.len()).unwrap_or(c_int::MAX)
}
