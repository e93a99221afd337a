//! What a distance is measured between: distributions that give samples.
//!
//! Definition. A distribution gives samples c x h x w in f32: as many as are asked for to train on, decided by a seed, and numbered
//! samples of two other parts, one to choose a learning rate on and one to report. A *population* consists of finitely many samples,
//! and every part is all of them.
//!
//! Guarantee: that of [`Critic`]. For two populations that are measured whole, the value is at most their distance, and the
//! standard error is 0.

use std::fmt::Debug;
use std::ops::Range;

use candle_core::Tensor;

use super::{Critic, DualEstimate};
use crate::error::Result;

/// Samples that go through the critic together.
const BATCH: usize = 128;

/// What samples are for, beside training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplePart {
    /// Choosing a learning rate.
    Select,
    /// The reported estimate.
    Report,
}

/// One of two distributions whose distance is bounded.
pub trait Distribution: Debug + Send + Sync {
    /// For people.
    fn name(&self) -> String;

    /// Channels, height and width of a sample.
    fn shape(&self) -> [usize; 3];

    /// `n` samples to train on, n x c x h x w in f32; equal seeds give equal samples.
    ///
    /// # Errors
    /// Those of tensors, and the distribution's own.
    fn draw(&self, n: usize, seed: u64) -> candle_core::Result<Tensor>;

    /// How many samples a part has; `None` for one without an end.
    fn n_held_out(&self, part: SamplePart) -> Option<usize>;

    /// Some of a part's samples, by their numbers; a number always names the same sample.
    ///
    /// # Errors
    /// As for [`Distribution::draw`], and for a number that the part does not have.
    fn held_out(&self, part: SamplePart, range: Range<usize>) -> candle_core::Result<Tensor>;

    /// Whether a program drew the samples in place of real images.
    fn is_synthetic(&self) -> bool {
        false
    }

    /// Whether the distribution consists of finitely many samples, all of which every part has.
    fn is_population(&self) -> bool {
        false
    }
}

impl Critic {
    /// The estimate from `n` samples of a part of each distribution, or from as many as there are.
    ///
    /// # Errors
    /// Those of the distributions, of [`Critic::evaluate`] and of [`DualEstimator::finish`](super::DualEstimator::finish).
    pub fn estimate_between(
        &self,
        a: &dyn Distribution,
        b: &dyn Distribution,
        part: SamplePart,
        n: usize,
    ) -> Result<DualEstimate> {
        let mut estimator = self.estimator();
        for range in batches(a, part, n) {
            estimator.add_a(&a.held_out(part, range)?)?;
        }
        for range in batches(b, part, n) {
            estimator.add_b(&b.held_out(part, range)?)?;
        }
        let mut found = estimator.finish()?;
        let whole = |of: &dyn Distribution| {
            of.is_population() && of.n_held_out(part).is_some_and(|there| there <= n)
        };
        if whole(a) && whole(b) {
            found.standard_error = 0.0;
        }
        Ok(found)
    }
}

fn batches(
    of: &dyn Distribution,
    part: SamplePart,
    n: usize,
) -> impl Iterator<Item = Range<usize>> {
    let n = of.n_held_out(part).map_or(n, |there| there.min(n));
    (0..n).step_by(BATCH).map(move |start| start..(start + BATCH).min(n))
}
