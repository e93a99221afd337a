//! Gram matrices of complex matrices given by their real and imaginary parts, and singular values.
//!
//! Definition. For A = R + iJ stacked as Z = [R; J], A* A = S + iK with S = ZᵗZ = RᵗR + JᵗJ and
//! K = Zᵗ[J; -R] = RᵗJ - JᵗR: two real products.
//!
//! Errors. LAPACK failures are passed on as they are; callers name the frequency.

use ndarray::Array2;
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::layout::MatrixLayout;
use ndarray_linalg::{JobSvd, Lapack, c64};
use projectors::gemm;

use crate::frequency::Symbol;

/// A* A as its real and imaginary parts.
pub(crate) struct Gram {
    pub(crate) re: Array2<f64>,
    pub(crate) im: Array2<f64>,
}

impl Gram {
    pub(crate) fn of(symbol: &Symbol) -> Self {
        let z = symbol.stacked();
        Self { re: gemm::gram(z), im: gemm::matmul(z.t(), symbol.turned().view()) }
    }

    /// The Hermitian matrix that the lower triangle determines, with a real diagonal.
    pub(crate) fn to_hermitian(&self) -> Array2<c64> {
        let n = self.re.nrows();
        let mut hermitian = Array2::zeros((n, n));
        for i in 0..n {
            for j in 0..i {
                hermitian[[i, j]] = c64::new(self.re[[i, j]], self.im[[i, j]]);
                hermitian[[j, i]] = hermitian[[i, j]].conj();
            }
            hermitian[[i, i]] = c64::new(self.re[[i, i]], 0.0);
        }
        hermitian
    }
}

/// Singular values of A in descending order; `real` promises that A has no imaginary part.
pub(crate) fn singular_values(symbol: &Symbol, real: bool) -> Result<Vec<f64>, LinalgError> {
    // transposed, since LAPACK counts along columns: the values are the same
    let (rows, cols) = symbol.re().dim();
    let layout = MatrixLayout::F { col: rows as i32, lda: cols as i32 };
    let (re, im) = (symbol.re(), symbol.im());
    if real {
        let mut matrix: Vec<f64> = re.iter().copied().collect();
        return Ok(f64::svddc(layout, JobSvd::None, &mut matrix)?.s);
    }
    let values = re.iter().zip(im).map(|(&re, &im)| c64::new(re, im));
    let mut matrix = with_spare_column(values, cols);
    let told = &mut matrix[..rows * cols];
    Ok(c64::svddc(layout, JobSvd::None, told)?.s)
}

/// A matrix for LAPACK with memory for one more of its columns of length `column`.
///
/// The complex gemv kernels of OpenBLAS before 0.3.22, which Debian 12 ships, read one element beyond a row of the matrix
/// (OpenBLAS issue 4013): of the last column, a column's length behind the matrix, and now and then in no memory at all.
pub(crate) fn with_spare_column(values: impl Iterator<Item = c64>, column: usize) -> Vec<c64> {
    let mut matrix: Vec<c64> = values.collect();
    matrix.resize(matrix.len() + column + 1, c64::new(0.0, 0.0));
    matrix
}
