//! Averages of the free parameters over a run: what is evaluated in place of the last step's.
//!
//! Definition, for the parameters p_t after step t = 1, 2, … and p_0 before the first:
//! * exponential: `a_t = d_t a_{t-1} + (1 - d_t) p_t` with `d_t = min(d, (t - 1)/(t + 9))`, so that a_1 = p_1 and the average
//!   forgets the start of the run;
//! * lookahead (Zhang et al. 2019): a_0 = p_0, and after every k-th step `a ← a + α (p - a)`, `p ← a`.
//!
//! Guarantee: the average is kept like an optimiser's running mean. A checkpoint holds it, and a resumed run ends with the same
//! bits.
//! The parameters are averaged before the weights are made from them, so that a network with averaged parameters is as constrained as
//! any other.
//! Cost: 2 reads and 1 write of each value.

use candle_core::{Tensor, Var};
use projectors::Real;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{BLOCK, decay, mean};
use crate::error::{Error, Result};

/// What is averaged over a run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Averaging {
    /// Nothing: the last step's parameters are evaluated.
    #[default]
    None,
    /// An exponential mean of the parameters.
    Exponential {
        /// The decay d, in [0, 1).
        decay: f64,
    },
    /// Slow parameters that follow the fast ones and call them back.
    Lookahead {
        /// Steps k between two moves, at least 1.
        period: u64,
        /// The share α of the way, in (0, 1].
        rate: f64,
    },
}

impl Averaging {
    /// Checks the domains.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] or [`Error::Zero`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::None => Ok(()),
            Self::Exponential { decay: value } => decay("decay", value),
            Self::Lookahead { period: 0, .. } => Err(Error::Zero { what: "period".into() }),
            Self::Lookahead { rate, .. } if rate > 0.0 && rate <= 1.0 => Ok(()),
            Self::Lookahead { rate, .. } => {
                let (value, expected) = (rate.to_string(), "a number in (0, 1]");
                Err(Error::InvalidSetting { name: "rate", value, expected })
            }
        }
    }

    /// Whether nothing is averaged.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// The name of the average as checkpoints have it.
    pub(crate) fn names(self) -> &'static [&'static str] {
        if self == Self::None { &[] } else { &["average"] }
    }

    /// The decay of the exponential mean in `step`, which counts from 1.
    fn decay_at(decay: f64, step: u64) -> f64 {
        let t = step as f64;
        decay.min((t - 1.0) / (t + 9.0))
    }

    /// The shares of the average itself and of the parameter in the average after a step; for lookahead the second one is the
    /// share of the way, 0 where nothing moves.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    pub(crate) fn shares(self, step: u64) -> (f64, f64) {
        match self {
            Self::Exponential { decay } => {
                let decay = Self::decay_at(decay, step);
                (decay, 1.0 - decay)
            }
            Self::Lookahead { period, rate } if step.is_multiple_of(period) => (0.0, rate),
            Self::None | Self::Lookahead { .. } => (0.0, 0.0),
        }
    }

    /// Before the first step.
    pub(super) fn begin<T: Real>(self, step: u64, parameter: &[T], average: &mut [T]) {
        if step == 1 {
            average.copy_from_slice(parameter);
        }
    }

    /// After a step on `parameter`.
    pub(super) fn follow<T: Real>(self, step: u64, parameter: &mut [T], average: &mut [T]) {
        let blocks = parameter.par_chunks_mut(BLOCK).zip(average.par_chunks_mut(BLOCK));
        match self {
            Self::Exponential { decay } => {
                let decay = Self::decay_at(decay, step);
                let (old, new) = (T::of(decay), T::of(1.0 - decay));
                blocks.for_each(|(parameter, average)| {
                    average.iter_mut().zip(parameter).for_each(|(a, p)| *a = old * *a + new * *p);
                });
            }
            Self::Lookahead { period, rate } if step.is_multiple_of(period) => {
                let rate = T::of(rate);
                blocks.for_each(|(parameter, average)| {
                    average.iter_mut().zip(parameter).for_each(|(a, p)| {
                        *a += rate * (*p - *a);
                        *p = *a;
                    });
                });
            }
            Self::None | Self::Lookahead { .. } => {}
        }
    }

    /// [`Self::begin`] in candle's operations.
    pub(super) fn begin_tensors(
        self,
        step: u64,
        variable: &Var,
        average: &mut Tensor,
    ) -> Result<()> {
        if step == 1 {
            *average = variable.as_tensor().detach().copy()?;
        }
        Ok(())
    }

    /// [`Self::follow`] in candle's operations.
    pub(super) fn follow_tensors(
        self,
        step: u64,
        variable: &Var,
        average: &mut Tensor,
    ) -> Result<()> {
        let parameter = variable.as_tensor().detach();
        match self {
            Self::Exponential { decay } => {
                *average = mean(average, &parameter, Self::decay_at(decay, step))?;
            }
            Self::Lookahead { period, rate } if step.is_multiple_of(period) => {
                *average = (&*average + ((parameter - &*average)? * rate)?)?;
                variable.set(average)?;
            }
            Self::None | Self::Lookahead { .. } => {}
        }
        Ok(())
    }
}
