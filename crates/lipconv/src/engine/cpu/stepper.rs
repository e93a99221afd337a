//! Training steps on the CPU engine.

use candle_core::{Device, Tensor};
use ndarray::Array2;

use super::training::{TrainBuffers, logits_and_image_gradient, loss_and_gradients};
use crate::bounds::array;
use crate::element::{Element, to_vec};
use crate::error::Result;
use crate::finite::check_finite;
use crate::loss::Loss;
use crate::network::Network;
use crate::optim::{Moments, Update, update_variable};
use crate::train::batch::Batch;
use crate::train::state::RunState;
use crate::train::stepper::Stepper;

/// Steps on the engine in one element type.
#[derive(Debug)]
pub(crate) struct CpuStepper<T> {
    /// The optimiser's running means of every variable (weight, bias, weight, …).
    moments: Vec<Moments<T>>,
    buffers: TrainBuffers<T>,
    /// Another engine's, for the steps that it may take again.
    levels: Vec<u8>,
}

impl<T: Element> CpuStepper<T> {
    pub(crate) fn new(state: RunState) -> Result<Self> {
        let of_variable =
            |means: &Vec<Tensor>| Ok(Moments(means.iter().map(to_vec).collect::<Result<_>>()?));
        let moments = state.moments.iter().map(of_variable).collect::<Result<_>>()?;
        let square = |warm: Option<Tensor>| warm.map(|w| array(&w, w.dims2()?)).transpose();
        let mut buffers = TrainBuffers::default();
        buffers.warm = state.warm.into_iter().map(square).collect::<Result<_>>()?;
        Ok(Self { moments, buffers, levels: state.levels })
    }
}

impl<T: Element> Stepper for CpuStepper<T> {
    fn name(&self) -> &'static str {
        "the CPU's engine"
    }

    fn step(
        &mut self,
        network: &Network,
        loss: &Loss,
        batch: &Batch,
        update: Update,
    ) -> Result<(f64, usize)> {
        let Self { moments, buffers, .. } = self;
        let (value, gradients) =
            loss_and_gradients::<T>(network, loss, &batch.images, &batch.labels, buffers)?;
        for (gradient, p) in gradients.iter().zip(network.parameters()) {
            check_finite(&format!("gradient of {}.bias", p.name), &gradient.bias)?;
            if let Some(weight) = &gradient.weight {
                check_finite(&format!("gradient of {}.weight", p.name), weight)?;
            }
        }
        buffers.warm.clear();
        let moments = moments.chunks_exact_mut(2);
        for ((gradient, p), moments) in gradients.into_iter().zip(network.parameters()).zip(moments)
        {
            let [of_weight, of_bias] = moments else { unreachable!("chunks of two") };
            if let Some(weight) = &gradient.weight {
                update_variable(&p.weight, weight, of_weight, update)?;
            }
            update_variable(&p.bias, &gradient.bias, of_bias, update)?;
            if let (Some(next), Some(vector)) = (gradient.vector, &p.vector) {
                vector.set(&Tensor::from_vec(next, vector.shape(), vector.device())?)?;
            }
            buffers.warm.push(gradient.warm);
        }
        Ok((value.value, value.n_correct))
    }

    fn input_gradient(
        &mut self,
        network: &Network,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let (logits, gradient) =
            logits_and_image_gradient::<T>(network, images, d_logits, &mut self.buffers)?;
        let logits = Tensor::from_vec(logits, d_logits.dims(), network.device())?;
        Ok((logits, Tensor::from_vec(gradient, images.dims(), network.device())?))
    }

    fn state(&self, network: &Network) -> Result<RunState> {
        let variables = network.variables().into_iter().zip(&self.moments);
        let moments = variables.map(|((_, variable), Moments(means))| {
            let tensor = |m: &Vec<T>| Ok(Tensor::from_slice(m, variable.dims(), &Device::Cpu)?);
            means.iter().map(tensor).collect()
        });
        let square = |warm: &Array2<T>| {
            let values: Vec<T> = warm.iter().copied().collect();
            Ok(Tensor::from_vec(values, warm.dim(), &Device::Cpu)?)
        };
        let warm = self.buffers.warm.iter().map(|warm| warm.as_ref().map(square).transpose());
        Ok(RunState {
            moments: moments.collect::<Result<_>>()?,
            warm: warm.collect::<Result<_>>()?,
            levels: self.levels.clone(),
        })
    }

    fn levels(&self) -> Vec<u8> {
        self.levels.clone()
    }
}
