//! A plain network as an ONNX model.
//!
//! Definition. Cyclic padding is `Pad` with mode `wrap`, which needs operator set 19; the model names [`OPSET`]. Invertible downsampling is Reshape,
//! Transpose and Reshape, MaxMin is Split, Max, Min and Concat, GroupSort a TopK of all values of a group. The number of images is open.
//!
//! Guarantee: the same function up to the order of sums; [`from_onnx`](crate::from_onnx) reads the same network back.
//!
//! Not here: certificates. Those hold for the network as it is executed in a stated arithmetic, and another program executes it in its own.

use candle_core::{DType, Tensor};
use lipconv::{
    Activation, Boundary, CyclicConv, ImageShape, PaddedConv, PlainLayer, PlainNetwork,
    SignalShape, Window,
};

use crate::error::{Result, unsupported};
use crate::wire::Writer;

/// The operator set of exported models.
pub const OPSET: u64 = 20;
/// The version of the file format that belongs to it.
const IR_VERSION: u64 = 9;

const FLOAT: u64 = 1;
const INT64: u64 = 7;
const DOUBLE: u64 = 11;

/// The bytes of an ONNX model of a network in f32 or f64.
///
/// # Errors
/// [`Error::Unsupported`](crate::Error::Unsupported) for what ONNX cannot hold, [`Error::Network`](crate::Error::Network) for unreadable weights.
pub fn to_onnx(network: &PlainNetwork) -> Result<Vec<u8>> {
    let is_wide = network.dtype() == DType::F64;
    let mut graph = GraphWriter { graph: Writer::default(), is_wide, n_values: 0 };
    let mut signals = vec!["images".to_owned()];
    let layers = network.layers().iter().zip(network.names()).zip(network.shapes());
    for ((layer, name), &shape) in layers {
        let input = signals[signals.len() - 1].clone();
        let earlier = layer.earlier().map(|from| signals[from].clone());
        signals.push(graph.layer(layer, name, &input, earlier, shape)?);
    }
    let last = signals[signals.len() - 1].clone();
    graph.node("Identity", &[&last], &["logits"], |_| {});
    let mut all = graph.graph;
    all.text(2, "lipconv");
    let ImageShape { channels, height, width } = network.input();
    let element = if is_wide { DOUBLE } else { FLOAT };
    all.message(11, &value("images", element, &[channels, height, width]));
    all.message(12, &value("logits", element, &[network.n_classes()]));
    let mut opset = Writer::default();
    opset.text(1, "").varint(2, OPSET);
    let mut model = Writer::default();
    model.varint(1, IR_VERSION).text(2, "lipconv").message(7, &all).message(8, &opset);
    Ok(model.finish())
}

/// The type of an input or output; the number of images is open.
fn value(name: &str, element: u64, dims: &[usize]) -> Writer {
    let mut shape = Writer::default();
    let mut images = Writer::default();
    images.text(2, "n");
    shape.message(1, &images);
    for &dim in dims {
        let mut size = Writer::default();
        size.varint(1, dim as u64);
        shape.message(1, &size);
    }
    let mut tensor = Writer::default();
    tensor.varint(1, element).message(2, &shape);
    let mut kind = Writer::default();
    kind.message(1, &tensor);
    let mut value = Writer::default();
    value.text(1, name).message(2, &kind);
    value
}

struct GraphWriter {
    graph: Writer,
    is_wide: bool,
    n_values: usize,
}

impl GraphWriter {
    fn layer(
        &mut self,
        layer: &PlainLayer,
        name: &str,
        input: &str,
        earlier: Option<String>,
        shape: SignalShape,
    ) -> Result<String> {
        Ok(match (layer, shape) {
            (PlainLayer::CyclicConv(conv), SignalShape::Image(image)) => {
                self.cyclic(conv, name, input, image)?
            }
            (PlainLayer::PaddedConv(conv), _) => self.padded(conv, name, input)?,
            (PlainLayer::Dense(dense), _) => {
                let weight = self.weight(&format!("{name}.weight"), dense.weight())?;
                let mut inputs = vec![input.to_owned(), weight];
                if let Some(bias) = dense.bias() {
                    inputs.push(self.weight(&format!("{name}.bias"), bias)?);
                }
                self.one("Gemm", &inputs, |node| integer(node, "transB", 1))
            }
            (PlainLayer::Activation(activation), _) => self.activation(*activation, input, shape),
            (PlainLayer::Flatten, _) => {
                self.one("Flatten", &[input.to_owned()], |node| integer(node, "axis", 1))
            }
            (PlainLayer::LeakyRelu { slope }, _) if *slope == -1.0 => {
                self.one("Abs", &[input.to_owned()], |_| {})
            }
            (PlainLayer::LeakyRelu { slope }, _) => {
                let alpha = *slope as f32;
                if f64::from(alpha) != *slope {
                    return unsupported(name, format!("its slope {slope} is no number in f32"));
                }
                self.one("LeakyRelu", &[input.to_owned()], |node| float(node, "alpha", alpha))
            }
            (PlainLayer::Recall { .. }, _) => earlier.unwrap_or_default(),
            (PlainLayer::Add { .. }, _) => {
                self.one("Add", &[earlier.unwrap_or_default(), input.to_owned()], |_| {})
            }
            (PlainLayer::Concat { .. }, _) => {
                let inputs = [earlier.unwrap_or_default(), input.to_owned()];
                self.one("Concat", &inputs, |node| integer(node, "axis", 1))
            }
            _ => return unsupported(name, "there is no ONNX form of it"),
        })
    }

    fn cyclic(
        &mut self,
        conv: &CyclicConv,
        name: &str,
        input: &str,
        image: ImageShape,
    ) -> Result<String> {
        let (s, k) = (conv.downsample(), conv.kernel_size());
        let mut signal = input.to_owned();
        if s > 1 {
            let (c, h, w) = (image.channels, image.height / s, image.width / s);
            let apart = self.integers(&[-1, c as i64, h as i64, s as i64, w as i64, s as i64]);
            signal = self.one("Reshape", &[signal, apart], |_| {});
            signal = self
                .one("Transpose", &[signal], |node| integers(node, "perm", &[0, 1, 3, 5, 2, 4]));
            let together = self.integers(&[-1, (c * s * s) as i64, h as i64, w as i64]);
            signal = self.one("Reshape", &[signal, together], |_| {});
        }
        let window = Window {
            before: [k / 2; 2],
            after: [(k - 1) / 2; 2],
            boundary: Boundary::Cyclic,
            ..Window::default()
        };
        self.conv(name, signal, conv.weight(), conv.bias(), window)
    }

    fn padded(&mut self, conv: &PaddedConv, name: &str, input: &str) -> Result<String> {
        self.conv(name, input.to_owned(), conv.weight(), conv.bias(), conv.window())
    }

    fn conv(
        &mut self,
        name: &str,
        mut signal: String,
        weight: &Tensor,
        bias: Option<&Tensor>,
        window: Window,
    ) -> Result<String> {
        let pair = |pair: [usize; 2]| pair.map(|v| v as i64);
        let ([top, left], [bottom, right]) = (pair(window.before), pair(window.after));
        let mut pads = [top, left, bottom, right];
        if window.boundary == Boundary::Cyclic {
            if pads.iter().any(|p| *p > 0) {
                let cyclic = self.integers(&[0, 0, top, left, 0, 0, bottom, right]);
                signal = self.one("Pad", &[signal, cyclic], |node| text(node, "mode", "wrap"));
            }
            pads = [0; 4];
        }
        let mut inputs = vec![signal, self.weight(&format!("{name}.weight"), weight)?];
        if let Some(bias) = bias {
            inputs.push(self.weight(&format!("{name}.bias"), bias)?);
        }
        let kernel = [weight.dims()[2] as i64, weight.dims()[3] as i64];
        Ok(self.one("Conv", &inputs, |node| {
            integers(node, "kernel_shape", &kernel);
            integers(node, "strides", &pair(window.stride));
            integers(node, "dilations", &pair(window.dilation));
            integers(node, "pads", &pads);
            integer(node, "group", window.groups as i64);
        }))
    }

    fn activation(&mut self, activation: Activation, input: &str, shape: SignalShape) -> String {
        let input = input.to_owned();
        match activation {
            Activation::MaxMin => {
                let (a, b) = (self.name(), self.name());
                self.node("Split", &[&input], &[&a, &b], |node| {
                    integer(node, "axis", 1);
                    integer(node, "num_outputs", 2);
                });
                let parts = [a, b];
                let (max, min) = (self.one("Max", &parts, |_| {}), self.one("Min", &parts, |_| {}));
                self.one("Concat", &[max, min], |node| integer(node, "axis", 1))
            }
            Activation::GroupSort { group } => {
                let inner: Vec<i64> = match shape {
                    SignalShape::Image(image) => vec![image.height as i64, image.width as i64],
                    SignalShape::Vector(_) => Vec::new(),
                };
                let (channels, group) = (shape.n_channels() as i64, group as i64);
                let apart: Vec<i64> = [-1, channels / group, group]
                    .into_iter()
                    .chain(inner.iter().copied())
                    .collect();
                let apart = self.integers(&apart);
                let groups = self.one("Reshape", &[input, apart], |_| {});
                let (k, sorted, places) = (self.integers(&[group]), self.name(), self.name());
                self.node("TopK", &[&groups, &k], &[&sorted, &places], |node| {
                    integer(node, "axis", 2);
                    integer(node, "largest", 0);
                    integer(node, "sorted", 1);
                });
                let together: Vec<i64> = [-1, channels].into_iter().chain(inner).collect();
                let together = self.integers(&together);
                self.one("Reshape", &[sorted, together], |_| {})
            }
            _ => self.one("Relu", &[input], |_| {}),
        }
    }

    fn name(&mut self) -> String {
        self.n_values += 1;
        format!("v{}", self.n_values)
    }

    /// A node of one output.
    fn one(
        &mut self,
        operator: &str,
        inputs: &[String],
        attributes: impl Fn(&mut Writer),
    ) -> String {
        let output = self.name();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.node(operator, &inputs, &[&output], attributes);
        output
    }

    fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: impl Fn(&mut Writer),
    ) {
        let mut node = Writer::default();
        inputs.iter().for_each(|input| {
            node.text(1, input);
        });
        outputs.iter().for_each(|output| {
            node.text(2, output);
        });
        node.text(3, &format!("{operator}_{}", outputs[0])).text(4, operator);
        attributes(&mut node);
        self.graph.message(1, &node);
    }

    fn weight(&mut self, name: &str, tensor: &Tensor) -> Result<String> {
        let tensor = tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F64)?;
        let values = tensor.flatten_all()?.to_vec1::<f64>()?;
        // exact: the weights were in f32 before
        let bytes: Vec<u8> = if self.is_wide {
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()
        };
        self.initializer(name, if self.is_wide { DOUBLE } else { FLOAT }, tensor.dims(), &bytes);
        Ok(name.to_owned())
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.name();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(&name, INT64, &[values.len()], &bytes);
        name
    }

    fn initializer(&mut self, name: &str, element: u64, dims: &[usize], bytes: &[u8]) {
        let mut tensor = Writer::default();
        for &dim in dims {
            tensor.varint(1, dim as u64);
        }
        tensor.varint(2, element).text(8, name).bytes(9, bytes);
        self.graph.message(5, &tensor);
    }
}

/// An attribute of a kind; `write` puts its value in.
fn attribute(node: &mut Writer, name: &str, kind: u64, write: impl Fn(&mut Writer)) {
    let mut attribute = Writer::default();
    attribute.text(1, name);
    write(&mut attribute);
    attribute.varint(20, kind);
    node.message(5, &attribute);
}

fn integer(node: &mut Writer, name: &str, value: i64) {
    attribute(node, name, 2, |attribute| {
        attribute.varint(3, value as u64);
    });
}

fn float(node: &mut Writer, name: &str, value: f32) {
    attribute(node, name, 1, |attribute| {
        attribute.float(2, value);
    });
}

fn text(node: &mut Writer, name: &str, value: &str) {
    attribute(node, name, 3, |attribute| {
        attribute.text(4, value);
    });
}

fn integers(node: &mut Writer, name: &str, values: &[i64]) {
    attribute(node, name, 7, |attribute| {
        for &value in values {
            attribute.varint(8, value as u64);
        }
    });
}
