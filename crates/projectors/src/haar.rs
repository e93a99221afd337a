//! Orthogonal matrices and orthonormal frames drawn from the uniform (Haar) measure.
//!
//! If Z is n x k with independent standard normal entries and Z = QR with a positive diagonal of R, then Q is
//! distributed uniformly on the Stiefel manifold of orthonormal k-frames. Householder QR fixes the signs of R's
//! diagonal arbitrarily, so they are moved into Q; without that step the law is not uniform.
//!
//! Guarantee: columns orthonormal to a few eps whatever n. Cost: about 4 n k^2 flops and n k normal draws, made in
//! `f64` in row order, so `f32` and `f64` see the same draws. Source: Mezzadri, "How to generate random matrices from
//! the classical compact groups", Notices AMS 54 (2007).

use ndarray::{Array2, Zip};
use num_traits::Float;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::Real;
use crate::error::{Error, Result};
use crate::lapack;

/// An n x n orthogonal matrix from the Haar measure; n = 0 gives the empty matrix.
///
/// ```
/// use rand_chacha::rand_core::SeedableRng;
/// let q = projectors::haar_orthogonal::<f64>(5, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0));
/// let defect = &q.t().dot(&q) - &ndarray::Array2::<f64>::eye(5);
/// assert!(defect.iter().all(|x| x.abs() < 1e-14));
/// ```
#[must_use]
pub fn haar_orthogonal<T: Real>(n: usize, rng: &mut (impl Rng + ?Sized)) -> Array2<T> {
    haar_frame(n, n, rng).expect("a square frame always exists")
}

/// An n x k matrix with orthonormal columns from the Haar measure, 0 <= k <= n.
///
/// # Errors
/// [`Error::RankOutOfRange`] if k > n.
pub fn haar_frame<T: Real>(n: usize, k: usize, rng: &mut (impl Rng + ?Sized)) -> Result<Array2<T>> {
    if k > n {
        return Err(Error::RankOutOfRange { rank: k, n });
    }
    let normal = Array2::from_shape_simple_fn((n, k), || {
        let z: f64 = StandardNormal.sample(rng);
        T::of(z)
    });
    if normal.is_empty() {
        return Ok(normal);
    }
    let (mut q, r) = lapack::qr(normal.view())?;
    Zip::from(q.columns_mut()).and(r.diag()).for_each(|mut column, &pivot| {
        if Float::is_sign_negative(pivot) {
            column.mapv_inplace(|x| -x);
        }
    });
    Ok(q)
}
