//! Projected gradient descent.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::objective::Loss;
use super::setup::{check_at_least_one, check_positive};
use super::{Attack, Outcome, Progress};
use crate::classifier::Classifier;
use crate::error::{Error, Result};

/// Where an attack starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the image itself.
    Zero,
    /// Uniform in [-ε, ε] for every pixel, then projected to the ball and to [0, 1].
    Random,
}

/// Whether samples that are broken leave the batch.
///
/// The same samples are broken either way; what differs is the iterate reported for them (the first
/// that breaks, or the last one where that breaks too) and the time it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopping {
    /// Every sample takes all steps of all restarts.
    Never,
    /// A broken sample takes no further step.
    WhenBroken,
}

/// L2 projected gradient descent; see the [module documentation](super).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pgd {
    /// ε: radius of the ball, positive.
    pub eps: f64,
    /// Number of steps, at least 1.
    pub steps: usize,
    /// Length of a step, positive.
    pub step_size: f64,
    /// What to climb.
    pub loss: Loss,
    /// Where to start.
    pub start: Start,
    /// Number of starts, 1 to 65536; more than one only with [`Start::Random`].
    pub restarts: usize,
    /// Decides all random starts.
    pub seed: u64,
    /// Whether to go on with broken samples.
    pub stopping: Stopping,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

impl Pgd {
    /// The paper's settings: 200 steps of 0.01 from a random start, CW loss with κ = 50.
    ///
    /// At ε = 1.58 this is a weak attack: the path is 2.0 long, the ball 3.16 across.
    #[must_use]
    pub const fn paper(eps: f64, seed: u64) -> Self {
        Self {
            eps,
            steps: 200,
            step_size: 0.01,
            loss: Loss::CarliniWagner { confidence: 50.0 },
            start: Start::Random,
            restarts: 1,
            seed,
            stopping: Stopping::WhenBroken,
            batch_size: 1000,
        }
    }

    /// Steps of `2.5 ε / steps`, which cross the ball whatever its size, and several random starts.
    #[must_use]
    pub fn strong(eps: f64, steps: usize, restarts: usize, seed: u64) -> Self {
        Self {
            steps,
            step_size: 2.5 * eps / steps.max(1) as f64,
            restarts,
            ..Self::paper(eps, seed)
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.loss.check()?;
        check_positive("eps", self.eps)?;
        check_positive("step_size", self.step_size)?;
        check_at_least_one("steps", self.steps)?;
        check_at_least_one("batch_size", self.batch_size)?;
        let (name, value) = ("restarts", self.restarts as f64);
        match (self.start, self.restarts) {
            (_, 1) | (Start::Random, 2..=0x1_0000) => Ok(()),
            (Start::Zero, _) => {
                Err(Error::InvalidSetting { name, value, expected: "1 with a zero start" })
            }
            _ => Err(Error::InvalidSetting { name, value, expected: "1 to 65536" }),
        }
    }
}

impl Attack for Pgd {
    fn name(&self) -> &'static str {
        "pgd"
    }

    fn eps(&self) -> f64 {
        self.eps
    }

    fn run(
        &self,
        classifier: &dyn Classifier,
        images: &Tensor,
        labels: &[usize],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome> {
        super::run::run(self, self.name(), classifier, images, labels, progress)
    }
}
