//! What differs from step to step of a run, as the kernels' structure `StepSettings` has it.

use crate::loss::{CrossEntropy, Loss};
use crate::optim::{Averaging, Optimizer, Update};

/// Bytes of the structure.
pub(super) const SETTINGS_BYTES: usize = 32;

/// The structure's values.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct StepSettings {
    rate: f32,
    mean_rate: f32,
    root_correction: f32,
    keep: f32,
    take: f32,
    begins: f32,
    radius: f32,
}

impl StepSettings {
    pub(super) fn of(update: Update, loss: &Loss) -> Self {
        let Update { optimizer, averaging, learning_rate, step } = update;
        let (rate, mean_rate, root_correction) = optimizer.step_factors(learning_rate, step);
        let (keep, take) = averaging.shares(step);
        Self {
            rate: rate as f32,
            mean_rate: mean_rate as f32,
            root_correction: root_correction as f32,
            keep: keep as f32,
            take: take as f32,
            begins: if step == 1 { 1.0 } else { 0.0 },
            radius: radius(loss) as f32,
        }
    }

    pub(super) fn bytes(self) -> [u8; SETTINGS_BYTES] {
        let Self { rate, mean_rate, root_correction, keep, take, begins, radius } = self;
        let values = [rate, mean_rate, root_correction, keep, take, begins, radius, 0.0];
        let mut bytes = [0; SETTINGS_BYTES];
        for (to, value) in bytes.chunks_exact_mut(4).zip(values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

fn radius(loss: &Loss) -> f64 {
    match loss {
        Loss::CrossEntropy(CrossEntropy { radius: Some(radius), .. }) => radius.start,
        _ => 0.0,
    }
}

/// The kernels' structure `LossSettings`: what stays the same in a run.
pub(super) fn loss_words(loss: &Loss) -> [u32; 4] {
    let (kind, values) = match *loss {
        Loss::MultiClassHinge { margin } => (0, [margin, 1.0, 0.0]),
        Loss::CrossEntropy(CrossEntropy { offset, temperature, annealing, .. }) => {
            (1, [offset, temperature, annealing])
        }
        Loss::Wasserstein => (2, [0.0, 1.0, 0.0]),
    };
    let [a, b, c] = values.map(|value| (value as f32).to_bits());
    [kind, a, b, c]
}

/// The kernels that update the parameters, with the optimiser's constants: name and arguments after the running means.
pub(super) fn optimizer_constants(optimizer: &Optimizer) -> (&'static str, Vec<f32>) {
    let decays = |beta1: f64, beta2: f64, epsilon: f64| {
        [beta1, beta2, 1.0 - beta1, 1.0 - beta2, epsilon].map(|x| x as f32).to_vec()
    };
    match optimizer {
        Optimizer::Adam(c) => ("adam", decays(c.beta1, c.beta2, c.epsilon)),
        Optimizer::NAdam(c) => ("nadam", decays(c.beta1, c.beta2, c.epsilon)),
        Optimizer::RmsProp(c) => {
            ("rms_prop", [c.alpha, 1.0 - c.alpha, c.epsilon].map(|x| x as f32).to_vec())
        }
    }
}

/// Whether the average calls the parameters back; `None` where nothing is averaged.
pub(super) fn calls_back(averaging: Averaging) -> Option<u32> {
    match averaging {
        Averaging::None => None,
        Averaging::Exponential { .. } => Some(0),
        Averaging::Lookahead { .. } => Some(1),
    }
}
