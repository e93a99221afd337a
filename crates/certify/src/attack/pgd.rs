//! Projected gradient descent: from the image or from random starts, in steps of one length.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::objective::{Goal, Loss};
use super::outcome::{AttackStart, Stopping};
use super::rounds::{Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::{ONE_CLASS, check_at_least_one, check_positive};
use super::step::{ascend, perturbed, project};
use crate::error::{Error, Result};
use crate::tensor::{Pixel, widened};

/// L2 projected gradient descent.
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
    pub start: AttackStart,
    /// Number of starts, 1 to 65536; more than one only with [`AttackStart::Random`].
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
            start: AttackStart::Random,
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
}

impl Rounds for Pgd {
    type Search<T: Pixel> = Descent<T>;

    const MOST_RESTARTS: usize = ONE_CLASS;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, restarts, batch_size, .. } = *self;
        Plan { name: "pgd", eps, seed, stopping, restarts, batch_size }
    }

    fn check_own(&self) -> Result<()> {
        self.loss.check()?;
        check_positive("step_size", self.step_size)?;
        check_at_least_one("steps", self.steps)?;
        if self.start == AttackStart::Zero && self.restarts > 1 {
            let (name, value) = ("restarts", self.restarts as f64);
            return Err(Error::InvalidSetting { name, value, expected: "1 with a zero start" });
        }
        Ok(())
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Descent<T> {
        let Subject { image, label, start, mut draws, .. } = subject;
        let d: Vec<T> = match (start, self.start) {
            (Some(start), _) => start.iter().zip(image).map(|(&s, &x)| s - x).collect(),
            (None, AttackStart::Zero) => vec![T::zero(); image.len()],
            (None, AttackStart::Random) => {
                let mut d: Vec<T> =
                    image.iter().map(|_| T::of(draws.symmetric(self.eps))).collect();
                project(&mut d, image, self.eps);
                d
            }
        };
        let image = widened(image);
        Descent { settings: *self, label, image, d, losses: Vec::new(), draws }
    }
}

/// The descent of one sample from one start.
#[derive(Debug)]
pub(super) struct Descent<T> {
    settings: Pgd,
    label: usize,
    image: Vec<f64>,
    /// The perturbation to ask for next.
    d: Vec<T>,
    /// The losses of the points asked for.
    losses: Vec<f64>,
    draws: Draws,
}

impl<T: Pixel> Search<T> for Descent<T> {
    fn propose(&mut self, image: &[T], point: &mut [T]) -> Option<Wish> {
        let (n_asked, n_steps) = (self.losses.len(), self.settings.steps);
        if n_asked > n_steps {
            return None;
        }
        perturbed(image, &self.d, point);
        let goal = Goal::Loss(self.settings.loss, self.label);
        // no step follows the last point
        Some(if n_asked == n_steps { Wish::Logits } else { Wish::Gradient(goal) })
    }

    fn answer(&mut self, image: &[T], reply: Reply<'_, T>) {
        let Reply { logits, gradient, .. } = reply;
        let steps = self.losses.len() < self.settings.steps;
        self.losses.push(self.settings.loss.value(logits, self.label));
        if steps {
            ascend(&mut self.d, gradient, image, self.settings.step_size, self.settings.eps);
        }
    }

    fn progress(&self) -> f64 {
        (self.losses.len() as f64 / self.settings.steps as f64).min(1.0)
    }
}

impl<T: Pixel> Ended for Descent<T> {
    fn trace(&self) -> Trace {
        let last = self.image.iter().zip(widened(&self.d)).map(|(x, d)| x + d).collect();
        let steps = vec![self.settings.step_size; self.losses.len().saturating_sub(1)];
        Trace { values: self.losses.clone(), steps, best: last, ..Trace::default() }
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}
