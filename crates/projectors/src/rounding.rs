//! Directed rounding for bounds: results that are never on the wrong side of the exact one.
//!
//! Each function returns the exact value when `f64` can represent it and otherwise its neighbour on the named side,
//! so 1 * 1 stays 1. The exactness test is an error-free transformation; where such a test could itself underflow,
//! the neighbour is taken. NaN goes through. Infinity stands for an overflow upwards.
//!
//! Guarantee: `up` results are >= and `down` results are <= the exact value, assuming IEEE 754 round-to-nearest,
//! which Rust guarantees. Source: Higham, "Accuracy and Stability of Numerical Algorithms" (2002), chapters 2 and 3;
//! Ogita, Rump, Oishi, "Accurate sum and dot product" (2005), for the transformations.

/// Unit roundoff of `f64`, 2^-53.
pub const UNIT_ROUNDOFF: f64 = f64::EPSILON / 2.0;

/// Below this magnitude the error of a product may not be a `f64`.
const TINY: f64 = 1e-250;

/// `a + b`, rounded up.
#[must_use]
pub fn add_up(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if sum_error(a, b, sum) > 0.0 { sum.next_up() } else { sum }
}

/// `a + b`, rounded down.
#[must_use]
pub fn add_down(a: f64, b: f64) -> f64 {
    -add_up(-a, -b)
}

/// `a - b`, rounded up.
#[must_use]
pub fn sub_up(a: f64, b: f64) -> f64 {
    add_up(a, -b)
}

/// `a - b`, rounded down.
#[must_use]
pub fn sub_down(a: f64, b: f64) -> f64 {
    add_down(a, -b)
}

/// `a * b`, rounded up.
#[must_use]
pub fn mul_up(a: f64, b: f64) -> f64 {
    let product = a * b;
    if a == 0.0 || b == 0.0 {
        return product;
    }
    if product.abs() < TINY || a.mul_add(b, -product) > 0.0 { product.next_up() } else { product }
}

/// `a * b`, rounded down.
#[must_use]
pub fn mul_down(a: f64, b: f64) -> f64 {
    -mul_up(-a, b)
}

/// `a / b`, rounded up.
#[must_use]
pub fn div_up(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    if a == 0.0 || !quotient.is_finite() {
        return quotient;
    }
    let tiny = quotient.abs() < TINY || a.abs() < TINY;
    // a - q b is representable here; the quotient is too small where it has the sign of b.
    let error = (-quotient).mul_add(b, a);
    if tiny || (error != 0.0 && (error > 0.0) == (b > 0.0)) || error.is_nan() {
        quotient.next_up()
    } else {
        quotient
    }
}

/// `a / b`, rounded down.
#[must_use]
pub fn div_down(a: f64, b: f64) -> f64 {
    -div_up(-a, b)
}

/// The square root of `a >= 0`, rounded up.
#[must_use]
pub fn sqrt_up(a: f64) -> f64 {
    let root = a.sqrt();
    if a == 0.0 || !root.is_finite() {
        return root;
    }
    if a < TINY || (-root).mul_add(root, a) > 0.0 { root.next_up() } else { root }
}

/// The square root of `a >= 0`, rounded down.
#[must_use]
pub fn sqrt_down(a: f64) -> f64 {
    let root = a.sqrt();
    if a == 0.0 || !root.is_finite() {
        return root;
    }
    if a < TINY || (-root).mul_add(root, a) < 0.0 { root.next_down() } else { root }
}

/// `gamma_n = n u / (1 - n u)` for `f64`, rounded up: the relative error bound of n roundings in a row.
///
/// Infinite where `n u >= 1`, the end of its domain.
#[must_use]
pub fn gamma(n: usize) -> f64 {
    gamma_for(n, UNIT_ROUNDOFF)
}

/// `gamma_n` for the unit roundoff `u` of another format (2^-24 for `f32`), rounded up.
#[must_use]
pub fn gamma_for(n: usize, u: f64) -> f64 {
    let nu = mul_up(n as f64, u);
    if nu >= 1.0 { f64::INFINITY } else { div_up(nu, sub_down(1.0, nu)) }
}

/// An upper bound of a sum of non-negative terms.
#[must_use]
pub fn sum_up(terms: impl IntoIterator<Item = f64>) -> f64 {
    terms.into_iter().fold(0.0, add_up)
}

/// The error of a sum, `a + b - fl(a + b)`, exact barring overflow (Knuth's TwoSum).
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_virtual = sum - a;
    let a_virtual = sum - b_virtual;
    (a - a_virtual) + (b - b_virtual)
}
