//! Cyclic convolution as a product with shifted inputs, and invertible downsampling.
//!
//! Definition, with k the kernel and indices cyclic: `z[o, y, x] = Σ W[o, (c, i, j)] · a[c, y + i - k/2, x + j - k/2]`,
//! the cross-correlation of an input padded cyclically by k/2 (integer division) before and (k-1)/2 after.
//!
//! Shapes: signals c x h x w x images. The matrix of shifted inputs is built for some rows of pixels at a time, so
//! that it stays in a core's cache between its making and its use.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use crate::shape::ImageShape;

/// A stride-1 cyclic convolution on `input`.
#[derive(Debug)]
pub(super) struct Convolution {
    pub(super) input: ImageShape,
    pub(super) kernel: usize,
}

/// PyTorch's pixel_unshuffle: channel order (c, dy, dx).
#[derive(Debug)]
pub(super) struct Unshuffle {
    pub(super) input: ImageShape,
    pub(super) factor: usize,
}

impl Convolution {
    /// `result += weight * shifted(input)`; `result` is c_out x (h·w·images).
    pub(super) fn apply(
        &self,
        weight: ArrayView2<'_, f64>,
        input: &[f64],
        result: &mut ArrayViewMut2<'_, f64>,
        columns: &mut Vec<f64>,
        n_images: usize,
    ) {
        let row = self.input.width * n_images;
        let n_terms = weight.ncols();
        let n_rows = (super::PANEL_VALUES / (n_terms * row).max(1)).clamp(1, self.input.height);
        for y in (0..self.input.height).step_by(n_rows) {
            let n_rows = n_rows.min(self.input.height - y);
            self.gather(input, columns, y..y + n_rows, n_images);
            let columns = super::view(n_terms, n_rows * row, columns);
            let mut panel = result.slice_mut(s![.., y * row..(y + n_rows) * row]);
            super::accumulate(weight, columns, &mut panel);
        }
    }

    /// Row (c, i, j) of the matrix: input channel c shifted by (i - k/2, j - k/2), for output rows `ys`.
    fn gather(
        &self,
        input: &[f64],
        columns: &mut Vec<f64>,
        ys: std::ops::Range<usize>,
        n_images: usize,
    ) {
        let ImageShape { channels, height, width } = self.input;
        let (k, row) = (self.kernel, width * n_images);
        columns.clear();
        for c in 0..channels {
            for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
                let shift = (j + width - k / 2) % width * n_images;
                for y in ys.clone() {
                    let source = c * height + (y + i + height - k / 2) % height;
                    let source = &input[source * row..(source + 1) * row];
                    columns.extend_from_slice(&source[shift..]);
                    columns.extend_from_slice(&source[..shift]);
                }
            }
        }
    }
}

impl Unshuffle {
    /// c x h x w x images to (c, dy, dx) x h/s x w/s x images.
    pub(super) fn apply(&self, input: &[f64], output: &mut Vec<f64>, n_images: usize) {
        let (ImageShape { channels, height, width }, s) = (self.input, self.factor);
        output.clear();
        for c in 0..channels {
            for (dy, dx) in (0..s).flat_map(|dy| (0..s).map(move |dx| (dy, dx))) {
                for (y, x) in (dy..height)
                    .step_by(s)
                    .flat_map(|y| (dx..width).step_by(s).map(move |x| (y, x)))
                {
                    let start = ((c * height + y) * width + x) * n_images;
                    output.extend_from_slice(&input[start..start + n_images]);
                }
            }
        }
    }
}
