//! Block kernels as layer weights, and back.
//!
//! Definition. A layer weight w is OIHW and acts as a cross-correlation on an input that is padded cyclically by k/2
//! (integer division) before and (k-1)/2 after on each spatial axis: y[i] = Σ_a w[a] x[i + a - k/2]. The weight of a
//! block kernel X is its flip, w[o, i, a, b] = X[kh-1-a, kw-1-b][o, i].
//!
//! Identity. Then y[i, j] = (X * x)[i + (kh-1)/2, j + (kw-1)/2], indices cyclic: the layer is the true convolution of
//! the kernel, advanced by (k-1)/2 pixels. Indeed with b = k-1-a, y[i] = Σ_b X[b] x[i + (k-1-b) - k/2], and
//! k-1 - k/2 = (k-1)/2 in integers. For k = 1 and k = 2 the shift is 0.
//!
//! Guarantee. Exact: numbers are only moved. Orthogonality and singular values are the same on both sides.

use ndarray::{Array4, ArrayView4, ArrayViewMut4, Axis};
use projectors::Real;

use crate::error::Result;
use crate::kernel::{Kernel2, kernel_of};

/// The OIHW layer weight of a block kernel: c_out x c_in x kh x kw.
///
/// # Example
/// ```
/// use blockconv::{Kernel2, from_layer_weight, layer_weight};
/// use ndarray::Array4;
///
/// let kernel = Kernel2::try_new(Array4::<f64>::from_shape_fn((2, 3, 1, 1), |(a, b, ..)| (3 * a + b) as f64)).unwrap();
/// let weight = layer_weight(&kernel);
/// assert_eq!(weight.dim(), (1, 1, 2, 3));
/// assert_eq!(weight[[0, 0, 0, 0]], 5.0);
/// assert_eq!(from_layer_weight(weight.view()).unwrap(), kernel);
/// assert!(from_layer_weight(Array4::<f64>::zeros((4, 4, 0, 0)).view()).is_err());
/// ```
#[must_use]
pub fn layer_weight<T: Real>(kernel: &Kernel2<T>) -> Array4<T> {
    contiguous(weight_view(kernel.taps()))
}

/// The block kernel of an OIHW layer weight; the inverse of [`layer_weight`].
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) when an extent is 0, [`Error::NonFinite`](crate::Error::NonFinite) for NaN or
/// infinities.
pub fn from_layer_weight<T: Real>(weight: ArrayView4<'_, T>) -> Result<Kernel2<T>> {
    crate::check::not_empty("the layer weight", &weight)?;
    crate::check::finite("the layer weight", &weight)?;
    Ok(kernel_of(contiguous(taps_view(weight))))
}

/// The taps [kh, kw, c_out, c_in] seen as a layer weight.
pub(crate) fn weight_view<T>(taps: ArrayView4<'_, T>) -> ArrayView4<'_, T> {
    let mut weight = taps.permuted_axes([2, 3, 0, 1]);
    weight.invert_axis(Axis(2));
    weight.invert_axis(Axis(3));
    weight
}

/// A layer weight seen as taps [kh, kw, c_out, c_in].
pub(crate) fn taps_view<T>(weight: ArrayView4<'_, T>) -> ArrayView4<'_, T> {
    let mut taps = weight;
    taps.invert_axis(Axis(2));
    taps.invert_axis(Axis(3));
    taps.permuted_axes([2, 3, 0, 1])
}

/// A layer weight seen as taps [kh, kw, c_out, c_in], to be written.
pub(crate) fn taps_view_mut<T>(weight: ArrayViewMut4<'_, T>) -> ArrayViewMut4<'_, T> {
    let mut taps = weight;
    taps.invert_axis(Axis(2));
    taps.invert_axis(Axis(3));
    taps.permuted_axes([2, 3, 0, 1])
}

/// A copy in standard memory order whatever the strides of the view.
fn contiguous<T: Real>(view: ArrayView4<'_, T>) -> Array4<T> {
    let mut copy = Array4::zeros(view.raw_dim());
    copy.assign(&view);
    copy
}
