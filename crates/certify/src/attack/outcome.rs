//! What an attack is asked and what it answers.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::setup::check;
use super::step::{distance_up, is_in_ball};
use crate::classifier::Classifier;
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
/// that breaks, or the last one where that breaks too) and the time it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopping {
    /// Every sample takes all steps of all restarts.
    Never,
    /// A broken sample takes no further step.
    WhenBroken,
}

/// What is attacked.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) classifier: &'a dyn Classifier,
    pub(super) images: &'a Tensor,
    pub(super) labels: &'a [usize],
    /// Images to start from; adversarial ones for the decision attacks.
    pub(super) starts: Option<&'a Tensor>,
    /// Random numbers in place of streams.
    pub(super) draws: Option<&'a [Vec<f64>]>,
    /// The numbers of the samples' random streams, where they are not their places.
    pub(super) ids: Option<&'a [usize]>,
}

impl<'a> Query<'a> {
    pub(super) const fn new(
        classifier: &'a dyn Classifier,
        images: &'a Tensor,
        labels: &'a [usize],
    ) -> Self {
        Self { classifier, images, labels, starts: None, draws: None, ids: None }
    }

    pub(super) fn check(&self) -> Result<()> {
        check(self.classifier, self.images, self.labels)?;
        let Some(starts) = self.starts else { return Ok(()) };
        if starts.dims() != self.images.dims() {
            let (what, got) = ("batch of starting images", starts.dims().to_vec());
            let expected = format!("{:?}", self.images.dims());
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        check(self.classifier, starts, self.labels)?;
        Ok(())
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
    /// Perturbed images, of the images' shape: where broken, one that breaks; otherwise the last iterate of a
    /// FGSM and PGD, and the nearest adversarial image of the other attacks (the image itself if there is none).
    pub adversarial: Tensor,
    /// What the classifier takes them for.
    pub predictions: Vec<usize>,
    /// Whether the sample was broken.
    pub broken: Vec<bool>,
    /// Euclidean norm of the perturbation, rounded up; +∞ where an attack other than FGSM and PGD found no adversarial image.
    pub distances: Vec<f64>,
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
