//! Values that parameters start from, drawn in f64.

use ndarray::{Array2, Axis};
use projectors::haar_frame;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// 1/√n.
pub(crate) fn inverse_root(n: usize) -> f64 {
    1.0 / (n as f64).sqrt()
}

/// `n` values uniform in ±`bound`.
pub(crate) fn uniform(n: usize, bound: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..n).map(|_| rng.random_range(-bound..bound)).collect()
}

/// A random vector of norm 1, of no particular distribution.
pub(crate) fn unit_vector(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut vector = uniform(n, 1.0, rng);
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

/// A Haar-random matrix with orthonormal rows or columns, whichever are fewer.
pub(super) fn orthonormal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let frame = haar_frame(rows.max(columns), rows.min(columns), rng)
        .expect("as many columns as rows at the most");
    if rows < columns { frame.reversed_axes() } else { frame }
}

/// The values in row-major order, times `factor`.
pub(super) fn scaled(matrix: Array2<f64>, factor: f64) -> Vec<f64> {
    matrix.axis_iter(Axis(0)).flatten().map(|value| value * factor).collect()
}
