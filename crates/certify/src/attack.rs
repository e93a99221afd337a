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
//! The decision attacks, [`Boundary`] and [`Pointwise`], ask only for the class: they start from an image of another
//! class and walk towards x, wherever that leads; ε decides what counts in the end.
//!
//! A sample is *broken* when the classifier takes one of the iterates inside the ball, the start included, for
//! anything but its label (ties and NaNs count as broken); the perturbed image reported for it is such an iterate.
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
//! Source: Li et al. 2019, section 5; Carlini and Wagner 2017 for the loss; Madry et al. 2018; Goodfellow et al. 2015;
//! Brendel et al. 2018 and Schott et al. 2019 for the decision attacks.

mod boundary;
mod decision;
mod fgsm;
mod noise;
mod objective;
mod pgd;
mod pointwise;
mod run;
mod setup;
mod step;

pub use boundary::Boundary;
pub use fgsm::Fgsm;
pub use objective::Loss;
pub use pgd::{Pgd, Start, Stopping};
pub use pointwise::Pointwise;

use candle_core::Tensor;

use crate::classifier::Classifier;
use crate::error::Result;
use crate::margin::percent;

/// An attack with its settings.
pub trait Attack {
    /// Its name in reports: `fgsm`, `pgd`, `boundary`, `pointwise`.
    fn name(&self) -> &'static str;

    /// The radius of the ball in which it wants to break samples.
    fn eps(&self) -> f64;

    /// Attacks every image (n x …, the classifier's dtype) with its label.
    ///
    /// # Errors
    /// See the [module documentation](self).
    fn run(
        &self,
        classifier: &dyn Classifier,
        images: &Tensor,
        labels: &[usize],
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome>;
}

/// How far an attack has come; reported after every step of every batch of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
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
pub struct Outcome {
    /// Perturbed images, of the images' shape: where broken, one that breaks; otherwise the last iterate of a
    /// gradient attack, and the nearest adversarial image of a decision attack (the image itself if there is none).
    pub adversarial: Tensor,
    /// What the classifier takes them for.
    pub predictions: Vec<usize>,
    /// Whether the sample was broken.
    pub broken: Vec<bool>,
    /// Euclidean norm of the perturbation, rounded up; +∞ where a decision attack found no adversarial image.
    pub distances: Vec<f64>,
}

impl Outcome {
    /// The share of samples that were not broken, in percent.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        percent(self.broken.iter().filter(|&&broken| !broken).count(), self.broken.len())
    }
}
