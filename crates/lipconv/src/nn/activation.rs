//! Nonlinearities beside those of [`Activation`](crate::Activation): the absolute value, and Householder activations.
//!
//! Definition.
//! * [`Abs`]: y = |x|.
//! * [`Householder`]: channels i and i + c/2 are a point z of the plane, v = (cos θ_i, sin θ_i), and y = z where v · z >= 0, its
//!   mirror image z - 2 (v · z) v elsewhere: y = z + (|v · z| - v · z) v.
//!
//! Shapes. Any number of axes after the channels. Parameter `angle` (c/2) of a Householder activation, which starts at
//! -π/4: there it is MaxMin.
//!
//! Guarantee. Both are 1-Lipschitz and keep gradient norms at every point but the edges.
//!
//! Plain form. Linear, MaxMin, linear, each of norm 1 up to rounding.
//!
//! Source. Anil, Lucas and Grosse (2019); Singla, Singla and Feizi (2022), order 1.

use std::f64::consts::FRAC_PI_4;

use candle_core::{DType, Module, Tensor};
use candle_nn::VarBuilder;
use ndarray::{Array2, Array4, Axis};

use super::fold::Folded;
use super::materialize::Materialize;
use super::parameter::{layer_name, parameter};
use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// |x|.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abs;

impl Module for Abs {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.abs()
    }
}

impl Materialize for Abs {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let n = input.n_channels();
        let folded = Folded {
            absolute: kernel(Array2::eye(n)),
            straight: kernel(Array2::zeros((0, n))),
            shift: vec![0.0; n],
            from_absolute: kernel(Array2::eye(n)),
            from_straight: kernel(Array2::zeros((n, 0))),
            offset: vec![0.0; n],
        };
        folded.layers("abs", input, dtype)
    }
}

/// Settings of a Householder activation: none but its start, which is MaxMin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HouseholderConfig {}

/// Reflections with trained angles.
#[derive(Debug, Clone)]
pub struct Householder {
    name: String,
    angle: Tensor,
}

/// A Householder activation of an even number of channels; parameter `angle`.
///
/// # Errors
/// [`Error::GroupsDoNotDivide`] for an odd number.
pub fn householder(
    channels: usize,
    _: HouseholderConfig,
    vb: VarBuilder<'_>,
) -> Result<Householder> {
    let name = layer_name(&vb, "householder");
    if channels == 0 || !channels.is_multiple_of(2) {
        return Err(Error::GroupsDoNotDivide { layer: name, channels, group: 2 });
    }
    let half = channels / 2;
    let angle = parameter(&vb, "angle", &[half], 0, |_| vec![-FRAC_PI_4; half])?;
    Ok(Householder { name, angle })
}

impl Module for Householder {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let half = self.angle.dims()[0];
        let channels = x.dims().get(1).copied().unwrap_or(0);
        if channels != 2 * half {
            let (what, got) = (format!("input of {}", self.name), x.dims().to_vec());
            let mut expected = got.clone();
            if let Some(channels) = expected.get_mut(1) {
                *channels = 2 * half;
            }
            return Err(Error::ShapeMismatch { what, expected, got }.into());
        }
        let mut shape = vec![1; x.rank()];
        shape[1] = half;
        let (cos, sin) =
            (self.angle.cos()?.reshape(&shape[..])?, self.angle.sin()?.reshape(&shape[..])?);
        let (a, b) = (x.narrow(1, 0, half)?, x.narrow(1, half, half)?);
        let along = (a.broadcast_mul(&cos)? + b.broadcast_mul(&sin)?)?;
        let step = (along.abs()? - &along)?;
        let (a, b) = ((a + step.broadcast_mul(&cos)?)?, (b + step.broadcast_mul(&sin)?)?);
        Tensor::cat(&[a, b], 1)
    }
}

impl Materialize for Householder {
    fn materialize(&self, input: SignalShape, dtype: DType) -> Result<Vec<PlainLayer>> {
        let angles = to_vec::<f64>(&self.angle.to_dtype(DType::F64)?)?;
        let half = angles.len();
        // along v, and across it
        let (mut along, mut across) =
            (Array2::zeros((half, 2 * half)), Array2::zeros((half, 2 * half)));
        for (i, angle) in angles.iter().enumerate() {
            let (sin, cos) = angle.sin_cos();
            (along[[i, i]], along[[i, i + half]]) = (cos, sin);
            (across[[i, i]], across[[i, i + half]]) = (-sin, cos);
        }
        let folded = Folded {
            from_absolute: kernel(along.t().to_owned()),
            from_straight: kernel(across.t().to_owned()),
            absolute: kernel(along),
            straight: kernel(across),
            shift: vec![0.0; half],
            offset: vec![0.0; 2 * half],
        };
        folded.layers(&self.name, input, dtype)
    }
}

/// A matrix as a 1 x 1 kernel.
fn kernel(matrix: Array2<f64>) -> Array4<f64> {
    matrix.insert_axis(Axis(2)).insert_axis(Axis(3))
}
