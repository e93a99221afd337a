//! Networks for PyTorch: weights as safetensors, and the module that takes them.
//!
//! Definition. Our convolution pads k/2 before and (k − 1)/2 after; `nn.Conv2d(padding_mode="circular")` pads the same on both
//! sides. The two agree for odd k. A kernel of even size k becomes one of size k + 1 with zeros as its last row and column,
//! which is the same map under padding k/2 on both sides. Downsampling is `nn.PixelUnshuffle`.
//!
//! Shapes: weights OIHW and (out, in), biases (out), under the names `conv1.weight`, `conv1.bias`, `linear1.weight` and so on:
//! the state of an `nn.Sequential` with these names.
//!
//! Guarantee: the exported network is the same function up to rounding; the added zeros change no sum.
//!
//! Not here: certificates. Those hold for the network as lipconv executes it.

use std::collections::HashMap;
use std::fmt::Write as _;

use candle_core::Tensor;
use lipconv::{Activation, CyclicConv, PlainLayer, PlainNetwork};

use crate::error::{Error, Result, unsupported};

/// The weights as PyTorch's modules take them, by name.
///
/// # Errors
/// [`Error::Network`] for weights that cannot be copied.
pub fn pytorch_state(network: &PlainNetwork) -> Result<HashMap<String, Tensor>> {
    let mut state = HashMap::new();
    for (layer, name) in network.layers().iter().zip(network.names()) {
        let Some((weight, bias)) = layer.parameters() else { continue };
        let weight = match layer {
            PlainLayer::CyclicConv(conv) => with_odd_size(conv)?,
            _ => weight.clone(),
        };
        state.insert(format!("{name}.weight"), weight.contiguous()?);
        if let Some(bias) = bias {
            state.insert(format!("{name}.bias"), bias.contiguous()?);
        }
    }
    Ok(state)
}

/// The kernel with zeros after it where its size is even.
fn with_odd_size(conv: &CyclicConv) -> Result<Tensor> {
    let weight = conv.weight();
    if conv.kernel_size() % 2 == 1 {
        return Ok(weight.clone());
    }
    Ok(weight.pad_with_zeros(2, 0, 1)?.pad_with_zeros(3, 0, 1)?)
}

/// The bytes of a safetensors file with [`pytorch_state`].
///
/// # Errors
/// As for [`pytorch_state`].
pub fn pytorch_weights(network: &PlainNetwork) -> Result<Vec<u8>> {
    let state = pytorch_state(network)?;
    safetensors::serialize(&state, None).map_err(|e| Error::from(candle_core::Error::from(e)))
}

/// A Python file that builds the network and loads the weights; it needs torch alone. `FILE` in its first lines stands for its name.
///
/// # Errors
/// [`Error::Unsupported`] for a layer without a module.
pub fn pytorch_module(network: &PlainNetwork) -> Result<String> {
    let mut layers = String::new();
    let mut channels = network.input().channels;
    for (layer, name) in network.layers().iter().zip(network.names()) {
        for line in modules(layer, name, &mut channels)? {
            writeln!(layers, "        {line},").expect("a String takes every text");
        }
    }
    let input = network.input();
    let shape = format!("b x {} x {} x {}", input.channels, input.height, input.width);
    Ok(PYTHON.replace("SHAPE", &shape).replace("        LAYERS\n", &layers))
}

/// Entries of the `nn.Sequential`.
fn modules(layer: &PlainLayer, name: &str, channels: &mut usize) -> Result<Vec<String>> {
    let entry = |name: &str, module: &str| format!("(\"{name}\", {module})");
    Ok(match layer {
        PlainLayer::CyclicConv(conv) => {
            let mut lines = Vec::new();
            let s = conv.downsample();
            if s > 1 {
                lines
                    .push(entry(&format!("{name}_downsample"), &format!("nn.PixelUnshuffle({s})")));
            }
            let (c_in, half) = (*channels * s * s, conv.kernel_size() / 2);
            let c_out = conv.weight().dims()[0];
            *channels = c_out;
            let padding = format!("padding={half}, padding_mode=\"circular\"");
            let bias = bias_text(conv.bias());
            let size = 2 * half + 1;
            lines
                .push(entry(name, &format!("nn.Conv2d({c_in}, {c_out}, {size}, {padding}{bias})")));
            lines
        }
        PlainLayer::Dense(dense) => {
            let (out, inside) = (dense.weight().dims()[0], dense.weight().dims()[1]);
            let bias = bias_text(dense.bias());
            vec![entry(name, &format!("nn.Linear({inside}, {out}{bias})"))]
        }
        PlainLayer::Activation(Activation::MaxMin) => vec![entry(name, "MaxMin()")],
        PlainLayer::Activation(Activation::GroupSort { group }) => {
            vec![entry(name, &format!("GroupSort({group})"))]
        }
        PlainLayer::Activation(Activation::Relu) => vec![entry(name, "nn.ReLU()")],
        PlainLayer::Flatten => vec![entry(name, "nn.Flatten()")],
        _ => return unsupported(name, "PyTorch has no module for this layer in a sequence"),
    })
}

fn bias_text(bias: Option<&Tensor>) -> &'static str {
    if bias.is_some() { "" } else { ", bias=False" }
}

const PYTHON: &str = r#""""A 1-Lipschitz network, exported by lipconv. Images are SHAPE with pixels in [0, 1].

    from FILE import load
    logits = load("FILE.safetensors")(images)
"""

import json
from collections import OrderedDict

import torch
from torch import nn

DTYPES = {"F32": torch.float32, "F64": torch.float64}


class MaxMin(nn.Module):
    """Maxima of the two halves of the channels first, then the minima."""

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return torch.cat([torch.maximum(a, b), torch.minimum(a, b)], dim=1)


class GroupSort(nn.Module):
    """Consecutive groups of channels, each sorted ascending."""

    def __init__(self, group):
        super().__init__()
        self.group = group

    def forward(self, x):
        return x.unflatten(1, (-1, self.group)).sort(dim=2).values.flatten(1, 2)


def network():
    return nn.Sequential(OrderedDict([
        LAYERS
    ]))


def read(path):
    """The tensors of a safetensors file; safetensors.torch.load_file does the same."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)

    def tensor(entry):
        begin, end = (start + offset for offset in entry["data_offsets"])
        values = torch.frombuffer(data[begin:end], dtype=DTYPES[entry["dtype"]])
        return values.reshape(entry["shape"]).clone()

    return {name: tensor(entry) for name, entry in header.items()}


def load(path):
    state = read(path)
    model = network().to(next(iter(state.values())).dtype)
    model.load_state_dict(state)
    return model.eval()
"#;
