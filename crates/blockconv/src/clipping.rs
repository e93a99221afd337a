//! Clipping of the singular values of a cyclic convolution, alternated with truncation to the size of the kernel.
//!
//! Definition. On h x w images the convolution with X acts at frequency ω as the matrix `X̂(ω) = Σ_a X[a] e^{-iω·a}`. One
//! round replaces every X̂ = U S V* by U min(S, 1) V*, the nearest matrix of norm at most 1, transforms back to an h x w
//! kernel, and keeps its first kh x kw taps. Rounds are projections on two convex sets in turn: the result approaches a kernel
//! of this size and norm at most 1, and is one only in the limit.
//!
//! Method. With G = X̂* X̂ on the small side and its eigenpairs (λ, v), what a round takes away is
//! X̂ Σ_{λ>1} (1 - λ^(-1/2)) v v*. It is zero where I - G has a Cholesky factor, so that most frequencies cost no
//! decomposition once the kernel is nearly there. One frequency of each conjugate pair is visited, and truncation makes the way
//! back a sum over few taps: no fast transform is needed in either direction. Everything is computed in f64.
//!
//! Rounds never grow in length, since projections do not expand. They stop early when all that are left together
//! could not move the kernel by half a unit in the last place of its norm in its own precision.
//!
//! Shapes. OIHW layer weight in and out, c_out x c_in x kh x kw.
//!
//! Guarantee. An approximation: after any number of rounds the norm may exceed 1 slightly. A bound of it is
//! [`cyclic_norm_bound_on`](crate::bounds::cyclic_norm_bound_on). Deterministic, whatever the number of threads.
//!
//! Cost. Per round and frequency, for n = min(c_out, c_in) and m the larger: 4 kh kw m n flops for the matrix, 8 m n² for
//! its Gram matrix, and where it exceeds 1 an eigendecomposition of size n.
//!
//! Errors. [`Error::KernelExceedsImage`], [`Error::Empty`], [`Error::NonFinite`], [`Error::Lapack`].
//!
//! Source. Sedghi, Gupta and Long, "The singular values of convolutional layers" (2019); SVCM in Li et al., section 5.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, ArrayViewMut2, Axis, s};
use ndarray_linalg::{Cholesky, UPLO, c64};
use projectors::{Real, gemm};

use crate::check;
use crate::conversion::{taps_view, taps_view_mut};
use crate::eigen;
use crate::error::{Error, Result};
use crate::frequency::{Frequency, Grid};

/// Frequencies whose matrices are held at once.
const CHUNK: usize = 64;

/// Clips the singular values on h x w images at 1 and truncates to the kernel's size, `rounds` times.
///
/// # Errors
/// See the [module](self).
///
/// # Example
/// ```
/// use blockconv::clipping::clip_singular_values;
/// use ndarray::array;
///
/// // a constant times the identity at every frequency: clipped in one round, no truncation
/// let weight = array![[[[3.0]]]];
/// let clipped = clip_singular_values(weight.view(), (4, 4), 1).unwrap();
/// assert!((clipped[[0, 0, 0, 0]] - 1.0_f64).abs() < 1e-15);
/// assert!(clip_singular_values(array![[[[1.0, 1.0]]]].view(), (1, 1), 1).is_err());
/// ```
pub fn clip_singular_values<T: Real>(
    weight: ArrayView4<'_, T>,
    size: (usize, usize),
    rounds: usize,
) -> Result<Array4<T>> {
    check::not_empty("the layer weight", &weight)?;
    check::finite("the layer weight", &weight)?;
    let (c_out, c_in, kh, kw) = weight.dim();
    check::fits_image(&[kh, kw], &[size.0, size.1])?;
    gemm::single_threaded_blas();
    let mut clipping = Clipping::new(weight, size);
    for left in (0..rounds).rev() {
        let step = clipping.round()?;
        if step * left as f64 <= 0.5 * T::EPS * norm(&clipping.taps) {
            break;
        }
    }
    let mut clipped = Array4::zeros((c_out, c_in, kh, kw));
    let mut target = taps_view_mut(clipped.view_mut());
    if clipping.transposed {
        target.swap_axes(2, 3);
    }
    let taps = clipping.taps.into_shape_with_order(target.raw_dim());
    target.zip_mut_with(&taps.expect("as many taps as there were"), |to, from| *to = T::of(*from));
    Ok(clipped)
}

/// A kernel on its way.
struct Clipping {
    /// kh·kw x m·n, every tap m x n with m >= n.
    taps: Array2<f64>,
    transposed: bool,
    m: usize,
    n: usize,
    frequencies: Vec<Frequency>,
    /// Two rows for each frequency, cos and -sin of ω·a for each tap.
    weights: Array2<f64>,
    /// Number of pixels.
    n_pixels: usize,
}

impl Clipping {
    fn new<T: Real>(weight: ArrayView4<'_, T>, size: (usize, usize)) -> Self {
        let mut taps = taps_view(weight);
        let transposed = taps.dim().2 < taps.dim().3;
        if transposed {
            taps.swap_axes(2, 3);
        }
        let (kh, kw, m, n) = taps.dim();
        let values: Vec<f64> = taps.iter().map(|x| x.as_f64()).collect();
        let taps = Array2::from_shape_vec((kh * kw, m * n), values).expect("one value per entry");
        let grid = Grid::new(size);
        let frequencies = grid.frequencies();
        let mut weights = Array2::zeros((2 * frequencies.len(), kh * kw));
        for (mut rows, &frequency) in weights.axis_chunks_iter_mut(Axis(0), 2).zip(&frequencies) {
            rows.assign(&grid.weights(frequency, (kh, kw)));
        }
        Self { taps, transposed, m, n, frequencies, weights, n_pixels: size.0 * size.1 }
    }

    /// One round; returns the Frobenius norm of the change.
    fn round(&mut self) -> Result<f64> {
        let mut change = Array2::zeros(self.taps.raw_dim());
        let chunks = self.weights.axis_chunks_iter(Axis(0), 2 * CHUNK);
        for (weights, frequencies) in chunks.zip(self.frequencies.chunks(CHUNK)) {
            let mut symbols = gemm::matmul(weights, self.taps.view());
            let matrices = symbols.axis_chunks_iter_mut(Axis(0), 2).into_par_iter();
            let excess = matrices.zip(frequencies).with_max_len(1).map(|(rows, &frequency)| {
                let stacked = rows.into_shape_with_order((2 * self.m, self.n));
                keep_excess(stacked.expect("rows of a product are contiguous"), frequency)
            });
            if excess.collect::<Result<Vec<_>>>()?.contains(&true) {
                let scale = 1.0 / self.n_pixels as f64;
                let weights = with_multiplicities(weights, frequencies);
                gemm::matmul_into(scale, weights.t(), symbols.view(), 1.0, change.view_mut());
            }
        }
        self.taps -= &change;
        Ok(norm(&change))
    }
}

/// The weights of the way back: each representative counts for its partner too.
fn with_multiplicities(weights: ArrayView2<'_, f64>, frequencies: &[Frequency]) -> Array2<f64> {
    let mut scaled = weights.to_owned();
    for (mut rows, frequency) in scaled.axis_chunks_iter_mut(Axis(0), 2).zip(frequencies) {
        rows *= frequency.multiplicity as f64;
    }
    scaled
}

/// Replaces X̂, given as [Re; Im], by X̂ - U min(S, 1) V*; returns whether that is not zero.
fn keep_excess(mut stacked: ArrayViewMut2<'_, f64>, frequency: Frequency) -> Result<bool> {
    let (m, n) = (stacked.nrows() / 2, stacked.ncols());
    let (re, im) =
        stacked.as_slice_mut().expect("rows of a product are contiguous").split_at_mut(m * n);
    let entries = |sign: f64| re.iter().zip(&*im).map(move |(&re, &im)| c64::new(re, sign * im));
    let matrix = |values: Vec<c64>| Array2::from_shape_vec((m, n), values).expect("m·n values");
    let symbol = matrix(entries(1.0).collect());
    // the transpose of G in row order is G in the column order that LAPACK counts in
    let gram = symbol.t().dot(&matrix(entries(-1.0).collect())).reversed_axes();
    if is_contraction(&gram) {
        stacked.fill(0.0);
        return Ok(false);
    }
    let failed = |info| {
        let (row, col) = (frequency.row, frequency.col);
        Error::Lapack { routine: "zheevd", row, col, message: format!("info = {info}") }
    };
    let (lambda, v) = eigen::decompose(&gram).map_err(failed)?;
    let first = lambda.iter().position(|&x| x > 1.0).unwrap_or(n);
    let v = v.slice(s![.., first..]);
    let mut cut = symbol.dot(&v);
    for (mut column, lambda) in cut.columns_mut().into_iter().zip(lambda.slice(s![first..])) {
        column.mapv_inplace(|x| x * (1.0 - 1.0 / lambda.sqrt()));
    }
    let excess = cut.dot(&v.t().mapv(|x| x.conj()));
    for ((re, im), x) in re.iter_mut().zip(im).zip(&excess) {
        (*re, *im) = (x.re, x.im);
    }
    Ok(true)
}

/// Whether no eigenvalue of G exceeds 1, but for rounding.
fn is_contraction(gram: &Array2<c64>) -> bool {
    let tolerance = 16.0 * gram.nrows() as f64 * f64::EPSILON;
    let mut distance = gram.mapv(|x| -x);
    distance.diag_mut().iter_mut().for_each(|x| *x += 1.0 + tolerance);
    distance.cholesky(UPLO::Lower).is_ok()
}

fn norm(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}
