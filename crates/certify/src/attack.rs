//! Attacks in the L2 norm: perturbations that try to change the class of an image.
//!
//! Definition of the gradient attacks. From a start x⁰ in the ball of radius ε about the image x, repeat
//!
//! ```text
//! d ← d + step · g / max(‖g‖₂, 1e-6),     g = ∂ loss / ∂x at x + d
//! d ← d · ε / max(‖d‖₂, ε)                 (into the ball)
//! d ← clamp(x + d, 0, 1) - x               (into the range of pixels)
//! ```
//!
//! sample by sample, for a [`Loss`]. [`Fgsm`] is one step of length ε from x itself, [`Pgd`] many, from several starts.
//!
//! [`Apgd`] chooses its steps itself, [`Fab`] looks for the nearest adversarial image, [`Square`] searches at random without
//! gradients, and [`AutoAttack`] is all of these in turn: the figure to report beside a certified accuracy.
//!
//! The decision attacks, [`Boundary`] and [`Pointwise`], ask only for the class: they start from an image of another
//! class and walk towards x, wherever that leads; ε decides what counts in the end.
//!
//! A sample is *broken* when the classifier takes the image itself or one of the iterates, the start included, for anything but
//! its label (logits that tie or are NaN count as broken), and that iterate is a point of the ball and of [0, 1]. Of several the
//! nearest is reported. What has left the ball, or is no number, breaks nothing.
//!
//! Shapes: images b x …, any classifier. Iterates live on the host; only forward and gradient run on the
//! classifier's device.
//!
//! Guarantee: results depend on the images, the settings and the seed alone. Every sample has its own random
//! stream, so that neither the batch size nor what happens to other samples changes its start; beyond that,
//! batches matter only as far as the classifier's rounding depends on the batch. Distances are rounded up.
//!
//! Cost: gradient attacks, one forward and one input gradient for each step and sample that is still in play;
//! decision attacks, one forward for each query. Besides, a constant number of passes over the pixels.
//!
//! Errors: [`Error::InvalidSetting`](crate::Error) for settings outside their domain; label and shape errors;
//! [`Error::PixelRange`](crate::Error) for pixels outside [0, 1], NaN included;
//! [`Error::StartNotAdversarial`](crate::Error) for a given start of the sample's own class.
//!
//! [`Error::TooFewClasses`](crate::Error) for a classifier of one class.
//!
//! Source: Li et al. 2019, section 5; Carlini and Wagner 2017 for the loss; Madry et al. 2018; Goodfellow et al. 2015;
//! Brendel et al. 2018 and Schott et al. 2019 for the decision attacks; Croce and Hein 2020 and Andriushchenko et al. 2020
//! for AutoAttack.

mod apgd;
mod auto;
mod boundary;
mod draws;
mod fab;
mod fgsm;
mod ledger;
mod noise;
mod objective;
mod outcome;
mod pgd;
mod pointwise;
mod rounds;
mod setup;
mod square;
mod step;
mod subset;
mod target;

pub use apgd::{Apgd, ApgdLoss};
pub use auto::{AutoAttack, AutoAttackPart};
pub use boundary::Boundary;
pub use fab::Fab;
pub use fgsm::Fgsm;
pub use objective::Loss;
pub use outcome::{
    AttackOutcome, AttackProgress, AttackStart, AutoAttackFlag, PartReport, Stopping,
};
pub use pgd::Pgd;
pub use pointwise::Pointwise;
pub use rounds::Trace;
pub use square::Square;
pub use target::AttackTarget;

use candle_core::Tensor;
use outcome::Query;
use rounds::Rounds;

use crate::error::Result;

/// An attack with its settings.
pub trait Attack {
    /// Its name in reports: `fgsm`, `pgd`, `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t`, `square`, `auto`, `boundary`, `pointwise`.
    fn name(&self) -> &'static str;

    /// The radius of the ball in which it wants to break samples.
    fn eps(&self) -> f64;

    /// Attacks every image.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`](crate::Error::InvalidSetting) for settings outside their domain; label and shape errors;
    /// [`Error::PixelRange`](crate::Error::PixelRange) for pixels
    /// outside [0, 1], NaN included; those of the classifier.
    fn run(
        &self,
        target: AttackTarget<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome>;

    /// Attacks the samples named, by their places in the list; the others come back as they were: not broken, at distance +∞.
    ///
    /// A certified sample can only withstand, so that the accuracy needs the others alone.
    ///
    /// # Errors
    /// Those of [`run`](Self::run); [`Error::InvalidSetting`](crate::Error::InvalidSetting) for a place that does not exist.
    fn run_on(
        &self,
        samples: &[usize],
        target: AttackTarget<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        target.check()?;
        subset::run_on(samples, Query::new(target), &mut |subset| {
            self.run(subset.target(target.classifier), progress)
        })
    }
}

/// An attack whose run can be replayed and followed.
pub trait TracedAttack: Attack {
    /// As [`Attack::run`], with starts and random numbers handed in, and with a trace of every search: one for each round
    /// of each sample that was in play, sample by sample.
    ///
    /// # Errors
    /// Those of [`Attack::run`]; shape and value errors of the starts; [`Error::TooFewDraws`](crate::Error::TooFewDraws);
    /// for boundary and pointwise [`Error::StartNotAdversarial`](crate::Error) for a start of the sample's own class.
    fn run_traced(
        &self,
        target: AttackTarget<'_>,
        replay: Replay<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<(AttackOutcome, Vec<Trace>)>;
}

/// What takes the place of random choices.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replay<'a> {
    /// Where each sample starts, in every round; pixels in [0, 1]. Images of another class for boundary and pointwise.
    pub starts: Option<&'a Tensor>,
    /// Uniform random numbers in [0, 1) for each sample, the same in every round.
    pub draws: Option<&'a [Vec<f64>]>,
}

/// What sets one attack of this crate apart from the others; the frame around it is one for all.
trait Strategy {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The radius of the ball.
    fn eps(&self) -> f64;

    /// Checks the settings.
    fn check(&self) -> Result<()>;

    /// Attacks every image of the query.
    fn attack(
        &self,
        query: Query<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome>;
}

impl<W: Strategy> Attack for W {
    fn name(&self) -> &'static str {
        Strategy::name(self)
    }

    fn eps(&self) -> f64 {
        Strategy::eps(self)
    }

    fn run(
        &self,
        target: AttackTarget<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        self.check()?;
        target.check()?;
        self.attack(Query::new(target), progress)
    }

    fn run_on(
        &self,
        samples: &[usize],
        target: AttackTarget<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        self.check()?;
        target.check()?;
        // the samples keep their random streams
        subset::run_on(samples, Query::new(target), &mut |subset| {
            self.attack(subset.query(target.classifier), progress)
        })
    }
}

impl<A: Rounds> TracedAttack for A {
    fn run_traced(
        &self,
        target: AttackTarget<'_>,
        replay: Replay<'_>,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<(AttackOutcome, Vec<Trace>)> {
        self.check()?;
        let Replay { starts, draws } = replay;
        let query = Query { starts, draws, ..Query::new(target) };
        query.check()?;
        let mut traces = Vec::new();
        let outcome = rounds::run(self, query, progress, &mut |sample, round, search| {
            traces.push(Trace { sample, round, ..search.trace() });
        })?;
        traces.sort_by_key(|trace| (trace.sample, trace.round));
        Ok((outcome, traces))
    }
}
