//! Orthogonal kernels from an orthogonal matrix and symmetric projectors: equations (4) and (5) of the paper.
//!
//! Definition. 1-D: W = H □ [P_1  I-P_1] □ … □ [P_{k-1}  I-P_{k-1}]. 2-D: W = H □ [P_1; I-P_1] □ [Q_1  I-Q_1] □ … with
//! [P; I-P] vertical (first kernel axis) and [Q  I-Q] horizontal (second). H orthogonal and P, Q symmetric projectors
//! make W orthogonal: every factor satisfies [P; I-P]† □ [P; I-P] = δ I, and products of isometries are isometries.
//!
//! Shapes. H and all projectors n x n; the kernel is k x k with k - 1 of each of P and Q. For c_out != c_in take
//! n = max(c_out, c_in) and keep the first c_out rows and c_in columns of every tap: rows of an orthogonal operator are
//! orthonormal, and its restriction to the first channels is an isometry.
//!
//! Guarantee. Orthogonal to rounding: a few eps per factor times the defects of H and of the projectors. Deterministic
//! bit for bit. [`assemble`] is multilinear in arbitrary matrices: it checks shapes and finiteness, not orthogonality.
//!
//! Cost. Multiplied into the small end: one product of a (taps · min(c_out, c_in)) x n stack with an n x n matrix per
//! factor, A (I-Q) = A - AQ costing no product; 1 + 2 + 4 + 6 taps for k = 3. The pullback costs twice that.
//!
//! Errors. [`Error::NonSquareBlocks`], [`Error::ShapeMismatch`], [`Error::FactorCount`], [`Error::Empty`],
//! [`Error::NonFinite`].
//!
//! Source. Li et al., section 3, equations (4) and (5).
//!
//! Not here. Raw parameters to H and projectors: [`bcop`](crate::bcop).

use ndarray::{Array2, Array4, ArrayView2, ArrayView4, Axis};
use projectors::{Projector, Real, gemm};

use crate::chain::{Chain, Direction, Geometry};
use crate::check;
use crate::error::{Error, Result};
use crate::kernel::{Kernel1, Kernel2, kernel_of};
use crate::scratch::Scratch;

/// Equation (4): the 1-D kernel of size `projectors.len() + 1` from H (n x n) and projectors of size n.
///
/// # Errors
/// [`Error::NonSquareBlocks`] or [`Error::Empty`] for H, [`Error::NonFinite`], [`Error::ShapeMismatch`] when a projector
/// is not n x n.
///
/// # Example
/// ```
/// use blockconv::assembly::assemble_1d;
/// use ndarray::array;
/// use projectors::Projector;
///
/// let h = array![[0.0, 1.0], [-1.0, 0.0]];
/// let p = Projector::try_new(array![[1.0, 0.0], [0.0, 0.0]]).unwrap();
/// let kernel = assemble_1d(h.view(), &[p]).unwrap();
/// assert_eq!(kernel.taps().dim(), (2, 2, 2));
/// assert_eq!(kernel.orthogonality_defect(), 0.0);
/// assert!(assemble_1d(array![[1.0, 0.0]].view(), &[]).is_err());
/// ```
pub fn assemble_1d<T: Real>(
    h: ArrayView2<'_, T>,
    projectors: &[Projector<T>],
) -> Result<Kernel1<T>> {
    let factors: Vec<_> = projectors.iter().map(Projector::matrix).collect();
    let chain = square_chain(h, &vec![Direction::Vertical; factors.len()], &factors)?;
    Kernel1::try_new(taps_of(&chain, h.nrows(), h.nrows()).remove_axis(Axis(1)))
}

/// Equation (5): the k x k kernel of k - 1 projectors P and as many Q, factors in the order P1, Q1, P2, Q2, ….
///
/// # Errors
/// As [`assemble_1d`]; [`Error::ShapeMismatch`] also when `ps` and `qs` differ in number.
pub fn assemble_2d<T: Real>(
    h: ArrayView2<'_, T>,
    ps: &[Projector<T>],
    qs: &[Projector<T>],
) -> Result<Kernel2<T>> {
    check::shape("the list of horizontal projectors", &[ps.len()], &[qs.len()])?;
    let factors: Vec<_> = ps.iter().zip(qs).flat_map(|(p, q)| [p.matrix(), q.matrix()]).collect();
    let chain = square_chain(h, &alternating(factors.len()), &factors)?;
    Kernel2::try_new(taps_of(&chain, h.nrows(), h.nrows()))
}

/// An assembled kernel together with what its pullback needs.
#[derive(Clone, Debug)]
pub struct Assembly<T: Real> {
    chain: Chain<T>,
    h: Array2<T>,
    projectors: Vec<Array2<T>>,
    taps: Array4<T>,
}

/// Assembles the k x k kernel of equation (5) from `h` (n x n) and 2(k-1) matrices in the order P1, Q1, P2, Q2, …,
/// keeping the first `c_out` rows and `c_in` columns; n = max(c_out, c_in).
///
/// # Errors
/// [`Error::FactorCount`] for an odd number of projectors, [`Error::Empty`] for c_out or c_in 0,
/// [`Error::NonSquareBlocks`], [`Error::ShapeMismatch`] when a matrix is not n x n, [`Error::NonFinite`].
pub fn assemble<T: Real>(
    h: ArrayView2<'_, T>,
    projectors: &[ArrayView2<'_, T>],
    c_out: usize,
    c_in: usize,
) -> Result<Assembly<T>> {
    check_matrices(h, projectors)?;
    let n = check_channels(c_out, c_in)?;
    check::shape("H", &[n, n], h.shape())?;
    if !projectors.len().is_multiple_of(2) {
        let (what, count) = ("the list of projectors", projectors.len());
        return Err(Error::FactorCount { what, count, needed: "2(k - 1), an even number" });
    }
    gemm::single_threaded_blas();
    let geometry = Geometry::new(&alternating(projectors.len()), n, c_out, c_in);
    let chain = Chain::forward(geometry, h, projectors, &Scratch::default());
    let taps = taps_of(&chain, c_out, c_in);
    let projectors = projectors.iter().map(ArrayView2::to_owned).collect();
    Ok(Assembly { chain, h: h.to_owned(), projectors, taps })
}

impl<T: Real> Assembly<T> {
    /// The kernel, [k, k, c_out, c_in].
    #[must_use]
    pub fn taps(&self) -> ArrayView4<'_, T> {
        self.taps.view()
    }

    /// The kernel as a value of its own.
    #[must_use]
    pub fn kernel(&self) -> Kernel2<T> {
        kernel_of(self.taps.clone())
    }

    /// The pullback: the cotangents of H and of P1, Q1, P2, Q2, … for a `cotangent` of the taps.
    ///
    /// They are those of the unconstrained matrices: the derivative of ⟨cotangent, taps⟩ in each entry.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `cotangent` is not shaped as [`taps`](Self::taps).
    pub fn pullback(&self, cotangent: ArrayView4<'_, T>) -> Result<(Array2<T>, Vec<Array2<T>>)> {
        check::shape("the cotangent of the taps", self.taps.shape(), cotangent.shape())?;
        let factors: Vec<_> = self.projectors.iter().map(|p| p.view()).collect();
        let pulled = self.chain.pullback(self.h.view(), &factors, cotangent);
        Ok((pulled.h, pulled.factors))
    }
}

/// Vertical, horizontal, vertical, …: the directions of P1, Q1, P2, ….
pub(crate) fn alternating(n_factors: usize) -> Vec<Direction> {
    [Direction::Vertical, Direction::Horizontal].into_iter().cycle().take(n_factors).collect()
}

/// max(c_out, c_in), both of which must be at least 1.
pub(crate) fn check_channels(c_out: usize, c_in: usize) -> Result<usize> {
    if c_out == 0 || c_in == 0 {
        return Err(Error::Empty { what: "the kernel", shape: vec![c_out, c_in] });
    }
    Ok(c_out.max(c_in))
}

pub(crate) fn taps_of<T: Real>(chain: &Chain<T>, c_out: usize, c_in: usize) -> Array4<T> {
    let (kh, kw) = chain.geometry().kernel_size();
    let mut taps = Array4::zeros((kh, kw, c_out, c_in));
    chain.write_taps(taps.view_mut());
    taps
}

fn square_chain<T: Real>(
    h: ArrayView2<'_, T>,
    directions: &[Direction],
    factors: &[ArrayView2<'_, T>],
) -> Result<Chain<T>> {
    check_matrices(h, factors)?;
    gemm::single_threaded_blas();
    let n = h.nrows();
    Ok(Chain::forward(Geometry::new(directions, n, n, n), h, factors, &Scratch::default()))
}

fn check_matrices<T: Real>(h: ArrayView2<'_, T>, projectors: &[ArrayView2<'_, T>]) -> Result<()> {
    check::not_empty("H", &h)?;
    check::square("H", h.nrows(), h.ncols())?;
    check::finite("H", &h)?;
    for projector in projectors {
        check::square("a projector", projector.nrows(), projector.ncols())?;
        check::shape("a projector", h.shape(), projector.shape())?;
        check::finite("a projector", projector)?;
    }
    Ok(())
}
