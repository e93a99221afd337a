//! Transposed convolution on the CPU with its own adjoint.
//!
//! One sample after another: `taps = Wᵀ x`, one matrix product of (16 c_out x c_in) and (c_in x hw), then each row of the result
//! gathers its four taps (`ops::portable::conv_transpose` derives which). The adjoint gathers the taps of the gradient and
//! multiplies twice. Samples are split into a fixed number of chunks, whose weight gradients are added in order: the same bits
//! whatever the number of threads.
//!
//! Cost: 16 c_in c_out hw multiply-adds forward, twice that backward; memory 16 c_out hw values for each chunk.

use candle_core::{CpuStorage, Shape, Tensor};
use ndarray::{ArrayView2, ArrayViewMut2};
use projectors::Real;
use projectors::gemm::matmul_into;
use rayon::prelude::*;

use crate::cpu_op::{Input, cpu_op};
use crate::element::{Element, cpu_slice, slice_of};
use crate::error::Result;

/// Number of chunks of samples, and of partial weight gradients: fixed, so that the order of summation is.
const N_CHUNKS: usize = 8;
/// Taps of the kernel.
const N_TAPS: usize = 16;

/// Sizes of one transposed convolution.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    c_in: usize,
    c_out: usize,
    height: usize,
    width: usize,
}

impl Geometry {
    fn new(x: &Shape, weight: &Shape) -> candle_core::Result<Self> {
        let (batch, c_in, height, width) = x.dims4()?;
        let (_, c_out, ..) = weight.dims4()?;
        Ok(Self { batch, c_in, c_out, height, width })
    }

    fn n_pixels(&self) -> usize {
        self.height * self.width
    }

    /// Rows of the matrix of taps.
    fn n_rows(&self) -> usize {
        N_TAPS * self.c_out
    }

    fn n_input(&self) -> usize {
        self.c_in * self.n_pixels()
    }

    fn n_output(&self) -> usize {
        4 * self.c_out * self.n_pixels()
    }

    /// Samples in a chunk.
    fn chunk(&self) -> usize {
        self.batch.div_ceil(N_CHUNKS).max(1)
    }

    /// The input row that tap `a` of an output row comes from, for output row `2 · i + odd`; None outside the image.
    fn sources(&self, i: usize, odd: bool) -> [Option<(usize, usize)>; 2] {
        let other = if odd { (i + 1 < self.height).then_some(i + 1) } else { i.checked_sub(1) };
        let (near, far) = if odd { (2, 0) } else { (1, 3) };
        [Some((near, i)), other.map(|row| (far, row))]
    }
}

fn view<T>(rows: usize, columns: usize, values: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), values).expect("rows·columns values")
}

fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("rows·columns values")
}

/// y += the taps of one sample, put where they belong.
fn scatter<T: Real>(g: &Geometry, taps: &[T], y: &mut [T], row: &mut [Vec<T>; 4]) {
    let (w, n_pixels) = (g.width, g.n_pixels());
    for (o, plane) in y.chunks_exact_mut(4 * n_pixels).enumerate() {
        for (index, target) in plane.chunks_exact_mut(2 * w).enumerate() {
            let (i, odd) = (index / 2, index % 2 == 1);
            let sources = g.sources(i, odd);
            for (b, sum) in row.iter_mut().enumerate() {
                sum.clear();
                sum.resize(w, T::zero());
                for (a, source) in sources.into_iter().flatten() {
                    let start = (o * N_TAPS + a * 4 + b) * n_pixels + source * w;
                    sum.iter_mut().zip(&taps[start..start + w]).for_each(|(s, &t)| *s += t);
                }
            }
            let [tap0, tap1, tap2, tap3] = &*row;
            for (j, pair) in target.chunks_exact_mut(2).enumerate() {
                let before = if j > 0 { tap3[j - 1] } else { T::zero() };
                let after = if j + 1 < w { tap0[j + 1] } else { T::zero() };
                pair[0] += tap1[j] + before;
                pair[1] += tap2[j] + after;
            }
        }
    }
}

/// The adjoint of [`scatter`]: the taps that see each value of y.
fn gather<T: Real>(g: &Geometry, y: &[T], taps: &mut [T]) {
    let (w, n_pixels) = (g.width, g.n_pixels());
    for (o, plane) in y.chunks_exact(4 * n_pixels).enumerate() {
        let taps = &mut taps[o * N_TAPS * n_pixels..][..N_TAPS * n_pixels];
        for (tap, values) in taps.chunks_exact_mut(n_pixels).enumerate() {
            let (a, b) = (tap / 4, tap % 4);
            for (i, values) in values.chunks_exact_mut(w).enumerate() {
                let row = (2 * i + a).checked_sub(1).filter(|row| *row < 2 * g.height);
                let Some(row) = row else {
                    values.fill(T::zero());
                    continue;
                };
                gather_row(&plane[row * 2 * w..][..2 * w], b, values);
            }
        }
    }
}

/// `values[j] = row[2j + b - 1]`, 0 outside.
fn gather_row<T: Real>(row: &[T], b: usize, values: &mut [T]) {
    match b {
        0 => {
            values[0] = T::zero();
            let pairs = values[1..].iter_mut().zip(row.chunks_exact(2));
            pairs.for_each(|(value, pair)| *value = pair[1]);
        }
        3 => {
            let last = values.len() - 1;
            let pairs = values[..last].iter_mut().zip(row[2..].chunks_exact(2));
            pairs.for_each(|(value, pair)| *value = pair[0]);
            values[last] = T::zero();
        }
        _ => {
            let pairs = values.iter_mut().zip(row.chunks_exact(2));
            pairs.for_each(|(value, pair)| *value = pair[b - 1]);
        }
    }
}

fn forward<T: Element>(g: &Geometry, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
    let (n_pixels, n_rows) = (g.n_pixels(), g.n_rows());
    let mut y = vec![T::zero(); g.batch * g.n_output()];
    let chunks = y.par_chunks_mut(g.chunk() * g.n_output());
    chunks.zip(x.par_chunks(g.chunk() * g.n_input())).for_each(|(y, x)| {
        let mut taps = vec![T::zero(); n_rows * n_pixels];
        let mut row: [Vec<T>; 4] = Default::default();
        let samples = y.chunks_exact_mut(g.n_output()).zip(x.chunks_exact(g.n_input()));
        for (y, x) in samples {
            let (w, x) = (view(g.c_in, n_rows, weight), view(g.c_in, n_pixels, x));
            matmul_into(T::one(), w.t(), x, T::zero(), view_mut(n_rows, n_pixels, &mut taps));
            for (plane, &bias) in y.chunks_exact_mut(4 * n_pixels).zip(bias) {
                plane.fill(bias);
            }
            scatter(g, &taps, y, &mut row);
        }
    });
    y
}

/// Gradients of x, weight and bias.
fn backward<T: Element>(g: &Geometry, x: &[T], weight: &[T], d_y: &[T]) -> [Vec<T>; 3] {
    let (n_pixels, n_rows) = (g.n_pixels(), g.n_rows());
    let mut d_x = vec![T::zero(); g.batch * g.n_input()];
    let chunks = d_x.par_chunks_mut(g.chunk() * g.n_input());
    let inputs = x.par_chunks(g.chunk() * g.n_input());
    let outputs = d_y.par_chunks(g.chunk() * g.n_output());
    let partial = chunks.zip(inputs).zip(outputs).map(|((d_x, x), d_y)| {
        let mut taps = vec![T::zero(); n_rows * n_pixels];
        let mut d_weight = vec![T::zero(); g.c_in * n_rows];
        let mut d_bias = vec![T::zero(); g.c_out];
        let inputs = d_x.chunks_exact_mut(g.n_input()).zip(x.chunks_exact(g.n_input()));
        for ((d_x, x), d_y) in inputs.zip(d_y.chunks_exact(g.n_output())) {
            gather(g, d_y, &mut taps);
            let taps = view(n_rows, n_pixels, &taps);
            let d_x = view_mut(g.c_in, n_pixels, d_x);
            matmul_into(T::one(), view(g.c_in, n_rows, weight), taps, T::zero(), d_x);
            let d_w = view_mut(g.c_in, n_rows, &mut d_weight);
            matmul_into(T::one(), view(g.c_in, n_pixels, x), taps.t(), T::one(), d_w);
            for (d_bias, plane) in d_bias.iter_mut().zip(d_y.chunks_exact(4 * n_pixels)) {
                *d_bias += plane.iter().copied().sum();
            }
        }
        (d_weight, d_bias)
    });
    let partial: Vec<_> = partial.collect();
    let mut sums = [vec![T::zero(); g.c_in * n_rows], vec![T::zero(); g.c_out]];
    for (d_weight, d_bias) in &partial {
        for (sum, part) in sums.iter_mut().zip([d_weight, d_bias]) {
            sum.iter_mut().zip(part).for_each(|(s, &p)| *s += p);
        }
    }
    let [d_weight, d_bias] = sums;
    [d_x, d_weight, d_bias]
}

/// x, weight and bias, all contiguous.
pub(super) struct ConvTransposeOp;

impl ConvTransposeOp {
    fn forward<T: Element>(
        &self,
        [x, weight, bias]: [Input<'_>; 3],
    ) -> Result<(CpuStorage, Shape)> {
        let g = Geometry::new(x.1.shape(), weight.1.shape())?;
        let shape = Shape::from((g.batch, g.c_out, 2 * g.height, 2 * g.width));
        let [x, weight, bias] = [x, weight, bias].map(|(s, l)| cpu_slice::<T>(s, l));
        Ok((T::to_cpu_storage_owned(forward(&g, x?, weight?, bias?)), shape))
    }

    fn backward<T: Element>(
        &self,
        [x, weight, _]: [&Tensor; 3],
        d_y: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let g = Geometry::new(x.shape(), weight.shape())?;
        let d_y = d_y.contiguous()?;
        let guards = [x, weight, &d_y].map(Tensor::storage_and_layout);
        let [x_values, w_values, d_values] = guards.each_ref().map(|(s, l)| slice_of::<T>(s, l));
        let [d_x, d_weight, d_bias] = backward(&g, x_values?, w_values?, d_values?);
        let device = x.device();
        Ok([
            Tensor::from_vec(d_x, x.shape(), device)?,
            Tensor::from_vec(d_weight, weight.shape(), device)?,
            Tensor::from_vec(d_bias, g.c_out, device)?,
        ])
    }
}

cpu_op!(ConvTransposeOp, "conv-transpose", 3);
