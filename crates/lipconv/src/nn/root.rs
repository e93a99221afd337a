//! Square roots of symmetric matrices, for plain forms.
//!
//! Definition. S^(1/2) = V max(Λ, 0)^(1/2) Vᵗ for S = V Λ Vᵗ: of a matrix that is positive semidefinite but for rounding.
//!
//! Method. Cyclic Jacobi rotations in f64 until the entries off the diagonal are of rounding size. Eigenvalues are accurate
//! to eps ‖S‖, so that the square of the root is S to that. An iteration of Newton's kind would amplify rounding by the largest
//! ratio of eigenvalues, and S may be singular.
//!
//! Cost. Some eight sweeps of n²/2 rotations of 4 n values each.

use candle_core::{DType, Tensor};

use crate::element::to_vec;
use crate::error::Result;

/// Sweeps after which even the worst matrices have converged.
const MAX_SWEEPS: usize = 40;

/// The roots of a batch of matrices, f x n x n, as constants in f64.
pub(super) fn square_roots(matrices: &Tensor) -> Result<Tensor> {
    let (count, n, _) = matrices.dims3()?;
    let values = to_vec::<f64>(&matrices.to_dtype(DType::F64)?)?;
    let mut roots = Vec::with_capacity(values.len());
    for matrix in values.chunks_exact((n * n).max(1)) {
        let (eigenvalues, vectors) = decompose(matrix, n);
        let scales = eigenvalues.iter().map(|x| x.max(0.0).sqrt()).collect::<Vec<_>>();
        for i in 0..n {
            for j in 0..n {
                let term = |k: usize| vectors[i * n + k] * scales[k] * vectors[j * n + k];
                roots.push((0..n).map(term).sum::<f64>());
            }
        }
    }
    Ok(Tensor::from_vec(roots, (count, n, n), matrices.device())?)
}

/// Eigenvalues and eigenvectors (columns).
fn decompose(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    // exactly symmetric, whatever rounding left
    let mut a =
        (0..n * n).map(|at| (matrix[at] + matrix[at % n * n + at / n]) / 2.0).collect::<Vec<_>>();
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    let scale = a.iter().map(|x| x * x).sum::<f64>().sqrt();
    for _ in 0..MAX_SWEEPS {
        let off =
            (0..n * n).filter(|at| at % n != at / n).map(|at| a[at] * a[at]).sum::<f64>().sqrt();
        if off <= f64::EPSILON * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, (p, q));
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

/// One rotation of the plane of p and q, after which a[p, q] is 0.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, (p, q): (usize, usize)) {
    let between = a[p * n + q];
    if between == 0.0 {
        return;
    }
    let ratio = (a[q * n + q] - a[p * n + p]) / (2.0 * between);
    let tan = ratio.signum() / (ratio.abs() + ratio.hypot(1.0));
    let cos = 1.0 / tan.hypot(1.0);
    let sin = tan * cos;
    let turn = |x: f64, y: f64| (cos * x - sin * y, sin * x + cos * y);
    for k in 0..n {
        (a[p * n + k], a[q * n + k]) = turn(a[p * n + k], a[q * n + k]);
    }
    for k in 0..n {
        (a[k * n + p], a[k * n + q]) = turn(a[k * n + p], a[k * n + q]);
        (vectors[k * n + p], vectors[k * n + q]) = turn(vectors[k * n + p], vectors[k * n + q]);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn squares_of_roots_are_the_matrices() {
        // eigenvalues 2, 1e-9, 0 and, by rounding, one below 0
        let basis = [
            [0.5, 0.5, 0.5, 0.5],
            [0.5, -0.5, 0.5, -0.5],
            [0.5, 0.5, -0.5, -0.5],
            [0.5, -0.5, -0.5, 0.5],
        ];
        let eigenvalues = [2.0, 1e-9, 0.0, -1e-17];
        let entry = |i: usize, j: usize| {
            (0..4).map(|k| basis[k][i] * eigenvalues[k] * basis[k][j]).sum::<f64>()
        };
        let values = (0..16).map(|at| entry(at / 4, at % 4)).collect::<Vec<f64>>();
        let matrix = Tensor::from_vec(values.clone(), (1, 4, 4), &Device::Cpu).unwrap();
        let root = square_roots(&matrix).unwrap();
        let square = to_vec::<f64>(&root.matmul(&root).unwrap()).unwrap();
        for (a, b) in square.iter().zip(&values) {
            assert!((a - b).abs() <= 16.0 * f64::EPSILON, "{a} {b}");
        }
    }
}
