//! Sizes of a linear layer on a device, and the patches of a convolution.

use super::backend::{Address, Launch, arguments};
use super::blueprint::{Blueprint, LinearPlan, LinearShape};
use super::emit::Emit;
use crate::error::Result;

/// See the [module](self).
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Output pixels of an image.
    pub(super) pixels: usize,
    /// Columns of a patch, and values between two of them.
    pub(super) columns: usize,
    pub(super) ld: usize,
    /// The kernels' structure `ConvShape`.
    pub(super) conv: [u32; 6],
    /// Values of an input.
    pub(super) n_in: usize,
}

impl Geometry {
    pub(super) fn new(plan: &LinearPlan) -> Self {
        match plan.shape {
            LinearShape::Dense { n_in } => {
                Self { pixels: 1, columns: n_in, ld: n_in, conv: [0; 6], n_in }
            }
            LinearShape::Conv { input, downsample, kernel } => {
                let (h, w) = (input.height / downsample, input.width / downsample);
                let columns = kernel * kernel * downsample * downsample * input.channels;
                let ld = columns.next_multiple_of(4);
                let conv = [h, w, input.channels, downsample, kernel, ld]
                    .map(|n| u32::try_from(n).expect("an image is planned to fit"));
                Self { pixels: h * w, columns, ld, conv, n_in: input.n_values() }
            }
        }
    }

    /// Input channels of a convolution, after downsampling.
    pub(super) fn c_in(&self) -> usize {
        self.columns / (self.conv[4] * self.conv[4]) as usize
    }

    /// The structure and the number of values in units of four, where channels come in fours.
    fn in_fours(&self) -> Option<[u32; 6]> {
        let [h, w, c, s, k, ld] = self.conv;
        c.is_multiple_of(4).then_some([h, w, c / 4, s, k, ld / 4])
    }

    /// The patches of images with their channels last.
    pub(super) fn gather(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        batch: usize,
        [images, patches]: [Address; 2],
    ) -> Result<()> {
        let rows = batch * self.pixels;
        let (kernel, conv, n) = match self.in_fours() {
            Some(conv) => ("im2col4", conv, rows * self.columns / 4),
            None => ("im2col", self.conv, rows * self.columns),
        };
        let arguments = arguments![images, patches, rows, &conv[..]];
        emit.launch(Launch::each(kernel, stream, n, arguments))
    }

    /// The adjoint: images from patches.
    pub(super) fn scatter(
        &self,
        emit: &mut Emit<'_>,
        stream: usize,
        batch: usize,
        [patches, images]: [Address; 2],
    ) -> Result<()> {
        let (kernel, conv, n) = match self.in_fours() {
            Some(conv) => ("col2im4", conv, batch * self.n_in / 4),
            None => ("col2im", self.conv, batch * self.n_in),
        };
        let arguments = arguments![patches, images, batch * self.pixels, &conv[..]];
        emit.launch(Launch::each(kernel, stream, n, arguments))
    }
}

/// Most samples of a batch: the kernels count values in 31 bits.
pub(super) fn max_batch(blueprint: &Blueprint) -> usize {
    let values = blueprint.layers.iter().map(|plan| {
        let geometry = Geometry::new(plan);
        geometry.pixels * geometry.ld.max(plan.n_out)
    });
    let most = values.max().unwrap_or(1).max(blueprint.input.n_values()).max(1);
    ((1 << 31) - 1) / most
}
