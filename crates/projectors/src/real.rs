//! The scalar types of this crate: `f32` and `f64`.
//!
//! [`Real`] bundles what the algorithms need: ndarray's element operations, BLAS and LAPACK, and conversion from and
//! to `f64`. Both `ndarray_linalg::Scalar` and `num_traits::Float` are supertraits and share method names, so generic
//! code writes `Float::sqrt(x)` where `x.sqrt()` would be ambiguous. For the same reason the conversions are called
//! [`Real::of`] and [`Real::as_f64`]: `from_f64` and `to_f64` belong to num-traits and return options.

use ndarray::NdFloat;
use ndarray_linalg::{Lapack, Scalar};

mod sealed {
    pub trait Sealed: crate::syevd::DivideAndConquer {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A real scalar with BLAS and LAPACK routines: `f32` or `f64`.
pub trait Real: sealed::Sealed + Lapack + Scalar<Real = Self> + NdFloat + Default {
    /// Distance from 1 to the next larger number.
    const EPS: f64;
    /// Name as in Rust source.
    const NAME: &'static str;

    /// The nearest number of this type.
    fn of(value: f64) -> Self;

    /// The same number in `f64`, exact.
    fn as_f64(self) -> f64;
}

impl Real for f32 {
    const EPS: f64 = f32::EPSILON as f64;
    const NAME: &'static str = "f32";

    #[inline]
    fn of(value: f64) -> Self {
        value as Self
    }

    #[inline]
    fn as_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const EPS: f64 = f64::EPSILON;
    const NAME: &'static str = "f64";

    #[inline]
    fn of(value: f64) -> Self {
        value
    }

    #[inline]
    fn as_f64(self) -> f64 {
        self
    }
}
