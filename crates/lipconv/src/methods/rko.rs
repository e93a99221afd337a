//! RKO: reshaped kernel orthonormalisation.
//!
//! Definition. With F the c_out x c_in·k² reshape of the parameter, the reshape of the weight is the polar factor of F
//! divided by k.
//!
//! Shapes. Parameter and weight OIHW; F starts as a random matrix with orthonormal rows or columns times 1/√c_in: the weight
//! does not depend on that factor, the step size relative to it does.
//!
//! Guarantee. A cyclic convolution is its reshape applied to all k x k patches, in which every pixel occurs k² times: its
//! norm is at most 1 up to rounding, for every image that its kernel fits. Frozen, it is divided by a proven bound of its
//! norm where that exceeds 1.
//!
//! Between steps. The inverse square root of the Gram matrix, from which the next orthonormalisation starts.
//!
//! Source. Cisse et al. (2017); Li et al., section 5 (RKO).

use candle_core::Tensor;
use ndarray::{Array2, ArrayD, ArrayViewD};
use projectors::polar::Polar;
use rand_chacha::ChaCha8Rng;

use super::arrays::{flat, polar_of, shaped_like, within_unit_ball};
use super::draw::{inverse_root, orthonormal, scaled};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;
use crate::ops::portable::{Factor, polar};

/// Reshaped kernel orthonormalisation.
#[derive(Debug)]
pub(super) struct Rko;

impl Parametrisation for Rko {
    fn name(&self) -> &'static str {
        "rko"
    }

    fn title(&self) -> &'static str {
        "RKO"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        scaled(orthonormal(sizes.n_out, sizes.fan_in(), rng), inverse_root(sizes.n_in))
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, sizes: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        let Factor { matrix, defect } = polar(&parameter.reshape((sizes.n_out, ()))?)?;
        let weight = (matrix / sizes.kernel as f64)?.reshape(parameter.shape())?;
        Ok(Factor { matrix: weight, defect }.into())
    }
}

impl<T: Element> CpuParametrisation<T> for Rko {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        let polar = polar_of(layer, flat(&parameter), start.warm)?;
        Ok(Box::new(Scaled { polar, factor: T::of(1.0 / layer.sizes.kernel as f64) }))
    }

    fn frozen(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        let assembled = self.assemble(layer, parameter.view(), Start::COLD)?;
        within_unit_ball(layer, assembled.weight(parameter))
    }
}

/// The polar factor of F and 1/k.
#[derive(Debug)]
struct Scaled<T> {
    polar: Polar<T>,
    factor: T,
}

impl<T: Element> Assembled<T> for Scaled<T> {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        shaped_like(&parameter, self.polar.factor().mapv(|x| x * self.factor))
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let d_weight = d_weight.mapv(|x| x * self.factor);
        let d_weight = d_weight.as_standard_layout();
        let d = self.polar.pullback(flat(&parameter), flat(&d_weight.view()));
        Ok(shaped_like(&parameter, d))
    }

    fn warm_start(&self) -> Option<Array2<T>> {
        Some(self.polar.inverse_sqrt().to_owned())
    }
}
