//! The other constrained weights, and the choice among all.

use candle_core::{D, Tensor};

use super::conv::{adjoint, adjoint_weight, cyclic_conv};
use super::kernel::bcop;
use super::polar::{Factor, polar};
use crate::error::Result;
use crate::parametrise::{N_ITERATIONS, Parametrisation};

/// A weight, what its next training step starts from, and how far its factors are from orthonormal.
#[derive(Debug)]
pub(crate) struct Weight {
    pub(crate) weight: Tensor,
    pub(crate) vector: Option<Tensor>,
    pub(crate) defect: Option<Tensor>,
}

/// The weight that a parameter stands for, differentiable by candle.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub(crate) fn weight_of(
    parametrisation: Parametrisation,
    parameter: &Tensor,
    vector: Option<&Tensor>,
) -> Result<Weight> {
    let of = |factor: Factor| Weight {
        weight: factor.matrix,
        vector: None,
        defect: Some(factor.defect),
    };
    Ok(match (parametrisation, vector) {
        (Parametrisation::Bcop { c_out, c_in }, _) => of(bcop(parameter, c_out, c_in)?),
        (Parametrisation::Polar, _) => of(polar(parameter)?),
        (Parametrisation::Rko, _) => of(rko(parameter)?),
        (Parametrisation::RkL2ne, _) => {
            Weight { weight: rk_l2ne(parameter)?, vector: None, defect: None }
        }
        (Parametrisation::Ossn { .. }, Some(vector)) => {
            let (weight, next) = ossn(parameter, vector)?;
            Weight { weight, vector: Some(next), defect: None }
        }
        (Parametrisation::Ossn { .. }, None) => {
            unreachable!("the network gave every OSSN layer its vector")
        }
        (Parametrisation::Svcm { .. } | Parametrisation::Unconstrained, _) => {
            Weight { weight: parameter.clone(), vector: None, defect: None }
        }
    })
}

/// The polar factor of the c_out x c_in·k² reshape of an OIHW weight, divided by k.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub fn rko(weight: &Tensor) -> Result<Factor> {
    let (c_out, _, kernel, _) = weight.dims4()?;
    let Factor { matrix, defect } = polar(&weight.reshape((c_out, ()))?)?;
    Ok(Factor { matrix: (matrix / kernel as f64)?.reshape(weight.shape())?, defect })
}

/// An OIHW weight divided by k √min(‖F Fᵗ‖_∞, ‖Fᵗ F‖_∞), F its reshape.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub fn rk_l2ne(weight: &Tensor) -> Result<Tensor> {
    let (c_out, _, kernel, _) = weight.dims4()?;
    let flat = weight.reshape((c_out, ()))?;
    let largest = |gram: Tensor| gram.abs()?.sum(D::Minus1)?.max(0);
    let by_output = largest(flat.matmul(&flat.t()?)?)?;
    let by_input = largest(flat.t()?.matmul(&flat)?)?;
    let divisor = (by_output.minimum(&by_input)?.sqrt()? * kernel as f64)?;
    Ok(weight.broadcast_div(&divisor)?)
}

/// An OIHW weight divided by max(σ, 1), and the vector of the next power iteration: as [`crate::ops::ossn`].
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle).
pub fn ossn(weight: &Tensor, vector: &Tensor) -> Result<(Tensor, Tensor)> {
    let fixed = weight.detach();
    let transposed = adjoint_weight(&fixed)?;
    let round = |right: &Tensor| -> Result<(Tensor, Tensor)> {
        let left = unit(&cyclic_conv(right, &fixed, None, 1)?)?;
        let right = unit(&adjoint(&left, &transposed)?)?;
        Ok((left, right))
    };
    let (mut left, mut right) = round(&vector.detach().unsqueeze(0)?)?;
    for _ in 1..N_ITERATIONS {
        (left, right) = round(&right)?;
    }
    let image = cyclic_conv(&right.detach(), weight, None, 1)?;
    let sigma = (image * left.detach())?.sum_all()?;
    let divisor = sigma.maximum(&sigma.ones_like()?)?;
    Ok((weight.broadcast_div(&divisor)?, right.squeeze(0)?.detach()))
}

/// `x / ‖x‖`; a zero tensor stays.
fn unit(x: &Tensor) -> Result<Tensor> {
    let norm = x.sqr()?.sum_all()?.sqrt()?;
    let least = (norm.ones_like()? * f64::from(f32::MIN_POSITIVE))?;
    Ok(x.broadcast_div(&norm.maximum(&least)?)?)
}
