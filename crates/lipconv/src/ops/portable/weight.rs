//! Constrained weights of every method.

use candle_core::Tensor;

use crate::error::Result;
use crate::methods::{Method, Sizes, Weight};
use crate::ops::weight::check_parameter;

/// The weight that a parameter stands for, as [`ops::weight`](crate::ops::weight).
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch), [`Error::DTypeMismatch`](crate::Error::DTypeMismatch),
/// [`Error::KernelExceedsImage`](crate::Error::KernelExceedsImage), [`Error::Candle`](crate::Error::Candle).
pub fn weight(
    method: impl Into<Method>,
    sizes: &Sizes,
    parameter: &Tensor,
    vector: Option<&Tensor>,
) -> Result<Weight> {
    let method = method.into();
    check_parameter(method, sizes, parameter, vector)?;
    method.definition().weight(sizes, parameter, vector)
}
