//! SVCM: singular value clipping of kernels that are free between the clippings.
//!
//! Definition. The weight is the parameter. From time to time it is projected: [`SVCM_ROUNDS`] rounds of clipping the singular
//! values at the layer's image size and truncating to the kernel's size (`blockconv::clipping`); at the end of every epoch too, so
//! that what is measured between epochs has been projected. The running means of the optimiser stay as they are, as the
//! authors' do.
//!
//! Shapes. Parameter and weight OIHW, at first uniform in ±1/√fan_in as in PyTorch: inside the unit ball.
//!
//! Guarantee. None while training: a clipped kernel may exceed norm 1 slightly. Frozen, it is divided by a proven bound of its
//! norm where that exceeds 1.
//!
//! Source. Sedghi, Gupta and Long (2019); Li et al., section 5.

use candle_core::Tensor;
use ndarray::{ArrayD, ArrayViewD};
use rand_chacha::ChaCha8Rng;

use super::arrays::{ranked, within_unit_ball};
use super::unconstrained::{Identity, Unconstrained};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;

/// Training steps between two projections within an epoch.
pub const SVCM_PERIOD: usize = 100;

/// Rounds of clipping and truncation in a projection.
pub const SVCM_ROUNDS: usize = 50;

/// Singular value clipping.
#[derive(Debug)]
pub(super) struct Svcm;

impl Parametrisation for Svcm {
    fn name(&self) -> &'static str {
        "svcm"
    }

    fn title(&self) -> &'static str {
        "SVCM"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        Unconstrained.draw(sizes, rng)
    }

    fn is_identity(&self) -> bool {
        true
    }

    fn weight(&self, _: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        Ok(parameter.clone().into())
    }

    /// After batch 0, every [`SVCM_PERIOD`]-th from there, and the last, as the authors do.
    fn projects_after(&self, index: usize, n_batches: usize) -> bool {
        index.is_multiple_of(SVCM_PERIOD) || index + 1 == n_batches
    }
}

impl<T: Element> CpuParametrisation<T> for Svcm {
    fn assemble(
        &self,
        _: Layer<'_>,
        _: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        Ok(Box::new(Identity))
    }

    fn frozen(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        within_unit_ball(layer, parameter.to_owned())
    }

    fn projected(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        let (weight, image) = (ranked(parameter), layer.sizes.image);
        let clipped = blockconv::clipping::clip_singular_values(weight, image, SVCM_ROUNDS);
        Ok(clipped.map_err(|source| layer.algebra(source))?.into_dyn())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_of_mnist_projects_six_times() {
        let due: Vec<usize> = (0..469).filter(|&index| Svcm.projects_after(index, 469)).collect();
        assert_eq!(due, [0, 100, 200, 300, 400, 468]);
    }
}
