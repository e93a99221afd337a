//! Upper bounds of norms of f64 matrices as stored, and exact scaling by powers of two.
//!
//! The numbers in parentheses refer to the steps derived in the [parent module](super).

use ndarray::{Array2, Array4, ArrayRef, ArrayView4, Dimension};
use projectors::rounding::{UNIT_ROUNDOFF, add_up, div_up, gamma, mul_up, sqrt_up, sub_down};
use projectors::{LipschitzBound, Real, gemm};

use crate::autocorrelation::small_side;
use crate::conversion::taps_view;
use crate::error::{Error, Result};
use crate::{check, error};

/// More than all underflows of a computation together (1).
pub(super) const UNDERFLOW: f64 = 1e-280;

/// A kernel whose largest entry lies in [1/2, 1), and the exponent that brings it back.
pub(super) struct Scaled {
    /// Taps [kh, kw, m, n] with m >= n.
    pub(super) taps: Array4<f64>,
    exponent: i32,
}

impl Scaled {
    /// Checks and scales a layer weight (1); `None` for the zero kernel, whose norm is 0.
    pub(super) fn of_weight<T: Real>(weight: ArrayView4<'_, T>) -> Result<Option<Self>> {
        check::not_empty("the layer weight", &weight)?;
        check::finite("the layer weight", &weight)?;
        let mut taps = small_side(taps_view(weight));
        let largest = taps.iter().fold(0.0_f64, |sofar, x| sofar.max(x.abs()));
        if largest == 0.0 {
            return Ok(None);
        }
        let exponent = exponent_above(largest);
        taps.mapv_inplace(|x| scale(x, -exponent, |a, b| a * b));
        Ok(Some(Self { taps, exponent }))
    }

    /// The bound for the kernel as it was given.
    pub(super) fn restore(&self, bound: f64) -> Result<LipschitzBound> {
        let restored = scale(bound, self.exponent, mul_up);
        if !restored.is_finite() {
            return Err(Error::Overflow { what: "the bound of the operator norm" });
        }
        Ok(LipschitzBound::upper_bound(restored)?)
    }
}

/// The norm of the zero kernel.
pub(super) fn zero() -> error::Result<LipschitzBound> {
    Ok(LipschitzBound::exact(0.0)?)
}

/// ‖A‖_F, rounded up (5).
pub(super) fn frobenius<D: Dimension>(a: &ArrayRef<f64, D>) -> f64 {
    let squares: f64 = a.iter().map(|x| x * x).sum();
    let share = sub_down(1.0, gamma(a.len() + 1));
    sqrt_up(add_up(div_up(squares, share), UNDERFLOW * UNDERFLOW))
}

/// ‖A‖₂, rounded up: the Frobenius norm, or better by up to `rounds` Gram products where it exceeds `enough` (4).
pub(super) fn spectral(a: &Array2<f64>, enough: f64, rounds: usize) -> f64 {
    let norm = frobenius(a);
    if rounds == 0 || norm <= enough {
        return norm;
    }
    let squared = spectral(&gemm::gram(a.view()), mul_up(enough, enough), rounds - 1);
    let rounding = mul_up(gamma(a.nrows()), mul_up(norm, norm));
    norm.min(sqrt_up(add_up(squared, add_up(rounding, UNDERFLOW * UNDERFLOW))))
}

/// A - cI and a bound of what its rounding has changed in Frobenius norm (2).
pub(super) fn shifted(a: &Array2<f64>, c: f64) -> (Array2<f64>, f64) {
    let mut difference = a.clone();
    difference.diag_mut().iter_mut().for_each(|x| *x -= c);
    let error = mul_up(UNIT_ROUNDOFF, frobenius(&difference.diag()));
    (difference, error)
}

/// The least e with x < 2^e for x > 0.
fn exponent_above(x: f64) -> i32 {
    // logarithms may be off by one near powers of two, which the comparison mends
    let guess = x.log2().floor() as i32;
    (guess - 1..guess + 3).find(|&e| x < two_to(e)).unwrap_or(1024)
}

fn two_to(e: i32) -> f64 {
    scale(1.0, e, |a, b| a * b)
}

/// x · 2^e in two steps, neither of whose factors over- or underflows.
fn scale(x: f64, e: i32, times: impl Fn(f64, f64) -> f64) -> f64 {
    let half = e / 2;
    times(times(x, 2.0_f64.powi(half)), 2.0_f64.powi(e - half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_exact_at_powers_of_two_and_at_the_ends_of_the_range() {
        for (x, e) in [
            (1.0, 1),
            (1.0_f64.next_down(), 0),
            (0.75, 0),
            (2.0, 2),
            (f64::MAX, 1024),
            (5e-324, -1073),
        ] {
            assert_eq!(exponent_above(x), e, "{x:e}");
            let scaled = scale(x, -e, |a, b| a * b);
            assert!((0.5..1.0).contains(&scaled), "{x:e}: {scaled}");
        }
    }

    #[test]
    fn gram_products_tighten_the_norm_of_a_full_rank_matrix() {
        let eye = Array2::<f64>::eye(256);
        let (frobenius, refined) = (spectral(&eye, 0.0, 0), spectral(&eye, 0.0, 2));
        assert!((16.0..16.1).contains(&frobenius) && (1.0..2.01).contains(&refined));
    }
}
