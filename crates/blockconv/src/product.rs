//! The block product (block convolution) of two kernels.
//!
//! Definition. (X □ Y)[i, j] = Σ_{a,b} X[a, b] Y[i-a, j-b], sizes k + l - 1 on each axis; matrices multiply, so the
//! product is associative but not commutative, and X * (Y * v) = (X □ Y) * v.
//!
//! Cost. One matrix product for every pair of taps, accumulated in place: nothing is allocated beyond the result.
//!
//! Not here. Products with the two-tap factors of equations (4) and (5) need one matrix product per tap only:
//! see [`assembly`](crate::assembly).

use ndarray::linalg::general_mat_mul;
use ndarray::{Array4, ArrayView4, s};
use projectors::{Real, gemm};

use crate::check;
use crate::error::Result;

pub(crate) fn block_product<T: Real>(
    x: ArrayView4<'_, T>,
    y: ArrayView4<'_, T>,
) -> Result<Array4<T>> {
    let (xh, xw, n_out, inner) = x.dim();
    let (yh, yw, y_out, n_in) = y.dim();
    check::shape(
        "the right factor of a block product",
        &[yh, yw, inner, n_in],
        &[yh, yw, y_out, n_in],
    )?;
    gemm::single_threaded_blas();
    let mut z = Array4::zeros((xh + yh - 1, xw + yw - 1, n_out, n_in));
    for ((i, j), (a, b)) in pairs((xh, xw), (yh, yw)) {
        let mut tap = z.slice_mut(s![i + a, j + b, .., ..]);
        let (left, right) = (x.slice(s![i, j, .., ..]), y.slice(s![a, b, .., ..]));
        general_mat_mul(T::one(), &left, &right, T::one(), &mut tap);
    }
    Ok(z)
}

type Tap = (usize, usize);

fn pairs(x: Tap, y: Tap) -> impl Iterator<Item = (Tap, Tap)> {
    let taps = |(h, w): Tap| (0..h).flat_map(move |i| (0..w).map(move |j| (i, j)));
    taps(x).flat_map(move |left| taps(y).map(move |right| (left, right)))
}
