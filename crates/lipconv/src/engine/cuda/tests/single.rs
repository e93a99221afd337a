//! Weights of single layers and their pullbacks against the CPU's.

use candle_core::Var;

use super::super::Graph;
use super::super::single::single;
use super::*;
use crate::methods::{Method, Sizes};
use crate::ops;

/// Weight and gradient on the emulated device, the gradient twice, the weight once more, where nothing is left of the calls before, and
/// the gradient from what that weight has left.
fn on_device(method: Method, sizes: &Sizes, parameter: &[f32], cotangent: &[f32]) -> [Vec<f32>; 2] {
    let plan = single(method, sizes).expect("a method of the engine");
    let mut engine = Engine::of_layer(plan, place()).expect("an engine");
    let (n_weight, n_parameter) = (engine.n_weight(), engine.n_parameter());
    use Graph::{Pullback, Weight, WeightGradient};
    let mut runs = [Weight, WeightGradient, WeightGradient, Weight, Pullback].map(|wanted| {
        let mut start = parameter.to_vec();
        start.resize(engine.memory.n_parameters, 0.0);
        engine.set_parameters(&start).expect("written");
        let given = bytes_of(cotangent);
        engine.device.write(engine.memory.weight, &given).expect("written");
        engine.make(wanted).expect("a weight");
        let (from, n) = match wanted {
            Weight => (engine.memory.weight, n_weight),
            _ => (engine.memory.gradients, n_parameter),
        };
        engine.read(from, n).expect("read")
    });
    assert_eq!(runs[0], runs[3], "{method:?}");
    assert_eq!(runs[1], runs[2], "{method:?}");
    assert_eq!(runs[1], runs[4], "{method:?}");
    [std::mem::take(&mut runs[0]), std::mem::take(&mut runs[1])]
}

/// The same by candle on the CPU, in f64.
fn on_cpu(method: Method, sizes: &Sizes, parameter: &[f32], cotangent: &[f32]) -> [Vec<f32>; 2] {
    let tensor = |values: &[f32], shape: &[usize]| {
        let values: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
    };
    let parameter = tensor(parameter, &method.parameter_shape(sizes));
    let parameter = Var::from_tensor(&parameter).expect("a variable");
    let weight = ops::weight(method, sizes, &parameter, None).expect("a weight").weight;
    let cotangent = tensor(cotangent, weight.dims());
    let product = (&weight * cotangent).and_then(|x| x.sum_all()).expect("a product");
    let gradients = product.backward().expect("a gradient");
    let gradient = gradients.get(parameter.as_tensor()).expect("of the parameter");
    let narrow = |x: &Tensor| {
        let x = x.to_dtype(DType::F32).and_then(|x| x.flatten_all());
        x.and_then(|x| x.to_vec1::<f32>()).expect("values")
    };
    [narrow(&weight), narrow(gradient)]
}

#[test]
fn weights_of_single_layers_are_the_cpus() {
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let conv = |o, i, k| Sizes::conv(o, i, k, (9, 8));
    let convolutions = [(4, 6, 3), (6, 4, 2), (5, 5, 1), (7, 3, 3), (2, 9, 4)];
    let dense = [(5, 9), (9, 5), (6, 6), (1, 4), (4, 1)];
    let mut cases: Vec<(Method, Sizes)> = Vec::new();
    for method in [ConvMethod::Bcop, ConvMethod::Rko, ConvMethod::RkL2ne] {
        cases.extend(convolutions.iter().map(|&(o, i, k)| (method.into(), conv(o, i, k))));
    }
    for method in [LinearMethod::Bjorck, LinearMethod::Lln] {
        cases.extend(dense.iter().map(|&(o, i)| (method.into(), Sizes::dense(o, i))));
    }
    for (method, sizes) in cases {
        let n: usize = method.parameter_shape(&sizes).iter().product();
        let n_weight: usize = sizes.weight_shape().iter().product();
        let mut values =
            |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0_f32..1.0)).collect() };
        let (parameter, cotangent) = (values(n), values(n_weight));
        let got = on_device(method, &sizes, &parameter, &cotangent);
        let expected = on_cpu(method, &sizes, &parameter, &cotangent);
        for (what, (got, expected)) in ["weight", "gradient"].iter().zip(got.iter().zip(&expected))
        {
            // random square matrices have condition numbers of some hundreds
            let allowed = 300.0 * rounding(n.max(n_weight));
            let apart = distance(got, expected);
            assert!(apart <= allowed, "{what} of {method:?} {sizes:?}: {apart:e} > {allowed:e}");
        }
    }
}

#[test]
fn single_layers_that_the_engine_does_not_make_are_left_to_candle() {
    let conv = Sizes::conv(4, 4, 3, (8, 8));
    for method in [ConvMethod::Ossn, ConvMethod::Svcm, ConvMethod::Aol, ConvMethod::Unconstrained] {
        assert!(single(method.into(), &conv).is_none(), "{method}");
    }
    let dense = Sizes::dense(4, 4);
    assert!(single(LinearMethod::Unconstrained.into(), &dense).is_none());
    assert!(single(LinearMethod::Bro.into(), &dense).is_none());
    assert!(single(ConvMethod::Bcop.into(), &Sizes::conv(1, 1, 3, (8, 8))).is_none());
}

#[test]
fn a_parameter_without_a_weight_is_named() {
    let sizes = Sizes::dense(4, 6);
    let plan = single(LinearMethod::Bjorck.into(), &sizes).expect("a method of the engine");
    let mut engine = Engine::of_layer(plan, place()).expect("an engine");
    engine.set_parameters(&[f32::NAN; 28]).expect("written");
    engine.make(Graph::Weight).expect_err("no weight");
    engine.set_parameters(&[0.0; 28]).expect("written");
    let error = engine.make(Graph::Weight).expect_err("rank 0");
    assert!(matches!(error, Error::Orthonormalisation { .. }), "{error}");
    // the next one is made as if nothing had been
    let mut identity = [0.0; 28];
    (0..4).for_each(|i| identity[7 * i] = 2.0);
    engine.set_parameters(&identity).expect("written");
    engine.make(Graph::Weight).expect("a weight");
}
