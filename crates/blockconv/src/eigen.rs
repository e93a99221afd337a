//! Hermitian eigendecomposition by divide and conquer: LAPACK's `zheevd`.
//!
//! G = V diag(λ) V* with ascending λ and orthonormal columns of V. ndarray-linalg offers the QR iteration (`zheev`) only, which
//! takes two to three times as long from a few dozen rows on.

use std::ffi::{c_char, c_int};

use ndarray::{Array1, Array2};
use ndarray_linalg::c64;
use projectors::gemm;

use crate::hermitian::with_spare_column;

/// Eigenvalues in ascending order and eigenvectors (columns) of a Hermitian matrix, or LAPACK's `info` where it fails.
pub(crate) fn decompose(gram: &Array2<c64>) -> Result<(Array1<f64>, Array2<c64>), c_int> {
    gemm::single_threaded_blas();
    let n = gram.nrows();
    assert_eq!(n, gram.ncols(), "only square matrices are Hermitian");
    // column by column, as LAPACK counts
    let mut matrix = with_spare_column(gram.t().iter().copied(), n);
    let mut eigenvalues = vec![0.0; n];
    let info = zheevd(n, &mut matrix, &mut eigenvalues);
    if info != 0 {
        return Err(info);
    }
    matrix.truncate(n * n);
    let rows = Array2::from_shape_vec((n, n), matrix).expect("n² values");
    Ok((Array1::from(eigenvalues), rows.reversed_axes()))
}

#[expect(unsafe_code, reason = "LAPACK has a C interface only")]
fn zheevd(n: usize, matrix: &mut [c64], eigenvalues: &mut [f64]) -> c_int {
    assert!(matrix.len() >= n * n && eigenvalues.len() == n, "sizes that LAPACK is told");
    // the lengths that LAPACK documents for jobz = 'V', and more for its blocked routines
    let mut work = vec![c64::new(0.0, 0.0); 1 + 32 * n + n * n];
    let mut real_work = vec![0.0; 1 + 5 * n + 2 * n * n];
    let mut integer_work = vec![0; 3 + 5 * n];
    let lengths = [work.len(), real_work.len(), integer_work.len()].map(int);
    let (n, mut info) = (int(n), 0);
    // SAFETY: LAPACK reads and writes n² values of the matrix, n eigenvalues, and as much of the work arrays as their
    // lengths say, all of which are exclusively borrowed here; letters and lengths are only read. `c64` and the binding's
    // complex type are both two f64 in C's layout, real part first.
    unsafe {
        lapack_sys::zheevd_(
            &(b'V' as c_char),
            &(b'L' as c_char),
            &n,
            matrix.as_mut_ptr().cast(),
            &n,
            eigenvalues.as_mut_ptr(),
            work.as_mut_ptr().cast(),
            &lengths[0],
            real_work.as_mut_ptr(),
            &lengths[1],
            integer_work.as_mut_ptr(),
            &lengths[2],
            &mut info,
        );
    }
    info
}

fn int(length: usize) -> c_int {
    c_int::try_from(length).expect("a matrix in memory has fewer than 2³¹ rows")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_values_give_the_matrix_back() {
        for n in [1, 2, 3, 7, 40] {
            let draw = |i: usize, j: usize| ((i * 31 + j * 17 + i * j) % 13) as f64 - 6.0;
            let a = Array2::from_shape_fn((n, n), |(i, j)| c64::new(draw(i, j), draw(j + 5, i)));
            let gram = a.t().mapv(|x| x.conj()).dot(&a);
            let (lambda, v) = decompose(&gram).unwrap();
            let scaled = &v * &lambda.mapv(|x| c64::new(x, 0.0));
            let back = scaled.dot(&v.t().mapv(|x| x.conj()));
            let error = (&back - &gram).iter().fold(0.0_f64, |m, x| m.max(x.norm()));
            assert!(error < 1e-13 * lambda[n - 1].max(1.0) * n as f64, "{n}: {error:e}");
            assert!(lambda.windows(2).into_iter().all(|pair| pair[0] <= pair[1]));
        }
    }
}
