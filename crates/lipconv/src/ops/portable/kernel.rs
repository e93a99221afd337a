//! BCOP kernels: equation (5) as products of stacks of taps.
//!
//! The algebra is blockconv's, where it is derived: `bcop` for the parametrisation, `chain` for the product. A stack holds
//! min(c_out, c_in) rows of every tap; a two-tap factor [M  I-M] maps A to C_i = B_i + (A - B)_{i-1} with B = A M, one matrix
//! product for all taps. For c_in < c_out the transposed product is evaluated in the opposite order.
//!
//! Shapes. Parameters [2k-1, n, n] with n = max(c_out, c_in); result c_out x c_in x k x k.
//!
//! Cost. As blockconv's, with Newton-Schulz steps in place of the eigendecomposition and of Cholesky factors.

use candle_core::Tensor;

use super::conv::reversed;
use super::polar::{Factor, polar};
use crate::error::Result;

/// The orthogonal kernel of BCOP parameters, and the defect of its orthogonal factors.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) for parameters of another shape.
pub fn bcop(parameters: &Tensor, c_out: usize, c_in: usize) -> Result<Factor> {
    let (count, n, _) = parameters.dims3()?;
    let h = polar(&parameters.get(0)?)?;
    let (factors, mut defect) = (projectors(parameters)?, h.defect);
    if let Some(Factor { defect: of_projectors, .. }) = &factors {
        defect = (defect + of_projectors)?;
    }
    let factor = |index: usize| match &factors {
        Some(stack) => stack.matrix.get(index),
        None => Tensor::zeros((n, n), parameters.dtype(), parameters.device()),
    };
    // vertical and horizontal factors alternate
    let order = 0..count - 1;
    let taps = if c_out <= c_in {
        let start = h.matrix.narrow(0, 0, c_out)?.reshape((1, 1, c_out, n))?;
        order.into_iter().try_fold(start, |stack, i| multiply(&stack, &factor(i)?, i % 2))?
    } else {
        let eye = Tensor::eye(n, parameters.dtype(), parameters.device())?;
        let start = eye.narrow(0, 0, c_in)?.contiguous()?.reshape((1, 1, c_in, n))?;
        let stack = order
            .into_iter()
            .rev()
            .try_fold(start, |stack, i| multiply(&stack, &factor(i)?, i % 2))?;
        times(&stack, &h.matrix.t()?)?.transpose(2, 3)?
    };
    // w[o, i, a, b] = X[k-1-a, k-1-b][o, i]
    let taps = reversed(&reversed(&taps, 0)?, 1)?;
    let weight = taps.permute((2, 3, 0, 1))?.contiguous()?;
    Ok(Factor { matrix: weight, defect })
}

/// The projectors on the ranges of the first n/2 columns of slices 1…, stacked; `None` where there are none or n/2 is 0.
fn projectors(parameters: &Tensor) -> Result<Option<Factor>> {
    let (count, n, _) = parameters.dims3()?;
    if count == 1 || n / 2 == 0 {
        return Ok(None);
    }
    let columns = parameters.narrow(0, 1, count - 1)?.narrow(2, 0, n / 2)?.contiguous()?;
    let Factor { matrix: basis, defect } = polar(&columns)?;
    Ok(Some(Factor { matrix: basis.matmul(&basis.t()?)?, defect }))
}

/// The stack times [M; I-M] (axis 0) or [M  I-M] (axis 1).
fn multiply(stack: &Tensor, matrix: &Tensor, axis: usize) -> Result<Tensor> {
    let product = times(stack, matrix)?;
    let rest = (stack - &product)?;
    Ok((product.pad_with_zeros(axis, 0, 1)? + rest.pad_with_zeros(axis, 1, 0)?)?)
}

/// Every tap times a matrix.
fn times(stack: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (v, h, rows, n) = stack.dims4()?;
    let product = stack.contiguous()?.reshape((v * h * rows, n))?.matmul(&matrix.contiguous()?)?;
    Ok(product.reshape((v, h, rows, n))?)
}
