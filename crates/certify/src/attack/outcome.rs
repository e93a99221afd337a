//! What an attack is asked and what it answers.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::step::{distance_up, is_in_ball};
use super::target::AttackTarget;
use crate::error::{Error, Result};
use crate::margin::percent;
use crate::tensor::{Pixel, batch_size};

/// Where an attack starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackStart {
    /// At the image itself.
    Zero,
    /// Uniform in [-ε, ε] for every pixel, then projected to the ball and to [0, 1].
    Random,
}

/// Whether samples that are broken leave the batch.
///
/// The same samples are broken either way; what differs is the iterate reported for them (the first
/// that breaks, or the nearest of all that break) and the time it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopping {
    /// Every sample takes all steps of all restarts.
    Never,
    /// A broken sample takes no further step.
    WhenBroken,
}

/// A target, and what takes the place of random choices.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) target: AttackTarget<'a>,
    /// Images to start from; adversarial ones for the decision attacks.
    pub(super) starts: Option<&'a Tensor>,
    /// Random numbers in place of streams.
    pub(super) draws: Option<&'a [Vec<f64>]>,
    /// The numbers of the samples' random streams, where they are not their places.
    pub(super) ids: Option<&'a [usize]>,
}

impl<'a> Query<'a> {
    pub(super) const fn new(target: AttackTarget<'a>) -> Self {
        Self { target, starts: None, draws: None, ids: None }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.target.check()?;
        let Some(starts) = self.starts else { return Ok(()) };
        let images = self.target.images.dims();
        if starts.dims() != images {
            let (what, got) = ("batch of starting images", starts.dims().to_vec());
            return Err(Error::ShapeMismatch { what, expected: format!("{images:?}"), got });
        }
        AttackTarget { images: starts, ..self.target }.check()
    }
}

/// How far an attack has come; reported after every step of every batch of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttackProgress {
    /// Name of the attack.
    pub attack: &'static str,
    /// Share of the work done, in [0, 1]; samples dropped early count as done.
    pub fraction: f64,
    /// Samples broken so far.
    pub n_broken: usize,
    /// Samples in all.
    pub n_samples: usize,
}

/// What an attack achieved; every vector has one entry for each sample.
#[derive(Debug, Clone)]
pub struct AttackOutcome {
    /// The nearest adversarial images that were found, of the images' shape; the image itself where there is none.
    pub adversarial: Tensor,
    /// What the classifier takes them for.
    pub predictions: Vec<usize>,
    /// Whether the sample was broken.
    pub broken: Vec<bool>,
    /// Euclidean norm of the perturbation, rounded up; +∞ where no adversarial image was found.
    pub distances: Vec<f64>,
    /// What each part of [`AutoAttack`](crate::AutoAttack) did, in order; the other attacks have none.
    pub parts: Vec<PartReport>,
    /// Reasons to doubt the figures, which AutoAttack looks for.
    pub flags: Vec<AutoAttackFlag>,
}

/// What one attack added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartReport {
    /// The attack's name.
    pub attack: String,
    /// Samples that it attacked.
    pub n_attacked: usize,
    /// Samples that it broke and no attack before it.
    pub n_broken: usize,
}

/// A reason to doubt the figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoAttackFlag {
    /// The same images have other logits in a second call: attacks on a random function need averages.
    RandomisedOutput {
        /// The largest difference of a logit.
        largest_difference: f64,
    },
    /// Every output is in [0, 1] and they sum to 1: probabilities in place of logits, whose gradients vanish.
    Probabilities,
    /// The gradient at the start is zero.
    ZeroGradients {
        /// For how many samples.
        samples: usize,
    },
    /// Square broke samples that attacks by gradients had left, more than 0.2 % of all.
    SquareIsBetter {
        /// How many samples.
        samples: usize,
    },
}

impl std::fmt::Display for AutoAttackFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RandomisedOutput { largest_difference } => write!(
                f,
                "the logits of the same images differ by up to {largest_difference:.1e} from call to call; \
                 attack a deterministic form of the network"
            ),
            Self::Probabilities => write!(
                f,
                "the outputs are probabilities, whose gradients vanish; attack the logits"
            ),
            Self::ZeroGradients { samples } => write!(
                f,
                "the gradient at the start is zero for {samples} images; the network may hide its gradients"
            ),
            Self::SquareIsBetter { samples } => write!(
                f,
                "Square, without gradients, broke {samples} images that attacks by gradients had left; the \
                 network may hide its gradients"
            ),
        }
    }
}

impl AttackOutcome {
    /// The outcome without what is no point of the ball or of [0, 1]: it breaks nothing, whoever wrote the attack.
    pub(crate) fn judged(mut self, images: &Tensor, eps: f64) -> Result<Self> {
        match images.dtype() {
            DType::F32 => self.judge::<f32>(images, eps)?,
            _ => self.judge::<f64>(images, eps)?,
        }
        Ok(self)
    }

    fn judge<T: Pixel>(&mut self, images: &Tensor, eps: f64) -> Result<()> {
        let (n, n_values) = batch_size(images)?;
        let counts = [self.broken.len(), self.predictions.len(), self.distances.len()];
        let what = "entries of an attack's outcome";
        if let Some(&got) = counts.iter().find(|&&count| count != n) {
            return Err(Error::CountMismatch { what, expected: n, got });
        }
        if self.adversarial.dims() != images.dims() {
            let (expected, got) =
                (format!("{:?}", images.dims()), self.adversarial.dims().to_vec());
            return Err(Error::ShapeMismatch {
                what: "batch of adversarial images",
                expected,
                got,
            });
        }
        let images: Vec<T> = images.flatten_all()?.to_vec1()?;
        let adversarial: Vec<T> = self.adversarial.flatten_all()?.to_vec1()?;
        for i in 0..n {
            if !self.broken[i] {
                continue;
            }
            let row = i * n_values..(i + 1) * n_values;
            let (point, image) = (&adversarial[row.clone()], &images[row]);
            self.broken[i] = is_in_ball(point, image, eps);
            self.distances[i] =
                if self.broken[i] { distance_up(point, image) } else { f64::INFINITY };
        }
        Ok(())
    }

    /// The share of samples that were not broken, in percent.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        percent(self.broken.iter().filter(|&&broken| !broken).count(), self.broken.len())
    }
}
