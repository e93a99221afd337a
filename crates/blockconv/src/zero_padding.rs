//! Zero padding destroys orthogonality: how much a kernel loses at the border of an image.
//!
//! Definition. With zero padding, pixels outside of the image count as 0 in place of the pixels of the opposite border:
//!
//! ```text
//! (M v)[i, j] = Σ X[a, b] v[i + c_h - a, j + c_w - b],   c_h = (kh-1)/2, c_w = (kw-1)/2 (integer division),
//! ```
//!
//! the centring of a layer weight that is padded by k/2 before and (k-1)/2 after. The norm defect is
//! ‖MᵗM - I‖₂ = max |σ² - 1| over the singular values of M: the largest change of the squared norm of a unit image.
//!
//! Theorem. Let X be orthogonal with n x n taps. Then the defect is at least E / 2, E = (1/n) Σ ‖X[a, b]‖_F² over all taps
//! but the central one ([`off_centre_energy`]). So M is orthogonal iff all other taps vanish, that is, iff X is a
//! kernel of size 1. Proof. An image that is u at the corner pixel (0, 0) and 0 elsewhere loses what the taps with a < c_h or b < c_w
//! make of it, uᵗ L u with L the sum of `X[a, b]ᵗ X[a, b]` over those taps; the others stay inside because the image is not smaller
//! than the kernel, and the whole sum is I. So the defect is at least the largest eigenvalue of L, hence at least
//! tr L / n. At the opposite corner the same holds for the taps with a > c_h or b > c_w. Every tap but the central one is lost at one
//! of the two corners, so the two traces add up to n E at least, and one of them is at least n E / 2.
//!
//! Guarantee. Computed from the dense operator, to rounding. Cost. A singular value decomposition of an (h w n_out) x (h w n_in)
//! matrix: for small images. Cyclic boundaries, and spectra on large images, are in [`spectrum`](crate::spectrum).
//!
//! Errors. [`Error::KernelExceedsImage`], [`Error::Lapack`].
//!
//! Source. Li et al., appendix (a zero-padded orthogonal convolution has size 1).

use ndarray::{Array2, s};
use ndarray_linalg::SVD;
use projectors::{Real, gemm};

use crate::check;
use crate::error::{Error, Result};
use crate::kernel::Kernel2;

/// The ends of the spectrum of a zero-padded convolution on one image size.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ZeroPadded {
    /// The smallest of the h·w·min(n_out, n_in) singular values.
    pub sigma_min: f64,
    /// The largest singular value.
    pub sigma_max: f64,
}

impl ZeroPadded {
    /// max |σ² - 1|, 0 iff the norm of every image is preserved (for n_out >= n_in).
    #[must_use]
    pub fn norm_defect(&self) -> f64 {
        f64::max(
            (self.sigma_max * self.sigma_max - 1.0).abs(),
            (1.0 - self.sigma_min * self.sigma_min).abs(),
        )
    }
}

/// The spectrum of a kernel under zero padding on h x w images.
///
/// # Errors
/// [`Error::KernelExceedsImage`] when h < kh or w < kw, [`Error::Lapack`] should the decomposition fail.
///
/// # Example
/// ```
/// use blockconv::{Kernel2, zero_padding::zero_padded};
/// use ndarray::array;
///
/// // A delay by one pixel is orthogonal with cyclic boundaries; zero padding loses the last column.
/// let delay = Kernel2::try_new(array![[[[0.0]], [[1.0]]]]).unwrap();
/// assert_eq!(delay.orthogonality_defect(), 0.0);
/// assert_eq!(zero_padded(&delay, (3, 4)).unwrap().norm_defect(), 1.0);
/// assert!(zero_padded(&delay, (3, 1)).is_err());
/// ```
pub fn zero_padded<T: Real>(kernel: &Kernel2<T>, size: (usize, usize)) -> Result<ZeroPadded> {
    let operator = operator(kernel, size)?;
    gemm::single_threaded_blas();
    let (_, sigma, _) = operator.svd(false, false).map_err(|error| Error::Lapack {
        routine: "the singular value decomposition under zero padding",
        row: 0,
        col: 0,
        message: error.to_string(),
    })?;
    Ok(ZeroPadded { sigma_min: sigma[sigma.len() - 1], sigma_max: sigma[0] })
}

/// The matrix of the zero-padded convolution, (h w n_out) x (h w n_in), pixels in row order and channels last.
///
/// # Errors
/// [`Error::KernelExceedsImage`] when h < kh or w < kw.
pub fn operator<T: Real>(kernel: &Kernel2<T>, (h, w): (usize, usize)) -> Result<Array2<f64>> {
    let (kh, kw) = kernel.kernel_size();
    check::fits_image(&[kh, kw], &[h, w])?;
    let (n_out, n_in) = (kernel.n_out(), kernel.n_in());
    let mut matrix = Array2::zeros((h * w * n_out, h * w * n_in));
    let pixels = || (0..h).flat_map(|i| (0..w).map(move |j| (i, j)));
    let centre = centre(kernel);
    for ((i, j), (from_i, from_j)) in pixels().flat_map(|to| pixels().map(move |from| (to, from))) {
        let (a, b) = ((i + centre.0).wrapping_sub(from_i), (j + centre.1).wrapping_sub(from_j));
        if a < kh && b < kw {
            let (row, col) = ((i * w + j) * n_out, (from_i * w + from_j) * n_in);
            let mut block = matrix.slice_mut(s![row..row + n_out, col..col + n_in]);
            block.zip_mut_with(&kernel.taps().slice(s![a, b, .., ..]), |to: &mut f64, x| {
                *to = x.as_f64()
            });
        }
    }
    Ok(matrix)
}

/// E = (1/n_in) Σ ‖`X[a, b]`‖_F² over all taps but the central one; in [0, 1] for an orthogonal kernel.
#[must_use]
pub fn off_centre_energy<T: Real>(kernel: &Kernel2<T>) -> f64 {
    let centre = centre(kernel);
    let outside = kernel
        .taps()
        .indexed_iter()
        .filter(|&((a, b, ..), _)| (a, b) != centre)
        .map(|(_, x)| x.as_f64().powi(2))
        .sum::<f64>();
    outside / kernel.n_in() as f64
}

fn centre<T: Real>(kernel: &Kernel2<T>) -> (usize, usize) {
    let (kh, kw) = kernel.kernel_size();
    ((kh - 1) / 2, (kw - 1) / 2)
}
