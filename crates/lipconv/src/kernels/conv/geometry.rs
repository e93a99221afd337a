//! Sizes of a cyclic convolution, and of its padded image.

use crate::shape::ImageShape;

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
    pub(super) fn n_taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Number of terms of an output, c_in·k².
    pub(crate) fn n_terms(&self) -> usize {
        self.c_in() * self.n_taps()
    }

    /// Of the convolution of the output gradient that is the input gradient, before it is upsampled.
    pub(super) fn adjoint(&self) -> Self {
        let (input, c_out) = (self.output(), self.c_in());
        Self { input, downsample: 1, kernel: self.kernel, c_out }
    }

    pub(super) fn padded_width(&self) -> usize {
        self.width() + self.kernel - 1
    }

    /// Values in one padded channel.
    pub(super) fn padded_plane(&self) -> usize {
        (self.height() + self.kernel - 1) * self.padded_width()
    }

    /// Values in the padded image.
    pub(super) fn n_padded(&self) -> usize {
        self.c_in() * self.padded_plane()
    }

    /// Place of term number `term` in the padded image.
    pub(super) fn place(&self, term: usize) -> usize {
        let (channel, tap) = (term / self.n_taps(), term % self.n_taps());
        channel * self.padded_plane()
            + (tap / self.kernel) * self.padded_width()
            + tap % self.kernel
    }
}
