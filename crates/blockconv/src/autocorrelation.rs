//! The block autocorrelation of a kernel: the Gram operator of its convolution, tap by tap.
//!
//! Definition. G_s = Σ_a X[a]ᵗ X[a+s] over the taps a for which a + s is a tap too, s in [-(kh-1), kh-1] x
//! [-(kw-1), kw-1]. For the cyclic operator M of the kernel, MᵗM is the convolution whose taps are the G_s (shifts that
//! agree modulo the image size add up), so that its frequency matrices are M̂(ω)* M̂(ω) = Σ_s e^{-iω·s} G_s. Since
//! G_{-s} = G_sᵗ only one half of the shifts is stored.
//!
//! Small side. For n_out < n_in the same with X[a]ᵗ in place of X[a] gives MMᵗ; it is smaller, and the other product
//! could not be the identity.
//!
//! Consequences. M is an isometry (has orthonormal rows) on every image size iff G_0 = I and all other G_s = 0. A
//! convolution with taps D_s has norm at most Σ_s ‖D_s‖₂, each tap being a matrix times a permutation of pixels; hence
//! ‖MᵗM - I‖₂ <= Σ_s ‖G_s - δ_s I‖_F and ‖M‖₂² <= Σ_s ‖G_s‖₂ for every image that is not smaller than the kernel.
//!
//! Guarantee. Computed in f64 whatever the kernel's type. Each entry of G_s is an inner product of
//! [`Shift::terms`] products; [`bounds`](crate::bounds) derives from that number what rounding may have changed.
//!
//! Cost. (kh kw)² / 2 products of n x n matrices, shifts in parallel.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, s};
use projectors::{Real, gemm};

/// One half of the block autocorrelation; the other half is its transpose.
#[derive(Debug)]
pub(crate) struct Autocorrelation {
    /// G_0.
    pub(crate) centre: Shift,
    /// G_s for the s that follow (0, 0) in lexicographic order; each stands for G_{-s} too.
    pub(crate) half: Vec<Shift>,
}

/// G_s for one shift, with what its rounding error depends on.
#[derive(Debug)]
pub(crate) struct Shift {
    pub(crate) gram: Array2<f64>,
    /// Number of products that were summed for each entry.
    pub(crate) terms: usize,
}

impl Autocorrelation {
    /// The autocorrelation on the smaller of the two sides.
    pub(crate) fn on_small_side<T: Real>(taps: ArrayView4<'_, T>) -> Self {
        Self::of_taps(&small_side(taps))
    }

    /// Σ_a X[a]ᵗ X[a+s] of f64 taps in standard order.
    pub(crate) fn of_taps(taps: &Array4<f64>) -> Self {
        gemm::single_threaded_blas();
        let (kh, kw, ..) = taps.dim();
        let (kh, kw) = (signed(kh), signed(kw));
        let shifts: Vec<_> = (0..kh)
            .flat_map(|s| (1 - kw..kw).map(move |t| (s, t)))
            .filter(|&shift| shift > (0, 0))
            .collect();
        let half = shifts.into_par_iter().map(|shift| gram_at(taps, shift)).collect();
        Self { centre: gram_at(taps, (0, 0)), half }
    }

    /// Σ_s ‖G_s - δ_s I‖_F over all shifts.
    pub(crate) fn defect(&self) -> f64 {
        let mut deviation = self.centre.gram.clone();
        deviation.diag_mut().iter_mut().for_each(|x| *x -= 1.0);
        frobenius(&deviation)
            + 2.0 * self.half.iter().map(|shift| frobenius(&shift.gram)).sum::<f64>()
    }
}

/// The taps as f64, each transposed when n_out < n_in, so that Gram matrices come out on the small side.
pub(crate) fn small_side<T: Real>(mut taps: ArrayView4<'_, T>) -> Array4<f64> {
    if taps.dim().2 < taps.dim().3 {
        taps.swap_axes(2, 3);
    }
    let mut small = Array4::zeros(taps.raw_dim());
    small.zip_mut_with(&taps, |to: &mut f64, from| *to = from.as_f64());
    small
}

fn frobenius(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn signed(extent: usize) -> isize {
    isize::try_from(extent).expect("an array's extent fits into isize")
}

/// The taps a, as a range, for which both a and a + shift lie in 0..k.
fn overlap(k: usize, shift: isize) -> std::ops::Range<usize> {
    let reach = shift.unsigned_abs();
    if shift < 0 { reach..k } else { 0..k - reach }
}

fn gram_at(taps: &Array4<f64>, (s, t): (isize, isize)) -> Shift {
    let (kh, kw, _, n) = taps.dim();
    let (rows, cols) = (overlap(kh, s), overlap(kw, t));
    let terms = rows.len() * cols.len() * taps.dim().2;
    let mut gram = Array2::zeros((n, n));
    for row in rows {
        let left = row_of_taps(taps, row, cols.clone());
        let shifted = cols.start.wrapping_add_signed(t)..cols.end.wrapping_add_signed(t);
        let right = row_of_taps(taps, row.wrapping_add_signed(s), shifted);
        general_mat_mul(1.0, &left.t(), &right, 1.0, &mut gram);
    }
    Shift { gram, terms }
}

/// X[row, cols] stacked: (cols · n_out) x n_in.
fn row_of_taps(
    taps: &Array4<f64>,
    row: usize,
    cols: std::ops::Range<usize>,
) -> ArrayView2<'_, f64> {
    let (_, _, n_out, n_in) = taps.dim();
    let rows = cols.len() * n_out;
    let stack = taps.slice(s![row, cols, .., ..]);
    stack
        .into_shape_with_order((rows, n_in))
        .expect("neighbouring taps are contiguous in standard order")
}
