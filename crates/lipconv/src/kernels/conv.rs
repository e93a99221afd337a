//! Cyclic convolution of one image as matrix products on shifted views: no im2col for wide layers.
//!
//! Definition: with `p = k/2` and the downsampled image `x` of shape c_in x h x w,
//! `y[o, i, j] = β[o] + Σ_{a,b,c} W[a, b, o, c] x[c, (i + a - p) mod h, (j + b - p) mod w]`.
//!
//! Layout. The image is first copied, downsampled and cyclically padded to c_in x hp x wp with
//! hp = h + k - 1, wp = w + k - 1. Seen as flat rows of length hp·wp, tap (a, b) of every output is the same
//! row shifted by a·wp + b, so the output *in wide form* (c_out rows of length L = (h-1)·wp + w, of which
//! k - 1 columns after every w are of no use) is a sum of k² products of a c_out x c_in matrix and a strided
//! view of the padded image. Nothing is copied for a tap. The adjoint products write through the same views.
//! Where c_in is small the k² rows are gathered (one memcpy of L values each) and one product does the work.
//!
//! Cost: 2·c_out·c_in·k²·L FLOP for each of forward, input gradient and weight gradient; L/(h·w) - 1 (6 % at
//! 16 x 16, k = 2) is wasted on the useless columns, which costs less than writing c_in·k²·h·w values.
//!
//! Weights are tap-major, [k, k, c_out, c_in]: the layout in which BCOP kernels are assembled.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder};
use projectors::Real;
use projectors::gemm::product_in_blocks;

use crate::shape::ImageShape;

/// Below this many input channels the taps are gathered into one product: k² products with so short an inner
/// dimension are bound by reading and writing the output k² times.
pub(crate) const GATHER_BELOW: usize = 24;

/// Sizes of one cyclic convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvGeometry {
    /// The image before downsampling.
    pub(crate) input: ImageShape,
    /// Factor of the invertible downsampling.
    pub(crate) downsample: usize,
    /// Side of the kernel.
    pub(crate) kernel: usize,
    /// Number of output channels.
    pub(crate) c_out: usize,
}

impl ConvGeometry {
    pub(crate) fn c_in(&self) -> usize {
        self.input.channels * self.downsample * self.downsample
    }

    pub(crate) fn height(&self) -> usize {
        self.input.height / self.downsample
    }

    pub(crate) fn width(&self) -> usize {
        self.input.width / self.downsample
    }

    pub(crate) fn output(&self) -> ImageShape {
        ImageShape::new(self.c_out, self.height(), self.width())
    }

    /// Number of taps, k².
    pub(crate) fn n_taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Number of weights, k²·c_out·c_in.
    pub(crate) fn n_weights(&self) -> usize {
        self.n_taps() * self.c_out * self.c_in()
    }

    fn padded_width(&self) -> usize {
        self.width() + self.kernel - 1
    }

    /// Values in one padded channel.
    fn padded_plane(&self) -> usize {
        (self.height() + self.kernel - 1) * self.padded_width()
    }

    /// Values in the padded image.
    pub(crate) fn n_padded(&self) -> usize {
        self.c_in() * self.padded_plane()
    }

    /// Length L of a channel in wide form.
    fn wide_plane(&self) -> usize {
        (self.height() - 1) * self.padded_width() + self.width()
    }

    /// Values of an output in wide form.
    pub(crate) fn n_wide(&self) -> usize {
        self.c_out * self.wide_plane()
    }

    fn gathers(&self) -> bool {
        self.c_in() < GATHER_BELOW && self.kernel > 1
    }

    /// Values of the gathered taps, 0 when none are gathered.
    pub(crate) fn n_gathered(&self) -> usize {
        if self.gathers() { self.n_taps() * self.c_in() * self.wide_plane() } else { 0 }
    }

    /// Shift of tap number `tap` in the padded image.
    fn shift(&self, tap: usize) -> usize {
        (tap / self.kernel) * self.padded_width() + tap % self.kernel
    }

    fn tap_view<'a, T>(&self, padded: &'a [T], tap: usize) -> ArrayView2<'a, T> {
        let shape = (self.c_in(), self.wide_plane()).strides((self.padded_plane(), 1));
        ArrayView2::from_shape(shape, &padded[self.shift(tap)..])
            .expect("the shifted rows lie inside")
    }

    fn tap_view_mut<'a, T>(&self, padded: &'a mut [T], tap: usize) -> ArrayViewMut2<'a, T> {
        let shape = (self.c_in(), self.wide_plane()).strides((self.padded_plane(), 1));
        let shifted = &mut padded[self.shift(tap)..];
        ArrayViewMut2::from_shape(shape, shifted).expect("the shifted rows lie inside")
    }

    fn wide_view<'a, T>(&self, wide: &'a [T]) -> ArrayView2<'a, T> {
        matrix(self.c_out, self.wide_plane(), wide)
    }
}

/// The first `rows`·`columns` values as a matrix.
fn matrix<T>(rows: usize, columns: usize, values: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), &values[..rows * columns])
        .expect("the length is rows·columns")
}

fn matrix_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    let values = &mut values[..rows * columns];
    ArrayViewMut2::from_shape((rows, columns), values).expect("the length is rows·columns")
}

/// Weights as the products want them: tap-major, or for gathered taps c_out x (k²·c_in).
pub(crate) fn pack_weights<T: Real>(geometry: &ConvGeometry, taps: &[T], packed: &mut Vec<T>) {
    packed.clear();
    if !geometry.gathers() {
        packed.extend_from_slice(taps);
        return;
    }
    let (c_out, c_in) = (geometry.c_out, geometry.c_in());
    for o in 0..c_out {
        for tap in 0..geometry.n_taps() {
            packed.extend_from_slice(&taps[(tap * c_out + o) * c_in..][..c_in]);
        }
    }
}

/// Adds a gradient in packed layout to one in tap-major layout.
pub(crate) fn unpack_weights_add<T: Real>(geometry: &ConvGeometry, packed: &[T], taps: &mut [T]) {
    let (c_out, c_in, n_taps) = (geometry.c_out, geometry.c_in(), geometry.n_taps());
    let rows = packed.chunks_exact(c_in).enumerate();
    for (row, values) in rows {
        let target = if geometry.gathers() {
            let (o, tap) = (row / n_taps, row % n_taps);
            tap * c_out + o
        } else {
            row
        };
        add_assign(&mut taps[target * c_in..][..c_in], values);
    }
}

/// `target += source`.
pub(crate) fn add_assign<T: Real>(target: &mut [T], source: &[T]) {
    for (t, &s) in target.iter_mut().zip(source) {
        *t += s;
    }
}

/// Downsamples `image` and pads it cyclically.
pub(crate) fn pad<T: Real>(geometry: &ConvGeometry, image: &[T], padded: &mut [T]) {
    let (h, w, wp) = (geometry.height(), geometry.width(), geometry.padded_width());
    let (before, kernel) = (geometry.kernel / 2, geometry.kernel);
    let plane = geometry.padded_plane();
    for (channel, padded) in padded[..geometry.n_padded()].chunks_exact_mut(plane).enumerate() {
        let source = Subpixels::new(geometry, channel);
        for i in 0..h {
            let row = &mut padded[(i + before) * wp..][..wp];
            source.gather(image, i, &mut row[before..before + w]);
            row.copy_within(w..w + before, 0);
            row.copy_within(before..kernel - 1, before + w);
        }
        padded.copy_within(h * wp..(h + before) * wp, 0);
        padded.copy_within(before * wp..(kernel - 1) * wp, (h + before) * wp);
    }
}

/// The adjoint of [`pad`]: folds the gradient of the padded image onto `gradient`, which is overwritten.
/// `padded` is used up.
pub(crate) fn unpad<T: Real>(geometry: &ConvGeometry, padded: &mut [T], gradient: &mut [T]) {
    let (h, w, wp) = (geometry.height(), geometry.width(), geometry.padded_width());
    let (before, kernel) = (geometry.kernel / 2, geometry.kernel);
    let plane = geometry.padded_plane();
    for (channel, padded) in padded[..geometry.n_padded()].chunks_exact_mut(plane).enumerate() {
        let target = Subpixels::new(geometry, channel);
        fold(padded, 0, h * wp, before * wp);
        fold(padded, (h + before) * wp, before * wp, (kernel - 1 - before) * wp);
        for i in 0..h {
            let row = &mut padded[(i + before) * wp..][..wp];
            fold(row, 0, w, before);
            fold(row, before + w, before, kernel - 1 - before);
            target.scatter(&row[before..before + w], i, gradient);
        }
    }
}

/// `values[to..to+n] += values[from..from+n]`, the ranges disjoint or `from > to` by at least one element.
fn fold<T: Real>(values: &mut [T], from: usize, to: usize, n: usize) {
    for i in 0..n {
        let value = values[from + i];
        values[to + i] += value;
    }
}

/// Where the rows of one channel of the downsampled image lie in the original: channel order (c, dy, dx).
struct Subpixels {
    start: usize,
    row: usize,
    factor: usize,
}

impl Subpixels {
    fn new(geometry: &ConvGeometry, channel: usize) -> Self {
        let (factor, input) = (geometry.downsample, geometry.input);
        let (c, offset) = (channel / (factor * factor), channel % (factor * factor));
        let (dy, dx) = (offset / factor, offset % factor);
        let start = c * input.n_pixels() + dy * input.width + dx;
        Self { start, row: factor * input.width, factor }
    }

    fn gather<T: Real>(&self, image: &[T], i: usize, row: &mut [T]) {
        let source = &image[self.start + i * self.row..];
        if self.factor == 1 {
            row.copy_from_slice(&source[..row.len()]);
        } else {
            for (value, &pixel) in row.iter_mut().zip(source.iter().step_by(self.factor)) {
                *value = pixel;
            }
        }
    }

    fn scatter<T: Real>(&self, row: &[T], i: usize, image: &mut [T]) {
        let target = &mut image[self.start + i * self.row..];
        if self.factor == 1 {
            target[..row.len()].copy_from_slice(row);
        } else {
            for (&value, pixel) in row.iter().zip(target.iter_mut().step_by(self.factor)) {
                *pixel = value;
            }
        }
    }
}

/// Copies the shifted rows of every tap below one another: k²·c_in rows of length L, ordered (tap, channel).
fn gather<T: Real>(geometry: &ConvGeometry, padded: &[T], gathered: &mut [T]) {
    let (c_in, plane, length) = (geometry.c_in(), geometry.padded_plane(), geometry.wide_plane());
    let rows = gathered[..geometry.n_gathered()].chunks_exact_mut(length).enumerate();
    for (row, target) in rows {
        let start = (row % c_in) * plane + geometry.shift(row / c_in);
        target.copy_from_slice(&padded[start..start + length]);
    }
}

/// The convolution in wide form: `wide = Σ_taps W[tap] · shifted(padded)`.
///
/// With `blocks`, room for a product, the sums are those of [`product_in_blocks`]: a gathered product, or one for each tap, which has
/// [`GATHER_BELOW`] terms or more.
pub(crate) fn forward<T: Real>(
    geometry: &ConvGeometry,
    packed: &[T],
    padded: &[T],
    gathered: &mut [T],
    wide: &mut [T],
    mut blocks: Option<&mut Vec<T>>,
) {
    let (c_out, c_in) = (geometry.c_out, geometry.c_in());
    let mut wide = matrix_mut(c_out, geometry.wide_plane(), wide);
    if geometry.gathers() {
        gather(geometry, padded, gathered);
        let inner = geometry.n_taps() * c_in;
        let gathered = matrix(inner, geometry.wide_plane(), gathered);
        return product(matrix(c_out, inner, packed), gathered, false, &mut wide, blocks);
    }
    for (tap, weight) in packed.chunks_exact(c_out * c_in).enumerate() {
        let (weight, shifted) = (matrix(c_out, c_in, weight), geometry.tap_view(padded, tap));
        product(weight, shifted, tap > 0, &mut wide, blocks.as_deref_mut());
    }
}

/// `C = A B`, or `C += A B` with `adds`.
fn product<T: Real>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    adds: bool,
    c: &mut ArrayViewMut2<'_, T>,
    blocks: Option<&mut Vec<T>>,
) {
    let beta = if adds { T::one() } else { T::zero() };
    match blocks {
        Some(buffer) => product_in_blocks(a, b, adds, c.view_mut(), buffer),
        None => general_mat_mul(T::one(), &a, &b, beta, c),
    }
}

/// The input gradient: `padded = Σ_taps adjoint-shifted(W[tap]ᵀ · wide)`; the useless columns of `wide` are 0.
pub(crate) fn backward_input<T: Real>(
    geometry: &ConvGeometry,
    packed: &[T],
    wide: &[T],
    gathered: &mut [T],
    padded: &mut [T],
) {
    let (c_out, c_in, length) = (geometry.c_out, geometry.c_in(), geometry.wide_plane());
    let wide = geometry.wide_view(wide);
    padded[..geometry.n_padded()].fill(T::zero());
    if geometry.gathers() {
        let inner = geometry.n_taps() * c_in;
        let weight = matrix(c_out, inner, packed);
        let mut product = matrix_mut(inner, length, gathered);
        general_mat_mul(T::one(), &weight.t(), &wide, T::zero(), &mut product);
        for (row, source) in gathered[..inner * length].chunks_exact(length).enumerate() {
            let start = (row % c_in) * geometry.padded_plane() + geometry.shift(row / c_in);
            add_assign(&mut padded[start..start + length], source);
        }
        return;
    }
    for (tap, weight) in packed.chunks_exact(c_out * c_in).enumerate() {
        let weight = matrix(c_out, c_in, weight);
        let mut target = geometry.tap_view_mut(padded, tap);
        general_mat_mul(T::one(), &weight.t(), &wide, T::one(), &mut target);
    }
}

/// Adds the weight gradient, in packed layout: `gradient[tap] += wide · shifted(padded)ᵀ`.
pub(crate) fn backward_weight_add<T: Real>(
    geometry: &ConvGeometry,
    padded: &[T],
    wide: &[T],
    gathered: &mut [T],
    gradient: &mut [T],
) {
    let (c_out, c_in) = (geometry.c_out, geometry.c_in());
    let wide = geometry.wide_view(wide);
    if geometry.gathers() {
        gather(geometry, padded, gathered);
        let inner = geometry.n_taps() * c_in;
        let gathered = matrix(inner, geometry.wide_plane(), gathered);
        let mut gradient = matrix_mut(c_out, inner, gradient);
        general_mat_mul(T::one(), &wide, &gathered.t(), T::one(), &mut gradient);
        return;
    }
    for (tap, gradient) in gradient.chunks_exact_mut(c_out * c_in).enumerate() {
        let mut gradient = matrix_mut(c_out, c_in, gradient);
        let shifted = geometry.tap_view(padded, tap);
        general_mat_mul(T::one(), &wide, &shifted.t(), T::one(), &mut gradient);
    }
}

/// Takes the useful columns out of the wide form and adds the bias.
pub(crate) fn narrow<T: Real>(
    geometry: &ConvGeometry,
    wide: &[T],
    bias: Option<&[T]>,
    output: &mut [T],
) {
    let (w, wp, length) = (geometry.width(), geometry.padded_width(), geometry.wide_plane());
    let planes = output.chunks_exact_mut(geometry.height() * w).zip(wide.chunks_exact(length));
    for (channel, (output, wide)) in planes.enumerate() {
        let shift = bias.map_or(T::zero(), |bias| bias[channel]);
        for (output, wide) in output.chunks_exact_mut(w).zip(wide.chunks(wp)) {
            for (y, &z) in output.iter_mut().zip(wide) {
                *y = z + shift;
            }
        }
    }
}

/// The adjoint of [`narrow`]: spreads an output gradient, zeros in the useless columns.
pub(crate) fn widen<T: Real>(geometry: &ConvGeometry, output: &[T], wide: &mut [T]) {
    let (w, wp, length) = (geometry.width(), geometry.padded_width(), geometry.wide_plane());
    let planes = output.chunks_exact(geometry.height() * w).zip(wide.chunks_exact_mut(length));
    for (output, wide) in planes {
        for (output, wide) in output.chunks_exact(w).zip(wide.chunks_mut(wp)) {
            wide[..w].copy_from_slice(output);
            wide[w..].fill(T::zero());
        }
    }
}
