//! A training step in candle's operations: what a device other than the CPU runs, and the CPU for networks that its engine does not
//! run. Those use the CPU's own operations for weights and convolutions; a run that is asked to be portable uses candle's alone.
//!
//! Forward, loss, backward and update are tensor operations on the network's device. One small tensor goes to the host in
//! each step, before the update: the loss, the number of correct samples, the defects of all orthogonal factors, and for every
//! gradient whether it is finite. A step that fails changes nothing.

use candle_core::{DType, Device, Tensor, Var};
use projectors::tolerance;

use super::batch::Batch;
use super::state::RunState;
use super::stepper::Stepper;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::network::{Network, Parameters};
use crate::optim::{Update, update_tensors};

/// Defect of an orthogonal factor above which a step is refused, in units of what working precision allows.
const MAX_DEFECT: f64 = 256.0;

/// Steps in candle's operations.
#[derive(Debug)]
pub(super) struct PortableStepper {
    /// The optimiser's running means of every variable (weight, bias, weight, …), on the network's device.
    moments: Vec<Vec<Tensor>>,
    /// An engine's, for the steps that it may take again.
    levels: Vec<u8>,
    /// Whether the CPU's own operations are used where there are any.
    on_cpu: bool,
}

impl PortableStepper {
    /// Every orthonormalisation starts afresh here, so that a state's starts have no use.
    pub(super) fn new(network: &Network, state: RunState) -> Result<Self> {
        let moments = moved(&state.moments, network.device())?;
        Ok(Self { moments, levels: state.levels, on_cpu: false })
    }

    /// The same with the CPU's own operations, for a network that lives there.
    pub(super) fn on_cpu(network: &Network, state: RunState) -> Result<Self> {
        Ok(Self { on_cpu: true, ..Self::new(network, state)? })
    }
}

fn moved(moments: &[Vec<Tensor>], device: &Device) -> Result<Vec<Vec<Tensor>>> {
    let of_variable =
        |means: &Vec<Tensor>| means.iter().map(|m| Ok(m.to_device(device)?)).collect();
    moments.iter().map(of_variable).collect()
}

impl Stepper for PortableStepper {
    fn name(&self) -> &'static str {
        "candle's operations"
    }

    fn step(
        &mut self,
        network: &Network,
        loss: &Loss,
        batch: &Batch,
        update: Update,
    ) -> Result<(f64, usize)> {
        step(network, loss, batch, update, (&mut self.moments, self.on_cpu))
    }

    fn input_gradient(
        &mut self,
        network: &Network,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let images = Var::from_tensor(images)?;
        let logits = network.forward_constant(images.as_tensor(), self.on_cpu)?;
        let mut gradients = (&logits * d_logits.detach())?.sum_all()?.backward()?;
        let gradient = gradients.remove(images.as_tensor());
        Ok((logits.detach(), gradient.map_or_else(|| images.zeros_like(), Ok)?))
    }

    fn state(&self, _: &Network) -> Result<RunState> {
        let moments = moved(&self.moments, &Device::Cpu)?;
        Ok(RunState { moments, warm: Vec::new(), levels: self.levels() })
    }

    fn levels(&self) -> Vec<u8> {
        self.levels.clone()
    }
}

/// Loss, gradients and update; returns the loss and the number of correct samples.
fn step(
    network: &Network,
    loss: &Loss,
    batch: &Batch,
    update: Update,
    (moments, on_cpu): (&mut [Vec<Tensor>], bool),
) -> Result<(f64, usize)> {
    loss.check_labels(&batch.labels, network.n_classes())?;
    let labels = Tensor::new(batch.labels.as_slice(), network.device())?;
    let forward = network.graph(&batch.images, on_cpu)?;
    let weight = forward.last_weight.as_ref();
    let value = loss.forward_with_weight(&forward.logits, &labels, weight)?;
    let store = value.backward()?;
    let gradient = |variable: &Var| match store.get(variable.as_tensor()) {
        Some(gradient) => Ok(gradient.clone()),
        None => variable.zeros_like(),
    };
    let gradients = network.parameters().map(|p| {
        let weight = p.trained.then(|| gradient(&p.weight)).transpose()?;
        Ok([weight, Some(gradient(&p.bias)?)])
    });
    let gradients = gradients.collect::<Result<Vec<_>>>()?;

    let mut report = Report::default();
    report.push(&value)?;
    report.push(&loss.n_correct(&forward.logits, &labels)?)?;
    report.push(&finite(&forward.logits)?)?;
    for defect in forward.defects.iter().flatten() {
        report.push(defect)?;
    }
    for gradient in gradients.iter().flatten().flatten() {
        report.push(&finite(gradient)?)?;
    }
    let mut read = report.read()?.into_iter();
    let mut next = || read.next().expect("as many numbers as were pushed");
    let (value, n_correct) = (next(), next());
    check_finite("logits", next())?;
    for (p, _) in network.parameters().zip(&forward.defects).filter(|(_, defect)| defect.is_some())
    {
        check_defect(p, next())?;
    }
    for (p, gradients) in network.parameters().zip(&gradients) {
        for (gradient, kind) in gradients.iter().zip(["weight", "bias"]) {
            if gradient.is_some() {
                check_finite(&format!("gradient of {}.{kind}", p.name), next())?;
            }
        }
    }

    apply(network, &gradients, forward.vectors, moments, update)?;
    Ok((value, n_correct as usize))
}

/// Gradients of a layer's weight, where it is trained, and bias.
type LayerGradients = [Option<Tensor>; 2];

/// Updates all variables and stores the vectors of the next step.
fn apply(
    network: &Network,
    gradients: &[LayerGradients],
    vectors: Vec<Option<Tensor>>,
    moments: &mut [Vec<Tensor>],
    update: Update,
) -> Result<()> {
    let moments = moments.chunks_exact_mut(2);
    for (((p, gradients), moments), vector) in
        network.parameters().zip(gradients).zip(moments).zip(vectors)
    {
        for ((variable, gradient), moments) in
            [&p.weight, &p.bias].into_iter().zip(gradients).zip(moments)
        {
            if let Some(gradient) = gradient {
                update_tensors(variable, gradient, moments, update)?;
            }
        }
        if let (Some(next), Some(variable)) = (vector, &p.vector) {
            variable.set(&next)?;
        }
    }
    Ok(())
}

/// Scalars on their way to the host, all at once.
#[derive(Default)]
struct Report(Vec<Tensor>);

impl Report {
    fn push(&mut self, scalar: &Tensor) -> Result<()> {
        self.0.push(scalar.detach().to_dtype(DType::F32)?.reshape(1)?);
        Ok(())
    }

    fn read(&self) -> Result<Vec<f64>> {
        let values = Tensor::cat(&self.0, 0)?.to_vec1::<f32>()?;
        Ok(values.into_iter().map(f64::from).collect())
    }
}

/// 0 for a tensor of finite numbers, NaN otherwise.
fn finite(x: &Tensor) -> Result<Tensor> {
    Ok((x * 0.0)?.sum_all()?)
}

fn check_finite(what: &str, value: f64) -> Result<()> {
    if value == 0.0 {
        return Ok(());
    }
    Err(Error::NonFiniteSomewhere { what: what.to_owned() })
}

fn check_defect(p: &Parameters, defect: f64) -> Result<()> {
    let dims = p.weight.dims();
    let (rows, columns) = (dims[dims.len() - 2], dims[dims.len() - 1]);
    let n_matrices = (p.weight.elem_count() / (rows * columns).max(1)) as f64;
    let (long, short) = (rows.max(columns), rows.min(columns));
    let allowed = match p.weight.dtype() {
        DType::F64 => tolerance::orthonormal::<f64>(long, short),
        _ => tolerance::orthonormal::<f32>(long, short),
    };
    let allowed = MAX_DEFECT * n_matrices * allowed;
    if defect <= allowed {
        return Ok(());
    }
    let source = projectors::Error::NotConverged {
        method: "newton-schulz",
        iterations: crate::ops::portable::n_steps(p.weight.dtype()),
        residual: defect,
        tolerance: allowed,
    };
    Err(Error::Orthonormalisation { layer: p.name.clone(), source })
}
