//! Weights of a safetensors file with a description of the layers: for networks without an ONNX file.
//!
//! A description lists the layers and names their tensors as the file has them. Each layer takes the output of the one before it. A `label` gives
//! the current signal a name, by which later layers go back to it; `image` is the name of the input.

use std::collections::BTreeMap;
use std::f64::consts::FRAC_1_SQRT_2;

use candle_core::DType;
use lipconv::{Activation, Boundary, ImageShape, PlainLayer, PlainNetwork, SignalShape, Window};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::draft::{Draft, Piece};
use crate::error::{Error, Result, quoted};

/// A network as data: what a file of weights does not say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Shape of an image.
    pub input: ImageShape,
    /// Mean of each channel, subtracted first.
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, divided by next.
    pub std: Option<Vec<f64>>,
    /// The layers, first to last.
    pub layers: Vec<LayerEntry>,
}

impl Description {
    /// The "Small" CIFAR-10 network of Wong et al. 2018 ("KW" in Table 3 of Li et al. 2019): convolutions k4 s2 with one zero of padding,
    /// two dense layers, ReLU; the file of weights holds conv1, conv2, linear1 and linear2.
    #[must_use]
    pub fn kw_small() -> Self {
        let tensors = |name: &str| (format!("{name}.weight"), Some(format!("{name}.bias")));
        let conv = |name: &str| {
            let (weight, bias) = tensors(name);
            let (boundary, groups, dilation) = (zeros(), one(), one());
            LayerEntry::Conv { weight, bias, stride: 2, padding: 1, dilation, groups, boundary }
        };
        let dense = |name: &str| {
            let (weight, bias) = tensors(name);
            LayerEntry::Dense { weight, bias }
        };
        let relu = || LayerEntry::Relu {};
        Self {
            input: ImageShape::new(3, 32, 32),
            mean: Some(vec![0.485, 0.456, 0.406]),
            std: Some(vec![0.225; 3]),
            layers: vec![
                conv("conv1"),
                relu(),
                conv("conv2"),
                relu(),
                dense("linear1"),
                relu(),
                dense("linear2"),
            ],
        }
    }
}

/// A layer of a [`Description`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LayerEntry {
    /// A convolution with a square stride, padding and dilation.
    Conv {
        /// Tensor of the weight, OIHW.
        weight: String,
        /// Tensor of the bias.
        bias: Option<String>,
        /// Distance of the positions.
        #[serde(default = "one")]
        stride: usize,
        /// Pixels on every side.
        #[serde(default)]
        padding: usize,
        /// Distance of the taps.
        #[serde(default = "one")]
        dilation: usize,
        /// Groups of channels.
        #[serde(default = "one")]
        groups: usize,
        /// What lies outside: `zeros` or `cyclic`.
        #[serde(default = "zeros")]
        boundary: Boundary,
    },
    /// A matrix product; an image is flattened first.
    Dense {
        /// Tensor of the weight, n_out x n_in.
        weight: String,
        /// Tensor of the bias.
        bias: Option<String>,
    },
    /// Batch normalisation with the statistics of training.
    BatchNorm {
        /// Tensor of the factors.
        weight: String,
        /// Tensor of the shifts.
        bias: String,
        /// Tensor of the means.
        mean: String,
        /// Tensor of the variances.
        variance: String,
        /// Added to the variances.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
    /// Means of windows.
    AveragePool {
        /// Side of a window, and distance of windows.
        size: usize,
    },
    /// A constant factor.
    Scale {
        /// The factor.
        by: f64,
    },
    /// PyTorch's `pixel_unshuffle`.
    PixelUnshuffle {
        /// Side of the blocks that become channels.
        factor: usize,
    },
    /// max(x, 0).
    Relu {},
    /// x or slope·x.
    LeakyRelu {
        /// The slope.
        slope: f64,
    },
    /// The absolute value.
    Abs {},
    /// Maxima of the two halves of the channels, then minima.
    MaxMin {},
    /// Consecutive groups of channels, ascending.
    GroupSort {
        /// Channels in a group.
        group: usize,
    },
    /// Reflections of the plane of channels i and i + c/2 (Singla, Singla and Feizi 2022): z where v · z >= 0 for v = (cos θ_i, sin θ_i), its
    /// mirror image z - 2 (v · z) v elsewhere. Becomes a linear layer, MaxMin and a linear layer.
    Householder {
        /// Tensor of the c/2 angles θ.
        angle: String,
    },
    /// An image as a vector.
    Flatten {},
    /// A name for the current signal.
    Label {
        /// The name.
        name: String,
    },
    /// Goes on from an earlier signal.
    Recall {
        /// Its name.
        from: String,
    },
    /// An earlier signal plus the current one.
    Add {
        /// Its name.
        from: String,
    },
    /// The channels of an earlier signal, then those of the current one.
    Concat {
        /// Its name.
        from: String,
    },
}

fn one() -> usize {
    1
}

fn zeros() -> Boundary {
    Boundary::Zeros
}

fn epsilon() -> f64 {
    1e-5
}

fn refused<T>(what: impl Into<String>, problem: impl Into<String>) -> Result<T> {
    Err(Error::Description { what: what.into(), problem: problem.into() })
}

/// The network of a description and the bytes of its safetensors file.
///
/// # Errors
/// [`Error::Description`] for a tensor that is missing, has another shape, is not finite or is used by no layer; [`Error::Network`].
pub fn described(description: &Description, weights: &[u8]) -> Result<PlainNetwork> {
    let tensors = SafeTensors::deserialize(weights)
        .map_err(|e| Error::Description { what: "the weights".into(), problem: e.to_string() })?;
    let input = description.input;
    if input.n_values() == 0 || input.n_values() > 1 << 22 {
        return refused("input", "expected 1 to 2^22 values");
    }
    let mut builder = Builder {
        tensors: &tensors,
        taken: BTreeMap::new(),
        draft: Draft::new(input),
        labels: BTreeMap::from([("image".to_owned(), 0)]),
        signal: 0,
        is_wide: false,
    };
    builder.normalise(description)?;
    for (idx, entry) in description.layers.iter().enumerate() {
        let place = format!("layer {}", idx + 1);
        builder.layer(entry, &place)?;
    }
    if let Some(name) = tensors.names().into_iter().find(|name| !builder.taken.contains_key(*name))
    {
        return refused(format!("tensor {}", quoted(name)), "no layer of the description uses it");
    }
    let signal = builder.draft.flat(builder.signal);
    if signal != builder.draft.last() {
        return refused("the last layer", "the logits must come from it");
    }
    let dtype = if builder.is_wide { DType::F64 } else { DType::F32 };
    builder.draft.network(input, dtype)
}

struct Builder<'a> {
    tensors: &'a SafeTensors<'a>,
    taken: BTreeMap<String, ()>,
    draft: Draft,
    labels: BTreeMap<String, usize>,
    signal: usize,
    is_wide: bool,
}

impl Builder<'_> {
    fn normalise(&mut self, description: &Description) -> Result<()> {
        let channels = description.input.channels;
        let of = |values: &Option<Vec<f64>>, default: f64, what: &str| match values {
            None => Ok(vec![default; channels]),
            Some(values) if values.len() == channels => Ok(values.clone()),
            Some(values) => {
                refused(what, format!("it has {} values, expected {channels}", values.len()))
            }
        };
        let mean = of(&description.mean, 0.0, "mean")?;
        let std = of(&description.std, 1.0, "std")?;
        let scale: Vec<f64> = std.iter().map(|s| 1.0 / s).collect();
        let shift: Vec<f64> = mean.iter().zip(&scale).map(|(m, s)| -m * s).collect();
        if scale.iter().chain(&shift).any(|v| !v.is_finite()) {
            return refused("mean and std", "expected finite means and nonzero finite deviations");
        }
        self.signal = self.draft.channelwise(0, (scale, shift), false);
        Ok(())
    }

    fn layer(&mut self, entry: &LayerEntry, place: &str) -> Result<()> {
        let from = self.signal;
        self.signal = match entry {
            LayerEntry::Conv { weight, bias, stride, padding, dilation, groups, boundary } => {
                let window = Window {
                    stride: [*stride; 2],
                    before: [*padding; 2],
                    after: [*padding; 2],
                    dilation: [*dilation; 2],
                    groups: *groups,
                    boundary: *boundary,
                };
                self.conv(weight, bias.as_deref(), window, place)?
            }
            LayerEntry::Dense { weight, bias } => self.dense(weight, bias.as_deref())?,
            LayerEntry::BatchNorm { weight, bias, mean, variance, epsilon } => {
                let names = [weight, bias, mean, variance];
                self.batch_norm(names, *epsilon)?
            }
            LayerEntry::AveragePool { size } => self.average_pool(*size, place)?,
            LayerEntry::Scale { by } => {
                let channels = self.draft.shape(from)[0];
                let parts = (vec![*by; channels], vec![0.0; channels]);
                let is_free = !self.labels.values().any(|signal| *signal == from);
                self.draft.channelwise(from, parts, is_free)
            }
            LayerEntry::PixelUnshuffle { factor } => self.unshuffle(*factor, place)?,
            LayerEntry::Relu {} => self.draft.plain(from, PlainLayer::Activation(Activation::Relu)),
            LayerEntry::LeakyRelu { slope } => {
                self.draft.plain(from, PlainLayer::LeakyRelu { slope: *slope })
            }
            LayerEntry::Abs {} => self.draft.plain(from, PlainLayer::LeakyRelu { slope: -1.0 }),
            LayerEntry::MaxMin {} => {
                self.draft.plain(from, PlainLayer::Activation(Activation::MaxMin))
            }
            LayerEntry::GroupSort { group } => {
                let layer = Activation::GroupSort { group: *group };
                self.draft.plain(from, PlainLayer::Activation(layer))
            }
            LayerEntry::Householder { angle } => self.householder(angle, place)?,
            LayerEntry::Flatten {} => self.draft.flat(from),
            LayerEntry::Label { name } => {
                if self.labels.insert(name.clone(), from).is_some() {
                    return refused(place, format!("label {} stands twice", quoted(name)));
                }
                from
            }
            entry => self.joining(entry, from, place)?,
        };
        Ok(())
    }

    /// A layer that goes back to an earlier signal.
    fn joining(&mut self, entry: &LayerEntry, current: usize, place: &str) -> Result<usize> {
        let (LayerEntry::Recall { from } | LayerEntry::Add { from } | LayerEntry::Concat { from }) =
            entry
        else {
            return Ok(current);
        };
        let earlier = self.label(from, place)?;
        let (a, b) = (self.draft.shape(earlier), self.draft.shape(current));
        match entry {
            LayerEntry::Add { .. } if a != b => {
                refused(place, format!("it adds signals of sizes {a:?} and {b:?}"))
            }
            LayerEntry::Concat { .. } if a[1..] != b[1..] => {
                refused(place, format!("it joins signals of sizes {a:?} and {b:?}"))
            }
            LayerEntry::Add { .. } => Ok(self.draft.add(earlier, current)),
            LayerEntry::Concat { .. } => Ok(self.draft.concat(earlier, current)),
            _ => Ok(earlier),
        }
    }

    fn label(&self, name: &str, place: &str) -> Result<usize> {
        match self.labels.get(name) {
            Some(signal) => Ok(*signal),
            None => refused(place, format!("no earlier layer is labelled {}", quoted(name))),
        }
    }

    fn conv(
        &mut self,
        weight: &str,
        bias: Option<&str>,
        window: Window,
        place: &str,
    ) -> Result<usize> {
        let (weight, dims) = self.tensor(weight, 4)?;
        let &[o, i, h, w] = &dims[..] else { unreachable!("four sizes were asked for") };
        let bias = bias.map(|name| self.vector(name, o)).transpose()?;
        self.windowed((weight, [o, i, h, w], bias), window, place)
    }

    fn windowed(
        &mut self,
        (weight, dims, bias): (Vec<f64>, [usize; 4], Option<Vec<f64>>),
        window: Window,
        place: &str,
    ) -> Result<usize> {
        let &[c, h, w] = self.draft.shape(self.signal) else {
            return refused(place, "it comes after a vector, expected an image");
        };
        let tensor = candle_core::Tensor::from_slice(&weight, &dims, &candle_core::Device::Cpu)?;
        let layer = PlainLayer::PaddedConv(lipconv::PaddedConv::new(tensor, None, window)?);
        let input = SignalShape::Image(ImageShape::new(c, h, w));
        let output = match layer.output_shape(input, place)? {
            SignalShape::Image(image) => vec![image.channels, image.height, image.width],
            SignalShape::Vector(n) => vec![n],
        };
        let piece = Piece::Conv { weight, dims, bias, window };
        Ok(self.draft.push(self.signal, piece, output))
    }

    fn dense(&mut self, weight: &str, bias: Option<&str>) -> Result<usize> {
        let name = weight;
        let (weight, dims) = self.tensor(name, 2)?;
        let signal = self.draft.flat(self.signal);
        let n_in = self.draft.shape(signal)[0];
        if dims[1] != n_in {
            let problem = format!("it takes {} values, the signal has {n_in}", dims[1]);
            return refused(format!("tensor {}", quoted(name)), problem);
        }
        let bias = bias.map(|name| self.vector(name, dims[0])).transpose()?;
        let piece = Piece::Dense { weight, n_out: dims[0], bias };
        Ok(self.draft.push(signal, piece, vec![dims[0]]))
    }

    fn batch_norm(&mut self, names: [&String; 4], epsilon: f64) -> Result<usize> {
        let channels = self.draft.shape(self.signal)[0];
        let [gain, offset, mean, variance] = names.map(|name| self.vector(name, channels));
        let (gain, offset, mean, variance) = (gain?, offset?, mean?, variance?);
        let scale: Vec<f64> =
            gain.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift: Vec<f64> =
            offset.iter().zip(mean.iter().zip(&scale)).map(|(b, (m, s))| b - m * s).collect();
        if scale.iter().chain(&shift).any(|v| !v.is_finite()) {
            return refused("batch normalisation", "a variance is not positive");
        }
        let is_free = !self.labels.values().any(|signal| *signal == self.signal);
        Ok(self.draft.channelwise(self.signal, (scale, shift), is_free))
    }

    fn average_pool(&mut self, size: usize, place: &str) -> Result<usize> {
        let channels = self.draft.shape(self.signal)[0];
        let area = size.saturating_mul(size);
        if area == 0 || channels.saturating_mul(area) > 1 << 22 {
            return refused(place, format!("windows of {size} x {size}"));
        }
        let window = Window { stride: [size; 2], groups: channels, ..Window::default() };
        let weight = vec![1.0 / area as f64; channels * area];
        self.windowed((weight, [channels, 1, size, size], None), window, place)
    }

    /// With z = v · x along v and u across it the result is |z| v + u v⊥, and MaxMin of the halves (z, u) / √2 and (-z, u) / √2 is
    /// (|z|, u, -|z|, u) / √2: both linear layers have norm 1.
    fn householder(&mut self, angle: &str, place: &str) -> Result<usize> {
        let (angles, _) = self.tensor(angle, 1)?;
        let (half, channels) = (angles.len(), self.draft.shape(self.signal)[0]);
        if channels != 2 * half {
            return refused(place, format!("{half} angles for {channels} channels"));
        }
        let (mut first, mut last) =
            (vec![0.0; 4 * half * channels], vec![0.0; channels * 4 * half]);
        for (i, angle) in angles.iter().enumerate() {
            let [sin, cos] = [angle.sin(), angle.cos()].map(|v| v * FRAC_1_SQRT_2);
            let rows = [(cos, sin), (-sin, cos), (-cos, -sin), (-sin, cos)];
            for (block, (a, b)) in rows.into_iter().enumerate() {
                let row = block * half + i;
                first[row * channels + i] = a;
                first[row * channels + i + half] = b;
                last[i * 4 * half + row] = a;
                last[(i + half) * 4 * half + row] = b;
            }
        }
        self.pointwise(first, [4 * half, channels]);
        self.signal = self.draft.plain(self.signal, PlainLayer::Activation(Activation::MaxMin));
        self.pointwise(last, [channels, 4 * half]);
        Ok(self.signal)
    }

    /// A matrix that acts on the channels of every pixel, or on a vector.
    fn pointwise(&mut self, weight: Vec<f64>, [n_out, n_in]: [usize; 2]) {
        let mut shape = self.draft.shape(self.signal).to_vec();
        shape[0] = n_out;
        let piece = match shape.len() {
            1 => Piece::Dense { weight, n_out, bias: None },
            _ => {
                let dims = [n_out, n_in, 1, 1];
                Piece::Conv { weight, dims, bias: None, window: Window::default() }
            }
        };
        self.signal = self.draft.push(self.signal, piece, shape);
    }

    fn unshuffle(&mut self, factor: usize, place: &str) -> Result<usize> {
        let shape = self.draft.shape(self.signal).to_vec();
        match shape[..] {
            [c, h, w] if factor > 0 && h.is_multiple_of(factor) && w.is_multiple_of(factor) => {
                let shape = vec![c * factor * factor, h / factor, w / factor];
                Ok(self.draft.push(self.signal, Piece::Unshuffle(factor), shape))
            }
            _ => refused(place, format!("{factor} does not divide a signal of sizes {shape:?}")),
        }
    }

    fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f64>> {
        let (values, _) = self.tensor(name, 1)?;
        if values.len() == n {
            return Ok(values);
        }
        let problem = format!("it has {} values, expected {n}", values.len());
        refused(format!("tensor {}", quoted(name)), problem)
    }

    /// Values and sizes of a tensor with a given number of axes.
    fn tensor(&mut self, name: &str, rank: usize) -> Result<(Vec<f64>, Vec<usize>)> {
        let what = format!("tensor {}", quoted(name));
        let Ok(tensor) = self.tensors.tensor(name) else { return refused(what, "it is missing") };
        let dims = tensor.shape().to_vec();
        if dims.len() != rank || dims.contains(&0) {
            return refused(
                what,
                format!("it has sizes {dims:?}, expected {rank}, none of them 0"),
            );
        }
        let bytes = tensor.data();
        let values: Vec<f64> = match tensor.dtype() {
            Dtype::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b).into()).collect()
            }
            Dtype::F64 => {
                self.is_wide = true;
                bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect()
            }
            other => return refused(what, format!("it holds {other:?}, expected F32 or F64")),
        };
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return refused(
                what,
                format!("it holds {} at {at}, expected finite numbers", values[at]),
            );
        }
        self.taken.insert(name.to_owned(), ());
        Ok((values, dims))
    }
}
