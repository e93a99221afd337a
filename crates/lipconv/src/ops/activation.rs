//! MaxMin and GroupSort as tensor operations.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};

use crate::element::{Element, cpu_slice, engine_runs};
use crate::error::{Error, Result};
use crate::kernels::activation::{Activation, MAX_GROUP};

/// MaxMin over dimension 1: the first half of the channels against the second, maxima first.
///
/// `y[i] = max(x[i], x[i + c/2])`, `y[i + c/2] = min(x[i], x[i + c/2])`; 1-Lipschitz and gradient-norm
/// preserving. Shapes: b x c x … to the same.
///
/// # Errors
/// [`Error::GroupsDoNotDivide`] when the number of channels is odd.
pub fn max_min(x: &Tensor) -> Result<Tensor> {
    check(x, 2, "max_min")?;
    if runs_on_cpu(x) {
        return Ok(x.contiguous()?.apply_op1(ActivationOp(Activation::MaxMin))?);
    }
    let half = x.dims()[1] / 2;
    let (a, b) = (x.narrow(1, 0, half)?, x.narrow(1, half, half)?);
    Ok(Tensor::cat(&[a.maximum(&b)?, a.minimum(&b)?], 1)?)
}

/// GroupSort over dimension 1: consecutive groups of `group` channels, each ascending.
///
/// A permutation of the values at every point, hence 1-Lipschitz and gradient-norm preserving. Shapes:
/// b x c x … to the same.
///
/// # Errors
/// [`Error::GroupsDoNotDivide`] when `group` is 0 or does not divide the number of channels.
pub fn group_sort(x: &Tensor, group: usize) -> Result<Tensor> {
    check(x, group, "group_sort")?;
    if runs_on_cpu(x) && group < MAX_GROUP {
        return Ok(x.contiguous()?.apply_op1(ActivationOp(Activation::GroupSort(group)))?);
    }
    let (batch, channels) = (x.dims()[0], x.dims()[1]);
    let plane = x.elem_count() / (batch * channels).max(1);
    let groups =
        x.reshape((batch, channels / group, group, plane))?.transpose(2, 3)?.contiguous()?;
    let order = groups.detach().arg_sort_last_dim(true)?;
    Ok(groups.gather(&order, 3)?.transpose(2, 3)?.contiguous()?.reshape(x.shape())?)
}

fn check(x: &Tensor, group: usize, layer: &str) -> Result<()> {
    let channels = x.dims().get(1).copied().unwrap_or(0);
    if group == 0 || !channels.is_multiple_of(group) {
        return Err(Error::GroupsDoNotDivide { layer: layer.to_owned(), channels, group });
    }
    Ok(())
}

fn runs_on_cpu(x: &Tensor) -> bool {
    x.device().is_cpu() && engine_runs(x.dtype()) && x.elem_count() > 0
}

/// An activation on b x c x … with its adjoint.
struct ActivationOp(Activation);

impl ActivationOp {
    fn forward<T: Element>(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut values = cpu_slice::<T>(storage, layout)?.to_vec();
        self.for_each_sample(layout.shape(), &mut values, |activation, values, plane, record| {
            activation.forward(values, plane, record);
        });
        Ok((T::to_cpu_storage_owned(values), layout.shape().clone()))
    }

    /// The decisions are taken again from the input: cheaper than keeping them in the graph.
    fn backward<T: Element>(&self, x: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let mut values = x.flatten_all()?.to_vec1::<T>()?;
        let mut gradient = gradient.flatten_all()?.to_vec1::<T>()?.into_iter();
        self.for_each_sample(x.shape(), &mut values, |activation, values, plane, record| {
            activation.forward(values, plane, record);
            for value in values.iter_mut() {
                *value = gradient.next().unwrap_or_else(T::zero);
            }
            activation.backward(values, plane, record);
        });
        Ok(Tensor::from_vec(values, x.shape(), x.device())?)
    }

    fn for_each_sample<T>(
        &self,
        shape: &Shape,
        values: &mut [T],
        mut f: impl FnMut(Activation, &mut [T], usize, &mut [u8]),
    ) {
        let n = shape.elem_count() / shape.dims()[0];
        let plane = n / shape.dims()[1];
        let mut record = vec![0; self.0.record_len(n)];
        for values in values.chunks_exact_mut(n) {
            f(self.0, values, plane, &mut record);
        }
    }
}

impl CustomOp1 for ActivationOp {
    fn name(&self) -> &'static str {
        "lipschitz-activation"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(match storage {
            CpuStorage::F64(_) => self.forward::<f64>(storage, layout)?,
            _ => self.forward::<f32>(storage, layout)?,
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(match x.dtype() {
            DType::F64 => self.backward::<f64>(x, gradient)?,
            _ => self.backward::<f32>(x, gradient)?,
        }))
    }
}
