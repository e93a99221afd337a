//! Quantiles of the normal distribution.
//!
//! `Φ(x) = 1/2 + φ(x) Σ_k x^(2k+1) / (1·3·5 … (2k+1))`, whose terms have one sign (Abramowitz and Stegun 26.2.11), inverted by
//! bisection: about 1e-14 from the exact quantile where p is not close to 0 or 1.

use std::f64::consts::PI;

/// Beyond this Φ is 0 or 1 in f64.
const FAR: f64 = 8.5;

/// The x with Φ(x) = `p`, for p in (0, 1), cut off at ±8.5.
pub(super) fn quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-FAR, FAR);
    while high - low > f64::EPSILON * high.abs().max(low.abs()) {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if distribution(middle) < p { low = middle } else { high = middle }
    }
    high
}

/// Φ(x) for |x| ≤ 8.5.
fn distribution(x: f64) -> f64 {
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > f64::EPSILON * sum.abs() * 0.01 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Textbook values, to all digits given.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        let table = [
            (0.5, 0.0),
            (0.841_344_746_068_543, 1.0),
            (0.95, 1.644_853_626_951_473),
            (0.975, 1.959_963_984_540_054),
            (0.99, 2.326_347_874_040_841),
            (0.999, 3.090_232_306_167_814),
            (0.05, -1.644_853_626_951_473),
        ];
        for (p, expected) in table {
            let got = quantile(p);
            assert!((got - expected).abs() < 1e-12, "{p}: {got}, expected {expected}");
        }
        assert!(quantile(1e-300) <= -8.0 && quantile(1.0 - 1e-16) >= 8.0);
    }
}
