//! The loop shared by the attacks that see only decisions: one search for each sample, many samples in one query.
//!
//! A [`Search`] proposes an image and is told whether it is adversarial, again and again. The loop keeps up to
//! `batch_size` searches going, hands their proposals to the classifier in one batch, and keeps the nearest
//! adversarial image that any query of a sample turned up. A search draws from its own random stream, so that it asks
//! the same questions whatever else is in its batch.

use std::collections::VecDeque;

use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::objective::best_rival;
use super::step::{distance_up, retain_rows};
use super::{AttackOutcome, AttackProgress, Query, Stopping};
use crate::classifier::{Classifier, is_correct, logit_rows, predicted_class};
use crate::error::{Error, Result};
use crate::evaluation::batched_logits;
use crate::tensor::{Pixel, batch_size};

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
    classifier: &'a dyn Classifier,
    shape: Vec<usize>,
    n_values: usize,
    labels: &'a [usize],
    images: Vec<T>,
    starts: Option<Vec<T>>,
    /// What the classifier takes the images themselves for.
    classes: Vec<usize>,
    correct: Vec<bool>,
    found: Vec<Option<Found<T>>>,
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

/// The nearest adversarial image of a sample.
#[derive(Debug, Clone)]
struct Found<T> {
    image: Vec<T>,
    class: usize,
    distance: f64,
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
        let Query { classifier, images, labels, starts } = query;
        let limits = attack.limits();
        let (n, n_values) = batch_size(images)?;
        let rows = logit_rows(&batched_logits(classifier, images, limits.batch_size)?)?;
        let start = if starts.is_some() { Start::Given } else { Start::Noise };
        let correct: Vec<bool> = rows.iter().zip(labels).map(|(y, &t)| is_correct(y, t)).collect();
        let waiting: VecDeque<_> = (0..n).filter(|&i| correct[i]).map(|i| (i, start)).collect();
        Ok(Self {
            attack,
            limits,
            classifier,
            shape: images.dims().to_vec(),
            n_values,
            labels,
            images: images.flatten_all()?.to_vec1()?,
            starts: starts.map(|starts| starts.flatten_all()?.to_vec1()).transpose()?,
            classes: rows.iter().map(|row| predicted_class(row)).collect(),
            correct,
            found: vec![None; n],
            n_ended: n - waiting.len(),
            waiting,
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
        self.outcome()
    }

    fn row<'s>(&self, values: &'s [T], i: usize) -> &'s [T] {
        &values[i * self.n_values..(i + 1) * self.n_values]
    }

    fn slot(&self, sample: usize, start: Start) -> Slot<A::Search<T>> {
        let n_channels = if self.shape.len() == 4 { self.shape[1] } else { 1 };
        let image = match start {
            Start::Noise => None,
            Start::Given => self.starts.as_ref().map(|starts| self.row(starts, sample)),
            Start::Neighbour(other) => Some(self.row(&self.images, other)),
        };
        let original = self.row(&self.images, sample);
        let search = self.attack.search(Subject { original, start: image, n_channels });
        let mut rng = ChaCha8Rng::seed_from_u64(self.limits.seed);
        rng.set_stream(sample as u64);
        Slot { sample, start, search, rng, n_queries: 0, asks: true }
    }

    /// The images of all searches that go on, in order; the others are marked.
    fn propose(&self, slots: &mut [Slot<A::Search<T>>]) -> Vec<T> {
        let (n_values, max_queries) = (self.n_values, self.limits.max_queries);
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
            let label = self.labels[sample];
            let neighbour = match (&self.found[sample], start) {
                (None, Start::Given) => return Err(Error::StartNotAdversarial { sample, label }),
                // noise is often all one class, which may be the label: start from an image instead
                (None, Start::Noise) => self.neighbour(sample),
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
        let distance =
            |&i: &usize| distance_up(self.row(&self.images, i), self.row(&self.images, sample));
        let others = (0..self.labels.len()).filter(|&i| self.classes[i] != self.labels[sample]);
        others.min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// One query of the classifier for all searches.
    fn ask(&mut self, slots: &mut Vec<Slot<A::Search<T>>>, proposals: &[T]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut shape = self.shape.clone();
        shape[0] = slots.len();
        let batch = Tensor::from_slice(proposals, shape, self.classifier.device())?;
        let rows = logit_rows(&self.classifier.logits(&batch)?)?;
        let images = proposals.chunks_exact(self.n_values.max(1));
        for ((slot, row), image) in slots.iter_mut().zip(&rows).zip(images) {
            let adversarial = !is_correct(row, self.labels[slot.sample]);
            slot.n_queries += 1;
            slot.search.answer(adversarial);
            if adversarial {
                self.note(slot.sample, image, best_rival(row, self.labels[slot.sample]));
            }
        }
        if self.limits.stopping == Stopping::WhenBroken {
            let before = slots.len();
            slots.retain(|slot| !self.is_broken(slot.sample));
            self.n_ended += before - slots.len();
        }
        Ok(())
    }

    /// Keeps an adversarial image if it is the nearest so far.
    fn note(&mut self, sample: usize, image: &[T], class: Option<usize>) {
        let distance = distance_up(image, self.row(&self.images, sample));
        if self.found[sample].as_ref().is_none_or(|found| distance < found.distance) {
            let class = class.unwrap_or(self.labels[sample]);
            self.found[sample] = Some(Found { image: image.to_vec(), class, distance });
        }
    }

    fn is_broken(&self, sample: usize) -> bool {
        let near = |found: &Found<T>| found.distance <= self.limits.eps;
        !self.correct[sample] || self.found[sample].as_ref().is_some_and(near)
    }

    fn progress(&self, slots: &[Slot<A::Search<T>>]) -> AttackProgress {
        let n_samples = self.labels.len();
        let under_way: f64 = slots.iter().map(|slot| slot.search.progress()).sum();
        let fraction = (self.n_ended as f64 + under_way) / n_samples.max(1) as f64;
        let n_broken = (0..n_samples).filter(|&i| self.is_broken(i)).count();
        let fraction = if n_samples == 0 { 1.0 } else { fraction.min(1.0) };
        AttackProgress { attack: self.limits.name, fraction, n_broken, n_samples }
    }

    fn outcome(self) -> Result<AttackOutcome> {
        let n = self.labels.len();
        let broken = (0..n).map(|i| self.is_broken(i)).collect();
        let (mut distances, mut predictions) = (vec![f64::INFINITY; n], self.classes);
        let mut adversarial = self.images;
        for (i, found) in self.found.into_iter().enumerate() {
            if let Some(Found { image, class, distance }) = found {
                adversarial[i * self.n_values..(i + 1) * self.n_values].copy_from_slice(&image);
                (distances[i], predictions[i]) = (distance, class);
            } else if !self.correct[i] {
                distances[i] = 0.0;
            }
        }
        let adversarial = Tensor::from_vec(adversarial, self.shape, self.classifier.device())?;
        Ok(AttackOutcome { adversarial, predictions, broken, distances })
    }
}
