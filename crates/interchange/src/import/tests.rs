//! Models of a few nodes, made here: what a node means in each operator set, and what it reads.

use super::{Imported, from_onnx};
use crate::error::Result;
use crate::wire::Writer;
use candle_core::{DType, Device, Tensor};

const FLOAT: u64 = 1;
const INT64: u64 = 7;

/// A graph from `x`, images of some sizes, to `y`.
struct Graph {
    writer: Writer,
    opset: u64,
}

impl Graph {
    fn new(opset: u64, sizes: &[u64]) -> Self {
        let mut writer = Writer::default();
        for (field, name) in [(11, "x"), (12, "y")] {
            let (mut shape, mut tensor, mut kind) =
                (Writer::default(), Writer::default(), Writer::default());
            for &size in [1].iter().chain(sizes) {
                let mut dim = Writer::default();
                dim.varint(1, size);
                shape.message(1, &dim);
            }
            tensor.varint(1, 1).message(2, &shape);
            kind.message(1, &tensor);
            let mut value = Writer::default();
            value.text(1, name).message(2, &kind);
            writer.message(field, &value);
        }
        Self { writer, opset }
    }

    fn integers(self, name: &str, values: &[i64]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, INT64, &[values.len()], &bytes)
    }

    /// A matrix that changes nothing: a network has a layer with weights.
    fn identity(self, name: &str, n: usize) -> Self {
        let value = |i: usize| if i.is_multiple_of(n + 1) { 1.0_f32 } else { 0.0 };
        let bytes: Vec<u8> = (0..n * n).flat_map(|i| value(i).to_le_bytes()).collect();
        self.tensor(name, FLOAT, &[n, n], &bytes)
    }

    fn tensor(mut self, name: &str, kind: u64, dims: &[usize], bytes: &[u8]) -> Self {
        let mut tensor = Writer::default();
        for &dim in dims {
            tensor.varint(1, dim as u64);
        }
        tensor.varint(2, kind).text(8, name).bytes(9, bytes);
        self.writer.message(5, &tensor);
        self
    }

    /// A node with attributes of one integer each, names of inputs and outputs with blanks between them.
    fn node(
        mut self,
        operator: &str,
        inputs: &str,
        output: &str,
        attributes: &[(&str, i64)],
    ) -> Self {
        let mut node = Writer::default();
        inputs.split(' ').for_each(|input| {
            node.text(1, input);
        });
        output.split(' ').for_each(|output| {
            node.text(2, output);
        });
        node.text(4, operator);
        for &(name, value) in attributes {
            let mut attribute = Writer::default();
            attribute.text(1, name).varint(3, value as u64).varint(20, 2);
            node.message(5, &attribute);
        }
        self.writer.message(1, &node);
        self
    }

    fn import(self) -> Result<Imported> {
        let (mut model, mut opset) = (Writer::default(), Writer::default());
        opset.text(1, "").varint(2, self.opset);
        model.varint(1, 8).message(7, &self.writer).message(8, &opset);
        from_onnx(&model.finish())
    }

    fn refusal(self) -> String {
        self.import().unwrap_err().to_string()
    }
}

/// Groups of three of a vector of six, as exporters write a sort.
fn sorted(opset: u64, attributes: &[(&str, i64)]) -> Graph {
    Graph::new(opset, &[6])
        .integers("apart", &[-1, 2, 3])
        .integers("k", &[3])
        .integers("together", &[-1, 6])
        .identity("weight", 6)
        .node("Reshape", "x apart", "groups", &[])
        .node("TopK", "groups k", "sorted", attributes)
        .node("Reshape", "sorted together", "vector", &[])
        .node("MatMul", "vector weight", "y", &[])
}

#[test]
fn a_sort_is_read_where_it_ascends() {
    for opset in [11, 17, 24] {
        let network = sorted(opset, &[("largest", 0)]).import().unwrap().network;
        let x = [3f32, 1., 2., -1., 5., 0.];
        let x = Tensor::from_slice(&x, (1, 6, 1, 1), &Device::Cpu).unwrap();
        let y = network.forward(&x).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(y.to_vec2::<f32>().unwrap(), [[1f32, 2., 3., -1., 0., 5.]]);
        // the default of ONNX is the other order
        for attributes in [&[][..], &[("largest", 1)], &[("sorted", 1), ("axis", 2)]] {
            let text = sorted(opset, attributes).refusal();
            assert!(text.contains("attribute largest is 1, expected 0"), "{text}");
        }
    }
    // before operator set 11 the largest always come first
    let text = sorted(10, &[("axis", -1)]).refusal();
    assert!(text.contains("attribute largest is 1, expected 0"), "{text}");
}

#[test]
fn a_mean_over_padding_of_another_node_is_refused() {
    let padded = |opset: u64| {
        Graph::new(opset, &[2, 4, 4])
            .integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1])
            .integers("axes", &[2, 3])
            .integers("flat", &[-1, 2])
            .node("Pad", "x pads", "padded", &[])
    };
    let means = [
        padded(17).node("GlobalAveragePool", "padded", "mean", &[]),
        padded(18).node("ReduceMean", "padded axes", "mean", &[]),
        padded(18).node("ReduceMean", "padded axes", "mean", &[("keepdims", 0)]),
    ];
    for model in means {
        let text = model.node("Reshape", "mean flat", "y", &[]).refusal();
        assert!(text.contains("its input is padded by another node"), "{text}");
    }
}

/// The function of these nodes, after a matrix that changes nothing.
fn after_matrix(opset: u64, sizes: &[u64]) -> Graph {
    Graph::new(opset, sizes).identity("weight", 3).node("MatMul", "x weight", "h", &[])
}

#[test]
fn what_onnx_takes_for_another_function_is_refused() {
    let floats = |graph: Graph, name: &str, dims: &[usize]| {
        let n: usize = dims.iter().product();
        let bytes: Vec<u8> = (0..n).flat_map(|i| (i as f32 + 1.0).to_le_bytes()).collect();
        graph.tensor(name, FLOAT, dims, &bytes)
    };
    let mut cases = Vec::new();
    // running statistics as outputs mean training before operator set 14
    let mut trained = Graph::new(13, &[2, 4, 4]);
    for name in ["g", "b", "m", "v"] {
        trained = floats(trained, name, &[2]);
    }
    let trained = trained.node("BatchNormalization", "x g b m v", "y p q r s", &[]);
    cases.push((trained, "it normalises by the statistics of a batch"));
    // a bias for each image
    let biased = floats(Graph::new(17, &[3]).identity("weight", 3), "c", &[3, 1]);
    cases.push((biased.node("Gemm", "x weight c", "y", &[]), "the bias has sizes [3, 1]"));
    // a constant of one value that adds an axis
    for operator in ["Mul", "Add", "Max"] {
        let mut graph = after_matrix(17, &[3]);
        graph = match operator {
            "Max" => graph.tensor("c", FLOAT, &[1, 1, 1], &0.0f32.to_le_bytes()),
            _ => floats(graph, "c", &[1, 1, 1]),
        };
        let expected = match operator {
            "Max" => "expected two parts of one signal",
            _ => "does not belong to the channels",
        };
        cases.push((graph.node(operator, "h c", "y", &[]), expected));
    }
    // one image made of several
    let mut mixed = after_matrix(17, &[3]).integers("shape", &[2, 3]);
    mixed = mixed.node("Reshape", "h shape", "y", &[]);
    cases.push((mixed, "mix images with their values"));
    let squeezed = after_matrix(13, &[3]).integers("none", &[]).node("Squeeze", "h none", "y", &[]);
    cases.push((squeezed, "it names no axes"));
    // an integer that 32 bits do not hold
    let cast = after_matrix(17, &[3]).integers("n", &[1 << 32 | 3]);
    let cast = cast.node("Cast", "n", "small", &[("to", 6)]).integers("all", &[-1]);
    let cast = cast.node("Concat", "all small", "shape", &[("axis", 0)]);
    cases.push((cast.node("Reshape", "h shape", "y", &[]), "beyond 32 bits"));
    // a matrix of no columns
    cases.push((Graph::new(17, &[0]).node("Relu", "x", "y", &[]), "expected values"));
    for (graph, expected) in cases {
        let text = graph.refusal();
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // a signal without axes of values and a constant
    let flat = floats(Graph::new(17, &[1]), "c", &[3]).integers("all", &[-1]);
    let flat = flat.node("Reshape", "x all", "v", &[]).node("Mul", "v c", "y", &[]);
    assert!(flat.refusal().contains("does not belong to the channels"));
}

#[test]
fn a_fixed_number_of_images_may_be_named() {
    let graph = after_matrix(17, &[3]).integers("shape", &[1, 3]);
    graph.node("Reshape", "h shape", "y", &[]).import().unwrap();
}
