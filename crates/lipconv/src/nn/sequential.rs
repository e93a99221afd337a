//! Layers one after another, and the network that they make.

use candle_core::{DType, Module, Tensor};

use super::materialize::Materialize;
use crate::error::{Error, Result};
use crate::plain::{PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};

/// Layers in series; a layer itself.
#[derive(Debug, Default)]
pub struct Sequential {
    layers: Vec<Box<dyn Materialize>>,
}

/// A series without layers.
#[must_use]
pub fn seq() -> Sequential {
    Sequential::default()
}

impl Sequential {
    /// The series with one more layer at its end.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "candle's name")]
    pub fn add(mut self, layer: impl Materialize + 'static) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// The plain network on the CPU for images of one shape, in an element type: what is certified, attacked and exported.
    ///
    /// # Errors
    /// As for [`Materialize::materialize`], naming the layer by its place from 1, and for [`PlainNetwork::new`].
    pub fn network(&self, input: ImageShape, dtype: DType) -> Result<PlainNetwork> {
        PlainNetwork::new(input, self.materialize(SignalShape::Image(input), dtype)?)
    }
}

impl Module for Sequential {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}

impl Materialize for Sequential {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (mut shape, mut plain) = (input, Vec::new());
        for (index, layer) in self.layers.iter().enumerate() {
            let place = index + 1;
            let layers = layer.materialize(shape, dtype).map_err(|error| match error {
                Error::NoPlainForm { layer, reason } => {
                    Error::NoPlainForm { layer: format!("layer {place}, {layer}"), reason }
                }
                other => other,
            })?;
            for layer in &layers {
                shape = layer.output_shape(shape, &format!("layer {place}"))?;
            }
            plain.extend(layers);
        }
        Ok(plain)
    }
}
