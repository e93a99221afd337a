//! Geometry of the space of projectors: components, geodesics, nearest projectors.
//!
//! P(n) has n + 1 connected components, and the rank is their label: the trace is continuous and an integer on P(n), so
//! no path changes it, and two projectors of equal rank are joined by the path built here.
//!
//! Path. Let U, V (n x k) be orthonormal bases of the ranges of P and Q, and U^T V = A cos(Theta) B^T a singular value
//! decomposition. The principal vectors U A and V B pair off at the principal angles theta_i in [0, pi/2], and
//!
//! ```text
//! Y(t) = U A cos(t Theta) + (V B - U A cos(Theta)) sin(t Theta) / sin(Theta),   P(t) = Y(t) Y(t)^T
//! ```
//!
//! is the geodesic of the Grassmannian from P(0) = P to P(1) = Q. Each principal vector moves along a great circle.
//! For theta_i = 0 the quotient is its limit t. Its length is |Theta|_2, and |P(s) - P(t)|_F <= sqrt(2) |s - t| |Theta|_2.
//!
//! Guarantee: every P(t) is a projector to rounding: Y(t) is orthonormalised again by [`crate::range`].
//! Errors: [`Error::RanksDiffer`], [`Error::ShapeMismatch`].
//!
//! Source: Li et al. (2019), Theorem 1 and its proof (components of P(n)); Edelman, Arias, Smith, "The geometry of
//! algorithms with orthogonality constraints", SIAM J. Matrix Anal. Appl. 20 (1998), for the geodesic.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};
use num_traits::Float;

use crate::error::{Error, Result};
use crate::{Projector, Real, dense, gemm, lapack, symmetric};

/// The geodesic between two projectors of equal rank.
#[derive(Debug, Clone)]
pub struct Geodesic<T> {
    /// Principal vectors of the start (n x k).
    start: Array2<T>,
    /// `V B - U A cos(Theta)`: orthogonal to `start`, columns of length `sin(theta_i)`.
    offset: Array2<T>,
    angles: Array1<T>,
}

/// The geodesic from `from` (t = 0) to `to` (t = 1).
///
/// # Errors
/// [`Error::ShapeMismatch`] for different dimensions, [`Error::RanksDiffer`] for projectors in different components.
///
/// ```
/// use projectors::{Projector, grassmann::geodesic};
/// let x_axis = Projector::try_new(ndarray::array![[1.0, 0.0], [0.0, 0.0]])?;
/// let y_axis = x_axis.complement();
/// let half_way = geodesic(&x_axis, &y_axis)?.at(0.5)?;
/// assert!(half_way.matrix().iter().all(|x: &f64| (x.abs() - 0.5).abs() < 1e-15));
/// let zero = Projector::try_new(ndarray::array![[0.0, 0.0], [0.0, 0.0]])?;
/// assert!(geodesic(&x_axis, &zero).is_err());
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn geodesic<T: Real>(from: &Projector<T>, to: &Projector<T>) -> Result<Geodesic<T>> {
    dense::check_shape("second projector", to.matrix(), from.matrix().dim())?;
    if from.rank() != to.rank() {
        return Err(Error::RanksDiffer { left: from.rank(), right: to.rank() });
    }
    let (u, v) = (basis(from)?, basis(to)?);
    if from.rank() == 0 {
        return Ok(Geodesic { offset: u.clone(), start: u, angles: Array1::zeros(0) });
    }
    let (a, cosines, bt) = lapack::svd(gemm::matmul(u.t(), v.view()).view())?;
    let start = gemm::matmul(u.view(), a.view());
    let mut offset = gemm::matmul(v.view(), bt.t());
    // The sines come from the offset itself, because acos loses half of the digits at small angles.
    let mut angles = cosines;
    Zip::from(offset.columns_mut()).and(start.columns()).and(&mut angles).for_each(
        |mut column, start, angle| {
            let cosine = column.dot(&start);
            column.zip_mut_with(&start, |x, &s| *x -= cosine * s);
            *angle = Float::atan2(Float::sqrt(column.dot(&column)), cosine);
        },
    );
    Ok(Geodesic { start, offset, angles })
}

impl<T: Real> Geodesic<T> {
    /// The projector at t; 0 gives the start, 1 the end, other values continue the great circles.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a t that is not finite.
    pub fn at(&self, t: f64) -> Result<Projector<T>> {
        if !t.is_finite() {
            return Err(Error::InvalidSetting { name: "t", value: t, expected: "a finite number" });
        }
        let mut y = self.start.clone();
        let columns = Zip::from(y.columns_mut()).and(self.offset.columns()).and(&self.angles);
        columns.for_each(|mut column, offset, &angle| {
            let angle = angle.as_f64();
            let ratio = if angle > 1e-9 { (t * angle).sin() / angle.sin() } else { t };
            let (cosine, ratio) = (T::of((t * angle).cos()), T::of(ratio));
            column.zip_mut_with(&offset, |y, &d| *y = cosine * *y + ratio * d);
        });
        Projector::from_range(y.view())
    }

    /// The principal angles between the ends, each in [0, pi/2].
    #[must_use]
    pub fn angles(&self) -> &Array1<T> {
        &self.angles
    }

    /// Length of the path on the Grassmannian, the Euclidean norm of the angles.
    #[must_use]
    pub fn length(&self) -> T {
        Float::sqrt(self.angles.dot(&self.angles))
    }
}

/// Orthonormal columns (n x k) that span the range of a projector.
///
/// # Errors
/// [`Error::Lapack`] if the eigendecomposition fails.
pub fn basis<T: Real>(projector: &Projector<T>) -> Result<Array2<T>> {
    let (n, rank) = (projector.n(), projector.rank());
    if n == 0 || rank == 0 {
        return Ok(Array2::zeros((n, rank)));
    }
    let (_, vectors) = lapack::eigh(projector.matrix())?;
    // Eigenvalues ascend: the ones come last.
    Ok(vectors.slice_axis(Axis(1), (n - rank..n).into()).to_owned())
}

/// The projector nearest to a symmetric matrix in the Frobenius norm, of whatever rank is nearest.
///
/// It projects on the eigenvectors with eigenvalue above 1/2; at exactly 1/2 both choices are equally near, and the
/// smaller rank is taken.
///
/// # Errors
/// [`Error::NotSquare`], [`Error::NonFinite`], [`Error::NotSymmetric`], [`Error::Lapack`].
pub fn nearest_projector<T: Real>(symmetric: ArrayView2<'_, T>) -> Result<Projector<T>> {
    let (values, vectors) = symmetric::eigen(symmetric)?;
    let rank = values.iter().filter(|x| x.as_f64() > 0.5).count();
    Ok(top_projector(&vectors, rank))
}

/// The projector of the given rank nearest to a symmetric matrix in the Frobenius norm: on the top eigenvectors.
///
/// # Errors
/// As [`nearest_projector`], and [`Error::RankOutOfRange`] if `rank > n`.
pub fn nearest_projector_of_rank<T: Real>(
    symmetric: ArrayView2<'_, T>,
    rank: usize,
) -> Result<Projector<T>> {
    let (_, vectors) = symmetric::eigen(symmetric)?;
    let n = vectors.nrows();
    if rank > n {
        return Err(Error::RankOutOfRange { rank, n });
    }
    Ok(top_projector(&vectors, rank))
}

fn top_projector<T: Real>(vectors: &Array2<T>, rank: usize) -> Projector<T> {
    let n = vectors.nrows();
    Projector::from_orthonormal(vectors.slice_axis(Axis(1), (n - rank..n).into()), rank)
}
