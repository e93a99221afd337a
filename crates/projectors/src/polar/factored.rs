//! The polar factor as a product, for layers that only ever apply it.
//!
//! For a wide or square W (n x m, n <= m) the factor is Q = B U with B (n x n) and U (n x m) from the corrected
//! eigendecomposition of W W^T, see the module on the spectral form. A layer needs A Q^T for its inputs A (b x m), D Q for
//! the gradient D (b x n) of its outputs, and the gradient of W for the cotangent C = D^T A of Q. All three cost less from
//! the factors than through Q:
//!
//! ```text
//! A Q^T = (A U^T) B^T,    D Q = (D B) U,
//! dW    = S D^T A - (X + S N) Q,    N = C Q^T = D^T (A Q^T),    H X + X H = N^T - N,
//! ```
//!
//! where N needs no product of length m, the eigenvectors V turn the Sylvester equation for X into a division by
//! sigma_i + sigma_j, and only two products touch all of W: n x b x m and n x n x m.
//!
//! Shapes: A b x m, D b x n, P = A U^T b x n (handed from the forward pass to the pullback).
//!
//! Guarantee: |Q Q^T - I|_F is at most twice [`tolerance::orthonormal`] in exact products of the stored factors, and Q is the
//! polar factor to eps times the condition number k of W. The pullback is accurate to eps k^2 relative to its norm, since it
//! takes V and sigma as they come from W W^T.
//!
//! Cost: n^2 m multiplications for U, half of that for W W^T and for U U^T each, n^2 m + n b m in the pullback, and per
//! row of inputs or gradients n m + n^2.
//!
//! Errors: as [`super::polar`], and [`Error::ShapeMismatch`] for a W with more rows than columns.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

use super::spectral::{SpectralForm, corrected};
use crate::error::{Error, Result};
use crate::{Real, dense, gemm, tolerance};

/// The polar factor Q = B U of a wide or square W, with what products with Q and its pullback need.
#[derive(Debug, Clone)]
pub struct FactoredPolar<T> {
    /// U, n x m.
    basis: Array2<T>,
    /// B, n x n.
    rotation: Array2<T>,
    /// V, n x n: eigenvectors of W W^T.
    v: Array2<T>,
    /// F with B = V (I - F).
    correction: Array2<T>,
    /// Singular values of W.
    sigma: Array1<T>,
}

/// The polar factor of W (n x m, n <= m, full rank), factored.
///
/// # Errors
/// [`Error::NonFinite`], [`Error::Empty`], [`Error::RankDeficient`], [`Error::ShapeMismatch`].
///
/// ```
/// use projectors::polar::{factored_polar, polar};
/// let w = ndarray::array![[3.0, 1.0, 0.0], [1.0, 2.0, 2.0]];
/// let a = ndarray::array![[1.0, -1.0, 0.5]];
/// let q = factored_polar(w.view())?;
/// let coordinates = q.coordinates(a.view());
/// let mut y = ndarray::Array2::zeros((1, 2));
/// q.add_output(coordinates.view(), y.view_mut());
/// assert!((y - a.dot(&polar(w.view())?.factor().t())).iter().all(|x: &f64| x.abs() < 1e-14));
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn factored_polar<T: Real>(w: ArrayView2<'_, T>) -> Result<FactoredPolar<T>> {
    dense::check_not_empty("matrix", w)?;
    dense::check_finite("matrix", w)?;
    let (n, m) = w.dim();
    if n > m {
        return Err(Error::ShapeMismatch { what: "matrix", expected: (m, m), got: (n, m) });
    }
    let deficient = Error::RankDeficient { what: "matrix", rank: 0, expected: n };
    let scale = dense::unit_scale(w).ok_or(deficient)?;
    let allowed = tolerance::orthonormal::<T>(m, n);
    let mut form = if scale == T::one() {
        SpectralForm::of(w.reversed_axes(), allowed)?
    } else {
        SpectralForm::of(w.mapv(|x| x * scale).t(), allowed)?
    };
    form.sigma.mapv_inplace(|s| s / scale);
    let rotation = form.rotation();
    let SpectralForm { basis, v, correction, sigma } = form;
    Ok(FactoredPolar { basis: basis.reversed_axes(), rotation, v, correction, sigma })
}

impl<T: Real> FactoredPolar<T> {
    /// (n, m), the shape of W and Q.
    #[must_use]
    pub fn dim(&self) -> (usize, usize) {
        self.basis.dim()
    }

    /// Q itself, n x m.
    #[must_use]
    pub fn factor(&self) -> Array2<T> {
        gemm::matmul(self.rotation.view(), self.basis.view())
    }

    /// P = A U^T (b x n) for inputs A (b x m).
    ///
    /// # Panics
    /// If `inputs` does not have m columns.
    #[must_use]
    pub fn coordinates(&self, inputs: ArrayView2<'_, T>) -> Array2<T> {
        gemm::matmul(inputs, self.basis.t())
    }

    /// Adds A Q^T = P B^T to `outputs` (b x n), for P from [`FactoredPolar::coordinates`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_output(&self, coordinates: ArrayView2<'_, T>, outputs: ArrayViewMut2<'_, T>) {
        gemm::matmul_into(T::one(), coordinates, self.rotation.t(), T::one(), outputs);
    }

    /// Writes D Q to `d_inputs` (b x m), for the gradient D (b x n) of the outputs.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn input_gradient(&self, d_outputs: ArrayView2<'_, T>, d_inputs: ArrayViewMut2<'_, T>) {
        let rotated = gemm::matmul(d_outputs, self.rotation.view());
        gemm::matmul_into(T::one(), rotated.view(), self.basis.view(), T::zero(), d_inputs);
    }

    /// The gradient of W (n x m) of a function whose gradient in Q is D^T A, for the gradient D (b x n) of the outputs,
    /// the inputs A (b x m) and their coordinates P.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[must_use]
    pub fn pullback(
        &self,
        d_outputs: ArrayView2<'_, T>,
        inputs: ArrayView2<'_, T>,
        coordinates: ArrayView2<'_, T>,
    ) -> Array2<T> {
        let (n, m) = self.dim();
        let rotated = gemm::matmul(d_outputs, self.v.view());
        let outputs = corrected(coordinates, self.correction.view());
        let inner = gemm::matmul(rotated.t(), outputs.view());
        let along = corrected(self.sylvester(&inner, n < m).view(), self.correction.t());
        let along = gemm::matmul(self.v.view(), along.view());
        let mut gradient = gemm::matmul(along.view(), self.basis.view());
        if n < m {
            let across = gemm::matmul((&rotated / &self.sigma).view(), self.v.t());
            gemm::matmul_into(T::one(), across.t(), inputs, T::one(), gradient.view_mut());
        }
        gradient
    }

    /// `-(X + S N)` in the basis V, from N in that basis; without S N for a square W, where C S = S N Q cancels it.
    fn sylvester(&self, n: &Array2<T>, wide: bool) -> Array2<T> {
        let mut solution = n.clone();
        dense::skew_part_doubled(&mut solution);
        let rows = solution.rows_mut().into_iter().zip(n.rows()).zip(&self.sigma);
        for ((mut row, n), &s) in rows {
            row.zip_mut_with(&self.sigma, |x, &t| *x /= s + t);
            if wide {
                row.scaled_add(-T::one() / s, &n);
            }
        }
        solution
    }
}
