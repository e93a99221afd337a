//! Upper bounds that stay upper bounds: non-negative f64 numbers whose sums and products round up.
//!
//! Guarantee: an expression in [`Upper`] evaluates to at least its exact value, by the directed rounding of
//! [`projectors::rounding`]. A NaN becomes +∞, which bounds everything.
//!
//! Not here: differences and quotients, which need a lower bound on one side; see [`quotient_down`].

use std::iter::Sum;
use std::ops::{Add, Mul};

use projectors::rounding::{UNIT_ROUNDOFF, add_up, div_down, gamma_for, mul_up, sqrt_up, sub_down};

/// A number known to be at least some exact non-negative quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
pub(crate) struct Upper(f64);

impl Upper {
    pub(crate) const ZERO: Self = Self(0.0);
    pub(crate) const ONE: Self = Self(1.0);

    /// The number itself; NaN and negative numbers (which bound nothing here) become +∞.
    pub(crate) fn new(value: f64) -> Self {
        Self(if value >= 0.0 { value } else { f64::INFINITY })
    }

    pub(crate) fn value(self) -> f64 {
        self.0
    }

    pub(crate) fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    pub(crate) fn sqrt(self) -> Self {
        Self::new(sqrt_up(self.0))
    }
}

impl Add for Upper {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::new(add_up(self.0, other.0))
    }
}

impl Mul for Upper {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self::new(mul_up(self.0, other.0))
    }
}

impl Sum for Upper {
    fn sum<I: Iterator<Item = Self>>(terms: I) -> Self {
        terms.fold(Self::ZERO, Add::add)
    }
}

/// `x - y` rounded down: at most the exact difference of `x` and the quantity that `y` bounds.
pub(crate) fn difference_down(x: f64, y: Upper) -> f64 {
    sub_down(x, y.0)
}

/// `x / y` rounded down for x > 0: at most the exact quotient of `x` and the quantity that `y` bounds.
///
/// `y = 0` leaves nothing that could change: the quotient is the largest finite number.
pub(crate) fn quotient_down(x: f64, y: Upper) -> f64 {
    if y.0 == 0.0 { f64::MAX } else { div_down(x, y.0).clamp(0.0, f64::MAX) }
}

/// γ_n = n·u / (1 - n·u), rounded up, for unit roundoff u; infinite where n·u ≥ 1.
pub(crate) fn gamma(n: usize, unit_roundoff: f64) -> Upper {
    Upper::new(gamma_for(n, unit_roundoff))
}

/// At least the exact `√s` of a sum of `n` squares, given that sum as computed in f64, in any order.
///
/// With ŝ computed and S exact, ŝ ≥ S(1 - γ_n) - n·η, where η bounds what one underflowing square loses;
/// so S ≤ (ŝ + n·η)(1 + 2γ_n) as long as γ_n ≤ 1/2.
pub(crate) fn norm_from_squares(sum: f64, n: usize) -> Upper {
    let g = gamma(n + 1, UNIT_ROUNDOFF);
    let lost = Upper::new(n as f64) * Upper::new(f64::MIN_POSITIVE);
    ((Upper::new(sum) + lost) * (Upper::ONE + g + g)).sqrt()
}

/// Euclidean norm of a vector, rounded up.
pub(crate) fn norm_up(values: impl Iterator<Item = f64>) -> Upper {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), v| (sum + v * v, n + 1));
    norm_from_squares(sum, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_products_never_fall_short() {
        // 0.1 + 0.2 = 0.3 + 2.8e-17 exactly, in the gap below its rounded sum
        assert!((Upper::new(0.1) + Upper::new(0.2)).value() >= 0.300_000_000_000_000_04);
        assert!((Upper::new(1.0) + Upper::new(1e-30)).value() > 1.0);
        assert_eq!((Upper::new(0.5) + Upper::ZERO).value(), 0.5);
        assert_eq!((Upper::new(0.5) * Upper::ZERO).value(), 0.0);
        // an underflowing product of two positive numbers stays positive
        assert!((Upper::new(1e-300) * Upper::new(1e-300)).value() > 0.0);
        assert_eq!((Upper::new(f64::MAX) + Upper::new(f64::MAX)).value(), f64::INFINITY);
        assert_eq!(Upper::new(f64::NAN).value(), f64::INFINITY);
    }

    #[test]
    fn gamma_is_above_n_u_and_infinite_when_it_must_be() {
        let u = f64::from(f32::EPSILON) / 2.0;
        for n in [1, 17, 4097, 1 << 20] {
            let nu = n as f64 * u;
            assert!(gamma(n, u).value() >= nu / (1.0 - nu));
            assert!(gamma(n, u).value() <= nu / (1.0 - nu) * (1.0 + 1e-14));
        }
        assert_eq!(gamma(1 << 24, u).value(), f64::INFINITY);
    }

    #[test]
    fn norms_round_up_and_hardly() {
        let n = norm_up([3.0, 4.0].into_iter()).value();
        assert!((5.0..5.0 + 1e-14).contains(&n), "{n}");
        // squares that underflow still count
        assert!(norm_up([1e-200; 4].into_iter()).value() >= 2e-200);
        assert_eq!(norm_up([f64::NAN].into_iter()).value(), f64::INFINITY);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2), ..Default::default() })]

        /// On integers of up to 53 bits almost every f64 operation rounds, and i128 knows the exact result.
        #[test]
        fn directed_results_bracket_the_exact_one(a in 1i64..1 << 53, b in 1i64..1 << 53) {
            let (x, y) = (a as f64, b as f64);
            let (wide_a, wide_b) = (i128::from(a), i128::from(b));
            let product = (Upper::new(x) * Upper::new(y)).value();
            proptest::prop_assert!(product as i128 >= wide_a * wide_b);
            let sum = (Upper::new(x) + Upper::new(y)).value();
            proptest::prop_assert!(sum as i128 >= wide_a + wide_b);
            // a quotient of at least 1 is a multiple of 2^-52
            let (most, least) = (a.max(b), a.min(b));
            let quotient = quotient_down(most as f64, Upper::new(least as f64)) * 2f64.powi(52);
            proptest::prop_assert!(quotient as i128 * i128::from(least) <= i128::from(most) << 52);
            let root = Upper::new(x).sqrt().value();
            let scaled = (root * 2f64.powi(26)) as i128 + 1;
            proptest::prop_assert!(scaled * scaled >= wide_a << 52);
        }
    }

    #[test]
    fn quotients_round_down() {
        assert!(quotient_down(1.0, Upper::new(3.0)) <= 1.0 / 3.0);
        assert_eq!(quotient_down(1.0, Upper::ZERO), f64::MAX);
        assert_eq!(quotient_down(1.0, Upper::new(f64::INFINITY)), 0.0);
    }
}
