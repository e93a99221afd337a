//! candle's own layers among ours.
//!
//! Guarantee. A dense layer and a 1 x 1 convolution of candle's have whatever norm their weights have, and the plain layer a
//! rigorous bound of it: the certificate of a network divides by the product. ReLU is 1-Lipschitz. Other layers are refused with
//! the reason, among them zero-padded convolutions: cyclic padding would be another function of the same shapes.

use candle_core::DType;
use candle_nn::{Conv2d, Func, Linear};

use super::materialize::{Materialize, no_plain_form, plain_conv, plain_dense};
use crate::activation::Activation;
use crate::error::Result;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

impl Materialize for Linear {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        plain_dense("candle's linear", input, dtype, (self.weight(), self.bias()))
    }
}

impl Materialize for Conv2d {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let (config, dims) = (self.config(), self.weight().dims());
        let name = "candle's conv2d";
        if dims[2..] != [1, 1] {
            return no_plain_form(
                name,
                "its padding is zeros or none, and plain networks pad cyclically",
            );
        }
        if (config.padding, config.stride, config.groups) != (0, 1, 1) {
            return no_plain_form(
                name,
                format!(
                    "padding is {}, stride {} and groups {}, expected 0, 1 and 1",
                    config.padding, config.stride, config.groups
                ),
            );
        }
        plain_conv(name, input, dtype, (self.weight(), self.bias()), 1)
    }
}

impl Materialize for candle_nn::Activation {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        match self {
            Self::Relu => Activation::Relu.materialize(input, dtype),
            other => {
                no_plain_form("candle's activation", format!("it is {other:?}, expected Relu"))
            }
        }
    }
}

impl Materialize for Func<'_> {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        no_plain_form("candle's func", "nothing is known of a closure")
    }
}
