//! Small dense helpers shared by the modules: checks, norms, symmetric parts.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Zip};
use num_traits::Float;

use crate::Real;
use crate::error::{Error, Result};

/// The matrix has only finite entries.
pub(crate) fn check_finite<T: Real>(what: &'static str, a: ArrayView2<'_, T>) -> Result<()> {
    // A sum is finite when every term is and nothing overflows: one fast pass decides nearly always.
    if a.iter().fold(T::zero(), |sum, &x| sum + x * T::zero()) == T::zero() {
        return Ok(());
    }
    for ((row, column), &x) in a.indexed_iter() {
        if !Float::is_finite(x) {
            return Err(Error::NonFinite { what, row, column, value: x.as_f64() });
        }
    }
    Ok(())
}

/// The matrix has at least one entry.
pub(crate) fn check_not_empty<T>(what: &'static str, a: ArrayView2<'_, T>) -> Result<()> {
    let (rows, columns) = a.dim();
    if a.is_empty() { Err(Error::Empty { what, rows, columns }) } else { Ok(()) }
}

/// The matrix is square; its size.
pub(crate) fn check_square<T>(what: &'static str, a: ArrayView2<'_, T>) -> Result<usize> {
    let (rows, columns) = a.dim();
    if rows == columns { Ok(rows) } else { Err(Error::NotSquare { what, rows, columns }) }
}

/// The matrix has this shape.
pub(crate) fn check_shape<T>(
    what: &'static str,
    a: ArrayView2<'_, T>,
    expected: (usize, usize),
) -> Result<()> {
    if a.dim() == expected {
        Ok(())
    } else {
        Err(Error::ShapeMismatch { what, expected, got: a.dim() })
    }
}

/// Sum of squares, accumulated in f64.
pub(crate) fn sum_of_squares<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    match a.as_slice_memory_order() {
        Some(xs) => dot(xs, xs),
        None => Zip::from(a).fold(0.0, |s, &x| s + x.as_f64().powi(2)),
    }
}

/// Inner product in f64, in eight interleaved partial sums so that it vectorises.
fn dot<T: Real>(xs: &[T], ys: &[T]) -> f64 {
    let mut partial = [0.0; 8];
    let (x8, y8) = (xs.chunks_exact(8), ys.chunks_exact(8));
    let tail: f64 =
        x8.remainder().iter().zip(y8.remainder()).map(|(x, y)| x.as_f64() * y.as_f64()).sum();
    for (x, y) in x8.zip(y8) {
        for lane in 0..8 {
            partial[lane] += x[lane].as_f64() * y[lane].as_f64();
        }
    }
    partial.iter().sum::<f64>() + tail
}

/// Frobenius norm.
pub(crate) fn frobenius<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    sum_of_squares(a).sqrt()
}

/// Frobenius norm of `a - b`.
pub(crate) fn frobenius_distance<T: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>) -> f64 {
    Zip::from(a).and(b).fold(0.0, |s, &x, &y| s + (x - y).as_f64().powi(2)).sqrt()
}

/// Inner product `sum a_ij b_ij`, in f64.
pub(crate) fn inner<T: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>) -> f64 {
    match (a.as_slice(), b.as_slice()) {
        (Some(xs), Some(ys)) => dot(xs, ys),
        _ => Zip::from(a).and(b).fold(0.0, |s, &x, &y| s + x.as_f64() * y.as_f64()),
    }
}

/// Frobenius norm of `a - I` for a square matrix.
pub(crate) fn distance_to_identity<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    let trace_terms: f64 =
        a.diag().iter().map(|&x| (x - T::one()).as_f64().powi(2) - x.as_f64().powi(2)).sum();
    // The difference of sums cancels when `a` is close to I, so the diagonal is taken apart there.
    let total = sum_of_squares(a) + trace_terms;
    if total > 1e-3 {
        return total.sqrt();
    }
    let n = a.nrows();
    let mut sum = 0.0;
    for (i, row) in a.rows().into_iter().enumerate() {
        for j in 0..n {
            let x = row[j].as_f64() - if i == j { 1.0 } else { 0.0 };
            sum += x * x;
        }
    }
    sum.sqrt()
}

/// Largest absolute row sum, the norm induced by the maximum norm.
pub(crate) fn max_row_sum<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    a.rows()
        .into_iter()
        .map(|r| r.iter().map(|x| x.as_f64().abs()).sum::<f64>())
        .fold(0.0, f64::max)
}

/// `a := (a + a^T) / 2` for a square matrix, tile by tile to stay in cache.
pub(crate) fn symmetrise<T: Real>(mut a: ArrayViewMut2<'_, T>) {
    let half = T::of(0.5);
    for_each_pair(a.nrows(), |i, j| {
        let mean = (a[[i, j]] + a[[j, i]]) * half;
        a[[i, j]] = mean;
        a[[j, i]] = mean;
    });
}

/// `a := a - a^T` for a square matrix.
pub(crate) fn skew_part_doubled<T: Real>(mut a: ArrayViewMut2<'_, T>) {
    for_each_pair(a.nrows(), |i, j| {
        let d = a[[i, j]] - a[[j, i]];
        a[[i, j]] = d;
        a[[j, i]] = -d;
    });
    a.diag_mut().fill(T::zero());
}

/// `a + a^T` for a square matrix.
pub(crate) fn symmetric_part_doubled<T: Real>(a: ArrayView2<'_, T>) -> Array2<T> {
    let mut s = a.to_owned();
    let two = T::of(2.0);
    symmetrise(s.view_mut());
    s.mapv_inplace(|x| x * two);
    s
}

/// Calls `visit(i, j)` for all j < i < n in tiles.
pub(crate) fn for_each_pair(n: usize, mut visit: impl FnMut(usize, usize)) {
    const TILE: usize = 32;
    for i0 in (0..n).step_by(TILE) {
        for j0 in (0..=i0).step_by(TILE) {
            for i in i0..n.min(i0 + TILE) {
                for j in j0..i.min(j0 + TILE) {
                    visit(i, j);
                }
            }
        }
    }
}

/// Adds `value` to the diagonal.
pub(crate) fn add_diagonal<T: Real>(mut a: ArrayViewMut2<'_, T>, value: T) {
    a.diag_mut().mapv_inplace(|x| x + value);
}

/// `x > limit`, or x is not a number.
pub(crate) fn exceeds(x: f64, limit: f64) -> bool {
    x > limit || x.is_nan()
}

/// The same matrix in another element type.
pub(crate) fn convert<T: Real, U: Real>(a: ArrayView2<'_, T>) -> Array2<U> {
    a.mapv(|x| U::of(x.as_f64()))
}

/// The integer e with 2^e <= x < 2^(e+1) for a positive finite x.
pub(crate) fn exponent(x: f64) -> i32 {
    let bits = ((x.to_bits() >> 52) & 0x7ff) as i32;
    // A subnormal is its mantissa times 2^-1074.
    if bits == 0 { -1074 + x.to_bits().ilog2() as i32 } else { bits - 1023 }
}

/// The power of two that brings the entries to a size whose squares neither overflow nor vanish; one for ordinary
/// sizes, `None` for the zero matrix.
pub(crate) fn unit_scale<T: Real>(m: ArrayView2<'_, T>) -> Option<T> {
    let largest = m.iter().fold(0.0, |big, x| f64::max(big, x.as_f64().abs()));
    if largest == 0.0 {
        return None;
    }
    let exponent = exponent(largest);
    let limit = if T::EPS > f64::EPSILON { 120 } else { 1000 };
    let scale = if exponent.abs() <= 16 { 0 } else { (-exponent).clamp(-limit, limit) };
    Some(T::of(f64::powi(2.0, scale)))
}
