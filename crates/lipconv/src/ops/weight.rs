//! Constrained weights as tensor operations on free parameters, differentiable by candle, in f32 or f64.
//!
//! On the CPU the algebra of the lower crates with closed-form pullbacks; on a CUDA device the engine's kernels, where it makes the
//! method's weight; otherwise candle's operations, as [`portable`](super::portable) has them for every device.

use candle_core::Tensor;

use crate::element::engine_runs;
use crate::error::{Error, Result};
use crate::methods::{Layer, Method, Sizes, Weight, weight_of};

/// The weight of a layer (OIHW or n_out x n_in) that `parameter` stands for; its shape is [`Method::parameter_shape`].
///
/// A method that iterates between steps, such as OSSN's power iteration, starts from `vector`, whose shape is
/// [`Method::vector_shape`], and gives the vector to start from next time. What estimates a norm may exceed it: only what
/// [`materialize`](crate::Network::materialize) gives has a proven bound.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::KernelExceedsImage`], [`Error::InvalidSetting`] for another element
/// type than f32 and f64; [`Error::Candle`] around
/// [`Error::Algebra`], [`Error::Orthonormalisation`], [`Error::NonFinite`] or [`Error::ZeroWeight`] for a parameter that has
/// no weight.
pub fn weight(
    method: impl Into<Method>,
    sizes: &Sizes,
    parameter: &Tensor,
    vector: Option<&Tensor>,
) -> Result<Weight> {
    let method = method.into();
    check_parameter(method, sizes, parameter, vector)?;
    if !engine_runs(parameter.dtype()) {
        let value = parameter.dtype().as_str().to_owned();
        return Err(Error::InvalidSetting { name: "dtype", value, expected: "f32 or f64" });
    }
    if !parameter.device().is_cpu() {
        #[cfg(feature = "cuda")]
        if let Some(weight) = crate::engine::cuda::on_tensors::weight(method, sizes, parameter)? {
            return Ok(weight.into());
        }
        return method.definition().weight(sizes, parameter, vector);
    }
    let layer = Layer { name: method.definition().name(), sizes: *sizes };
    let (weight, vector) = weight_of(layer, method, parameter, vector)?;
    Ok(Weight { weight, vector, defect: None })
}

/// Refuses tensors that a method has no use for.
pub(super) fn check_parameter(
    method: Method,
    sizes: &Sizes,
    parameter: &Tensor,
    vector: Option<&Tensor>,
) -> Result<()> {
    let title = method.definition().title();
    let Sizes { kernel, image: (height, width), .. } = *sizes;
    if kernel > height || kernel > width {
        return Err(Error::KernelExceedsImage { layer: title.into(), kernel, height, width });
    }
    if sizes.weight_shape().contains(&0) {
        return Err(Error::Zero { what: format!("{title}: a size of the weight") });
    }
    check_shape(format!("{title} parameter"), parameter.dims(), &method.parameter_shape(sizes))?;
    let Some(expected) = method.vector_shape(sizes) else { return Ok(()) };
    let what = format!("{title} vector");
    check_shape(what.clone(), vector.map_or(&[], Tensor::dims), &expected)?;
    match vector {
        Some(vector) if vector.dtype() != parameter.dtype() => {
            let (expected, got) = (parameter.dtype().as_str(), vector.dtype().as_str());
            Err(Error::DTypeMismatch { what, expected: expected.into(), got: got.into() })
        }
        _ => Ok(()),
    }
}

fn check_shape(what: String, got: &[usize], expected: &[usize]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::ShapeMismatch { what, expected: expected.to_vec(), got: got.to_vec() })
}
