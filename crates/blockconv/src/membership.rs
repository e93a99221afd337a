//! Which orthogonal 2 x 2 kernels have the form of equation (5), and a certificate for those that have not.
//!
//! Definition. A member is W = H □ [P; I-P] □ [Q  I-Q], that is
//!
//! ```text
//! W[0, 0] = H P Q        W[0, 1] = H P (I-Q)
//! W[1, 0] = H (I-P) Q    W[1, 1] = H (I-P) (I-Q)
//! ```
//!
//! Forced factors. Of any kernel let S be the sum of all taps, R_i the sum of row i (over the second axis) and C_j the sum of
//! column j. For a member S = H, R_0 = H P and C_0 = H Q: the kernel determines its factors. For every orthogonal W,
//! member or not, S is orthogonal and Sᵗ R_0, Sᵗ C_0 are projectors, because R and C are orthogonal 1-D kernels of size 2. So a
//! kernel is a member iff W equals f(W), f(W)[i, j] = R_i Sᵗ C_j, the product of its forced factors.
//!
//! Counterexample. [Q  I-Q] □ [P; I-P] is orthogonal with `W[0, 0]` = QP and forced factors I, P, Q. It is a member iff
//! PQ = QP. Equation (5) is therefore not onto in 2-D, other than equation (4) in 1-D.
//!
//! Certificate. With residual r = ‖W - f(W)‖_F no member is closer to W than r / 9. Proof. Let W' = f(W') be a member at
//! distance δ in the Frobenius norm over all taps, and Δ the differences. The matrices R_i, S, C_j of orthogonal
//! kernels have spectral norm at most 1, so ‖f(W)[i, j] - f(W')[i, j]‖_F <= ‖ΔR_i‖_F + ‖ΔS‖_F + ‖ΔC_j‖_F. Each row sum has
//! two terms, so Σ_ij ‖ΔR_i‖² = 2 Σ_i ‖ΔR_i‖² <= 4 δ²; likewise for columns; ‖ΔS‖² <= 4 δ², four times. By
//! the triangle inequality ‖f(W) - f(W')‖ <= 2δ + 4δ + 2δ, and r <= δ + 8δ.
//!
//! Errors. [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for kernels that are not 2 x 2,
//! [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks), [`Error::NotOrthogonal`](crate::Error::NotOrthogonal).
//!
//! Source. Li et al., section 3 (the remark that equation (5) is incomplete).

use ndarray::{Array2, Array4, ArrayView2, Axis, s};
use projectors::grassmann::nearest_projector;
use projectors::polar::polar;
use projectors::{Projector, Real, gemm, haar_orthogonal};
use rand::Rng;

use crate::assembly::{assemble_1d, assemble_2d};
use crate::components::check_orthogonal2;
use crate::error::Result;
use crate::kernel::{Kernel1, Kernel2};
use crate::{check, tolerance};

/// The forced factors of a 2 x 2 kernel, and how far they are from making it.
#[derive(Clone, Debug)]
pub struct ForcedFactors<T> {
    /// The sum of all taps.
    pub h: Array2<T>,
    /// The vertical projector.
    pub p: Projector<T>,
    /// The horizontal projector.
    pub q: Projector<T>,
    /// Frobenius distance of the kernel to H □ [P; I-P] □ [Q  I-Q].
    pub residual: f64,
}

/// Whether an orthogonal 2 x 2 kernel has the form of equation (5).
#[derive(Clone, Debug)]
pub enum Membership<T> {
    /// It has, with these factors and no others.
    Member(ForcedFactors<T>),
    /// It has not: the only candidates for its factors do not make it.
    NonMember(ForcedFactors<T>),
}

impl<T: Real> Membership<T> {
    /// Whether the kernel is a member.
    #[must_use]
    pub fn is_member(&self) -> bool {
        matches!(self, Self::Member(_))
    }

    /// The only factors that a member with these row and column sums can have.
    #[must_use]
    pub fn forced_factors(&self) -> &ForcedFactors<T> {
        match self {
            Self::Member(factors) | Self::NonMember(factors) => factors,
        }
    }

    /// A distance, in the Frobenius norm over all taps, within which there is no member: residual / 9 for a non-member, else 0.
    #[must_use]
    pub fn distance_to_members(&self) -> f64 {
        match self {
            Self::Member(_) => 0.0,
            Self::NonMember(factors) => factors.residual / 9.0,
        }
    }
}

impl<T: Real> ForcedFactors<T> {
    /// ‖PQ - QP‖_F.
    #[must_use]
    pub fn commutator(&self) -> f64 {
        let pq = gemm::matmul(self.p.matrix(), self.q.matrix());
        frobenius((&pq - &pq.t()).iter())
    }
}

/// Decides whether an orthogonal 2 x 2 kernel has the form of equation (5).
///
/// # Errors
/// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch), [`Error::NonSquareBlocks`](crate::Error::NonSquareBlocks),
/// [`Error::NotOrthogonal`](crate::Error::NotOrthogonal).
///
/// # Example
/// ```
/// use blockconv::{Kernel2, membership::{membership, q_then_p}};
/// use ndarray::{Array2, array};
/// use projectors::Projector;
///
/// let p = Projector::try_new(array![[1.0, 0.0], [0.0, 0.0]]).unwrap();
/// let q = Projector::try_new(array![[0.5, 0.5], [0.5, 0.5]]).unwrap();
/// let kernel = q_then_p(Array2::eye(2).view(), &p, &q).unwrap();
/// assert!(kernel.orthogonality_defect() < 1e-15);
/// assert!(membership(&kernel).unwrap().distance_to_members() > 0.1);
/// // Projectors that commute may come in either order.
/// assert!(membership(&q_then_p(Array2::eye(2).view(), &p, &p).unwrap()).unwrap().is_member());
/// let single_tap = Kernel2::try_new(array![[[[1.0]]]]).unwrap();
/// assert!(membership(&single_tap).is_err());
/// ```
pub fn membership<T: Real>(kernel: &Kernel2<T>) -> Result<Membership<T>> {
    let (n_out, n_in) = (kernel.n_out(), kernel.n_in());
    check::shape("the kernel", &[2, 2, n_out, n_in], kernel.taps().shape())?;
    check_orthogonal2(kernel)?;
    let factors = forced_factors(kernel)?;
    let member = factors.residual <= tolerance::orthogonal::<T>(n_in, 4);
    Ok(if member { Membership::Member(factors) } else { Membership::NonMember(factors) })
}

fn forced_factors<T: Real>(kernel: &Kernel2<T>) -> Result<ForcedFactors<T>> {
    let (rows, columns) = (kernel.taps().sum_axis(Axis(1)), kernel.taps().sum_axis(Axis(0)));
    let h = polar(rows.sum_axis(Axis(0)).view())?.into_factor();
    let projector = |sum: ArrayView2<'_, T>| {
        let p = gemm::matmul(h.t(), sum);
        nearest_projector((&p + &p.t()).mapv(|x| x * T::of(0.5)).view())
    };
    let p = projector(rows.index_axis(Axis(0), 0))?;
    let q = projector(columns.index_axis(Axis(0), 0))?;
    let product = assemble_2d(h.view(), std::slice::from_ref(&p), std::slice::from_ref(&q))?;
    let residual = frobenius((&product.taps() - &kernel.taps()).iter());
    Ok(ForcedFactors { h, p, q, residual })
}

/// H □ [Q  I-Q] □ [P; I-P]: equation (5) with the factors in the other order.
///
/// # Errors
/// As [`assemble_2d`].
pub fn q_then_p<T: Real>(
    h: ArrayView2<'_, T>,
    p: &Projector<T>,
    q: &Projector<T>,
) -> Result<Kernel2<T>> {
    let horizontal = assemble_1d(h, std::slice::from_ref(q))?;
    let identity = Array2::eye(h.nrows());
    let vertical = assemble_1d(identity.view(), std::slice::from_ref(p))?.into_vertical();
    into_horizontal(&horizontal)?.block_product(&vertical)
}

fn into_horizontal<T: Real>(kernel: &Kernel1<T>) -> Result<Kernel2<T>> {
    let (k, n_out, n_in) = kernel.taps().dim();
    let mut taps = Array4::zeros((1, k, n_out, n_in));
    taps.slice_mut(s![0, .., .., ..]).assign(&kernel.taps());
    Kernel2::try_new(taps)
}

/// How many random kernels are members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Census {
    /// Kernels drawn in each of the two orders.
    pub draws: usize,
    /// Members among the kernels H □ [P; I-P] □ [Q  I-Q].
    pub p_then_q: usize,
    /// Members among the kernels H □ [Q  I-Q] □ [P; I-P].
    pub q_then_p: usize,
}

impl Census {
    /// The fraction of members among all kernels drawn, both orders together.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        (self.p_then_q + self.q_then_p) as f64 / (2 * self.draws) as f64
    }
}

/// Counts members among random 2 x 2 kernels with n x n blocks, both orders: H Haar distributed, the ranks of P and Q uniform
/// on 0..=n, P and Q uniform on their Grassmannians.
///
/// P then Q are members always. Q then P are iff PQ = QP, which happens with probability 0 unless one of the ranks is 0 or n: the
/// expected fraction among them is 1 - ((n-1)/(n+1))².
///
/// # Errors
/// [`Error::Empty`](crate::Error::Empty) for n = 0.
pub fn census(n: usize, draws: usize, rng: &mut (impl Rng + ?Sized)) -> Result<Census> {
    let mut census = Census { draws, p_then_q: 0, q_then_p: 0 };
    for _ in 0..draws {
        let h = haar_orthogonal::<f64>(n, rng);
        let ranks = [rng.random_range(0..=n), rng.random_range(0..=n)];
        let (p, q) = (Projector::random(n, ranks[0], rng)?, Projector::random(n, ranks[1], rng)?);
        let in_order = assemble_2d(h.view(), std::slice::from_ref(&p), std::slice::from_ref(&q))?;
        census.p_then_q += usize::from(membership(&in_order)?.is_member());
        census.q_then_p += usize::from(membership(&q_then_p(h.view(), &p, &q)?)?.is_member());
    }
    Ok(census)
}

fn frobenius<'a, T: Real>(entries: impl Iterator<Item = &'a T>) -> f64 {
    entries.map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt()
}
