//! The pointwise attack: pixel by pixel back to the image, as far as the class stays wrong.
//!
//! Definition. From an adversarial start: (1) reset single values to the image's, in random order, and begin a new
//! order after every reset that stays adversarial, until none does; (2) go through the values that still differ, in
//! random order, reset each if that stays adversarial, otherwise bisect ten times between its value and the image's;
//! repeat until a whole pass changes nothing.
//!
//! Source: Schott et al. 2019 (arXiv 1805.09190), as in foolbox 2, with salt-and-pepper noise as the start.

use candle_core::WithDType;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::noise::SaltAndPepper;
use super::outcome::Stopping;
use super::rounds::{Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::check_at_least_one;
use crate::error::Result;
use crate::tensor::{Pixel, widened};

/// The pointwise attack; a minimal-distance attack, measured in L2 here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pointwise {
    /// ε: a sample counts as broken when an adversarial image within this distance was found; positive.
    pub eps: f64,
    /// Decides all draws.
    pub seed: u64,
    /// Whether to go on, to smaller distances, with samples that are broken.
    pub stopping: Stopping,
    /// Queries for one sample, at least 1.
    pub max_queries: usize,
    /// Samples whose queries are answered together, at least 1.
    pub batch_size: usize,
}

impl Pointwise {
    /// Foolbox's settings, which have none but the start.
    #[must_use]
    pub const fn new(eps: f64, seed: u64) -> Self {
        let stopping = Stopping::WhenBroken;
        Self { eps, seed, stopping, max_queries: 1_000_000, batch_size: 200 }
    }
}

impl Rounds for Pointwise {
    type Search<T: Pixel> = Resets;

    const FROM_ADVERSARIAL: bool = true;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, batch_size, .. } = *self;
        Plan { name: "pointwise", eps, seed, stopping, restarts: 1, batch_size }
    }

    fn max_queries(&self) -> usize {
        self.max_queries
    }

    fn check_own(&self) -> Result<()> {
        check_at_least_one("max_queries", self.max_queries)
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Resets {
        let Subject { image, shape, start, draws, .. } = subject;
        // values that share a place: the channels of an image c x h x w
        let n_channels = if let [channels, _, _] = *shape { channels } else { 1 };
        Resets {
            original: widened(image),
            x: widened(start.unwrap_or(image)),
            phase: match start {
                Some(_) => Phase::Given,
                None => Phase::Noise(SaltAndPepper::new(image.len(), n_channels)),
            },
            order: Vec::new(),
            place: 0,
            improved: false,
            trace: Trace::default(),
            draws,
        }
    }
}

/// Steps of one bisection.
const BISECTIONS: usize = 10;

/// The resets of one sample.
#[derive(Debug)]
pub(super) struct Resets {
    original: Vec<f64>,
    /// The adversarial image, but for what `phase` is trying.
    x: Vec<f64>,
    phase: Phase,
    /// The values that differ from the image, in the order in which they are tried, and the next one.
    order: Vec<usize>,
    place: usize,
    /// Whether the present pass of (2) has changed anything.
    improved: bool,
    trace: Trace,
    draws: Draws,
}

#[derive(Debug)]
enum Phase {
    Noise(SaltAndPepper),
    Given,
    /// (1), with the value that is reset at the moment.
    Reset {
        old: f64,
    },
    /// (2), likewise.
    Refine {
        old: f64,
    },
    Bisect {
        old: f64,
        adversarial: f64,
        harmless: f64,
        n_done: usize,
    },
    Ended,
}

impl<T: Pixel> Search<T> for Resets {
    fn propose(&mut self, _: &[T], point: &mut [T]) -> Option<Wish> {
        if let Phase::Noise(noise) = &mut self.phase
            && !noise.propose(&mut self.draws, &self.original, &mut self.x)
        {
            self.phase = match noise.take_best() {
                Some(best) => {
                    self.x = best;
                    Phase::Reset { old: 0.0 }
                }
                None => Phase::Ended,
            };
            self.order.clear();
        }
        let asks = match self.phase {
            Phase::Noise(_) | Phase::Given => true,
            Phase::Reset { .. } => {
                // an empty order marks a reset that succeeded
                if self.order.is_empty() {
                    self.shuffle();
                }
                self.try_next() || {
                    self.phase = Phase::Refine { old: 0.0 };
                    self.improved = false;
                    self.shuffle();
                    self.try_next()
                }
            }
            Phase::Refine { .. } => {
                self.try_next()
                    || (self.improved && {
                        self.improved = false;
                        self.shuffle();
                        self.try_next()
                    })
            }
            Phase::Bisect { adversarial, harmless, .. } => {
                let middle = T::of((adversarial + harmless) / 2.0);
                self.x[self.order[self.place - 1]] = WithDType::to_f64(middle);
                true
            }
            Phase::Ended => false,
        };
        point.iter_mut().zip(&self.x).for_each(|(v, &x)| *v = T::of(x));
        asks.then_some(Wish::Logits)
    }

    fn answer(&mut self, _: &[T], reply: Reply<'_, T>) {
        let adversarial = reply.adversarial;
        let idx = self.place.checked_sub(1).and_then(|place| self.order.get(place).copied());
        match (&mut self.phase, idx) {
            (Phase::Noise(noise), _) => noise.answer(adversarial, &self.original),
            (Phase::Given, _) if adversarial => self.phase = Phase::Reset { old: 0.0 },
            (Phase::Given, _) => self.phase = Phase::Ended,
            (Phase::Reset { .. }, _) if adversarial => self.order.clear(),
            (Phase::Reset { old }, Some(idx)) => self.x[idx] = *old,
            (Phase::Refine { .. }, _) if adversarial => self.improved = true,
            (Phase::Refine { old }, Some(idx)) => {
                let (old, harmless) = (*old, self.original[idx]);
                self.phase = Phase::Bisect { old, adversarial: old, harmless, n_done: 0 };
            }
            (Phase::Bisect { .. }, Some(idx)) => self.bisect(idx, adversarial),
            _ => {}
        }
    }

    fn progress(&self) -> f64 {
        let share = self.place as f64 / self.order.len().max(1) as f64;
        match self.phase {
            Phase::Noise(_) | Phase::Given => 0.0,
            Phase::Reset { .. } => 0.25,
            Phase::Refine { .. } | Phase::Bisect { .. } => 0.5 + 0.25 * share,
            Phase::Ended => 1.0,
        }
    }
}

impl Ended for Resets {
    fn trace(&self) -> Trace {
        Trace { best: self.x.clone(), ..self.trace.clone() }
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}

impl Resets {
    /// A new random order of the values that differ.
    fn shuffle(&mut self) {
        let differs = |&i: &usize| self.x[i] != self.original[i];
        self.order = (0..self.x.len()).filter(differs).collect();
        self.trace.values.push(self.order.len() as f64);
        self.draws.shuffle(&mut self.order);
        self.place = 0;
    }

    /// Resets the next value; false at the end of the order.
    fn try_next(&mut self) -> bool {
        let Some(&idx) = self.order.get(self.place) else { return false };
        self.place += 1;
        let value = std::mem::replace(&mut self.x[idx], self.original[idx]);
        if let Phase::Reset { old } | Phase::Refine { old } = &mut self.phase {
            *old = value;
        }
        true
    }

    fn bisect(&mut self, idx: usize, is_adversarial: bool) {
        let Phase::Bisect { old, adversarial, harmless, n_done } = &mut self.phase else { return };
        let middle = self.x[idx];
        *(if is_adversarial { &mut *adversarial } else { harmless }) = middle;
        *n_done += 1;
        if *n_done == BISECTIONS {
            self.x[idx] = *adversarial;
            self.improved |= *adversarial != *old;
            self.phase = Phase::Refine { old: 0.0 };
        }
    }
}
