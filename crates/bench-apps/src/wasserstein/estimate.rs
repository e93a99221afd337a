//! What a frozen critic says about the distance of two [`Distribution`]s.
//!
//! Definition: `certify::wasserstein` on a part's samples, some hundred at a time: the mean difference less its rounding error, divided by
//! the rigorous bound of the critic's Lipschitz constant and rounded down.
//!
//! Guarantee: that of `certify::wasserstein`. For populations, whose samples are all there is, the value is at most the distance, and
//! the standard error is 0.

use anyhow::Result;
use certify::{Critic, DualEstimate};
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};

use super::distribution::{Distribution, Part};

/// Samples that go through the critic together.
const BATCH: usize = 128;
/// Confidence of the one-sided bound that is reported.
pub const CONFIDENCE: f64 = 0.99;

/// An estimate with its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Lower bound of the distance of the samples at hand, and in expectation of the distributions.
    pub value: f64,
    /// Standard error of the value, of two independent samples; 0 for populations.
    pub standard_error: f64,
    /// What is below the distance with a confidence of 99 %, one-sided.
    pub confident: f64,
    /// Mean difference of the critic, not divided by anything.
    pub difference: f64,
    /// Rigorous bound of the critic's Lipschitz constant.
    pub lipschitz: f64,
    /// Samples of each side.
    pub n_samples: [usize; 2],
}

/// Measures a critic on `n` samples of each side, or as many as there are.
pub fn estimate(
    network: &PlainNetwork,
    a: &dyn Distribution,
    b: &dyn Distribution,
    part: Part,
    n: usize,
) -> Result<Estimate> {
    let critic = Critic::new(network)?;
    let mut estimator = critic.estimator();
    for range in batches(a, part, n) {
        estimator.add_a(&a.held_out(part, range)?)?;
    }
    for range in batches(b, part, n) {
        estimator.add_b(&b.held_out(part, range)?)?;
    }
    let mut found = estimator.finish()?;
    if a.is_population() && b.is_population() && whole(a, part, n) && whole(b, part, n) {
        found.standard_error = 0.0;
    }
    Ok(Estimate::of(&found)?)
}

fn batches(
    of: &dyn Distribution,
    part: Part,
    n: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> {
    let n = of.n_held_out(part).map_or(n, |there| there.min(n));
    (0..n).step_by(BATCH).map(move |start| start..(start + BATCH).min(n))
}

fn whole(of: &dyn Distribution, part: Part, n: usize) -> bool {
    of.n_held_out(part).is_some_and(|there| there <= n)
}

impl Estimate {
    fn of(found: &DualEstimate) -> certify::Result<Self> {
        Ok(Self {
            value: found.value,
            standard_error: found.standard_error,
            confident: found.confidence_bound(CONFIDENCE)?,
            difference: found.mean_difference,
            lipschitz: found.lipschitz,
            n_samples: [found.n_a, found.n_b],
        })
    }
}
