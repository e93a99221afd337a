//! Auto-PGD: projected gradient ascent that chooses its own steps.
//!
//! Definition. P is the projection to the ball of radius ε about the image, then to [0, 1]. From a start at distance ε in a
//! random direction, with a step η of 2 ε at first and momentum weights a = 1 in the first step and 3/4 after it:
//!
//! ```text
//! z = P(x_k + η g / ‖g‖)
//! x_{k+1} = P(x_k + a (z - x_k) + (1 - a) (x_k - x_{k-1}))
//! ```
//!
//! At checkpoints (after 22, 41, 57, 70, 80, 87, 93 and 99 of 100 steps) η is halved and the ascent goes on from the best
//! point if (1) the loss rose in at most 3/4 of the steps since the last checkpoint, or (2) η was not halved there and
//! the best loss has not improved since. η counts as halved before the first checkpoint. Two habits of the reference are
//! kept, so that results can be compared bit by bit: the first loss is compared with 0, and x_{k-1} is not reset when the
//! ascent goes back to the best point.
//!
//! The losses are cross-entropy, the difference of logits ratio, and that ratio towards each of the classes that come next
//! in the ranking of the image's own logits. One round is one restart, or one restart for one of those classes.
//!
//! Guarantee: every iterate is a point of the ball and of [0, 1]; the best loss never falls.
//!
//! Cost: one forward and one input gradient for each step, round and sample in play.
//!
//! Source: Croce and Hein 2020 (arXiv 2003.01690), with the settings of its standard version.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::objective::{Goal, Loss, ranking};
use super::outcome::{AttackOutcome, AttackProgress, Query, Stopping};
use super::rounds::{self, Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::check_at_least_one;
use super::step::{norm, perturbed, project};
use crate::error::Result;
use crate::tensor::{Pixel, widened};

/// What APGD climbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ApgdLoss {
    /// Cross-entropy.
    CrossEntropy,
    /// The difference of logits ratio; with fewer than four classes the margin.
    Dlr,
    /// The ratio towards each of the next classes of the ranking in turn; with fewer than four classes the margin.
    TargetedDlr {
        /// How many classes, at least 1; all other classes where there are fewer.
        targets: usize,
    },
}

/// Auto-PGD in L2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apgd {
    /// ε: radius of the ball, positive.
    pub eps: f64,
    /// What to climb.
    pub loss: ApgdLoss,
    /// Steps of one round, at least 1.
    pub steps: usize,
    /// Random starts, 1 to 4096.
    pub restarts: usize,
    /// Decides all random starts.
    pub seed: u64,
    /// Whether to go on with broken samples.
    pub stopping: Stopping,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

/// The share of rising losses up to which the step is halved.
const RISING_SHARE: f64 = 0.75;
/// Weight of the ascent against the momentum.
const ASCENT: f64 = 0.75;
/// Keeps quotients by a length finite.
const TINY: f64 = 1e-12;

impl Apgd {
    /// The settings of the standard AutoAttack: 100 steps from one random start.
    #[must_use]
    pub const fn standard(eps: f64, loss: ApgdLoss, seed: u64) -> Self {
        let stopping = Stopping::WhenBroken;
        Self { eps, loss, steps: 100, restarts: 1, seed, stopping, batch_size: 500 }
    }

    /// Attacks every image; besides, the number of samples for which the gradient at a start was zero.
    pub(super) fn count_flat(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<(AttackOutcome, usize)> {
        let mut flat = std::collections::BTreeSet::new();
        let outcome = rounds::run(self, query, progress, &mut |sample, _, search| {
            if search.began_flat() {
                flat.insert(sample);
            }
        })?;
        Ok((outcome, flat.len()))
    }
}

impl Default for Apgd {
    /// The standard settings with the loss of the first attack, at ε = 1/2.
    fn default() -> Self {
        Self::standard(0.5, ApgdLoss::CrossEntropy, 0)
    }
}

impl Rounds for Apgd {
    type Search<T: Pixel> = Ascent<T>;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, restarts, batch_size, .. } = *self;
        let name = match self.loss {
            ApgdLoss::CrossEntropy => "apgd-ce",
            ApgdLoss::Dlr => "apgd-dlr",
            ApgdLoss::TargetedDlr { .. } => "apgd-t",
        };
        Plan { name, eps, seed, stopping, restarts, batch_size }
    }

    fn n_targets(&self, n_classes: usize) -> usize {
        match self.loss {
            ApgdLoss::TargetedDlr { targets } => targets.min(n_classes - 1),
            _ => 1,
        }
    }

    fn check_own(&self) -> Result<()> {
        check_at_least_one("steps", self.steps)?;
        match self.loss {
            ApgdLoss::TargetedDlr { targets } => check_at_least_one("targets", targets),
            _ => Ok(()),
        }
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Ascent<T> {
        let Subject { image, label, logits, round, start, mut draws, .. } = subject;
        let d: Vec<T> = match start {
            Some(start) => start.iter().zip(image).map(|(&s, &x)| s - x).collect(),
            None => {
                let direction = draws.direction(image.len());
                let mut d: Vec<T> = direction.iter().map(|v| T::of(self.eps * v)).collect();
                project(&mut d, image, self.eps);
                d
            }
        };
        let target = ranking(logits).get(1 + round / self.restarts).copied();
        let goal = match (self.loss, target) {
            (ApgdLoss::TargetedDlr { .. }, Some(target)) => Goal::TargetedRatio { label, target },
            (ApgdLoss::CrossEntropy, _) => Goal::Loss(Loss::CrossEntropy, label),
            _ => Goal::Loss(Loss::DifferenceOfLogitsRatio, label),
        };
        Ascent::new(self, goal, image, d, draws)
    }
}

/// The ascent of one sample in one round.
#[derive(Debug)]
pub(super) struct Ascent<T> {
    goal: Goal,
    eps: f64,
    n_steps: usize,
    /// The perturbation to ask for next, and the one before it.
    d: Vec<T>,
    previous: Vec<T>,
    best: Point<T>,
    step: f64,
    /// Losses after each step.
    losses: Vec<f64>,
    first_loss: Option<f64>,
    steps: Vec<f64>,
    schedule: Schedule,
    began_flat: bool,
    image: Vec<f64>,
    draws: Draws,
}

#[derive(Debug)]
struct Point<T> {
    d: Vec<T>,
    gradient: Vec<T>,
    loss: f64,
}

/// When the step is reconsidered.
#[derive(Debug)]
struct Schedule {
    /// Steps from the last checkpoint to the next one.
    period: usize,
    shrink: usize,
    shortest: usize,
    since: usize,
    halved: bool,
    best_loss: f64,
}

impl Schedule {
    fn new(n_steps: usize) -> Self {
        let share = |percent: usize| (percent * n_steps / 100).max(1);
        let (period, shrink, shortest) = (share(22), share(3), share(6));
        Self { period, shrink, shortest, since: 0, halved: true, best_loss: f64::NEG_INFINITY }
    }

    /// Whether the step is to be halved after the losses so far.
    fn halves(&mut self, losses: &[f64], best_loss: f64) -> bool {
        self.since += 1;
        if self.since < self.period {
            return false;
        }
        let last = losses.len() - 1;
        // the loss before the first step counts as 0
        let before = |i: usize| i.checked_sub(1).map_or(0.0, |i| losses[i]);
        let rises = (losses.len() - self.period..=last).filter(|&i| losses[i] > before(i)).count();
        let oscillates = rises as f64 <= RISING_SHARE * self.period as f64;
        let stalls = !self.halved && self.best_loss >= best_loss;
        self.halved = oscillates || stalls;
        self.best_loss = best_loss;
        self.since = 0;
        self.period = self.period.saturating_sub(self.shrink).max(self.shortest);
        self.halved
    }
}

impl<T: Pixel> Ascent<T> {
    fn new(apgd: &Apgd, goal: Goal, image: &[T], d: Vec<T>, draws: Draws) -> Self {
        Self {
            goal,
            eps: apgd.eps,
            n_steps: apgd.steps,
            previous: d.clone(),
            best: Point { d: Vec::new(), gradient: Vec::new(), loss: f64::NEG_INFINITY },
            d,
            step: 2.0 * apgd.eps,
            losses: Vec::with_capacity(apgd.steps),
            first_loss: None,
            steps: Vec::new(),
            schedule: Schedule::new(apgd.steps),
            began_flat: false,
            image: widened(image),
            draws,
        }
    }

    fn ascend(&mut self, image: &[T], gradient: &[T]) {
        let momentum: Vec<T> = self.d.iter().zip(&self.previous).map(|(&d, &p)| d - p).collect();
        self.previous.copy_from_slice(&self.d);
        let weight = if self.losses.is_empty() { 1.0 } else { ASCENT };
        let (ascent, inertia) = (T::of(weight), T::of(1.0 - weight));
        let mut z = self.d.clone();
        // a gradient that is no number points nowhere
        if gradient.iter().all(|g| g.is_finite()) {
            let scale = T::of(self.step / (norm(gradient) + TINY));
            z.iter_mut().zip(gradient).for_each(|(z, &g)| *z += scale * g);
        }
        project(&mut z, image, self.eps);
        for ((d, &z), &m) in self.d.iter_mut().zip(&z).zip(&momentum) {
            *d += ascent * (z - *d) + inertia * m;
        }
        project(&mut self.d, image, self.eps);
    }
}

impl<T: Pixel> Search<T> for Ascent<T> {
    fn propose(&mut self, image: &[T], point: &mut [T]) -> Option<Wish> {
        if self.losses.len() == self.n_steps {
            return None;
        }
        perturbed(image, &self.d, point);
        Some(Wish::Gradient(self.goal))
    }

    fn answer(&mut self, image: &[T], reply: Reply<'_, T>) {
        let Reply { logits, gradient, .. } = reply;
        let loss = self.goal.value(logits);
        let first = self.first_loss.is_none();
        if first {
            self.first_loss = Some(loss);
            self.began_flat = gradient.iter().all(|g| *g == T::zero());
        } else {
            self.losses.push(loss);
        }
        if first || loss > self.best.loss {
            let (d, gradient) = (self.d.clone(), gradient.to_vec());
            self.best = Point { d, gradient, loss };
        }
        let mut goes_back = false;
        if first {
            self.schedule.best_loss = loss;
        } else {
            goes_back = self.schedule.halves(&self.losses, self.best.loss);
            if goes_back {
                self.step /= 2.0;
                self.d.copy_from_slice(&self.best.d);
            }
            self.steps.push(self.step);
        }
        if goes_back {
            let gradient = std::mem::take(&mut self.best.gradient);
            self.ascend(image, &gradient);
            self.best.gradient = gradient;
        } else {
            self.ascend(image, gradient);
        }
    }

    fn progress(&self) -> f64 {
        self.losses.len() as f64 / self.n_steps as f64
    }
}

impl<T: Pixel> Ended for Ascent<T> {
    fn trace(&self) -> Trace {
        let target = match self.goal {
            Goal::TargetedRatio { target, .. } => Some(target),
            _ => None,
        };
        let values = self.first_loss.into_iter().chain(self.losses.iter().copied()).collect();
        let d = widened(&self.best.d);
        let best = self.image.iter().zip(&d).map(|(x, d)| x + d).collect();
        Trace { target, values, steps: self.steps.clone(), best, ..Trace::default() }
    }

    fn began_flat(&self) -> bool {
        self.began_flat
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_come_where_the_paper_puts_them() {
        let mut schedule = Schedule::new(100);
        // the loss only rises: no checkpoint halves, and each is seen by the period that it sets
        let mut seen = Vec::new();
        let mut losses = Vec::new();
        for step in 1..=100 {
            losses.push(step as f64);
            let period = schedule.period;
            assert!(!schedule.halves(&losses, step as f64));
            if schedule.since == 0 {
                seen.push(step);
                assert!(schedule.period == period - 3 || schedule.period == 6);
            }
        }
        assert_eq!(seen, [22, 41, 57, 70, 80, 87, 93, 99]);
    }

    #[test]
    fn steps_are_halved_for_oscillation_and_for_stalling() {
        // oscillates
        let mut schedule = Schedule::new(100);
        let losses: Vec<f64> = (0..22).map(|i| f64::from(i % 2)).collect();
        let halves: Vec<bool> = (1..=22).map(|n| schedule.halves(&losses[..n], 1.0)).collect();
        assert_eq!(halves.iter().position(|&h| h), Some(21));
        // rises, but the best loss is not exceeded: not at the first checkpoint, at which η counts as halved
        let mut schedule = Schedule::new(100);
        schedule.best_loss = 100.0;
        let losses: Vec<f64> = (0..100).map(f64::from).collect();
        let halves: Vec<usize> =
            (1..=60).filter(|&n| schedule.halves(&losses[..n], 100.0)).collect();
        assert_eq!(halves, [41]);
        // 16 rises of 22 are too few, 17 are enough
        for (n_rises, expected) in [(16, true), (17, false)] {
            let mut schedule = Schedule::new(100);
            let losses: Vec<f64> =
                (1..=22).map(|i| if i <= n_rises { f64::from(i) } else { -f64::from(i) }).collect();
            let halves = (1..=22).any(|n| schedule.halves(&losses[..n], 1.0));
            assert_eq!(halves, expected, "{n_rises}");
        }
        // one step: compared with nothing but 0
        assert!(!Schedule::new(1).halves(&[1.0], 1.0));
        assert!(Schedule::new(1).halves(&[-1.0], 1.0));
    }
}
