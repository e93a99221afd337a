//! Singular values of the cyclic convolution with a kernel on images of a given size.
//!
//! Definition. On h x w images the singular values of v -> X * v are those of the h·w matrices
//! X̂(p, q) = Σ_{a,b} X[a, b] e^{-2πi (a p / h + b q / w)} together: h·w·min(n_out, n_in) of them. Conjugate frequencies
//! share them, so about half of the matrices are decomposed, frequencies in parallel.
//!
//! Method. One singular value decomposition (values only) per frequency. The detour by eigenvalues of Gram matrices would
//! lose half of the digits of small values, and LAPACK takes longer over it.
//!
//! Guarantee. An estimate to rounding, not a bound: computed in f64 for f32 kernels too, each value within a few eps
//! σ_max of the truth. Rigorous bounds are in [`bounds`](crate::bounds).
//!
//! Cost. About 8/3 · 4 n² m flops per frequency for n = min(n_out, n_in), m the larger.
//!
//! Errors. [`Error::KernelExceedsImage`], [`Error::Empty`], [`Error::NonFinite`], [`Error::Lapack`].

use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array4, ArrayView4};
use ndarray_linalg::error::LinalgError;
use projectors::{Real, gemm};

use crate::autocorrelation::small_side;
use crate::check;
use crate::conversion::taps_view;
use crate::error::{Error, Result};
use crate::frequency::{Frequency, Grid};
use crate::hermitian;
use crate::kernel::{Kernel1, Kernel2};

/// The ends of the spectrum of a convolution on one image size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Extremes {
    /// The smallest of the h·w·min(n_out, n_in) singular values.
    pub sigma_min: f64,
    /// The largest, the operator norm on that image size: an estimate, see [`bounds`](crate::bounds).
    pub sigma_max: f64,
}

/// The smallest and largest singular value of a kernel on h x w images.
///
/// # Errors
/// [`Error::KernelExceedsImage`], and [`Error::Lapack`] should a decomposition fail.
pub fn extremes<T: Real>(kernel: &Kernel2<T>, size: (usize, usize)) -> Result<Extremes> {
    let per_frequency =
        decompose(kernel.taps(), size, |_, sigma| (sigma[sigma.len() - 1], sigma[0]))?;
    let start = Extremes { sigma_min: f64::INFINITY, sigma_max: 0.0 };
    Ok(per_frequency.into_iter().fold(start, |sofar, (min, max)| Extremes {
        sigma_min: sofar.sigma_min.min(min),
        sigma_max: sofar.sigma_max.max(max),
    }))
}

impl<T: Real> Kernel1<T> {
    /// All singular values of the cyclic convolution on signals of length `s`, largest first.
    ///
    /// # Errors
    /// As [`Kernel2::singular_values`].
    pub fn singular_values(&self, s: usize) -> Result<Array1<T>> {
        check::fits_image(&[self.kernel_size()], &[s])?;
        singular_values(self.view4(), (s, 1))
    }
}

impl<T: Real> Kernel2<T> {
    /// All h · w · min(n_out, n_in) singular values of the cyclic convolution on h x w images, `size` = (h, w),
    /// largest first.
    ///
    /// # Errors
    /// [`Error::KernelExceedsImage`], and [`Error::Lapack`] should a decomposition fail.
    pub fn singular_values(&self, size: (usize, usize)) -> Result<Array1<T>> {
        singular_values(self.taps(), size)
    }
}

/// All singular values of an OIHW layer weight on h x w images, largest first.
///
/// # Errors
/// [`Error::Empty`], [`Error::NonFinite`], [`Error::KernelExceedsImage`], [`Error::Lapack`].
pub fn layer_singular_values<T: Real>(
    weight: ArrayView4<'_, T>,
    size: (usize, usize),
) -> Result<Array1<T>> {
    check::not_empty("the layer weight", &weight)?;
    check::finite("the layer weight", &weight)?;
    singular_values(taps_view(weight), size)
}

/// All singular values for taps [kh, kw, n_out, n_in], largest first.
pub(crate) fn singular_values<T: Real>(
    taps: ArrayView4<'_, T>,
    size: (usize, usize),
) -> Result<Array1<T>> {
    let per_frequency = decompose(taps, size, |frequency, sigma| (frequency.multiplicity, sigma))?;
    let mut all: Vec<f64> = Vec::with_capacity(size.0 * size.1 * taps.dim().2.min(taps.dim().3));
    for (multiplicity, sigma) in per_frequency {
        (0..multiplicity).for_each(|_| all.extend(&sigma));
    }
    all.sort_unstable_by(|a, b| b.total_cmp(a));
    Ok(all.into_iter().map(T::of).collect())
}

/// Calls `visit` with the singular values of each representative frequency, in parallel; results in frequency order.
fn decompose<T: Real, R: Send>(
    taps: ArrayView4<'_, T>,
    size: (usize, usize),
    visit: impl Fn(Frequency, Vec<f64>) -> R + Sync,
) -> Result<Vec<R>> {
    let (kh, kw, ..) = taps.dim();
    check::fits_image(&[kh, kw], &[size.0, size.1])?;
    gemm::single_threaded_blas();
    let taps = small_side(taps);
    let grid = Grid::new(size);
    let at = |frequency: Frequency| {
        let sigma = values_at(&grid, &taps, frequency)
            .map_err(|source| lapack_error(frequency, &source))?;
        Ok(visit(frequency, sigma))
    };
    grid.frequencies().into_par_iter().with_max_len(1).map(at).collect()
}

fn values_at(
    grid: &Grid,
    taps: &Array4<f64>,
    frequency: Frequency,
) -> std::result::Result<Vec<f64>, LinalgError> {
    let symbol = grid.symbol(taps, frequency);
    hermitian::singular_values(&symbol, frequency.multiplicity == 1)
}

pub(crate) fn lapack_error(frequency: Frequency, source: &LinalgError) -> Error {
    let (row, col) = (frequency.row, frequency.col);
    Error::Lapack { routine: "the decomposition", row, col, message: source.to_string() }
}
