//! Kernels of every label: one canonical, and random ones.
//!
//! Canonical. Channel i is delayed by d_i steps, where the degree d is dealt out to the channels in turn: d_i = ⌈(d - i) / n⌉,
//! i = 0, …, n-1. So Σ d_i = d, no two d_i differ by more than 1, and d_i <= k-1. The sign sits in channel 0. In 2-D both
//! axes have delays of their own. Entries are 0, 1 and -1, and the kernel is orthogonal exactly.
//!
//! Random. H is Haar distributed among the orthogonal matrices of the sign; the degree is split at random into coranks of
//! k - 1 projectors, each then uniform on its Grassmannian; assembled by equation (4) or (5).

use ndarray::{Array2, Array3, Array4};
use projectors::{Projector, Real, haar_orthogonal};
use rand::Rng;

use super::label::{Label1, Label2, Sign};
use crate::assembly::{assemble_1d, assemble_2d};
use crate::error::{Error, Result};
use crate::kernel::{Kernel1, Kernel2};

/// The canonical 1-D kernel of a label, of size k with n x n blocks.
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) for n or k 0, [`Error::DegreeOutOfRange`](crate::Error::DegreeOutOfRange) for a
/// degree above (k-1)n.
pub fn representative_1d<T: Real>(label: Label1, n: usize, k: usize) -> Result<Kernel1<T>> {
    check_degree(label.degree, n, k)?;
    let mut taps = Array3::zeros((k, n, n));
    for channel in 0..n {
        taps[[delay(label.degree, channel, n), channel, channel]] = gain(label.sign, channel);
    }
    Kernel1::try_new(taps)
}

/// The canonical 2-D kernel of a label, k x k with n x n blocks; it has the form of equation (5).
///
/// # Errors
/// As [`representative_1d`], for each degree.
///
/// # Example
/// ```
/// use blockconv::components::{label_2d, labels_2d, representative_2d};
///
/// assert_eq!(labels_2d(3, 2).count(), 2 * 4 * 4);
/// for label in labels_2d(3, 2) {
///     assert_eq!(label_2d(&representative_2d::<f64>(label, 3, 2).unwrap()).unwrap(), label);
/// }
/// let too_large = labels_2d(4, 2).last().unwrap();
/// assert!(representative_2d::<f64>(too_large, 3, 2).is_err());
/// ```
pub fn representative_2d<T: Real>(label: Label2, n: usize, k: usize) -> Result<Kernel2<T>> {
    check_degree(label.vertical, n, k)?;
    check_degree(label.horizontal, n, k)?;
    let mut taps = Array4::zeros((k, k, n, n));
    for channel in 0..n {
        let tap = (delay(label.vertical, channel, n), delay(label.horizontal, channel, n));
        taps[[tap.0, tap.1, channel, channel]] = gain(label.sign, channel);
    }
    Kernel2::try_new(taps)
}

/// A random 1-D kernel of a label, of size k with n x n blocks.
///
/// # Errors
/// As [`representative_1d`].
pub fn random_1d<T: Real>(
    label: Label1,
    n: usize,
    k: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Kernel1<T>> {
    check_degree(label.degree, n, k)?;
    let h = random_orthogonal::<T>(label.sign, n, rng);
    assemble_1d(h.view(), &random_projectors(label.degree, n, k, rng)?)
}

/// A random 2-D kernel of a label and of the form of equation (5), k x k with n x n blocks.
///
/// # Errors
/// As [`representative_2d`].
pub fn random_2d<T: Real>(
    label: Label2,
    n: usize,
    k: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Kernel2<T>> {
    check_degree(label.vertical, n, k)?;
    check_degree(label.horizontal, n, k)?;
    let h = random_orthogonal::<T>(label.sign, n, rng);
    let ps = random_projectors(label.vertical, n, k, rng)?;
    assemble_2d(h.view(), &ps, &random_projectors(label.horizontal, n, k, rng)?)
}

/// d_i = ⌈(d - i) / n⌉, and 0 for i >= d.
pub(super) fn delay(degree: usize, channel: usize, n: usize) -> usize {
    degree.saturating_sub(channel).div_ceil(n)
}

fn gain<T: Real>(sign: Sign, channel: usize) -> T {
    T::of(if channel == 0 { sign.value() } else { 1.0 })
}

/// Haar distributed with the given determinant: the determinant is measured, and a row is negated where it is the other.
fn random_orthogonal<T: Real>(sign: Sign, n: usize, rng: &mut (impl Rng + ?Sized)) -> Array2<T> {
    let mut h = haar_orthogonal::<T>(n, rng);
    let determinant = super::rotation::determinant_of_orthogonal(h.mapv(|x| x.as_f64()));
    if Sign::of(determinant) != sign {
        h.row_mut(0).mapv_inplace(|x| -x);
    }
    h
}

/// k - 1 projectors whose coranks are at most n and add up to the degree.
fn random_projectors<T: Real>(
    degree: usize,
    n: usize,
    k: usize,
    rng: &mut (impl Rng + ?Sized),
) -> Result<Vec<Projector<T>>> {
    let mut left = degree;
    let projectors = (1..k).rev().map(|remaining| {
        let most_elsewhere = (remaining - 1) * n;
        let corank = rng.random_range(left.saturating_sub(most_elsewhere)..=left.min(n));
        left -= corank;
        Ok(Projector::random(n, n - corank, rng)?)
    });
    projectors.collect()
}

/// The degree exists for kernels of size k >= 1 with n x n blocks, n >= 1.
fn check_degree(degree: usize, n: usize, k: usize) -> Result<()> {
    if n == 0 || k == 0 {
        return Err(Error::Empty { what: "the kernel", shape: vec![k, n, n] });
    }
    if degree > (k - 1) * n {
        return Err(Error::DegreeOutOfRange { degree, k, n });
    }
    Ok(())
}
