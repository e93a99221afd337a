//! How the learning rate changes over a run.
//!
//! Definition: the factor of the initial rate at the 0-based step s of S steps in the 0-based epoch e.
//! * constant: 1;
//! * exponential: γᵉ, the paper's with γ = 0.96235062639 over 200 epochs;
//! * linear: 1 - s/S;
//! * cosine: `(1 + cos(π s/S)) / 2 · min(1, (s + 1) / (w S))` with a linear warm-up over the fraction w of the run
//!   (Loshchilov and Hutter 2017).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    /// Half a period of the cosine, from the initial rate to 0 after the last step.
    Cosine {
        /// The fraction of the run, in [0, 1), over which the rate rises linearly at first.
        #[serde(default)]
        warm_up: f64,
    },
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
        let total = total_steps.max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Exponential { gamma } => gamma.powf(epoch as f64),
            Self::Linear => 1.0 - step as f64 / total,
            Self::Cosine { warm_up } => {
                let falling = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / total).cos());
                let n_rising = (warm_up * total).max(1.0);
                falling * ((step + 1) as f64 / n_rising).min(1.0)
            }
        }
    }

    /// Checks the domain of the factor.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`].
    pub fn validate(&self) -> Result<()> {
        let (name, value, valid, expected) = match *self {
            Self::Exponential { gamma } => {
                ("gamma", gamma, gamma > 0.0 && gamma <= 1.0, "a number in (0, 1]")
            }
            Self::Cosine { warm_up } => {
                ("warm_up", warm_up, (0.0..1.0).contains(&warm_up), "a number in [0, 1)")
            }
            Self::Constant | Self::Linear => return Ok(()),
        };
        if valid {
            return Ok(());
        }
        Err(Error::InvalidSetting { name, value: value.to_string(), expected })
    }
}
