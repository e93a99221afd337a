//! Small dense helpers shared by the modules: checks, norms, symmetric parts.

use ndarray::{Array2, ArrayView2, Zip};
use num_traits::Float;

use crate::Real;

/// Interleaved partial results of a reduction, so that it vectorises.
const LANES: usize = 8;
use crate::error::{Error, Result};

/// The matrix has only finite entries.
pub(crate) fn check_finite<T: Real>(what: &'static str, a: ArrayView2<'_, T>) -> Result<()> {
    if largest_magnitude(a).is_finite() {
        return Ok(());
    }
    for ((row, column), &x) in a.indexed_iter() {
        if !Float::is_finite(x) {
            return Err(Error::NonFinite { what, row, column, value: x.as_f64() });
        }
    }
    unreachable!("a maximum of finite numbers is finite")
}

/// The largest absolute value, 0 for an empty matrix, infinite if an entry is not finite.
pub(crate) fn largest_magnitude<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    // x 0 is NaN for NaN and infinities, and NaN stays in a sum.
    let add = |(big, zero): (T, T), x: T| {
        let magnitude = Float::abs(x);
        (if magnitude > big { magnitude } else { big }, zero + x * T::zero())
    };
    let mut lanes = [(T::zero(), T::zero()); LANES];
    let rest = match a.as_slice_memory_order() {
        Some(entries) => {
            let chunks = entries.chunks_exact(LANES);
            let rest = chunks.remainder().iter().fold(lanes[0], |sum, &x| add(sum, x));
            for chunk in chunks {
                for lane in 0..LANES {
                    lanes[lane] = add(lanes[lane], chunk[lane]);
                }
            }
            rest
        }
        None => a.iter().fold(lanes[0], |sum, &x| add(sum, x)),
    };
    let (big, zero) = lanes
        .into_iter()
        .fold(rest, |(b, z), (big, zero)| (if big > b { big } else { b }, z + zero));
    if zero == T::zero() { big.as_f64() } else { f64::INFINITY }
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

/// Inner product in f64.
fn dot<T: Real>(xs: &[T], ys: &[T]) -> f64 {
    let mut partial = [0.0; LANES];
    let (x8, y8) = (xs.chunks_exact(LANES), ys.chunks_exact(LANES));
    let rest = x8.remainder().iter().zip(y8.remainder());
    let tail: f64 = rest.map(|(x, y)| x.as_f64() * y.as_f64()).sum();
    for (x, y) in x8.zip(y8) {
        for lane in 0..LANES {
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

/// Inner product `sum a_ij b_ij` of two contiguous matrices of the same layout, in the precision of `T`.
pub(crate) fn inner<T: Real>(a: &Array2<T>, b: &Array2<T>) -> f64 {
    debug_assert_eq!(a.strides(), b.strides());
    match (a.as_slice_memory_order(), b.as_slice_memory_order()) {
        (Some(a), Some(b)) => ndarray::aview1(a).dot(&ndarray::aview1(b)).as_f64(),
        _ => unreachable!("an owned matrix is contiguous"),
    }
}

/// Frobenius norm of `a - I` for a square matrix.
pub(crate) fn distance_to_identity<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    let mut sum = 0.0;
    for (i, row) in a.rows().into_iter().enumerate() {
        sum += match row.as_slice() {
            Some(row) => dot(&row[..i], &row[..i]) + dot(&row[i + 1..], &row[i + 1..]),
            None => row
                .iter()
                .enumerate()
                .filter(|&(j, _)| j != i)
                .map(|(_, x)| x.as_f64().powi(2))
                .sum(),
        };
        sum += (row[i].as_f64() - 1.0).powi(2);
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

/// `a := (a + a^T) / 2` for a square matrix.
pub(crate) fn symmetrise<T: Real>(a: &mut Array2<T>) {
    let half = T::of(0.5);
    for_each_pair(a, |lower, upper| {
        let mean = (*lower + *upper) * half;
        (*lower, *upper) = (mean, mean);
    });
}

/// `a := a - a^T` for a square matrix.
pub(crate) fn skew_part_doubled<T: Real>(a: &mut Array2<T>) {
    for_each_pair(a, |lower, upper| {
        let difference = *lower - *upper;
        (*lower, *upper) = (difference, -difference);
    });
    a.diag_mut().fill(T::zero());
}

/// Copies the lower triangle of a square matrix over the upper one.
pub(crate) fn mirror_lower<T: Real>(a: &mut Array2<T>) {
    for_each_pair(a, |lower, upper| *upper = *lower);
}

/// `a + a^T` for a square matrix.
pub(crate) fn symmetric_part_doubled<T: Real>(a: ArrayView2<'_, T>) -> Array2<T> {
    let mut sum = a.as_standard_layout().into_owned();
    for_each_pair(&mut sum, |lower, upper| {
        let total = *lower + *upper;
        (*lower, *upper) = (total, total);
    });
    sum.diag_mut().mapv_inplace(|x| x + x);
    sum
}

/// Edge of the tiles that pairs of mirrored entries are visited in.
const TILE: usize = 16;

/// Calls `visit(a_ij, a_ji)` for all j < i.
///
/// Tiles are copied into two small buffers, so that memory is read and written along rows only.
fn for_each_pair<T: Real>(a: &mut Array2<T>, mut visit: impl FnMut(&mut T, &mut T)) {
    let n = a.nrows();
    assert_eq!(a.ncols(), n, "square matrix");
    let entries = a.as_slice_memory_order_mut().expect("an owned matrix is contiguous");
    let (mut lower, mut upper) = ([T::zero(); TILE * TILE], [T::zero(); TILE * TILE]);
    for i0 in (0..n).step_by(TILE) {
        let height = TILE.min(n - i0);
        for j0 in (0..i0).step_by(TILE) {
            copy_tile(entries, n, (i0, j0), (height, TILE), &mut lower);
            copy_tile(entries, n, (j0, i0), (TILE, height), &mut upper);
            for i in 0..height {
                for j in 0..TILE {
                    visit(&mut lower[i * TILE + j], &mut upper[j * TILE + i]);
                }
            }
            for i in 0..height {
                entries[(i0 + i) * n + j0..][..TILE].copy_from_slice(&lower[i * TILE..][..TILE]);
            }
            for j in 0..TILE {
                entries[(j0 + j) * n + i0..][..height]
                    .copy_from_slice(&upper[j * TILE..][..height]);
            }
        }
        for i in i0..i0 + height {
            // Row j ends before row i starts, so the two entries come from disjoint parts.
            let (above, row) = entries.split_at_mut(i * n);
            for j in i0..i {
                visit(&mut row[j], &mut above[j * n + i]);
            }
        }
    }
}

/// Copies the tile at `corner` of size `height` x `width` into a buffer with rows of length [`TILE`].
fn copy_tile<T: Real>(
    entries: &[T],
    n: usize,
    corner: (usize, usize),
    (height, width): (usize, usize),
    buffer: &mut [T; TILE * TILE],
) {
    for i in 0..height {
        buffer[i * TILE..][..width]
            .copy_from_slice(&entries[(corner.0 + i) * n + corner.1..][..width]);
    }
}

/// `a := f(a, b)` entry by entry for owned matrices of the same layout: a plain loop over memory.
pub(crate) fn update<T: Real>(a: &mut Array2<T>, b: &Array2<T>, f: impl Fn(T, T) -> T) {
    debug_assert_eq!(a.strides(), b.strides());
    match (a.as_slice_memory_order_mut(), b.as_slice_memory_order()) {
        (Some(a), Some(b)) => a.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b)),
        _ => unreachable!("an owned matrix is contiguous"),
    }
}

/// `a := factor a`.
pub(crate) fn scale<T: Real>(a: &mut Array2<T>, factor: f64) {
    let factor = T::of(factor);
    a.mapv_inplace(|x| x * factor);
}

/// `factor a`.
pub(crate) fn scaled<T: Real>(a: ArrayView2<'_, T>, factor: f64) -> Array2<T> {
    let factor = T::of(factor);
    a.mapv(|x| x * factor)
}

/// Adds `value` to the diagonal.
pub(crate) fn add_diagonal<T: Real>(a: &mut Array2<T>, value: T) {
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
    let largest = largest_magnitude(m);
    if largest == 0.0 {
        return None;
    }
    let exponent = exponent(largest);
    let limit = if T::EPS > f64::EPSILON { 120 } else { 1000 };
    let scale = if exponent.abs() <= 16 { 0 } else { (-exponent).clamp(-limit, limit) };
    Some(T::of(f64::powi(2.0, scale)))
}
