//! A convolution with padding, stride, dilation and groups as products with shifted inputs.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::{PANEL_VALUES, accumulate, view};
use crate::plain::Axis;
use crate::shape::ImageShape;

/// A convolution of `input` to `output`.
#[derive(Debug)]
pub(super) struct Padded {
    pub(super) input: ImageShape,
    pub(super) output: ImageShape,
    pub(super) axes: [Axis; 2],
    pub(super) groups: usize,
}

impl Padded {
    pub(super) fn n_taps(&self) -> usize {
        self.axes[0].n_taps * self.axes[1].n_taps
    }

    /// `result += weight * shifted(input)`, group by group; `result` is c_out x (h·w·images).
    pub(super) fn apply(
        &self,
        weight: ArrayView2<'_, f64>,
        input: &[f64],
        result: &mut ArrayViewMut2<'_, f64>,
        columns: &mut Vec<f64>,
        n_images: usize,
    ) {
        let row = self.output.width * n_images;
        let n_terms = weight.ncols();
        let n_rows = (PANEL_VALUES / (n_terms * row).max(1)).clamp(1, self.output.height);
        let outputs = self.output.channels / self.groups;
        for group in 0..self.groups {
            let rows = group * outputs..(group + 1) * outputs;
            let weight = weight.slice(s![rows.clone(), ..]);
            for y in (0..self.output.height).step_by(n_rows) {
                let ys = y..(y + n_rows).min(self.output.height);
                let n_columns = ys.len() * row;
                self.gather(input, columns, group, ys.clone(), n_images);
                let columns = view(n_terms, n_columns, columns);
                let mut panel = result.slice_mut(s![rows.clone(), ys.start * row..ys.end * row]);
                accumulate(weight, columns, &mut panel);
            }
        }
    }

    /// Row (c, i, j) of the matrix of a group for output rows `ys`.
    fn gather(
        &self,
        input: &[f64],
        columns: &mut Vec<f64>,
        group: usize,
        ys: std::ops::Range<usize>,
        n_images: usize,
    ) {
        let ([vertical, horizontal], image) = (self.axes, self.input);
        let channels = image.channels / self.groups;
        columns.clear();
        for c in group * channels..(group + 1) * channels {
            for (i, j) in
                (0..vertical.n_taps).flat_map(|i| (0..horizontal.n_taps).map(move |j| (i, j)))
            {
                for y in ys.clone() {
                    let row = vertical.source(y, i);
                    for x in 0..self.output.width {
                        match row.zip(horizontal.source(x, j)) {
                            Some((row, column)) => {
                                let at =
                                    ((c * image.height + row) * image.width + column) * n_images;
                                columns.extend_from_slice(&input[at..at + n_images]);
                            }
                            None => columns.resize(columns.len() + n_images, 0.0),
                        }
                    }
                }
            }
        }
    }
}
