//! The BCOP parametrisation: unconstrained matrices to an orthogonal convolution kernel, and its pullback.
//!
//! Definition. Parameters are 2k - 1 real n x n matrices, n = max(c_out, c_in). Slice 0 gives H, its orthogonal polar
//! factor. Slices 1, 2, 3, … give P_1, Q_1, P_2, …: with M the first n/2 columns (integer division), P = M (MᵗM)⁻¹ Mᵗ is
//! the projector on their range, the same as U Uᵗ for U the polar factor of M. The kernel is equation (5),
//! H □ [P_1; I-P_1] □ [Q_1  I-Q_1] □ …, cut to c_out rows and c_in columns.
//!
//! Shapes. Parameters [2k-1, n, n]; layer weight c_out x c_in x k x k (OIHW), used as a cross-correlation with cyclic
//! padding k/2 before and (k-1)/2 after, see [`layer_weight`](crate::layer_weight). k = 1 leaves H alone; n = 1 has
//! rank n/2 = 0, P = 0.
//!
//! Guarantee. The kernel is orthogonal to rounding, because H is a converged polar factor and the projectors involve no
//! iteration at all. Deterministic bit for bit for given inputs, whatever the number of threads.
//!
//! Cost. A polar factor of an n x n matrix, 2(k-1) Cholesky factorisations of size n/2, and the
//! [assembly](crate::assembly). The last n - n/2 columns of slices 1.. have no effect and get a zero gradient.
//!
//! Errors. [`Error::ShapeMismatch`], [`Error::FactorCount`], [`Error::Empty`], and [`Error::Parameter`] naming the slice
//! that is not finite, rank deficient or not orthonormalised to working precision.
//!
//! Source. Li et al., section 3.2 and algorithm 1, with the projector in closed form in place of Björck iterations.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, Axis, s};
use projectors::polar::{self, Polar};
use projectors::range::{self, RangeProjection};
use projectors::{Real, gemm, haar_orthogonal};
use rand::Rng;

use crate::assembly::{alternating, check_channels, taps_of};
use crate::chain::{Chain, Geometry};
use crate::check;
use crate::conversion::{taps_view, taps_view_mut};
use crate::error::{Error, Result};
use crate::kernel::{Kernel2, kernel_of};
use crate::scratch::Scratch;

/// An evaluated parametrisation: the kernel and what its pullback needs.
#[derive(Debug)]
pub struct Bcop<T: Real> {
    c_out: usize,
    c_in: usize,
    /// Slice 0 of the parameters, from which the pullback of H starts.
    raw_h: Array2<T>,
    h: Polar<T>,
    projections: Vec<RangeProjection<T>>,
    chain: Chain<T>,
}

/// Below this n the projectors are computed one after the other: they take microseconds.
const PARALLEL_FROM: usize = 48;

/// Evaluates the parametrisation.
///
/// `warm` may be the [`inverse_sqrt`](Bcop::inverse_sqrt) of an evaluation at nearby parameters, as the previous
/// training step; it saves iterations of the polar factor and changes nothing beyond rounding.
///
/// # Errors
/// [`Error::FactorCount`] for an even number of slices, [`Error::Empty`] for zero channels, [`Error::ShapeMismatch`]
/// when the slices are not n x n with n = max(c_out, c_in), [`Error::Parameter`] for a slice that is not finite, rank
/// deficient, or whose polar factor does not converge.
///
/// # Example
/// ```
/// use blockconv::{Error, bcop::bcop, from_layer_weight};
/// use ndarray::Array3;
/// use projectors::haar_orthogonal;
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
/// let mut parameters = Array3::<f64>::zeros((5, 8, 8));
/// parameters.outer_iter_mut().for_each(|mut slice| slice.assign(&haar_orthogonal(8, &mut rng)));
/// let weight = bcop(parameters.view(), 4, 8, None).unwrap().layer_weight();
/// assert_eq!(weight.dim(), (4, 8, 3, 3));
/// from_layer_weight(weight.view()).unwrap().check_orthogonal(1e-13).unwrap();
/// assert!(matches!(bcop(parameters.view(), 4, 9, None), Err(Error::ShapeMismatch { .. })));
/// ```
pub fn bcop<T: Real>(
    parameters: ArrayView3<'_, T>,
    c_out: usize,
    c_in: usize,
    warm: Option<ArrayView2<'_, T>>,
) -> Result<Bcop<T>> {
    Bcop::assemble_into(parameters, c_out, c_in, warm, &Scratch::default())
}

impl<T: Real> Kernel2<T> {
    /// A random orthogonal k x k kernel with n x n blocks: that of BCOP for Haar-distributed parameters.
    ///
    /// # Errors
    /// [`Error::Empty`] for n or k of 0.
    ///
    /// ```
    /// use blockconv::Kernel2;
    /// use rand::SeedableRng;
    /// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    /// let kernel = Kernel2::<f64>::random_orthogonal(8, 3, &mut rng)?;
    /// assert_eq!(kernel.taps().dim(), (3, 3, 8, 8));
    /// kernel.check_orthogonal(1e-13)?;
    /// assert!(Kernel2::<f64>::random_orthogonal(0, 3, &mut rng).is_err());
    /// # Ok::<(), blockconv::Error>(())
    /// ```
    pub fn random_orthogonal(n: usize, k: usize, rng: &mut (impl Rng + ?Sized)) -> Result<Self> {
        if n == 0 || k == 0 {
            return Err(Error::Empty { what: "the kernel", shape: vec![k, k, n, n] });
        }
        let mut parameters = Array3::zeros((2 * k - 1, n, n));
        parameters.outer_iter_mut().for_each(|mut slice| slice.assign(&haar_orthogonal(n, rng)));
        Ok(bcop(parameters.view(), n, n, None)?.kernel())
    }
}

fn evaluate<T: Real>(
    parameters: ArrayView3<'_, T>,
    c_out: usize,
    c_in: usize,
    warm: Option<ArrayView2<'_, T>>,
    scratch: &Scratch<T>,
) -> Result<Bcop<T>> {
    let n = c_out.max(c_in);
    let raw_h = parameters.index_axis(Axis(0), 0);
    let polar =
        || polar::polar_from(raw_h, warm).map_err(|source| parameter_error(parameters, 0, source));
    let ranges = || project_all(parameters);
    let (h, projections) =
        if n < PARALLEL_FROM { (polar(), ranges()) } else { rayon::join(polar, ranges) };
    let (h, projections) = (h?, projections?);
    let geometry = Geometry::new(&alternating(projections.len()), n, c_out, c_in);
    let chain = Chain::forward(geometry, h.factor(), &matrices(&projections), scratch);
    Ok(Bcop { c_out, c_in, raw_h: raw_h.to_owned(), h, projections, chain })
}

impl<T: Real> Bcop<T> {
    /// As [`bcop`], in memory that dropped evaluations left in `scratch`; the result gives its own back when it is dropped.
    ///
    /// # Errors
    /// As [`bcop`].
    pub fn assemble_into(
        parameters: ArrayView3<'_, T>,
        c_out: usize,
        c_in: usize,
        warm: Option<ArrayView2<'_, T>>,
        scratch: &Scratch<T>,
    ) -> Result<Self> {
        let n = check_parameters(parameters, c_out, c_in)?;
        gemm::single_threaded_blas();
        pooled(n, || evaluate(parameters, c_out, c_in, warm, scratch))
    }

    /// The kernel as a layer weight, c_out x c_in x k x k.
    #[must_use]
    pub fn layer_weight(&self) -> Array4<T> {
        let (kh, kw) = self.chain.geometry().kernel_size();
        let mut weight = Array4::zeros((self.c_out, self.c_in, kh, kw));
        self.chain.write_taps(taps_view_mut(weight.view_mut()));
        weight
    }

    /// The kernel itself.
    #[must_use]
    pub fn kernel(&self) -> Kernel2<T> {
        kernel_of(taps_of(&self.chain, self.c_out, self.c_in))
    }

    /// The orthogonal matrix H.
    #[must_use]
    pub fn h(&self) -> ArrayView2<'_, T> {
        self.h.factor()
    }

    /// The projectors P1, Q1, P2, Q2, ….
    pub fn projectors(&self) -> impl ExactSizeIterator<Item = ArrayView2<'_, T>> {
        self.projections.iter().map(RangeProjection::matrix)
    }

    /// (WᵗW)^(-1/2) for slice 0: the warm start of the next evaluation.
    #[must_use]
    pub fn inverse_sqrt(&self) -> ArrayView2<'_, T> {
        self.h.inverse_sqrt()
    }

    /// The pullback: the cotangent of the parameters, [2k-1, n, n], for a cotangent of the layer weight.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `d_layer_weight` is not c_out x c_in x k x k.
    pub fn pullback(&self, d_layer_weight: ArrayView4<'_, T>) -> Result<Array3<T>> {
        let (kh, kw) = self.chain.geometry().kernel_size();
        check::shape(
            "the cotangent of the layer weight",
            &[self.c_out, self.c_in, kh, kw],
            d_layer_weight.shape(),
        )?;
        Ok(pooled(self.raw_h.nrows(), || self.pull(taps_view(d_layer_weight))))
    }

    fn pull(&self, d_taps: ArrayView4<'_, T>) -> Array3<T> {
        let factors = matrices(&self.projections);
        let pulled = self.chain.pullback(self.h.factor(), &factors, d_taps);
        let n = self.raw_h.nrows();
        let mut gradient = Array3::zeros((1 + factors.len(), n, n));
        let (mut d_h, mut d_slices) = gradient.view_mut().split_at(Axis(0), 1);
        let mut polar = || {
            let d = self.h.pullback(self.raw_h.view(), pulled.h.view());
            d_h.index_axis_mut(Axis(0), 0).assign(&d);
        };
        let project = |(mut slice, range, d): Job<'_, T>| {
            slice.slice_mut(s![.., ..n / 2]).assign(&range.pullback(d.view()));
        };
        let ranges = self.projections.iter().zip(&pulled.factors);
        let jobs =
            d_slices.outer_iter_mut().zip(ranges).map(|(slice, (range, d))| (slice, range, d));
        if n < PARALLEL_FROM {
            polar();
            jobs.for_each(project);
        } else {
            let jobs: Vec<_> = jobs.collect();
            rayon::join(polar, || jobs.into_par_iter().with_max_len(1).for_each(project));
        }
        gradient
    }
}

/// The pullback of one projector: where its gradient goes, the projector, and its cotangent.
type Job<'a, T> = (ArrayViewMut2<'a, T>, &'a RangeProjection<T>, &'a Array2<T>);

/// Runs work on n x n matrices inside the thread pool where it has parallel parts, entering it once for all of them.
fn pooled<R: Send>(n: usize, work: impl FnOnce() -> R + Send) -> R {
    if n < PARALLEL_FROM { work() } else { rayon::scope(|_| work()) }
}

fn check_parameters<T: Real>(
    parameters: ArrayView3<'_, T>,
    c_out: usize,
    c_in: usize,
) -> Result<usize> {
    let n = check_channels(c_out, c_in)?;
    let (count, rows, cols) = parameters.dim();
    if count.is_multiple_of(2) {
        return Err(Error::FactorCount {
            what: "the parameters",
            count,
            needed: "2k - 1 matrices, an odd number",
        });
    }
    check::shape("the parameters", &[count, n, n], &[count, rows, cols])?;
    Ok(n)
}

fn matrices<T: Real>(projections: &[RangeProjection<T>]) -> Vec<ArrayView2<'_, T>> {
    projections.iter().map(RangeProjection::matrix).collect()
}

/// The projectors of slices 1.., in order.
fn project_all<T: Real>(parameters: ArrayView3<'_, T>) -> Result<Vec<RangeProjection<T>>> {
    let (count, n, _) = parameters.dim();
    let project = |index: usize| {
        let columns = parameters.slice(s![index, .., ..n / 2]);
        range::project_range(columns).map_err(|source| parameter_error(parameters, index, source))
    };
    if n < PARALLEL_FROM {
        return (1..count).map(project).collect();
    }
    (1..count).into_par_iter().with_max_len(1).map(project).collect()
}

fn parameter_error<T>(
    parameters: ArrayView3<'_, T>,
    index: usize,
    source: projectors::Error,
) -> Error {
    let role = match index {
        0 => "the orthogonal matrix H",
        odd if odd % 2 == 1 => "a vertical projector",
        _ => "a horizontal projector",
    };
    Error::Parameter { index, count: parameters.len_of(Axis(0)), role, source }
}
