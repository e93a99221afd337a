//! Rigorous Lipschitz bounds of plain layers, for the Euclidean norm.
//!
//! Dense weights: an upper bound of the largest singular value. Cyclic convolutions: for every image size the smaller of two
//! bounds, from the block autocorrelation (`blockconv::bounds`), and k ‖F‖₂ for the c_out x c_in·k² reshape F of the
//! weight, because the convolution is F applied to all k x k patches, in which every pixel occurs k² times; for one
//! image size also that of the frequencies, where the others are not sharp. All are proved for the stored numbers
//! with rounding accounted for. Downsampling, reshaping, MaxMin, GroupSort and ReLU are exactly 1, leaky ReLU max(1, |slope|).
//! A padded convolution is bounded on a torus: see [`PaddedConv`]. Layers that join signals count as 1; what they
//! do is in [`PlainNetwork::signal_bounds`](crate::PlainNetwork::signal_bounds).

use candle_core::{DType, Tensor};
use ndarray::{Array, Array4, ArrayView4, Dimension};
use projectors::LipschitzBound;
use projectors::rounding::{mul_up, sqrt_up};

use crate::element::{Element, to_vec};
use crate::error::{Error, Result};
use crate::plain::{PaddedConv, PlainLayer};
use crate::shape::{ImageShape, SignalShape};

/// So close to 1 the bound from the autocorrelation is that of an orthogonal kernel in f32, and sharp.
const ORTHOGONAL: f64 = 1e-6;

impl PlainLayer {
    /// A rigorous Lipschitz bound of the layer for the Euclidean norm, on images of any size: of the stored
    /// weight, whatever it was made from; activations and reshapes are exactly 1.
    ///
    /// Sharp for orthogonal convolutions; for others see [`PlainLayer::lipschitz_bound_on`].
    ///
    /// # Errors
    /// [`Error::Algebra`] or [`Error::Orthonormalisation`] when the weight is not finite; [`Error::LayerOrder`] for a padded
    /// convolution, whose bound depends on the image's size.
    pub fn lipschitz_bound(&self, layer: &str) -> Result<LipschitzBound> {
        layer_bound(self, None, layer)
    }

    /// The same for inputs of one shape: within about 2e-5 for any convolution.
    ///
    /// # Errors
    /// As for [`PlainLayer::lipschitz_bound`], and the shape errors of [`PlainLayer::output_shape`].
    pub fn lipschitz_bound_on(&self, input: SignalShape, layer: &str) -> Result<LipschitzBound> {
        if let (Self::PaddedConv(conv), SignalShape::Image(image)) = (self, input) {
            return padded_bound(conv, image, layer);
        }
        if self.earlier().is_some() {
            return Ok(LipschitzBound::ONE);
        }
        // a convolution works on images of its output's size
        let image = match self.output_shape(input, layer)? {
            SignalShape::Image(image) => Some((image.height, image.width)),
            SignalShape::Vector(_) => None,
        };
        layer_bound(self, image, layer)
    }
}

/// The bound of one layer, of a convolution on images of the height and width `image` (after downsampling) where given.
pub(crate) fn layer_bound(
    layer: &PlainLayer,
    image: Option<(usize, usize)>,
    name: &str,
) -> Result<LipschitzBound> {
    match layer {
        PlainLayer::CyclicConv(conv) => {
            let weight = conv_weight(conv.weight())?;
            match image {
                Some(image) => conv_norm_on(weight.view(), image, name),
                None => conv_norm(weight.view(), name),
            }
        }
        PlainLayer::Dense(dense) => dense_bound(dense.weight(), name),
        PlainLayer::LeakyRelu { slope } => LipschitzBound::exact(slope.abs().max(1.0))
            .map_err(|source| orthonormalisation(name, source)),
        PlainLayer::PaddedConv(_) => Err(Error::LayerOrder {
            layer: name.to_owned(),
            previous: "its input".to_owned(),
            reason: "its norm depends on the image's size; ask for the bound on one",
        }),
        PlainLayer::Activation(_)
        | PlainLayer::Flatten
        | PlainLayer::Recall { .. }
        | PlainLayer::Add { .. }
        | PlainLayer::Concat { .. } => Ok(LipschitzBound::ONE),
    }
}

/// The largest bound of the groups on their torus.
fn padded_bound(conv: &PaddedConv, image: ImageShape, name: &str) -> Result<LipschitzBound> {
    let unrolled = conv.unrolled(image, name)?;
    let mut largest = LipschitzBound::exact(0.0).map_err(|s| orthonormalisation(name, s))?;
    let mut last: Option<&Array4<f64>> = None;
    for kernel in &unrolled.kernels {
        // pooling has the same kernel in every group
        if last != Some(kernel) {
            largest = largest.max(&conv_norm_on(kernel.view(), unrolled.torus, name)?);
        }
        last = Some(kernel);
    }
    Ok(largest)
}

fn orthonormalisation(layer: &str, source: projectors::Error) -> Error {
    Error::Orthonormalisation { layer: layer.to_owned(), source }
}

/// A tensor's values as f64: exact for every element type that weights have.
fn to_f64(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?)
}

fn conv_weight(weight: &Tensor) -> Result<Array4<f64>> {
    array::<f64, _>(&to_f64(weight)?, weight.dims4()?)
}

/// A bound of the norm of a cyclic convolution with an OIHW weight, for every image that its kernel fits.
pub(crate) fn conv_norm(weight: ArrayView4<'_, f64>, name: &str) -> Result<LipschitzBound> {
    let shifts = blockconv::bounds::cyclic_norm_bound(weight).map_err(algebra(name))?;
    Ok(smaller(shifts, patch_norm(weight, name)?))
}

/// The same for images of one height and width.
pub(crate) fn conv_norm_on(
    weight: ArrayView4<'_, f64>,
    image: (usize, usize),
    name: &str,
) -> Result<LipschitzBound> {
    let shifts = blockconv::bounds::cyclic_norm_bound(weight).map_err(algebra(name))?;
    let everywhere = smaller(shifts, patch_norm(weight, name)?);
    if (shifts.value() - 1.0).abs() <= ORTHOGONAL {
        return Ok(everywhere);
    }
    let here = blockconv::bounds::cyclic_norm_bound_on(weight, image).map_err(algebra(name))?;
    Ok(smaller(everywhere, here))
}

/// k ‖F‖₂ for the reshape F.
fn patch_norm(weight: ArrayView4<'_, f64>, name: &str) -> Result<LipschitzBound> {
    let (c_out, c_in, kh, kw) = weight.dim();
    let flat = weight.to_shape((c_out, c_in * kh * kw)).expect("a reshape keeps all values");
    let flat = projectors::norms::spectral_norm_bound(flat.view())
        .map_err(|source| orthonormalisation(name, source))?;
    // √(kh kw), exact for square kernels
    let root = if kh == kw { kh as f64 } else { sqrt_up((kh * kw) as f64) };
    LipschitzBound::upper_bound(mul_up(root, flat.value()))
        .map_err(|source| orthonormalisation(name, source))
}

fn smaller(a: LipschitzBound, b: LipschitzBound) -> LipschitzBound {
    if b.value() < a.value() { b } else { a }
}

fn algebra(layer: &str) -> impl FnOnce(blockconv::Error) -> Error {
    let layer = layer.to_owned();
    |source| Error::Algebra { layer, source }
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
