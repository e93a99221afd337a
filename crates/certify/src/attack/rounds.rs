//! The loop shared by all attacks but AutoAttack: one search for each sample, many samples in one pass of the network.
//!
//! An attack consists of rounds: a restart, or a class to aim at. In every round a [`Search`] for each sample that is
//! still in play proposes a point and is told the logits there, whether it is adversarial, and, where it asks for it, the
//! gradient of its [`Goal`]. The loop keeps up to `batch_size` searches going, so that a place that falls free is taken by
//! the sample's next round or by the next sample: batches stay full to the end. It notes every adversarial point that turns
//! up, nearest first. A search knows nothing of its batch, and draws from a random stream of its own, or from numbers
//! that the caller hands in.

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Strategy;
use super::draws::Draws;
use super::ledger::Ledger;
use super::objective::Goal;
use super::outcome::{AttackOutcome, AttackProgress, Query, Stopping};
use super::setup::{EACH_CLASS, check_at_least_one, check_positive, check_restarts};
use super::step::with_rounding;
use crate::classifier::logit_rows;
use crate::error::{Error, Result};
use crate::tensor::Pixel;

/// What attacks have in common.
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
    /// A start that the caller gave, or an image of another class where noise was of no use.
    pub(super) start: Option<&'a [T]>,
    pub(super) draws: Draws,
}

/// What a search wants to know of the point that it proposes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wish {
    Logits,
    Gradient(Goal),
}

/// What it is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply<'a, T> {
    pub(super) logits: &'a [f64],
    /// Empty where none was wished for.
    pub(super) gradient: &'a [T],
    /// Whether the point is an image, and of another class.
    pub(super) adversarial: bool,
}

/// The attack on one sample in one round.
pub(super) trait Search<T>: Ended + Send {
    /// Writes the next point to ask for; none when the search has ended.
    fn propose(&mut self, image: &[T], point: &mut [T]) -> Option<Wish>;

    /// The answer for the point proposed last.
    fn answer(&mut self, image: &[T], reply: Reply<'_, T>);

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
    /// Square: the margin at every point asked for. Boundary: the distance at the start and after every step. Pointwise: how
    /// many values differ from the image's whenever a new order of them is drawn.
    pub values: Vec<f64>,
    /// PGD and APGD: the length of the step after each iteration. FAB: the weight of the pull towards the image. Square: 1
    /// for a point that was accepted, 0 for one that was not. Boundary: ε_s after each step. Pointwise: nothing.
    pub steps: Vec<f64>,
    /// PGD: the last iterate. APGD: the point of the largest loss. FAB and Boundary: the nearest adversarial iterate,
    /// empty if there is none. Square: the last point accepted. Pointwise: the point proposed last.
    pub best: Vec<f64>,
}

/// An attack made of rounds of searches.
pub(super) trait Rounds {
    type Search<T: Pixel>: Search<T>;

    /// The most restarts that it takes.
    const MOST_RESTARTS: usize = EACH_CLASS;

    /// Whether a search is of use only from an adversarial image. It then draws noise in its first round; where the noise is
    /// all of the sample's own class, a second one begins at the nearest image of the list that has another.
    const FROM_ADVERSARIAL: bool = false;

    fn plan(&self) -> Plan;

    /// How many classes it aims at, one after the other; each restart begins with all of them.
    fn n_targets(&self, _n_classes: usize) -> usize {
        1
    }

    /// How many points one search may ask for.
    fn max_queries(&self) -> usize {
        usize::MAX
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
    ended: &mut OnEnd<'_>,
) -> Result<AttackOutcome> {
    let got = query.target.classifier.n_classes();
    if got < 2 {
        return Err(Error::TooFewClasses { got, expected: 2 });
    }
    let (plan, n_targets) = (attack.plan(), attack.n_targets(got));
    match query.target.images.dtype() {
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
    /// Samples and rounds that have not begun.
    waiting: VecDeque<(usize, usize)>,
    /// Samples that are done with.
    n_ended: usize,
    /// The share reported last, which never falls.
    reported: f64,
}

/// A search that is under way.
struct Slot<T, S> {
    sample: usize,
    round: usize,
    search: S,
    point: Vec<T>,
    wish: Option<Wish>,
    n_queries: usize,
    adversarial: bool,
}

type Slots<T, A> = Vec<Slot<T, <A as Rounds>::Search<T>>>;

/// Is told sample, round and search when a search has ended.
type OnEnd<'f> = dyn FnMut(usize, usize, &dyn Ended) + 'f;

impl<'a, T: Pixel, A: Rounds> Run<'a, T, A> {
    fn new(attack: &'a A, plan: Plan, n_targets: usize, query: Query<'a>) -> Result<Self> {
        let (_, n_values) = crate::tensor::batch_size(query.target.images)?;
        let reach = with_rounding(plan.eps, n_values, T::UNIT_ROUNDOFF);
        let ledger = Ledger::new(plan.name, query, reach, plan.batch_size)?;
        let starts = query.starts.map(|starts| starts.flatten_all()?.to_vec1()).transpose()?;
        if let Some(draws) = query.draws.filter(|draws| draws.len() != ledger.len()) {
            let what = "lists of random numbers";
            return Err(Error::CountMismatch { what, expected: ledger.len(), got: draws.len() });
        }
        let in_play = (0..ledger.len()).filter(|&i| ledger.is_correct(i));
        let waiting: VecDeque<_> = in_play.map(|i| (i, 0)).collect();
        Ok(Self {
            attack,
            plan,
            n_rounds: n_targets * plan.restarts,
            n_ended: ledger.len() - waiting.len(),
            ledger,
            starts,
            draws: query.draws,
            waiting,
            reported: 0.0,
        })
    }

    fn all(
        mut self,
        progress: &mut dyn FnMut(AttackProgress),
        ended: &mut OnEnd<'_>,
    ) -> Result<AttackOutcome> {
        let mut slots = Vec::new();
        loop {
            self.propose(&mut slots, ended)?;
            if slots.is_empty() {
                break;
            }
            self.ask(&mut slots)?;
            if self.plan.stopping == Stopping::WhenBroken {
                let is_broken = |slot: &mut Slot<_, _>| self.ledger.is_broken(slot.sample);
                let broken: Vec<_> = slots.extract_if(.., is_broken).collect();
                self.end(broken, ended)?;
            }
            progress(self.progress(&slots));
        }
        progress(self.progress(&[]));
        self.ledger.outcome()
    }

    /// Lets every search say what it wants to know, and puts others in the places of those that end.
    fn propose(&mut self, slots: &mut Slots<T, A>, ended: &mut OnEnd<'_>) -> Result<()> {
        // those before have proposed
        let mut first = 0;
        loop {
            {
                let (image, most) = (self.ledger.image_of(), self.attack.max_queries());
                let new = slots[first..].par_iter_mut();
                new.for_each(|slot| slot.propose(image(slot.sample), most));
            }
            let done: Vec<_> = slots.extract_if(first.., |slot| slot.wish.is_none()).collect();
            self.end(done, ended)?;
            first = slots.len();
            while slots.len() < self.plan.batch_size {
                let Some((sample, round)) = self.waiting.pop_front() else { break };
                slots.push(self.slot(sample, round));
            }
            if slots.len() == first {
                return Ok(());
            }
        }
    }

    fn slot(&self, sample: usize, round: usize) -> Slot<T, A::Search<T>> {
        let n_values = self.ledger.n_values;
        let given = self.starts.as_ref().map(|s| &s[sample * n_values..(sample + 1) * n_values]);
        let neighbour = || self.ledger.neighbour(sample).map(|other| self.ledger.image(other));
        let search = self.attack.search(Subject {
            image: self.ledger.image(sample),
            shape: self.ledger.image_shape(),
            label: self.ledger.labels[sample],
            logits: &self.ledger.logits[sample],
            round,
            start: if A::FROM_ADVERSARIAL && round > 0 { neighbour() } else { given },
            draws: match self.draws {
                Some(draws) => Draws::given(&draws[sample]),
                None => Draws::stream(self.plan.seed, self.ledger.id(sample), round),
            },
        });
        let point = vec![T::zero(); n_values];
        Slot { sample, round, search, point, wish: None, n_queries: 0, adversarial: false }
    }

    /// Takes leave of searches, and lines up what comes after them.
    fn end(&mut self, done: Slots<T, A>, ended: &mut OnEnd<'_>) -> Result<()> {
        for Slot { sample, round, search, .. } in done {
            if search.ran_out() {
                let got = self.draws.map_or(0, |draws| draws[sample].len());
                return Err(Error::TooFewDraws { sample, got });
            }
            ended(sample, round, &search);
            match self.next_round(sample, round)? {
                Some(next) => self.waiting.push_front((sample, next)),
                None => self.n_ended += 1,
            }
        }
        Ok(())
    }

    fn next_round(&self, sample: usize, round: usize) -> Result<Option<usize>> {
        let ledger = &self.ledger;
        let goes_on = if A::FROM_ADVERSARIAL {
            let failed = !ledger.has_found(sample);
            if failed && self.starts.is_some() {
                return Err(Error::StartNotAdversarial { sample, label: ledger.labels[sample] });
            }
            failed && round == 0 && ledger.neighbour(sample).is_some()
        } else {
            let never = self.plan.stopping == Stopping::Never;
            round + 1 < self.n_rounds && (never || !ledger.is_broken(sample))
        };
        Ok(goes_on.then_some(round + 1))
    }

    /// Puts the questions to the classifier, those for gradients apart, and hands out the answers.
    fn ask(&mut self, slots: &mut Slots<T, A>) -> Result<()> {
        let (with, without): (Vec<_>, Vec<_>) =
            slots.iter_mut().partition(|slot| slot.goal().is_some());
        self.ask_alike(with)?;
        self.ask_alike(without)
    }

    fn ask_alike(&mut self, mut slots: Vec<&mut Slot<T, A::Search<T>>>) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let n_values = self.ledger.n_values;
        let mut points = Vec::with_capacity(slots.len() * n_values);
        slots.iter().for_each(|slot| points.extend_from_slice(&slot.point));
        let points = self.ledger.tensor(points)?;
        let goals: Vec<Goal> = slots.iter().filter_map(|slot| slot.goal()).collect();
        let (rows, gradient) = if goals.is_empty() {
            (logit_rows(&self.ledger.classifier.logits(&points)?)?, Vec::new())
        } else {
            let goal = |logits: &Tensor| Goal::linearised(&goals, logits);
            let (logits, gradient) =
                self.ledger.classifier.logits_and_input_gradient(&points, &goal)?;
            (logit_rows(&logits)?, gradient.flatten_all()?.to_vec1::<T>()?)
        };
        for (slot, row) in slots.iter_mut().zip(&rows) {
            slot.adversarial = self.ledger.note(slot.sample, &slot.point, row);
            slot.n_queries += 1;
        }
        let image = self.ledger.image_of();
        slots.par_iter_mut().zip(&rows).enumerate().for_each(|(i, (slot, logits))| {
            let gradient = gradient.get(i * n_values..(i + 1) * n_values).unwrap_or_default();
            let adversarial = slot.adversarial;
            slot.search.answer(image(slot.sample), Reply { logits, gradient, adversarial });
        });
        Ok(())
    }

    fn progress(&mut self, slots: &[Slot<T, A::Search<T>>]) -> AttackProgress {
        let share = |slot: &Slot<T, A::Search<T>>| {
            let before = if A::FROM_ADVERSARIAL { 0 } else { slot.round };
            (before as f64 + slot.search.progress()) / self.n_rounds as f64
        };
        let done = self.n_ended as f64 + slots.iter().map(share).sum::<f64>();
        let n = self.ledger.len();
        let share = if n == 0 { 1.0 } else { (done / n as f64).min(1.0) };
        self.reported = self.reported.max(share);
        self.ledger.progress(self.reported)
    }
}

impl<T: Pixel, S: Search<T>> Slot<T, S> {
    fn propose(&mut self, image: &[T], max_queries: usize) {
        let ends = self.n_queries == max_queries || self.search.ran_out();
        self.wish = if ends { None } else { self.search.propose(image, &mut self.point) };
    }

    fn goal(&self) -> Option<Goal> {
        match self.wish? {
            Wish::Gradient(goal) => Some(goal),
            Wish::Logits => None,
        }
    }
}
