//! The polar factor of a tall matrix: which method, and when to trust it.

use ndarray::{Array2, ArrayView1, ArrayView2};
use num_traits::Float;

use super::approximation::{Interval, Plan};
use super::sylvester::Spectrum;
use crate::error::{Error, Result};
use crate::gemm::oriented_product;
use crate::{Real, dense, gemm, lanczos, lapack, tolerance};

/// Up to this size of the small side an eigendecomposition is as fast as polynomials, and gives more.
const SMALL: usize = 32;
/// Relative residual at which the ends of the spectrum count as known, and the steps allowed to get there.
const LANCZOS_ACCURACY: f64 = 0.05;
const MAX_LANCZOS_STEPS: usize = 90;
/// Corrections of the inverse square root before another method is tried.
const MAX_CORRECTIONS: usize = 12;
/// Factor per correction above which `f32` orthonormalises the factor itself instead.
const SLOW: f64 = 0.3;
/// The defect is measured on Q itself where Q is at most this many times longer than wide, or G has a larger condition
/// number than this; on S G S otherwise, which does not see the rounding error of G times its condition number.
const FULL_SIDE_RATIO: usize = 4;
const FULL_SIDE_CONDITION: f64 = 16.0;

/// The factorisation of a tall W = Q H.
#[derive(Debug, Clone)]
pub(super) struct Tall<T> {
    /// Q.
    pub(super) factor: Array2<T>,
    /// S = (W^T W)^-1/2 = H^-1.
    pub(super) inverse_sqrt: Array2<T>,
    /// Spectrum of H, the singular values of W.
    pub(super) spectrum: Spectrum<T>,
    pub(super) iterations: usize,
    pub(super) residual: f64,
}

/// What a method must deliver before its result is accepted.
#[derive(Debug, Clone, Copy)]
struct Demand {
    /// Largest `|Q^T Q - I|_F`.
    tolerance: f64,
    /// Largest condition number of W^T W for which forming it loses nothing that the result shows.
    max_condition: f64,
}

/// The polar factor of a tall matrix with finite entries, at least one.
pub(super) fn factorise<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
) -> Result<Tall<T>> {
    let (m, n) = w.dim();
    let scale = dense::unit_scale(w).ok_or_else(|| deficient(0, n))?;
    if scale != T::one() {
        // The start belongs to another scale and is dropped.
        return factorise(w.mapv(|x| x * scale).view(), None).map(|tall| tall.unscaled(scale));
    }
    let tolerance = tolerance::orthonormal::<T>(m, n);
    if T::EPS <= f64::EPSILON {
        return robust(w, start, Demand { tolerance, max_condition: 1e4 });
    }
    if n > SMALL {
        let demand = Demand { tolerance, max_condition: 1500.0 };
        if let Some(tall) = iterate(w, start, demand)? {
            return Ok(tall);
        }
    }
    // Only what survives the conversion back is asked of the detour through f64.
    let demand = Demand { tolerance: tolerance / 16.0, max_condition: 1e8 };
    robust(dense::convert::<T, f64>(w).view(), None, demand).map(|tall| tall.converted())
}

/// Iteration if the conditioning allows, otherwise the singular value decomposition.
fn robust<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
    demand: Demand,
) -> Result<Tall<T>> {
    let found =
        if w.ncols() <= SMALL { diagonalise(w, demand)? } else { iterate(w, start, demand)? };
    found.map_or_else(|| decompose(w), Ok)
}

/// By the eigendecomposition of W^T W; `None` where it does not meet the demand.
fn diagonalise<T: Real>(w: ArrayView2<'_, T>, demand: Demand) -> Result<Option<Tall<T>>> {
    let (lambda, v) = lapack::eigh(gemm::gram(w).view())?;
    let (lowest, highest) = (lambda[0].as_f64(), lambda[lambda.len() - 1].as_f64());
    if !(lowest > 0.0 && highest / lowest <= demand.max_condition) {
        return Ok(None);
    }
    let sigma = lambda.mapv(Float::sqrt);
    let scaled = &v * &sigma.mapv(|s| T::one() / s);
    let inverse_sqrt = gemm::matmul(scaled.view(), v.t());
    let factor = gemm::matmul(w, inverse_sqrt.view());
    let mut tall = Tall {
        factor,
        inverse_sqrt,
        spectrum: Spectrum::Known { v, values: sigma },
        iterations: 0,
        residual: 0.0,
    };
    tall.reorthonormalise(demand.tolerance);
    Ok((tall.residual <= demand.tolerance).then_some(tall))
}

/// By polynomials in W^T W and corrections; `None` where it does not meet the demand.
fn iterate<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
    demand: Demand,
) -> Result<Option<Tall<T>>> {
    let g = gemm::gram(w);
    let Some(interval) = spectral_interval(&g)?.filter(|i| i.condition() <= demand.max_condition)
    else {
        return Ok(None);
    };
    let Some(plan) = Plan::new::<T>(interval)? else { return Ok(None) };
    if let Some(start) = usable_start(&g, start, interval, plan.n_products()) {
        let warm = correct(w, &g, start, interval, demand, 0);
        // A symmetric S with S G S = I is the inverse square root if and only if it is positive definite.
        if let Some(warm) = warm.filter(|tall| lapack::cholesky(tall.inverse_sqrt.view()).is_some())
        {
            return Ok(Some(warm));
        }
    }
    let (s, stages) = (plan.evaluate(g.view()), plan.n_stages());
    if T::EPS > f64::EPSILON && relaxation(interval).1 > SLOW {
        Ok(finish_on_factor(w, s, interval, demand, stages))
    } else {
        Ok(correct(w, &g, s, interval, demand, stages))
    }
}

/// Takes S as it is, accurate to eps times the condition number of W^T W, and orthonormalises Q = W S itself.
fn finish_on_factor<T: Real>(
    w: ArrayView2<'_, T>,
    s: Array2<T>,
    interval: Interval,
    demand: Demand,
    stages: usize,
) -> Option<Tall<T>> {
    let factor = oriented_product(w, s.view());
    let spectrum = interval.of_singular_values();
    let mut tall = Tall { factor, inverse_sqrt: s, spectrum, iterations: stages, residual: 0.0 };
    tall.reorthonormalise(demand.tolerance);
    (tall.residual <= demand.tolerance).then_some(tall)
}

/// Corrects S until the measured defect meets the demand; `None` when it stops falling.
///
/// With R = I - S G S, the correction X of S solves H X + X H = R to first order. `X = (S R + R S) / 4` solves it where
/// R commutes with H and is too long elsewhere by a factor of at most c = (1 + k)^2 / (4k), k the condition of H.
fn correct<T: Real>(
    w: ArrayView2<'_, T>,
    g: &Array2<T>,
    mut s: Array2<T>,
    interval: Interval,
    demand: Demand,
    stages: usize,
) -> Option<Tall<T>> {
    let on_full_side =
        w.nrows() <= FULL_SIDE_RATIO * w.ncols() || interval.condition() > FULL_SIDE_CONDITION;
    let half_step = T::of(relaxation(interval).0 / 2.0);
    let mut last = f64::INFINITY;
    for corrections in 0..=MAX_CORRECTIONS {
        let factor = on_full_side.then(|| oriented_product(w, s.view()));
        let mut defect = match &factor {
            Some(q) => gemm::gram(q.view()),
            None => gemm::matmul(gemm::matmul(s.view(), g.view()).view(), s.view()),
        };
        let residual = dense::distance_to_identity(defect.view());
        if residual <= demand.tolerance {
            let factor = factor.unwrap_or_else(|| oriented_product(w, s.view()));
            let (spectrum, iterations) = (interval.of_singular_values(), stages + corrections);
            return Some(Tall { factor, inverse_sqrt: s, spectrum, iterations, residual });
        }
        if dense::exceeds(residual, 0.9 * last) {
            return None;
        }
        last = residual;
        dense::add_diagonal(&mut defect, -T::one());
        let mut sr = gemm::matmul(s.view(), defect.view());
        dense::symmetrise(&mut sr);
        // The defect is -R, hence the sign.
        dense::update(&mut s, &sr, |s, x| s - half_step * x);
    }
    None
}

/// Step length of the correction and the factor by which it reduces the defect at worst.
fn relaxation(interval: Interval) -> (f64, f64) {
    let k = interval.condition().sqrt();
    let c = (1.0 + k).powi(2) / (4.0 * k);
    if c < 1.5 { (1.0, c - 1.0) } else { (2.0 / (1.0 + c), (c - 1.0) / (c + 1.0)) }
}

/// A start that is expected to reach the result in fewer products than the polynomials.
fn usable_start<T: Real>(
    g: &Array2<T>,
    start: Option<ArrayView2<'_, T>>,
    interval: Interval,
    n_products: usize,
) -> Option<Array2<T>> {
    let start = start.filter(|s| s.dim() == g.dim())?;
    let (factor, small) = (relaxation(interval).1, 4.0 * T::EPS);
    let mut residual = probe_residual(g, start);
    let mut expected = 0;
    while residual > small {
        residual = factor * residual + 0.75 * residual * residual;
        expected += 3;
        if expected >= n_products || dense::exceeds(residual, 0.5) {
            return None;
        }
    }
    let mut start = start.to_owned();
    dense::symmetrise(&mut start);
    Some(start)
}

/// `|(I - S G S) v| / |v|` for a fixed v of irregular entries, an estimate of the typical size of the defect.
fn probe_residual<T: Real>(g: &Array2<T>, s: ArrayView2<'_, T>) -> f64 {
    let v = lanczos::start_vector::<T>(g.nrows());
    let r = &v - &s.dot(&g.dot(&s.dot(&v)));
    let norm = |x: ArrayView1<'_, T>| x.dot(&x).as_f64().sqrt();
    norm(r.view()) / norm(v.view())
}

/// An interval that holds the spectrum of G as far as Lanczos can tell; `None` if G is singular to rounding.
fn spectral_interval<T: Real>(g: &Array2<T>) -> Result<Option<Interval>> {
    let ends = lanczos::extreme_eigenvalues(g.view(), LANCZOS_ACCURACY, MAX_LANCZOS_STEPS)?;
    // Ritz values lie inside the spectrum and their error is well below the residual.
    let margin = 1e-2 * (ends.highest - ends.lowest).max(0.0);
    let lo =
        ends.lowest - ends.lowest_residual.min(0.1 * ends.lowest) - margin.min(0.02 * ends.lowest);
    let hi = ends.highest + ends.highest_residual + margin;
    Ok((lo > hi * T::EPS && hi.is_finite()).then_some(Interval { lo, hi }))
}

/// By the singular value decomposition, for any conditioning.
fn decompose<T: Real>(w: ArrayView2<'_, T>) -> Result<Tall<T>> {
    let (m, n) = w.dim();
    let (u, sigma, vt) = lapack::svd(w)?;
    let smallest = sigma[0].as_f64() * tolerance::rank::<T>(m, n);
    let rank = sigma.iter().filter(|s| s.as_f64() > smallest).count();
    if rank < n {
        return Err(deficient(rank, n));
    }
    let factor = gemm::matmul(u.view(), vt.view());
    let v = vt.reversed_axes();
    let scaled = &v * &sigma.mapv(|s| T::one() / s);
    let inverse_sqrt = gemm::matmul(scaled.view(), v.t());
    let mut tall = Tall {
        factor,
        inverse_sqrt,
        spectrum: Spectrum::Known { v, values: sigma },
        iterations: 0,
        residual: 0.0,
    };
    tall.reorthonormalise(tolerance::orthonormal::<T>(m, n));
    Ok(tall)
}

fn deficient(rank: usize, expected: usize) -> Error {
    Error::RankDeficient { what: "matrix", rank, expected }
}

impl<T: Real> Tall<T> {
    /// Measures the defect of Q and removes it to first order while it is above the tolerance.
    fn reorthonormalise(&mut self, tolerance: f64) {
        for _ in 0..3 {
            let mut gram = gemm::gram(self.factor.view());
            self.residual = dense::distance_to_identity(gram.view());
            if self.residual <= tolerance || dense::exceeds(self.residual, 0.1) {
                return;
            }
            dense::scale(&mut gram, -0.5);
            dense::add_diagonal(&mut gram, T::of(1.5));
            self.factor = gemm::matmul(self.factor.view(), gram.view());
            self.iterations += 1;
        }
    }

    /// The factorisation of W from that of `scale W`.
    fn unscaled(mut self, scale: T) -> Self {
        self.inverse_sqrt.mapv_inplace(|x| x * scale);
        self.spectrum = match self.spectrum {
            Spectrum::Known { v, values } => {
                Spectrum::Known { v, values: values.mapv(|x| x / scale) }
            }
            Spectrum::Within { lowest, highest } => Spectrum::Within {
                lowest: lowest / scale.as_f64(),
                highest: highest / scale.as_f64(),
            },
        };
        self
    }

    /// The same factorisation in another element type, with the defect measured again.
    fn converted<U: Real>(self) -> Tall<U> {
        let factor: Array2<U> = dense::convert(self.factor.view());
        let residual = dense::distance_to_identity(gemm::gram(factor.view()).view());
        let spectrum = match self.spectrum {
            Spectrum::Known { v, values } => Spectrum::Known {
                v: dense::convert(v.view()),
                values: values.mapv(|x| U::of(x.as_f64())),
            },
            Spectrum::Within { lowest, highest } => Spectrum::Within { lowest, highest },
        };
        Tall {
            factor,
            inverse_sqrt: dense::convert(self.inverse_sqrt.view()),
            spectrum,
            iterations: self.iterations,
            residual,
        }
    }
}
