//! Layers of a network that are modules of [`nn`](crate::nn).
//!
//! Definition. The module's parameters, one after another in the order of their names, are one vector: the layer's `weight`. Its
//! `bias` (c_out) is added to the module's output. The kernel has k/s taps a side after downsampling by the stride s, as that of a
//! convolution; but AOC's has k before it, and SOC's, which must be odd, has the next odd number. SLL and CPL have as many channels
//! outside as inside: theirs are n = max(c_in s², c_out), zeros are added to the input, and the last n - c_out channels of
//! the output dropped.
//!
//! Guarantee. That of the module. Adding zeros, dropping channels and adding a bias do not raise a Lipschitz constant.
//!
//! Start. As the module draws it from the network's seed.
//!
//! Plain form. The module's: its first layer downsamples and loses the columns that only zeros meet, its last one loses the rows
//! that are dropped and gains the bias.
//!
//! Errors. [`Error::NoPlainForm`] where the image is not square, but for AOC; those of the module.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};

use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::nn::{
    self, AocConfig, Materialize, SandwichConfig, SllConfig, SocConfig, SpectralConfig,
    SpectralMethod, StepRule,
};
use crate::ops;
use crate::plain::{CyclicConv, PlainLayer};
use crate::shape::{ImageShape, SignalShape};
use crate::spec::ModuleKind;

/// A module with its sizes, without its numbers.
#[derive(Debug, Clone)]
pub(crate) struct ModuleLayer {
    name: String,
    kind: ModuleKind,
    /// The image before downsampling.
    input: ImageShape,
    /// The same after it.
    after: ImageShape,
    c_out: usize,
    kernel_size: usize,
    stride: usize,
    /// Names and shapes of the module's parameters.
    pieces: Vec<(String, Vec<usize>)>,
}

impl ModuleLayer {
    /// A layer whose stride divides the kernel size and the sides of the image.
    pub(super) fn new(
        name: &str,
        kind: ModuleKind,
        (input, after): (ImageShape, ImageShape),
        (c_out, kernel_size, stride): (usize, usize, usize),
    ) -> Result<Self> {
        let ImageShape { height, width, .. } = after;
        let name = name.to_owned();
        if kind != ModuleKind::Aoc && height != width {
            let reason = format!("its image is {height} x {width}, expected a square one");
            return Err(Error::NoPlainForm { layer: name, reason });
        }
        let mut layer =
            Self { name, kind, input, after, c_out, kernel_size, stride, pieces: Vec::new() };
        let kernel = layer.kernel();
        if kernel > height || kernel > width {
            let layer = layer.name;
            return Err(Error::KernelExceedsImage { layer, kernel, height, width });
        }
        layer.pieces =
            layer.start(0)?.into_iter().map(|(name, t)| (name, t.dims().to_vec())).collect();
        Ok(layer)
    }

    /// Taps on each side after downsampling.
    fn kernel(&self) -> usize {
        let kernel = self.kernel_size / self.stride;
        if self.kind == ModuleKind::Soc { kernel | 1 } else { kernel }
    }

    /// Channels that a module without a stride takes.
    fn inner_channels(&self) -> usize {
        match self.kind {
            ModuleKind::Sandwich => self.after.channels,
            _ => self.after.channels.max(self.c_out),
        }
    }

    fn has_no_stride(&self) -> bool {
        matches!(self.kind, ModuleKind::Sll | ModuleKind::Cpl | ModuleKind::Sandwich)
    }

    fn build(&self, vb: VarBuilder<'_>, seed: u64) -> Result<Box<dyn Materialize>> {
        let (c_in, c_out, stride) = (self.input.channels, self.c_out, self.stride);
        let spectral = |method, vb| {
            let config = SpectralConfig { method, stride, bias: false, seed };
            nn::spectral_conv2d(c_in, c_out, self.kernel_size, config, vb)
        };
        let residual = |rule, vb| {
            let config = SllConfig { rule, seed, ..SllConfig::default() };
            nn::sll(self.inner_channels(), self.kernel(), config, vb)
        };
        Ok(match self.kind {
            ModuleKind::Aoc => {
                let config = AocConfig { stride, bias: false, seed, ..AocConfig::default() };
                Box::new(nn::aoc_conv2d(c_in, c_out, self.kernel_size, config, vb)?)
            }
            ModuleKind::Cayley => Box::new(spectral(SpectralMethod::Cayley, vb)?),
            ModuleKind::Bro => Box::new(spectral(SpectralMethod::Bro, vb)?),
            ModuleKind::Lot => Box::new(spectral(SpectralMethod::Lot, vb)?),
            ModuleKind::Soc => {
                let config = SocConfig { stride, bias: false, seed, ..SocConfig::default() };
                Box::new(nn::soc_conv2d(c_in, c_out, self.kernel() * stride, config, vb)?)
            }
            ModuleKind::Sll => Box::new(residual(StepRule::Sll, vb)?),
            ModuleKind::Cpl => Box::new(residual(StepRule::Cpl, vb)?),
            ModuleKind::Sandwich => {
                let (c_in, config) = (self.after.channels, SandwichConfig { seed });
                Box::new(nn::sandwich(c_in, c_out, self.kernel(), config, vb)?)
            }
        })
    }

    /// The module's parameters as it draws them, in the order of their names.
    fn start(&self, seed: u64) -> Result<Vec<(String, Tensor)>> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &Device::Cpu);
        self.build(vb.pp(&self.name), seed)?;
        let prefix = format!("{}.", self.name);
        let variables = variables.data().lock().expect("nobody else has the map");
        let named = variables.iter().map(|(name, variable)| {
            (name.trim_start_matches(&prefix).to_owned(), variable.as_detached_tensor())
        });
        let mut start = named.collect::<Vec<_>>();
        start.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(start)
    }

    /// Values of the parameter that the layer starts from.
    pub(super) fn draw(&self, seed: u64) -> Result<Vec<f64>> {
        let pieces = self.start(seed)?.into_iter().map(|(_, tensor)| to_vec::<f64>(&tensor));
        Ok(pieces.collect::<Result<Vec<_>>>()?.concat())
    }

    /// Number of values of the parameter.
    pub(super) fn n_values(&self) -> usize {
        self.pieces.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The module with its parameters.
    fn module(&self, parameter: &Tensor) -> Result<Box<dyn Materialize>> {
        let mut tensors = HashMap::new();
        let mut start = 0;
        for (name, shape) in &self.pieces {
            let len = shape.iter().product();
            let piece = parameter.narrow(0, start, len)?.reshape(shape.as_slice())?;
            tensors.insert(format!("{}.{name}", self.name), piece);
            start += len;
        }
        let vb = VarBuilder::from_tensors(tensors, parameter.dtype(), parameter.device());
        self.build(vb.pp(&self.name), 0)
    }

    /// The layer as a graph: differentiable in images, parameter and bias.
    pub(super) fn forward(&self, x: &Tensor, parameter: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let module = self.module(parameter)?;
        let y = if self.has_no_stride() {
            let x = ops::pixel_unshuffle(x, self.stride)?;
            let missing = self.inner_channels() - self.after.channels;
            let y = module.forward(&x.pad_with_zeros(1, 0, missing)?.contiguous()?)?;
            y.narrow(1, 0, self.c_out)?.contiguous()?
        } else {
            module.forward(x)?
        };
        Ok(y.broadcast_add(&bias.reshape((1, (), 1, 1))?)?)
    }

    /// The plain layers that it stands for, on the parameter's device in its element type.
    pub(super) fn materialize(&self, parameter: &Tensor, bias: &Tensor) -> Result<Vec<PlainLayer>> {
        let module = self.module(&parameter.detach())?;
        let shape = match self.has_no_stride() {
            true => ImageShape { channels: self.inner_channels(), ..self.after },
            false => self.input,
        };
        let mut layers = module.materialize(SignalShape::Image(shape), parameter.dtype())?;
        let last = layers.len() - 1;
        for (place, layer) in layers.iter_mut().enumerate() {
            let PlainLayer::CyclicConv(conv) = layer else { continue };
            *conv = self.fitted(conv, (place == 0, place == last), bias)?;
        }
        Ok(layers)
    }

    /// A convolution of the module's plain form as one of the network's.
    fn fitted(
        &self,
        conv: &CyclicConv,
        (is_first, is_last): (bool, bool),
        bias: &Tensor,
    ) -> Result<CyclicConv> {
        let to_device = |tensor: &Tensor| tensor.to_device(bias.device());
        let mut weight = to_device(conv.weight())?;
        let mut own = conv.bias().map(to_device).transpose()?;
        let mut downsample = conv.downsample();
        if is_first && self.has_no_stride() {
            weight = weight.narrow(1, 0, self.after.channels)?;
            downsample = self.stride;
        }
        if is_last {
            weight = weight.narrow(0, 0, self.c_out)?;
            own = Some(match own {
                Some(own) => (own.narrow(0, 0, self.c_out)? + bias)?,
                None => bias.copy()?,
            });
        }
        CyclicConv::new(weight.contiguous()?, own, downsample)
    }
}
