//! The polar factor of a matrix.

use ndarray::{Array1, Array2, ArrayView2};

use crate::error::{Error, Result};
use crate::{Real, dense, gemm, lapack, tolerance};

/// The polar factor of W with what its pullback needs.
#[derive(Debug, Clone)]
pub struct Polar<T> {
    factor: Array2<T>,
    inverse_sqrt: Array2<T>,
    /// H = V diag(sigma) V^T.
    v: Array2<T>,
    sigma: Array1<T>,
    iterations: usize,
    residual: f64,
}

/// The polar factor of W.
///
/// # Errors
/// [`Error::NonFinite`], [`Error::Empty`], [`Error::RankDeficient`].
pub fn polar<T: Real>(w: ArrayView2<'_, T>) -> Result<Polar<T>> {
    polar_warm(w, None)
}

/// As [`polar`], starting from a previous inverse square root.
///
/// # Errors
/// As [`polar`].
pub fn polar_warm<T: Real>(
    w: ArrayView2<'_, T>,
    _start: Option<ArrayView2<'_, T>>,
) -> Result<Polar<T>> {
    dense::check_not_empty("matrix", w)?;
    dense::check_finite("matrix", w)?;
    let wide = w.nrows() < w.ncols();
    let tall = if wide { w.t() } else { w };
    let (u, sigma, vt) = lapack::svd(&tall.to_owned())?;
    let smallest = sigma[0].as_f64() * tolerance::rank::<T>(w.nrows(), w.ncols());
    let rank = sigma.iter().filter(|s| s.as_f64() > smallest).count();
    if rank < tall.ncols() {
        return Err(Error::RankDeficient { what: "matrix", rank, expected: tall.ncols() });
    }
    let factor = gemm::matmul(u.view(), vt.view());
    let residual = dense::distance_to_identity(gemm::gram(factor.view()).view());
    let v = vt.reversed_axes();
    let scaled = &v * &sigma.mapv(|s| T::one() / s);
    let inverse_sqrt = gemm::matmul(scaled.view(), v.t());
    let factor = if wide { factor.reversed_axes() } else { factor };
    Ok(Polar { factor, inverse_sqrt, v, sigma, iterations: 0, residual })
}

impl<T: Real> Polar<T> {
    /// The polar factor, of the shape of W.
    #[must_use]
    pub fn factor(&self) -> ArrayView2<'_, T> {
        self.factor.view()
    }

    /// The polar factor, by value.
    #[must_use]
    pub fn into_factor(self) -> Array2<T> {
        self.factor
    }

    /// `(W^T W)^-1/2` (tall or square) or `(W W^T)^-1/2` (wide).
    #[must_use]
    pub fn inverse_sqrt(&self) -> ArrayView2<'_, T> {
        self.inverse_sqrt.view()
    }

    /// Steps taken.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.iterations
    }

    /// `|Q^T Q - I|_F`.
    #[must_use]
    pub fn residual(&self) -> f64 {
        self.residual
    }

    /// Gradient in W of a function whose gradient in the factor is `cotangent`.
    #[must_use]
    pub fn pullback(&self, w: ArrayView2<'_, T>, cotangent: ArrayView2<'_, T>) -> Array2<T> {
        assert_eq!((w.dim(), cotangent.dim()), (self.factor.dim(), self.factor.dim()));
        if w.nrows() < w.ncols() {
            return self.pullback_tall(self.factor.t(), cotangent.t()).reversed_axes();
        }
        self.pullback_tall(self.factor.view(), cotangent)
    }

    fn pullback_tall(&self, q: ArrayView2<'_, T>, c: ArrayView2<'_, T>) -> Array2<T> {
        let qc = gemm::matmul(q.t(), c);
        let k = dense::skew_part_doubled(qc.clone());
        let mut x = gemm::matmul(gemm::matmul(self.v.t(), k.view()).view(), self.v.view());
        for ((i, j), x) in x.indexed_iter_mut() {
            *x /= self.sigma[i] + self.sigma[j];
        }
        let mut y = gemm::matmul(gemm::matmul(self.v.view(), x.view()).view(), self.v.t());
        gemm::matmul_into(-T::one(), qc.view(), self.inverse_sqrt.view(), T::one(), y.view_mut());
        let mut d = gemm::matmul(c, self.inverse_sqrt.view());
        gemm::matmul_into(T::one(), q, y.view(), T::one(), d.view_mut());
        d
    }
}
