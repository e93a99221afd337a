//! NAdam: Adam with Nesterov's momentum (Dozat 2016), as PyTorch runs it without weight decay.
//!
//! Definition, at step t = 1, 2, … with the gradient g, the learning rate η and the momentum decay ψ:
//!
//! ```text
//! μ_t = β1 (1 - 0.96^(ψ t) / 2)              Π_t = μ_1 ⋯ μ_t
//! m   ← β1 m + (1 - β1) g                    v   ← β2 v + (1 - β2) g²
//! p   ← p - η ((1 - μ_t)/(1 - Π_t) · g + μ_{t+1}/(1 - Π_{t+1}) · m) / (√v/√(1 - β2ᵗ) + ε)
//! ```
//!
//! Cost: as Adam; the product is taken anew in every step, up to where it no longer differs from 0.

use candle_core::Tensor;
use projectors::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{BLOCK, decay, mean, positive};
use crate::error::{Error, Result};

/// Settings of NAdam.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NAdamConfig {
    /// Decay of the mean of the gradient, in [0, 1).
    pub beta1: f64,
    /// Decay of the mean of its square, in [0, 1).
    pub beta2: f64,
    /// Added to the denominator, > 0.
    pub epsilon: f64,
    /// How fast the momentum reaches β1, at least 0.
    pub momentum_decay: f64,
}

impl Default for NAdamConfig {
    /// PyTorch's: 0.9, 0.999, 1e-8, 0.004.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, momentum_decay: 4e-3 }
    }
}

/// The factors of one step, the learning rate included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    pub(super) of_gradient: f64,
    pub(super) of_mean: f64,
    pub(super) root_correction: f64,
}

impl NAdamConfig {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        decay("beta1", self.beta1)?;
        decay("beta2", self.beta2)?;
        positive("epsilon", self.epsilon)?;
        if self.momentum_decay >= 0.0 && self.momentum_decay.is_finite() {
            return Ok(());
        }
        let (value, expected) = (self.momentum_decay.to_string(), "a number of at least 0");
        Err(Error::InvalidSetting { name: "momentum_decay", value, expected })
    }

    fn momentum(&self, step: u64) -> f64 {
        self.beta1 * (1.0 - 0.5 * 0.96_f64.powf(step as f64 * self.momentum_decay))
    }

    /// Π_t, or 0 from where 1 - Π_t is 1 to the last bit.
    fn momentum_product(&self, step: u64) -> f64 {
        let mut product = 1.0;
        for t in 1..=step {
            product *= self.momentum(t);
            if product < f64::EPSILON / 8.0 {
                return 0.0;
            }
        }
        product
    }

    pub(super) fn factors(&self, learning_rate: f64, step: u64) -> Factors {
        let (now, next) = (self.momentum(step), self.momentum(step + 1));
        let product = self.momentum_product(step);
        Factors {
            of_gradient: learning_rate * (1.0 - now) / (1.0 - product),
            of_mean: learning_rate * next / (1.0 - product * next),
            root_correction: 1.0 / (1.0 - self.beta2.powf(step as f64)).sqrt(),
        }
    }
}

/// One step on `parameter`; `step` counts from 1.
pub(super) fn step<T: Real>(
    config: &NAdamConfig,
    learning_rate: f64,
    step: u64,
    parameter: &mut [T],
    gradient: &[T],
    [first, second]: [&mut [T]; 2],
) {
    let Factors { of_gradient, of_mean, root_correction } = config.factors(learning_rate, step);
    let (of_gradient, of_mean) = (T::of(of_gradient), T::of(of_mean));
    let (root_correction, epsilon) = (T::of(root_correction), T::of(config.epsilon));
    let (beta1, beta2) = (T::of(config.beta1), T::of(config.beta2));
    let (rest1, rest2) = (T::of(1.0 - config.beta1), T::of(1.0 - config.beta2));
    let update = |((p, &g), (m, v)): ((&mut T, &T), (&mut T, &mut T))| {
        *m = beta1 * *m + rest1 * g;
        *v = beta2 * *v + rest2 * g * g;
        let divisor = num_traits::Float::sqrt(*v) * root_correction + epsilon;
        *p -= (of_gradient * g + of_mean * *m) / divisor;
    };
    let blocks = parameter.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
    let moments = first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK));
    blocks.zip(moments).for_each(|((parameter, gradient), (first, second))| {
        parameter.iter_mut().zip(gradient).zip(first.iter_mut().zip(second)).for_each(update);
    });
}

/// The change of one step in candle's operations, to be subtracted.
pub(super) fn change(
    config: &NAdamConfig,
    learning_rate: f64,
    step: u64,
    gradient: &Tensor,
    [first, second]: [&mut Tensor; 2],
) -> Result<Tensor> {
    let Factors { of_gradient, of_mean, root_correction } = config.factors(learning_rate, step);
    *first = mean(first, gradient, config.beta1)?;
    *second = mean(second, &gradient.sqr()?, config.beta2)?;
    let divisor = ((second.sqrt()? * root_correction)? + config.epsilon)?;
    Ok((((gradient * of_gradient)? + (&*first * of_mean)?)? / divisor)?)
}
