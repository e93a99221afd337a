//! The bound that holds for every image size: Σ_s ‖G_s‖₂ over the block autocorrelation.

use ndarray::ArrayView4;
use ndarray::parallel::prelude::*;
use projectors::rounding::{add_up, gamma, mul_up, sqrt_up, sum_up};
use projectors::{LipschitzBound, Real};

use super::upper::{self, Scaled, UNDERFLOW};
use crate::autocorrelation::{Autocorrelation, Shift};
use crate::error::Result;

/// Gram products spent on a tap whose Frobenius norm matters.
const ROUNDS: usize = 2;

/// Relative size below which the Frobenius norm of one tap is good enough.
const ENOUGH: f64 = 1e-9;

/// An upper bound of the operator norm of the cyclic convolution with an OIHW layer weight, on every image that is at
/// least as large as the kernel.
///
/// Rigorous for the stored numbers; within 1e-6 of the norm for orthonormal kernels (rows or columns) rounded to f32.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty), [`Error::NonFinite`](crate::Error::NonFinite),
/// [`Error::Overflow`](crate::Error::Overflow).
///
/// # Example
/// ```
/// use blockconv::bounds::cyclic_norm_bound;
/// use ndarray::Array4;
///
/// let mean = Array4::from_elem((1, 1, 2, 2), 0.25_f32);
/// let bound = cyclic_norm_bound(mean.view()).unwrap();
/// assert!(bound.is_rigorous() && bound.value() >= 1.0 && bound.value() < 1.0 + 1e-12);
/// assert!(cyclic_norm_bound(Array4::from_elem((1, 1, 1, 1), f32::NAN).view()).is_err());
/// ```
pub fn cyclic_norm_bound<T: Real>(weight: ArrayView4<'_, T>) -> Result<LipschitzBound> {
    match Scaled::of_weight(weight)? {
        None => upper::zero(),
        Some(scaled) => scaled.restore(norm_of(&scaled)),
    }
}

/// √(Σ_s ‖G_s‖₂) for the scaled kernel, rounded up.
pub(super) fn norm_of(scaled: &Scaled) -> f64 {
    let energy = upper::frobenius(&scaled.taps);
    let energy = mul_up(energy, energy);
    let gram = Autocorrelation::of_taps(&scaled.taps);
    let n = gram.centre.gram.nrows();
    let c = gram.centre.gram.diag().sum() / n as f64;
    let (deviation, rounding) = upper::shifted(&gram.centre.gram, c);
    let enough = ENOUGH * c;
    let centre = sum_up([
        c,
        upper::spectral(&deviation, enough, ROUNDS),
        rounding,
        error_of(&gram.centre, energy),
    ]);
    let tap = |shift: &Shift| {
        add_up(upper::spectral(&shift.gram, enough, ROUNDS), error_of(shift, energy))
    };
    let taps: Vec<f64> = gram.half.par_iter().map(tap).collect();
    sqrt_up(sum_up([centre, mul_up(2.0, sum_up(taps)), UNDERFLOW]))
}

/// What rounding may have changed in G_s, in Frobenius norm.
fn error_of(shift: &Shift, energy: f64) -> f64 {
    mul_up(gamma(shift.terms), energy)
}
