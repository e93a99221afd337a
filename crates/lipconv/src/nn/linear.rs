//! Dense layer whose weight is constrained by one of the [methods](LinearMethod).
//!
//! Definition. `y = W x + β`, with `W` made of the free parameter by the method.
//!
//! Shapes. x b x n_in, y b x n_out. Parameters `weight` and `bias` (n_out).
//!
//! Guarantee. As its method: see there.
//!
//! Errors. [`Error::Zero`](crate::Error::Zero), [`Error::InvalidSetting`](crate::Error::InvalidSetting).

use candle_core::{DType, Module, Tensor};
use candle_nn::VarBuilder;

use super::materialize::{Materialize, plain_dense};
use super::parameter::{at_least_one, layer_name, parameter};
use crate::error::Result;
use crate::methods::{Layer, LinearMethod, Method, Sizes, frozen_weight, uniform};
use crate::ops;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// Settings of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearConfig {
    /// How the weight is constrained.
    pub method: LinearMethod,
    /// Whether there is a bias.
    pub bias: bool,
    /// Seed of the starting values.
    pub seed: u64,
}

impl Default for LinearConfig {
    /// Björck, a bias.
    fn default() -> Self {
        Self { method: LinearMethod::Bjorck, bias: true, seed: 0 }
    }
}

/// A dense layer with a constrained weight.
#[derive(Debug, Clone)]
pub struct Linear {
    name: String,
    sizes: Sizes,
    weight: Tensor,
    bias: Option<Tensor>,
    config: LinearConfig,
}

/// A dense layer from `n_in` to `n_out` features; parameters `weight` and `bias`.
///
/// # Errors
/// [`Error::Zero`](crate::Error::Zero), [`Error::InvalidSetting`](crate::Error::InvalidSetting).
pub fn linear(
    n_in: usize,
    n_out: usize,
    config: LinearConfig,
    vb: VarBuilder<'_>,
) -> Result<Linear> {
    let name = layer_name(&vb, "linear");
    at_least_one(&name, &[("n_in", n_in), ("n_out", n_out)])?;
    let LinearConfig { method, bias, seed } = config;
    let sizes = Sizes::dense(n_out, n_in);
    let definition = Method::from(method).definition();
    let shape = definition.parameter_shape(&sizes);
    let weight = parameter(&vb, "weight", &shape, seed, |rng| definition.draw(&sizes, rng))?;
    let bound = definition.bias_bound(&sizes);
    let bias =
        bias.then(|| parameter(&vb, "bias", &[n_out], seed, |rng| uniform(n_out, bound, rng)));
    Ok(Linear { name, sizes, weight, bias: bias.transpose()?, config })
}

impl Linear {
    /// The constrained weight, n_out x n_in, differentiable in the parameter.
    ///
    /// # Errors
    /// As for [`ops::weight`].
    pub fn weight(&self) -> Result<Tensor> {
        Ok(ops::weight(self.config.method, &self.sizes, &self.weight, None)?.weight)
    }

    /// The bias.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &LinearConfig {
        &self.config
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        Ok(ops::dense(x, &self.weight()?, self.bias.as_ref())?)
    }
}

impl Materialize for Linear {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let layer = Layer { name: &self.name, sizes: self.sizes };
        let weight = frozen_weight(layer, self.config.method.into(), &self.weight)?;
        plain_dense(&self.name, input, dtype, (&weight, self.bias.as_ref()))
    }
}
