//! ONNX to a plain network.
//!
//! The graph is walked in its order. Nodes that the output does not depend on are left out; of the others every operator, every attribute
//! and every input must be known, or the model is refused by its name. Nothing is approximated: what is no layer of a plain network is refused.
//!
//! Guarantee: the network is the function of the graph up to the rounding of weights that were put together: batch normalisation, factors
//! and shifts of channels are folded in f64 and rounded once ([`Imported::notes`] says how many).

mod arithmetic;
mod call;
mod linear;
mod selection;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use candle_core::DType;
use lipconv::{ImageShape, PlainNetwork};

use crate::draft::Draft;
use crate::error::{Result, quoted, unsupported};
use crate::proto::{DOUBLE, FLOAT, Graph, Input, Model, Node, Values};
use crate::value::{Constant, Value, View};
use call::Call;

/// A network and what is to be said of its making.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub network: PlainNetwork,
    /// Sentences for a person: what the network is besides a copy.
    pub notes: Vec<String>,
}

/// More are no network of this kind; it bounds the time that a file can ask for.
const MOST_NODES: usize = 20_000;
/// Oldest and newest operator sets whose operators are read.
const OPSETS: std::ops::RangeInclusive<i64> = 9..=25;

/// The network of an ONNX model.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) for bytes that are no model, [`Error::Unsupported`](crate::Error::Unsupported) with the name of what is not
/// known, [`Error::Network`](crate::Error::Network) for layers that make no network.
pub fn from_onnx(bytes: &[u8]) -> Result<Imported> {
    let model = Model::parse(bytes)?;
    if !OPSETS.contains(&model.opset) {
        let (first, last) = (OPSETS.start(), OPSETS.end());
        return unsupported(
            format!("operator set {}", model.opset),
            format!("expected {first} to {last}"),
        );
    }
    if model.graph.nodes.len() > MOST_NODES {
        return unsupported(
            "the graph",
            format!("it has {} nodes, expected at most {MOST_NODES}", model.graph.nodes.len()),
        );
    }
    let (input, image) = image_input(&model.graph)?;
    let mut importer = Importer::new(&model, input, image)?;
    let needed = needed(&model.graph);
    for (node, needed) in model.graph.nodes.iter().zip(needed) {
        if needed {
            importer.node(node)?;
        }
    }
    importer.finish(&model.graph, image)
}

/// The only input, its image, and whether the graph takes a vector.
fn image_input<'m, 'a>(graph: &'m Graph<'a>) -> Result<(&'m Input<'a>, ImageShape)> {
    let weights: HashSet<&str> = graph.initializers.iter().map(|tensor| tensor.name).collect();
    let inputs: Vec<&Input<'_>> =
        graph.inputs.iter().filter(|input| !weights.contains(input.name)).collect();
    let [input] = inputs[..] else {
        return unsupported("the graph", format!("it has {} inputs, expected 1", inputs.len()));
    };
    let title = format!("input {}", quoted(input.name));
    if !matches!(input.data_type, FLOAT | DOUBLE) {
        let problem = format!("its numbers are of type {}, expected f32 or f64", input.data_type);
        return unsupported(title, problem);
    }
    let sizes: Option<Vec<usize>> = input.dims.iter().skip(1).copied().collect();
    let Some(sizes) = sizes else {
        let problem = "a size other than the number of images is open; export with fixed sizes";
        return unsupported(title, problem);
    };
    if input.dims.is_empty() {
        return unsupported(title, "it has no sizes, expected images b x c x h x w");
    }
    if sizes.contains(&0) {
        return unsupported(title, format!("its images have sizes {sizes:?}, expected values"));
    }
    match sizes[..] {
        [c, h, w] => Ok((input, ImageShape::new(c, h, w))),
        [n] => Ok((input, ImageShape::vector(n))),
        _ => {
            let rank = sizes.len() + 1;
            unsupported(title, format!("it has {rank} axes, expected b x c x h x w or b x n"))
        }
    }
}

/// The nodes that the output depends on.
fn needed(graph: &Graph<'_>) -> Vec<bool> {
    let mut wanted: HashSet<&str> = graph.outputs.iter().copied().collect();
    let mut needed = vec![false; graph.nodes.len()];
    for (idx, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|output| !output.is_empty() && wanted.contains(output)) {
            needed[idx] = true;
            wanted.extend(node.inputs.iter().copied());
        }
    }
    needed
}

/// The state of the walk.
struct Importer<'a> {
    draft: Draft,
    values: HashMap<&'a str, Value>,
    /// How often each value is still to be used.
    uses: HashMap<&'a str, usize>,
    is_wide: bool,
    /// The number of images that the graph fixes.
    images: Option<usize>,
    notes: Vec<String>,
}

impl<'a> Importer<'a> {
    fn new(model: &Model<'a>, input: &Input<'a>, image: ImageShape) -> Result<Self> {
        let graph = &model.graph;
        let mut uses: HashMap<&str, usize> = HashMap::new();
        let needed = needed(graph);
        let nodes = graph.nodes.iter().zip(needed).filter(|(_, needed)| *needed);
        for name in nodes.flat_map(|(node, _)| &node.inputs).chain(&graph.outputs) {
            *uses.entry(name).or_default() += 1;
        }
        let mut importer = Self {
            draft: Draft::new(image),
            values: HashMap::new(),
            uses,
            is_wide: false,
            images: input.dims.first().copied().flatten(),
            notes: Vec::new(),
        };
        for tensor in &graph.initializers {
            if importer.uses.contains_key(tensor.name) {
                let value = importer.constant(tensor.dims.clone(), tensor.values()?);
                importer.define(tensor.name, value)?;
            }
        }
        let dims = match input.dims.len() {
            2 => vec![image.channels],
            _ => vec![image.channels, image.height, image.width],
        };
        importer.define(input.name, Value::Signal(View { signal: 0, dims, map: None }))?;
        Ok(importer)
    }

    fn constant(&mut self, dims: Vec<usize>, values: Values) -> Value {
        match values {
            Values::Ints(values) => Value::Ints(dims, values),
            Values::Floats(values, is_wide) => {
                // a scalar in f64 among weights in f32 is Python's
                self.is_wide |= is_wide && values.len() > 1;
                Value::Floats(Constant::new(dims, values))
            }
        }
    }

    fn define(&mut self, name: &'a str, value: Value) -> Result<()> {
        if self.values.insert(name, value).is_some() {
            return unsupported(format!("value {}", quoted(name)), "it is defined twice");
        }
        Ok(())
    }

    fn node(&mut self, node: &Node<'a>) -> Result<()> {
        let mut call = Call::new(node);
        for &name in &node.inputs {
            let value = match (name, self.values.get(name)) {
                ("", _) => None,
                (_, Some(value)) => Some(value.clone()),
                (name, None) => {
                    let problem = format!(
                        "input {} is made by no earlier node: the graph has a circle or is out of order",
                        quoted(name)
                    );
                    return unsupported(node.title(), problem);
                }
            };
            call.inputs.push(value);
            if let Some(left) = self.uses.get_mut(name) {
                *left = left.saturating_sub(1);
            }
        }
        let outputs = self.apply(&mut call)?;
        call.finish()?;
        for (&name, value) in node.outputs.iter().zip(outputs) {
            let value = match value {
                Value::Signal(view) => Value::Signal(self.settled(view)),
                value => value,
            };
            if !name.is_empty() {
                self.define(name, value)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, call: &mut Call<'a, '_>) -> Result<Vec<Value>> {
        match call.node.operator {
            "Conv" => self.conv(call),
            "Gemm" => self.gemm(call),
            "MatMul" => self.matmul(call),
            "BatchNormalization" => self.batch_norm(call),
            "AveragePool" => self.average_pool(call),
            "GlobalAveragePool" => self.global_average_pool(call),
            "ReduceMean" => self.reduce_mean(call),
            "Relu" | "LeakyRelu" | "Abs" | "Neg" => self.activation(call),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(call),
            "Max" | "Min" => self.maximum(call),
            "ReduceMax" | "ReduceMin" => self.reduce_maximum(call),
            "TopK" => self.top_k(call),
            "Concat" => self.concat(call),
            "Identity" | "Dropout" => self.identity(call),
            "Constant" => self.constant_node(call),
            "Shape" => self.shape(call),
            "Cast" => self.cast(call),
            "Gather" => self.gather(call),
            "Reshape" => self.reshape(call),
            "Flatten" => self.flatten(call),
            "Squeeze" | "Unsqueeze" => self.squeeze(call),
            "Transpose" => self.transpose(call),
            "Slice" => self.slice(call),
            "Split" => self.split(call),
            "Pad" => self.pad(call),
            // some of them are 1-Lipschitz, but programs differ in their exponentials, and no standard bounds the errors
            "Sigmoid" | "Tanh" | "Softplus" | "Elu" | "Selu" | "Celu" | "Gelu" | "Erf" | "Exp"
            | "Mish" => unsupported(
                call.title(),
                "no standard bounds the rounding errors of its exponential",
            ),
            _ => unsupported(call.title(), "this operator is no layer that a bound is known for"),
        }
    }

    /// Whether nothing that is still to be used sees a signal.
    fn is_free(&self, signal: usize) -> bool {
        let sees = |value: &Value| matches!(value, Value::Signal(view) if view.signal == signal);
        let is_left = |name: &str| self.uses.get(name).is_some_and(|left| *left > 0);
        !self.values.iter().any(|(name, value)| is_left(name) && sees(value))
    }

    fn finish(mut self, graph: &Graph<'_>, image: ImageShape) -> Result<Imported> {
        let [output] = graph.outputs[..] else {
            let n = graph.outputs.len();
            return unsupported("the graph", format!("it has {n} outputs, expected 1"));
        };
        let title = format!("output {}", quoted(output));
        let view = match self.values.get(output) {
            Some(Value::Signal(view)) => view.clone(),
            Some(_) => return unsupported(title, "it does not depend on the input"),
            None => return unsupported(title, "no node makes it"),
        };
        let signal = self.whole(&title, &view)?;
        if view.dims.len() != 1 {
            let problem = format!("it has sizes {:?}, expected one: the logits", view.dims);
            return unsupported(title, problem);
        }
        let signal = self.draft.flat(signal);
        if signal != self.draft.last() {
            return unsupported(title, "layers come after it");
        }
        if self.draft.n_folded > 0 {
            let n = self.draft.n_folded;
            self.notes.push(format!(
                "{n} scales and shifts (normalisation, batch normalisation, factors) went into other weights, which were rounded once"
            ));
        }
        let dtype = if self.is_wide { DType::F64 } else { DType::F32 };
        let network = self.draft.network(image, dtype)?;
        Ok(Imported { network, notes: self.notes })
    }
}
