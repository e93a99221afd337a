//! Constrained weights as tensor operations on free parameters, differentiable by candle; on the CPU, in f32 or f64.
//! [`portable`](super::portable) has the same for every device.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::parametrise::{Parametrisation, weight_of};

/// The OIHW weight of an orthogonal convolution (c_out x c_in x k x k) from 2k - 1 free n x n matrices, n = max(c_out, c_in).
///
/// # Errors
/// [`Error::ShapeMismatch`] for parameters of another shape, [`Error::Candle`] around [`Error::Algebra`] for parameters
/// that are not finite or rank-deficient.
pub fn bcop(parameters: &Tensor, c_out: usize, c_in: usize) -> Result<Tensor> {
    let n = c_out.max(c_in);
    check("BCOP parameters", parameters, &[0, n, n])?;
    Ok(weight_of("bcop", Parametrisation::Bcop { c_out, c_in }, parameters, None)?.0)
}

/// The orthogonal polar factor of an n_out x n_in matrix, to which Björck orthonormalisation converges.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::Candle`] around [`Error::Orthonormalisation`] for a matrix that is not finite or
/// rank-deficient.
pub fn bjorck(weight: &Tensor) -> Result<Tensor> {
    check("Björck weight", weight, &[0, 0])?;
    Ok(weight_of("bjorck", Parametrisation::Polar, weight, None)?.0)
}

/// The polar factor of the c_out x c_in·k² reshape of an OIHW weight, divided by k: a convolution of norm at most 1.
///
/// # Errors
/// As for [`bjorck`].
pub fn rko(weight: &Tensor) -> Result<Tensor> {
    check_kernel("RKO weight", weight)?;
    Ok(weight_of("rko", Parametrisation::Rko, weight, None)?.0)
}

/// An OIHW weight divided by k √min(‖F Fᵗ‖_∞, ‖Fᵗ F‖_∞), F its reshape: a convolution of norm at most 1.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::Candle`] around [`Error::NonFinite`] or [`Error::ZeroWeight`].
pub fn rk_l2ne(weight: &Tensor) -> Result<Tensor> {
    check_kernel("RK-L2NE weight", weight)?;
    Ok(weight_of("rk-l2ne", Parametrisation::RkL2ne, weight, None)?.0)
}

/// An OIHW weight divided by max(σ, 1), σ the norm of its cyclic convolution on h x w images as estimated by ten power
/// iterations from `vector` (c_in x h x w); and the vector to start from next time.
///
/// The estimate is from below: the result may exceed norm 1.
///
/// # Errors
/// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`], [`Error::KernelExceedsImage`], [`Error::Candle`] around
/// [`Error::NonFinite`].
pub fn ossn(weight: &Tensor, vector: &Tensor) -> Result<(Tensor, Tensor)> {
    check_kernel("OSSN weight", weight)?;
    let (c_in, kernel) = (weight.dims()[1], weight.dims()[2]);
    check("OSSN vector", vector, &[c_in, 0, 0])?;
    let (height, width) = (vector.dims()[1], vector.dims()[2]);
    if kernel > height || kernel > width {
        return Err(Error::KernelExceedsImage { layer: "ossn".into(), kernel, height, width });
    }
    if vector.dtype() != weight.dtype() {
        let (expected, got) = (weight.dtype().as_str().into(), vector.dtype().as_str().into());
        return Err(Error::DTypeMismatch { what: "OSSN vector".into(), expected, got });
    }
    let parametrisation = Parametrisation::Ossn { image: (height, width) };
    let (weight, next) = weight_of("ossn", parametrisation, weight, Some(vector))?;
    Ok((weight, next.unwrap_or_else(|| vector.clone())))
}

/// The tensor must have this shape, 0 for any size but 0.
fn check(what: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    let dims = tensor.dims();
    let fits = |(&got, &expected): (&usize, &usize)| got > 0 && (got == expected || expected == 0);
    if dims.len() == expected.len() && dims.iter().zip(expected).all(fits) {
        return Ok(());
    }
    Err(Error::ShapeMismatch {
        what: what.to_owned(),
        expected: expected.to_vec(),
        got: dims.to_vec(),
    })
}

fn check_kernel(what: &str, weight: &Tensor) -> Result<()> {
    let side = weight.dims().get(2).copied().unwrap_or(0);
    check(what, weight, &[0, 0, side, side])
}
