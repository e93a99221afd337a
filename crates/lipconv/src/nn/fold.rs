//! Absolute values between linear maps as plain layers.
//!
//! Definition. y = C |A x + β| + D B x + γ, where A, B, C and D are cyclic convolutions of one kernel size.
//!
//! Identity. |z| = max(z, -z), so MaxMin on the halves (z, B x) / √2 and (-z, B x) / √2 gives (|z|, B x) / √2 and
//! (-|z|, B x) / √2, and y = [C  D  -C  D] / √2 of these. Where [A; B] is an isometry and [C  D] the adjoint of one, so are both
//! linear layers: the product of the norms of the plain layers then is 1, the norm of the map.

use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::DType;
use ndarray::{Array4, Axis, concatenate};

use super::materialize::plain_linear;
use crate::activation::Activation;
use crate::error::Result;
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// The kernels, OIHW; of a vector 1 x 1.
#[derive(Debug)]
pub(super) struct Folded {
    /// What goes through the absolute value.
    pub(super) absolute: Array4<f64>,
    /// What does not: as many input channels, possibly no outputs.
    pub(super) straight: Array4<f64>,
    /// β, one for each output of `absolute`.
    pub(super) shift: Vec<f64>,
    /// C.
    pub(super) from_absolute: Array4<f64>,
    /// D.
    pub(super) from_straight: Array4<f64>,
    /// γ, one for each output.
    pub(super) offset: Vec<f64>,
}

impl Folded {
    /// Linear, MaxMin, linear.
    pub(super) fn layers(
        &self,
        name: &str,
        input: SignalShape,
        dtype: DType,
    ) -> Result<Vec<PlainLayer>> {
        let stack = |axis: usize, a: &Array4<f64>, b: &Array4<f64>| {
            let minus = a.mapv(|x| -x);
            let parts = [a.view(), b.view(), minus.view(), b.view()];
            let stacked = concatenate(Axis(axis), &parts).expect("kernels of one size");
            stacked.mapv(|x| x * FRAC_1_SQRT_2)
        };
        let zeros = vec![0.0; self.straight.dim().0];
        let shift = |sign: f64| self.shift.iter().map(move |x| sign * x * FRAC_1_SQRT_2);
        let bias = shift(1.0).chain(zeros.iter().copied());
        let bias = bias.chain(shift(-1.0)).chain(zeros.iter().copied()).collect();
        let first = stack(0, &self.absolute, &self.straight);
        let mut layers = plain_linear(name, input, dtype, first, bias)?;
        layers.push(PlainLayer::Activation(Activation::MaxMin));
        let between = layers.iter().try_fold(input, |shape, l| l.output_shape(shape, name))?;
        let last = stack(1, &self.from_absolute, &self.from_straight);
        layers.extend(plain_linear(name, between, dtype, last, self.offset.clone())?);
        Ok(layers)
    }
}
