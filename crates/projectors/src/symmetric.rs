//! Symmetric matrices as a whole: eigenvalues and square roots. And the inverse of a square one.
//!
//! Definition. S = V Λ Vᵗ with ascending eigenvalues and orthonormal columns of V; S^(1/2) = V max(Λ, 0)^(1/2) Vᵗ, of a matrix that is
//! positive semidefinite but for rounding.
//!
//! Accuracy. Eigenvalues are accurate to a multiple of eps ‖S‖, so that the square of the root is S to that.
//! An iteration of Newton's kind would amplify rounding by the largest ratio of eigenvalues, and S may be singular.
//!
//! Errors. [`Error::NotSquare`], [`Error::NonFinite`], [`Error::NotSymmetric`], [`Error::Lapack`], which for an inverse says that the
//! matrix is singular.

use ndarray::{Array1, Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::{Real, dense, gemm, lapack, tolerance};

/// Eigenvalues in ascending order and orthonormal eigenvectors (columns) of a matrix that is symmetric up to rounding.
///
/// # Errors
/// As the module says.
pub fn eigen<T: Real>(a: ArrayView2<'_, T>) -> Result<(Array1<T>, Array2<T>)> {
    let n = dense::check_square("matrix", a)?;
    dense::check_finite("matrix", a)?;
    let asymmetry = dense::frobenius_distance(a, a.t());
    let tolerance = tolerance::projector::<T>(n) * dense::frobenius(a).max(1.0);
    if dense::exceeds(asymmetry, tolerance) {
        return Err(Error::NotSymmetric { what: "matrix", asymmetry, tolerance });
    }
    if n == 0 {
        return Ok((Array1::zeros(0), Array2::zeros((0, 0))));
    }
    lapack::eigh(a)
}

/// The square root of a matrix that is symmetric and positive semidefinite up to rounding.
///
/// # Errors
/// As the module says.
pub fn square_root<T: Real>(a: ArrayView2<'_, T>) -> Result<Array2<T>> {
    let (eigenvalues, vectors) = eigen(a)?;
    let roots = eigenvalues.mapv(|x| T::of(x.as_f64().max(0.0).sqrt()));
    Ok(gemm::matmul((&vectors * &roots).view(), vectors.t()))
}

/// The inverse of a square matrix by elimination with pivots by rows.
///
/// # Errors
/// As the module says.
pub fn inverse<T: Real>(a: ArrayView2<'_, T>) -> Result<Array2<T>> {
    dense::check_square("matrix", a)?;
    dense::check_finite("matrix", a)?;
    if a.is_empty() {
        return Ok(a.to_owned());
    }
    lapack::inverse(a)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn squares_of_roots_are_the_matrices() {
        // eigenvalues 2, 1e-9, 0 and, by rounding, one below 0
        let basis = array![
            [0.5, 0.5, 0.5, 0.5],
            [0.5, -0.5, 0.5, -0.5],
            [0.5, 0.5, -0.5, -0.5],
            [0.5, -0.5, -0.5, 0.5],
        ];
        let eigenvalues = array![2.0, 1e-9, 0.0, -1e-17];
        let matrix = (&basis.t() * &eigenvalues).dot(&basis);
        let root = square_root::<f64>(matrix.view()).unwrap();
        let error = dense::frobenius_distance(root.dot(&root).view(), matrix.view());
        assert!(error <= 16.0 * f64::EPSILON, "{error:e}");
        let roots = square_root::<f64>(array![[2.0, 1.0], [0.0, 2.0]].view());
        assert!(matches!(roots, Err(Error::NotSymmetric { .. })), "{roots:?}");
        assert_eq!(square_root(Array2::<f32>::zeros((0, 0)).view()).unwrap().len(), 0);
    }

    #[test]
    fn inverses_need_pivots_and_refuse_singular_matrices() {
        let matrix = array![[0.0, 2.0, 0.0], [1.0, 0.0, 3.0], [0.0, 0.0, 4.0]];
        let product = inverse::<f64>(matrix.view()).unwrap().dot(&matrix);
        assert!(dense::distance_to_identity(product.view()) <= 8.0 * f64::EPSILON, "{product}");
        let singular = inverse(array![[1.0, 2.0], [2.0, 4.0_f32]].view());
        assert!(matches!(singular, Err(Error::Lapack { .. })), "{singular:?}");
        let wide = inverse(Array2::<f64>::zeros((1, 2)).view());
        assert!(matches!(wide, Err(Error::NotSquare { .. })), "{wide:?}");
    }
}
