//! The layers as tensor operations: differentiable by candle, on every device.
//!
//! On the CPU the hot ones are custom operations that run the kernels of the engine and carry
//! their own adjoint; on a CUDA device in f32 so are cyclic convolutions, MaxMin, and the weights of BCOP, RKO, RK-L2NE, Björck and LLN;
//! everything else is written in candle's operations there, and the two are tested equal.
//! Use these to build a network of your own inside candle; [`PlainNetwork`] and
//! [`Network`](crate::Network) run the same functions without a graph.

mod cyclic_conv;
mod dense;
#[cfg(feature = "gan")]
mod generator;
mod padded_conv;
mod pixels;
pub mod portable;
mod weight;

pub use cyclic_conv::{cyclic_conv, cyclic_conv_adjoint};
pub use dense::dense;
#[cfg(feature = "gan")]
pub use generator::{BatchNormed, batch_norm, conv_transpose};
pub use padded_conv::padded_conv;
pub(crate) use pixels::add_bias;
pub use pixels::{cyclic_pad, pixel_shuffle, pixel_unshuffle};
pub use weight::weight;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::plain::{PlainLayer, PlainNetwork};

/// One layer as tensor operations.
///
/// # Errors
/// [`Error::Candle`] and the shape errors of the operation; [`Error::LayerOrder`] for a layer that goes back to
/// an earlier signal, which [`PlainNetwork::forward`] knows.
pub fn apply(layer: &PlainLayer, x: &Tensor) -> Result<Tensor> {
    match layer {
        PlainLayer::CyclicConv(conv) => {
            cyclic_conv(x, conv.weight(), conv.bias(), conv.downsample())
        }
        PlainLayer::Dense(layer) => dense(x, layer.weight(), layer.bias()),
        PlainLayer::Activation(activation) => activation.forward(x),
        PlainLayer::Flatten => Ok(x.flatten_from(1)?),
        PlainLayer::PaddedConv(conv) => padded_conv(x, conv),
        // 0 - slope·max(-x, 0) and x - 0 are exact but for the product
        PlainLayer::LeakyRelu { slope } => Ok((x.relu()? - (x.neg()?.relu()? * *slope)?)?),
        PlainLayer::Recall { .. } | PlainLayer::Add { .. } | PlainLayer::Concat { .. } => {
            Err(Error::LayerOrder {
                layer: "a layer that goes back".into(),
                previous: "a single signal".into(),
                reason: "it takes an earlier one as well",
            })
        }
    }
}

/// A whole network as tensor operations.
pub(crate) fn forward(network: &PlainNetwork, images: &Tensor) -> Result<Tensor> {
    if network.is_sequence() {
        return network.layers().iter().try_fold(images.clone(), |x, layer| apply(layer, &x));
    }
    let mut signals = vec![images.clone()];
    for layer in network.layers() {
        let current = &signals[signals.len() - 1];
        let signal = match layer {
            PlainLayer::Recall { from } => signals[*from].clone(),
            PlainLayer::Add { from } => (&signals[*from] + current)?,
            PlainLayer::Concat { from } => Tensor::cat(&[&signals[*from], current], 1)?,
            layer => apply(layer, current)?,
        };
        signals.push(signal);
    }
    Ok(signals.swap_remove(signals.len() - 1))
}
