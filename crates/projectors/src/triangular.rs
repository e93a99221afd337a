//! Inverse of a lower triangular matrix by halving, so that nearly all of its flops are matrix products.
//!
//! `[A 0; B D]^-1 = [A^-1 0; -D^-1 B A^-1, D^-1]`, with plain substitution at the leaves. Cost n^3 / 3 flops.

use ndarray::{ArrayViewMut2, s};

use crate::{Real, gemm};

/// Sizes up to this are inverted by substitution.
const LEAF: usize = 24;

/// Replaces the lower triangle of `l` by its inverse; the strict upper triangle must be zero. Diagonal nonzero.
pub(crate) fn invert_lower<T: Real>(mut l: ArrayViewMut2<'_, T>) {
    let n = l.nrows();
    if n <= LEAF {
        return invert_leaf(l);
    }
    let half = n / 2;
    invert_lower(l.slice_mut(s![..half, ..half]));
    invert_lower(l.slice_mut(s![half.., half..]));
    let right = gemm::matmul(l.slice(s![half.., ..half]), l.slice(s![..half, ..half]));
    let (_, lower) = l.view_mut().split_at(ndarray::Axis(0), half);
    let (corner, diagonal) = lower.split_at(ndarray::Axis(1), half);
    gemm::matmul_into(-T::one(), diagonal.view(), right.view(), T::zero(), corner);
}

/// Column by column: `x_jj = 1 / l_jj`, `x_ij = -(sum_{j <= p < i} l_ip x_pj) / l_ii`.
///
/// Runs from the last row upwards within a column order that reads only entries not yet replaced.
fn invert_leaf<T: Real>(mut l: ArrayViewMut2<'_, T>) {
    let n = l.nrows();
    let mut column = [T::zero(); LEAF];
    for j in 0..n {
        column[j] = T::one() / l[[j, j]];
        for i in j + 1..n {
            let sum = (j..i).fold(T::zero(), |sum, p| sum + l[[i, p]] * column[p]);
            column[i] = -sum / l[[i, i]];
        }
        // Columns to the right do not read column j, so it can be replaced now.
        for i in j..n {
            l[[i, j]] = column[i];
        }
    }
}
