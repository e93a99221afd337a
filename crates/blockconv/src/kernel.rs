//! Block kernels in one and two dimensions: arrays of matrices that act on signals by convolution.
//!
//! Definition. A kernel X assigns an n_out x n_in matrix X[i] (1-D) or X[i, j] (2-D) to each tap. It acts on a signal
//! v by true cyclic convolution, (X * v)[i, j] = Σ_{a,b} X[a, b] v[i-a, j-b], and kernels multiply by the block product
//! (X □ Y)[i, j] = Σ_{a,b} X[a, b] Y[i-a, j-b], so that X * (Y * v) = (X □ Y) * v.
//!
//! Shapes. [`Kernel1`] is [k, n_out, n_in], [`Kernel2`] is [kh, kw, n_out, n_in], signals are [s, n] and [h, w, n]
//! with the channel last. Rectangular matrices and kernels (kh != kw) are allowed.
//!
//! Orthogonality. With n_out >= n_in a kernel is orthogonal iff X * is an isometry on every image size, with
//! n_out < n_in iff its rows are orthonormal; see [`Kernel2::orthogonality_defect`].
//!
//! Errors. A kernel value is never empty and never holds NaN or an infinity: the constructors refuse both.
//!
//! Source. Li et al., "Preventing Gradient Attenuation in Lipschitz Constrained Convolutional Networks", section 2.

use ndarray::{Array, Array2, Array3, Array4, ArrayView2, ArrayView3, ArrayView4, Axis};
use projectors::Real;

use crate::autocorrelation::Autocorrelation;
use crate::error::{Error, Result};
use crate::{application, check, product};

/// A 1-D block kernel, [k, n_out, n_in].
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel1<T> {
    taps: Array3<T>,
}

/// A 2-D block kernel, [kh, kw, n_out, n_in].
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel2<T> {
    taps: Array4<T>,
}

impl<T: Real> Kernel1<T> {
    /// A kernel from its taps [k, n_out, n_in].
    ///
    /// # Errors
    /// [`Error::Empty`] when an extent is 0, [`Error::NonFinite`] for NaN or infinities.
    pub fn try_new(taps: Array3<T>) -> Result<Self> {
        check::not_empty("the kernel", &taps)?;
        check::finite("the kernel", &taps)?;
        Ok(Self { taps })
    }

    /// The taps [k, n_out, n_in].
    #[must_use]
    pub fn taps(&self) -> ArrayView3<'_, T> {
        self.taps.view()
    }

    /// The taps by value.
    #[must_use]
    pub fn into_taps(self) -> Array3<T> {
        self.taps
    }

    /// The number of taps, k.
    #[must_use]
    pub fn kernel_size(&self) -> usize {
        self.taps.dim().0
    }

    /// Output channels of every tap.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.taps.dim().1
    }

    /// Input channels of every tap.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.taps.dim().2
    }

    /// The block product `self` □ `right`, of size k + l - 1.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `self.n_in() != right.n_out()`, [`Error::NonFinite`] when the product overflows.
    pub fn block_product(&self, right: &Self) -> Result<Self> {
        Self::try_new(product::block_product(self.view4(), right.view4())?.remove_axis(Axis(1)))
    }

    /// The cyclic convolution `self` * `signal` of a signal [s, n_in]; the result is [s, n_out].
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for a wrong number of channels, [`Error::KernelExceedsImage`] when s < k.
    pub fn apply(&self, signal: ArrayView2<'_, T>) -> Result<Array2<T>> {
        check::fits_image(&[self.kernel_size()], &[signal.nrows()])?;
        Ok(application::apply(self.view4(), signal.insert_axis(Axis(1)))?.remove_axis(Axis(1)))
    }

    /// The transpose of [`apply`](Self::apply) as a linear map: [s, n_out] to [s, n_in].
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_adjoint(&self, signal: ArrayView2<'_, T>) -> Result<Array2<T>> {
        check::fits_image(&[self.kernel_size()], &[signal.nrows()])?;
        Ok(application::apply_adjoint(self.view4(), signal.insert_axis(Axis(1)))?
            .remove_axis(Axis(1)))
    }

    /// The adjoint kernel `X†[a] = X[k-1-a]ᵗ`: the transposed map delayed by k - 1.
    #[must_use]
    pub fn transpose(&self) -> Self {
        let adjoint = adjoint(self.view4());
        Self { taps: adjoint.remove_axis(Axis(1)) }
    }

    /// How far the kernel is from orthogonal; see [`Kernel2::orthogonality_defect`].
    #[must_use]
    pub fn orthogonality_defect(&self) -> f64 {
        Autocorrelation::on_small_side(self.view4()).defect()
    }

    /// Accepts a kernel whose defect is at most `tolerance`.
    ///
    /// # Errors
    /// [`Error::NotOrthogonal`] with the measured defect otherwise.
    pub fn check_orthogonal(&self, tolerance: f64) -> Result<()> {
        accept_defect(self.orthogonality_defect(), tolerance)
    }

    /// The kernel as a 2-D one of size k x 1.
    #[must_use]
    pub fn into_vertical(self) -> Kernel2<T> {
        Kernel2 { taps: self.taps.insert_axis(Axis(1)) }
    }

    pub(crate) fn view4(&self) -> ArrayView4<'_, T> {
        self.taps.view().insert_axis(Axis(1))
    }
}

impl<T: Real> Kernel2<T> {
    /// A kernel from its taps [kh, kw, n_out, n_in].
    ///
    /// # Errors
    /// [`Error::Empty`] when an extent is 0, [`Error::NonFinite`] for NaN or infinities.
    ///
    /// # Example
    /// ```
    /// use blockconv::{Error, Kernel2};
    /// use ndarray::Array4;
    ///
    /// let delay = Kernel2::try_new(Array4::<f64>::from_shape_fn((2, 1, 1, 1), |(i, ..)| i as f64)).unwrap();
    /// assert_eq!(delay.block_product(&delay).unwrap().kernel_size(), (3, 1));
    /// assert_eq!(delay.orthogonality_defect(), 0.0);
    /// assert!(matches!(Kernel2::<f64>::try_new(Array4::zeros((2, 2, 0, 3))), Err(Error::Empty { .. })));
    /// ```
    pub fn try_new(taps: Array4<T>) -> Result<Self> {
        check::not_empty("the kernel", &taps)?;
        check::finite("the kernel", &taps)?;
        Ok(Self { taps })
    }

    /// The taps [kh, kw, n_out, n_in].
    #[must_use]
    pub fn taps(&self) -> ArrayView4<'_, T> {
        self.taps.view()
    }

    /// The taps by value.
    #[must_use]
    pub fn into_taps(self) -> Array4<T> {
        self.taps
    }

    /// (kh, kw).
    #[must_use]
    pub fn kernel_size(&self) -> (usize, usize) {
        (self.taps.dim().0, self.taps.dim().1)
    }

    /// Output channels of every tap.
    #[must_use]
    pub fn n_out(&self) -> usize {
        self.taps.dim().2
    }

    /// Input channels of every tap.
    #[must_use]
    pub fn n_in(&self) -> usize {
        self.taps.dim().3
    }

    /// The block product `self` □ `right`, of size (kh + lh - 1, kw + lw - 1).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `self.n_in() != right.n_out()`, [`Error::NonFinite`] when the product overflows.
    pub fn block_product(&self, right: &Self) -> Result<Self> {
        Self::try_new(product::block_product(self.taps(), right.taps())?)
    }

    /// The cyclic convolution `self` * `image` of an image [h, w, n_in]; the result is [h, w, n_out].
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for a wrong number of channels, [`Error::KernelExceedsImage`] when h < kh or w < kw.
    pub fn apply(&self, image: ArrayView3<'_, T>) -> Result<Array3<T>> {
        application::apply(self.taps(), image)
    }

    /// The transpose of [`apply`](Self::apply) as a linear map: [h, w, n_out] to [h, w, n_in].
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_adjoint(&self, image: ArrayView3<'_, T>) -> Result<Array3<T>> {
        application::apply_adjoint(self.taps(), image)
    }

    /// The adjoint kernel `X†[a, b] = X[kh-1-a, kw-1-b]ᵗ`.
    ///
    /// It convolves as the transposed map delayed by (kh - 1, kw - 1):
    /// `(X† * u)[i, j] = (Xᵗ u)[i - (kh-1), j - (kw-1)]`.
    #[must_use]
    pub fn transpose(&self) -> Self {
        Self { taps: adjoint(self.taps()) }
    }

    /// How far the kernel is from orthogonal: Σ_s ‖G_s − δ_s I‖_F over its block autocorrelation G.
    ///
    /// `G_s = Σ_a X[a]ᵗ X[a+s]` when n_out >= n_in, otherwise `Σ_a X[a] X[a+s]ᵗ`. The kernel is orthogonal for every image
    /// size iff the sum is 0, and on every image at least as large as the kernel the operator M has
    /// ‖MᵗM − I‖₂ <= defect (MMᵗ when n_out < n_in). Computed in f64 for f32 kernels too; accurate to f64 rounding.
    #[must_use]
    pub fn orthogonality_defect(&self) -> f64 {
        Autocorrelation::on_small_side(self.taps()).defect()
    }

    /// Accepts a kernel whose [defect](Self::orthogonality_defect) is at most `tolerance`.
    ///
    /// # Errors
    /// [`Error::NotOrthogonal`] with the measured defect otherwise.
    pub fn check_orthogonal(&self, tolerance: f64) -> Result<()> {
        accept_defect(self.orthogonality_defect(), tolerance)
    }
}

/// Wraps taps that are finite and not empty by construction.
pub(crate) fn kernel_of<T>(taps: Array4<T>) -> Kernel2<T> {
    Kernel2 { taps }
}

fn accept_defect(defect: f64, tolerance: f64) -> Result<()> {
    if defect <= tolerance {
        return Ok(());
    }
    Err(Error::NotOrthogonal { defect, tolerance })
}

fn adjoint<T: Real>(taps: ArrayView4<'_, T>) -> Array4<T> {
    let mut flipped = taps;
    flipped.invert_axis(Axis(0));
    flipped.invert_axis(Axis(1));
    flipped.swap_axes(2, 3);
    Array::from_shape_vec(flipped.raw_dim(), flipped.iter().copied().collect())
        .expect("one element for each place")
}
