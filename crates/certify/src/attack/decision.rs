//! The loop shared by the attacks that see only decisions: one search for each sample, many samples in one query.
//!
//! A [`Search`] proposes an image and is told whether it is adversarial, again and again. The loop keeps up to
//! `batch_size` searches going, hands their proposals to the classifier in one batch, and keeps the nearest
//! adversarial image that any query of a sample turned up. A search draws from its own random stream, so that it asks
//! the same questions whatever else is in its batch.

use std::collections::VecDeque;

use candle_core::DType;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::ledger::Ledger;
use super::outcome::{AttackOutcome, AttackProgress, Query, Stopping};
use super::step::{distance_up, retain_rows};
use crate::classifier::logit_rows;
use crate::error::{Error, Result};
use crate::tensor::Pixel;

/// What such attacks have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) name: &'static str,
    pub(super) eps: f64,
    pub(super) seed: u64,
    pub(super) stopping: Stopping,
    pub(super) max_queries: usize,
    pub(super) batch_size: usize,
}

/// What a search is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a, T> {
    pub(super) original: &'a [T],
    /// An image of another class to start from; without it the search draws noise.
    pub(super) start: Option<&'a [T]>,
    /// Values that share a place: the channels of an image c x h x w.
    pub(super) n_channels: usize,
}

/// The attack on one sample.
pub(super) trait Search<T>: Send {
    /// Writes the next image to ask for; false when the search has ended.
    fn propose(&mut self, rng: &mut ChaCha8Rng, image: &mut [T]) -> bool;

    /// Whether the image proposed last is adversarial.
    fn answer(&mut self, adversarial: bool);

    /// Share of the search that is done, in [0, 1].
    fn progress(&self) -> f64;
}

/// An attack made of searches.
pub(super) trait DecisionAttack {
    type Search<T: Pixel>: Search<T>;

    fn limits(&self) -> Limits;

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Self::Search<T>;
}

/// Attacks every image of the query, from its starts where it has some.
pub(super) fn run<A: DecisionAttack>(
    attack: &A,
    query: Query<'_>,
    progress: &mut dyn FnMut(AttackProgress),
) -> Result<AttackOutcome> {
    match query.images.dtype() {
        DType::F32 => Run::<f32, A>::new(attack, query)?.all(progress),
        _ => Run::<f64, A>::new(attack, query)?.all(progress),
    }
}

struct Run<'a, T, A> {
    attack: &'a A,
    limits: Limits,
    ledger: Ledger<'a, T>,
    n_channels: usize,
    starts: Option<Vec<T>>,
    waiting: VecDeque<(usize, Start)>,
    n_ended: usize,
}

/// Where a search starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Noise,
    /// At the image that the caller gave.
    Given,
    /// At another image of the list.
    Neighbour(usize),
}

struct Slot<S> {
    sample: usize,
    start: Start,
    search: S,
    rng: ChaCha8Rng,
    n_queries: usize,
    /// Whether the search goes on.
    asks: bool,
}

impl<'a, T: Pixel, A: DecisionAttack> Run<'a, T, A> {
    fn new(attack: &'a A, query: Query<'a>) -> Result<Self> {
        let limits = attack.limits();
        let ledger = Ledger::new(limits.name, query, limits.eps, limits.batch_size)?;
        let start = if query.starts.is_some() { Start::Given } else { Start::Noise };
        let in_play = (0..ledger.len()).filter(|&i| ledger.is_correct(i));
        let waiting: VecDeque<_> = in_play.map(|i| (i, start)).collect();
        let dims = query.images.dims();
        Ok(Self {
            attack,
            limits,
            n_channels: if dims.len() == 4 { dims[1] } else { 1 },
            starts: query.starts.map(|starts| starts.flatten_all()?.to_vec1()).transpose()?,
            n_ended: ledger.len() - waiting.len(),
            waiting,
            ledger,
        })
    }

    fn all(mut self, progress: &mut dyn FnMut(AttackProgress)) -> Result<AttackOutcome> {
        let mut slots = Vec::new();
        loop {
            while slots.len() < self.limits.batch_size {
                let Some((sample, start)) = self.waiting.pop_front() else { break };
                slots.push(self.slot(sample, start));
            }
            if slots.is_empty() {
                break;
            }
            let proposals = self.propose(&mut slots);
            slots = self.retire(slots)?;
            self.ask(&mut slots, &proposals)?;
            progress(self.progress(&slots));
        }
        progress(self.progress(&[]));
        self.ledger.outcome()
    }

    fn slot(&self, sample: usize, start: Start) -> Slot<A::Search<T>> {
        let (n_channels, n_values) = (self.n_channels, self.ledger.n_values);
        let row = sample * n_values..(sample + 1) * n_values;
        let image = match start {
            Start::Noise => None,
            Start::Given => self.starts.as_ref().map(|starts| &starts[row]),
            Start::Neighbour(other) => Some(self.ledger.image(other)),
        };
        let original = self.ledger.image(sample);
        let search = self.attack.search(Subject { original, start: image, n_channels });
        let mut rng = ChaCha8Rng::seed_from_u64(self.limits.seed);
        rng.set_stream(self.ledger.id(sample) as u64);
        Slot { sample, start, search, rng, n_queries: 0, asks: true }
    }

    /// The images of all searches that go on, in order; the others are marked.
    fn propose(&self, slots: &mut [Slot<A::Search<T>>]) -> Vec<T> {
        let (n_values, max_queries) = (self.ledger.n_values, self.limits.max_queries);
        let mut proposals = vec![T::zero(); slots.len() * n_values];
        let rows = proposals.par_chunks_exact_mut(n_values.max(1)).zip(slots.par_iter_mut());
        rows.for_each(|(image, slot)| {
            slot.asks = slot.n_queries < max_queries && slot.search.propose(&mut slot.rng, image);
        });
        let keep: Vec<bool> = slots.iter().map(|slot| slot.asks).collect();
        retain_rows(&mut proposals, n_values, &keep);
        proposals
    }

    /// Ends the searches that ask no more.
    fn retire(&mut self, slots: Vec<Slot<A::Search<T>>>) -> Result<Vec<Slot<A::Search<T>>>> {
        let (kept, ended): (Vec<_>, Vec<_>) = slots.into_iter().partition(|slot| slot.asks);
        for Slot { sample, start, .. } in ended {
            let label = self.ledger.labels[sample];
            let neighbour = match (self.ledger.has_found(sample), start) {
                (false, Start::Given) => return Err(Error::StartNotAdversarial { sample, label }),
                // noise is often all one class, which may be the label: start from an image instead
                (false, Start::Noise) => self.neighbour(sample),
                _ => None,
            };
            match neighbour {
                Some(other) => self.waiting.push_front((sample, Start::Neighbour(other))),
                None => self.n_ended += 1,
            }
        }
        Ok(kept)
    }

    /// The nearest image of the list that the classifier takes for another class than `sample`'s label.
    fn neighbour(&self, sample: usize) -> Option<usize> {
        let ledger = &self.ledger;
        let distance = |&i: &usize| distance_up(ledger.image(i), ledger.image(sample));
        let others = (0..ledger.len()).filter(|&i| ledger.class(i) != ledger.labels[sample]);
        others.min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// One query of the classifier for all searches.
    fn ask(&mut self, slots: &mut Vec<Slot<A::Search<T>>>, proposals: &[T]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let batch = self.ledger.tensor(proposals)?;
        let rows = logit_rows(&self.ledger.classifier.logits(&batch)?)?;
        let images = proposals.chunks_exact(self.ledger.n_values.max(1));
        for ((slot, row), image) in slots.iter_mut().zip(&rows).zip(images) {
            slot.n_queries += 1;
            slot.search.answer(self.ledger.note(slot.sample, image, row));
        }
        if self.limits.stopping == Stopping::WhenBroken {
            let before = slots.len();
            slots.retain(|slot| !self.ledger.is_broken(slot.sample));
            self.n_ended += before - slots.len();
        }
        Ok(())
    }

    fn progress(&self, slots: &[Slot<A::Search<T>>]) -> AttackProgress {
        let under_way: f64 = slots.iter().map(|slot| slot.search.progress()).sum();
        self.ledger.progress(self.n_ended as f64 + under_way)
    }
}
