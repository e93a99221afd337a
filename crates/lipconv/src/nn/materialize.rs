//! What a module gives beside its forward pass: the plain layers that it stands for.

use std::fmt;

use candle_core::{DType, Device, Module, Tensor};
use ndarray::Array4;

use crate::activation::Activation;
use crate::error::{Error, Result};
use crate::ops;
use crate::plain::{CyclicConv, Dense, PlainLayer};
use crate::shape::SignalShape;

/// A module that can be turned into plain layers, or says why it cannot.
pub trait Materialize: Module + fmt::Debug + Send + Sync {
    /// The plain layers for inputs of one shape, in order: the weights of this moment on the CPU in an element type.
    ///
    /// # Errors
    /// [`Error::NoPlainForm`] with the reason for a layer that has none; the errors of its weight; the shape errors of
    /// [`PlainLayer::output_shape`].
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>>;
}

/// The error of a layer without a plain form.
pub(super) fn no_plain_form<T>(layer: &str, reason: impl Into<String>) -> Result<T> {
    Err(Error::NoPlainForm { layer: layer.to_owned(), reason: reason.into() })
}

/// A plain convolution of tensors of any device and element type, checked against its input.
pub(super) fn plain_conv(
    name: &str,
    input: SignalShape,
    dtype: DType,
    (weight, bias): (&Tensor, Option<&Tensor>),
    downsample: usize,
) -> Result<Vec<PlainLayer>> {
    let bias = bias.map(|bias| on_cpu(bias, dtype)).transpose()?;
    let conv = CyclicConv::new(on_cpu(weight, dtype)?, bias, downsample)?;
    let layer = PlainLayer::CyclicConv(conv);
    layer.output_shape(input, name)?;
    Ok(vec![layer])
}

/// The same for a dense layer.
pub(super) fn plain_dense(
    name: &str,
    input: SignalShape,
    dtype: DType,
    (weight, bias): (&Tensor, Option<&Tensor>),
) -> Result<Vec<PlainLayer>> {
    let bias = bias.map(|bias| on_cpu(bias, dtype)).transpose()?;
    let layer = PlainLayer::Dense(Dense::new(on_cpu(weight, dtype)?, bias)?);
    layer.output_shape(input, name)?;
    Ok(vec![layer])
}

/// A convolution of an image, or for a vector the dense layer that a 1 x 1 kernel stands for.
pub(super) fn plain_linear(
    name: &str,
    input: SignalShape,
    dtype: DType,
    weight: Array4<f64>,
    bias: Vec<f64>,
) -> Result<Vec<PlainLayer>> {
    let dims = weight.dim();
    let weight = Tensor::from_vec(weight.iter().copied().collect::<Vec<_>>(), dims, &Device::Cpu)?;
    let bias = Tensor::from_vec(bias, dims.0, &Device::Cpu)?;
    match input {
        SignalShape::Image(_) => plain_conv(name, input, dtype, (&weight, Some(&bias)), 1),
        SignalShape::Vector(_) => {
            let weight = weight.flatten_from(1)?;
            plain_dense(name, input, dtype, (&weight, Some(&bias)))
        }
    }
}

fn on_cpu(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    Ok(tensor.detach().to_device(&Device::Cpu)?.to_dtype(dtype)?)
}

impl Module for Activation {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Self::forward(*self, x)?)
    }
}

impl Materialize for Activation {
    fn materialize(&self, input: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        self.output_shape(input, self.name())?;
        Ok(vec![PlainLayer::Activation(*self)])
    }
}

/// A plain layer is the module that is left when the parameters are gone.
impl Module for PlainLayer {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(ops::apply(self, x)?)
    }
}

impl Materialize for PlainLayer {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (what, bias) = ("plain layer", self.parameters().and_then(|(_, bias)| bias));
        match self {
            Self::CyclicConv(conv) => {
                plain_conv(what, input, dtype, (conv.weight(), bias), conv.downsample())
            }
            Self::Dense(dense) => plain_dense(what, input, dtype, (dense.weight(), bias)),
            other => {
                other.output_shape(input, what)?;
                Ok(vec![other.clone()])
            }
        }
    }
}
