//! A proof, in floating point, that an eigenvalue does not exceed a number.
//!
//! If the floating-point Cholesky factorisation of a symmetric n x n matrix A runs to completion, its computed factor
//! satisfies L L^T = A + E with |E| <= gamma_{n+1} |L| |L^T| (Higham 2002, Theorem 10.3), so
//! |E|_2 <= sum_i |l_i|_2^2 gamma_{n+1} <= gamma_{n+1} / (1 - gamma_{n+1}) trace(A), and because L L^T is positive semidefinite
//! lambda_min(A) >= -|E|_2. With A = fl(mu I - G) this bounds lambda_max(G). The theorem holds for any order of the
//! inner products, which are plain loops here: no library, no fast-math, nothing to trust but IEEE arithmetic.
//!
//! Guarantee: a `Some` is a proof. Cost: n^3 / 3 flops, n^2 memory. Domain: entries far from overflow and underflow.
//! Source: Rump, "Verification of positive definiteness", BIT 46 (2006).

use ndarray::ArrayView2;

use crate::rounding::{UNIT_ROUNDOFF, add_up, div_up, gamma, mul_up, sub_down, sum_up};

/// A number proven to be >= the largest eigenvalue of the symmetric matrix `g`, at or slightly above `trial`; `None`
/// when the factorisation of `trial I - g` breaks down, so that nothing is proven.
///
/// Reads the lower triangle only.
#[must_use]
pub fn eigenvalue_bound(g: ArrayView2<'_, f64>, trial: f64) -> Option<f64> {
    let n = g.nrows();
    let mut a = vec![0.0; n * n];
    let mut diagonal = Vec::with_capacity(n);
    for i in 0..n {
        for j in 0..i {
            a[i * n + j] = -g[[i, j]];
        }
        a[i * n + i] = trial - g[[i, i]];
        diagonal.push(a[i * n + i]);
    }
    if !cholesky_completes(&mut a, n) {
        return None;
    }
    let trace = sum_up(diagonal.iter().copied());
    let largest = diagonal.iter().copied().fold(0.0, f64::max);
    let gamma = gamma(n + 1);
    let cholesky_error = mul_up(div_up(gamma, sub_down(1.0, gamma)), trace);
    let diagonal_error = mul_up(UNIT_ROUNDOFF, mul_up(largest, 1.0 + f64::EPSILON));
    let underflow = mul_up(f64::MIN_POSITIVE, mul_up((n * n) as f64, add_up(n as f64, largest)));
    let error = add_up(cholesky_error, add_up(diagonal_error, underflow));
    error.is_finite().then(|| add_up(trial, error))
}

/// Factorises the lower triangle in place, row by row; false at the first pivot that is not positive.
fn cholesky_completes(a: &mut [f64], n: usize) -> bool {
    for i in 0..n {
        let (above, current) = a.split_at_mut(i * n);
        let row = &mut current[..=i];
        for j in 0..i {
            let pivot_row = &above[j * n..j * n + j + 1];
            row[j] = (row[j] - dot(&row[..j], &pivot_row[..j])) / pivot_row[j];
        }
        let pivot = row[i] - dot(&row[..i], &row[..i]);
        // Also stops at a pivot that is not a number.
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

/// Inner product in eight interleaved partial sums, which the compiler turns into vector instructions.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut partial = [0.0; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let tail: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in xs.zip(ys) {
        for lane in 0..8 {
            partial[lane] += a[lane] * b[lane];
        }
    }
    partial.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn bound_is_proven_above_and_refused_below() {
        // Eigenvalues 1 and 3.
        let g = array![[2.0, 1.0], [1.0, 2.0]];
        let bound = eigenvalue_bound(g.view(), 3.0 + 1e-9).unwrap();
        assert!((3.0..3.0 + 1e-8).contains(&bound));
        assert_eq!(eigenvalue_bound(g.view(), 3.0 - 1e-9), None);
    }

    #[test]
    fn nothing_is_proven_for_nan() {
        assert_eq!(eigenvalue_bound(array![[f64::NAN]].view(), 1.0), None);
    }
}
