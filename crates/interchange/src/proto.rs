//! The messages of ONNX that a network needs.
//!
//! Fields without a meaning for the function (names of producers, documentation, metadata) are skipped by their numbers; every other field
//! that is not read here is refused by its number.
//!
//! Source: onnx.proto3 of the ONNX project, IR versions 3 to 13.

use std::collections::BTreeMap;

use crate::error::{Result, malformed, quoted, unsupported};
use crate::wire::{Field, Message};

/// `ModelProto`.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    pub(crate) opset: i64,
    pub(crate) graph: Graph<'a>,
}

/// `GraphProto`.
#[derive(Debug, Default)]
pub(crate) struct Graph<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
    pub(crate) initializers: Vec<Tensor<'a>>,
    pub(crate) inputs: Vec<Input<'a>>,
    pub(crate) outputs: Vec<&'a str>,
}

/// `NodeProto`.
#[derive(Debug, Default)]
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) operator: &'a str,
    pub(crate) inputs: Vec<&'a str>,
    pub(crate) outputs: Vec<&'a str>,
    pub(crate) attributes: BTreeMap<&'a str, Attribute<'a>>,
}

/// `AttributeProto`.
#[derive(Debug, Clone)]
pub(crate) enum Attribute<'a> {
    Float(f64),
    Int(i64),
    Text(&'a str),
    Ints(Vec<i64>),
    /// Numbers in f32, which no operator here has.
    Floats,
    Tensor(Tensor<'a>),
}

/// `TensorProto`, its values not yet read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tensor<'a> {
    pub(crate) name: &'a str,
    pub(crate) dims: Vec<usize>,
    data_type: u64,
    raw: Option<&'a [u8]>,
    numbers: Vec<f64>,
    integers: Vec<i64>,
}

/// The values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// And whether they are stored in f64.
    Floats(Vec<f64>, bool),
    Ints(Vec<i64>),
}

/// A graph's input: its name and sizes, None for one that is open.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) name: &'a str,
    pub(crate) dims: Vec<Option<usize>>,
    /// Number of its type; 0 where none is named.
    pub(crate) data_type: u64,
}

pub(crate) const FLOAT: u64 = 1;
const INT32: u64 = 6;
const INT64: u64 = 7;
pub(crate) const DOUBLE: u64 = 11;

impl<'a> Model<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut message = Message::new("model", bytes);
        let (mut graph, mut opset) = (None, None);
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                // IR version, producer, domain, version, documentation, metadata
                (1..=6 | 14, _) => {}
                (7, Field::Bytes(bytes)) if graph.is_none() => graph = Some(Graph::parse(bytes)?),
                (8, Field::Bytes(bytes)) => {
                    let (domain, version) = operator_set(bytes)?;
                    match domain {
                        "" | "ai.onnx" => opset = Some(version),
                        // listed by exporters whether used or not; a node of them is refused
                        _ => {}
                    }
                }
                (25, _) => {
                    return unsupported(
                        "the model",
                        "it defines functions, expected plain operators",
                    );
                }
                _ => return message.unknown(number),
            }
        }
        match (graph, opset) {
            (Some(graph), Some(opset)) => Ok(Self { opset, graph }),
            (None, _) => malformed("it has no graph"),
            (_, None) => malformed("it names no operator set"),
        }
    }
}

fn operator_set(bytes: &[u8]) -> Result<(&str, i64)> {
    let mut message = Message::new("operator set", bytes);
    let (mut domain, mut version) = ("", 0);
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, field) => domain = field.text("a domain")?,
            (2, Field::Varint(value)) => version = value as i64,
            _ => return message.unknown(number),
        }
    }
    Ok((domain, version))
}

impl<'a> Graph<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut message = Message::new("graph", bytes);
        let mut graph = Self::default();
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => graph.nodes.push(Node::parse(bytes)?),
                (5, Field::Bytes(bytes)) => graph.initializers.push(Tensor::parse(bytes)?),
                (11, Field::Bytes(bytes)) => graph.inputs.push(Input::parse(bytes)?),
                (12, Field::Bytes(bytes)) => graph.outputs.push(Input::parse(bytes)?.name),
                // name, documentation, shapes of values, metadata
                (2 | 10 | 13 | 16, _) => {}
                (14, _) => return unsupported("the graph", "it is quantised"),
                (15, _) => return unsupported("the graph", "it has sparse weights"),
                _ => return message.unknown(number),
            }
        }
        Ok(graph)
    }
}

impl<'a> Node<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut message = Message::new("node", bytes);
        let mut node = Self::default();
        let mut domain = "";
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (1, field) => node.inputs.push(field.text("an input's name")?),
                (2, field) => node.outputs.push(field.text("an output's name")?),
                (3, field) => node.name = field.text("a node's name")?,
                (4, field) => node.operator = field.text("an operator")?,
                (5, Field::Bytes(bytes)) => {
                    let (name, attribute) = attribute(bytes)?;
                    if node.attributes.insert(name, attribute).is_some() {
                        return malformed(format!("attribute {} stands twice", quoted(name)));
                    }
                }
                (7, field) => domain = field.text("a domain")?,
                // documentation, overload, metadata, devices
                (6 | 8 | 9 | 10, _) => {}
                _ => return message.unknown(number),
            }
        }
        if !matches!(domain, "" | "ai.onnx") {
            return unsupported(node.title(), format!("it is of the domain {}", quoted(domain)));
        }
        Ok(node)
    }

    /// Operator and name.
    pub(crate) fn title(&self) -> String {
        let operator: String = self.operator.chars().take(40).collect();
        format!("{} {}", operator.escape_debug(), quoted(self.name))
    }
}

fn attribute(bytes: &[u8]) -> Result<(&str, Attribute<'_>)> {
    let mut message = Message::new("attribute", bytes);
    let (mut name, mut kind) = ("", 0);
    let mut value = None;
    let mut ints = Vec::new();
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, field) => name = field.text("an attribute's name")?,
            (2, Field::Fixed32(bits)) => {
                value = Some(Attribute::Float(f32::from_bits(bits).into()))
            }
            (3, Field::Varint(number)) => value = Some(Attribute::Int(number as i64)),
            (4, field) => value = Some(Attribute::Text(field.text("an attribute's text")?)),
            (5, Field::Bytes(bytes)) => value = Some(Attribute::Tensor(Tensor::parse(bytes)?)),
            (7, _) => {}
            (8, field) => field.integers("an attribute's integers", &mut ints)?,
            (13, _) => {}
            (20, Field::Varint(number)) => kind = number,
            (21, _) => {
                return unsupported(
                    format!("attribute {}", quoted(name)),
                    "it refers to a function's",
                );
            }
            _ => return message.unknown(number),
        }
    }
    // values that are the default of their type are not written
    let value = match (value, kind) {
        (Some(value), _) => value,
        (None, 1) => Attribute::Float(0.0),
        (None, 2) => Attribute::Int(0),
        (None, 3) => Attribute::Text(""),
        (None, 6) => Attribute::Floats,
        (None, _) => Attribute::Ints(ints),
    };
    Ok((name, value))
}

impl<'a> Tensor<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut message = Message::new("tensor", bytes);
        let mut tensor = Self::default();
        let (mut dims, mut external) = (Vec::new(), false);
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (1, field) => field.integers("sizes of a tensor", &mut dims)?,
                (2, Field::Varint(kind)) => tensor.data_type = kind,
                (4, Field::Bytes(bytes)) => {
                    let values = whole(bytes)?;
                    tensor.numbers.extend(values.iter().map(|&b| f64::from(f32::from_le_bytes(b))));
                }
                (10, Field::Bytes(bytes)) => {
                    tensor.numbers.extend(whole(bytes)?.iter().map(|&b| f64::from_le_bytes(b)));
                }
                (4 | 10, field) => field.numbers("values of a tensor", &mut tensor.numbers)?,
                (5 | 7, field) => field.integers("values of a tensor", &mut tensor.integers)?,
                (8, field) => tensor.name = field.text("a tensor's name")?,
                (9, Field::Bytes(bytes)) => tensor.raw = Some(bytes),
                (12 | 16, _) => {}
                (13, _) => external = true,
                (14, Field::Varint(place)) => external |= place == 1,
                _ => return message.unknown(number),
            }
        }
        let title = tensor.title();
        if external {
            return unsupported(
                title,
                "its values are in another file; export with external_data=False",
            );
        }
        for dim in dims {
            match usize::try_from(dim) {
                Ok(dim) => tensor.dims.push(dim),
                Err(_) => {
                    return unsupported(title, format!("a size is {dim}, expected at least 0"));
                }
            }
        }
        Ok(tensor)
    }

    pub(crate) fn title(&self) -> String {
        format!("tensor {}", quoted(self.name))
    }

    /// Its values, all of them finite.
    pub(crate) fn values(&self) -> Result<Values> {
        let n = self.dims.iter().fold(1, |n: usize, &dim| n.saturating_mul(dim));
        let values = match (self.data_type, self.raw) {
            (FLOAT, Some(raw)) => {
                let values = whole(raw)?.iter().map(|&b| f32::from_le_bytes(b).into());
                Values::Floats(values.collect(), false)
            }
            (DOUBLE, Some(raw)) => {
                let values = whole(raw)?.iter().map(|&b| f64::from_le_bytes(b));
                Values::Floats(values.collect(), true)
            }
            (INT64, Some(raw)) => {
                Values::Ints(whole(raw)?.iter().map(|&b| i64::from_le_bytes(b)).collect())
            }
            (INT32, Some(raw)) => {
                Values::Ints(whole(raw)?.iter().map(|&b| i32::from_le_bytes(b).into()).collect())
            }
            (FLOAT | DOUBLE, None) => {
                Values::Floats(self.numbers.clone(), self.data_type == DOUBLE)
            }
            (INT32 | INT64, None) => Values::Ints(self.integers.clone()),
            (kind, _) => {
                let names =
                    [(2, "uint8"), (3, "int8"), (9, "bool"), (10, "float16"), (16, "bfloat16")];
                let name =
                    names.iter().find(|(k, _)| *k == kind).map_or("another type", |(_, n)| n);
                return unsupported(
                    self.title(),
                    format!("it holds {name} (type {kind}), expected f32, f64 or integers"),
                );
            }
        };
        let got = match &values {
            Values::Floats(values, _) => values.len(),
            Values::Ints(values) => values.len(),
        };
        if got != n {
            return unsupported(
                self.title(),
                format!("it holds {got} values, expected {n} by its sizes {:?}", self.dims),
            );
        }
        if let Values::Floats(values, _) = &values
            && let Some(at) = values.iter().position(|v| !v.is_finite())
        {
            return unsupported(
                self.title(),
                format!("it holds {} at {at}, expected finite numbers", values[at]),
            );
        }
        Ok(values)
    }
}

/// The values of `N` bytes each.
fn whole<const N: usize>(bytes: &[u8]) -> Result<&[[u8; N]]> {
    match bytes.as_chunks() {
        (values, []) => Ok(values),
        (_, rest) => malformed(format!(
            "tensor: {} bytes are left over, expected values of {N} bytes",
            rest.len()
        )),
    }
}

impl<'a> Input<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut message = Message::new("input or output", bytes);
        let mut input = Self { name: "", dims: Vec::new(), data_type: 0 };
        while let Some((number, field)) = message.next()? {
            match (number, field) {
                (1, field) => input.name = field.text("a name")?,
                (2, Field::Bytes(bytes)) => (input.data_type, input.dims) = sizes(bytes)?,
                (3 | 4, _) => {}
                _ => return message.unknown(number),
            }
        }
        Ok(input)
    }
}

/// The type of the numbers of a `TypeProto`, and its sizes.
fn sizes(bytes: &[u8]) -> Result<(u64, Vec<Option<usize>>)> {
    let mut message = Message::new("type", bytes);
    let (mut data_type, mut dims) = (0, Vec::new());
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                let mut tensor = Message::new("tensor type", bytes);
                while let Some((number, field)) = tensor.next()? {
                    match (number, field) {
                        (1, Field::Varint(kind)) => data_type = kind,
                        (2, Field::Bytes(bytes)) => {
                            let mut shape = Message::new("shape", bytes);
                            while let Some((1, Field::Bytes(bytes))) = shape.next()? {
                                dims.push(size(bytes)?);
                            }
                        }
                        _ => return tensor.unknown(number),
                    }
                }
            }
            (6, _) => {}
            _ => return message.unknown(number),
        }
    }
    Ok((data_type, dims))
}

fn size(bytes: &[u8]) -> Result<Option<usize>> {
    let mut message = Message::new("size", bytes);
    let mut size = None;
    while let Some((number, field)) = message.next()? {
        match (number, field) {
            (1, Field::Varint(value)) => size = usize::try_from(value as i64).ok(),
            (2 | 3, _) => {}
            _ => return message.unknown(number),
        }
    }
    Ok(size)
}
