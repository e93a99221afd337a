//! The fast gradient method: one step to the edge of the ball.

use serde::{Deserialize, Serialize};

use super::objective::Loss;
use super::outcome::{AttackStart, Stopping};
use super::pgd::{Descent, Pgd};
use super::rounds::{Plan, Rounds, Subject};
use crate::error::Result;
use crate::tensor::Pixel;

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

impl Rounds for Fgsm {
    type Search<T: Pixel> = Descent<T>;

    fn plan(&self) -> Plan {
        Plan { name: "fgsm", ..self.as_pgd().plan() }
    }

    fn check_own(&self) -> Result<()> {
        self.loss.check()
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Descent<T> {
        self.as_pgd().search(subject)
    }
}
