//! The label of a kernel from its determinant on the unit circle, without knowledge of any factors.
//!
//! Method. det A is evaluated at z_m = e^{iπ m/N}, m = 0, …, N, N = 2(k-1)n + 1, by an LU decomposition each. As det A =
//! sign z^d with d <= (k-1)n, the argument turns by at most π/2 from one point to the next, so that the sum of the turns, each taken
//! in (-π, π], is exactly π d up to rounding: the winding over the whole circle is twice that over the upper half, where
//! conjugate symmetry puts the rest. The sign is that of det A(1).
//!
//! In 2-D the winding in y is that of the 1-D kernel A(y, 1), the sums of the taps over the second axis, and likewise in z; both
//! are orthogonal because A(y, z) is unitary on the whole torus.
//!
//! Guarantee. Exact for a kernel that passes the check of orthogonality. [`Measured::deviation`] says how far the sampled
//! determinants are from sign z^d.
//!
//! Cost. 2(k-1)n + 2 complex LU decompositions per axis: about 16/3 (k-1) n⁴ flops.

use ndarray::{Array2, ArrayView2, Axis};
use ndarray_linalg::DeterminantInto;
use num_complex::Complex64;
use projectors::{Real, gemm};
use std::f64::consts::PI;

use super::label::{Label1, Label2, Sign};
use crate::error::{Error, Result};
use crate::factorisation::check_orthogonal;
use crate::kernel::{Kernel1, Kernel2};
use crate::{check, tolerance};

/// A label and how well the determinant agrees with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured<L> {
    /// The label.
    pub label: L,
    /// The largest |det A - sign z^d| over the sampled points.
    pub deviation: f64,
}

/// The label of an orthogonal 1-D kernel.
///
/// # Errors
/// As [`measure_1d`].
///
/// # Example
/// ```
/// use blockconv::{Error, Kernel1, components::{Label1, Sign, label_1d}};
/// use ndarray::array;
///
/// // Channel 0 changes its sign, channel 1 is delayed by one step: det A(z) = -z.
/// let kernel = Kernel1::try_new(array![[[-1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]]).unwrap();
/// assert_eq!(label_1d(&kernel).unwrap(), Label1 { sign: Sign::Minus, degree: 1 });
/// let average = Kernel1::try_new(array![[[0.5]], [[0.5]]]).unwrap();
/// assert!(matches!(label_1d(&average), Err(Error::NotOrthogonal { .. })));
/// ```
pub fn label_1d<T: Real>(kernel: &Kernel1<T>) -> Result<Label1> {
    measure_1d(kernel).map(|measured| measured.label)
}

/// The label of an orthogonal 2-D kernel; kh and kw may differ.
///
/// # Errors
/// As [`measure_2d`].
pub fn label_2d<T: Real>(kernel: &Kernel2<T>) -> Result<Label2> {
    measure_2d(kernel).map(|measured| measured.label)
}

/// The label of an orthogonal 1-D kernel with the deviation of the determinant.
///
/// # Errors
/// [`Error::NonSquareBlocks`], [`Error::NotOrthogonal`].
pub fn measure_1d<T: Real>(kernel: &Kernel1<T>) -> Result<Measured<Label1>> {
    check_orthogonal(kernel)?;
    wind(kernel)
}

/// The label of an orthogonal 2-D kernel with the larger of the deviations along both axes.
///
/// # Errors
/// [`Error::NonSquareBlocks`], [`Error::NotOrthogonal`].
pub fn measure_2d<T: Real>(kernel: &Kernel2<T>) -> Result<Measured<Label2>> {
    check_orthogonal2(kernel)?;
    let vertical = wind(&Kernel1::try_new(kernel.taps().sum_axis(Axis(1)))?)?;
    let horizontal = wind(&Kernel1::try_new(kernel.taps().sum_axis(Axis(0)))?)?;
    let label = Label2 {
        sign: vertical.label.sign,
        vertical: vertical.label.degree,
        horizontal: horizontal.label.degree,
    };
    Ok(Measured { label, deviation: vertical.deviation.max(horizontal.deviation) })
}

/// The kernel has square blocks and is orthogonal to rounding.
pub(crate) fn check_orthogonal2<T: Real>(kernel: &Kernel2<T>) -> Result<()> {
    check::square("the kernel", kernel.n_out(), kernel.n_in())?;
    let (kh, kw) = kernel.kernel_size();
    kernel.check_orthogonal(tolerance::orthogonal::<T>(kernel.n_in(), kh * kw))
}

fn wind<T: Real>(kernel: &Kernel1<T>) -> Result<Measured<Label1>> {
    gemm::single_threaded_blas();
    let steps = 2 * (kernel.kernel_size() - 1) * kernel.n_in() + 1;
    let taps: Vec<_> = kernel.taps().outer_iter().map(|tap| tap.mapv(|x| x.as_f64())).collect();
    let sample = |m: usize| determinant(&taps, m, Complex64::cis(PI * m as f64 / steps as f64));
    let values = (0..=steps).map(sample).collect::<Result<Vec<_>>>()?;
    let turns: f64 = values.windows(2).map(|pair| (pair[1] * pair[0].conj()).arg()).sum();
    let label =
        Label1 { sign: Sign::of(values[0].re), degree: (turns / PI).round().max(0.0) as usize };
    let expected = |m: usize| {
        let turn = (m * label.degree) % (2 * steps);
        label.sign.value() * Complex64::cis(PI * turn as f64 / steps as f64)
    };
    let errors = values.iter().enumerate().map(|(m, value)| (value - expected(m)).norm());
    Ok(Measured { label, deviation: errors.fold(0.0, f64::max) })
}

/// det Σ X[i] zⁱ.
fn determinant(taps: &[Array2<f64>], point: usize, z: Complex64) -> Result<Complex64> {
    let mut sum = complex(taps[taps.len() - 1].view());
    for tap in taps.iter().rev().skip(1) {
        sum.zip_mut_with(tap, |s, &x| *s = *s * z + x);
    }
    sum.det_into().map_err(|error| Error::Lapack {
        routine: "the determinant",
        row: point,
        col: 0,
        message: error.to_string(),
    })
}

fn complex(a: ArrayView2<'_, f64>) -> Array2<Complex64> {
    a.mapv(|x| Complex64::new(x, 0.0))
}
