//! Argument checks shared by the public functions: emptiness, finiteness, square blocks, kernel against image.

use ndarray::{ArrayRef, Dimension};
use projectors::Real;

use crate::error::{Error, Result};

pub(crate) fn not_empty<T, D: Dimension>(what: &'static str, a: &ArrayRef<T, D>) -> Result<()> {
    if a.is_empty() {
        return Err(Error::Empty { what, shape: a.shape().to_vec() });
    }
    Ok(())
}

pub(crate) fn finite<T: Real, D: Dimension>(what: &'static str, a: &ArrayRef<T, D>) -> Result<()> {
    // no early exit: a conjunction over all elements vectorises where a search does not
    let all = |ok: bool, x: &T| ok & num_traits::Float::is_finite(*x);
    let finite = match a.as_slice_memory_order() {
        Some(xs) => xs.iter().fold(true, all),
        None => a.iter().fold(true, all),
    };
    if finite { Ok(()) } else { Err(Error::NonFinite { what }) }
}

pub(crate) fn square(what: &'static str, rows: usize, cols: usize) -> Result<()> {
    if rows != cols {
        return Err(Error::NonSquareBlocks { what, rows, cols });
    }
    Ok(())
}

pub(crate) fn shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected != got {
        return Err(Error::ShapeMismatch { what, expected: expected.to_vec(), got: got.to_vec() });
    }
    Ok(())
}

pub(crate) fn fits_image(kernel: &[usize], image: &[usize]) -> Result<()> {
    if kernel.iter().zip(image).any(|(k, s)| s < k) {
        return Err(Error::KernelExceedsImage { kernel: kernel.to_vec(), image: image.to_vec() });
    }
    Ok(())
}
