//! Images downsampled and padded cyclically, and gradients upsampled.

use projectors::Real;

use super::geometry::ConvGeometry;
use crate::kernels::registers::{Kernel, Packed, Registers};

/// Downsamples `image` and pads it cyclically, by `before` values before and kernel - 1 - before behind.
pub(super) fn pad<T: Packed>(
    geometry: &ConvGeometry,
    before: usize,
    image: &[T],
    padded: &mut [T],
) {
    T::run(Pad { geometry, before, image, padded });
}

struct Pad<'a, T> {
    geometry: &'a ConvGeometry,
    before: usize,
    image: &'a [T],
    padded: &'a mut [T],
}

impl<T: Packed> Kernel<T> for Pad<'_, T> {
    #[inline(always)]
    fn run<R: Registers<T>>(self, _: R) {
        let Self { geometry, before, image, padded } = self;
        let (h, w, wp) = (geometry.height(), geometry.width(), geometry.padded_width());
        let behind = geometry.kernel - 1 - before;
        for (channel, padded) in padded.chunks_exact_mut(geometry.padded_plane()).enumerate() {
            let source = Subpixels::new(geometry, channel);
            let rows = padded[before * wp..].chunks_exact_mut(wp).take(h);
            for (i, row) in rows.enumerate() {
                source.gather(&image[source.row(i)..], &mut row[before..before + w]);
                for j in 0..before {
                    row[j] = row[j + w];
                }
                for j in before..before + behind {
                    row[j + w] = row[j];
                }
            }
            padded.copy_within(h * wp..(h + before) * wp, 0);
            padded.copy_within(before * wp..(before + behind) * wp, (h + before) * wp);
        }
    }
}

/// Upsamples `channels`, of the downsampled image from channel `first` on, an even number, into `image`.
pub(super) fn scatter<T: Real>(
    geometry: &ConvGeometry,
    first: usize,
    channels: &[T],
    image: &mut [T],
) {
    let (w, n_pixels) = (geometry.width(), geometry.output().n_pixels());
    // of two neighbours whole rows are written
    let n_together = if geometry.downsample == 2 { 2 } else { 1 };
    for (n, channels) in channels.chunks_exact(n_together * n_pixels).enumerate() {
        let target = Subpixels::new(geometry, first + n * n_together);
        let (left, right) = channels.split_at(n_pixels);
        for (i, left) in left.chunks_exact(w).enumerate() {
            let row = &mut image[target.row(i)..];
            if n_together == 2 {
                let pairs = left.iter().zip(&right[i * w..]);
                for (pair, (&left, &right)) in row.as_chunks_mut().0.iter_mut().zip(pairs) {
                    *pair = [left, right];
                }
            } else {
                let pixels = row[target.dx..].iter_mut().step_by(target.factor);
                pixels.zip(left).for_each(|(pixel, &value)| *pixel = value);
            }
        }
    }
}

/// Where the values of one channel of the downsampled image lie in the original: channel order (c, dy, dx).
struct Subpixels {
    factor: usize,
    /// The first row with values of the channel.
    start: usize,
    /// From row to row.
    step: usize,
    dx: usize,
}

impl Subpixels {
    fn new(geometry: &ConvGeometry, channel: usize) -> Self {
        let (factor, input) = (geometry.downsample, geometry.input);
        let (c, offset) = (channel / (factor * factor), channel % (factor * factor));
        let (dy, dx) = (offset / factor, offset % factor);
        let start = c * input.n_pixels() + dy * input.width;
        Self { factor, start, step: factor * input.width, dx }
    }

    /// Where the row of the image starts that has row `i` of the channel.
    fn row(&self, i: usize) -> usize {
        self.start + i * self.step
    }

    #[inline(always)]
    fn gather<T: Real>(&self, image: &[T], row: &mut [T]) {
        match (self.factor, self.dx) {
            (1, _) => row.copy_from_slice(&image[..row.len()]),
            // constants, so that these loops are vectorised
            (2, 0) => every_other::<T, 0>(image, row),
            (2, _) => every_other::<T, 1>(image, row),
            (factor, dx) => {
                let pixels = image[dx..].iter().step_by(factor);
                row.iter_mut().zip(pixels).for_each(|(value, &pixel)| *value = pixel);
            }
        }
    }
}

/// The numbers at `DX`, `DX` + 2, ….
#[inline(always)]
fn every_other<T: Real, const DX: usize>(image: &[T], row: &mut [T]) {
    let (eights, rest) = row.as_chunks_mut::<8>();
    let (pixels, last) = image.split_at(16 * eights.len());
    for (eight, pixels) in eights.iter_mut().zip(pixels.as_chunks::<16>().0) {
        *eight = std::array::from_fn(|i| pixels[2 * i + DX]);
    }
    for (value, pixels) in rest.iter_mut().zip(last.as_chunks::<2>().0) {
        *value = pixels[DX];
    }
}
