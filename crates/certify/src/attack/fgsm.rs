//! The fast gradient method: one step to the edge of the ball.

use serde::{Deserialize, Serialize};

use super::Strategy;
use super::objective::Loss;
use super::outcome::{AttackOutcome, AttackProgress, AttackStart, Query, Stopping};
use super::pgd::Pgd;
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

impl Fgsm {
    fn as_pgd(&self) -> Pgd {
        Pgd {
            eps: self.eps,
            steps: 1,
            step_size: self.eps,
            loss: self.loss,
            start: AttackStart::Zero,
            restarts: 1,
            seed: 0,
            stopping: Stopping::Never,
            batch_size: self.batch_size,
        }
    }
}

impl Strategy for Fgsm {
    const NAME: &'static str = "fgsm";

    fn eps(&self) -> f64 {
        self.eps
    }

    fn check(&self) -> Result<()> {
        self.as_pgd().check_settings()
    }

    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        self.as_pgd().descend(Self::NAME, query, progress)
    }
}
