//! The polar factor of a tall matrix: which method, and when to trust it.

use ndarray::{Array2, ArrayView1, ArrayView2};
use num_traits::Float;

use super::approximation::{Interval, Polynomial};
use super::spectral::SpectralForm;
use super::sylvester::Spectrum;
use super::tall::Tall;
use crate::error::{Error, Result};
use crate::gemm::oriented_product;
use crate::lanczos::{self, Ends};
use crate::{Real, dense, gemm, lapack, tolerance};

/// Up to this size of the small side an eigendecomposition is as fast as polynomials, and gives more.
const SMALL: usize = 32;
/// Relative residual at which the ends of the spectrum count as known, and the steps allowed to get there.
const LANCZOS_ACCURACY: f64 = 0.05;
const MAX_LANCZOS_STEPS: usize = 90;
/// Corrections of the inverse square root before another method is tried.
const MAX_CORRECTIONS: usize = 12;
/// Condition number of W^T W up to which polynomials take fewer products than its eigenvectors are worth.
const MAX_POLYNOMIAL_CONDITION: f64 = 4.0;
/// Products that a warm start may take where no polynomial is known.
const MAX_PRODUCTS: usize = 6;
/// The defect is measured on Q itself where Q is at most this many times longer than wide; on S G S otherwise, which
/// does not see the rounding error of G.
const FULL_SIDE_RATIO: usize = 4;

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
    if n > SMALL
        && let Some(tall) = by_gram(w, start, tolerance)?
    {
        return Ok(tall);
    }
    // Only what survives the conversion back is asked of the detour through f64.
    let demand = Demand { tolerance: tolerance / 16.0, max_condition: 1e8 };
    robust(dense::convert::<T, f64>(w).view(), None, demand).map(|tall| tall.converted())
}

/// From W^T W if the conditioning allows, otherwise by the singular value decomposition.
fn robust<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
    demand: Demand,
) -> Result<Tall<T>> {
    let found = if w.ncols() <= SMALL {
        diagonalise(w, demand)?
    } else {
        by_gram(w, start, demand.tolerance)?
    };
    match found {
        Some(tall) => Ok(tall),
        None => Ok(SpectralForm::decompose(w)?
            .into_tall(tolerance::orthonormal::<T>(w.nrows(), w.ncols()))),
    }
}

/// By polynomials in W^T W where it is close to a multiple of the identity, by its eigenvectors elsewhere; `None` where
/// neither meets the tolerance.
fn by_gram<T: Real>(
    w: ArrayView2<'_, T>,
    start: Option<ArrayView2<'_, T>>,
    tolerance: f64,
) -> Result<Option<Tall<T>>> {
    let g = gemm::gram(w);
    if let Some(interval) = narrow_spectrum(&g)?
        && let Some(tall) = iterate(w, &g, start, interval, tolerance)
    {
        return Ok(Some(tall));
    }
    let form = SpectralForm::new(w, g.view(), tolerance)?;
    let tall = form.map(|form| form.into_tall(tolerance));
    Ok(tall.filter(|tall| tall.residual <= tolerance))
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

/// By a polynomial in W^T W and corrections; `None` where it does not meet the tolerance.
fn iterate<T: Real>(
    w: ArrayView2<'_, T>,
    g: &Array2<T>,
    start: Option<ArrayView2<'_, T>>,
    interval: Interval,
    tolerance: f64,
) -> Option<Tall<T>> {
    let plan = Polynomial::inverse_sqrt::<T>(interval);
    let n_products = plan.as_ref().map_or(MAX_PRODUCTS, Polynomial::n_products);
    if let Some(start) = usable_start(g, start, interval, n_products) {
        let warm = correct(w, g, start, interval, tolerance, 0);
        // A symmetric S with S G S = I is the inverse square root if and only if it is positive definite.
        if let Some(warm) = warm.filter(|tall| lapack::cholesky(tall.inverse_sqrt.view()).is_some())
        {
            return Some(warm);
        }
    }
    correct(w, g, plan?.evaluate(g.view()), interval, tolerance, 1)
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
    tolerance: f64,
    stages: usize,
) -> Option<Tall<T>> {
    let on_full_side = w.nrows() <= FULL_SIDE_RATIO * w.ncols();
    let half_step = T::of(relaxation(interval).0 / 2.0);
    let mut last = f64::INFINITY;
    for corrections in 0..=MAX_CORRECTIONS {
        let factor = on_full_side.then(|| oriented_product(w, s.view()));
        let mut defect = match &factor {
            Some(q) => gemm::gram(q.view()),
            None => gemm::matmul(gemm::matmul(s.view(), g.view()).view(), s.view()),
        };
        let residual = dense::distance_to_identity(defect.view());
        if residual <= tolerance {
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

/// An interval that holds the spectrum of G as far as Lanczos can tell; `None` if it is not narrow.
fn narrow_spectrum<T: Real>(g: &Array2<T>) -> Result<Option<Interval>> {
    let too_wide =
        |ends: &Ends| dense::exceeds(ends.highest, MAX_POLYNOMIAL_CONDITION * ends.lowest);
    let ends = lanczos::extreme_eigenvalues_until(
        g.view(),
        LANCZOS_ACCURACY,
        MAX_LANCZOS_STEPS,
        too_wide,
    )?;
    // Ritz values lie inside the spectrum and their error is well below the residual.
    let margin = 1e-2 * (ends.highest - ends.lowest).max(0.0);
    let lo =
        ends.lowest - ends.lowest_residual.min(0.1 * ends.lowest) - margin.min(0.02 * ends.lowest);
    let hi = ends.highest + ends.highest_residual + margin;
    let interval = Interval { lo, hi };
    Ok((lo > 0.0 && interval.condition() <= MAX_POLYNOMIAL_CONDITION).then_some(interval))
}

fn deficient(rank: usize, expected: usize) -> Error {
    Error::RankDeficient { what: "matrix", rank, expected }
}
