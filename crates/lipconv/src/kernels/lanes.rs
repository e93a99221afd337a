//! Lanes: numbers of sixteen rows side by side, as vector instructions want them.
//!
//! Row 16 g + l and column j of a matrix with n columns are lane l of element g·n + j.

use projectors::Real;

/// Rows side by side.
pub(crate) const LANES: usize = 16;

/// One column of sixteen rows; a cache line in f32.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Lanes<T>(pub [T; LANES]);

impl<T: Real> Lanes<T> {
    pub(crate) fn zero() -> Self {
        Self([T::zero(); LANES])
    }
}

/// Groups of lanes that hold `n_rows` rows.
pub(crate) fn n_groups(n_rows: usize) -> usize {
    n_rows.div_ceil(LANES)
}
