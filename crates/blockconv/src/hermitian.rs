//! Gram matrices of complex matrices given by their real and imaginary parts, and their eigenvalues.
//!
//! Definition. For A = R + iJ stacked as Z = [R; J], A* A = S + iK with S = ZᵗZ = RᵗR + JᵗJ and
//! K = Zᵗ[J; -R] = RᵗJ - JᵗR: two real products.
//!
//! Errors. LAPACK failures are passed on as they are; callers name the frequency.

use ndarray::{Array1, Array2};
use ndarray_linalg::error::LinalgError;
use ndarray_linalg::{EigValsh, JobSvd, SVDDC, UPLO, c64};
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
        Array2::from_shape_fn((n, n), |(i, j)| match i.cmp(&j) {
            std::cmp::Ordering::Greater => c64::new(self.re[[i, j]], self.im[[i, j]]),
            std::cmp::Ordering::Equal => c64::new(self.re[[i, i]], 0.0),
            std::cmp::Ordering::Less => c64::new(self.re[[j, i]], -self.im[[j, i]]),
        })
    }
}

/// Eigenvalues of A* A in ascending order; `real` promises that A has no imaginary part.
pub(crate) fn gram_eigenvalues(symbol: &Symbol, real: bool) -> Result<Array1<f64>, LinalgError> {
    if real {
        return gemm::gram(symbol.re()).eigvalsh(UPLO::Lower);
    }
    Gram::of(symbol).to_hermitian().eigvalsh(UPLO::Lower)
}

/// Singular values of A in descending order.
pub(crate) fn singular_values(symbol: &Symbol, real: bool) -> Result<Array1<f64>, LinalgError> {
    if real {
        return symbol.re().to_owned().svddc(JobSvd::None).map(|(_, sigma, _)| sigma);
    }
    let (re, im) = (symbol.re(), symbol.im());
    let complex = Array2::from_shape_fn(re.raw_dim(), |index| c64::new(re[index], im[index]));
    complex.svddc(JobSvd::None).map(|(_, sigma, _)| sigma)
}
