//! The loop shared by the attacks that see logits: one search for each sample, many samples in one pass of the network.
//!
//! An attack consists of rounds: a restart, or a class to aim at. In every round a [`Search`] for each sample that is
//! still in play proposes a point and is told the logits there and, where it asks for it, the gradient of its [`Goal`].
//! The loop notes every adversarial point that turns up, nearest first. A search knows nothing of its batch, and draws
//! from a random stream of its own, or from numbers that the caller hands in.

use candle_core::{DType, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Strategy;
use super::ledger::Ledger;
use super::objective::Goal;
use super::outcome::{AttackOutcome, AttackProgress, Query, Stopping};
use super::setup::{EACH_CLASS, check_at_least_one, check_positive, check_restarts};
use super::step::with_rounding;
use crate::classifier::logit_rows;
use crate::error::{Error, Result};
use crate::tensor::Pixel;

/// What such attacks have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) eps: f64,
    pub(super) seed: u64,
    pub(super) stopping: Stopping,
    /// Random starts, at least 1.
    pub(super) restarts: usize,
    pub(super) batch_size: usize,
}

/// What a search is about.
pub(super) struct Subject<'a, T> {
    pub(super) image: &'a [T],
    /// Its shape.
    pub(super) shape: &'a [usize],
    pub(super) label: usize,
    /// The logits of the image itself.
    pub(super) logits: &'a [f64],
    pub(super) round: usize,
    /// A start that the caller gave.
    pub(super) start: Option<&'a [T]>,
    pub(super) draws: Draws,
}

/// Uniform random numbers in [0, 1): a stream, or a list that was handed in.
#[derive(Debug, Clone)]
pub(super) enum Draws {
    Stream(Box<ChaCha8Rng>),
    Given { values: Vec<f64>, next: usize },
}

impl Draws {
    /// The next number; 0 beyond the end of a list, which [`ran_out`](Self::ran_out) tells.
    pub(super) fn uniform(&mut self) -> f64 {
        match self {
            Self::Stream(rng) => rng.random(),
            Self::Given { values, next } => {
                *next += 1;
                values.get(*next - 1).copied().unwrap_or_default()
            }
        }
    }

    /// An index below `n`; 0 where n is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// A number in [-bound, bound].
    pub(super) fn symmetric(&mut self, bound: f64) -> f64 {
        match self {
            Self::Stream(rng) => rng.random_range(-bound..=bound),
            Self::Given { .. } => bound * (2.0 * self.uniform() - 1.0),
        }
    }

    /// -1 or 1.
    pub(super) fn sign(&mut self) -> f64 {
        if self.uniform() < 0.5 { -1.0 } else { 1.0 }
    }

    pub(super) fn ran_out(&self) -> bool {
        matches!(self, Self::Given { values, next } if *next > values.len())
    }

    /// A direction of length 1, uniform on the sphere.
    pub(super) fn direction(&mut self, n: usize) -> Vec<f64> {
        // Box and Muller: normal numbers from uniform ones, so that a list can replay them
        let mut values: Vec<f64> = Vec::with_capacity(n + 1);
        while values.len() < n {
            let (u, v) = (1.0 - self.uniform(), self.uniform());
            let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
            values.extend([radius * angle.cos(), radius * angle.sin()]);
        }
        values.truncate(n);
        let length = values.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        values.iter_mut().for_each(|v| *v /= length);
        values
    }
}

/// What a search wants to know of the point that it proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wish {
    Logits,
    Gradient(Goal),
}

/// The attack on one sample in one round.
pub(super) trait Search<T>: Ended + Send {
    /// Writes the next point to ask for; none when the search has ended.
    fn propose(&mut self, image: &[T], point: &mut [T]) -> Option<Wish>;

    /// The answer for the point proposed last; the gradient is empty where none was wished for.
    fn answer(&mut self, image: &[T], logits: &[f64], gradient: &[T]);

    /// Share of the search that is done, in [0, 1].
    fn progress(&self) -> f64;
}

/// What is left to tell of a search.
pub(super) trait Ended {
    fn trace(&self) -> Trace;

    /// Whether the gradient at the start was zero.
    fn began_flat(&self) -> bool {
        false
    }

    /// Whether it drew more random numbers than were handed in.
    fn ran_out(&self) -> bool;
}

/// What one search did, to compare implementations with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Index of the sample.
    pub sample: usize,
    /// Number of the round: a restart, or a class to aim at.
    pub round: usize,
    /// The class aimed at.
    pub target: Option<usize>,
    /// PGD and APGD: the loss at the start and after every step. FAB: the distance of every iterate before the step back.
    /// Square: the margin at every point asked for.
    pub values: Vec<f64>,
    /// PGD and APGD: the length of the step after each iteration. FAB: the weight of the pull towards the image. Square: 1
    /// for a point that was accepted, 0 for one that was not.
    pub steps: Vec<f64>,
    /// PGD: the last iterate. APGD: the point of the largest loss. FAB: the nearest adversarial iterate,
    /// empty if there is none. Square: the last point accepted.
    pub best: Vec<f64>,
}

/// An attack made of rounds of searches.
pub(super) trait Rounds {
    type Search<T: Pixel>: Search<T>;

    /// The most restarts that it takes.
    const MOST_RESTARTS: usize = EACH_CLASS;

    fn plan(&self) -> Plan;

    /// How many classes it aims at, one after the other; each restart begins with all of them.
    fn n_targets(&self, _n_classes: usize) -> usize {
        1
    }

    /// Checks the settings that are not part of the plan.
    fn check_own(&self) -> Result<()>;

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Self::Search<T>;
}

impl<A: Rounds> Strategy for A {
    fn name(&self) -> &'static str {
        self.plan().name
    }

    fn eps(&self) -> f64 {
        self.plan().eps
    }

    fn check(&self) -> Result<()> {
        let Plan { eps, restarts, batch_size, .. } = self.plan();
        check_positive("eps", eps)?;
        check_at_least_one("batch_size", batch_size)?;
        check_restarts(restarts, A::MOST_RESTARTS)?;
        self.check_own()
    }

    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        run(self, query, progress, &mut |_, _, _| {})
    }
}

/// Attacks every image of the query and hands out every search that has ended.
pub(super) fn run<A: Rounds>(
    attack: &A,
    query: Query<'_>,
    progress: &mut dyn FnMut(AttackProgress),
    ended: &mut dyn FnMut(usize, usize, &dyn Ended),
) -> Result<AttackOutcome> {
    let got = query.classifier.n_classes();
    if got < 2 {
        return Err(Error::TooFewClasses { got, expected: 2 });
    }
    let (plan, n_targets) = (attack.plan(), attack.n_targets(got));
    match query.images.dtype() {
        DType::F32 => Run::<f32, A>::new(attack, plan, n_targets, query)?.all(progress, ended),
        _ => Run::<f64, A>::new(attack, plan, n_targets, query)?.all(progress, ended),
    }
}

struct Run<'a, T, A> {
    attack: &'a A,
    plan: Plan,
    n_rounds: usize,
    ledger: Ledger<'a, T>,
    starts: Option<Vec<T>>,
    draws: Option<&'a [Vec<f64>]>,
}

struct Slot<T, S> {
    sample: usize,
    search: S,
    point: Vec<T>,
    wish: Option<Wish>,
}

impl<'a, T: Pixel, A: Rounds> Run<'a, T, A> {
    fn new(attack: &'a A, plan: Plan, n_targets: usize, query: Query<'a>) -> Result<Self> {
        let (_, n_values) = crate::tensor::batch_size(query.images)?;
        let reach = with_rounding(plan.eps, n_values, T::UNIT_ROUNDOFF);
        let ledger = Ledger::new(plan.name, query, reach, plan.batch_size)?;
        let starts = query.starts.map(|starts| starts.flatten_all()?.to_vec1()).transpose()?;
        if let Some(draws) = query.draws.filter(|draws| draws.len() != ledger.len()) {
            let what = "lists of random numbers";
            return Err(Error::CountMismatch { what, expected: ledger.len(), got: draws.len() });
        }
        let n_rounds = n_targets * plan.restarts;
        Ok(Self { attack, plan, n_rounds, ledger, starts, draws: query.draws })
    }

    fn all(
        mut self,
        progress: &mut dyn FnMut(AttackProgress),
        ended: &mut dyn FnMut(usize, usize, &dyn Ended),
    ) -> Result<AttackOutcome> {
        let n = self.ledger.len();
        let never = self.plan.stopping == Stopping::Never;
        for start in (0..n).step_by(self.plan.batch_size) {
            let batch = start..n.min(start + self.plan.batch_size);
            for round in 0..self.n_rounds {
                let mut slots = Vec::new();
                for sample in batch.clone().filter(|&i| self.ledger.is_correct(i)) {
                    if never || !self.ledger.is_broken(sample) {
                        slots.push(self.slot(sample, round));
                    }
                }
                while !slots.is_empty() {
                    slots = self.tick(slots, round, ended)?;
                    let least = slots.iter().map(|slot| slot.search.progress());
                    let share = round as f64 + least.fold(1.0, f64::min);
                    let share = share / self.n_rounds as f64;
                    progress(self.ledger.progress(start as f64 + share * batch.len() as f64));
                }
            }
        }
        progress(self.ledger.progress(n as f64));
        self.ledger.outcome()
    }

    fn slot(&self, sample: usize, round: usize) -> Slot<T, A::Search<T>> {
        let n_values = self.ledger.n_values;
        let row = sample * n_values..(sample + 1) * n_values;
        let search = self.attack.search(Subject {
            image: self.ledger.image(sample),
            shape: self.ledger.image_shape(),
            label: self.ledger.labels[sample],
            logits: &self.ledger.logits[sample],
            round,
            start: self.starts.as_ref().map(|starts| &starts[row]),
            draws: self.draws_of(sample, round),
        });
        Slot { sample, search, point: vec![T::zero(); n_values], wish: None }
    }

    fn draws_of(&self, sample: usize, round: usize) -> Draws {
        match self.draws {
            Some(draws) => Draws::Given { values: draws[sample].clone(), next: 0 },
            None => {
                let mut rng = ChaCha8Rng::seed_from_u64(self.plan.seed);
                rng.set_stream((self.ledger.id(sample) as u64) << 16 | round as u64);
                Draws::Stream(Box::new(rng))
            }
        }
    }

    /// One question of every search; the searches that go on.
    fn tick(
        &mut self,
        mut slots: Vec<Slot<T, A::Search<T>>>,
        round: usize,
        ended: &mut dyn FnMut(usize, usize, &dyn Ended),
    ) -> Result<Vec<Slot<T, A::Search<T>>>> {
        {
            let image = self.ledger.image_of();
            slots.par_iter_mut().for_each(|slot| {
                slot.wish = slot.search.propose(image(slot.sample), &mut slot.point);
            });
        }
        let (with, rest): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|slot| matches!(slot.wish, Some(Wish::Gradient(_))));
        let (without, finished): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|slot| slot.wish.is_some());
        self.end(finished, round, ended)?;
        let mut kept = Vec::with_capacity(with.len() + without.len());
        for group in [with, without] {
            let group = self.ask(group)?;
            let stops = |sample| {
                self.plan.stopping == Stopping::WhenBroken && self.ledger.is_broken(sample)
            };
            let (done, going): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|slot| stops(slot.sample));
            self.end(done, round, ended)?;
            kept.extend(going);
        }
        kept.sort_by_key(|slot| slot.sample);
        Ok(kept)
    }

    fn end(
        &self,
        slots: Vec<Slot<T, A::Search<T>>>,
        round: usize,
        ended: &mut dyn FnMut(usize, usize, &dyn Ended),
    ) -> Result<()> {
        for Slot { sample, search, .. } in slots {
            if search.ran_out() {
                let got = self.draws.map_or(0, |draws| draws[sample].len());
                return Err(Error::TooFewDraws { sample, got });
            }
            ended(sample, round, &search);
        }
        Ok(())
    }

    /// Puts the questions of searches that wish for the same to the classifier, and hands out the answers.
    fn ask(&mut self, mut slots: Vec<Slot<T, A::Search<T>>>) -> Result<Vec<Slot<T, A::Search<T>>>> {
        if slots.is_empty() {
            return Ok(slots);
        }
        let points: Vec<T> = slots.iter().flat_map(|slot| slot.point.iter().copied()).collect();
        let points = self.ledger.tensor(&points)?;
        let goals: Vec<Goal> = slots.iter().filter_map(|slot| slot.goal()).collect();
        let (rows, gradient) = if goals.is_empty() {
            (logit_rows(&self.ledger.classifier.logits(&points)?)?, Vec::new())
        } else {
            let goal = |logits: &Tensor| Goal::linearised(&goals, logits);
            let (logits, gradient) =
                self.ledger.classifier.logits_and_input_gradient(&points, &goal)?;
            (logit_rows(&logits)?, gradient.flatten_all()?.to_vec1::<T>()?)
        };
        for (slot, row) in slots.iter().zip(&rows) {
            self.ledger.note(slot.sample, &slot.point, row);
        }
        let (image, n_values) = (self.ledger.image_of(), self.ledger.n_values);
        slots.par_iter_mut().zip(&rows).enumerate().for_each(|(i, (slot, row))| {
            let gradient = gradient.get(i * n_values..(i + 1) * n_values).unwrap_or_default();
            slot.search.answer(image(slot.sample), row, gradient);
        });
        Ok(slots)
    }
}

impl<T, S> Slot<T, S> {
    fn goal(&self) -> Option<Goal> {
        match self.wish? {
            Wish::Gradient(goal) => Some(goal),
            Wish::Logits => None,
        }
    }
}
