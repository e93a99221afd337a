//! Plain networks as files: OIHW and n_out x n_in weights under the names of the layers.
//!
//! The tensors are what PyTorch loads into `Conv2d(padding_mode="circular")` and `Linear`; the `lipconv`
//! metadata entry lists the layers, so that this crate rebuilds the network from the file alone.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::error::Result;
use crate::plain::{CyclicConv, Dense, PaddedConv, PlainLayer, PlainNetwork, Window};
use crate::shape::ImageShape;
use crate::store::{Reader, StoredType, Writer};

/// The JSON header of a plain network.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    format: u32,
    dtype: StoredType,
    input: ImageShape,
    layers: Vec<StoredLayer>,
}

/// A plain layer without its numbers; `{}` so that settings of another layer are refused, not ignored.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum StoredLayer {
    CyclicConv {
        downsample: usize,
        bias: bool,
    },
    Dense {
        bias: bool,
    },
    Flatten {},
    PaddedConv {
        window: Window,
        bias: bool,
    },
    LeakyRelu {
        slope: f64,
    },
    Recall {
        from: usize,
    },
    Add {
        from: usize,
    },
    Concat {
        from: usize,
    },
    #[serde(untagged)]
    Activation(Activation),
}

impl StoredLayer {
    /// The first version of the format that has it.
    fn format(&self) -> u32 {
        match self {
            Self::CyclicConv { .. } | Self::Dense { .. } | Self::Flatten {} => 1,
            Self::Activation(_) => 1,
            _ => FORMAT,
        }
    }
}

const KIND: &str = "plain-network";
/// Version of the format of plain networks. A file has the first one that knows all of its layers.
const FORMAT: u32 = 2;

impl PlainNetwork {
    /// Writes the network, or leaves the file that was there. Only f32 and f64 networks can be saved.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the folder cannot be written to, [`Error::Candle`](crate::Error::Candle)
    /// for another element type.
    pub fn save(&self, path: &Path) -> Result<()> {
        let layers: Vec<StoredLayer> = self.layers().iter().map(stored).collect();
        let dtype = StoredType::of(self.dtype());
        let format = layers.iter().map(StoredLayer::format).max().unwrap_or(1);
        let header = Header { kind: KIND.into(), format, dtype, input: self.input(), layers };
        let mut writer = Writer::default();
        for (layer, name) in self.layers().iter().zip(self.names()) {
            let Some((weight, bias)) = layer.parameters() else { continue };
            let tensors = [("weight", Some(weight)), ("bias", bias)];
            for (part, tensor) in tensors.into_iter().filter_map(|(part, t)| t.map(|t| (part, t))) {
                writer.push_tensor(format!("{name}.{part}"), tensor)?;
            }
        }
        writer.write(path, &header)
    }

    /// Reads a network that [`PlainNetwork::save`] wrote.
    ///
    /// # Errors
    /// As for [`Trainer::resume`](crate::Trainer::resume).
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let header: Header = reader.header_of(KIND, 1..=FORMAT)?;
        let first = header.layers.iter().map(StoredLayer::format).max().unwrap_or(1);
        if header.format != first {
            let format = header.format;
            return Err(reader.problem(format!(
                "has format version {format}, expected {first}: that of its layers"
            )));
        }
        let dtype = header.dtype.dtype();
        let (mut n_convs, mut n_linears) = (0, 0);
        let mut layers = Vec::with_capacity(header.layers.len());
        for layer in header.layers {
            layers.push(match layer {
                StoredLayer::CyclicConv { downsample, bias } => {
                    n_convs += 1;
                    let (weight, bias) =
                        tensors(&mut reader, &format!("conv{n_convs}"), bias, dtype, device)?;
                    PlainLayer::CyclicConv(CyclicConv::new(weight, bias, downsample)?)
                }
                StoredLayer::Dense { bias } => {
                    n_linears += 1;
                    let (weight, bias) =
                        tensors(&mut reader, &format!("linear{n_linears}"), bias, dtype, device)?;
                    PlainLayer::Dense(Dense::new(weight, bias)?)
                }
                StoredLayer::PaddedConv { window, bias } => {
                    n_convs += 1;
                    let (weight, bias) =
                        tensors(&mut reader, &format!("conv{n_convs}"), bias, dtype, device)?;
                    PlainLayer::PaddedConv(PaddedConv::new(weight, bias, window)?)
                }
                other => plain(other),
            });
        }
        reader.finish()?;
        Self::new(header.input, layers)
    }
}

fn stored(layer: &PlainLayer) -> StoredLayer {
    match layer {
        PlainLayer::CyclicConv(conv) => {
            StoredLayer::CyclicConv { downsample: conv.downsample(), bias: conv.bias().is_some() }
        }
        PlainLayer::Dense(dense) => StoredLayer::Dense { bias: dense.bias().is_some() },
        PlainLayer::Activation(activation) => StoredLayer::Activation(*activation),
        PlainLayer::Flatten => StoredLayer::Flatten {},
        PlainLayer::PaddedConv(conv) => {
            StoredLayer::PaddedConv { window: conv.window(), bias: conv.bias().is_some() }
        }
        PlainLayer::LeakyRelu { slope } => StoredLayer::LeakyRelu { slope: *slope },
        PlainLayer::Recall { from } => StoredLayer::Recall { from: *from },
        PlainLayer::Add { from } => StoredLayer::Add { from: *from },
        PlainLayer::Concat { from } => StoredLayer::Concat { from: *from },
    }
}

/// A layer without weights.
fn plain(layer: StoredLayer) -> PlainLayer {
    match layer {
        StoredLayer::Activation(activation) => PlainLayer::Activation(activation),
        StoredLayer::LeakyRelu { slope } => PlainLayer::LeakyRelu { slope },
        StoredLayer::Recall { from } => PlainLayer::Recall { from },
        StoredLayer::Add { from } => PlainLayer::Add { from },
        StoredLayer::Concat { from } => PlainLayer::Concat { from },
        StoredLayer::Flatten {}
        | StoredLayer::CyclicConv { .. }
        | StoredLayer::Dense { .. }
        | StoredLayer::PaddedConv { .. } => PlainLayer::Flatten,
    }
}

/// Weight and bias of a layer; the network checks the shapes against its input.
fn tensors(
    reader: &mut Reader,
    name: &str,
    bias: bool,
    dtype: DType,
    device: &Device,
) -> Result<(Tensor, Option<Tensor>)> {
    let mut take_any = |part: &str| {
        let name = format!("{name}.{part}");
        let shape = reader.shape(&name)?;
        reader.take_tensor(&name, &shape, dtype, device)
    };
    Ok((take_any("weight")?, if bias { Some(take_any("bias")?) } else { None }))
}
