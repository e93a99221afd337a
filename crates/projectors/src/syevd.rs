//! LAPACK's `ssyevd` and `dsyevd`, which ndarray-linalg does not wrap, as a routine of their scalar types.

use std::ffi::{c_char, c_int};

/// The arguments of `?syevd` after the two letters, in LAPACK's order.
#[derive(Debug)]
pub struct Problem<'a, T> {
    /// Rows of the matrix.
    pub(crate) n: c_int,
    /// The matrix in any order of storage (it is symmetric), replaced by the eigenvectors, one after another.
    pub(crate) matrix: &'a mut [T],
    pub(crate) eigenvalues: &'a mut [T],
    pub(crate) work: &'a mut [T],
    pub(crate) integer_work: &'a mut [c_int],
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
                // arrays as their lengths say. `eigen::decompose`, the only caller, allocated exactly these; all are
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

fn length<T>(slice: &[T]) -> c_int {
    c_int::try_from(slice.len()).unwrap_or(c_int::MAX)
}
