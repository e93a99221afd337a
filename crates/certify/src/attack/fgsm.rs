//! The fast gradient method: one step to the edge of the ball.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::objective::Loss;
use super::pgd::{Pgd, Start, Stopping};
use super::{Attack, Outcome, Progress};
use crate::classifier::Classifier;
use crate::error::Result;

/// One step of length ε along the normalised gradient, from the image itself, clipped to [0, 1].
///
/// The L2 form of the attack; "sign" is a matter of the maximum norm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fgsm {
    /// ε: length of the step, positive.
    pub eps: f64,
    /// What to climb.
    pub loss: Loss,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

impl Fgsm {
    /// With the paper's loss, CW with κ = 50.
    #[must_use]
    pub const fn paper(eps: f64) -> Self {
        Self { eps, loss: Loss::CarliniWagner { confidence: 50.0 }, batch_size: 1000 }
    }
}

impl Attack for Fgsm {
    fn name(&self) -> &'static str {
        "fgsm"
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
        let pgd = Pgd {
            eps: self.eps,
            steps: 1,
            step_size: self.eps,
            loss: self.loss,
            start: Start::Zero,
            restarts: 1,
            seed: 0,
            stopping: Stopping::Never,
            batch_size: self.batch_size,
        };
        super::run::run(&pgd, self.name(), classifier, images, labels, progress)
    }
}
