//! Cyclic convolution whose weight is constrained by one of the [methods](ConvMethod).
//!
//! Definition. `y = W ⋆ pad(unshuffle(x)) + β` as for [`CyclicConv`](crate::CyclicConv), with `W` made of the free parameter by the method.
//!
//! Shapes. x b x c_in x H x W, y b x c_out x H/s x W/s; kernel size and channels count before downsampling, as in
//! [`LayerSpec`](crate::LayerSpec). Parameters `weight` ([`Method::parameter_shape`](crate::Method::parameter_shape)) and `bias` (c_out).
//!
//! Guarantee. As its method: see there. A weight that the method does not train (BCOP-fixed) is a constant of the graph, so that
//! no optimizer moves it. Methods that keep something between steps beside the parameter (OSSN's vector, SVCM's
//! projections) would silently lose it to a foreign optimizer and are refused.
//!
//! Errors. [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::InvalidSetting`].

use candle_core::{DType, Module, Tensor};
use candle_nn::VarBuilder;

use super::materialize::{Materialize, plain_conv};
use super::parameter::{at_least_one, layer_name, parameter};
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, Layer, Method, Sizes, frozen_weight, uniform};
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// Settings of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// How the weight is constrained.
    pub method: ConvMethod,
    /// Factor of the invertible downsampling before the convolution; it divides the kernel size.
    pub stride: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for Conv2dConfig {
    /// BCOP, stride 1, a bias.
    fn default() -> Self {
        Self { method: ConvMethod::Bcop, stride: 1, bias: true, seed: 0 }
    }
}

/// A cyclic convolution with a constrained weight.
#[derive(Debug, Clone)]
pub struct Conv2d {
    name: String,
    sizes: Sizes,
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

/// A convolution from `c_in` to `c_out` channels; parameters `weight` and `bias`.
///
/// # Errors
/// [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::InvalidSetting`].
pub fn conv2d(
    c_in: usize,
    c_out: usize,
    kernel_size: usize,
    config: Conv2dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv2d> {
    let name = layer_name(&vb, "conv2d");
    let Conv2dConfig { method, stride, bias, seed } = config;
    let counts =
        [("c_in", c_in), ("c_out", c_out), ("kernel_size", kernel_size), ("stride", stride)];
    at_least_one(&name, &counts)?;
    if !kernel_size.is_multiple_of(stride) {
        let (what, size) = ("kernel size", kernel_size);
        return Err(Error::StrideDoesNotDivide { layer: name, what, size, stride });
    }
    let kernel = kernel_size / stride;
    // no method that is allowed here depends on the image's size
    let sizes = Sizes::conv(c_out, c_in * stride * stride, kernel, (kernel, kernel));
    let definition = Method::from(method).definition();
    if definition.vector_shape(&sizes).is_some() || definition.projects_after(0, 1) {
        return Err(Error::InvalidSetting {
            name: "method",
            value: method.name().to_owned(),
            expected: "a method that keeps nothing between steps beside its parameter; train ossn and svcm with Network \
                       and Trainer",
        });
    }
    let shape = definition.parameter_shape(&sizes);
    let weight = parameter(&vb, "weight", &shape, seed, |rng| definition.draw(&sizes, rng))?;
    let bound = definition.bias_bound(&sizes);
    let bias =
        bias.then(|| parameter(&vb, "bias", &[c_out], seed, |rng| uniform(c_out, bound, rng)));
    Ok(Conv2d { name, sizes, weight, bias: bias.transpose()?, config })
}

impl Conv2d {
    /// The constrained OIHW weight for the downsampled image, differentiable in the parameter where that is trained.
    ///
    /// # Errors
    /// As for [`ops::weight`].
    pub fn weight(&self) -> Result<Tensor> {
        let trained = Method::from(self.config.method).definition().is_trained();
        let parameter = if trained { self.weight.clone() } else { self.weight.detach() };
        Ok(ops::weight(self.config.method, &self.sizes, &parameter, None)?.weight)
    }

    /// The bias.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let weight = self.weight()?;
        Ok(ops::cyclic_conv(x, &weight, self.bias.as_ref(), self.config.stride)?)
    }
}

impl Materialize for Conv2d {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let stride = self.config.stride;
        let mut sizes = self.sizes;
        if let SignalShape::Image(image) = input {
            let after = image.downsampled(stride, &self.name)?;
            sizes.image = (after.height, after.width);
        }
        let layer = Layer { name: &self.name, sizes };
        let weight = frozen_weight(layer, self.config.method.into(), &self.weight)?;
        plain_conv(&self.name, input, dtype, (&weight, self.bias.as_ref()), stride)
    }
}
