//! Generators: networks from random vectors to images, for the Wasserstein experiments.
//!
//! Definition. A latent vector z, uniform in [-1, 1)^latent, passes through four blocks:
//!
//! ```text
//! linear1   latent → hidden                                batch norm, ReLU
//! linear2   hidden → channels · h/4 · w/4                  batch norm, ReLU, seen as an image of `channels` channels
//! deconv1   channels → channels/2,  h/4 x w/4 → h/2 x w/2  batch norm, ReLU
//! deconv2   channels/2 → c,         h/2 x w/2 → h x w      bias, tanh
//! ```
//!
//! deconv is a transposed convolution of kernel size 4, stride 2 and padding 1. Blocks with batch normalisation have no bias of
//! their own: the mean takes it off again. Images are in [-1, 1].
//!
//! A [`Generator`] normalises by the statistics of each batch and keeps running means of them, as PyTorch does in training.
//! [`Generator::freeze`] makes the [`FrozenGenerator`], in which the running statistics have become part of weights and
//! biases: an immutable function whose i-th image for a seed is always the same.
//!
//! Initialisation: weights normal with standard deviation 0.02, biases and shifts 0, scales 1.
//!
//! Cost of one 32 x 32 image, forward: 2.5 million multiply-adds, most of them in linear2.
//!
//! Source: the paper's section 5.3 and its authors' settings; the network is that of a widely used collection of GANs, with a
//! quarter of its channels.
//!
//! Not here: training, see [`gan`](crate::gan).

mod file;
mod frozen;
mod latents;

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ops::{self, BatchNormed};
use crate::shape::{ImageShape, SignalShape};

pub use frozen::FrozenGenerator;
pub(crate) use latents::draw_latents;
pub use latents::latents;

/// Sides of the images are multiples of this.
const FACTOR: usize = 4;
/// Largest size of anything: no product of four of them overflows.
const LARGEST_SIZE: usize = 8192;
/// ε of batch normalisation: PyTorch's.
const EPSILON: f64 = 1e-5;
/// Share of a batch's statistics in the running ones: PyTorch's.
const MOMENTUM: f64 = 0.1;
/// Standard deviation of fresh weights.
const INITIAL_DEVIATION: f64 = 0.02;

/// A generator as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorSpec {
    /// Length of the random vector.
    pub latent: usize,
    /// Features of the first layer.
    pub hidden: usize,
    /// Channels of the first image; even, since the second has half as many.
    pub channels: usize,
    /// Shape of the images; both sides are multiples of 4.
    pub output: ImageShape,
}

impl GeneratorSpec {
    /// The paper's: 62 numbers, 1024 features, 32 channels.
    #[must_use]
    pub const fn paper(output: ImageShape) -> Self {
        Self { latent: 62, hidden: 1024, channels: 32, output }
    }

    /// Checks every domain.
    ///
    /// # Errors
    /// [`Error::Zero`], [`Error::InvalidSetting`], [`Error::TooManyValues`], [`Error::GroupsDoNotDivide`] or [`Error::StrideDoesNotDivide`] naming the
    /// setting.
    pub fn validate(&self) -> Result<()> {
        let Self { latent, hidden, channels, output } = *self;
        let sizes = [
            ("latent", latent),
            ("hidden", hidden),
            ("channels", channels),
            ("image size", output.n_values()),
        ];
        if let Some((what, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::Zero { what: format!("generator: {what}") });
        }
        let limits = [("latent", latent), ("hidden", hidden), ("channels", channels)];
        let sides = [("image height", output.height), ("image width", output.width)];
        let limits = limits.into_iter().chain([("image channels", output.channels)]).chain(sides);
        if let Some((name, value)) = limits.into_iter().find(|(_, size)| *size > LARGEST_SIZE) {
            let expected = "a whole number up to 8192";
            return Err(Error::InvalidSetting { name, value: value.to_string(), expected });
        }
        SignalShape::Image(output).check_size(|| "an image".into())?;
        let layer = || "generator".to_owned();
        if !channels.is_multiple_of(2) {
            return Err(Error::GroupsDoNotDivide { layer: layer(), channels, group: 2 });
        }
        for (what, size) in [("image height", output.height), ("image width", output.width)] {
            if !size.is_multiple_of(FACTOR) {
                let layer = layer();
                return Err(Error::StrideDoesNotDivide { layer, what, size, stride: FACTOR });
            }
        }
        Ok(())
    }

    /// The first image.
    fn first_image(&self) -> ImageShape {
        let ImageShape { height, width, .. } = self.output;
        ImageShape::new(self.channels, height / FACTOR, width / FACTOR)
    }

    /// Number of trained parameters.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        let of_block = |plan: &BlockPlan| {
            let per_channel = if plan.normalised { 2 } else { 1 };
            plan.weight.iter().product::<usize>() + per_channel * plan.n_out
        };
        self.plan().iter().map(of_block).sum()
    }

    fn plan(&self) -> [BlockPlan; 4] {
        let (features, middle) = (self.first_image().n_values(), self.channels / 2);
        let dense = |name, n_in, n_out| BlockPlan {
            name,
            weight: vec![n_out, n_in],
            n_out,
            normalised: true,
        };
        let deconv = |name, c_in, c_out, normalised| BlockPlan {
            name,
            weight: vec![c_in, c_out, 4, 4],
            n_out: c_out,
            normalised,
        };
        [
            dense("linear1", self.latent, self.hidden),
            dense("linear2", self.hidden, features),
            deconv("deconv1", self.channels, middle, true),
            deconv("deconv2", middle, self.output.channels, false),
        ]
    }
}

/// Shapes of one block.
#[derive(Debug)]
struct BlockPlan {
    name: &'static str,
    /// n_out x n_in of a dense layer, c_in x c_out x 4 x 4 of a transposed convolution.
    weight: Vec<usize>,
    n_out: usize,
    normalised: bool,
}

/// A generator in training.
#[derive(Debug)]
pub struct Generator {
    spec: GeneratorSpec,
    blocks: Vec<Block>,
    dtype: DType,
    device: Device,
}

/// One linear map and what follows it.
#[derive(Debug)]
struct Block {
    name: &'static str,
    weight: Var,
    tail: Tail,
}

#[derive(Debug)]
enum Tail {
    /// Batch normalisation with its running statistics, then ReLU.
    Norm { scale: Var, shift: Var, mean: Var, variance: Var },
    /// Bias, then tanh.
    Bias(Var),
}

/// Images and, for each normalisation, the statistics of their batch.
pub(crate) struct TrainForward {
    pub(crate) images: Tensor,
    statistics: Vec<BatchNormed>,
    /// Values in a channel of each normalisation.
    counts: Vec<usize>,
}

impl Generator {
    /// A generator with freshly drawn weights; the same seed gives the same on every device.
    ///
    /// # Errors
    /// As for [`GeneratorSpec::validate`]; [`Error::InvalidSetting`] for an element type other than f32 and f64.
    pub fn new(spec: &GeneratorSpec, dtype: DType, device: &Device, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, INITIAL_DEVIATION).expect("a positive deviation");
        Self::from_values(spec, dtype, device, |name, shape| {
            let n = shape.iter().product::<usize>();
            let values: Vec<f64> = match name.rsplit_once('.') {
                Some((block, "weight")) if !block.starts_with("norm") => {
                    (0..n).map(|_| normal.sample(&mut rng)).collect()
                }
                Some((_, "weight" | "variance")) => vec![1.0; n],
                _ => vec![0.0; n],
            };
            Ok(Tensor::from_vec(values, shape, device)?)
        })
    }

    /// A generator whose parameters and running statistics `supply` gives: called with names and shapes, in order.
    pub(crate) fn from_values(
        spec: &GeneratorSpec,
        dtype: DType,
        device: &Device,
        mut supply: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        spec.validate()?;
        check_dtype(dtype)?;
        let mut var = |name: String, shape: &[usize]| -> Result<Var> {
            Ok(Var::from_tensor(&supply(&name, shape)?.to_dtype(dtype)?.to_device(device)?)?)
        };
        let mut blocks = Vec::new();
        for (n, BlockPlan { name, weight, n_out, normalised }) in
            spec.plan().into_iter().enumerate()
        {
            let weight = var(format!("{name}.weight"), &weight)?;
            let tail = if normalised {
                let norm = norm_name(n);
                Tail::Norm {
                    scale: var(format!("{norm}.weight"), &[n_out])?,
                    shift: var(format!("{norm}.bias"), &[n_out])?,
                    mean: var(format!("{norm}.mean"), &[n_out])?,
                    variance: var(format!("{norm}.variance"), &[n_out])?,
                }
            } else {
                Tail::Bias(var(format!("{name}.bias"), &[n_out])?)
            };
            blocks.push(Block { name, weight, tail });
        }
        Ok(Self { spec: *spec, blocks, dtype, device: device.clone() })
    }

    /// The layers as data.
    #[must_use]
    pub fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Element type of the parameters and of the images.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the parameters live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All trained parameters with their names (`linear1.weight`, `norm1.weight`, `norm1.bias`, … `deconv2.bias`).
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut variables = Vec::new();
        for (n, block) in self.blocks.iter().enumerate() {
            variables.push((format!("{}.weight", block.name), block.weight.clone()));
            match &block.tail {
                Tail::Norm { scale, shift, .. } => {
                    variables.push((format!("{}.weight", norm_name(n)), scale.clone()));
                    variables.push((format!("{}.bias", norm_name(n)), shift.clone()));
                }
                Tail::Bias(bias) => variables.push((format!("{}.bias", block.name), bias.clone())),
            }
        }
        variables
    }

    /// The running statistics (`norm1.mean`, `norm1.variance`, …) as they are now.
    ///
    /// # Errors
    /// [`Error::Candle`] when the device has no room for the copies.
    pub fn statistics(&self) -> Result<Vec<(String, Tensor)>> {
        let mut statistics = Vec::new();
        for (n, block) in self.blocks.iter().enumerate() {
            if let Tail::Norm { mean, variance, .. } = &block.tail {
                statistics.push((format!("{}.mean", norm_name(n)), mean.copy()?));
                statistics.push((format!("{}.variance", norm_name(n)), variance.copy()?));
            }
        }
        Ok(statistics)
    }

    /// Images (b x c x h x w, in [-1, 1]) of latent vectors (b x latent, b ≥ 2), normalised by the statistics of this batch,
    /// which the running ones take up. Differentiable in the parameters and the latent vectors.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when the vectors have another length, [`Error::InvalidSetting`] for a batch of one,
    /// [`Error::Candle`] when element types or devices differ.
    pub fn forward_train(&self, latents: &Tensor) -> Result<Tensor> {
        let forward = self.forward_batch(latents)?;
        self.update_statistics(&forward)?;
        Ok(forward.images)
    }

    /// The same, leaving the running statistics as they are.
    pub(crate) fn forward_batch(&self, latents: &Tensor) -> Result<TrainForward> {
        check_latents(&self.spec, latents)?;
        let mut forward =
            TrainForward { images: latents.clone(), statistics: Vec::new(), counts: Vec::new() };
        for (n, block) in self.blocks.iter().enumerate() {
            let (x, weight) = (&forward.images, block.weight.as_tensor());
            forward.images = match &block.tail {
                Tail::Norm { scale, shift, .. } => {
                    let x = apply_map(&self.spec, n, x, weight, None)?;
                    let normed = ops::batch_norm(&x, scale, shift, EPSILON)?;
                    let output = normed.output.relu()?;
                    forward.counts.push(x.elem_count() / scale.elem_count());
                    forward.statistics.push(normed);
                    output
                }
                Tail::Bias(bias) => apply_map(&self.spec, n, x, weight, Some(bias))?.tanh()?,
            };
        }
        Ok(forward)
    }

    /// Lets the running statistics take up those of a batch; the variance as that of a sample, as PyTorch does.
    pub(crate) fn update_statistics(&self, forward: &TrainForward) -> Result<()> {
        let norms = self.blocks.iter().filter_map(|block| match &block.tail {
            Tail::Norm { mean, variance, .. } => Some((mean, variance)),
            Tail::Bias(_) => None,
        });
        for ((mean, variance), (normed, &count)) in
            norms.zip(forward.statistics.iter().zip(&forward.counts))
        {
            let unbiased = count as f64 / (count as f64 - 1.0);
            for (running, new, factor) in
                [(mean, &normed.mean, 1.0), (variance, &normed.variance, unbiased)]
            {
                let kept = (running.as_detached_tensor() * (1.0 - MOMENTUM))?;
                running.set(&(kept + (new * (MOMENTUM * factor))?)?)?;
            }
        }
        Ok(())
    }

    /// The generator as it is now, with its running statistics for good.
    ///
    /// # Errors
    /// [`Error::Candle`].
    pub fn freeze(&self) -> Result<FrozenGenerator> {
        let layers = self.blocks.iter().map(|block| {
            let weight = block.weight.as_detached_tensor();
            match &block.tail {
                // a variable changes its numbers in place
                Tail::Bias(bias) => Ok((weight.copy()?, bias.as_detached_tensor().copy()?)),
                Tail::Norm { scale, shift, mean, variance } => {
                    let deviation = (variance.as_detached_tensor() + EPSILON)?.sqrt()?;
                    let factor = (scale.as_detached_tensor() / deviation)?;
                    let bias = (shift.as_detached_tensor() - (mean.as_tensor() * &factor)?)?;
                    // outputs are the rows of a dense weight and the second axis of a transposed convolution
                    let factor = match weight.rank() {
                        2 => factor.reshape(((), 1))?,
                        _ => factor.reshape((1, (), 1, 1))?,
                    };
                    Ok((weight.broadcast_mul(&factor)?, bias.detach()))
                }
            }
        });
        FrozenGenerator::new(self.spec, layers.collect::<Result<_>>()?, self.dtype, &self.device)
    }
}

/// Name of the normalisation after block `n`.
fn norm_name(n: usize) -> String {
    format!("norm{}", n + 1)
}

fn check_dtype(dtype: DType) -> Result<()> {
    if matches!(dtype, DType::F32 | DType::F64) {
        return Ok(());
    }
    let value = dtype.as_str().to_owned();
    Err(Error::InvalidSetting { name: "dtype", value, expected: "f32 or f64" })
}

fn check_latents(spec: &GeneratorSpec, latents: &Tensor) -> Result<()> {
    if matches!(latents.dims(), [n, length] if *n > 0 && *length == spec.latent) {
        return Ok(());
    }
    let (expected, got) = (vec![0, spec.latent], latents.dims().to_vec());
    Err(Error::ShapeMismatch { what: "latent vectors".into(), expected, got })
}

/// The affine map of block `n`.
fn apply_map(
    spec: &GeneratorSpec,
    n: usize,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    if weight.rank() == 2 {
        return ops::dense(x, weight, bias);
    }
    let is_first = x.rank() == 2;
    debug_assert_eq!(is_first, n == 2, "two dense blocks, then two convolutional ones");
    let ImageShape { channels, height, width } = spec.first_image();
    let x = if is_first { x.reshape(((), channels, height, width))? } else { x.clone() };
    ops::conv_transpose(&x, weight, bias)
}
