//! A way to train: what a device has to implement.

use std::fmt;

use candle_core::Tensor;

use super::batch::{Batch, ResidentImages, Sample};
use super::state::RunState;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::network::Network;
use crate::optim::Update;

/// Trains one network, whose variables hold the parameters between two calls, or after [`Stepper::settle`]; keeps the optimiser's
/// running means.
pub(crate) trait Stepper: fmt::Debug + Send + Sync {
    /// In a few words.
    fn name(&self) -> &'static str;

    /// Loss and gradients of a batch, and the update of the parameters and of the vectors that methods keep; returns the mean
    /// loss and the number of correct samples before the update. A step that fails changes nothing.
    ///
    /// # Errors
    /// As for [`Trainer::step`](super::Trainer::step), without the number of the step.
    fn step(
        &mut self,
        network: &Network,
        loss: &Loss,
        batch: &Batch,
        update: Update,
    ) -> Result<(f64, usize)>;

    /// The logits of images, and the gradient of `Σ d_logits · logits` in the images; the parameters are constants.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    fn input_gradient(
        &mut self,
        network: &Network,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)>;

    /// What a checkpoint stores beside the network.
    ///
    /// # Errors
    /// [`Error::Candle`] when the copy to the CPU fails.
    fn state(&self, network: &Network) -> Result<RunState>;

    /// Takes the images that all batches are cut from, so that steps can be given samples; whether it does.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied, or another one when they do not fit the network.
    fn hold(&mut self, _network: &Network, _images: &ResidentImages<'_>) -> Result<bool> {
        Ok(false)
    }

    /// One [`Stepper::step`] for each batch of samples of the images that it holds, each with its loss and update. Appends what
    /// `step` returns for each to `done`, also when a later one fails; those after it are not done.
    ///
    /// # Errors
    /// As for [`Stepper::step`]; [`Error::Zero`] when it holds no images.
    fn steps_on_samples(
        &mut self,
        _network: &Network,
        _batches: &[Vec<Sample>],
        _plan: &[(Loss, Update)],
        _done: &mut Vec<(f64, usize)>,
    ) -> Result<()> {
        Err(Error::Zero { what: "number of images on the device".into() })
    }

    /// Brings the network's variables up to date; they may be changed from then on.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Candle`] when they cannot be copied.
    fn settle(&self, _network: &Network) -> Result<()> {
        Ok(())
    }

    /// What [`RunState::levels`] is to be.
    fn levels(&self) -> Vec<u8> {
        Vec::new()
    }
}
