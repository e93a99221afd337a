//! A convolution as a product with a matrix of shifted inputs, on signals of features x images with the image innermost.
//!
//! Definition. A row of the matrix belongs to a term (c, i, j) of the sum, a column to an output pixel of an image; it holds the value of
//! channel c that tap (i, j) of this pixel reads, and 0 where the tap lies outside. Whatever distinguishes kinds of convolutions (padding,
//! stride, dilation, downsampling) is in the tables of [`Shifts`].
//!
//! Cost: the product, and copies of its right operand in runs of neighbouring pixels.

use std::ops::Range;

use ndarray::{ArrayView2, s};
use projectors::Real;
use projectors::gemm::{add_in_blocks, matmul_into};

use super::dense::{view, view_mut};
use crate::plain::{CyclicConv, PaddedConv};
use crate::shape::ImageShape;

/// Values of the matrix that are held at a time, or those of one row of outputs: what a core's cache may hold.
const MOST_VALUES: usize = 1 << 20;

/// Where the taps of a convolution read.
#[derive(Debug)]
pub(super) struct Shifts {
    input: ImageShape,
    output: ImageShape,
    groups: usize,
    /// Channel in its group, vertical tap and horizontal tap of every term.
    terms: Vec<[usize; 3]>,
    /// The row that vertical tap i reads at output row y: taps x rows.
    rows: Vec<Option<usize>>,
    /// For every horizontal tap the runs of pixels that neighbours read as neighbours.
    runs: Vec<Vec<Run>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    output: usize,
    input: usize,
    len: usize,
}

impl Shifts {
    pub(super) fn padded(conv: &PaddedConv, input: ImageShape, output: ImageShape) -> Self {
        let axes = conv.axes(input);
        let (groups, c_in) = (conv.window().groups, conv.weight().dims()[1]);
        let [kh, kw] = axes.map(|axis| axis.n_taps);
        let terms = (0..c_in * kh * kw).map(|t| [t / (kh * kw), t / kw % kh, t % kw]).collect();
        Self::new(input, output, groups, terms, [kh, kw], |axis, at, tap| {
            axes[axis].source(at, tap)
        })
    }

    /// Tap i of phase p is tap i·s + p of a convolution with stride s.
    pub(super) fn cyclic(conv: &CyclicConv, input: ImageShape, output: ImageShape) -> Self {
        let (s, k) = (conv.downsample(), conv.kernel_size());
        let term = |t: usize| {
            let (channel, i, j) = (t / (k * k), t / k % k, t % k);
            [channel / (s * s), i * s + channel / s % s, j * s + channel % s]
        };
        let terms = (0..input.channels * s * s * k * k).map(term).collect();
        let sizes = [output.height, output.width];
        Self::new(input, output, 1, terms, [k * s; 2], |axis, at, tap| {
            let size = sizes[axis];
            Some((at + tap / s + size - k / 2) % size * s + tap % s)
        })
    }

    fn new(
        input: ImageShape,
        output: ImageShape,
        groups: usize,
        terms: Vec<[usize; 3]>,
        n_taps: [usize; 2],
        source: impl Fn(usize, usize, usize) -> Option<usize>,
    ) -> Self {
        let height = output.height;
        let rows = (0..n_taps[0] * height).map(|at| source(0, at % height, at / height)).collect();
        let runs = (0..n_taps[1]).map(|tap| runs(output.width, |x| source(1, x, tap))).collect();
        Self { input, output, groups, terms, rows, runs }
    }

    /// Whether the matrix is the input itself.
    fn is_identity(&self) -> bool {
        let (input, output) = (self.input, self.output);
        let same = (input.height, input.width) == (output.height, output.width);
        let whole = Run { output: 0, input: 0, len: output.width };
        same && self.runs == [vec![whole]]
            && self.rows.iter().enumerate().all(|(y, row)| *row == Some(y))
    }

    /// Output channels of a group.
    fn group_size(&self) -> usize {
        self.output.channels / self.groups
    }

    fn weight_of<'a, T>(&self, weight: &'a [T], group: usize) -> ArrayView2<'a, T> {
        let n = self.group_size() * self.terms.len();
        view(self.group_size(), self.terms.len(), &weight[group * n..][..n])
    }

    /// Ranges of output rows whose matrices fit.
    fn bands(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let row = self.terms.len().saturating_mul(self.output.width * n);
        let (height, n_rows) = (self.output.height, (MOST_VALUES / row.max(1)).max(1));
        (0..height).step_by(n_rows).map(move |y| y..(y + n_rows).min(height))
    }

    /// `W ⋆ input` for n images, added to what is in `output`.
    pub(super) fn forward<T: Real>(
        &self,
        weight: &[T],
        (input, output): (&[T], &mut [T]),
        n: usize,
        buffer: &mut Vec<T>,
    ) {
        let rows = self.group_size();
        let (width, plane) = (self.output.width * n, self.output.n_pixels() * n);
        let is_identity = self.is_identity();
        for group in 0..self.groups {
            let weight = self.weight_of(weight, group);
            let mut whole = view_mut(self.output.channels, plane, output);
            let mut own = whole.slice_mut(s![group * rows..(group + 1) * rows, ..]);
            if is_identity {
                let n_in = self.terms.len() * plane;
                let input = view(self.terms.len(), plane, &input[group * n_in..][..n_in]);
                add_in_blocks(weight, input, own);
                continue;
            }
            for band in self.bands(n) {
                let columns = band.start * width..band.end * width;
                buffer.clear();
                buffer.resize(self.terms.len() * columns.len(), T::zero());
                self.each_run(group, band, n, |at, from, len| {
                    buffer[at..at + len].copy_from_slice(&input[from..from + len]);
                });
                let shifted = view(self.terms.len(), columns.len(), buffer);
                add_in_blocks(weight, shifted, own.slice_mut(s![.., columns]));
            }
        }
    }

    /// The gradient of the input.
    pub(super) fn backward<T: Real>(
        &self,
        weight: &[T],
        d_output: &[T],
        n: usize,
        buffer: &mut Vec<T>,
    ) -> Vec<T> {
        let (one, rows) = (T::one(), self.group_size());
        let (width, plane) = (self.output.width * n, self.output.n_pixels() * n);
        let mut d_input = vec![T::zero(); self.input.n_values() * n];
        let is_identity = self.is_identity();
        for group in 0..self.groups {
            let weight = self.weight_of(weight, group);
            let whole = view(self.output.channels, plane, d_output);
            let own = whole.slice(s![group * rows..(group + 1) * rows, ..]);
            if is_identity {
                let n_in = self.terms.len() * plane;
                let into = &mut d_input[group * n_in..][..n_in];
                matmul_into(one, weight.t(), own, one, view_mut(self.terms.len(), plane, into));
                continue;
            }
            for band in self.bands(n) {
                let columns = band.start * width..band.end * width;
                buffer.resize(self.terms.len() * columns.len(), T::zero());
                let shifted = view_mut(self.terms.len(), columns.len(), buffer);
                matmul_into(one, weight.t(), own.slice(s![.., columns]), T::zero(), shifted);
                self.each_run(group, band, n, |at, into, len| {
                    let sums = d_input[into..into + len].iter_mut();
                    sums.zip(&buffer[at..at + len]).for_each(|(sum, &d)| *sum += d);
                });
            }
        }
        d_input
    }

    /// Calls `f` with position in the matrix of a band, position in the input and number of values of every run.
    fn each_run(
        &self,
        group: usize,
        band: Range<usize>,
        n: usize,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let (input, width, height) = (self.input, self.output.width, self.output.height);
        let first = group * (input.channels / self.groups);
        for (term, &[channel, i, j]) in self.terms.iter().enumerate() {
            for (line, y) in band.clone().enumerate() {
                let Some(row) = self.rows[i * height + y] else { continue };
                let at = (term * band.len() + line) * width;
                let from = ((first + channel) * input.height + row) * input.width;
                for run in &self.runs[j] {
                    f((at + run.output) * n, (from + run.input) * n, run.len * n);
                }
            }
        }
    }
}

/// Maximal runs of outputs whose sources are neighbours.
fn runs(width: usize, source: impl Fn(usize) -> Option<usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for output in 0..width {
        let Some(input) = source(output) else { continue };
        match runs.last_mut() {
            Some(run) if (run.output + run.len, run.input + run.len) == (output, input) => {
                run.len += 1;
            }
            _ => runs.push(Run { output, input, len: 1 }),
        }
    }
    runs
}
