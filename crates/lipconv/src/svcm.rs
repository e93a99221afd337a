//! SVCM's projection: kernels that are free between steps are clipped from time to time.
//!
//! [`SVCM_ROUNDS`] rounds of clipping the singular values at the layer's image size and truncating to the kernel's size
//! (`blockconv::clipping`), when [`is_due`] says so: at the end of every epoch too, so that what is measured between epochs
//! has been projected. The running means of the optimiser stay as they are, as the authors' do. The clipped kernel may
//! exceed norm 1 slightly; freezing divides by a proven bound.
//!
//! Source: Sedghi, Gupta and Long (2019); Li et al., section 5.

use candle_core::{DType, Tensor};

use crate::bounds::array;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::network::{Network, Parameters};
use crate::parametrise::Parametrisation;

/// Training steps between two projections within an epoch.
pub const SVCM_PERIOD: usize = 100;

/// Rounds of clipping and truncation in a projection.
pub const SVCM_ROUNDS: usize = 50;

/// Whether kernels are projected after batch `index` (from 0) of an epoch of `n_batches`: after batch 0, every
/// [`SVCM_PERIOD`]-th from there, and the last, as the authors do.
pub(crate) fn is_due(index: usize, n_batches: usize) -> bool {
    index.is_multiple_of(SVCM_PERIOD) || index + 1 == n_batches
}

/// Projects every SVCM kernel of the network; other layers are left alone.
pub(crate) fn clip_kernels(network: &Network) -> Result<()> {
    for parameters in network.parameters() {
        let Parametrisation::Svcm { image } = parameters.parametrisation else { continue };
        match network.dtype() {
            DType::F64 => clip::<f64>(parameters, image)?,
            _ => clip::<f32>(parameters, image)?,
        }
    }
    Ok(())
}

fn clip<T: Element>(parameters: &Parameters, image: (usize, usize)) -> Result<()> {
    let weight = &parameters.weight;
    let values = array::<T, _>(weight.as_tensor(), weight.dims4()?)?;
    let clipped = blockconv::clipping::clip_singular_values(values.view(), image, SVCM_ROUNDS)
        .map_err(|source| Error::Algebra { layer: parameters.name.clone(), source })?;
    let clipped = clipped.as_standard_layout().iter().copied().collect::<Vec<T>>();
    weight.set(&Tensor::from_vec(clipped, weight.shape(), weight.device())?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn an_epoch_of_mnist_projects_six_times() {
        let due: Vec<usize> = (0..469).filter(|&index| is_due(index, 469)).collect();
        assert_eq!(due, [0, 100, 200, 300, 400, 468]);
    }
}
