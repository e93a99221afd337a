//! The weights file as the verifier reads it: safetensors and the list of layers in its metadata, nothing else.
//!
//! Every affine layer becomes a table: output pixel p of row o is `b[o] + Σ_t w[o, t] · input[source(p, t)]`. Downsampling,
//! cyclic padding and flattening are in `source`, so that they cost nothing and round nothing.

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::failure::{Failure, Verdict};

/// The network.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) input: Shape,
    pub(super) n_classes: usize,
    pub(super) layers: Vec<Layer>,
    /// Whether weights are stored in f64.
    pub(super) stored_in_f64: bool,
}

/// A layer.
#[derive(Debug)]
pub(super) enum Layer {
    Affine(Affine),
    MaxMin,
    GroupSort { group: usize, n_pixels: usize },
    Relu,
}

/// A convolution or a dense layer.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) name: String,
    /// Rows of the weight: output channels or features.
    pub(super) n_rows: usize,
    /// Terms of a dot product.
    pub(super) n_terms: usize,
    /// n_rows x n_terms.
    pub(super) weight: Vec<f64>,
    /// One for each row, zeros where the layer has none.
    pub(super) bias: Vec<f64>,
    /// n_pixels x n_terms positions in the input.
    pub(super) source: Vec<u32>,
    pub(super) n_pixels: usize,
    /// The geometry of a convolution.
    pub(super) cyclic: Option<Cyclic>,
}

/// A stride-1 cyclic convolution on height x width pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cyclic {
    pub(super) kernel: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// Channels, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Shape {
    pub(super) fn n_values(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// The metadata entry `lipconv`.
#[derive(Debug, Deserialize)]
struct Header {
    kind: String,
    format: u32,
    dtype: String,
    input: Shape,
    layers: Vec<Entry>,
}

/// A layer in the metadata: its type and its settings.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    downsample: usize,
    #[serde(default)]
    bias: bool,
    #[serde(default)]
    group: usize,
}

const CLAIM: &str = "model";
const MAX_VALUES: usize = 1 << 26;

fn refuse(reason: impl Into<String>) -> Failure {
    Failure::new(CLAIM, reason)
}

impl Model {
    /// Reads a network of format 1.
    pub(super) fn parse(bytes: &[u8]) -> Verdict<Self> {
        let unreadable = |e| refuse(format!("not a complete safetensors file: {e}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let text = metadata.metadata().as_ref().and_then(|m| m.get("lipconv"));
        let text =
            text.ok_or_else(|| refuse("has no `lipconv` metadata, expected a plain network"))?;
        let header: Header =
            serde_json::from_str(text).map_err(|e| refuse(format!("unreadable header: {e}")))?;
        if header.kind != "plain-network" || header.format != 1 {
            let (kind, format) = (&header.kind, header.format);
            return Err(refuse(format!(
                "holds `{kind}` of format {format}, expected a plain network of format 1"
            )));
        }
        let mut builder = Builder {
            tensors,
            dtype: match header.dtype.as_str() {
                "f32" => Dtype::F32,
                "f64" => Dtype::F64,
                other => {
                    return Err(refuse(format!("weights of type {other}, expected f32 or f64")));
                }
            },
            shape: header.input,
            counts: [0; 2],
            n_tensors: 0,
        };
        if header.input.n_values() == 0 || header.input.n_values() > MAX_VALUES {
            return Err(refuse("an image has no values or too many"));
        }
        let layers = header.layers.iter().map(|entry| builder.layer(entry));
        let layers: Vec<Layer> = layers.filter_map(Verdict::transpose).collect::<Verdict<_>>()?;
        if builder.n_tensors != builder.tensors.len() {
            return Err(refuse("the file holds tensors that no layer uses"));
        }
        let n_classes = builder.shape.n_values();
        let stored_in_f64 = builder.dtype == Dtype::F64;
        Ok(Self { input: header.input, n_classes, layers, stored_in_f64 })
    }

    /// The layers that compute.
    pub(super) fn affine(&self) -> impl Iterator<Item = &Affine> {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Affine(affine) => Some(affine),
            _ => None,
        })
    }

    /// The last layer, where it is dense and nothing follows it.
    pub(super) fn head(&self) -> Option<&Affine> {
        match self.layers.last() {
            Some(Layer::Affine(affine)) if affine.cyclic.is_none() => Some(affine),
            _ => None,
        }
    }
}

struct Builder<'a> {
    tensors: SafeTensors<'a>,
    dtype: Dtype,
    /// What the next layer sees; a vector has one pixel.
    shape: Shape,
    /// Convolutions and dense layers so far.
    counts: [usize; 2],
    n_tensors: usize,
}

impl Builder<'_> {
    /// The next layer; None where it only renames values.
    fn layer(&mut self, entry: &Entry) -> Verdict<Option<Layer>> {
        let n_pixels = self.shape.height * self.shape.width;
        Ok(Some(match entry.kind.as_str() {
            "cyclic-conv" => Layer::Affine(self.convolution(entry)?),
            "dense" => Layer::Affine(self.dense(entry)?),
            "max-min" if self.shape.channels.is_multiple_of(2) => Layer::MaxMin,
            "group-sort" if entry.group > 0 && self.shape.channels.is_multiple_of(entry.group) => {
                Layer::GroupSort { group: entry.group, n_pixels }
            }
            "relu" => Layer::Relu,
            "flatten" => {
                let channels = self.shape.n_values();
                self.shape = Shape { channels, height: 1, width: 1 };
                return Ok(None);
            }
            other => {
                let channels = self.shape.channels;
                return Err(refuse(format!(
                    "no rule for a layer `{other}` on {channels} channels"
                )));
            }
        }))
    }

    fn dense(&mut self, entry: &Entry) -> Verdict<Affine> {
        self.counts[1] += 1;
        let name = format!("linear{}", self.counts[1]);
        let n_terms = self.shape.n_values();
        let shape = self.tensor_shape(&name)?;
        let [n_rows, columns] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 2", shape.len())));
        };
        if columns != n_terms || self.shape.height * self.shape.width != 1 {
            return Err(refuse(format!("{name}.weight has {columns} columns, expected {n_terms}")));
        }
        let (weight, bias) = self.parameters(&name, n_rows, entry.bias)?;
        self.shape = Shape { channels: n_rows, height: 1, width: 1 };
        let source = (0..n_terms as u32).collect();
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_pixels: 1, cyclic: None })
    }

    fn convolution(&mut self, entry: &Entry) -> Verdict<Affine> {
        self.counts[0] += 1;
        let name = format!("conv{}", self.counts[0]);
        let shape = self.tensor_shape(&name)?;
        let [n_rows, c_in, kernel, kernel_width] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 4", shape.len())));
        };
        let (factor, image) = (entry.downsample, self.shape);
        let fits = factor > 0
            && image.height.is_multiple_of(factor)
            && image.width.is_multiple_of(factor)
            && c_in == image.channels * factor * factor
            && kernel == kernel_width
            && kernel <= (image.height / factor).min(image.width / factor);
        if !fits {
            return Err(refuse(format!("{name}.weight of shape {shape:?} does not fit its input")));
        }
        let (weight, bias) = self.parameters(&name, n_rows, entry.bias)?;
        let (height, width) = (image.height / factor, image.width / factor);
        let cyclic = Cyclic { kernel, height, width };
        let source = sources(image, factor, cyclic);
        self.shape = Shape { channels: n_rows, height, width };
        let n_terms = c_in * kernel * kernel;
        let (n_pixels, cyclic) = (height * width, Some(cyclic));
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_pixels, cyclic })
    }

    fn tensor_shape(&self, name: &str) -> Verdict<Vec<usize>> {
        let name = format!("{name}.weight");
        let tensor = self.tensors.tensor(&name);
        let shape = tensor.map_err(|_| refuse(format!("tensor `{name}` is missing")))?;
        Ok(shape.shape().to_vec())
    }

    fn parameters(
        &mut self,
        name: &str,
        n_rows: usize,
        bias: bool,
    ) -> Verdict<(Vec<f64>, Vec<f64>)> {
        let weight = self.values(&format!("{name}.weight"))?;
        let bias = if bias { self.values(&format!("{name}.bias"))? } else { vec![0.0; n_rows] };
        if bias.len() != n_rows {
            return Err(refuse(format!(
                "{name}.bias has {} values, expected {n_rows}",
                bias.len()
            )));
        }
        Ok((weight, bias))
    }

    fn values(&mut self, name: &str) -> Verdict<Vec<f64>> {
        let missing = |_| refuse(format!("tensor `{name}` is missing"));
        let tensor = self.tensors.tensor(name).map_err(missing)?;
        if tensor.dtype() != self.dtype {
            return Err(refuse(format!(
                "tensor `{name}` is not of the type that the header names"
            )));
        }
        let bytes = tensor.data();
        let values: Vec<f64> = match self.dtype {
            Dtype::F64 => bytes.as_chunks::<8>().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
            _ => {
                let chunks = bytes.as_chunks::<4>().0.iter();
                chunks.map(|&b| f64::from(f32::from_le_bytes(b))).collect()
            }
        };
        self.n_tensors += 1;
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(refuse(format!("tensor `{name}` holds {} at {at}", values[at]))),
            None => Ok(values),
        }
    }
}

/// Position in the image of term (c, i, j) of output pixel (y, x), for all pixels and terms.
fn sources(image: Shape, factor: usize, cyclic: Cyclic) -> Vec<u32> {
    let Cyclic { kernel: k, height, width } = cyclic;
    let mut sources = Vec::new();
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..image.channels * factor * factor {
            // pixel_unshuffle: channel (c, dy, dx) of the smaller image
            let (c, dy, dx) =
                (channel / (factor * factor), channel / factor % factor, channel % factor);
            for (i, j) in (0..k).flat_map(|i| (0..k).map(move |j| (i, j))) {
                let row = (y + i + height - k / 2) % height * factor + dy;
                let column = (x + j + width - k / 2) % width * factor + dx;
                sources.push(((c * image.height + row) * image.width + column) as u32);
            }
        }
    }
    sources
}
