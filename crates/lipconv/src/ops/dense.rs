//! Dense layers as tensor operations; on the CPU as products of OpenBLAS with their own adjoint.
//!
//! candle's graph would transpose the weight first, and add the weight's gradient through the transposed view.

use candle_core::{CpuStorage, Shape, Tensor};
use ndarray::{Array2, ArrayView2};
use projectors::gemm::matmul;

use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, engine_runs, slice_of};
use crate::error::Result;

/// `y = W x + β` for a batch of vectors: b x n_in to b x n_out.
///
/// # Errors
/// [`Error::Candle`](crate::Error::Candle) when the shapes do not fit.
pub fn dense(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let fits = matches!((x.dims(), weight.dims()), ([_, n], [_, n_in]) if n == n_in);
    let same = x.dtype() == weight.dtype() && x.device().is_cpu() && weight.device().is_cpu();
    let y = if fits && same && engine_runs(x.dtype()) {
        x.contiguous()?.apply_op2(&weight.contiguous()?, DenseOp)?
    } else {
        x.matmul(&weight.t()?)?
    };
    Ok(match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    })
}

/// `X Wᵗ` of contiguous matrices.
struct DenseOp;

fn view<'a, T: Element>(values: &'a [T], shape: &Shape) -> Result<ArrayView2<'a, T>> {
    let shape = shape.dims2()?;
    Ok(ArrayView2::from_shape(shape, values).expect("a contiguous tensor has rows·columns values"))
}

fn into_values<T: Element>(matrix: Array2<T>) -> Vec<T> {
    matrix.into_raw_vec_and_offset().0
}

impl DenseOp {
    fn forward<T: Element>(&self, [x, weight]: [Input<'_>; 2]) -> Result<(CpuStorage, Shape)> {
        let (x_values, weight_values) = (cpu_slice::<T>(x.0, x.1)?, cpu_slice(weight.0, weight.1)?);
        let (x, weight) = (view(x_values, x.1.shape())?, view(weight_values, weight.1.shape())?);
        let shape = Shape::from((x.nrows(), weight.nrows()));
        Ok((T::to_cpu_storage_owned(into_values(matmul(x, weight.t()))), shape))
    }

    fn backward<T: Element>(&self, [x, weight]: [&Tensor; 2], d_y: &Tensor) -> Result<[Tensor; 2]> {
        let d_y = d_y.contiguous()?;
        let guards = [x, weight, &d_y].map(Tensor::storage_and_layout);
        let [x_values, w_values, d_values] = guards.each_ref().map(|(s, l)| slice_of::<T>(s, l));
        let d = view(d_values?, d_y.shape())?;
        let d_x = matmul(d, view(w_values?, weight.shape())?);
        let d_weight = matmul(d.t(), view(x_values?, x.shape())?);
        Ok([
            Tensor::from_vec(into_values(d_x), x.shape(), x.device())?,
            Tensor::from_vec(into_values(d_weight), weight.shape(), x.device())?,
        ])
    }
}

cpu_op!(DenseOp, "dense", 2);
