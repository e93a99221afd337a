//! Gradients of the images in the middle of a training run: what a generator learns from its critic.

use candle_core::{Tensor, Var};

use super::{State, Trainer};
use crate::element::Element;
use crate::engine::has_block_form;
use crate::engine::training::{TrainBuffers, logits_and_image_gradient};
use crate::error::{Error, Result};
use crate::network::{LayerKind, Network};

impl Trainer {
    /// The logits (b x n_logits) of a batch of images (b x c x h x w) in the network's present state, and the gradient of
    /// `Σ d_logits · logits` with respect to the images. The parameters are constants, and nothing of the run
    /// changes.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when a tensor does not fit; as
    /// for [`Network::forward`] when a parameter has no orthogonal weight.
    pub fn logits_and_input_gradient(
        &mut self,
        images: &Tensor,
        d_logits: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let batch = images.dims().first().copied().unwrap_or(0);
        self.check_images(images, batch)?;
        let expected = vec![batch, self.network.n_classes()];
        if d_logits.dims() != expected {
            let (what, got) = ("gradient of the logits".into(), d_logits.dims().to_vec());
            return Err(Error::ShapeMismatch { what, expected, got });
        }
        let steps = self.network.layers().iter().map(|layer| LayerKind::step(layer.kind));
        let on_engine = has_block_form(steps);
        let network = &self.network;
        match &mut self.state {
            State::F32(state) if on_engine => {
                by_engine(network, images, d_logits, &mut state.buffers)
            }
            State::F64(state) if on_engine => {
                by_engine(network, images, d_logits, &mut state.buffers)
            }
            State::F32(_) | State::F64(_) => by_graph(images, d_logits, |x| network.forward(x)),
            State::Portable(_) => by_graph(images, d_logits, |x| network.forward_constant(x)),
        }
    }
}

fn by_engine<T: Element>(
    network: &Network,
    images: &Tensor,
    d_logits: &Tensor,
    buffers: &mut TrainBuffers<T>,
) -> Result<(Tensor, Tensor)> {
    let (logits, gradient) = logits_and_image_gradient::<T>(network, images, d_logits, buffers)?;
    let logits = Tensor::from_vec(logits, d_logits.dims(), network.device())?;
    Ok((logits, Tensor::from_vec(gradient, images.dims(), network.device())?))
}

fn by_graph(
    images: &Tensor,
    d_logits: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let images = Var::from_tensor(images)?;
    let logits = forward(images.as_tensor())?;
    let mut gradients = (&logits * d_logits.detach())?.sum_all()?.backward()?;
    let gradient = gradients.remove(images.as_tensor());
    Ok((logits.detach(), gradient.map_or_else(|| images.zeros_like(), Ok)?))
}
