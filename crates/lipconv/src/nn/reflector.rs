//! BRO (convolution): a block reflector for each frequency.
//!
//! Definition. W = I - 2 V (V* V + ε I)⁻¹ V* for V̂ of n x r with n = max(c_out, c_in), of which the first c_out rows and c_in
//! columns are taken; ε is 1e-7 ‖V‖_F² / r, which is 1e-7 times the mean over all frequencies of the diagonal of V* V (Parseval) and does not
//! depend on the image. The dense layer is [`LinearMethod::Bro`](crate::LinearMethod::Bro).
//!
//! Guarantee. W is Hermitian with eigenvalues 1 and 1 - 2σ²/(σ² + ε), all in [-1, 1], for every V, also where it is of deficient
//! rank or zero at some frequency.
//!
//! Source. Lai, Huang, Kuo and Lin (2025), arXiv 2505.15174.

use candle_core::Tensor;

use super::complex::Complex;
use crate::error::Result;

/// ε relative to the mean of the diagonal of V* V.
const RELATIVE_EPSILON: f64 = 1e-7;
/// What ε is at least, so that V = 0 has a reflector too: the identity.
const SMALLEST_EPSILON: f64 = 1e-300;

/// W for every frequency; `energy` is ‖V‖_F² of the kernel.
pub(super) fn reflector(
    v: &Complex,
    energy: &Tensor,
    (c_out, c_in): (usize, usize),
) -> Result<Complex> {
    let adjoint = v.adjoint()?;
    let (_, rank) = v.sides()?;
    let epsilon = ((energy * (RELATIVE_EPSILON / rank as f64))? + SMALLEST_EPSILON)?;
    let inverse = adjoint.matmul(v)?.plus_identity(&epsilon)?.inverse()?;
    let rows = v.narrow(1, 0, c_out)?;
    let columns = adjoint.narrow(2, 0, c_in)?;
    let product = rows.matmul(&inverse)?.matmul(&columns)?.times(-2.0)?;
    let (re, im) = (product.re, product.im);
    let n = c_out.max(c_in);
    let eye = Tensor::eye(n, re.dtype(), re.device())?;
    let eye = eye.narrow(0, 0, c_out)?.narrow(1, 0, c_in)?;
    Ok(Complex { re: re.broadcast_add(&eye)?, im })
}
