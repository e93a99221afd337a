//! The polar factor of a matrix to working precision, and its closed-form pullback.
//!
//! A tall or square W (m x n, m >= n) of full rank is W = Q H with Q^T Q = I and H = (W^T W)^1/2 symmetric positive
//! definite. Q is the nearest matrix with orthonormal columns, and Q = W S, S = H^-1 = (W^T W)^-1/2. A wide W is
//! treated as its transpose: Q Q^T = I, Q = S W, S = (W W^T)^-1/2.
//!
//! Forward. Everything starts from the Gram matrix on the small side (n x n). Close to a multiple of the identity S is a
//! polynomial in it, corrected on the measured defect |Q^T Q - I|_F; elsewhere its eigenvectors give a first
//! approximation, which one correction measured on the long side brings to rounding level although forming W^T W squares
//! the condition number k of W. Where that correction is too large (k above about 150 in `f32`) the work is done in `f64`,
//! and where that fails too, by the singular value decomposition.
//!
//! Pullback. With a cotangent C of Q, X the antisymmetric solution of H X + X H = Q^T C - C^T Q,
//!
//! ```text
//! dW = Q X + (I - Q Q^T) C S.
//! ```
//!
//! No iterate is stored and nothing is differentiated step by step: saved are Q, S and two numbers.
//!
//! Guarantee: `residual` <= [`crate::tolerance::orthonormal`]; the distance to the exact factor is about eps k. The result is a function of W (and
//! the warm start) to the bit, whatever the number of threads.
//!
//! Cost in the pullback: four products of n x n, and three passes over W where m > n; [`factored_polar`] needs one pass
//! for gradients that are outer products. Forward: two to three passes over W and one eigendecomposition, or up to six
//! products where a polynomial does.
//!
//! Errors: [`crate::Error::NonFinite`], [`crate::Error::Empty`], [`crate::Error::RankDeficient`] (a rank-deficient matrix
//! has no polar factor).
//!
//! Source: Higham, "Functions of Matrices" (2008), chapter 8. The paper runs 20 Björck steps ([`crate::bjorck`]) and
//! differentiates through them; the limit of those steps is computed here.

mod approximation;
mod factored;
mod forward;
mod spectral;
mod sylvester;
mod tall;

use ndarray::{Array2, ArrayView2};

pub use factored::{FactoredPolar, factored_polar, factored_polar_within};

use crate::error::Result;
use crate::{Real, dense};
use tall::Tall;

/// The polar factor Q of a matrix W, with what its pullback needs.
#[derive(Debug, Clone)]
pub struct Polar<T> {
    /// The factorisation of W, or of its transpose if W is wide.
    tall: Tall<T>,
    wide: bool,
}

/// The polar factor of W (m x n): orthonormal columns if m >= n, orthonormal rows if m <= n.
///
/// # Errors
/// [`crate::Error::NonFinite`], [`crate::Error::Empty`], [`crate::Error::RankDeficient`].
///
/// ```
/// use projectors::polar::polar;
/// let rotation = ndarray::array![[0.0, -1.0], [1.0, 0.0]];
/// let stretch = ndarray::array![[3.0, 1.0], [1.0, 2.0]];
/// let q = polar(rotation.dot(&stretch).view())?;
/// assert!((&q.factor() - &rotation).iter().all(|x: &f64| x.abs() < 1e-14));
/// assert!(polar(ndarray::array![[1.0, 1.0], [1.0, 1.0]].view()).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn polar<T: Real>(w: ArrayView2<'_, T>) -> Result<Polar<T>> {
    polar_from(w, None)
}

/// As [`polar`], with the [`Polar::inverse_sqrt`] of a nearby matrix to start from.
///
/// The start saves products when it is close enough to need fewer corrections than a fresh computation; otherwise it
/// is ignored. It changes the result by rounding only, whatever it holds.
///
/// # Errors
/// As [`polar`].
pub fn polar_from<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
) -> Result<Polar<T>> {
    dense::check_not_empty("matrix", w)?;
    dense::check_finite("matrix", w)?;
    let wide = w.nrows() < w.ncols();
    let tall = forward::factorise(if wide { w.reversed_axes() } else { w }, start)?;
    Ok(Polar { tall, wide })
}

impl<T: Real> Polar<T> {
    /// The polar factor Q, of the shape of W.
    #[must_use]
    pub fn factor(&self) -> ArrayView2<'_, T> {
        if self.wide { self.tall.factor.t() } else { self.tall.factor.view() }
    }

    /// The polar factor Q, by value.
    #[must_use]
    pub fn into_factor(self) -> Array2<T> {
        if self.wide { self.tall.factor.reversed_axes() } else { self.tall.factor }
    }

    /// `(W^T W)^-1/2` (tall or square) or `(W W^T)^-1/2` (wide), the start for a nearby matrix.
    #[must_use]
    pub fn inverse_sqrt(&self) -> ArrayView2<'_, T> {
        self.tall.inverse_sqrt.view()
    }

    /// Polynomials and corrections applied; 0 for a decomposition.
    #[must_use]
    pub fn iterations(&self) -> usize {
        self.tall.iterations
    }

    /// The measured defect `|Q^T Q - I|_F` (`Q Q^T` if wide).
    ///
    /// Measured on Q, or for a well-conditioned W more than four times longer than wide on the equal matrix
    /// S (W^T W) S.
    #[must_use]
    pub fn residual(&self) -> f64 {
        self.tall.residual
    }

    /// Gradient in W of a function whose gradient in Q is `cotangent`.
    ///
    /// `w` is the matrix that was given to [`polar`].
    ///
    /// # Panics
    /// If an argument does not have the shape of W.
    #[must_use]
    pub fn pullback(&self, w: ArrayView2<'_, T>, cotangent: ArrayView2<'_, T>) -> Array2<T> {
        let shape = self.factor().dim();
        assert_eq!(w.dim(), shape, "shape of the matrix whose polar factor was taken");
        assert_eq!(cotangent.dim(), shape, "shape of the cotangent of a polar factor");
        if self.wide {
            self.tall.pullback(w.reversed_axes(), cotangent.reversed_axes()).reversed_axes()
        } else {
            self.tall.pullback(w, cotangent)
        }
    }
}
