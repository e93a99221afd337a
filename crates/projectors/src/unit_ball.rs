//! Two maps into the spectral-norm unit ball: scaling, which is not a projection, and clipping, which is.
//!
//! The Frobenius-nearest point of { |W|_2 <= 1 } to W = U diag(sigma) V^T is U diag(min(sigma, 1)) V^T: singular values are
//! clipped. One-sided spectral normalisation W / max(1, |W|_2) also lands in the ball, but it shrinks every singular value.
//!
//! The difference matters for projected gradient descent. Minimise f(W) = |W - A|_F^2 / 2 over the ball with
//! A = diag(a, b), a > 1 > b > 0. The minimiser is diag(1, b), the clipped A. A step of size eta from W = diag(1, y) goes
//! to diag(1 + eta (a - 1), y + eta (b - y)). Clipping then has the single fixed point y = b. Scaling divides by
//! 1 + eta (a - 1) and has the fixed point y (1 + eta (a - 1)) = y + eta (b - y), that is y = b / a, whatever eta: descent
//! stalls there, although f falls along the feasible direction that raises y. [`projected_descent`] runs either.
//!
//! Guarantee: the norm of both results is <= 1 up to a few eps, measured by [`crate::norms`]; to divide by a proven bound,
//! use [`crate::norms::spectral_norm_bound`]. Cost: one singular value decomposition.
//! Errors: [`crate::Error::NonFinite`], [`crate::Error::Lapack`].
//!
//! Source: Li et al. (2019), Appendix A.

use ndarray::{Array2, ArrayView2};
use num_traits::Float;

use crate::error::Result;
use crate::{Real, dense, gemm, lapack};

/// A map into the unit ball of the spectral norm that leaves the ball fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retraction {
    /// `W / max(1, |W|_2)`, [`scale_to_unit_ball`].
    Scaling,
    /// The Frobenius projection, [`project_onto_unit_ball`].
    Clipping,
}

impl Retraction {
    /// Applies the map.
    ///
    /// # Errors
    /// [`crate::Error::NonFinite`], [`crate::Error::Lapack`].
    pub fn apply<T: Real>(self, w: ArrayView2<'_, T>) -> Result<Array2<T>> {
        match self {
            Self::Scaling => scale_to_unit_ball(w),
            Self::Clipping => project_onto_unit_ball(w),
        }
    }
}

/// One-sided spectral normalisation, `W / max(1, |W|_2)`: in the ball, but not the nearest point of it.
///
/// # Errors
/// [`crate::Error::NonFinite`], [`crate::Error::Lapack`].
pub fn scale_to_unit_ball<T: Real>(w: ArrayView2<'_, T>) -> Result<Array2<T>> {
    dense::check_finite("matrix", w)?;
    let mut w = w.to_owned();
    if !w.is_empty() {
        let norm = lapack::singular_values(w.view())?[0];
        if norm > T::one() {
            w.mapv_inplace(|x| x / norm);
        }
    }
    Ok(w)
}

/// The Frobenius projection on the unit ball of the spectral norm: singular values above one become one.
///
/// A matrix inside the ball is returned as it is.
///
/// # Errors
/// [`crate::Error::NonFinite`], [`crate::Error::Lapack`].
///
/// ```
/// use projectors::unit_ball::{project_onto_unit_ball, scale_to_unit_ball};
/// let w = ndarray::array![[2.0, 0.0], [0.0, 0.5]];
/// assert_eq!(project_onto_unit_ball(w.view())?, ndarray::array![[1.0, 0.0], [0.0, 0.5]]);
/// assert_eq!(scale_to_unit_ball(w.view())?, ndarray::array![[1.0, 0.0], [0.0, 0.25]]);
/// assert!(project_onto_unit_ball(ndarray::array![[f64::NAN]].view()).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn project_onto_unit_ball<T: Real>(w: ArrayView2<'_, T>) -> Result<Array2<T>> {
    dense::check_finite("matrix", w)?;
    if w.is_empty() {
        return Ok(w.to_owned());
    }
    let (u, sigma, vt) = lapack::svd(w)?;
    if sigma[0] <= T::one() {
        return Ok(w.to_owned());
    }
    let clipped = &u * &sigma.mapv(|s| Float::min(s, T::one()));
    Ok(gemm::matmul(clipped.view(), vt.view()))
}

/// Projected gradient descent on `|W - target|_F^2 / 2` over the ball, from `start`: `n_steps` steps of size `step`, each
/// brought back into the ball by `retraction`.
///
/// # Errors
/// [`crate::Error::ShapeMismatch`], [`crate::Error::NonFinite`], [`crate::Error::Lapack`].
pub fn projected_descent<T: Real>(
    target: ArrayView2<'_, T>,
    start: ArrayView2<'_, T>,
    retraction: Retraction,
    step: T,
    n_steps: usize,
) -> Result<Array2<T>> {
    dense::check_shape("start", start, target.dim())?;
    let mut w = start.to_owned();
    for _ in 0..n_steps {
        w.zip_mut_with(&target, |w, &a| *w += step * (a - *w));
        w = retraction.apply(w.view())?;
    }
    Ok(w)
}
