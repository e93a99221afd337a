//! Adam in one pass over each parameter, and learning-rate schedules.
//!
//! Adam (Kingma and Ba 2015), as PyTorch runs it: with gradient g at step t = 1, 2, …
//! `m ← β1 m + (1-β1) g`, `v ← β2 v + (1-β2) g²`,
//! `p ← p - η/(1-β1ᵗ) · m / (√v/√(1-β2ᵗ) + ε)`. No weight decay.
//! Cost: 4 reads and 3 writes of each value, no temporaries.

use std::cell::RefCell;

use candle_core::{CpuStorage, InplaceOp1, Layout, Var};
use projectors::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::element::Element;
use crate::error::{Error, Result};
use crate::train::Update;

/// Settings of Adam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Decay of the mean of the gradient, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of its square, in [0, 1).
    pub beta2: f64,
    /// Added to the denominator, > 0.
    pub epsilon: f64,
}

impl Default for AdamConfig {
    /// PyTorch's and the paper's: 0.9, 0.999, 1e-8.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

impl AdamConfig {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let setting = |name, value: f64, valid, expected| {
            if valid {
                Ok(())
            } else {
                Err(Error::InvalidSetting { name, value: value.to_string(), expected })
            }
        };
        setting("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "a number in [0, 1)")?;
        setting("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "a number in [0, 1)")?;
        let positive = self.epsilon > 0.0 && self.epsilon.is_finite();
        setting("epsilon", self.epsilon, positive, "a positive number")
    }
}

/// The running means of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments<T> {
    pub(crate) first: Vec<T>,
    pub(crate) second: Vec<T>,
}

impl<T: Real> Moments<T> {
    pub(crate) fn zeros(n: usize) -> Self {
        Self { first: vec![T::zero(); n], second: vec![T::zero(); n] }
    }
}

/// Values that one task updates.
const BLOCK: usize = 1 << 14;

/// One step of Adam on `parameter`; `step` counts from 1.
pub(crate) fn adam_step<T: Real>(
    config: &AdamConfig,
    learning_rate: f64,
    step: u64,
    parameter: &mut [T],
    gradient: &[T],
    moments: &mut Moments<T>,
) {
    let t = step as f64;
    let step_size = T::of(learning_rate / (1.0 - config.beta1.powf(t)));
    let root_correction = T::of(1.0 / (1.0 - config.beta2.powf(t)).sqrt());
    let (beta1, beta2, epsilon) = (T::of(config.beta1), T::of(config.beta2), T::of(config.epsilon));
    let (rest1, rest2) = (T::of(1.0 - config.beta1), T::of(1.0 - config.beta2));
    let update = |((p, &g), (m, v)): ((&mut T, &T), (&mut T, &mut T))| {
        *m = beta1 * *m + rest1 * g;
        *v = beta2 * *v + rest2 * g * g;
        *p -= step_size * *m / (num_traits::Float::sqrt(*v) * root_correction + epsilon);
    };
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let moments = moments.first.par_chunks_mut(BLOCK).zip(moments.second.par_chunks_mut(BLOCK));
    blocks.zip(moments).for_each(|((parameter, gradient), (first, second))| {
        parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)).for_each(update);
    });
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// No change.
    Constant,
    /// Times `gamma` after every epoch: the paper's, with gamma = 0.96235062639 over 200 epochs.
    Exponential {
        /// The factor, in (0, 1].
        gamma: f64,
    },
    /// From the initial rate at the first step to 0 after the last one, every step.
    Linear,
}

/// The paper's factor per epoch; its 60th power is 0.1.
pub const PAPER_GAMMA: f64 = 0.962_350_626_39;
/// The paper's number of epochs.
pub const PAPER_EPOCHS: usize = 200;

impl Schedule {
    /// The paper's decay over a whole run, spread over `epochs`: the rate ends where theirs ends.
    #[must_use]
    pub fn paper_over(epochs: usize) -> Self {
        let per_epoch = PAPER_EPOCHS as f64 / epochs.max(1) as f64;
        Self::Exponential { gamma: PAPER_GAMMA.powf(per_epoch) }
    }

    /// The factor of the initial rate at 0-based `step` of 0-based `epoch`.
    #[must_use]
    pub fn factor(&self, epoch: usize, step: u64, total_steps: u64) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Exponential { gamma } => gamma.powf(epoch as f64),
            Self::Linear => 1.0 - step as f64 / total_steps.max(1) as f64,
        }
    }

    /// Checks the domain of the factor.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`].
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Exponential { gamma } if !(*gamma > 0.0 && *gamma <= 1.0) => {
                Err(Error::InvalidSetting {
                    name: "gamma",
                    value: gamma.to_string(),
                    expected: "a number in (0, 1]",
                })
            }
            _ => Ok(()),
        }
    }
}

/// One step of Adam on a variable on the CPU, in place.
pub(crate) fn update_variable<T: Element>(
    variable: &Var,
    gradient: &[T],
    moments: &mut Moments<T>,
    update: Update,
) -> Result<()> {
    let op = AdamOp { gradient, moments: RefCell::new(moments), update };
    Ok(variable.inplace_op1(&op)?)
}

/// [`adam_step`] as an in-place operation: candle hands out the variable's storage for writing.
struct AdamOp<'a, T> {
    gradient: &'a [T],
    moments: RefCell<&'a mut Moments<T>>,
    update: Update,
}

impl<T: Element> InplaceOp1 for AdamOp<'_, T> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| candle_core::Error::Msg("a variable is contiguous".into()).bt())?;
        let Update { adam, learning_rate, step } = self.update;
        let values = T::storage_mut(storage)?;
        let mut moments = self.moments.borrow_mut();
        adam_step(&adam, learning_rate, step, &mut values[start..end], self.gradient, &mut moments);
        Ok(())
    }
}
