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
//! W = U diag(sigma) V^-1 holds to rounding whatever sigma and V are, so that Q = U B^T with B = V C can be found without
//! another decomposition. Q is the polar factor if and only if Q^T Q = I and Q^T W is symmetric (and positive). With M = U^T U and
//! N = V^T V - I, which is of the size of the rounding error and kept to first order, both vanish with
//!
//! ```text
//! O = C M C^T + N - I,    A_ij = (C M)_ij sigma_j - sigma_i (C M)_ji + N_ij (sigma_j - sigma_i),
//! ```
//!
//! and one Newton step for O = 0, A = 0 is a division, because C M diag(sigma) is nearly diagonal:
//!
//! ```text
//! C <- (I - D) C,    D_ij = (A_ij + sigma_i O_ij) / (sigma_i + sigma_j),    starting from C = I, where D_ij = T_ij sigma_j / (sigma_i + sigma_j).
//! ```
//!
//! Each step squares what is wrong: it leaves |Q^T Q - I|_F <= 3 |D|_F^2 + rounding, and Q is then the polar factor to
//! eps times the condition number of W (not of W^T W). All steps are on the small side. The inverse square root is
//! S = (W^T W)^-1/2 = B diag(1/sigma) V^T to first order in T.
//!
//! Cost: 1.5 passes over W for W^T W and U, half a pass for U^T U, one eigendecomposition and a product of n x n
//! matrices, three more for each step after the first (one to three where the condition number of W is 50 to 500 in f32).
//!
//! Source: Newton's method on the two equations that define the polar factor; its first step is the first-order perturbation in
//! Higham, "Functions of Matrices" (2008), section 8.2.

use ndarray::{Array1, Array2, ArrayView2, Zip};
use num_traits::Float;

use super::sylvester::Spectrum;
use super::tall::Tall;
use crate::error::{Error, Result};
use crate::gemm::oriented_product;
use crate::{Real, dense, gemm, lapack, tolerance};

/// Largest |D|_F that is corrected.
const MAX_DEFECT: f64 = 0.3;
/// Steps of correction; each squares |D|_F.
const MAX_STEPS: usize = 6;
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
        Ok(singular_vectors(gram)?.and_then(|known| Self::corrected(w, known, tolerance)))
    }

    /// The form of W with the singular values and vectors that its Gram matrix gave; `None` where they are too far off.
    pub(super) fn corrected(
        w: ArrayView2<'_, T>,
        (sigma, v): (Array1<T>, Array2<T>),
        tolerance: f64,
    ) -> Option<Self> {
        let scaled = &v / &sigma;
        let basis = oriented_product(w, scaled.view());
        let correction = Self::correct(&basis, &v, &sigma, tolerance)?;
        Some(Self { basis, v, correction, sigma })
    }

    /// F = I - C, from as many Newton steps as the tolerance asks for; `None` where D is too large.
    fn correct(
        basis: &Array2<T>,
        v: &Array2<T>,
        sigma: &Array1<T>,
        tolerance: f64,
    ) -> Option<Array2<T>> {
        let metric = gemm::gram(basis.view());
        let mut own = gemm::gram(v.view());
        dense::add_diagonal(&mut own, -T::one());
        let mut correction = newton_step(&metric, &metric, &own, sigma);
        let mut size = dense::frobenius(correction.view());
        for _ in 1..MAX_STEPS {
            if dense::exceeds(size, MAX_DEFECT) {
                return None;
            }
            if 3.0 * size * size <= tolerance {
                return Some(correction);
            }
            // (C M)^T and C M C^T
            let left = corrected(metric.view(), correction.view());
            let both = corrected(left.t(), correction.view());
            let step = newton_step(&left.reversed_axes(), &both, &own, sigma);
            size = dense::frobenius(step.view());
            // I - (I - D)(I - F)
            let product = gemm::matmul(step.view(), correction.view());
            correction += &step;
            correction -= &product;
        }
        None
    }

    /// The form of a W for whose conditioning this element type does not do: in f64, or through a singular value decomposition,
    /// whichever first brings what the correction leaves, 3 |T|_F^2, below `tolerance`.
    ///
    /// # Errors
    /// [`Error::RankDeficient`].
    pub(super) fn in_double(w: ArrayView2<'_, T>, tolerance: f64) -> Result<Self> {
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

/// Singular values of a tall W, and its right singular vectors as columns, from its Gram matrix; `None` where that has no
/// trustworthy small eigenvalues.
pub(super) fn singular_vectors<T: Real>(
    gram: ArrayView2<'_, T>,
) -> Result<Option<(Array1<T>, Array2<T>)>> {
    let (lambda, v) = lapack::eigh(gram)?;
    let (lowest, highest) = (lambda[0].as_f64(), lambda[lambda.len() - 1].as_f64());
    if lowest.is_nan() || lowest * MAX_RELATIVE_CONDITION <= highest * T::EPS {
        return Ok(None);
    }
    Ok(Some((lambda.mapv(Float::sqrt), v)))
}

/// D from C M, C M C^T and N.
fn newton_step<T: Real>(
    cm: &Array2<T>,
    cmc: &Array2<T>,
    own: &Array2<T>,
    sigma: &Array1<T>,
) -> Array2<T> {
    let mut step = Array2::zeros(cm.dim());
    for (i, mut row) in step.rows_mut().into_iter().enumerate() {
        let s = sigma[i];
        let skew = row.iter_mut().zip(cm.row(i)).zip(cm.column(i)).zip(sigma);
        for (((d, &cm), &mc), &u) in skew {
            *d = cm * u - mc * s;
        }
        Zip::from(&mut row).and(cmc.row(i)).and(own.row(i)).and(sigma).for_each(|d, &o, &n, &u| {
            *d = (*d + s * o + u * n) / (s + u);
        });
        // s (o - 1) on the diagonal
        row[i] -= T::of(0.5);
    }
    step
}

/// `a (I - F)^T`
pub(super) fn corrected<T: Real>(a: ArrayView2<'_, T>, correction: ArrayView2<'_, T>) -> Array2<T> {
    let mut product = a.as_standard_layout().into_owned();
    gemm::matmul_into(-T::one(), a, correction.t(), T::one(), product.view_mut());
    product
}
