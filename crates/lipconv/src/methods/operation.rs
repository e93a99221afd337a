//! Weights on the CPU as candle operations.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use ndarray::ArrayViewD;

use super::{Assembled, Layer, Method, Sizes, Start};
use crate::element::{Element, cpu_slice, to_vec};
use crate::error::Result;

/// The weight as a tensor operation on the parameter, differentiable by candle, and for OSSN the vector that a
/// training step goes on with; `vector` is the one to start from.
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
        f32: Mutex::default(),
        f64: Mutex::default(),
    });
    let weight = parameter.contiguous()?.apply_op1(Operation(Arc::clone(&saved)))?;
    Ok((weight, saved.next_vector()?))
}

/// One assembly of a weight, with what its pullback needs.
struct Saved {
    layer: String,
    sizes: Sizes,
    method: Method,
    vector: Option<Tensor>,
    f32: Slot<f32>,
    f64: Slot<f64>,
}

type Slot<T> = Mutex<Option<Box<dyn Assembled<T>>>>;

/// What candle's graph holds.
struct Operation(Arc<Saved>);

impl Saved {
    fn layer(&self) -> Layer<'_> {
        Layer { name: &self.layer, sizes: self.sizes }
    }

    fn next_vector(&self) -> Result<Option<Tensor>> {
        let Some(vector) = &self.vector else { return Ok(None) };
        let (shape, device) = (vector.shape(), vector.device());
        Ok(match vector.dtype() {
            DType::F64 => next_vector(&self.f64).map(|v| Tensor::from_vec(v, shape, device)),
            _ => next_vector(&self.f32).map(|v| Tensor::from_vec(v, shape, device)),
        }
        .transpose()?)
    }

    fn forward<T: Element>(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        saved: &Slot<T>,
    ) -> Result<(CpuStorage, Shape)> {
        let parameter = ArrayViewD::from_shape(layout.dims(), cpu_slice::<T>(storage, layout)?)
            .expect("a contiguous tensor has as many values as its shape says");
        let vector = self.vector.as_ref().map(to_vec::<T>).transpose()?;
        let start = Start { warm: None, vector: vector.as_deref(), scratch: None };
        let assembled = self.method.on_cpu().assemble(self.layer(), parameter.view(), start)?;
        let weight = assembled.weight(parameter);
        let shape = Shape::from(weight.shape());
        *lock(saved) = Some(assembled);
        Ok((T::to_cpu_storage_owned(weight.iter().copied().collect()), shape))
    }

    fn backward<T: Element>(
        &self,
        parameter: &Tensor,
        gradient: &Tensor,
        saved: &Slot<T>,
    ) -> Result<Tensor> {
        let parameter_values = crate::bounds::array::<T, _>(parameter, parameter.dims())?;
        let gradient = crate::bounds::array::<T, _>(gradient, gradient.dims())?;
        let saved = lock(saved);
        let assembled = saved.as_ref().expect("backward runs after forward");
        let gradient = assembled.pullback(self.layer(), parameter_values.view(), gradient)?;
        let values = gradient.iter().copied().collect::<Vec<T>>();
        Ok(Tensor::from_vec(values, parameter.shape(), parameter.device())?)
    }
}

fn next_vector<T: Element>(saved: &Slot<T>) -> Option<Vec<T>> {
    lock(saved).as_ref().and_then(|assembled| assembled.next_vector())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // what is inside is replaced as a whole, so a panicking holder leaves nothing half-done
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CustomOp1 for Operation {
    fn name(&self) -> &'static str {
        "weight-parametrisation"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let Self(saved) = self;
        Ok(match storage {
            CpuStorage::F64(_) => saved.forward(storage, layout, &saved.f64)?,
            _ => saved.forward(storage, layout, &saved.f32)?,
        })
    }

    fn bwd(
        &self,
        parameter: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let Self(saved) = self;
        Ok(Some(match parameter.dtype() {
            DType::F64 => saved.backward(parameter, gradient, &saved.f64)?,
            _ => saved.backward(parameter, gradient, &saved.f32)?,
        }))
    }
}
