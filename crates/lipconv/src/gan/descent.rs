//! An optimiser with its running means over a list of variables, on any device.

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

use crate::element::{Element, slice_of};
use crate::error::{Error, Result};
use crate::finite::check_finite;
use crate::optim::{Moments, Optimizer, Update, update_tensors, update_variable};

/// The running means, as numbers on the CPU and as tensors elsewhere.
#[derive(Debug)]
pub(super) enum VariableState {
    F32(Vec<Moments<f32>>),
    F64(Vec<Moments<f64>>),
    Device(Vec<Vec<Tensor>>),
}

impl VariableState {
    /// Zeros for variables of one element type and device.
    pub(super) fn new(optimizer: &Optimizer, variables: &[(String, Var)]) -> Result<Self> {
        let sizes = variables.iter().map(|(_, v)| v.elem_count());
        Ok(match variables.first().map(|(_, v)| (v.device().is_cpu(), v.dtype())) {
            Some((false, _)) => Self::on_device(optimizer, variables)?,
            Some((_, DType::F64)) => Self::F64(
                sizes.map(|n| Moments::zeros(optimizer.moment_names().len(), n)).collect(),
            ),
            _ => Self::F32(
                sizes.map(|n| Moments::zeros(optimizer.moment_names().len(), n)).collect(),
            ),
        })
    }

    /// Zeros as tensors, wherever the variables are.
    pub(super) fn on_device(optimizer: &Optimizer, variables: &[(String, Var)]) -> Result<Self> {
        let n_kinds = optimizer.moment_names().len();
        let zeros = |v: &Var| (0..n_kinds).map(|_| Ok(v.zeros_like()?)).collect();
        let moments = variables.iter().map(|(_, v)| zeros(v));
        Ok(Self::Device(moments.collect::<Result<_>>()?))
    }

    /// One step of all variables, or an error and no change where a gradient is not finite.
    pub(super) fn step(
        &mut self,
        variables: &[(String, Var)],
        gradients: &GradStore,
        update: Update,
    ) -> Result<()> {
        let gradient = |v: &Var| match gradients.get(v.as_tensor()) {
            Some(gradient) => gradient.contiguous(),
            None => v.zeros_like(),
        };
        let gradients = variables.iter().map(|(_, v)| Ok(gradient(v)?));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        match self {
            Self::F32(moments) => step_on_cpu(variables, &gradients, moments, update),
            Self::F64(moments) => step_on_cpu(variables, &gradients, moments, update),
            Self::Device(moments) => step_on_device(variables, &gradients, moments, update),
        }
    }
}

fn step_on_cpu<T: Element>(
    variables: &[(String, Var)],
    gradients: &[Tensor],
    moments: &mut [Moments<T>],
    update: Update,
) -> Result<()> {
    let guards: Vec<_> = gradients.iter().map(Tensor::storage_and_layout).collect();
    let slices = guards.iter().map(|(storage, layout)| slice_of::<T>(storage, layout));
    let slices = slices.collect::<Result<Vec<_>>>()?;
    for ((name, _), gradient) in variables.iter().zip(&slices) {
        check_finite(&format!("gradient of {name}"), gradient)?;
    }
    for (((_, variable), gradient), moments) in variables.iter().zip(slices).zip(moments) {
        update_variable(variable, gradient, moments, update)?;
    }
    Ok(())
}

fn step_on_device(
    variables: &[(String, Var)],
    gradients: &[Tensor],
    moments: &mut [Vec<Tensor>],
    update: Update,
) -> Result<()> {
    // 0 for a tensor of finite numbers, NaN otherwise; all of them go to the host at once
    let flags = gradients.iter().map(|g| (g * 0.0)?.sum_all()?.to_dtype(DType::F32)?.reshape(1));
    let flags = Tensor::cat(&flags.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
    let flags = flags.to_vec1::<f32>()?;
    if let Some(at) = flags.iter().position(|&flag| flag != 0.0) {
        return Err(Error::NonFiniteSomewhere { what: format!("gradient of {}", variables[at].0) });
    }
    for (((_, variable), gradient), moments) in variables.iter().zip(gradients).zip(moments) {
        update_tensors(variable, gradient, moments, update)?;
    }
    Ok(())
}
