//! The matrix polynomial for G^-1/2: which, and how to evaluate it in few products.
//!
//! On a spectrum in [lo, hi] it is the Chebyshev interpolant of x^-1/2, of the lowest degree that is accurate to
//! rounding; its error falls like rho^-degree, rho = (sqrt(k) + 1)/(sqrt(k) - 1), k = hi/lo.
//!
//! Evaluation follows Paterson and Stockmeyer: with powers T, ..., T^b of the centred matrix, a polynomial of degree d
//! costs b - 1 + ceil(d / b) - 1 products, e.g. 3 for degree 6 and 6 for degree 16. Degrees are kept low enough that the
//! monomial coefficients do not amplify rounding.

use ndarray::{Array2, ArrayView2};

use super::sylvester::Spectrum;
use crate::{Real, dense, gemm};

/// Degree and block length of the polynomials tried, by increasing cost.
const DEGREES: [(usize, usize); 7] = [(1, 1), (2, 2), (4, 2), (6, 3), (9, 3), (12, 4), (16, 4)];
/// Interpolation nodes.
const NODES: usize = 32;

/// An interval that contains a spectrum, 0 < lo <= hi.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) lo: f64,
    pub(super) hi: f64,
}

impl Interval {
    pub(super) fn condition(&self) -> f64 {
        self.hi / self.lo
    }

    /// The square roots of the ends: singular values of W for the spectrum of W^T W.
    pub(super) fn of_singular_values<T>(&self) -> Spectrum<T> {
        Spectrum::Within { lowest: self.lo.sqrt(), highest: self.hi.sqrt() }
    }

    fn centre(&self) -> f64 {
        (self.lo + self.hi) / 2.0
    }

    /// Half of the length, kept positive for a spectrum of one point.
    fn radius(&self) -> f64 {
        ((self.hi - self.lo) / 2.0).max(1e-3 * self.hi)
    }
}

/// A polynomial in `t = (x - centre) / radius`, by its monomial coefficients.
#[derive(Debug, Clone)]
pub(super) struct Polynomial {
    coefficients: Vec<f64>,
    block: usize,
    centre: f64,
    radius: f64,
}

impl Polynomial {
    /// The Chebyshev interpolant of x^-1/2 of the cheapest degree that is accurate to rounding in `T`; `None` if none
    /// is.
    pub(super) fn inverse_sqrt<T: Real>(interval: Interval) -> Option<Self> {
        // Below this the rounding of the products dominates.
        let target = (T::EPS / 4.0).max(4e-15);
        let (centre, radius) = (interval.centre(), interval.radius());
        let values: Vec<f64> = (0..NODES)
            .map(|j| (centre + radius * node(j, NODES)).max(interval.lo / 2.0).powf(-0.5))
            .collect();
        let series = chebyshev_series(&values);
        let scale = interval.hi.sqrt();
        let (degree, block) = DEGREES.into_iter().find(|&(degree, _)| {
            let tail: f64 = series[degree + 1..].iter().map(|c| c.abs()).sum();
            tail * scale <= target
        })?;
        Some(Self {
            coefficients: monomial_coefficients(&series[..=degree]),
            block,
            centre,
            radius,
        })
    }

    /// Products of n x n matrices that [`Polynomial::evaluate`] takes.
    pub(super) fn n_products(&self) -> usize {
        let degree = self.coefficients.len() - 1;
        self.block - 1 + degree.div_ceil(self.block) - 1
    }

    /// The polynomial at a symmetric matrix, symmetric itself.
    pub(super) fn evaluate<T: Real>(&self, m: ArrayView2<'_, T>) -> Array2<T> {
        let mut t = dense::scaled(m, 1.0 / self.radius);
        dense::add_diagonal(&mut t, T::of(-self.centre / self.radius));
        let mut powers = vec![t];
        for _ in 1..self.block {
            let next = gemm::matmul(powers[powers.len() - 1].view(), powers[0].view());
            powers.push(next);
        }
        // The top block takes the power T^block too, which saves a product.
        let degree = self.coefficients.len() - 1;
        let top = (degree.div_ceil(self.block) - 1) * self.block;
        let mut sum = combine(&powers, &self.coefficients[top..]);
        for start in (0..top).step_by(self.block).rev() {
            let mut next = combine(&powers, &self.coefficients[start..start + self.block]);
            gemm::matmul_into(
                T::one(),
                sum.view(),
                powers[self.block - 1].view(),
                T::one(),
                next.view_mut(),
            );
            sum = next;
        }
        dense::symmetrise(&mut sum);
        sum
    }
}

/// `c_0 I + c_1 T + c_2 T^2 + ...`
fn combine<T: Real>(powers: &[Array2<T>], coefficients: &[f64]) -> Array2<T> {
    let mut sum = match coefficients.get(1) {
        Some(&c) => dense::scaled(powers[0].view(), c),
        None => Array2::zeros(powers[0].dim()),
    };
    for (power, &c) in powers.iter().zip(&coefficients[1..]).skip(1) {
        sum.scaled_add(T::of(c), power);
    }
    dense::add_diagonal(&mut sum, T::of(coefficients[0]));
    sum
}

/// The j-th of n Chebyshev nodes in (-1, 1).
fn node(j: usize, n: usize) -> f64 {
    (std::f64::consts::PI * (j as f64 + 0.5) / n as f64).cos()
}

/// Coefficients in T_0, T_1, ... of the interpolant through values at the Chebyshev nodes.
fn chebyshev_series(values: &[f64]) -> Vec<f64> {
    let n = values.len();
    // cos(pi k (j + 1/2) / n) has the period 4n in the integer k (2j + 1).
    let cosines: Vec<f64> =
        (0..4 * n).map(|i| (std::f64::consts::PI * i as f64 / (2 * n) as f64).cos()).collect();
    (0..n)
        .map(|k| {
            let sum: f64 = values
                .iter()
                .enumerate()
                .map(|(j, v)| v * cosines[k * (2 * j + 1) % (4 * n)])
                .sum();
            sum * if k == 0 { 1.0 } else { 2.0 } / n as f64
        })
        .collect()
}

/// Monomial coefficients of a Chebyshev series, by `T_{k+1} = 2 t T_k - T_{k-1}`.
fn monomial_coefficients(series: &[f64]) -> Vec<f64> {
    let n = series.len();
    let (mut previous, mut current) = (vec![0.0; n], vec![0.0; n]);
    previous[0] = 1.0;
    if n > 1 {
        current[1] = 1.0;
    }
    let mut sum = vec![0.0; n];
    for &c in series {
        sum.iter_mut().zip(&previous).for_each(|(s, p)| *s += c * p);
        let next =
            (0..n).map(|i| if i > 0 { 2.0 * current[i - 1] } else { 0.0 } - previous[i]).collect();
        previous = std::mem::replace(&mut current, next);
    }
    sum
}
