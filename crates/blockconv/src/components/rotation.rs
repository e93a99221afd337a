//! Paths of rotations: a matrix of SO(n) as a product of plane rotations, each of which can be turned by any fraction.
//!
//! Definition. For R in SO(n), rotations G_1, …, G_m of neighbouring coordinates clear the entries below the diagonal, column by
//! column from the bottom, G_m … G_1 R = I: every G_l leaves a diagonal entry that is not negative, all entries of a
//! triangular orthogonal matrix off the diagonal vanish, and the last one is det R = 1. With G_l = G(θ_l),
//!
//! ```text
//! R(t) = G(tθ_1)ᵗ … G(tθ_m)ᵗ,   R(0) = I,   R(1) = R,
//! ```
//!
//! a path in SO(n) of length at most √2 Σ |θ_l| in the Frobenius norm.
//!
//! Guarantee. R(t) is orthogonal to about n eps, each column being touched by 2n rotations. Cost: 6 n flops for each of
//! the at most n(n-1)/2 rotations.

use ndarray::Array2;

#[derive(Clone, Debug)]
pub(super) struct Rotation {
    /// (i, θ_l): the rotation turns coordinates i and i + 1.
    planes: Vec<(usize, f64)>,
}

impl Rotation {
    /// Decomposes an orthogonal matrix of determinant 1.
    pub(super) fn decompose(mut r: Array2<f64>) -> Self {
        Self { planes: clear_below_diagonal(&mut r) }
    }

    /// M R(t).
    pub(super) fn turn(&self, mut m: Array2<f64>, t: f64) -> Array2<f64> {
        for &(i, angle) in &self.planes {
            let (sin, cos) = (t * angle).sin_cos();
            for mut row in m.rows_mut() {
                let (a, b) = (row[i], row[i + 1]);
                row[i] = cos * a + sin * b;
                row[i + 1] = cos * b - sin * a;
            }
        }
        m
    }

    /// √2 Σ |θ_l|.
    pub(super) fn length_bound(&self) -> f64 {
        std::f64::consts::SQRT_2 * self.planes.iter().map(|(_, angle)| angle.abs()).sum::<f64>()
    }
}

/// det R = ±1 of an orthogonal matrix: rotations leave its sign in the last diagonal entry.
pub(super) fn determinant_of_orthogonal(mut r: Array2<f64>) -> f64 {
    clear_below_diagonal(&mut r);
    r[[r.nrows() - 1, r.ncols() - 1]].signum()
}

/// Row i of G(θ) M is cos θ m_i + sin θ m_{i+1}, row i + 1 is cos θ m_{i+1} - sin θ m_i.
fn clear_below_diagonal(r: &mut Array2<f64>) -> Vec<(usize, f64)> {
    let n = r.nrows();
    let mut planes = Vec::with_capacity(n * n.saturating_sub(1) / 2);
    for column in 0..n.saturating_sub(1) {
        for i in (column..n - 1).rev() {
            let angle = f64::atan2(r[[i + 1, column]], r[[i, column]]);
            if angle == 0.0 {
                continue;
            }
            let (sin, cos) = angle.sin_cos();
            for j in column..n {
                let (a, b) = (r[[i, j]], r[[i + 1, j]]);
                r[[i, j]] = cos * a + sin * b;
                r[[i + 1, j]] = cos * b - sin * a;
            }
            planes.push((i, angle));
        }
    }
    planes
}
