//! The exact Wasserstein distance of two sets of equally many points.
//!
//! Definition: with n points of probability 1/n on each side, W1 = 1/n min_π Σ_i ‖x_i - y_π(i)‖ over the permutations π (the optimal
//! plan of equal masses is a matching, Birkhoff). The matching is found by the Hungarian method of the crate `pathfinding`, on costs
//! rounded to multiples of 2^-30 of the largest one.
//!
//! Guarantee: the returned mean is that of the matching's unrounded costs, at most 2^-30 of the largest cost above the least.
//!
//! Cost: n² distances of d values, then O(n³); 2 s for n = 1000.
//!
//! Source: Munkres 1957.

use pathfinding::kuhn_munkres::kuhn_munkres_min;
use pathfinding::matrix::Matrix;

use crate::error::{Error, Result};

/// The greatest number of points that is matched.
pub const MOST_MATCHED: usize = 1000;

/// The exact distance between two sets of equally many points of `d` values each, one after another.
///
/// # Errors
/// [`Error::InvalidSetting`] for no points or more than [`MOST_MATCHED`], [`Error::CountMismatch`] for sets of other sizes,
/// [`Error::NonFinite`].
pub fn matching_distance(x: &[f32], y: &[f32], d: usize) -> Result<f64> {
    let (n, m) = (x.len() / d.max(1), y.len() / d.max(1));
    if !(1..=MOST_MATCHED).contains(&n) {
        let (name, value, expected) = ("number of points", n as f64, "1 to 1000");
        return Err(Error::InvalidSetting { name, value, expected });
    }
    if m != n {
        return Err(Error::CountMismatch { what: "points to match", expected: n, got: m });
    }
    if let Some(i) = x.iter().chain(y).position(|v| !v.is_finite()) {
        let value = f64::from(*x.iter().chain(y).nth(i).unwrap_or(&f32::NAN));
        return Err(Error::NonFinite { what: "a point", sample: i / d % n, value });
    }
    let row =
        |a: &[f32]| -> Vec<f64> { y.chunks_exact(d).map(|b| euclidean_distance(a, b)).collect() };
    let costs: Vec<Vec<f64>> = x.chunks_exact(d).map(row).collect();
    let largest = costs.iter().flatten().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return Ok(0.0);
    }
    let scale = f64::from(1 << 30) / largest;
    let rounded = costs.iter().flatten().map(|cost| (cost * scale).round() as i64).collect();
    let matrix = Matrix::from_vec(n, n, rounded).expect("n² costs");
    let (_, matching) = kuhn_munkres_min(&matrix);
    let total: f64 = matching.iter().enumerate().map(|(i, &j)| costs[i][j]).sum();
    Ok(total / n as f64)
}

/// ‖a - b‖, in f64.
#[must_use]
pub fn euclidean_distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |(x, y): (&f32, &f32)| (f64::from(*x) - f64::from(*y)).powi(2);
    a.iter().zip(b).map(square).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least mean cost over all permutations, by trying them.
    fn by_trying(x: &[f32], y: &[f32], d: usize, used: &mut Vec<usize>) -> f64 {
        let (n, i) = (x.len() / d, used.len());
        if i == n {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for j in 0..n {
            if !used.contains(&j) {
                used.push(j);
                let cost = euclidean_distance(&x[i * d..][..d], &y[j * d..][..d]) / n as f64;
                best = best.min(cost + by_trying(x, y, d, used));
                used.pop();
            }
        }
        best
    }

    #[test]
    fn the_matching_is_the_best_of_all() {
        let value = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        for (n, d) in [(1, 1), (2, 3), (5, 2), (6, 4)] {
            let x: Vec<f32> = (0..n * d).map(value).collect();
            let y: Vec<f32> = (0..n * d).map(|i| value(i + 500)).collect();
            let best = by_trying(&x, &y, d, &mut Vec::new());
            let found = matching_distance(&x, &y, d).unwrap();
            assert!((found - best).abs() < 1e-8, "{n} {d}: {found} {best}");
        }
    }

    #[test]
    fn on_a_line_the_sorted_points_are_matched() {
        let x = [0.0, 3.0, 1.0];
        let y = [2.5, 0.5, 4.0];
        // 0 - 0.5, 1 - 2.5, 3 - 4
        assert!((matching_distance(&x, &y, 1).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(matching_distance(&x, &x, 1).unwrap(), 0.0);
    }

    #[test]
    fn sets_that_cannot_be_matched_are_refused() {
        let text = |x: &[f32], y: &[f32]| matching_distance(x, y, 1).unwrap_err().to_string();
        assert_eq!(text(&[], &[1.0]), "number of points is 0, expected 1 to 1000");
        assert_eq!(text(&[1.0], &[]), "0 points to match, expected 1: one for each sample");
        assert_eq!(
            text(&[1.0], &[f32::NAN]),
            "sample 0: a point contains NaN, expected finite values"
        );
    }
}
