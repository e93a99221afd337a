//! Numbers of twice the precision of f64, as unevaluated sums of two of them.
//!
//! Definition: a [`Wide`] is the exact number hi + lo with hi = fl(hi + lo).
//!
//! Guarantee, with u = 2^-53 and as long as nothing over- or underflows: sums, differences, products, quotients and
//! square roots have relative errors of at most 2^-100 each (Joldes, Muller, Popescu 2017, "Tight and rigorous error bounds for basic
//! building blocks of double-word arithmetic", give 3u² for the sum of any signs, 5u² for products, 10u² for quotients).
//! An expression of a few hundred operations on non-negative numbers is therefore within a factor 1 ± 2^-90; [`SLACK`]
//! is a hundred times that.

use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Sub};

/// What the formulas of the verifier are widened by, relatively: 2^-80.
pub(super) const SLACK: f64 = 1.0 / (1u128 << 80) as f64;

/// hi + lo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wide {
    hi: f64,
    lo: f64,
}

impl Wide {
    pub(super) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };
    pub(super) const ONE: Self = Self { hi: 1.0, lo: 0.0 };

    pub(super) const fn exactly(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }

    /// a + b exactly.
    pub(super) fn sum_of(a: f64, b: f64) -> Self {
        let (hi, lo) = two_sum(a, b);
        Self { hi, lo }
    }

    /// a · b exactly.
    pub(super) fn product_of(a: f64, b: f64) -> Self {
        let hi = a * b;
        Self { hi, lo: a.mul_add(b, -hi) }
    }

    /// hi and lo.
    pub(super) fn parts(self) -> (f64, f64) {
        (self.hi, self.lo)
    }

    pub(super) fn sqrt(self) -> Self {
        if self.hi <= 0.0 {
            return Self::ZERO;
        }
        let root = self.hi.sqrt();
        let rest = self - Self::product_of(root, root);
        let (hi, lo) = fast_two_sum(root, rest.hi / (2.0 * root));
        Self { hi, lo }
    }

    /// A number that is larger by more than the errors of the formula that led here.
    pub(super) fn widened(self) -> Self {
        self * (Self::ONE + Self::from(SLACK))
    }

    /// A number that is smaller likewise, for non-negative ones.
    pub(super) fn narrowed(self) -> Self {
        self * (Self::ONE - Self::from(SLACK))
    }

    pub(super) fn is_finite(self) -> bool {
        self.hi.is_finite() && self.lo.is_finite()
    }

    /// The nearest f64, for messages.
    pub(super) fn nearest(self) -> f64 {
        self.hi
    }

    pub(super) fn min(self, other: Self) -> Self {
        if other < self { other } else { self }
    }
}

/// s + e = a + b exactly, with s = fl(a + b).
pub(super) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let b_part = s - a;
    (s, (a - (s - b_part)) + (b - b_part))
}

/// The same for |a| ≥ |b|.
fn fast_two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    (s, b - (s - a))
}

impl From<f64> for Wide {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl Add for Wide {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (s, e) = two_sum(self.hi, other.hi);
        let (t, f) = two_sum(self.lo, other.lo);
        let (s, e) = fast_two_sum(s, e + t);
        let (hi, lo) = fast_two_sum(s, e + f);
        Self { hi, lo }
    }
}

impl Sub for Wide {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + Self { hi: -other.hi, lo: -other.lo }
    }
}

impl Mul for Wide {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let exact = Self::product_of(self.hi, other.hi);
        let cross = self.lo.mul_add(other.hi, self.hi * other.lo);
        let (hi, lo) = fast_two_sum(exact.hi, exact.lo + cross);
        Self { hi, lo }
    }
}

impl Div for Wide {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let first = self.hi / other.hi;
        let rest = self - other * Self::from(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Self::from(second);
        let (hi, lo) = fast_two_sum(first, second);
        Self { hi, lo } + Self::from(rest.hi / other.hi)
    }
}

impl PartialOrd for Wide {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.hi.partial_cmp(&other.hi)? {
            Ordering::Equal => self.lo.partial_cmp(&other.lo),
            unequal => Some(unequal),
        }
    }
}

impl std::iter::Sum for Wide {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Integers below 2^50 as exact wide numbers a / 2^k, against i128.
    #[test]
    fn sums_and_products_of_integers_are_exact() {
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        for _ in 0..2000 {
            let [a, b, c] = [(); 3].map(|()| rng.random_range(-(1i64 << 50)..1 << 50));
            let wide = |v: i64| Wide::from(v as f64);
            let value = wide(a) * wide(b) + wide(c);
            let exact = i128::from(a) * i128::from(b) + i128::from(c);
            assert_eq!(value.hi as i128 + value.lo as i128, exact);
            let difference = wide(a) * wide(b) - wide(a) * wide(b);
            assert_eq!(difference, Wide::ZERO);
        }
    }

    #[test]
    fn quotients_and_roots_invert_products() {
        let rng = &mut ChaCha8Rng::seed_from_u64(1);
        let tiny = 2f64.powi(-98);
        for _ in 0..2000 {
            let a =
                Wide::from(rng.random_range(1e-3..1e3)) + Wide::from(rng.random_range(0.0..1e-15));
            let b =
                Wide::from(rng.random_range(1e-3..1e3)) + Wide::from(rng.random_range(0.0..1e-15));
            let back = (a * b) / b - a;
            assert!(back.hi.abs() <= tiny * a.hi, "{back:?}");
            let back = (a * a).sqrt() - a;
            assert!(back.hi.abs() <= tiny * a.hi, "{back:?}");
        }
        assert_eq!(Wide::ZERO.sqrt(), Wide::ZERO);
    }

    #[test]
    fn order_sees_the_low_part() {
        let above = Wide::sum_of(1.0, 1e-25);
        assert!(above > Wide::ONE && above.min(Wide::ONE) == Wide::ONE);
        assert!(Wide::ONE.widened() > above && Wide::ONE.narrowed() < Wide::ONE);
    }
}
