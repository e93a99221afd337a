//! Convolutions as other programs have them: zero or cyclic padding, strides, dilation, groups.
//!
//! Definition, with s the strides, d the dilation, (t, l) the padding before and g the group of output channel o:
//!
//! ```text
//! y[o, y, x] = β[o] + Σ_{c,i,j} W[o, c, i, j] · a[g·c_in + c, y·s + i·d - t, x·s + j·d - l]
//! ```
//!
//! where `a` outside the image is 0, or the image again. W has the shape c_out x c_in/groups x kh x kw.
//!
//! # Norm
//! Let E put the image into the corner of a torus of zeros, C be the convolution with all positions taken cyclically, and S keep some
//! positions of its output. The layer is S C E whenever the torus is so large that no position outside the image wraps into it,
//! and ‖E‖ = ‖S‖ = 1, so that the layer's norm is at most ‖C‖. With s dividing the torus, C at every s-th position is a convolution of
//! stride 1 after invertible downsampling by s: position y·s + p with p = i·d - t is pixel y + ⌊p/s⌋ of phase p mod s. This is
//! [`PaddedConv::unrolled`]: for every group an OIHW kernel on c_in/groups·s² channels, and the torus. Groups see disjoint channels,
//! so the norm is the largest of theirs. A cyclic layer is its own torus; where s does not divide it, C is taken at all positions.
//!
//! Along an axis of `size` pixels and `n` outputs with k taps, a torus of at least `size + t`, `(n-1)s + (k-1)d - t + 1`, `n·s`, and the span
//! of the kernel does: negative positions fall behind the image, others end before its second copy, and outputs are distinct.

use candle_core::{DType, Device, Tensor};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::{check_bias, check_sizes, order};
use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::shape::{ImageShape, SignalShape};

/// What lies outside of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boundary {
    /// Zeros.
    Zeros,
    /// The image again.
    Cyclic,
}

/// The positions at which a [`PaddedConv`] is evaluated; pairs are vertical, horizontal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Distances of the positions.
    pub stride: [usize; 2],
    /// Pixels before the image.
    pub before: [usize; 2],
    /// Pixels after it.
    pub after: [usize; 2],
    /// Distances of the taps.
    pub dilation: [usize; 2],
    /// Groups of channels that see only one another.
    pub groups: usize,
    /// What lies outside.
    pub boundary: Boundary,
}

impl Default for Window {
    /// Stride 1, no padding, no dilation, one group, zeros.
    fn default() -> Self {
        Self {
            stride: [1; 2],
            before: [0; 2],
            after: [0; 2],
            dilation: [1; 2],
            groups: 1,
            boundary: Boundary::Zeros,
        }
    }
}

/// A convolution with padding, stride, dilation and groups.
#[derive(Debug, Clone)]
pub struct PaddedConv {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) window: Window,
}

/// The kernels of stride 1 on a torus whose norms bound that of a [`PaddedConv`]: see the module.
#[derive(Debug, Clone)]
pub struct Unrolled {
    /// One OIHW kernel for each group.
    pub kernels: Vec<Array4<f64>>,
    /// Height and width of the torus.
    pub torus: (usize, usize),
}

/// Beyond this no setting makes sense, and sums of a few do not overflow.
const MAX_SETTING: usize = 1 << 20;

/// One axis of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) n_taps: usize,
    pub(crate) stride: usize,
    pub(crate) before: usize,
    pub(crate) after: usize,
    pub(crate) dilation: usize,
    pub(crate) boundary: Boundary,
}

/// The torus of one axis: its super-pixels, the phases of each, and of every tap its super-pixel and phase.
struct Torus {
    n_pixels: usize,
    n_phases: usize,
    length: usize,
    taps: Vec<(usize, usize)>,
}

impl Axis {
    /// Pixels that the kernel spans.
    fn span(self) -> usize {
        (self.n_taps - 1) * self.dilation + 1
    }

    /// Number of outputs; None where the kernel exceeds the padded image, or a cyclic one the image itself.
    fn n_outputs(self) -> Option<usize> {
        let free = (self.size + self.before + self.after).checked_sub(self.span())?;
        let n = free / self.stride + 1;
        let distinct = self.span() <= self.size && (n - 1) * self.stride < self.size;
        (self.boundary == Boundary::Zeros || distinct).then_some(n)
    }

    /// Where tap `tap` of output `output` reads; None outside of the image.
    pub(crate) fn source(self, output: usize, tap: usize) -> Option<usize> {
        let padded = output * self.stride + tap * self.dilation;
        match self.boundary {
            Boundary::Zeros => padded.checked_sub(self.before).filter(|at| *at < self.size),
            Boundary::Cyclic => Some(
                (padded + self.size * self.before.div_ceil(self.size) - self.before) % self.size,
            ),
        }
    }

    fn torus(self, n_outputs: usize) -> Torus {
        let divides = self.size.is_multiple_of(self.stride);
        let n_phases = match self.boundary {
            Boundary::Cyclic if !divides => 1,
            _ => self.stride,
        };
        // enough whole super-pixels to make all positions non-negative
        let lift = self.before.div_ceil(n_phases);
        let place = |tap: usize| {
            let at = tap * self.dilation + lift * n_phases - self.before;
            (at / n_phases, at % n_phases)
        };
        let first = place(0).0;
        let mut taps: Vec<(usize, usize)> =
            (0..self.n_taps).map(|tap| (place(tap).0 - first, place(tap).1)).collect();
        let length = taps.last().map_or(1, |last| last.0 + 1);
        let n_pixels = match self.boundary {
            Boundary::Cyclic => self.size / n_phases,
            Boundary::Zeros => {
                let last = (n_outputs - 1) * self.stride + self.span();
                let end = last.saturating_sub(self.before);
                (self.size + self.before).max(end).div_ceil(n_phases).max(n_outputs).max(length)
            }
        };
        // on a cyclic axis a tap may be once around; no two meet, for the kernel spans no more than the image
        taps.iter_mut().for_each(|tap| tap.0 %= n_pixels);
        let length = length.min(n_pixels);
        Torus { n_pixels, n_phases, length, taps }
    }
}

impl PaddedConv {
    /// A layer from its `weight` (c_out x c_in/groups x kh x kw), an optional `bias` of c_out values and its window.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when the weight has not four sides or the bias does not fit, [`Error::Zero`] for a side, stride,
    /// dilation or number of groups of 0, [`Error::GroupsDoNotDivide`], [`Error::InvalidSetting`] for a setting beyond 2²⁰,
    /// [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when weight and bias differ.
    pub fn new(weight: Tensor, bias: Option<Tensor>, window: Window) -> Result<Self> {
        let dims = weight.dims().to_vec();
        if dims.len() != 4 {
            let (what, expected) = ("conv weight".into(), vec![0; 4]);
            return Err(Error::ShapeMismatch { what, expected, got: dims });
        }
        check_sizes("conv weight", &dims)?;
        for (what, pair) in [("stride", window.stride), ("dilation", window.dilation)] {
            if pair.contains(&0) {
                return Err(Error::Zero { what: format!("{what} of a convolution") });
            }
        }
        let pairs = [window.stride, window.before, window.after, window.dilation];
        if let Some(value) = pairs.into_iter().flatten().find(|value| *value > MAX_SETTING) {
            let (name, expected) = ("a setting of a convolution", "at most 2^20");
            return Err(Error::InvalidSetting { name, value: value.to_string(), expected });
        }
        let (channels, group) = (dims[0], window.groups);
        if group == 0 || !channels.is_multiple_of(group) {
            let layer = "groups of a convolution's outputs".to_owned();
            return Err(Error::GroupsDoNotDivide { layer, channels, group });
        }
        let bias = check_bias("conv bias", &weight, bias)?;
        Ok(Self { weight: weight.detach().contiguous()?, bias, window })
    }

    /// The weight.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, one value for each output channel.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Where it is evaluated.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Vertical and horizontal axis on an image.
    pub(crate) fn axes(&self, input: ImageShape) -> [Axis; 2] {
        let (dims, window) = (self.weight.dims(), self.window);
        [(0, input.height), (1, input.width)].map(|(axis, size)| Axis {
            size,
            n_taps: dims[2 + axis],
            stride: window.stride[axis],
            before: window.before[axis],
            after: window.after[axis],
            dilation: window.dilation[axis],
            boundary: window.boundary,
        })
    }

    pub(super) fn output_shape(&self, input: SignalShape, layer: &str) -> Result<SignalShape> {
        self.output_image(input, layer).map(SignalShape::Image)
    }

    /// The image that it makes of an image.
    pub(crate) fn output_image(&self, input: SignalShape, layer: &str) -> Result<ImageShape> {
        let SignalShape::Image(image) = input else {
            return Err(order(layer, "a vector", "a convolution needs an image"));
        };
        let dims = self.weight.dims();
        if dims[1].saturating_mul(self.window.groups) != image.channels {
            let expected = vec![dims[0], image.channels / self.window.groups, dims[2], dims[3]];
            let what = format!("{layer}.weight");
            return Err(Error::ShapeMismatch { what, expected, got: dims.to_vec() });
        }
        let axes = self.axes(image);
        let outputs = axes.map(Axis::n_outputs);
        let [Some(height), Some(width)] = outputs else {
            let kernel = axes.map(Axis::span).into_iter().max().unwrap_or_default();
            let (layer, height, width) = (layer.to_owned(), image.height, image.width);
            return Err(Error::KernelExceedsImage { layer, kernel, height, width });
        };
        Ok(ImageShape { channels: dims[0], height, width })
    }

    /// The kernels on a torus whose norms bound the layer's on images of this shape.
    ///
    /// # Errors
    /// The shape errors of [`PlainLayer::output_shape`](crate::PlainLayer::output_shape), [`Error::TooManyValues`] for kernels beyond 2²⁶ values.
    pub fn unrolled(&self, input: ImageShape, layer: &str) -> Result<Unrolled> {
        const MAX_KERNEL: usize = 1 << 26;
        let output = self.output_image(SignalShape::Image(input), layer)?;
        let [vertical, horizontal] = self.axes(input);
        let (v, h) = (vertical.torus(output.height), horizontal.torus(output.width));
        let &[c_out, c_in, kh, kw] = self.weight.dims() else { unreachable!("checked in new") };
        let n_groups = self.window.groups;
        let rows = c_out / n_groups;
        let dims = (rows, c_in * v.n_phases * h.n_phases, v.length, h.length);
        let n_values = [rows, c_in, v.n_phases, h.n_phases, v.length, h.length, n_groups];
        let n_values = n_values.into_iter().fold(1, usize::saturating_mul);
        if n_values > MAX_KERNEL {
            let what = format!("the kernel of {layer} as one of stride 1");
            return Err(Error::TooManyValues { what, n_values, most: MAX_KERNEL });
        }
        // exact for every element type that weights have
        let weight = self.weight.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let weight = to_vec::<f64>(&weight)?;
        let kernel = |group: usize| {
            let mut kernel = Array4::zeros(dims);
            let own = group * rows * c_in * kh * kw..(group + 1) * rows * c_in * kh * kw;
            for (at, &w) in weight[own].iter().enumerate() {
                let (o, c) = (at / (c_in * kh * kw), at / (kh * kw) % c_in);
                let ((qy, ry), (qx, rx)) = (v.taps[at / kw % kh], h.taps[at % kw]);
                kernel[(o, (c * v.n_phases + ry) * h.n_phases + rx, qy, qx)] = w;
            }
            kernel
        };
        let kernels = (0..n_groups).map(kernel).collect();
        Ok(Unrolled { kernels, torus: (v.n_pixels, h.n_pixels) })
    }
}
