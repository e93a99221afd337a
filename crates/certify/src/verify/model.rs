//! The weights file as the verifier reads it: safetensors and the list of layers in its metadata, nothing else.
//!
//! Every affine layer becomes a table: output pixel p of row o is `b[o] + Σ_t w[o, t] · input[source(p, t)]`. Downsampling,
//! cyclic padding and flattening are in `source`, so that they cost nothing and round nothing.

use std::collections::BTreeMap;

use lipconv::json;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

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
#[serde(deny_unknown_fields)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Shape {
    pub(super) fn n_values(self) -> usize {
        self.channels.saturating_mul(self.height).saturating_mul(self.width)
    }
}

/// The metadata entry `lipconv`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    format: u32,
    dtype: String,
    input: Shape,
    layers: Vec<Entry>,
}

/// A layer in the metadata: its type and its settings; `{}` so that settings of another type are refused.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Entry {
    CyclicConv { downsample: usize, bias: bool },
    Dense { bias: bool },
    MaxMin {},
    GroupSort { group: usize },
    Relu {},
    Flatten {},
}

/// What the safetensors header says of a tensor.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read to refuse other members; the safetensors crate reads the values"
)]
struct TensorEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

const CLAIM: &str = "model";
/// Values of an image, and of a layer's output.
const MAX_VALUES: usize = 1 << 24;
/// Entries of a layer's table of sources: 256 MiB.
const MAX_SOURCES: usize = 1 << 26;

fn refuse(reason: impl Into<String>) -> Failure {
    Failure::new(CLAIM, reason)
}

impl Model {
    /// Reads a network of format 1.
    pub(super) fn parse(bytes: &[u8]) -> Verdict<Self> {
        let unreadable = |e| refuse(format!("not a complete safetensors file: {e}"));
        let (length, _) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let header = header(&bytes[8..8 + length])?;
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

/// The metadata entry, from the text in front of the tensors, which must hold nothing that no reader asks for.
fn header(text: &[u8]) -> Verdict<Header> {
    let unreadable = |e: serde_json::Error| refuse(format!("unreadable header: {e}"));
    let members: Map<String, Value> = json::from_slice(text).map_err(unreadable)?;
    let mut found = None;
    for (name, value) in members {
        if name != "__metadata__" {
            serde_json::from_value::<TensorEntry>(value).map_err(unreadable)?;
            continue;
        }
        let entries: BTreeMap<String, String> =
            serde_json::from_value(value).map_err(unreadable)?;
        for (name, text) in entries {
            if name != "lipconv" {
                return Err(refuse(format!("has an unknown metadata entry `{name}`")));
            }
            found = Some(json::from_slice(text.as_bytes()).map_err(unreadable)?);
        }
    }
    found.ok_or_else(|| refuse("has no `lipconv` metadata, expected a plain network"))
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
        let channels = self.shape.channels;
        let refused = |what: &str| refuse(format!("no rule for {what} on {channels} channels"));
        Ok(Some(match *entry {
            Entry::CyclicConv { downsample, bias } => {
                Layer::Affine(self.convolution(downsample, bias)?)
            }
            Entry::Dense { bias } => Layer::Affine(self.dense(bias)?),
            Entry::MaxMin {} if channels.is_multiple_of(2) => Layer::MaxMin,
            Entry::MaxMin {} => return Err(refused("max-min")),
            Entry::GroupSort { group } if group > 0 && channels.is_multiple_of(group) => {
                Layer::GroupSort { group, n_pixels }
            }
            Entry::GroupSort { group } => {
                return Err(refused(&format!("group-sort of {group}")));
            }
            Entry::Relu {} => Layer::Relu,
            Entry::Flatten {} => {
                self.shape = Shape { channels: self.shape.n_values(), height: 1, width: 1 };
                return Ok(None);
            }
        }))
    }

    fn dense(&mut self, bias: bool) -> Verdict<Affine> {
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
        let (weight, bias) = self.parameters(&name, n_rows, bias)?;
        self.shape = Shape { channels: n_rows, height: 1, width: 1 };
        let source = (0..n_terms as u32).collect();
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_pixels: 1, cyclic: None })
    }

    fn convolution(&mut self, factor: usize, bias: bool) -> Verdict<Affine> {
        self.counts[0] += 1;
        let name = format!("conv{}", self.counts[0]);
        let shape = self.tensor_shape(&name)?;
        let [n_rows, c_in, kernel, kernel_width] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 4", shape.len())));
        };
        let image = self.shape;
        let fits = factor > 0
            && image.height.is_multiple_of(factor)
            && image.width.is_multiple_of(factor)
            && c_in == image.channels.saturating_mul(factor).saturating_mul(factor)
            && kernel == kernel_width
            && kernel <= (image.height / factor).min(image.width / factor);
        if !fits {
            return Err(refuse(format!("{name}.weight of shape {shape:?} does not fit its input")));
        }
        let (height, width) = (image.height / factor, image.width / factor);
        let n_sources = [c_in, kernel, kernel, height, width]
            .iter()
            .fold(1, |n: usize, &side| n.saturating_mul(side));
        let output = Shape { channels: n_rows, height, width };
        if n_sources > MAX_SOURCES || output.n_values() > MAX_VALUES {
            return Err(refuse(format!(
                "{name} is larger than the verifier allows on {height} x {width} pixels"
            )));
        }
        let (weight, bias) = self.parameters(&name, n_rows, bias)?;
        let cyclic = Cyclic { kernel, height, width };
        let source = sources(image, factor, cyclic);
        self.shape = output;
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
