//! Weights of candle's CUDA tensors by the engine's kernels, forward and backward.
//!
//! Every kind of layer has one engine on every device, which lives as long as the process: about 100 MB with the workspaces of its
//! streams. Its result is checked before it is handed out, which waits for the device.

#![expect(unsafe_code, reason = "memory that candle has not written yet")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, DeviceLocation, Layout, Shape, Tensor,
};

use super::blueprint::LinearPlan;
use super::single::single;
use super::tensor_kernels::not_on_the_cpu;
use super::{Engine, Graph, Place};
use crate::error::Result;
use crate::methods::{Method, Sizes};

type Shared = Arc<Mutex<Single>>;

#[derive(Debug)]
struct Single {
    engine: Engine,
    /// The operation whose assembly the engine's memory still holds.
    holds: Option<u64>,
}

/// Numbers the operations of the process.
static OPERATIONS: AtomicU64 = AtomicU64::new(0);

static ENGINES: Mutex<Vec<(usize, LinearPlan, Shared)>> = Mutex::new(Vec::new());

/// The weight of a parameter on a CUDA device, differentiable; `None` where the engine does not make it and candle's operations do.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device); around candle's error, [`Error::Orthonormalisation`](crate::Error::Orthonormalisation) for a parameter that has no weight.
pub(crate) fn weight(method: Method, sizes: &Sizes, parameter: &Tensor) -> Result<Option<Tensor>> {
    let DeviceLocation::Cuda { gpu_id } = parameter.device().location() else { return Ok(None) };
    let Some(plan) = single(method, sizes).filter(|_| parameter.dtype() == DType::F32) else {
        return Ok(None);
    };
    let (engine, shape) = (engine_of(gpu_id, plan)?, Shape::from(sizes.weight_shape()));
    let number = OPERATIONS.fetch_add(1, Ordering::Relaxed);
    Ok(Some(parameter.contiguous()?.apply_op1(DeviceWeight { engine, number, shape })?))
}

fn engine_of(gpu_id: usize, plan: LinearPlan) -> Result<Shared> {
    let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, engine)) = engines.iter().find(|(id, p, _)| (*id, p) == (gpu_id, &plan)) {
        return Ok(Arc::clone(engine));
    }
    let engine = Engine::of_layer(plan.clone(), Place::Device(gpu_id))?;
    let engine = Arc::new(Mutex::new(Single { engine, holds: None }));
    engines.push((gpu_id, plan, Arc::clone(&engine)));
    Ok(engine)
}

type Input<'a> = (&'a CudaStorage, &'a Layout);

/// The weight of a contiguous parameter, or its pullback where the weight's gradient is given too, for the operation of this number.
fn run(shared: &Shared, number: u64, inputs: &[Input<'_>]) -> Result<CudaStorage> {
    // what an engine holds is written anew by every call, or known to be this operation's
    let mut single = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let is_held = single.holds.take() == Some(number);
    let engine = &mut single.engine;
    let wanted = match (inputs.len(), is_held) {
        (1, _) => Graph::Weight,
        (_, true) => Graph::Pullback,
        (_, false) => Graph::WeightGradient,
    };
    let device = inputs[0].0.device.clone();
    let stream = device.cuda_stream();
    // what candle was asked for is done before another stream reads it
    device.synchronize()?;
    let places = [engine.memory.parameters, engine.memory.weight];
    for ((storage, layout), to) in inputs.iter().zip(places) {
        let values = storage.as_cuda_slice::<f32>()?.slice(layout.start_offset()..);
        let (address, _reading) = values.device_ptr(&stream);
        engine.device.copy(address, to, 4 * layout.shape().elem_count())?;
    }
    engine.make(wanted)?;
    let (from, n) = match wanted {
        Graph::Weight => (engine.memory.weight, engine.n_weight()),
        _ => (engine.memory.gradients, engine.n_parameter()),
    };
    // SAFETY: all of it is written below
    let mut result = unsafe { device.alloc::<f32>(n) }?;
    device.synchronize()?;
    let (address, writing) = result.device_ptr_mut(&stream);
    engine.device.copy(from, address, 4 * n)?;
    // waits for the copy
    engine.status()?;
    drop(writing);
    single.holds = (wanted == Graph::Weight).then_some(number);
    Ok(CudaStorage::wrap_cuda_slice(result, device))
}

struct DeviceWeight {
    engine: Shared,
    number: u64,
    shape: Shape,
}

impl CustomOp1 for DeviceWeight {
    fn name(&self) -> &'static str {
        "constrained-weight"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        not_on_the_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        parameter: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let weight = run(&self.engine, self.number, &[(parameter, layout)])?;
        Ok((weight, self.shape.clone()))
    }

    fn bwd(
        &self,
        parameter: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let pullback = Pullback(Arc::clone(&self.engine), self.number);
        parameter
            .contiguous()?
            .detach()
            .apply_op2_no_bwd(&gradient.contiguous()?.detach(), &pullback)
            .map(Some)
    }
}

/// The gradient of a parameter from the parameter and the gradient of its weight.
struct Pullback(Shared, u64);

impl CustomOp2 for Pullback {
    fn name(&self) -> &'static str {
        "constrained-weight-pullback"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        not_on_the_cpu(self.name())
    }

    fn cuda_fwd(
        &self,
        parameter: &CudaStorage,
        layout: &Layout,
        gradient: &CudaStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let inputs = [(parameter, layout), (gradient, gradient_layout)];
        Ok((run(&self.0, self.1, &inputs)?, layout.shape().clone()))
    }
}
