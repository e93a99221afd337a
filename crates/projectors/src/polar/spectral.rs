//! The polar factor of a tall matrix through the eigenvectors of its Gram matrix, corrected on the long side.
//!
//! With W^T W = V diag(sigma^2) V^T in exact arithmetic, U = W V diag(1/sigma) has orthonormal columns and the polar
//! factor is Q = U V^T. In rounded arithmetic the Gram matrix has lost eps times its condition number of the small singular
//! directions, and what is measured is
//!
//! ```text
//! T = (U^T U - I) + (V^T V - I).
//! ```
//!
//! Since W = U diag(sigma) V^-1 holds to rounding whatever sigma and V are, T can be taken out to first order without
//! another decomposition. Writing V = R (I + N/2) and U = Q' (I + E/2) with R, Q' orthonormal, W = Q' K R^T with the nearly
//! diagonal K = (I + E/2) diag(sigma) (I - N/2), whose polar factor is I + Omega, Omega_ij = (E + N)_ij (sigma_j - sigma_i) / (2 (sigma_i +
//! sigma_j)). Together
//!
//! ```text
//! Q = U B^T,   B = V (I - F),   F_ij = T_ij sigma_j / (sigma_i + sigma_j),   S = (W^T W)^-1/2 = B diag(1/sigma) V^T.
//! ```
//!
//! F + F^T = T, hence |Q^T Q - I|_F <= 3 |T|_F^2 + rounding, and Q is the polar factor to the second order in T and to
//! eps times the condition number of W (not of W^T W). Where 3 |T|_F^2 still shows, T' = (I - F) U^T U (I - F)^T + V^T V - 2I,
//! of size |T|^2, gives a second increment of F by the same formula, on the small side alone.
//!
//! Cost: 1.5 passes over W for W^T W and U, half a pass for U^T U, one eigendecomposition and two products of n x n
//! matrices (four with a second round), whatever the conditioning.
//!
//! Source: first-order perturbation of the polar factor, Higham, "Functions of Matrices" (2008), section 8.2.

use ndarray::{Array1, Array2, ArrayView2, Zip};
use num_traits::Float;

use super::forward::Tall;
use super::sylvester::Spectrum;
use crate::error::{Error, Result};
use crate::gemm::oriented_product;
use crate::{Real, dense, gemm, lapack, tolerance};

/// Largest |T|_F that is corrected.
const MAX_DEFECT: f64 = 0.05;
/// Rounds of correction; each gains a factor of about |T|_F.
const MAX_ROUNDS: usize = 3;
/// The Gram matrix of a larger condition number in units of 1/eps has no trustworthy small eigenvalues.
const MAX_RELATIVE_CONDITION: f64 = 0.05;

/// The corrected decomposition of a tall W.
#[derive(Debug, Clone)]
pub(super) struct SpectralForm<T> {
    /// U, m x n, in the memory order of W.
    pub(super) basis: Array2<T>,
    /// V, n x n.
    pub(super) v: Array2<T>,
    /// F, n x n.
    pub(super) correction: Array2<T>,
    /// Singular values.
    pub(super) sigma: Array1<T>,
}

impl<T: Real> SpectralForm<T> {
    /// Decomposes W, whose Gram matrix is `gram`; `None` where it is too ill-conditioned for this element type.
    pub(super) fn new(
        w: ArrayView2<'_, T>,
        gram: ArrayView2<'_, T>,
        tolerance: f64,
    ) -> Result<Option<Self>> {
        let (lambda, v) = lapack::eigh(gram)?;
        let (lowest, highest) = (lambda[0].as_f64(), lambda[lambda.len() - 1].as_f64());
        if lowest.is_nan() || lowest * MAX_RELATIVE_CONDITION <= highest * T::EPS {
            return Ok(None);
        }
        let sigma = lambda.mapv(Float::sqrt);
        let scaled = &v / &sigma;
        let basis = oriented_product(w, scaled.view());
        let correction = Self::correct(&basis, &v, &sigma, tolerance);
        Ok(correction.map(|correction| Self { basis, v, correction, sigma }))
    }

    /// F, from as many rounds as the tolerance asks for; `None` where T is too large.
    fn correct(
        basis: &Array2<T>,
        v: &Array2<T>,
        sigma: &Array1<T>,
        tolerance: f64,
    ) -> Option<Array2<T>> {
        let metric = gemm::gram(basis.view());
        let mut own = gemm::gram(v.view());
        dense::add_diagonal(&mut own, T::of(-2.0));
        let mut t = &metric + &own;
        let first = dense::frobenius(t.view());
        let mut correction = Array2::zeros(t.dim());
        for _ in 0..MAX_ROUNDS {
            let defect = dense::frobenius(t.view());
            if dense::exceeds(defect, MAX_DEFECT) {
                return None;
            }
            let rows = correction.rows_mut().into_iter().zip(t.rows()).zip(sigma);
            for ((mut row, t), &s) in rows {
                Zip::from(&mut row).and(&t).and(sigma).for_each(|f, &t, &u| *f += t * u / (s + u));
            }
            if 3.0 * first * defect <= tolerance {
                return Some(correction);
            }
            // (I - F)(U^T U)(I - F)^T + V^T V - 2 I
            let left = corrected(metric.view(), correction.view());
            t = corrected(left.t(), correction.view());
            t += &own;
        }
        None
    }

    /// The form of a W of any conditioning: in this element type, in f64, or through a singular value decomposition,
    /// whichever first brings what the correction leaves, 3 |T|_F^2, below `tolerance`.
    ///
    /// # Errors
    /// [`Error::RankDeficient`].
    pub(super) fn of(w: ArrayView2<'_, T>, tolerance: f64) -> Result<Self> {
        if let Some(form) = Self::new(w, gemm::gram(w).view(), tolerance)? {
            return Ok(form);
        }
        let double = dense::convert::<T, f64>(w);
        let gram = gemm::gram(double.view());
        if let Some(form) = SpectralForm::<f64>::new(double.view(), gram.view(), tolerance)? {
            return Ok(form.converted());
        }
        SpectralForm::decompose(double.view()).map(SpectralForm::converted)
    }

    /// By the singular value decomposition W = U diag(sigma) V^T, for any conditioning.
    ///
    /// # Errors
    /// [`Error::RankDeficient`].
    pub(super) fn decompose(w: ArrayView2<'_, T>) -> Result<Self> {
        let (m, n) = w.dim();
        let (basis, sigma, vt) = lapack::svd(w)?;
        let smallest = sigma[0].as_f64() * tolerance::rank::<T>(m, n);
        let rank = sigma.iter().filter(|s| s.as_f64() > smallest).count();
        if rank < n {
            return Err(Error::RankDeficient { what: "matrix", rank, expected: n });
        }
        let correction = Array2::zeros((n, n));
        Ok(Self { basis, v: vt.reversed_axes(), correction, sigma })
    }

    fn converted<U: Real>(self) -> SpectralForm<U> {
        SpectralForm {
            basis: dense::convert(self.basis.view()),
            v: dense::convert(self.v.view()),
            correction: dense::convert(self.correction.view()),
            sigma: self.sigma.mapv(|s| U::of(s.as_f64())),
        }
    }

    /// B = V (I - F).
    pub(super) fn rotation(&self) -> Array2<T> {
        let v = self.v.view();
        let mut rotation = v.as_standard_layout().into_owned();
        gemm::matmul_into(-T::one(), v, self.correction.view(), T::one(), rotation.view_mut());
        rotation
    }

    /// The explicit factorisation, with its defect measured and brought to `tolerance`.
    pub(super) fn into_tall(self, tolerance: f64) -> Tall<T> {
        let rotation = self.rotation();
        let factor = oriented_product(self.basis.view(), rotation.t());
        let inverse_sqrt = gemm::matmul((&rotation / &self.sigma).view(), self.v.t());
        let mut tall = Tall {
            factor,
            inverse_sqrt,
            spectrum: Spectrum::Known { v: self.v, values: self.sigma },
            iterations: 0,
            residual: 0.0,
        };
        dense::symmetrise(&mut tall.inverse_sqrt);
        tall.reorthonormalise(tolerance);
        tall
    }
}

/// `a (I - F)^T`
pub(super) fn corrected<T: Real>(a: ArrayView2<'_, T>, correction: ArrayView2<'_, T>) -> Array2<T> {
    let mut product = a.as_standard_layout().into_owned();
    gemm::matmul_into(-T::one(), a, correction.t(), T::one(), product.view_mut());
    product
}
