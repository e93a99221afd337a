//! A way to train: what a device has to implement.

use std::fmt;

use candle_core::Tensor;

use super::batch::Batch;
use super::state::RunState;
use crate::error::Result;
use crate::loss::Loss;
use crate::network::Network;
use crate::optim::Update;

/// Trains one network, whose variables hold the parameters between two calls; keeps the optimiser's running means.
pub(crate) trait Stepper: fmt::Debug + Send + Sync {
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
    /// [`Error::Candle`](crate::Error::Candle) when the copy to the CPU fails.
    fn state(&self, network: &Network) -> Result<RunState>;
}
