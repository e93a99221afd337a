//! The weights file as the verifier reads it: safetensors and the list of layers in its metadata, nothing else.

use std::collections::BTreeMap;

use lipconv::json;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::failure::Verdict;
use super::network::{Affine, Joining, Layer, Model, Shape, Torus, refuse};
use super::padded::{Geometry, Window};

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
    PaddedConv { window: Window, bias: bool },
    LeakyRelu { slope: f64 },
    Recall { from: usize },
    Add { from: usize },
    Concat { from: usize },
}

impl Entry {
    /// The version of the format that it is part of.
    fn format(&self) -> u32 {
        match self {
            Self::CyclicConv { .. } | Self::Dense { .. } | Self::Flatten {} => 1,
            Self::MaxMin {} | Self::GroupSort { .. } | Self::Relu {} => 1,
            _ => 2,
        }
    }
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

/// Values of an image, and of a layer's output.
const MAX_VALUES: usize = 1 << 24;
/// Entries of a layer's table of sources: 256 MiB. Entries of its matrix at one frequency of the torus.
const MAX_SOURCES: usize = 1 << 26;

impl Model {
    /// Reads a network of format 1 or 2.
    pub(super) fn parse(bytes: &[u8]) -> Verdict<Self> {
        let unreadable = |e| refuse(format!("not a complete safetensors file: {e}"));
        let (length, _) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let header = header(&bytes[8..8 + length])?;
        let expected = header.layers.iter().map(Entry::format).max().unwrap_or(1);
        if header.kind != "plain-network" || header.format != expected {
            let (kind, format) = (&header.kind, header.format);
            return Err(refuse(format!(
                "holds `{kind}` of format {format}, expected a plain network of format {expected}"
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
            shapes: vec![header.input],
            counts: BTreeMap::new(),
            n_tensors: 0,
        };
        if header.input.n_values() == 0 || header.input.n_values() > MAX_VALUES {
            return Err(refuse("an image has no values or too many"));
        }
        let layers = header.layers.iter().map(|entry| builder.layer(entry));
        let layers: Vec<Layer> = layers.collect::<Verdict<_>>()?;
        if builder.n_tensors != builder.tensors.len() {
            return Err(refuse("the file holds tensors that no layer uses"));
        }
        let n_classes = builder.shape().n_values();
        let stored_in_f64 = builder.dtype == Dtype::F64;
        let model = Self { input: header.input, n_classes, layers, stored_in_f64 };
        let (nodes, last) = model.graph();
        if nodes.is_empty() || last != Some(nodes.len() - 1) {
            return Err(refuse("the logits do not come from the last layer that computes"));
        }
        Ok(model)
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
    /// Of the signals so far, the image first; a vector has one pixel.
    shapes: Vec<Shape>,
    /// Layers of each kind so far.
    counts: BTreeMap<&'static str, usize>,
    n_tensors: usize,
}

impl Builder<'_> {
    /// What the next layer sees.
    fn shape(&self) -> Shape {
        self.shapes[self.shapes.len() - 1]
    }

    /// The name of the next layer of a kind.
    fn name(&mut self, kind: &'static str) -> String {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        format!("{kind}{count}")
    }

    /// The next layer.
    fn layer(&mut self, entry: &Entry) -> Verdict<Layer> {
        let (shape, n_signals) = (self.shape(), self.shapes.len());
        let (n_pixels, channels) = (shape.height * shape.width, shape.channels);
        let refused = |what: &str| refuse(format!("no rule for {what} on {channels} channels"));
        let layer = match *entry {
            Entry::CyclicConv { downsample, bias } => {
                Layer::Affine(self.convolution(downsample, bias)?)
            }
            Entry::PaddedConv { window, bias } => Layer::Affine(self.padded(window, bias)?),
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
                self.shapes.push(Shape { channels: shape.n_values(), height: 1, width: 1 });
                Layer::Flatten
            }
            Entry::LeakyRelu { slope } => {
                let name = self.name(if slope == -1.0 { "abs" } else { "leaky" });
                if !slope.is_finite()
                    || (self.dtype == Dtype::F32 && f64::from(slope as f32) != slope)
                {
                    return Err(refuse(format!(
                        "{name}: slope {slope} is no number of the weights' type"
                    )));
                }
                Layer::Leaky { node: Joining { name, n_outputs: shape.n_values() }, slope }
            }
            Entry::Recall { from } | Entry::Add { from } | Entry::Concat { from } => {
                let Some(&earlier) = self.shapes.get(from) else {
                    return Err(refuse(format!(
                        "a layer goes back to signal {from}, which comes later"
                    )));
                };
                self.joining(entry, from, earlier)?
            }
        };
        if self.shapes.len() == n_signals {
            self.shapes.push(shape);
        }
        Ok(layer)
    }

    /// A layer that goes back to an earlier signal.
    fn joining(&mut self, entry: &Entry, from: usize, earlier: Shape) -> Verdict<Layer> {
        let shape = self.shape();
        let same_size = (earlier.height, earlier.width) == (shape.height, shape.width);
        let channels = earlier.channels.saturating_add(shape.channels);
        Ok(match entry {
            Entry::Recall { .. } => {
                self.shapes.push(earlier);
                Layer::Recall { from }
            }
            Entry::Add { .. } if earlier == shape => {
                let node = Joining { name: self.name("add"), n_outputs: shape.n_values() };
                Layer::Add { node, from }
            }
            Entry::Concat { .. } if same_size => {
                let output = Shape { channels, ..shape };
                if output.n_values() > MAX_VALUES {
                    return Err(refuse("a concatenation is larger than the verifier allows"));
                }
                self.shapes.push(output);
                let node = Joining { name: self.name("concat"), n_outputs: output.n_values() };
                Layer::Concat { node, from }
            }
            _ => return Err(refuse(format!("signals of {earlier:?} and {shape:?} do not join"))),
        })
    }

    fn dense(&mut self, bias: bool) -> Verdict<Affine> {
        let name = self.name("linear");
        let input = self.shape();
        let n_terms = input.n_values();
        let shape = self.tensor_shape(&name)?;
        let [n_rows, columns] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 2", shape.len())));
        };
        if columns != n_terms || input.height * input.width != 1 {
            return Err(refuse(format!("{name}.weight has {columns} columns, expected {n_terms}")));
        }
        let (weight, bias) = self.parameters(&name, n_rows, bias)?;
        self.shapes.push(Shape { channels: n_rows, height: 1, width: 1 });
        let source = (0..n_terms as u32).collect();
        let (n_groups, n_pixels, torus) = (1, 1, None);
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_groups, n_pixels, torus })
    }

    fn padded(&mut self, window: Window, bias: bool) -> Verdict<Affine> {
        let name = self.name("conv");
        let shape = self.tensor_shape(&name)?;
        let [n_rows, c_in, kh, kw] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 4", shape.len())));
        };
        let (image, n_groups) = (self.shape(), window.groups);
        let divides = n_groups > 0 && n_rows > 0 && n_rows.is_multiple_of(n_groups);
        if !divides || c_in.saturating_mul(n_groups) != image.channels {
            return Err(refuse(format!("{name}.weight of shape {shape:?} does not fit its input")));
        }
        let geometry = Geometry::new(window, [kh, kw], image)?;
        let output =
            Shape { channels: n_rows, height: geometry.output.0, width: geometry.output.1 };
        let sides = [image.channels, kh, kw, output.height, output.width];
        let n_sources = sides.iter().fold(1, |n: usize, &side| n.saturating_mul(side));
        // a block of the torus, which a stride makes larger than the weight
        let n_block = n_rows.saturating_mul(geometry.n_columns(c_in));
        if n_sources.max(n_block) > MAX_SOURCES || output.n_values() > MAX_VALUES {
            return Err(refuse(format!("{name} is larger than the verifier allows")));
        }
        let (weight, bias) = self.parameters(&name, n_rows, bias)?;
        let source = geometry.sources(image, n_groups);
        let torus = Some(geometry.torus(c_in));
        self.shapes.push(output);
        let (n_terms, n_pixels) = (c_in * kh * kw, output.height * output.width);
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_groups, n_pixels, torus })
    }

    fn convolution(&mut self, factor: usize, bias: bool) -> Verdict<Affine> {
        let name = self.name("conv");
        let shape = self.tensor_shape(&name)?;
        let [n_rows, c_in, kernel, kernel_width] = shape[..] else {
            return Err(refuse(format!("{name}.weight has {} sides, expected 4", shape.len())));
        };
        let image = self.shape();
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
        let source = sources(image, factor, kernel);
        self.shapes.push(output);
        let n_terms = c_in * kernel * kernel;
        let (n_groups, n_pixels) = (1, height * width);
        let torus = Some(Torus::cyclic(kernel, c_in, (height, width)));
        Ok(Affine { name, n_rows, n_terms, weight, bias, source, n_groups, n_pixels, torus })
    }

    fn tensor_shape(&self, name: &str) -> Verdict<Vec<usize>> {
        let name = format!("{name}.weight");
        let tensor = self.tensors.tensor(&name);
        let tensor = tensor.map_err(|_| refuse(format!("tensor `{name}` is missing")))?;
        let shape = tensor.shape().to_vec();
        if shape.contains(&0) {
            return Err(refuse(format!("{name} of shape {shape:?} holds no values")));
        }
        Ok(shape)
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
fn sources(image: Shape, factor: usize, k: usize) -> Vec<u32> {
    let (height, width) = (image.height / factor, image.width / factor);
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
