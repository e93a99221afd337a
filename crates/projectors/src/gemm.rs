//! Matrix products: one-threaded OpenBLAS inside, rayon outside.
//!
//! `matmul_into` computes `C = alpha A B + beta C` for A (m x k), B (k x n), C (m x n); `gram` computes `A^T A`.
//!
//! A large product is cut into panels of rows or columns of C, and each panel is one call of OpenBLAS on one thread.
//! The cut depends on the shape alone, so the result is the same to the bit however many threads there are and
//! however they are scheduled. `gram` computes the blocks on and above the diagonal and mirrors them: exactly
//! symmetric, at a bit more than half of the flops. A long inner axis between short outer ones is cut instead, and the
//! partial products are added in order.
//!
//! `add_in_blocks` adds a product with blocked sums, whose rounding errors grow with the length of a block and the number of
//! blocks, not with k.
//!
//! Cost: 2 m n k flops for a product. Panics if the shapes do not fit, like ndarray's own products.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};

use crate::{Real, dense};

/// Products of fewer flops than this stay on the calling thread: splitting costs about 10 microseconds.
const PARALLEL_FLOPS: usize = 6_000_000;
/// Rows or columns of a panel, give or take: OpenBLAS packs the other operand once for each panel.
const PANEL: usize = 128;
/// Largest number of panels of one product.
const MAX_PANELS: usize = 16;
/// Most terms of a block of [`add_in_blocks`]: longer ones add their roundings, shorter ones passes over C.
pub const BLOCK_TERMS: usize = 128;
/// Smallest block edge of the Gram product; larger matrices have four blocks or blocks of 128.
const MIN_GRAM_BLOCK: usize = 64;

#[cfg(feature = "openblas-system")]
#[expect(
    unsafe_code,
    reason = "the C symbol of OpenBLAS; it takes an int by value and has no other requirement"
)]
// SAFETY: OpenBLAS declares `void openblas_set_num_threads(int)`, callable at any time from any thread.
unsafe extern "C" {
    safe fn openblas_set_num_threads(n_threads: std::ffi::c_int);
}

/// Switches OpenBLAS to one thread for the whole process; parallelism is rayon's. Another BLAS, without the feature
/// `openblas-system`, is told so by its own environment variable, such as `OMP_NUM_THREADS=1`.
///
/// Every product of this module calls it, and repeated calls cost nothing. Code that calls LAPACK or BLAS directly
/// from several rayon threads calls it first, so that the two thread pools do not fight.
pub fn single_threaded_blas() {
    #[cfg(feature = "openblas-system")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| openblas_set_num_threads(1));
    }
}

/// The product `A B`.
///
/// # Panics
/// If the number of columns of `a` is not the number of rows of `b`.
///
/// ```
/// let a = ndarray::array![[1.0, 2.0], [3.0, 4.0]];
/// let b = ndarray::array![[0.0, 1.0], [1.0, 0.0]];
/// assert_eq!(projectors::gemm::matmul(a.view(), b.view()), ndarray::array![[2.0, 1.0], [4.0, 3.0]]);
/// ```
#[must_use]
pub fn matmul<T: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>) -> Array2<T> {
    let mut c = Array2::zeros((a.nrows(), b.ncols()));
    matmul_into(T::one(), a, b, T::zero(), c.view_mut());
    c
}

/// `C = alpha A B + beta C` in place.
///
/// With `beta = 0` the old content of `c` is not read, so it may be anything.
///
/// # Panics
/// If the shapes do not fit.
pub fn matmul_into<T: Real>(
    alpha: T,
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    beta: T,
    mut c: ArrayViewMut2<'_, T>,
) {
    single_threaded_blas();
    let (m, k, n) = sizes(a, b, c.dim());
    let long = m.max(n);
    if 2 * m * n * k < PARALLEL_FLOPS {
        return general_mat_mul(alpha, &a, &b, beta, &mut c);
    }
    if long < PANEL {
        return add_slices(alpha, a, b, beta, c);
    }
    in_panels(a, b, c, |a, b, mut c| general_mat_mul(alpha, &a, &b, beta, &mut c));
}

/// Panels of rows or columns of C, each the work of one call, in parallel.
fn in_panels<T: Real>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    mut c: ArrayViewMut2<'_, T>,
    work: impl Fn(ArrayView2<'_, T>, ArrayView2<'_, T>, ArrayViewMut2<'_, T>) + Sync,
) {
    let panel = panel_length(c.nrows().max(c.ncols()));
    if c.nrows() >= c.ncols() {
        c.axis_chunks_iter_mut(Axis(0), panel)
            .into_par_iter()
            .zip(a.axis_chunks_iter(Axis(0), panel))
            .for_each(|(c, a)| work(a, b, c));
    } else {
        c.axis_chunks_iter_mut(Axis(1), panel)
            .into_par_iter()
            .zip(b.axis_chunks_iter(Axis(1), panel))
            .for_each(|(c, b)| work(a, b, c));
    }
}

/// m, k and n of a product.
#[track_caller]
fn sizes<T>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    c: (usize, usize),
) -> (usize, usize, usize) {
    let ((m, k), n) = (a.dim(), b.ncols());
    assert!(
        b.nrows() == k && c == (m, n),
        "product of {m} x {k} and {} x {n} does not fit into {c:?}",
        b.nrows()
    );
    (m, k, n)
}

/// `C += A B` with blocked sums, in parallel.
///
/// The inner axis is cut into blocks of at most [`BLOCK_TERMS`] terms. The product of a block is formed on its own, in whatever
/// order OpenBLAS takes, and then added to C.
///
/// Guarantee: a term passes through at most min(k, 128) + ⌈k / 128⌉ roundings, and C through ⌈k / 128⌉.
/// A product in any order, as of [`matmul_into`], promises k + 1.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_in_blocks<T: Real>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>, c: ArrayViewMut2<'_, T>) {
    let (m, k, n) = sizes(a, b, c.dim());
    if 2 * m * n * k < PARALLEL_FLOPS {
        return product_in_blocks(a, b, true, c, &mut Vec::new());
    }
    in_panels(a, b, c, |a, b, c| product_in_blocks(a, b, true, c, &mut Vec::new()));
}

/// `C = A B`, or `C += A B` with `adds`, with blocked sums as [`add_in_blocks`], on the calling thread.
///
/// `buffer` is room for the product of a block.
///
/// # Panics
/// If the shapes do not fit.
pub fn product_in_blocks<T: Real>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    mut adds: bool,
    mut c: ArrayViewMut2<'_, T>,
    buffer: &mut Vec<T>,
) {
    single_threaded_blas();
    let (m, k, n) = sizes(a, b, c.dim());
    if k == 0 && !adds {
        c.fill(T::zero());
    }
    if buffer.len() < m * n {
        buffer.resize(m * n, T::zero());
    }
    let mut product =
        ArrayViewMut2::from_shape((m, n), &mut buffer[..m * n]).expect("the buffer has m·n values");
    let blocks = a.axis_chunks_iter(Axis(1), BLOCK_TERMS);
    for (a, b) in blocks.zip(b.axis_chunks_iter(Axis(0), BLOCK_TERMS)) {
        if adds {
            general_mat_mul(T::one(), &a, &b, T::zero(), &mut product);
            c += &product;
        } else {
            general_mat_mul(T::one(), &a, &b, T::zero(), &mut c);
        }
        adds = true;
    }
}

/// A product with few rows and columns and a long inner axis: slices of that axis in parallel, summed in order.
fn add_slices<T: Real>(
    alpha: T,
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    beta: T,
    mut c: ArrayViewMut2<'_, T>,
) {
    let slice = panel_length(a.ncols());
    let slices: Vec<_> = a
        .axis_chunks_iter(Axis(1), slice)
        .into_par_iter()
        .zip(b.axis_chunks_iter(Axis(0), slice))
        .map(|(a, b)| {
            let mut product = Array2::zeros((a.nrows(), b.ncols()));
            general_mat_mul(alpha, &a, &b, T::zero(), &mut product);
            product
        })
        .collect();
    if beta == T::zero() {
        c.fill(T::zero());
    } else if beta != T::one() {
        c.mapv_inplace(|x| x * beta);
    }
    for product in &slices {
        c += product;
    }
}

/// Length of the panels that `long` rows or columns are cut into, a multiple of 16.
fn panel_length(long: usize) -> usize {
    let n_panels = (long / PANEL).clamp(2, MAX_PANELS);
    long.div_ceil(n_panels).next_multiple_of(16)
}

/// The Gram matrix `A^T A`, exactly symmetric.
///
/// For `A A^T` pass `a.t()`.
///
/// ```
/// let a = ndarray::array![[1.0, 2.0], [0.0, 1.0]];
/// assert_eq!(projectors::gemm::gram(a.view()), ndarray::array![[1.0, 2.0], [2.0, 5.0]]);
/// ```
#[must_use]
pub fn gram<T: Real>(a: ArrayView2<'_, T>) -> Array2<T> {
    single_threaded_blas();
    let (m, n) = a.dim();
    let mut g = Array2::zeros((n, n));
    let at = a.t();
    let block = (n / 4).clamp(MIN_GRAM_BLOCK, PANEL).next_multiple_of(16);
    if 2 * n * n * m < PARALLEL_FLOPS {
        general_mat_mul(T::one(), &at, &a, T::zero(), &mut g);
    } else if n < PANEL {
        add_slices(T::one(), at, a, T::zero(), g.view_mut());
    } else {
        // Row panel i holds the blocks (i, j) with j <= i; the longest panels start first.
        let mut panels: Vec<_> = g.axis_chunks_iter_mut(Axis(0), block).enumerate().collect();
        panels.reverse();
        panels.into_par_iter().with_max_len(1).for_each(|(i, mut panel)| {
            let rows = i * block..i * block + panel.nrows();
            let mut lower = panel.slice_mut(s![.., ..rows.end]);
            let left = at.slice(s![rows.clone(), ..]);
            general_mat_mul(T::one(), &left, &a.slice(s![.., ..rows.end]), T::zero(), &mut lower);
        });
    }
    dense::mirror_lower(&mut g);
    g
}

/// The product `w s`, stored in the memory order of `w`: what is the transpose of a row-major matrix stays one.
pub(crate) fn oriented_product<T: Real>(w: ArrayView2<'_, T>, s: ArrayView2<'_, T>) -> Array2<T> {
    if w.t().is_standard_layout() && w.ncols() > 1 {
        matmul(s.t(), w.t()).reversed_axes()
    } else {
        matmul(w, s)
    }
}
