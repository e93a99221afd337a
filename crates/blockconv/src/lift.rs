//! Theorem 3: with n auxiliary channels, projectors of rank n suffice for every kernel of equation (5) on n channels.
//!
//! Definition. Let W = H □ [P_1; I-P_1] □ [Q_1  I-Q_1] □ … have n channels and projectors of any ranks. On 2n channels take
//!
//! ```text
//! H' = diag(H, I),   P' = diag(P, R)   with R a projector of rank n - rank P, here on the first n - rank P coordinates,
//! ```
//!
//! and Q' likewise. P' has rank n for each P. All factors are block diagonal, hence so is the kernel:
//! W' = diag(W, V), and W' * v restricted to the first n channels is W * (v restricted to them). The kernels W of all
//! 2((k-1)n + 1)² labels are so parts of kernels of the one label per sign that BCOP on 2n channels reaches.
//!
//! Shapes. H n x n, projectors n x n; lifted 2n x 2n.
//!
//! Guarantee. The first n channels agree with the original to rounding; the couplings between the two halves are 0 exactly.
//!
//! Errors. [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks), [`Error::ShapeMismatch`](crate::Error::ShapeMismatch), and
//! [`Error::NonFinite`](crate::Error::NonFinite) for H.
//!
//! Source. Li et al., Theorem 3 and its proof.

use ndarray::{Array2, ArrayView2, s};
use projectors::{Projector, Real};

use crate::assembly::{assemble_1d, assemble_2d};
use crate::check;
use crate::error::Result;
use crate::kernel::{Kernel1, Kernel2};

/// The factors of a kernel on 2n channels whose projectors all have rank n.
#[derive(Clone, Debug)]
pub struct Lift<T> {
    /// diag(H, I).
    pub h: Array2<T>,
    /// Vertical projectors, each of rank n.
    pub ps: Vec<Projector<T>>,
    /// Horizontal projectors, each of rank n.
    pub qs: Vec<Projector<T>>,
}

/// Lifts the factors of equation (5), or of equation (4) with no `qs`, from n to 2n channels.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) or [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks) for H,
/// [`Error::NonFinite`](crate::Error::NonFinite), [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) when a projector
/// is not n x n.
///
/// # Example
/// ```
/// use blockconv::lift::lift;
/// use ndarray::array;
/// use projectors::Projector;
///
/// let (h, zero) = (array![[1.0]], Projector::try_new(array![[0.0]]).unwrap());
/// let lifted = lift(h.view(), &[zero], &[]).unwrap();
/// assert_eq!(lifted.ps[0].rank(), 1);
/// assert_eq!(lifted.assemble_1d().unwrap().taps().dim(), (2, 2, 2));
/// let wide = Projector::try_new(array![[1.0, 0.0], [0.0, 0.0]]).unwrap();
/// assert!(lift(h.view(), &[wide], &[]).is_err());
/// ```
pub fn lift<T: Real>(
    h: ArrayView2<'_, T>,
    ps: &[Projector<T>],
    qs: &[Projector<T>],
) -> Result<Lift<T>> {
    check::not_empty("H", &h)?;
    check::square("H", h.nrows(), h.ncols())?;
    check::finite("H", &h)?;
    let n = h.nrows();
    let all = |projectors: &[Projector<T>]| {
        projectors.iter().map(|p| lift_projector(p, n)).collect::<Result<Vec<_>>>()
    };
    Ok(Lift { h: block_diagonal(h, |_| true), ps: all(ps)?, qs: all(qs)? })
}

impl<T: Real> Lift<T> {
    /// Equation (4) with the vertical projectors.
    ///
    /// # Errors
    /// As [`assemble_1d`].
    pub fn assemble_1d(&self) -> Result<Kernel1<T>> {
        assemble_1d(self.h.view(), &self.ps)
    }

    /// Equation (5).
    ///
    /// # Errors
    /// As [`assemble_2d`]: `ps` and `qs` must be equally many.
    pub fn assemble_2d(&self) -> Result<Kernel2<T>> {
        assemble_2d(self.h.view(), &self.ps, &self.qs)
    }
}

/// diag(P, R) with R = 1 on the first n - rank P coordinates and 0 on the others.
fn lift_projector<T: Real>(p: &Projector<T>, n: usize) -> Result<Projector<T>> {
    check::shape("a projector", &[n, n], p.matrix().shape())?;
    let missing = n - p.rank();
    Ok(Projector::try_new(block_diagonal(p.matrix(), |i| i < missing))?)
}

/// diag(A, D) with D diagonal, 1 where `one` holds and 0 elsewhere.
fn block_diagonal<T: Real>(a: ArrayView2<'_, T>, one: impl Fn(usize) -> bool) -> Array2<T> {
    let n = a.nrows();
    let mut lifted = Array2::zeros((2 * n, 2 * n));
    lifted.slice_mut(s![..n, ..n]).assign(&a);
    for i in (0..n).filter(|&i| one(i)) {
        lifted[[n + i, n + i]] = T::one();
    }
    lifted
}
