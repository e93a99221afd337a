//! Rigorous Lipschitz bounds of plain layers, for the Euclidean norm.
//!
//! Dense weights: an upper bound of the largest singular value; cyclic convolutions: a bound valid for every
//! image size, from the block autocorrelation (see `blockconv::bounds`). Both are proved for the stored
//! numbers with rounding accounted for. Downsampling, reshaping, MaxMin, GroupSort and ReLU are exactly 1.

use candle_core::{DType, Tensor};
use ndarray::{Array, Dimension};
use projectors::LipschitzBound;

use crate::element::{Element, to_vec};
use crate::error::{Error, Result};
use crate::plain::PlainLayer;

pub(crate) fn layer_bound(layer: &PlainLayer, name: &str) -> Result<LipschitzBound> {
    match layer {
        PlainLayer::CyclicConv(conv) => cyclic_bound(conv.weight(), name),
        PlainLayer::Dense(dense) => dense_bound(dense.weight(), name),
        PlainLayer::MaxMin
        | PlainLayer::GroupSort { .. }
        | PlainLayer::Relu
        | PlainLayer::Flatten => {
            LipschitzBound::exact(1.0).map_err(|source| orthonormalisation(name, source))
        }
    }
}

fn orthonormalisation(layer: &str, source: projectors::Error) -> Error {
    Error::Orthonormalisation { layer: layer.to_owned(), source }
}

/// A tensor's values as f64: exact for every element type that weights have.
fn to_f64(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?)
}

fn cyclic_bound(weight: &Tensor, name: &str) -> Result<LipschitzBound> {
    let weight = array::<f64, _>(&to_f64(weight)?, weight.dims4()?)?;
    blockconv::bounds::cyclic_norm_bound(weight.view())
        .map_err(|source| Error::Algebra { layer: name.to_owned(), source })
}

fn dense_bound(weight: &Tensor, name: &str) -> Result<LipschitzBound> {
    let weight = array::<f64, _>(&to_f64(weight)?, weight.dims2()?)?;
    projectors::norms::spectral_norm_bound(weight.view())
        .map_err(|source| orthonormalisation(name, source))
}

/// A tensor's values as an array.
pub(crate) fn array<T: Element, S: ndarray::IntoDimension>(
    tensor: &Tensor,
    shape: S,
) -> Result<Array<T, S::Dim>>
where
    S::Dim: Dimension,
{
    let values = to_vec::<T>(tensor)?;
    Ok(Array::from_shape_vec(shape.into_dimension(), values)
        .expect("a tensor has as many values as its shape says"))
}
