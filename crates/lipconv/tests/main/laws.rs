//! Laws: engine = graph, parametrised = materialised, gradients = finite differences, dense operators are
//! isometries, gradient norms survive depth.

use candle_core::{DType, Device, Tensor, Var};
use lipconv::{
    Activation, ConvMethod, ImageShape, LayerSpec, LinearMethod, Methods, Network, NetworkSpec,
    PlainLayer, PlainNetwork, SignalShape, ops,
};

use crate::support::{check_close, eps, sum_tolerance, uniform, values};

/// One row of the case table: input, then (c_out, kernel_size, stride).
struct Case {
    input: [usize; 3],
    convs: &'static [(usize, usize, usize)],
    linears: &'static [usize],
    activation: LayerSpec,
}

/// c_in <, =, > c_out, odd and even kernels, strides, non-square and prime images, one-pixel kernels.
const CASES: &[Case] = &[
    Case {
        input: [1, 4, 4],
        convs: &[(2, 2, 1)],
        linears: &[3],
        activation: LayerSpec::Activation(Activation::MaxMin),
    },
    Case {
        input: [3, 6, 4],
        convs: &[(8, 3, 1), (6, 4, 2)],
        linears: &[4, 2],
        activation: LayerSpec::Activation(Activation::MaxMin),
    },
    Case {
        input: [2, 7, 5],
        convs: &[(2, 5, 1), (4, 1, 1)],
        linears: &[6, 5],
        activation: LayerSpec::Activation(Activation::Relu),
    },
    Case {
        input: [3, 8, 12],
        convs: &[(6, 4, 4), (9, 2, 1)],
        linears: &[6, 3],
        activation: LayerSpec::Activation(Activation::GroupSort { group: 3 }),
    },
    Case {
        input: [32, 4, 4],
        convs: &[(26, 4, 2), (40, 2, 1)],
        linears: &[10],
        activation: LayerSpec::Activation(Activation::MaxMin),
    },
    Case {
        input: [4, 3, 3],
        convs: &[],
        linears: &[8, 6, 2],
        activation: LayerSpec::Activation(Activation::MaxMin),
    },
];

fn spec(case: &Case, methods: Methods) -> NetworkSpec {
    let [c, h, w] = case.input;
    let mut layers = Vec::new();
    for &(c_out, kernel_size, stride) in case.convs {
        layers.push(LayerSpec::Conv { c_out, kernel_size, stride, method: methods.conv });
        layers.push(case.activation);
    }
    layers.push(LayerSpec::Flatten);
    for (n, &out_features) in case.linears.iter().enumerate() {
        layers.push(LayerSpec::Linear { out_features, method: methods.linear });
        if n + 1 < case.linears.len() {
            layers.push(case.activation);
        }
    }
    NetworkSpec { input: ImageShape::new(c, h, w), layers }
}

fn all_networks(dtype: DType) -> impl Iterator<Item = (usize, Network, Tensor)> {
    let methods = [Methods::BCOP, Methods::UNCONSTRAINED];
    CASES.iter().enumerate().flat_map(move |(row, case)| {
        methods.map(|methods| {
            let network = Network::new(&spec(case, methods), dtype, &Device::Cpu, 3).unwrap();
            let [c, h, w] = case.input;
            (row, network, uniform(&[5, c, h, w], 0.0, 1.0, dtype, 11))
        })
    })
}

/// Largest number of products summed for one value, over all layers of the table.
const WIDEST: usize = 512;

#[test]
fn materialized_equals_parametrized() {
    for dtype in [DType::F32, DType::F64] {
        for (row, network, x) in all_networks(dtype) {
            let plain = network.materialize().unwrap();
            let tolerance = sum_tolerance(dtype, WIDEST, 4.0);
            let (a, b) = (network.forward(&x).unwrap(), plain.forward(&x).unwrap());
            check_close(&format!("row {row} {dtype:?}"), &a, &b, tolerance);
            let graph = plain.layers().iter().fold(x, |x, layer| ops::apply(layer, &x).unwrap());
            check_close(&format!("row {row} {dtype:?}: graph"), &graph, &b, tolerance);
        }
    }
}

/// The gradients of `Σ d · logits`: of the images by the engine, by candle's graph, and by differences.
#[test]
fn input_gradients_agree() {
    for (row, network, x) in all_networks(DType::F64) {
        let plain = network.materialize().unwrap();
        let recording = plain.record(&x).unwrap();
        let d = uniform(recording.logits().dims(), -1.0, 1.0, DType::F64, 5);
        let by_engine = recording.input_gradient(&d).unwrap();
        let variable = Var::from_tensor(&x).unwrap();
        let objective = |x: &Tensor| (plain.forward(x).unwrap() * &d).unwrap().sum_all().unwrap();
        let gradients = objective(variable.as_tensor()).backward().unwrap();
        let by_graph = gradients.get(variable.as_tensor()).unwrap();
        let tolerance = sum_tolerance(DType::F64, WIDEST, 4.0);
        check_close(&format!("row {row}"), &by_engine, by_graph, tolerance);
        let direction = uniform(x.dims(), -1.0, 1.0, DType::F64, 7);
        check_difference(row, &objective, &x, &direction, &by_engine);
    }
}

/// Central difference along `direction` against the gradient.
fn check_difference(
    row: usize,
    objective: &dyn Fn(&Tensor) -> Tensor,
    x: &Tensor,
    direction: &Tensor,
    gradient: &Tensor,
) {
    let step = 1e-6;
    let at = |t: f64| values(&objective(&(x + (direction * t).unwrap()).unwrap()))[0];
    let difference = (at(step) - at(-step)) / (2.0 * step);
    let pairs = values(direction).into_iter().zip(values(gradient));
    let derivative: f64 = pairs.map(|(d, g)| d * g).sum();
    let allowed = 1e-6 * derivative.abs().max(1.0);
    assert!((difference - derivative).abs() <= allowed, "row {row}: {difference} and {derivative}");
}

#[test]
fn parameter_gradients_of_the_graph_match_differences() {
    for (row, network, x) in all_networks(DType::F64) {
        let logits = network.forward(&x).unwrap();
        let d = uniform(logits.dims(), -1.0, 1.0, DType::F64, 5);
        let gradients = (logits * &d).unwrap().sum_all().unwrap().backward().unwrap();
        for (name, variable) in network.variables() {
            let start = variable.as_tensor().copy().unwrap();
            let direction = uniform(variable.dims(), -1.0, 1.0, DType::F64, 9);
            let objective = |value: &Tensor| {
                variable.set(value).unwrap();
                (network.forward(&x).unwrap() * &d).unwrap().sum_all().unwrap()
            };
            let gradient = gradients.get(variable.as_tensor()).unwrap_or_else(|| panic!("{name}"));
            check_difference(row, &objective, &start, &direction, gradient);
            variable.set(&start).unwrap();
        }
    }
}

/// Every linear layer of a BCOP network as a dense matrix: pushes the unit images through.
pub(crate) fn dense_operator(layer: &PlainLayer, input: [usize; 3]) -> ndarray::Array2<f64> {
    let n = input.iter().product::<usize>();
    let identity = Tensor::eye(n, DType::F64, &Device::Cpu).unwrap();
    let [c, h, w] = input;
    let images = match layer {
        PlainLayer::Dense(_) => identity,
        _ => identity.reshape((n, c, h, w)).unwrap(),
    };
    let bias_free = match layer {
        PlainLayer::CyclicConv(conv) => {
            ops::cyclic_conv(&images, conv.weight(), None, conv.downsample()).unwrap()
        }
        PlainLayer::Dense(dense) => ops::dense(&images, dense.weight(), None).unwrap(),
        other => ops::apply(other, &images).unwrap(),
    };
    let columns = bias_free.elem_count() / n;
    ndarray::Array2::from_shape_vec((n, columns), values(&bias_free)).unwrap()
}

/// Largest deviation of M Mᵀ or Mᵀ M, whichever is smaller, from the identity.
fn isometry_defect(m: &ndarray::Array2<f64>) -> f64 {
    let gram = if m.nrows() < m.ncols() { m.dot(&m.t()) } else { m.t().dot(m) };
    (gram - ndarray::Array2::<f64>::eye(m.nrows().min(m.ncols())))
        .iter()
        .map(|v| v * v)
        .sum::<f64>()
        .sqrt()
}

#[test]
pub(crate) fn dense_operators_of_bcop_layers_are_isometries_within_their_bounds() {
    for case in CASES {
        let network =
            Network::new(&spec(case, Methods::BCOP), DType::F64, &Device::Cpu, 1).unwrap();
        let plain = network.materialize().unwrap();
        let mut shape = case.input;
        for (layer, name) in plain.layers().iter().zip(plain.names()) {
            let operator = dense_operator(layer, shape);
            if layer.parameters().is_some() {
                let defect = isometry_defect(&operator);
                let allowed = 64.0 * eps(DType::F64) * operator.len() as f64;
                assert!(defect <= allowed, "{name} of {:?}: {defect:e} > {allowed:e}", case.input);
                let bound = layer.lipschitz_bound(name).unwrap().value();
                assert!(bound >= 1.0 - defect && bound <= 1.0 + 1e-9, "{name}: bound {bound}");
            }
            shape = match layer {
                PlainLayer::CyclicConv(conv) => {
                    let s = conv.downsample();
                    [conv.weight().dims()[0], shape[1] / s, shape[2] / s]
                }
                PlainLayer::Dense(dense) => [dense.weight().dims()[0], 1, 1],
                PlainLayer::Flatten => [shape.iter().product(), 1, 1],
                _ => shape,
            };
        }
    }
}

/// Gradient norms through 20 orthogonal convolutions and MaxMin do not change.
#[test]
fn gradient_norm_is_preserved_through_twenty_layers() {
    for (dtype, allowed) in [(DType::F32, 1e-4), (DType::F64, 1e-12)] {
        let conv =
            LayerSpec::Conv { c_out: 12, kernel_size: 3, stride: 1, method: ConvMethod::Bcop };
        let mut layers: Vec<_> =
            (0..20).flat_map(|_| [conv, LayerSpec::Activation(Activation::MaxMin)]).collect();
        layers.push(LayerSpec::Flatten);
        layers.push(LayerSpec::Linear { out_features: 12 * 35, method: LinearMethod::Bjorck });
        let spec = NetworkSpec { input: ImageShape::new(12, 5, 7), layers };
        let plain: PlainNetwork =
            Network::new(&spec, dtype, &Device::Cpu, 2).unwrap().materialize().unwrap();
        let recording = plain.record(&uniform(&[4, 12, 5, 7], 0.0, 1.0, dtype, 4)).unwrap();
        let d = uniform(recording.logits().dims(), -1.0, 1.0, dtype, 5);
        let gradient = recording.input_gradient(&d).unwrap();
        let norm = |t: &Tensor| values(t).iter().map(|v| v * v).sum::<f64>().sqrt();
        let ratio = norm(&gradient) / norm(&d);
        assert!((ratio - 1.0).abs() <= allowed, "{dtype:?}: ratio {ratio}");
    }
}

#[test]
fn convolution_commutes_with_cyclic_shifts() {
    let x = uniform(&[2, 3, 6, 5], -1.0, 1.0, DType::F64, 1);
    let weight = uniform(&[4, 3, 3, 3], -1.0, 1.0, DType::F64, 2);
    let shift = |t: &Tensor| t.roll(2, 2).unwrap().roll(1, 3).unwrap().contiguous().unwrap();
    let a = shift(&ops::cyclic_conv(&x, &weight, None, 1).unwrap());
    let b = ops::cyclic_conv(&shift(&x), &weight, None, 1).unwrap();
    check_close("shift", &a, &b, sum_tolerance(DType::F64, 27, 4.0));
}

/// <W x, y> = <x, Wᵗ y>, by the engine and by candle's operations, and the gradients are those of the other side.
#[test]
fn adjoint_convolutions_are_adjoint() {
    for dtype in [DType::F64, DType::F32] {
        for (c_in, c_out, kernel) in [(3, 5, 1), (4, 4, 2), (5, 2, 3), (1, 7, 4)] {
            let x = Var::from_tensor(&uniform(&[2, c_in, 5, 7], -1.0, 1.0, dtype, 1)).unwrap();
            let y = Var::from_tensor(&uniform(&[2, c_out, 5, 7], -1.0, 1.0, dtype, 2)).unwrap();
            let shape = [c_out, c_in, kernel, kernel];
            let weight = Var::from_tensor(&uniform(&shape, -1.0, 1.0, dtype, 3)).unwrap();
            let along = ops::cyclic_conv(&x, &weight, None, 1).unwrap();
            let along = (along * y.as_tensor()).unwrap().sum_all().unwrap();
            let back = ops::cyclic_conv_adjoint(&y, &weight).unwrap();
            let back = (back * x.as_tensor()).unwrap().sum_all().unwrap();
            let terms = 70 * c_in * c_out * kernel * kernel;
            let tolerance = sum_tolerance(dtype, terms, 70.0);
            check_close("<W x, y>", &along, &back, tolerance);
            let (along, back) = (along.backward().unwrap(), back.backward().unwrap());
            for var in [&x, &y, &weight] {
                check_close("gradient", along.get(var).unwrap(), back.get(var).unwrap(), tolerance);
            }
        }
    }
    let (y, weight) = (uniform(&[1, 3, 4, 4], 0.0, 1.0, DType::F64, 1), [2, 3, 3, 3]);
    let weight = uniform(&weight, 0.0, 1.0, DType::F64, 2);
    assert!(ops::cyclic_conv_adjoint(&y, &weight).is_err(), "3 channels for a weight of 2");
}

/// Activations keep distances at most, and MaxMin and GroupSort the norms of gradients too.
#[test]
fn activations_are_one_lipschitz_and_sorting_keeps_gradient_norms() {
    for (layer, sorts) in [
        (PlainLayer::Activation(Activation::MaxMin), true),
        (PlainLayer::Activation(Activation::GroupSort { group: 3 }), true),
        (PlainLayer::Activation(Activation::Relu), false),
    ] {
        for dtype in [DType::F64, DType::F32] {
            let shape = [4, 6, 3, 5];
            let x = Var::from_tensor(&uniform(&shape, -1.0, 1.0, dtype, 1)).unwrap();
            let y = ops::apply(&layer, x.as_tensor()).unwrap();
            let other = uniform(&shape, -1.0, 1.0, dtype, 2);
            let d = uniform(&shape, -1.0, 1.0, dtype, 3);
            let norm = |t: &Tensor| values(t).iter().map(|v| v * v).sum::<f64>().sqrt();
            let difference = |a: &Tensor, b: &Tensor| norm(&(a - b).unwrap());
            let moved = difference(&y, &ops::apply(&layer, &other).unwrap());
            assert!(moved <= difference(x.as_tensor(), &other), "{layer:?}");
            let gradients = (y * &d).unwrap().sum_all().unwrap().backward().unwrap();
            let ratio = norm(gradients.get(x.as_tensor()).unwrap()) / norm(&d);
            assert!(
                if sorts { (ratio - 1.0).abs() < 1e-14 } else { ratio < 1.0 },
                "{layer:?}: {ratio}"
            );
            let bound = layer.lipschitz_bound_on(SignalShape::Vector(6), "layer").unwrap();
            assert_eq!(bound.rigorous(), Some(1.0));
        }
    }
}
