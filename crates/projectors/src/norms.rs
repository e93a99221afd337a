//! Rigorous and estimated spectral norms.

use ndarray::ArrayView2;

use crate::error::Result;
use crate::{LipschitzBound, Real, dense, rounding};

/// A rigorous upper bound of the spectral norm.
///
/// # Errors
/// NonFinite.
pub fn spectral_norm_bound<T: Real>(w: ArrayView2<'_, T>) -> Result<LipschitzBound> {
    dense::check_finite("matrix", w)?;
    let sum = rounding::sum_up(w.iter().map(|x| rounding::mul_up(x.as_f64(), x.as_f64())));
    LipschitzBound::upper_bound(rounding::sqrt_up(sum))
}
