//! Cayley: an orthogonal transfer matrix for each frequency.
//!
//! Definition. Of a tall Ŵ (c_out >= c_in) let U be the first c_in rows and V the rest, A = U - U* + V* V and
//! Q = [(I + A)⁻¹ (I - A); -2 V (I + A)⁻¹]. A wide Ŵ has the adjoint of what its adjoint has.
//!
//! Guarantee. Q* Q = I in exact arithmetic for every Ŵ. Proof: A + A* = 2 V* V, so (I - A)* (I - A) + 4 V* V = (I + A)* (I + A), and
//! I ± A commute. Since Re ⟨x, (I + A) x⟩ >= ‖x‖², the inverse exists and has norm at most 1. For c_out = c_in only matrices
//! without the eigenvalue -1 are reached.
//!
//! Source. Trockman and Kolter (2021), arXiv 2104.07167.

use candle_core::Tensor;

use super::complex::Complex;
use crate::error::Result;

/// Q for every frequency.
pub(super) fn orthogonal(w: &Complex) -> Result<Complex> {
    let (rows, columns) = w.sides()?;
    if rows < columns {
        return orthogonal(&w.adjoint()?)?.adjoint();
    }
    let one = Tensor::ones(1, w.re.dtype(), w.re.device())?;
    let (a, inverse, v) = parts(w)?;
    let top = inverse.matmul(&a.times(-1.0)?.plus_identity(&one)?)?;
    match v {
        Some(v) => top.above(&v.matmul(&inverse)?.times(-2.0)?),
        None => Ok(top),
    }
}

/// A, (I + A)⁻¹ and, where there is one, V of a tall or square Ŵ.
fn parts(w: &Complex) -> Result<(Complex, Complex, Option<Complex>)> {
    let (rows, columns) = w.sides()?;
    let one = Tensor::ones(1, w.re.dtype(), w.re.device())?;
    let u = w.narrow(1, 0, columns)?;
    let mut a = u.subtract(&u.adjoint()?)?;
    let v = (rows > columns).then(|| w.narrow(1, columns, rows - columns)).transpose()?;
    if let Some(v) = &v {
        a = a.add(&v.adjoint()?.matmul(v)?)?;
    }
    let inverse = a.plus_identity(&one)?.inverse()?;
    Ok((a, inverse, v))
}

/// What completes the Q of a Ŵ with more rows than columns to a square orthogonal matrix: its further columns, those beside the
/// first rows and those beside the rest. None for a square Ŵ.
///
/// With X = (I + A)⁻¹ they are 2 X V* and I - 2 V X V*: together with Q the Cayley transform of the skew matrix [U - U*  -V*; V  0].
pub(super) fn completion(w: &Complex) -> Result<Option<(Complex, Complex)>> {
    let (_, inverse, v) = parts(w)?;
    let Some(v) = v else { return Ok(None) };
    let one = Tensor::ones(1, w.re.dtype(), w.re.device())?;
    let above = inverse.matmul(&v.adjoint()?)?.times(2.0)?;
    let below = v.matmul(&above)?.times(-1.0)?.plus_identity(&one)?;
    Ok(Some((above, below)))
}
