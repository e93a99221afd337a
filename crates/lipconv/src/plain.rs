//! Plain layers and networks: weights by value, no parametrisation left.
//!
//! A [`PlainNetwork`] is what inference, certification, attacks and export use. It is immutable: there
//! is no training flag and nothing that an earlier call could change: a CUDA engine keeps a copy of the weights, no more.
//!
//! Definition, with `b` the batch, `c x h x w` the image and `k` the side of a kernel:
//! * [`CyclicConv`]: `y = W ⋆ pad(unshuffle(x)) + β`, where `unshuffle` is PyTorch's `pixel_unshuffle` by
//!   the layer's downsampling factor `s`, `pad` is cyclic (k/2 before, (k-1)/2 after on both spatial axes)
//!   and `⋆` is cross-correlation with the OIHW weight `W` of shape `c_out x c_in·s² x k x k`.
//! * [`Dense`]: `y = W x + β` with `W` of shape `n_out x n_in`.
//! * an [`Activation`]; [`PlainLayer::Flatten`] turns an image into a vector.
//! * for networks of other programs: [`PaddedConv`], [`PlainLayer::LeakyRelu`], and layers that go back to earlier signals
//!   (see [`Node`]).
//!
//! Guarantee: [`PlainNetwork::lipschitz_bounds`] are rigorous for the stored numbers. Shapes are checked
//! once, in [`PlainNetwork::new`].

mod graph;
mod padded;

pub use graph::Node;
pub(crate) use padded::Axis;
pub use padded::{Boundary, PaddedConv, Unrolled, Window};

use candle_core::{DType, Device, Tensor};
use projectors::LipschitzBound;

use crate::activation::Activation;
use crate::engine::Step;
#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
use crate::engine::cuda::cache::Cache;
use crate::error::{Error, Result};
use crate::shape::{ImageShape, SignalShape};

/// One layer of a [`PlainNetwork`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PlainLayer {
    /// Invertible downsampling, then a cyclic convolution.
    CyclicConv(CyclicConv),
    /// A matrix product.
    Dense(Dense),
    /// A nonlinearity.
    Activation(Activation),
    /// c x h x w image to a vector of c·h·w features, row-major.
    Flatten,
    /// A convolution with padding, stride, dilation and groups.
    PaddedConv(PaddedConv),
    /// x where x >= 0, `slope`·x elsewhere; slope -1 is the absolute value.
    LeakyRelu {
        /// A finite number that the network's element type holds.
        slope: f64,
    },
    /// The earlier signal `from`: 0 is the image, k the output of the k-th layer.
    Recall {
        /// Which signal.
        from: usize,
    },
    /// The earlier signal `from` plus the current one, which has the same shape.
    Add {
        /// Which signal.
        from: usize,
    },
    /// The channels of the earlier signal `from`, then those of the current one.
    Concat {
        /// Which signal.
        from: usize,
    },
}

/// A cyclic convolution after an invertible downsampling.
#[derive(Debug, Clone)]
pub struct CyclicConv {
    weight: Tensor,
    bias: Option<Tensor>,
    downsample: usize,
}

/// A dense layer.
#[derive(Debug, Clone)]
pub struct Dense {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl CyclicConv {
    /// A layer from its OIHW `weight` (c_out x c_in·s² x k x k, square kernel), an optional `bias` of c_out
    /// values and the downsampling factor `s` (1: none).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when the weight is not square OIHW or the bias does not fit, [`Error::Zero`]
    /// when a size or the factor is 0, [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when weight
    /// and bias differ.
    pub fn new(weight: Tensor, bias: Option<Tensor>, downsample: usize) -> Result<Self> {
        let dims = weight.dims().to_vec();
        if dims.len() != 4 || dims[2] != dims[3] {
            let side = dims.get(2).copied().unwrap_or(0);
            let expected = vec![0, 0, side, side];
            return Err(Error::ShapeMismatch { what: "conv weight".into(), expected, got: dims });
        }
        check_sizes("conv weight", &dims)?;
        if downsample == 0 {
            return Err(Error::Zero { what: "downsampling factor".into() });
        }
        let bias = check_bias("conv bias", &weight, bias)?;
        Ok(Self { weight: weight.detach().contiguous()?, bias, downsample })
    }

    /// The OIHW weight, applied to the downsampled image.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, one value for each output channel.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// The factor of the invertible downsampling before the convolution; 1 means none.
    #[must_use]
    pub fn downsample(&self) -> usize {
        self.downsample
    }

    /// Side of the kernel.
    #[must_use]
    pub fn kernel_size(&self) -> usize {
        self.weight.dims()[2]
    }

    fn output_shape(&self, input: SignalShape, layer: &str) -> Result<SignalShape> {
        let SignalShape::Image(image) = input else {
            return Err(order(layer, "a vector", "a convolution needs an image"));
        };
        let image = image.downsampled(self.downsample, layer)?;
        let (c_out, c_in) = (self.weight.dims()[0], self.weight.dims()[1]);
        let kernel = self.kernel_size();
        if c_in != image.channels {
            let expected = vec![c_out, image.channels, kernel, kernel];
            let got = self.weight.dims().to_vec();
            return Err(Error::ShapeMismatch { what: format!("{layer}.weight"), expected, got });
        }
        if kernel > image.height || kernel > image.width {
            let (layer, height, width) = (layer.to_owned(), image.height, image.width);
            return Err(Error::KernelExceedsImage { layer, kernel, height, width });
        }
        Ok(SignalShape::Image(ImageShape { channels: c_out, ..image }))
    }
}

impl Dense {
    /// A layer from its `weight` (n_out x n_in) and an optional `bias` of n_out values.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::Zero`], [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] as
    /// for [`CyclicConv::new`].
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        let dims = weight.dims().to_vec();
        if dims.len() != 2 {
            let what = "dense weight".into();
            return Err(Error::ShapeMismatch { what, expected: vec![0, 0], got: dims });
        }
        check_sizes("dense weight", &dims)?;
        let bias = check_bias("dense bias", &weight, bias)?;
        Ok(Self { weight: weight.detach().contiguous()?, bias })
    }

    /// The weight, n_out x n_in.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, one value for each output feature.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    fn output_shape(&self, input: SignalShape, layer: &str) -> Result<SignalShape> {
        let SignalShape::Vector(n_in) = input else {
            return Err(order(
                layer,
                "an image",
                "a dense layer needs a vector; put Flatten before it",
            ));
        };
        let n_out = self.weight.dims()[0];
        if self.weight.dims()[1] != n_in {
            let got = self.weight.dims().to_vec();
            let what = format!("{layer}.weight");
            return Err(Error::ShapeMismatch { what, expected: vec![n_out, n_in], got });
        }
        Ok(SignalShape::Vector(n_out))
    }
}

impl PlainLayer {
    /// The shape that this layer makes of `input`; `layer` is its name in error messages.
    ///
    /// # Errors
    /// Any shape error: see [`Error`].
    pub fn output_shape(&self, input: SignalShape, layer: &str) -> Result<SignalShape> {
        match self {
            Self::CyclicConv(conv) => conv.output_shape(input, layer),
            Self::Dense(dense) => dense.output_shape(input, layer),
            Self::Activation(activation) => activation.output_shape(input, layer),
            Self::Flatten => Ok(SignalShape::Vector(input.n_values())),
            Self::PaddedConv(conv) => conv.output_shape(input, layer),
            Self::LeakyRelu { .. } => Ok(input),
            Self::Recall { .. } | Self::Add { .. } | Self::Concat { .. } => {
                Err(order(layer, "its input", "its shape is that of its network's signals"))
            }
        }
    }

    /// Weight and bias, where the layer has them.
    #[must_use]
    pub fn parameters(&self) -> Option<(&Tensor, Option<&Tensor>)> {
        match self {
            Self::CyclicConv(conv) => Some((&conv.weight, conv.bias.as_ref())),
            Self::Dense(dense) => Some((&dense.weight, dense.bias.as_ref())),
            Self::PaddedConv(conv) => Some((&conv.weight, conv.bias.as_ref())),
            _ => None,
        }
    }

    /// The layer as block form sees it.
    pub(crate) fn step(&self) -> Step {
        match self {
            Self::CyclicConv(_) | Self::Dense(_) => Step::Linear,
            Self::Activation(activation) => Step::Activation(*activation),
            Self::Flatten => Step::Flatten,
            Self::PaddedConv(_)
            | Self::LeakyRelu { .. }
            | Self::Recall { .. }
            | Self::Add { .. }
            | Self::Concat { .. } => Step::Other,
        }
    }

    fn map(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let bias = |bias: &Option<Tensor>| bias.as_ref().map(&f).transpose();
        Ok(match self {
            Self::CyclicConv(conv) => Self::CyclicConv(CyclicConv {
                weight: f(&conv.weight)?,
                bias: bias(&conv.bias)?,
                downsample: conv.downsample,
            }),
            Self::Dense(dense) => {
                Self::Dense(Dense { weight: f(&dense.weight)?, bias: bias(&dense.bias)? })
            }
            Self::PaddedConv(conv) => Self::PaddedConv(PaddedConv {
                weight: f(&conv.weight)?,
                bias: bias(&conv.bias)?,
                window: conv.window,
            }),
            other => other.clone(),
        })
    }
}

/// An immutable network of plain layers on one device in one element type.
#[derive(Debug, Clone)]
pub struct PlainNetwork {
    input: ImageShape,
    layers: Vec<PlainLayer>,
    names: Vec<String>,
    shapes: Vec<SignalShape>,
    nodes: Vec<Node>,
    n_classes: usize,
    dtype: DType,
    device: Device,
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    engine: Cache,
}

impl PlainNetwork {
    /// A network from its layers, all shapes checked.
    ///
    /// # Errors
    /// [`Error::Zero`] for an empty list or image, any shape error of a layer, [`Error::TooManyValues`] beyond 2²² values
    /// between two layers, [`Error::LayerOrder`] when the output is not a vector, [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when weights differ.
    pub fn new(input: ImageShape, layers: Vec<PlainLayer>) -> Result<Self> {
        if input.n_values() == 0 {
            return Err(Error::Zero { what: "image size".into() });
        }
        let names = graph::layer_names(&layers);
        SignalShape::Image(input).check_size(|| "an image".into())?;
        let shapes = graph::shapes(input, &layers, &names)?;
        let SignalShape::Vector(n_classes) = shapes[layers.len()] else {
            return Err(order("the output", "an image", "a network ends with a vector of logits"));
        };
        let Some((first, _)) = layers.iter().find_map(PlainLayer::parameters) else {
            return Err(Error::Zero { what: "number of layers with weights".into() });
        };
        let (dtype, device) = (first.dtype(), first.device().clone());
        for (layer, name) in layers.iter().zip(&names) {
            if let Some((weight, _)) = layer.parameters() {
                check_same_kind(&format!("{name}.weight"), first, weight)?;
            }
            graph::check_slope(layer, dtype)?;
        }
        let nodes = graph::nodes(&layers, &names)?;
        Ok(Self {
            input,
            layers,
            names,
            shapes,
            nodes,
            n_classes,
            dtype,
            device,
            #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
            engine: Cache::default(),
        })
    }

    /// Shape of an input image.
    #[must_use]
    pub fn input(&self) -> ImageShape {
        self.input
    }

    /// The layers, first to last.
    #[must_use]
    pub fn layers(&self) -> &[PlainLayer] {
        &self.layers
    }

    /// The layers' names, in the same order: `conv1`, `maxmin1`, … `linear2`.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of logits.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Element type of the weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the weights live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same network with weights of another element type; slopes are rounded to f32 with them.
    ///
    /// # Errors
    /// [`Error::Candle`] when the conversion is not supported, [`Error::InvalidSetting`] for a slope beyond the range of f32.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let converted = |layer: &PlainLayer| {
            let mut layer = layer.map(|t| t.to_dtype(dtype))?;
            if let (PlainLayer::LeakyRelu { slope }, DType::F32) = (&mut layer, dtype) {
                *slope = f64::from(*slope as f32);
            }
            graph::check_slope(&layer, dtype)?;
            Ok(layer)
        };
        let layers = self.layers.iter().map(converted);
        Ok(Self { layers: layers.collect::<Result<_>>()?, dtype, ..self.afresh() })
    }

    /// The same network on another device.
    ///
    /// # Errors
    /// [`Error::Candle`] when the copy fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let layers = self.layers.iter().map(|l| l.map(|t| t.to_device(device)));
        let device = device.clone();
        Ok(Self { layers: layers.collect::<Result<_>>()?, device, ..self.afresh() })
    }

    /// A copy that shares no engine.
    fn afresh(&self) -> Self {
        #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
        return self.with_engine(Cache::default());
        #[cfg(not(any(feature = "cuda-engine", feature = "cuda-emulation")))]
        self.clone()
    }

    /// A copy with another engine.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    pub(crate) fn with_engine(&self, engine: Cache) -> Self {
        Self { engine, ..self.clone() }
    }

    /// The engine that evaluates the network, once it has been wanted.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    pub(crate) fn engine(&self) -> &Cache {
        &self.engine
    }

    /// A rigorous Lipschitz bound of every layer on the network's image size, in order.
    ///
    /// # Errors
    /// As for [`PlainLayer::lipschitz_bound`].
    pub fn lipschitz_bounds(&self) -> Result<Vec<LipschitzBound>> {
        let layers = self.layers.iter().zip(&self.names).zip(&self.shapes);
        layers.map(|((layer, name), shape)| layer.lipschitz_bound_on(*shape, name)).collect()
    }

    /// A rigorous Lipschitz bound of the whole network: the product of its layers', sums and concatenations counted, rounded up.
    ///
    /// # Errors
    /// As for [`PlainLayer::lipschitz_bound`].
    pub fn lipschitz_bound(&self) -> Result<LipschitzBound> {
        Ok(self.signal_bounds()?.pop().unwrap_or(LipschitzBound::ONE))
    }

    pub(crate) fn check_batch(&self, images: &Tensor) -> Result<usize> {
        let ImageShape { channels, height, width } = self.input;
        let dims = images.dims();
        if dims.len() != 4 || dims[1..] != [channels, height, width] {
            let batch = dims.first().copied().unwrap_or(0);
            let expected = vec![batch, channels, height, width];
            let what = "batch of images".into();
            return Err(Error::ShapeMismatch { what, expected, got: dims.to_vec() });
        }
        let Some((weight, _)) = self.layers.iter().find_map(PlainLayer::parameters) else {
            return Err(Error::Zero { what: "number of layers with weights".into() });
        };
        check_same_kind("batch of images", weight, images)?;
        Ok(dims[0])
    }
}

fn order(layer: &str, previous: &str, reason: &'static str) -> Error {
    Error::LayerOrder { layer: layer.to_owned(), previous: previous.to_owned(), reason }
}

fn check_sizes(what: &str, dims: &[usize]) -> Result<()> {
    if dims.contains(&0) {
        return Err(Error::Zero { what: format!("a side of {what} {dims:?}") });
    }
    Ok(())
}

fn check_bias(what: &str, weight: &Tensor, bias: Option<Tensor>) -> Result<Option<Tensor>> {
    let Some(bias) = bias else { return Ok(None) };
    let expected = vec![weight.dims()[0]];
    if bias.dims() != expected {
        let got = bias.dims().to_vec();
        return Err(Error::ShapeMismatch { what: what.into(), expected, got });
    }
    check_same_kind(what, weight, &bias)?;
    Ok(Some(bias.detach().contiguous()?))
}

/// `tensor` must have the element type and the device of `reference`.
fn check_same_kind(what: &str, reference: &Tensor, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() != reference.dtype() {
        let (expected, got) = (reference.dtype().as_str().into(), tensor.dtype().as_str().into());
        return Err(Error::DTypeMismatch { what: what.into(), expected, got });
    }
    check_same_device(what, reference.device(), tensor)
}

pub(crate) fn check_same_device(what: &str, device: &Device, tensor: &Tensor) -> Result<()> {
    if !tensor.device().same_device(device) {
        let (expected, got) = (device_name(device), device_name(tensor.device()));
        return Err(Error::DeviceMismatch { what: what.into(), expected, got });
    }
    Ok(())
}

fn device_name(device: &Device) -> String {
    format!("{:?}", device.location())
}

/// For use among candle's own modules.
impl candle_core::Module for PlainNetwork {
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Self::forward(self, images)?)
    }
}
