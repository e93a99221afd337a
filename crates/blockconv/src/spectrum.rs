//! Singular values of the cyclic convolution with a kernel on images of a given size.
//!
//! Definition. On h x w images the singular values of v -> X * v are those of the h·w matrices
//! X̂(p, q) = Σ_{a,b} X[a, b] e^{-2πi (a p / h + b q / w)} together: h·w·min(n_out, n_in) of them. Conjugate frequencies
//! share them, so about half of the matrices are decomposed, frequencies in parallel.
//!
//! Method. Per frequency the eigenvalues of the Gram matrix on the small side, σ = √λ. An eigenvalue is off by a few
//! eps λ_max, hence σ by a few eps σ_max² / σ; where the smallest σ is below [`GRAM_LIMIT`] σ_max the frequency is
//! decomposed again by a singular value decomposition of the matrix itself.
//!
//! Guarantee. An estimate to rounding, not a bound: computed in f64 for f32 kernels too, each value within about
//! 1e-12 σ_max. Rigorous bounds are in [`bounds`](crate::bounds).
//!
//! Cost. About (2 m + 2 n) · 4 n² flops per frequency for n = min(n_out, n_in), m the larger.
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
use crate::kernel::Kernel2;

/// σ_min / σ_max below which eigenvalues of the Gram matrix are not accurate enough.
const GRAM_LIMIT: f64 = 1e-3;

/// Which of its singular values a convolution should be asked for.
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
    let per_frequency = decompose(kernel.taps(), size, |_, sigma| {
        (
            sigma.iter().copied().fold(f64::INFINITY, f64::min),
            sigma.iter().copied().fold(0.0, f64::max),
        )
    })?;
    let start = Extremes { sigma_min: f64::INFINITY, sigma_max: 0.0 };
    Ok(per_frequency.into_iter().fold(start, |sofar, (min, max)| Extremes {
        sigma_min: sofar.sigma_min.min(min),
        sigma_max: sofar.sigma_max.max(max),
    }))
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
    visit: impl Fn(Frequency, Array1<f64>) -> R + Sync,
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
) -> std::result::Result<Array1<f64>, LinalgError> {
    let symbol = grid.symbol(taps, frequency);
    let real = frequency.multiplicity == 1;
    let lambda = hermitian::gram_eigenvalues(&symbol, real)?;
    let (min, max) = (lambda[0], lambda[lambda.len() - 1]);
    if min >= GRAM_LIMIT * GRAM_LIMIT * max {
        return Ok(lambda.mapv(f64::sqrt));
    }
    hermitian::singular_values(&symbol, real)
}

pub(crate) fn lapack_error(frequency: Frequency, source: &LinalgError) -> Error {
    let (row, col) = (frequency.row, frequency.col);
    Error::Lapack { routine: "the decomposition", row, col, message: source.to_string() }
}
