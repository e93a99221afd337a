//! FAB, targeted: steps towards the boundary of one other class at a time, with a pull back to the image.
//!
//! Definition. x is the image, x₁ the iterate, t its label and j the class aimed at. f = y_j - y_t is linearised at x₁, which
//! gives the hyperplane `H: w·z = w·x₁ - f(x₁)`, w = ∇f(x₁). With δ₁ and δ₂ the shortest ways from x₁ and from x to H within
//! [0, 1] (see below), lengths taken as at least 1e-8 and η = 1.05, the iterate moves to
//!
//! ```text
//! x₁ ← clamp((1 - α) (x₁ + η δ₁) + α (x + η δ₂), 0, 1),    α = min(‖δ₁‖ / (‖δ₁‖ + ‖δ₂‖), 0.1)
//! ```
//!
//! If it is adversarial there, it goes back: x₁ ← x + 0.9 (x₁ - x). The nearest adversarial iterate counts. The classes aimed
//! at are the next ones in the ranking of the image's own logits, one round for each.
//!
//! The shortest way from p to `{z: w·z = b}` within [0, 1]: with c = w·p - b made positive by the sign of w, it is
//! `-min(λ, r_i) w_i`, where r_i is the λ at which value i meets its bound, and λ solves `Σ w_i² min(λ, r_i) = c`. The left side
//! is concave in λ, so that Newton's iteration from 0 climbs to the solution and ends after finitely many steps. Where even
//! λ = ∞ does not reach c, every value goes to its bound.
//!
//! Guarantee: a minimal-distance attack. It wants no ε to search with; ε decides what counts in the end.
//!
//! Cost: one forward, one input gradient and one more forward for each step, class and sample in play.
//!
//! Source: Croce and Hein 2020 (arXiv 1907.02044), as in the standard version of AutoAttack.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::objective::{Goal, ranking};
use super::outcome::Stopping;
use super::rounds::{Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::check_at_least_one;
use super::step::{LANES, dot, norm};
use crate::error::{Error, Result};
use crate::tensor::{Pixel, widened};

/// The targeted fast adaptive boundary attack; a minimal-distance attack in L2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fab {
    /// ε: a sample counts as broken when an adversarial image within this distance was found; positive.
    pub eps: f64,
    /// Classes to aim at, at least 1; all other classes where there are fewer.
    pub targets: usize,
    /// Steps of one round, at least 1.
    pub steps: usize,
    /// Starts for each class, 1 to 4096: the first at the image, the others at random, ε/2 away.
    pub restarts: usize,
    /// The largest weight of the pull to the image, in [0, 1].
    pub alpha_max: f64,
    /// η: how far to go beyond the hyperplane, at least 1.
    pub overshoot: f64,
    /// β: what is left of the perturbation after a step back, in (0, 1).
    pub backward: f64,
    /// Decides all random starts.
    pub seed: u64,
    /// Whether to go on, to smaller distances, with samples that are broken.
    pub stopping: Stopping,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

impl Fab {
    /// The settings of the standard AutoAttack: 9 classes, 100 steps, from the image itself.
    #[must_use]
    pub const fn standard(eps: f64, seed: u64) -> Self {
        Self {
            eps,
            targets: 9,
            steps: 100,
            restarts: 1,
            alpha_max: 0.1,
            overshoot: 1.05,
            backward: 0.9,
            seed,
            stopping: Stopping::WhenBroken,
            batch_size: 500,
        }
    }
}

impl Default for Fab {
    /// The standard settings at ε = 1/2.
    fn default() -> Self {
        Self::standard(0.5, 0)
    }
}

impl Rounds for Fab {
    type Search<T: Pixel> = Approach;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, restarts, batch_size, .. } = *self;
        Plan { name: "fab-t", eps, seed, stopping, restarts, batch_size }
    }

    fn n_targets(&self, n_classes: usize) -> usize {
        self.targets.min(n_classes - 1)
    }

    fn check_own(&self) -> Result<()> {
        check_at_least_one("targets", self.targets)?;
        check_at_least_one("steps", self.steps)?;
        let settings = [
            ("alpha_max", self.alpha_max, (0.0..=1.0).contains(&self.alpha_max), "in [0, 1]"),
            (
                "overshoot",
                self.overshoot,
                self.overshoot >= 1.0 && self.overshoot.is_finite(),
                "a finite number of at least 1",
            ),
            (
                "backward",
                self.backward,
                self.backward > 0.0 && self.backward < 1.0,
                "above 0 and below 1",
            ),
        ];
        match settings.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((name, value, _, expected)) => {
                Err(Error::InvalidSetting { name, value, expected })
            }
            None => Ok(()),
        }
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Approach {
        let Subject { image, label, logits, round, start, mut draws, .. } = subject;
        let original = widened(image);
        let iterate = match start {
            Some(start) => widened(start),
            None if round % self.restarts == 0 => original.clone(),
            None => {
                let direction = draws.direction(original.len());
                let away = |(x, v): (&f64, &f64)| (x + 0.5 * self.eps * v).clamp(0.0, 1.0);
                original.iter().zip(&direction).map(away).collect()
            }
        };
        let target = ranking(logits)[1 + round / self.restarts];
        Approach {
            settings: *self,
            label,
            target,
            original,
            iterate,
            tests: false,
            step: 0,
            nearest: None,
            trace: Trace { target: Some(target), ..Trace::default() },
            draws,
        }
    }
}

/// The attack on one sample, aimed at one class.
#[derive(Debug)]
pub(super) struct Approach {
    settings: Fab,
    label: usize,
    target: usize,
    original: Vec<f64>,
    iterate: Vec<f64>,
    /// Whether the iterate is to be tested, in place of linearised at.
    tests: bool,
    step: usize,
    /// The nearest adversarial iterate and its distance.
    nearest: Option<(Vec<f64>, f64)>,
    trace: Trace,
    draws: Draws,
}

impl<T: Pixel> Search<T> for Approach {
    fn propose(&mut self, _: &[T], point: &mut [T]) -> Option<Wish> {
        if self.step == self.settings.steps {
            return None;
        }
        point.iter_mut().zip(&self.iterate).for_each(|(p, &x)| *p = T::of(x));
        let Self { label, target, .. } = *self;
        Some(if self.tests {
            Wish::Logits
        } else {
            Wish::Gradient(Goal::Difference { label, target })
        })
    }

    fn answer(&mut self, _: &[T], reply: Reply<'_, T>) {
        let Reply { logits, gradient, adversarial } = reply;
        if self.tests {
            self.step_back(adversarial);
            self.step += 1;
        } else {
            self.approach(logits[self.target] - logits[self.label], &widened(gradient));
        }
        self.tests = !self.tests;
    }

    fn progress(&self) -> f64 {
        self.step as f64 / self.settings.steps as f64
    }
}

impl Approach {
    /// The step towards the hyperplane, for f and ∇f at the iterate.
    fn approach(&mut self, f: f64, gradient: &[f64]) {
        // a gradient that is no number leads nowhere
        if !f.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
            self.trace.steps.push(0.0);
            return;
        }
        let offset = dot(gradient, &self.iterate) - f;
        let from_iterate = to_hyperplane(&self.iterate, gradient, offset);
        let from_image = to_hyperplane(&self.original, gradient, offset);
        let [near, far] = [&from_iterate, &from_image].map(|d| norm(d).max(1e-8));
        let alpha = (near / (near + far)).min(self.settings.alpha_max);
        let eta = self.settings.overshoot;
        let ways = from_iterate.iter().zip(&from_image);
        for ((z, x), (d1, d2)) in self.iterate.iter_mut().zip(&self.original).zip(ways) {
            *z = ((*z + eta * d1) * (1.0 - alpha) + (x + eta * d2) * alpha).clamp(0.0, 1.0);
        }
        self.trace.steps.push(alpha);
    }

    /// Notes an adversarial iterate and takes part of its perturbation back.
    fn step_back(&mut self, adversarial: bool) {
        let pairs = || self.iterate.iter().zip(&self.original);
        let distance = pairs().map(|(z, x)| (z - x) * (z - x)).sum::<f64>().sqrt();
        self.trace.values.push(distance);
        if !adversarial {
            return;
        }
        if self.nearest.as_ref().is_none_or(|(_, nearest)| distance < *nearest) {
            self.nearest = Some((self.iterate.clone(), distance));
        }
        let beta = self.settings.backward;
        self.iterate.iter_mut().zip(&self.original).for_each(|(z, x)| *z = x + (*z - x) * beta);
    }
}

impl Ended for Approach {
    fn trace(&self) -> Trace {
        let best = self.nearest.as_ref().map(|(image, _)| image.clone()).unwrap_or_default();
        Trace { best, ..self.trace.clone() }
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}

/// Weights smaller than this move nothing.
const SMALLEST_WEIGHT: f64 = 1e-8;

/// The shortest d with `w·(p + d) = b` and p + d in [0, 1]; every value at its bound where there is none.
fn to_hyperplane(p: &[f64], w: &[f64], b: f64) -> Vec<f64> {
    let excess = dot(w, p) - b;
    let sign = if excess >= 0.0 { 1.0 } else { -1.0 };
    let c = excess.abs();
    let moves = |w: f64| w.abs() >= SMALLEST_WEIGHT;
    // λ at which a value meets its bound
    let reach = |(&p, &w): (&f64, &f64)| {
        let w = sign * w;
        let way = if w > 0.0 { p } else { p - 1.0 };
        if moves(w) { way / w } else { f64::INFINITY }
    };
    let reach: Vec<f64> = p.iter().zip(w).map(reach).collect();
    let squares: Vec<f64> = w.iter().map(|&w| if moves(w) { w * w } else { 0.0 }).collect();
    let mut lambda = 0.0;
    loop {
        let (free, bound) = free_and_bound(&squares, &reach, lambda);
        if free <= 0.0 {
            lambda = f64::INFINITY;
            break;
        }
        let next = (c - bound) / free;
        // NaN ends the iteration as well
        if next.is_nan() || next <= lambda {
            break;
        }
        lambda = next;
    }
    let way = |(&w, &r): (&f64, &f64)| if r.is_finite() { -r.min(lambda) * sign * w } else { 0.0 };
    w.iter().zip(&reach).map(way).collect()
}

/// Σ w² of the values that have not met their bounds at λ, and Σ w² r of those that have; no branch depends on a value.
fn free_and_bound(squares: &[f64], reach: &[f64], lambda: f64) -> (f64, f64) {
    let (mut free, mut bound) = ([0.0; LANES], [0.0; LANES]);
    for (squares, reach) in squares.chunks(LANES).zip(reach.chunks(LANES)) {
        for (k, (&square, &r)) in squares.iter().zip(reach).enumerate() {
            let (is_free, met) = if r > lambda { (square, 0.0) } else { (0.0, square * r) };
            free[k] += is_free;
            bound[k] += met;
        }
    }
    (free.iter().sum(), bound.iter().sum())
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    struct Case {
        p: Vec<f64>,
        w: Vec<f64>,
        b: f64,
    }

    fn case(n: usize, far: f64, rng: &mut ChaCha8Rng) -> Case {
        // a third of the values at a bound, as in images
        let pixel = |rng: &mut ChaCha8Rng| (rng.random_range(-0.25..1.25f64)).clamp(0.0, 1.0);
        let p: Vec<f64> = (0..n).map(|_| pixel(rng)).collect();
        let w: Vec<f64> = (0..n).map(|_| rng.random_range(-1.0..1.0)).collect();
        let b = dot(&w, &p) + far * rng.random_range(-1.0..1.0f64);
        Case { p, w, b }
    }

    /// By bisection of the multiplier of `min ‖z - p‖² with w·z = b, 0 ≤ z ≤ 1`: z = clamp(p + μ w, 0, 1).
    fn by_bisection(case: &Case) -> Option<Vec<f64>> {
        let at = |mu: f64| -> Vec<f64> {
            case.p.iter().zip(&case.w).map(|(p, w)| (p + mu * w).clamp(0.0, 1.0)).collect()
        };
        let (mut low, mut high) = (-1e6, 1e6);
        if dot(&case.w, &at(low)) > case.b || dot(&case.w, &at(high)) < case.b {
            return None;
        }
        for _ in 0..200 {
            let middle = 0.5 * (low + high);
            *(if dot(&case.w, &at(middle)) < case.b { &mut low } else { &mut high }) = middle;
        }
        Some(at(high))
    }

    #[test]
    fn projections_solve_the_quadratic_programme() {
        let rng = &mut ChaCha8Rng::seed_from_u64(8);
        let (mut n_solved, mut n_infeasible) = (0, 0);
        for trial in 0..600 {
            let n = [1, 2, 3, 10, 100][trial % 5];
            let case = case(n, [0.1, 1.0, 4.0][trial % 3], rng);
            let d = to_hyperplane(&case.p, &case.w, case.b);
            let z: Vec<f64> = case.p.iter().zip(&d).map(|(p, d)| p + d).collect();
            assert!(z.iter().all(|z| (-1e-12..=1.0 + 1e-12).contains(z)), "{z:?}");
            match by_bisection(&case) {
                Some(expected) => {
                    n_solved += 1;
                    assert!((dot(&case.w, &z) - case.b).abs() < 1e-9);
                    let worst =
                        z.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(worst < 1e-8, "{worst}");
                }
                None => {
                    n_infeasible += 1;
                    // as near to the hyperplane as the box allows
                    let up = case.b > dot(&case.w, &case.p);
                    for (z, w) in z.iter().zip(&case.w) {
                        let bound = f64::from(u8::from((*w > 0.0) == up));
                        assert!((z - bound).abs() < 1e-12);
                    }
                }
            }
        }
        assert!(n_solved > 300 && n_infeasible > 50, "{n_solved} {n_infeasible}");
    }

    #[test]
    fn vanishing_weights_move_nothing() {
        assert_eq!(to_hyperplane(&[0.5, 0.5], &[0.0, 0.0], 1.0), [0.0, 0.0]);
        let d = to_hyperplane(&[0.5, 0.5], &[1.0, 1e-9], 0.75);
        assert!((d[0] - 0.25).abs() < 1e-9 && d[1] == 0.0);
        assert!(to_hyperplane(&[], &[], 0.0).is_empty());
    }
}
