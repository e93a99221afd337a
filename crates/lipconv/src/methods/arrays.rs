//! Parameters and weights as the arrays that the methods compute with.

use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Ix4};
use projectors::Real;
use projectors::polar::{Polar, polar_from};

use super::Layer;
use crate::bounds;
use crate::element::Element;
use crate::error::Result;
use crate::finite::check_finite;

/// The array with its rank in its type.
pub(super) fn ranked<T, D: ndarray::Dimension>(
    array: ArrayViewD<'_, T>,
) -> ndarray::ArrayView<'_, T, D> {
    array.into_dimensionality().expect("the network gave every parameter the rank of its kind")
}

/// An OIHW array in row-major order as the c_out x c_in·k² matrix that it is stored as.
pub(super) fn flat<'a, T>(array: &ArrayViewD<'a, T>) -> ArrayView2<'a, T> {
    let rows = array.shape()[0];
    let shape = (rows, array.len() / rows.max(1));
    array.clone().into_shape_with_order(shape).expect("in row-major order")
}

/// A c_out x c_in·k² matrix in the shape of the OIHW array it belongs to.
pub(super) fn shaped_like<T: Element>(array: &ArrayViewD<'_, T>, matrix: Array2<T>) -> ArrayD<T> {
    let matrix = matrix.as_standard_layout().into_owned();
    matrix.into_shape_with_order(array.raw_dim()).expect("as many values as its reshape")
}

/// Refuses a parameter that is not finite.
pub(super) fn finite<T: Element>(layer: Layer<'_>, parameter: &ArrayViewD<'_, T>) -> Result<()> {
    let values = parameter.as_slice().expect("a parameter is in row-major order");
    check_finite(&format!("{}.weight", layer.name), values)
}

/// The polar factor of a matrix, from an earlier inverse square root where there is one.
pub(super) fn polar_of<T: Element>(
    layer: Layer<'_>,
    matrix: ArrayView2<'_, T>,
    warm: Option<ArrayView2<'_, T>>,
) -> Result<Polar<T>> {
    polar_from(matrix, warm).map_err(|source| layer.orthonormalisation(source))
}

/// Divides a convolution's weight by a proven bound of its norm on the layer's image where that exceeds 1.
pub(super) fn within_unit_ball<T: Element>(
    layer: Layer<'_>,
    mut weight: ArrayD<T>,
) -> Result<ArrayD<T>> {
    let values = weight.mapv(Real::as_f64);
    let values = ranked::<f64, Ix4>(values.view());
    if bounds::conv_norm(values, layer.name)?.value() <= 1.0 {
        return Ok(weight);
    }
    let bound = bounds::conv_norm_on(values, layer.sizes.image, layer.name)?.value();
    if bound > 1.0 {
        weight.mapv_inplace(|x| T::of(x.as_f64() / bound));
    }
    Ok(weight)
}
