//! Symmetric projectors: matrices with P = P^2 = P^T.
//!
//! The projectors on R^n form the space P(n). It has n + 1 connected components, one for each rank k = 0, ..., n, and
//! the component of rank k is the Grassmannian of k-dimensional subspaces: P is determined by its range. The rank is
//! the trace.
//!
//! A [`Projector`] is n x n. Its constructors check the defining equations or enforce them to rounding; a projector
//! from anywhere else passes through [`Projector::try_new`]. Cost: 2 n^3 flops for the check, less for the others.
//!
//! Source: Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks" (2019),
//! section 3.1 and Theorem 1. Paths within a component and the nearest projector are in [`crate::grassmann`].

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use num_traits::Float;
use rand::Rng;

use crate::error::{Error, Result};
use crate::{Real, dense, gemm, haar_frame, range, tolerance};

/// A symmetric projector and its rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Projector<T> {
    matrix: Array2<T>,
    rank: usize,
}

impl<T: Real> Projector<T> {
    /// Accepts a matrix that is symmetric and idempotent up to [`tolerance::projector`], as it is.
    ///
    /// # Errors
    /// [`Error::NotSquare`], [`Error::NonFinite`], or [`Error::NotAProjector`] with both defects.
    ///
    /// ```
    /// use projectors::Projector;
    /// let p = Projector::try_new(ndarray::array![[0.5, 0.5], [0.5, 0.5]])?;
    /// assert_eq!(p.rank(), 1);
    /// assert!(Projector::try_new(ndarray::array![[1.0, 0.0], [0.0, 0.999]]).is_err());
    /// # Ok::<(), projectors::Error>(())
    /// ```
    pub fn try_new(matrix: Array2<T>) -> Result<Self> {
        let n = dense::check_square("projector", matrix.view())?;
        dense::check_finite("projector", matrix.view())?;
        let tolerance = tolerance::projector::<T>(n);
        let asymmetry = dense::frobenius_distance(matrix.view(), matrix.t());
        let idempotence = idempotence_defect(matrix.view());
        // NaN, from entries whose squares overflow, counts as a defect.
        if !(asymmetry <= tolerance && idempotence <= tolerance) {
            return Err(Error::NotAProjector { asymmetry, idempotence, tolerance });
        }
        let trace: f64 = matrix.diag().iter().map(|x| x.as_f64()).sum();
        Ok(Self { rank: (trace.round().max(0.0) as usize).min(n), matrix })
    }

    /// The projector `B B^T` on the span of the orthonormal columns of an n x k matrix.
    ///
    /// # Errors
    /// [`Error::NonFinite`], or [`Error::NotOrthonormal`] when `|B^T B - I|_F` exceeds [`tolerance::projector`].
    pub fn from_basis(basis: ArrayView2<'_, T>) -> Result<Self> {
        dense::check_finite("basis", basis)?;
        let (n, k) = basis.dim();
        let (defect, tolerance) =
            (dense::distance_to_identity(gemm::gram(basis).view()), tolerance::projector::<T>(n));
        if defect <= tolerance {
            Ok(Self::from_orthonormal(basis, k))
        } else {
            Err(Error::NotOrthonormal { what: "basis", defect, tolerance })
        }
    }

    /// The projector on the range of an n x k matrix of full column rank, 0 <= k <= n.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::RankDeficient`], and as [`range::project_range`].
    pub fn from_range(matrix: ArrayView2<'_, T>) -> Result<Self> {
        let rank = matrix.ncols();
        range::project_range(matrix)
            .map(|projection| Self { matrix: projection.into_matrix(), rank })
    }

    /// A projector of the given rank, uniform on its component (the Grassmannian).
    ///
    /// # Errors
    /// [`Error::RankOutOfRange`] if `rank > n`.
    pub fn random(n: usize, rank: usize, rng: &mut (impl Rng + ?Sized)) -> Result<Self> {
        let frame = haar_frame::<T>(n, rank, rng)?;
        Ok(Self::from_orthonormal(frame.view(), rank))
    }

    /// The projector `I - P` on the orthogonal complement, of rank n - k.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut matrix = self.matrix.mapv(|x| -x);
        dense::add_diagonal(&mut matrix, T::one());
        Self { matrix, rank: self.n() - self.rank }
    }

    /// Dimension of the range.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Dimension of the space.
    #[must_use]
    pub fn n(&self) -> usize {
        self.matrix.nrows()
    }

    /// The n x n matrix.
    #[must_use]
    pub fn matrix(&self) -> ArrayView2<'_, T> {
        self.matrix.view()
    }

    /// The n x n matrix, by value.
    #[must_use]
    pub fn into_matrix(self) -> Array2<T> {
        self.matrix
    }

    /// The projection `P x` of a vector.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the vector has not n entries.
    ///
    /// ```
    /// use projectors::Projector;
    /// let p = Projector::try_new(ndarray::array![[1.0, 0.0], [0.0, 0.0]])?;
    /// assert_eq!(p.apply(ndarray::array![3.0, 4.0].view())?, ndarray::array![3.0, 0.0]);
    /// assert!(p.apply(ndarray::array![3.0].view()).is_err());
    /// # Ok::<(), projectors::Error>(())
    /// ```
    pub fn apply(&self, x: ArrayView1<'_, T>) -> Result<Array1<T>> {
        let column = x.insert_axis(Axis(1));
        dense::check_shape("vector", column, (self.n(), 1))?;
        Ok(gemm::matmul(self.matrix(), column).remove_axis(Axis(1)))
    }

    /// Frobenius distance `|P - Q|_F`; for equal ranks it is `sqrt(2)` times the norm of the sines of the angles.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the projectors act on spaces of different dimension.
    pub fn distance(&self, other: &Self) -> Result<T> {
        dense::check_shape("second projector", other.matrix(), self.matrix.dim())?;
        Ok(T::of(dense::frobenius_distance(self.matrix(), other.matrix())))
    }

    /// The defect `max(|P^2 - P|_F, |P - P^T|_F)`, what rounding left.
    #[must_use]
    pub fn defect(&self) -> T {
        let asymmetry = dense::frobenius_distance(self.matrix(), self.matrix.t());
        T::of(Float::max(idempotence_defect(self.matrix()), asymmetry))
    }

    /// `B B^T` for columns known to be orthonormal.
    pub(crate) fn from_orthonormal(basis: ArrayView2<'_, T>, rank: usize) -> Self {
        Self { matrix: gemm::gram(basis.t()), rank }
    }
}

/// `|P^2 - P|_F`.
fn idempotence_defect<T: Real>(p: ArrayView2<'_, T>) -> f64 {
    let mut square = p.to_owned();
    gemm::matmul_into(T::one(), p, p, -T::one(), square.view_mut());
    dense::frobenius(square.view())
}
