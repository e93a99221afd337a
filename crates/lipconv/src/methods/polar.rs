//! Björck (dense): the orthogonal polar factor of a free matrix.
//!
//! Definition. W = U Vᵗ for the parameter M = U S Vᵗ: what Björck orthonormalisation converges to.
//!
//! Shapes. Parameter and weight n_out x n_in; it starts as a random matrix with orthonormal rows or columns times 1/√n_in:
//! the weight does not depend on that factor, the step size relative to it does.
//!
//! Guarantee. All singular values of the weight are 1 up to rounding for every M of full rank, so that it is frozen as it is.
//!
//! On the CPU see `projectors::polar`; a wide matrix that is large enough is applied in its factors and never formed. In
//! candle's operations see [`portable::polar`]. A factor that is applied in a training step has the defect [`tolerance::applied`] at most, as
//! estimated; what leaves training has that of working precision.
//!
//! Between steps. The inverse square root of the Gram matrix, from which the next orthonormalisation starts.
//!
//! Source. Anil, Lucas and Grosse (2019); Björck and Bowie (1971).

use candle_core::Tensor;
use ndarray::{Array2, ArrayD, ArrayViewD, Ix2};
use projectors::polar::{FactoredPolar, Polar as Factor, factored_polar_within};
use projectors::tolerance;
use rand_chacha::ChaCha8Rng;

use super::arrays::{polar_of, ranked};
use super::draw::{inverse_root, orthonormal, scaled};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;
use crate::ops::portable;

/// Rows from which a polar factor is cheaper to apply than to form.
const FACTORED_FROM: usize = 64;

/// The polar factor.
#[derive(Debug)]
pub(super) struct Polar;

impl Parametrisation for Polar {
    fn name(&self) -> &'static str {
        "bjorck"
    }

    fn title(&self) -> &'static str {
        "Björck"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        scaled(orthonormal(sizes.n_out, sizes.n_in, rng), inverse_root(sizes.n_in))
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, _: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        Ok(portable::polar(parameter)?.into())
    }
}

impl<T: Element> CpuParametrisation<T> for Polar {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        Ok(Box::new(polar_of(layer, ranked(parameter), start.warm)?))
    }

    fn assemble_to_apply(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        let (rows, columns) = (parameter.shape()[0], parameter.shape()[1]);
        if rows < FACTORED_FROM || rows > columns {
            return self.assemble(layer, parameter, start);
        }
        let parameter = ranked::<T, Ix2>(parameter);
        let factored = factored_polar_within(parameter, tolerance::applied::<T>());
        Ok(Box::new(factored.map_err(|source| layer.orthonormalisation(source))?))
    }
}

impl<T: Element> Assembled<T> for Factor<T> {
    fn weight(&self, _: ArrayViewD<'_, T>) -> ArrayD<T> {
        self.factor().to_owned().into_dyn()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let d_weight = ranked::<T, Ix2>(d_weight.view());
        Ok(Factor::pullback(self, ranked::<T, Ix2>(parameter), d_weight).into_dyn())
    }

    fn warm_start(&self) -> Option<Array2<T>> {
        Some(self.inverse_sqrt().to_owned())
    }
}

impl<T: Element> Assembled<T> for FactoredPolar<T> {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        self.factor(ranked::<T, Ix2>(parameter)).into_dyn()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        _: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        Ok(d_weight)
    }

    fn factored(&self) -> Option<&FactoredPolar<T>> {
        Some(self)
    }
}
