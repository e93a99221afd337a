//! Unconstrained: the parameter is the weight.
//!
//! Shapes. OIHW or n_out x n_in, at first uniform in ±1/√fan_in, like the bias: PyTorch's initialisation.
//!
//! Guarantee. None; frozen, the layer has whatever norm it has.

use candle_core::Tensor;
use ndarray::{ArrayD, ArrayViewD};
use rand_chacha::ChaCha8Rng;

use super::draw::{inverse_root, uniform};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;

/// No constraint.
#[derive(Debug)]
pub(super) struct Unconstrained;

impl Parametrisation for Unconstrained {
    fn name(&self) -> &'static str {
        "unconstrained"
    }

    fn title(&self) -> &'static str {
        "unconstrained"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        uniform(sizes.n_out * sizes.fan_in(), inverse_root(sizes.fan_in()), rng)
    }

    fn bias_bound(&self, sizes: &Sizes) -> f64 {
        inverse_root(sizes.fan_in())
    }

    fn is_identity(&self) -> bool {
        true
    }

    fn weight(&self, _: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        Ok(parameter.clone().into())
    }
}

impl<T: Element> CpuParametrisation<T> for Unconstrained {
    fn assemble(
        &self,
        _: Layer<'_>,
        _: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        Ok(Box::new(Identity))
    }
}

/// A weight that is its parameter.
#[derive(Debug)]
pub(super) struct Identity;

impl<T: Element> Assembled<T> for Identity {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        parameter.to_owned()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        _: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        Ok(d_weight)
    }
}
