//! Weights on the CPU as candle operations.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, DType, Device, Shape, Tensor};
use ndarray::ArrayViewD;

use super::{Assembled, Layer, Method, Sizes, Start};
use crate::bounds::array;
use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, to_vec};
use crate::error::Result;

/// The weight as a tensor operation on the parameter, differentiable by candle. For OSSN also the vector after the power
/// iteration, which starts from `vector`.
///
/// # Errors
/// As for [`CpuParametrisation::assemble`](super::CpuParametrisation::assemble).
pub(crate) fn weight_of(
    layer: Layer<'_>,
    method: Method,
    parameter: &Tensor,
    vector: Option<&Tensor>,
) -> Result<(Tensor, Option<Tensor>)> {
    if method.definition().is_identity() {
        return Ok((parameter.clone(), None));
    }
    let saved = Arc::new(Saved {
        layer: layer.name.to_owned(),
        sizes: layer.sizes,
        method,
        vector: vector.map(Tensor::detach),
        assembled: Mutex::default(),
        next: Mutex::default(),
    });
    let weight = parameter.contiguous()?.apply_op1(Operation(Arc::clone(&saved)))?;
    let next = lock(&saved.next).take();
    Ok((weight, next))
}

/// The weight that leaves training, on the parameter's device.
///
/// # Errors
/// As for [`CpuParametrisation::frozen`](super::CpuParametrisation::frozen).
pub(crate) fn frozen_weight(
    layer: Layer<'_>,
    method: Method,
    parameter: &Tensor,
) -> Result<Tensor> {
    match parameter.dtype() {
        DType::F64 => frozen::<f64>(layer, method, parameter),
        _ => frozen::<f32>(layer, method, parameter),
    }
}

fn frozen<T: Element>(layer: Layer<'_>, method: Method, parameter: &Tensor) -> Result<Tensor> {
    let values = array::<T, _>(parameter, parameter.dims())?;
    let weight = method.on_cpu().frozen(layer, values.view())?;
    let shape = weight.shape().to_vec();
    let values = weight.iter().copied().collect::<Vec<T>>();
    Ok(Tensor::from_vec(values, shape, parameter.device())?)
}

/// One assembly of a weight, with what its pullback needs.
struct Saved {
    layer: String,
    sizes: Sizes,
    method: Method,
    vector: Option<Tensor>,
    /// A boxed [`Assembled`] of the parameter's element type, once it has run.
    assembled: Mutex<Option<Box<dyn Any + Send + Sync>>>,
    /// The vector that the next training step starts from.
    next: Mutex<Option<Tensor>>,
}

/// What candle's graph holds.
struct Operation(Arc<Saved>);

impl Operation {
    fn layer(&self) -> Layer<'_> {
        Layer { name: &self.0.layer, sizes: self.0.sizes }
    }

    fn forward<T: Element>(
        &self,
        [(storage, layout)]: [Input<'_>; 1],
    ) -> Result<(CpuStorage, Shape)> {
        let saved = &self.0;
        let parameter = ArrayViewD::from_shape(layout.dims(), cpu_slice::<T>(storage, layout)?)
            .expect("a contiguous tensor has as many values as its shape says");
        let vector = saved.vector.as_ref().map(to_vec::<T>).transpose()?;
        let start = Start { warm: None, vector: vector.as_deref(), scratch: None };
        let assembled =
            saved.method.on_cpu::<T>().assemble(self.layer(), parameter.view(), start)?;
        let weight = assembled.weight(parameter);
        let shape = Shape::from(weight.shape());
        if let (Some(next), Some(vector)) = (assembled.next_vector(), &saved.vector) {
            *lock(&saved.next) = Some(Tensor::from_vec(next, vector.shape(), &Device::Cpu)?);
        }
        *lock(&saved.assembled) = Some(Box::new(assembled));
        Ok((T::to_cpu_storage_owned(weight.iter().copied().collect()), shape))
    }

    fn backward<T: Element>(
        &self,
        [parameter]: [&Tensor; 1],
        gradient: &Tensor,
    ) -> Result<[Tensor; 1]> {
        let values = array::<T, _>(parameter, parameter.dims())?;
        let gradient = array::<T, _>(gradient, gradient.dims())?;
        let saved = lock(&self.0.assembled);
        let assembled = saved.as_ref().and_then(|any| any.downcast_ref::<Box<dyn Assembled<T>>>());
        let assembled = assembled.expect("backward runs after forward, in the same element type");
        let gradient = assembled.pullback(self.layer(), values.view(), gradient)?;
        let gradient = gradient.iter().copied().collect::<Vec<T>>();
        Ok([Tensor::from_vec(gradient, parameter.shape(), parameter.device())?])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is inside is replaced as a whole, so a panicking holder leaves nothing half-done
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

cpu_op!(Operation, "constrained-weight", 1);
