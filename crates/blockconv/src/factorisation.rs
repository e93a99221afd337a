//! Equation (4) is onto: every orthogonal 1-D kernel is H □ [P_1  I-P_1] □ … □ [P_{k-1}  I-P_{k-1}].
//!
//! Definition. Let `X[0]`, …, `X[k-1]` be the n x n taps of an orthogonal kernel, A(z) = Σ `X[i]` zⁱ. Orthogonality says that
//! A(z) is unitary for |z| = 1. As A(z) is square, A(z)* A(z) = I and A(z) A(z)* = I; the coefficients of z^(k-1) are
//!
//! ```text
//! X[0]ᵗ X[k-1] = 0   (ranges of the first and the last tap are orthogonal)
//! X[0] X[k-1]ᵗ = 0   (their row spaces are orthogonal)
//! ```
//!
//! One factor at a time. A = A' □ [P  I-P] means A(z) = A'(z) (P + (I-P) z), hence A'(z) = A(z) (P + (I-P) z⁻¹), with
//!
//! ```text
//! A'[i] = X[i] P + X[i+1] (I-P),   i = -1, …, k-1   (taps outside 0..k are 0).
//! ```
//!
//! A' is unitary on the circle as a product of unitary factors. It has size k - 1 iff its taps -1 and k-1 vanish:
//! `X[0]` (I-P) = 0 and `X[k-1]` P = 0. That is, the range of P contains the row space of `X[0]` and is orthogonal to that of
//! `X[k-1]`. By the second equation above such P exist, whatever the ranks of the taps: the projector on the row space
//! of `X[0]` is the smallest, and the one returned. After k - 1 steps one orthogonal tap is left, H.
//!
//! Method. Rounding blurs row spaces: a row of length σ determines its direction to eps / σ only. Directions are
//! therefore taken in order of length from the rows of both taps together (Gram-Schmidt with pivoting), each assigned to
//! P or to I-P by the tap it came from, and removed from all rows. When a short direction is taken, what is left of the
//! other tap is no longer than it is, so an error of eps / σ in the direction costs eps / σ · σ = eps in the equations.
//! Thresholding the singular values of one tap would cost eps / σ.
//!
//! Order. What is left of the kernel after one step is orthogonal to rounding, but a kernel that is orthogonal to eps
//! and has rows of length σ at both ends can be as far as eps / σ from every exactly orthogonal one, and then the next
//! factor cannot fit both ends. Short rows on the way depend on the order in which factors are removed, so factors that do
//! not fit to rounding (about 1 random kernel in 50) are looked for in three more orders: from the start, and with the
//! largest projectors in place of the smallest; then improved by sweeps of least squares.
//!
//! Shapes. Kernels [k, n, n], k >= 1; results H n x n and k - 1 projectors of size n.
//!
//! Guarantee. The factors returned assemble to the kernel up to about k n eps ([`tolerance::factors`]) plus the kernel's
//! own defect. That is measured on every call and the best factors found are returned; it is not proven for every
//! kernel. Factors are not unique: the kernel fixes the sum of the ranks (the degree of its determinant,
//! see [`components`](crate::components)), not each rank.
//!
//! Cost. About 4 n³ flops for the directions and 2 n³ per tap, for each of the k - 1 factors; sweeps only
//! where these factors do not fit to rounding.
//!
//! Errors. [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks), and
//! [`Error::NotOrthogonal`](crate::Error::NotOrthogonal) with the defect.
//!
//! Source. Li et al., section 3 (completeness of equation (4)), after Kautsky and Turcajová, "A matrix approach to
//! discrete wavelets" (1994).

mod polish;

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis, concatenate, s};
use num_traits::Float;
use projectors::grassmann::basis;
use projectors::polar::polar;
use projectors::{Projector, Real, gemm};

use crate::assembly::assemble_1d;
use crate::error::Result;
use crate::kernel::Kernel1;
use crate::{check, tolerance};

/// H and the projectors P_1, …, P_{k-1} of a 1-D kernel.
#[derive(Clone, Debug)]
pub struct Factors1<T> {
    /// The orthogonal matrix H, the sum of all taps.
    pub h: Array2<T>,
    /// The projectors, in the order of equation (4).
    pub projectors: Vec<Projector<T>>,
}

impl<T: Real> Factors1<T> {
    /// The kernel that the factors make, by equation (4).
    ///
    /// # Errors
    /// As [`assemble_1d`].
    pub fn assemble(&self) -> Result<Kernel1<T>> {
        assemble_1d(self.h.view(), &self.projectors)
    }

    /// Σ (n - rank P_j), the degree of the determinant.
    #[must_use]
    pub fn degree(&self) -> usize {
        self.projectors.iter().map(|p| p.n() - p.rank()).sum()
    }
}

/// The factors of an orthogonal 1-D kernel.
///
/// # Errors
/// [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks), and
/// [`Error::NotOrthogonal`](crate::Error::NotOrthogonal) when the defect exceeds [`tolerance::orthogonal`].
///
/// # Example
/// ```
/// use blockconv::{Error, Kernel1, factorisation::factorise};
/// use ndarray::array;
///
/// // Channel 0 passes at once, channel 1 after two steps.
/// let taps = array![[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]];
/// let factors = factorise(&Kernel1::try_new(taps.clone()).unwrap()).unwrap();
/// assert_eq!(factors.degree(), 2);
/// assert_eq!(factors.assemble().unwrap().taps(), taps);
///
/// let average = Kernel1::try_new(array![[[0.5]], [[0.5]]]).unwrap();
/// assert!(matches!(factorise(&average), Err(Error::NotOrthogonal { defect, .. }) if defect == 1.0));
/// ```
pub fn factorise<T: Real>(kernel: &Kernel1<T>) -> Result<Factors1<T>> {
    check_orthogonal(kernel)?;
    let enough = tolerance::factors::<T>(kernel.n_in(), kernel.kernel_size());
    let mut best = Fit::new(kernel, from_the_end(kernel)?)?;
    for alternative in [from_the_start, reversed, reversed_from_the_start] {
        if best.error <= enough {
            return Ok(best.factors);
        }
        best = best.or(Fit::new(kernel, alternative(kernel)?)?);
    }
    polish::polish(kernel, best, enough)
}

/// Factors and how far their product is from the kernel, in the Frobenius norm.
#[derive(Debug)]
struct Fit<T> {
    factors: Factors1<T>,
    error: f64,
}

impl<T: Real> Fit<T> {
    fn new(kernel: &Kernel1<T>, factors: Factors1<T>) -> Result<Self> {
        let difference = &factors.assemble()?.taps() - &kernel.taps();
        let error = difference.iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt();
        Ok(Self { factors, error })
    }

    fn or(self, other: Self) -> Self {
        if other.error < self.error { other } else { self }
    }
}

/// Removes factors from the end, the projectors as small as possible.
fn from_the_end<T: Real>(kernel: &Kernel1<T>) -> Result<Factors1<T>> {
    let mut taps = kernel.taps().to_owned();
    let mut projectors = Vec::with_capacity(taps.len_of(Axis(0)) - 1);
    while taps.len_of(Axis(0)) > 1 {
        let last = taps.len_of(Axis(0)) - 1;
        let p = separator(taps.index_axis(Axis(0), 0), taps.index_axis(Axis(0), last))?;
        taps = remove_last_factor(taps.view(), p.matrix());
        projectors.push(p);
    }
    projectors.reverse();
    let h = polar(taps.index_axis(Axis(0), 0))?.into_factor();
    Ok(Factors1 { h, projectors })
}

/// Removes factors from the start: A†(z) = z^(k-1) A(1/z)ᵗ = Hᵗ B(R_1) … B(R_{k-1}) with R_i = H (I - P_{k-i}) Hᵗ.
fn from_the_start<T: Real>(kernel: &Kernel1<T>) -> Result<Factors1<T>> {
    let mirrored = from_the_end(&kernel.transpose())?;
    let h = mirrored.h.reversed_axes().as_standard_layout().into_owned();
    let projectors = mirrored.projectors.iter().rev().map(|r| {
        let basis = basis(&r.complement())?;
        Ok(Projector::from_range(gemm::matmul(h.t(), basis.view()).view())?)
    });
    Ok(Factors1 { projectors: projectors.collect::<Result<_>>()?, h })
}

/// Removes factors from the end, the projectors as large as possible: the taps in reverse belong to I - P_j.
fn reversed<T: Real>(kernel: &Kernel1<T>) -> Result<Factors1<T>> {
    Ok(complements(from_the_end(&in_reverse(kernel)?)?))
}

/// Removes factors from the start, the projectors as large as possible.
fn reversed_from_the_start<T: Real>(kernel: &Kernel1<T>) -> Result<Factors1<T>> {
    Ok(complements(from_the_start(&in_reverse(kernel)?)?))
}

fn in_reverse<T: Real>(kernel: &Kernel1<T>) -> Result<Kernel1<T>> {
    Kernel1::try_new(kernel.taps().slice(s![..;-1, .., ..]).to_owned())
}

fn complements<T: Real>(factors: Factors1<T>) -> Factors1<T> {
    let projectors = factors.projectors.iter().map(Projector::complement).collect();
    Factors1 { projectors, ..factors }
}

/// The kernel has square blocks and is orthogonal to rounding.
pub(crate) fn check_orthogonal<T: Real>(kernel: &Kernel1<T>) -> Result<()> {
    check::square("the kernel", kernel.n_out(), kernel.n_in())?;
    kernel.check_orthogonal(tolerance::orthogonal::<T>(kernel.n_in(), kernel.kernel_size()))
}

/// A'[i] = X[i] P + X[i+1] (I-P) = X[i+1] + (X[i] - X[i+1]) P for i = 0, …, k-2.
fn remove_last_factor<T: Real>(taps: ArrayView3<'_, T>, p: ArrayView2<'_, T>) -> Array3<T> {
    let mut rest = taps.slice(s![1.., .., ..]).to_owned();
    for (mut tap, head) in rest.outer_iter_mut().zip(taps.outer_iter()) {
        let difference = &head - &tap;
        tap += &gemm::matmul(difference.view(), p);
    }
    rest
}

/// A projector whose range contains the row space of `first` and is orthogonal to that of `last`.
fn separator<T: Real>(first: ArrayView2<'_, T>, last: ArrayView2<'_, T>) -> Result<Projector<T>> {
    let n = first.nrows();
    let mut rows = concatenate(Axis(0), &[first, last]).expect("taps of one kernel fit");
    let mut directions = Array2::zeros((0, n));
    let mut of_first = Vec::new();
    while directions.nrows() < n {
        let (longest, length) = longest_row(&rows);
        if length <= tolerance::vanishing_row::<T>(n) {
            break;
        }
        let direction = orthonormalised(rows.row(longest).to_owned(), &directions);
        let along = rows.dot(&direction);
        for (mut row, &a) in rows.rows_mut().into_iter().zip(&along) {
            row.scaled_add(-a, &direction);
        }
        if longest < n {
            of_first.push(directions.nrows());
        }
        directions.push_row(direction.view()).expect("rows have length n");
    }
    let basis = directions.select(Axis(0), &of_first);
    Ok(Projector::from_basis(basis.t())?)
}

fn longest_row<T: Real>(rows: &Array2<T>) -> (usize, f64) {
    let lengths = rows.rows().into_iter().map(|row| row.dot(&row).as_f64().sqrt());
    let longer = |best: (usize, f64), row: (usize, f64)| if row.1 > best.1 { row } else { best };
    lengths.enumerate().fold((0, 0.0), longer)
}

/// The unit vector along what is left of `v` beside the orthonormal rows of `directions`.
///
/// Twice is enough: after one pass the rest may keep rounding errors of the size of the original vector.
fn orthonormalised<T: Real>(mut v: Array1<T>, directions: &Array2<T>) -> Array1<T> {
    for _ in 0..2 {
        let length = Float::sqrt(v.dot(&v));
        v.mapv_inplace(|x| x / length);
        let along = directions.dot(&v);
        v -= &directions.t().dot(&along);
    }
    let length = Float::sqrt(v.dot(&v));
    v.mapv(|x| x / length)
}
