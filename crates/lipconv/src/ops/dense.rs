//! Dense layers as tensor operations; on the CPU as products of OpenBLAS with their own adjoint.
//!
//! candle's graph would transpose the weight first, and add the weight's gradient through the transposed view.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use ndarray::{Array2, ArrayView2};
use projectors::gemm::matmul;

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
    fn forward<T: Element>(
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
    ) -> Result<CpuStorage> {
        let (x_values, weight_values) = (cpu_slice::<T>(x.0, x.1)?, cpu_slice(weight.0, weight.1)?);
        let (x, weight) = (view(x_values, x.1.shape())?, view(weight_values, weight.1.shape())?);
        Ok(T::to_cpu_storage_owned(into_values(matmul(x, weight.t()))))
    }

    fn backward<T: Element>(x: &Tensor, weight: &Tensor, d_y: &Tensor) -> Result<[Tensor; 2]> {
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

impl CustomOp2 for DenseOp {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s1 {
            CpuStorage::F64(_) => Self::forward::<f64>((s1, l1), (s2, l2))?,
            _ => Self::forward::<f32>((s1, l1), (s2, l2))?,
        };
        Ok((storage, Shape::from((l1.dims()[0], l2.dims()[0]))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [x, weight] = match x.dtype() {
            DType::F64 => Self::backward::<f64>(x, weight, gradient)?,
            _ => Self::backward::<f32>(x, weight, gradient)?,
        };
        Ok((Some(x), Some(weight)))
    }
}
