//! The polar factor by scaled Newton-Schulz steps.
//!
//! Definition. X_0 = W / √(‖W‖_1 ‖W‖_∞), whose singular values lie in (0, 1], and X ← s/2 (3 I - s² X Xᵗ) X for a wide X (on the
//! other side for a tall one). A singular value x goes to f(x) = s x (3 - s² x²) / 2, and with s² = 3 / (1 + l + l²) the interval
//! [l, 1] goes into [f(l), 1], f(l) = f(1) = s (3 - s²) / 2. The lower ends are known beforehand, so the number of steps is
//! fixed, nothing is read back, and every singular value above [`LOWEST`] ends at 1 to rounding. s tends to 1, where the
//! step is the paper's Björck iteration of order 1; the scaling makes the first steps grow small values by 2.6 instead of 1.5.
//!
//! Guarantee. None by itself: a matrix that is closer to rank-deficient has a visible [`Factor::defect`], which the caller
//! reads when it reads other numbers. The scale counts as a constant in the gradient, which is exact because the factor
//! does not depend on it.
//!
//! Cost. Two products of the shape of W and one Gram matrix's worth for each of about 17 steps in f32, 19 in f64.
//!
//! Source. Li et al., section 3.2 and algorithm 2 (Björck and Bowie 1971); Chen and Chow (2014) for the scaling.

use candle_core::{D, DType, Tensor};

use crate::error::Result;

/// Singular values below this share of the bound of the largest may be left short of 1.
const LOWEST: f64 = 1e-5;

/// A polar factor and how far it is from orthonormal.
#[derive(Debug, Clone)]
pub struct Factor {
    /// Q, of the shape of W.
    pub matrix: Tensor,
    /// ‖Q Qᵗ - I‖_F (the smaller side) over all matrices of the batch, a scalar outside of the graph.
    pub defect: Tensor,
}

/// The scales s of all steps for an element type with rounding unit `eps`.
fn scales(eps: f64) -> Vec<f64> {
    let (mut lowest, mut scales) = (LOWEST, Vec::new());
    while lowest < 1.0 - eps.sqrt() / 4.0 {
        let s = (3.0 / (1.0 + lowest + lowest * lowest)).sqrt();
        scales.push(s);
        lowest = s * (3.0 - s * s) / 2.0;
    }
    // the deviation is squared by each of these
    scales.extend([1.0, 1.0]);
    scales
}

fn eps(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// Steps taken in an element type.
pub(crate) fn n_steps(dtype: DType) -> usize {
    scales(eps(dtype)).len()
}

/// The polar factors of the matrices in the last two axes of `w`.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) for a tensor of fewer than two axes or another element type than f32 or f64.
pub fn polar(w: &Tensor) -> Result<Factor> {
    let (rows, columns) = (w.dim(D::Minus2)?, w.dim(D::Minus1)?);
    let wide = rows <= columns;
    let eye = Tensor::eye(rows.min(columns), w.dtype(), w.device())?;
    let mut x = w.broadcast_div(&norm_bound(&w.detach())?)?;
    let gram = |x: &Tensor| if wide { x.matmul(&x.t()?) } else { x.t()?.matmul(x) };
    for s in scales(eps(w.dtype())) {
        let step = (gram(&x)? * (-0.5 * s * s * s))?.broadcast_add(&(&eye * (1.5 * s))?)?;
        x = if wide { step.matmul(&x)? } else { x.matmul(&step)? };
    }
    let defect = gram(&x.detach())?.broadcast_sub(&eye)?.sqr()?.sum_all()?.sqrt()?;
    Ok(Factor { matrix: x, defect })
}

/// √(‖W‖_1 ‖W‖_∞) >= ‖W‖_2 of each matrix, with two axes of length 1.
fn norm_bound(w: &Tensor) -> Result<Tensor> {
    let w = w.abs()?;
    let largest_row = w.sum_keepdim(D::Minus1)?.max_keepdim(D::Minus2)?;
    let largest_column = w.sum_keepdim(D::Minus2)?.max_keepdim(D::Minus1)?;
    Ok((largest_row * largest_column)?.sqrt()?)
}
