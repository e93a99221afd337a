//! The modules: starts, training by candle's optimizers, files, plain forms, and what is refused.

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW, SGD};
use candle_nn::{VarBuilder, VarMap};
use lipconv::nn::{self, Materialize};
use lipconv::{
    Activation, ConvMethod, Error, ImageShape, LinearMethod, PlainLayer, Result, SignalShape,
};

use crate::support::{check_close, distance, eps, sum_tolerance, uniform, values};

const CPU: Device = Device::Cpu;

/// A module with an input that it takes.
struct Row {
    name: String,
    module: Box<dyn Materialize>,
    input: SignalShape,
    has_plain_form: bool,
}

/// Methods of convolutions that modules take.
fn conv_methods() -> impl Iterator<Item = ConvMethod> {
    let kept = [ConvMethod::Ossn, ConvMethod::Svcm];
    ConvMethod::ALL.iter().copied().filter(move |method| !kept.contains(method))
}

/// c_in, c_out, kernel size, stride, height and width.
const CONVS: [(usize, usize, usize, usize, usize, usize); 4] =
    [(2, 5, 3, 1, 5, 4), (3, 3, 2, 1, 3, 5), (5, 2, 4, 2, 6, 8), (1, 9, 6, 3, 9, 6)];

/// Every module but the unconstrained ones.
fn rows(vb: &VarBuilder<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let image = |c, h, w| SignalShape::Image(ImageShape::new(c, h, w));
    let mut push = |name: String, module: Box<dyn Materialize>, input, has_plain_form| {
        rows.push(Row { name, module, input, has_plain_form });
    };
    for method in conv_methods().filter(|&m| m != ConvMethod::Unconstrained) {
        for (n, (c_in, c_out, kernel, stride, h, w)) in CONVS.into_iter().enumerate() {
            let config = nn::Conv2dConfig { method, stride, ..Default::default() };
            let name = format!("{method}{n}");
            let module = nn::conv2d(c_in, c_out, kernel, config, vb.pp(&name))?;
            push(name, Box::new(module), image(c_in, h, w), true);
        }
    }
    for method in [LinearMethod::Bjorck, LinearMethod::Bro] {
        for (n_in, n_out) in [(3, 7), (6, 6), (7, 2)] {
            let config = nn::LinearConfig { method, ..Default::default() };
            let name = format!("{method}{n_in}");
            let module = nn::linear(n_in, n_out, config, vb.pp(&name))?;
            push(name, Box::new(module), SignalShape::Vector(n_in), true);
        }
    }
    let inputs = [image(6, 4, 4), image(2, 4, 6), SignalShape::Vector(8)];
    for (n, input) in inputs.into_iter().enumerate() {
        let householder =
            nn::householder(input.n_channels(), Default::default(), vb.pp(format!("hh{n}")))?;
        push("householder".into(), Box::new(householder), input, true);
        push("abs".into(), Box::new(nn::Abs), input, true);
        push("maxmin".into(), Box::new(Activation::MaxMin), input, true);
        push("groupsort".into(), Box::new(Activation::GroupSort { group: 2 }), input, true);
        push("centring".into(), Box::new(nn::Centring), input, n != 1);
        push("identity".into(), Box::new(nn::Identity), input, true);
        push("flatten".into(), Box::new(nn::Flatten), input, true);
        push("sum".into(), Box::new(residual(vb.pp(format!("sum{n}")), input)?), input, false);
        push("concat".into(), Box::new(concatenation()?), input, false);
        if n < 2 {
            push("downsample".into(), Box::new(nn::Downsample { factor: 2 }), input, true);
            push("average".into(), Box::new(nn::AveragePool { size: 2 }), input, true);
            push("norm".into(), Box::new(nn::NormPool { size: 2 }), input, false);
        }
    }
    push("upsample".into(), Box::new(nn::Upsample { factor: 2 }), image(8, 3, 2), false);
    Ok(rows)
}

/// ½ x + ½ σ(W x).
fn residual(vb: VarBuilder<'_>, input: SignalShape) -> Result<nn::Branches> {
    let n = input.n_channels();
    let branch = match input {
        SignalShape::Image(_) => nn::seq().add(nn::conv2d(n, n, 3, Default::default(), vb)?),
        SignalShape::Vector(_) => nn::seq().add(nn::linear(n, n, Default::default(), vb)?),
    };
    let sum = nn::Branches::new(nn::Combination::Sum).add(0.5, nn::Identity)?;
    sum.add(-0.5, branch.add(Activation::MaxMin))
}

fn concatenation() -> Result<nn::Branches> {
    let concat = nn::Branches::new(nn::Combination::Concat).add(0.6, nn::Identity)?;
    concat.add(0.8, nn::Abs)
}

fn batch(input: SignalShape, n: usize, dtype: DType, seed: u64) -> Tensor {
    let shape = match input {
        SignalShape::Image(image) => vec![n, image.channels, image.height, image.width],
        SignalShape::Vector(features) => vec![n, features],
    };
    uniform(&shape, -1.0, 1.0, dtype, seed)
}

fn norm(x: &Tensor) -> f64 {
    values(x).iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Variables and rows in an element type, moved away from their start by some random steps.
fn trained(dtype: DType) -> (VarMap, Vec<Row>) {
    let variables = VarMap::new();
    let rows = rows(&VarBuilder::from_varmap(&variables, dtype, &CPU)).unwrap();
    let named = variables.data().lock().unwrap();
    let mut named = named.iter().collect::<Vec<_>>();
    named.sort_by_key(|(name, _)| name.as_str());
    for (seed, (_, var)) in named.into_iter().enumerate() {
        let step = uniform(var.dims(), -0.2, 0.2, dtype, seed as u64);
        var.set(&(var.as_tensor() + step).unwrap()).unwrap();
    }
    (variables.clone(), rows)
}

#[test]
fn modules_are_one_lipschitz() {
    for dtype in [DType::F64, DType::F32] {
        for row in trained(dtype).1 {
            let (x, y) = (batch(row.input, 1, dtype, 1), batch(row.input, 1, dtype, 2));
            let moved =
                norm(&(row.module.forward(&x).unwrap() - row.module.forward(&y).unwrap()).unwrap());
            let allowed = norm(&(x - y).unwrap()) * (1.0 + sum_tolerance(dtype, 64, 1.0));
            assert!(moved <= allowed, "{} {dtype:?}: {moved} > {allowed}", row.name);
        }
    }
}

#[test]
fn plain_forms_are_the_same_functions_with_bounds_of_one() {
    for dtype in [DType::F64, DType::F32] {
        for row in trained(dtype).1.iter().filter(|row| row.has_plain_form) {
            let plain = row.module.materialize(row.input, dtype).unwrap();
            let x = batch(row.input, 3, dtype, 4);
            let (mut y, mut shape, mut bound) = (x.clone(), row.input, 1.0);
            for layer in &plain {
                let of_layer = layer.lipschitz_bound_on(shape, "layer").unwrap();
                bound *= of_layer.rigorous().unwrap();
                shape = layer.output_shape(shape, "layer").unwrap();
                y = layer.forward(&y).unwrap();
            }
            let tolerance = sum_tolerance(dtype, 256, 2.0);
            check_close(&row.name, &row.module.forward(&x).unwrap(), &y, tolerance);
            // what the bounds add for their own rounding is below 1e-9; that of one image size is within 3e-5
            let slack = if row.name == "centring" { 3e-5 } else { 1e-9 };
            let most = 1.0 + slack + 64.0 * eps(dtype) * row.input.n_values() as f64;
            assert!(bound <= most, "{} {dtype:?}: {bound} > {most}", row.name);
        }
    }
}

#[test]
fn what_has_no_plain_form_is_refused_by_name() {
    let (_, rows) = trained(DType::F32);
    let mut refused = Vec::new();
    for row in rows.iter().filter(|row| !row.has_plain_form) {
        let error = row.module.materialize(row.input, DType::F32).unwrap_err();
        assert!(matches!(error, Error::NoPlainForm { .. }), "{}: {error}", row.name);
        refused.push(error.to_string());
    }
    refused.sort();
    refused.dedup();
    let expected = [
        "branches has no plain form: plain networks have no parallel branches",
        "centring has no plain form: the image is 4 x 6, expected a square one",
        "norm pooling has no plain form: plain networks have no norms of windows",
        "upsample has no plain form: plain networks have no upsampling",
    ];
    assert_eq!(refused, expected);
}

/// The gradients of `Σ d · module(x)` in every parameter and in the input, against central differences.
#[test]
fn gradients_of_modules_agree_with_differences() {
    let (variables, rows) = trained(DType::F64);
    for row in rows {
        let x = Var::from_tensor(&batch(row.input, 2, DType::F64, 7)).unwrap();
        let y = row.module.forward(x.as_tensor()).unwrap();
        let d = uniform(y.dims(), -1.0, 1.0, DType::F64, 8);
        let value = || -> f64 {
            let y = row.module.forward(x.as_tensor()).unwrap();
            values(&(y * &d).unwrap().sum_all().unwrap())[0]
        };
        let gradients = (y * &d).unwrap().sum_all().unwrap().backward().unwrap();
        for var in variables.all_vars().into_iter().chain([x.clone()]) {
            let Some(gradient) = gradients.get(&var) else { continue };
            let direction = uniform(var.dims(), -1.0, 1.0, DType::F64, 9);
            let start = var.as_tensor().copy().unwrap();
            let at = |t: f64| {
                var.set(&(&start + (&direction * t).unwrap()).unwrap()).unwrap();
                value()
            };
            let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
            var.set(&start).unwrap();
            let slopes = values(&direction).into_iter().zip(values(gradient));
            let derivative = slopes.map(|(a, b)| a * b).sum::<f64>();
            let allowed = 1e-6 * derivative.abs().max(1.0);
            assert!(
                (difference - derivative).abs() <= allowed,
                "{}: {difference} and {derivative}",
                row.name
            );
        }
    }
}

/// Two convolutions, one dense layer of candle's, one of ours.
fn classifier(vb: &VarBuilder<'_>) -> Result<nn::Sequential> {
    let config = nn::Conv2dConfig { stride: 2, ..Default::default() };
    let fixed = nn::Conv2dConfig { method: ConvMethod::BcopFixed, ..Default::default() };
    Ok(nn::seq()
        .add(nn::conv2d(1, 8, 4, config, vb.pp("conv1"))?)
        .add(Activation::MaxMin)
        .add(nn::conv2d(8, 8, 3, fixed, vb.pp("conv2"))?)
        .add(nn::Flatten)
        .add(candle_nn::linear(8 * 3 * 4, 6, vb.pp("linear1"))?)
        .add(candle_nn::Activation::Relu)
        .add(nn::linear(6, 3, Default::default(), vb.pp("linear2"))?))
}

fn loss(network: &nn::Sequential, x: &Tensor, labels: &Tensor) -> Tensor {
    candle_nn::loss::cross_entropy(&network.forward(x).unwrap(), labels).unwrap()
}

#[test]
fn candles_optimizers_train_what_may_be_trained() {
    for adam in [true, false] {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
        let network = classifier(&vb).unwrap();
        let x = uniform(&[12, 1, 6, 8], 0.0, 1.0, DType::F32, 1);
        let labels =
            Tensor::from_vec((0..12).map(|n| n % 3).collect::<Vec<u32>>(), 12, &CPU).unwrap();
        let before = loss(&network, &x, &labels).to_scalar::<f32>().unwrap();
        let value = |name: &str| variables.data().lock().unwrap()[name].as_tensor().copy().unwrap();
        let (fixed, free) = (value("conv2.weight"), value("conv1.weight"));
        let params = ParamsAdamW { lr: 1e-2, ..Default::default() };
        let mut adam_w = AdamW::new(variables.all_vars(), params).unwrap();
        let mut sgd = SGD::new(variables.all_vars(), 0.1).unwrap();
        for _ in 0..40 {
            let loss = loss(&network, &x, &labels);
            if adam { adam_w.backward_step(&loss) } else { sgd.backward_step(&loss) }.unwrap();
        }
        let after = loss(&network, &x, &labels).to_scalar::<f32>().unwrap();
        assert!(after < 0.97 * before, "{before} to {after}");
        assert_eq!(distance(&fixed, &value("conv2.weight")), 0.0);
        assert!(distance(&free, &value("conv1.weight")) > 1e-3);
        let plain = network.network(ImageShape::new(1, 6, 8), DType::F32).unwrap();
        let tolerance = sum_tolerance(DType::F32, 256, 4.0);
        check_close("plain", &plain.forward(&x).unwrap(), &network.forward(&x).unwrap(), tolerance);
        assert!(plain.lipschitz_bound().unwrap().is_rigorous());
    }
}

#[test]
fn files_hold_the_network_and_names_are_its_contract() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("network.safetensors");
    let variables = VarMap::new();
    let network = classifier(&VarBuilder::from_varmap(&variables, DType::F32, &CPU)).unwrap();
    let mut names = variables.data().lock().unwrap().keys().cloned().collect::<Vec<_>>();
    names.sort();
    let expected = ["conv1", "conv2", "linear1", "linear2"];
    let expected =
        expected.iter().flat_map(|layer| ["bias", "weight"].map(|p| format!("{layer}.{p}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
    for var in variables.all_vars() {
        let step = uniform(var.dims(), -0.1, 0.1, DType::F32, 3);
        var.set(&(var.as_tensor() + step).unwrap()).unwrap();
    }
    variables.save(&path).unwrap();
    let x = uniform(&[2, 1, 6, 8], 0.0, 1.0, DType::F32, 1);
    let y = network.forward(&x).unwrap();
    // into a map of variables, and straight from the file
    let mut others = VarMap::new();
    let loaded = classifier(&VarBuilder::from_varmap(&others, DType::F32, &CPU)).unwrap();
    assert!(distance(&loaded.forward(&x).unwrap(), &y) > 0.0);
    others.load(&path).unwrap();
    assert_eq!(distance(&loaded.forward(&x).unwrap(), &y), 0.0);
    let tensors = candle_core::safetensors::load(&path, &CPU).unwrap();
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &CPU);
    assert_eq!(distance(&classifier(&vb).unwrap().forward(&x).unwrap(), &y), 0.0);
}

#[test]
fn starts_depend_on_seed_and_name_alone() {
    let start = |seed: u64, name: &str| {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
        // what is made before does not matter
        nn::linear(2, 2, Default::default(), vb.pp("other")).unwrap();
        let config = nn::Conv2dConfig { seed, ..Default::default() };
        nn::conv2d(3, 3, 2, config, vb.pp(name)).unwrap().weight().unwrap()
    };
    assert_eq!(distance(&start(1, "a"), &start(1, "a")), 0.0);
    assert!(distance(&start(1, "a"), &start(2, "a")) > 0.1);
    assert!(distance(&start(1, "a"), &start(1, "b")) > 0.1);
    // a second layer of the same name shares its parameter
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
    let layers = [0, 1].map(|seed| {
        let config = nn::Conv2dConfig { seed, ..Default::default() };
        nn::conv2d(3, 3, 2, config, vb.pp("shared")).unwrap()
    });
    let [a, b] = layers.map(|layer| layer.weight().unwrap());
    assert_eq!(distance(&a, &b), 0.0);
}

#[test]
fn modules_refuse_what_they_cannot_be() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let says =
        |result: Result<String>, text: &str| assert_eq!(result.unwrap_err().to_string(), text);
    let conv = |c_out, kernel, stride, method, vb: VarBuilder<'_>| {
        let config = nn::Conv2dConfig { stride, method, ..Default::default() };
        nn::conv2d(2, c_out, kernel, config, vb).map(|layer| format!("{layer:?}"))
    };
    let bcop = ConvMethod::Bcop;
    says(conv(0, 3, 1, bcop, vb.pp("conv1")), "conv1: c_out is 0, expected at least 1");
    says(conv(2, 3, 2, bcop, vb.clone()), "conv2d: kernel size 3 is not divisible by the stride 2");
    says(
        conv(2, 3, 1, ConvMethod::Ossn, vb.pp("conv1")),
        "method is ossn, expected a method that keeps nothing between steps beside its parameter; train ossn and svcm \
         with Network and Trainer",
    );
    says(
        conv(2, 3, 1, bcop, VarBuilder::from_varmap(&variables, DType::BF16, &CPU)),
        "dtype is bf16, expected f32 or f64",
    );
    let householder = nn::householder(3, Default::default(), vb.pp("hh"));
    says(householder.map(|h| format!("{h:?}")), "hh: 3 channels do not divide into groups of 2");
    let sum = nn::Branches::new(nn::Combination::Sum).add(0.5, nn::Identity).unwrap();
    says(
        sum.add(-0.75, nn::Abs).map(|b| format!("{b:?}")),
        "weights of branches is 0.5, -0.75, expected absolute values of sum at most 1",
    );
    let network = nn::seq().add(nn::Flatten).add(candle_nn::func(|x| Ok(x.clone())));
    says(
        network.network(ImageShape::new(1, 2, 2), DType::F32).map(|n| format!("{n:?}")),
        "layer 2, candle's func has no plain form: nothing is known of a closure",
    );
    let conv = candle_nn::conv2d(1, 2, 3, Default::default(), vb.pp("foreign")).unwrap();
    let network = nn::seq().add(conv).network(ImageShape::new(1, 4, 4), DType::F32);
    says(
        network.map(|n| format!("{n:?}")),
        "layer 1, candle's conv2d has no plain form: its padding is zeros or none, and plain networks pad cyclically",
    );
    let gelu =
        nn::seq().add(candle_nn::Activation::Gelu).network(ImageShape::new(1, 4, 4), DType::F32);
    says(
        gelu.map(|n| format!("{n:?}")),
        "layer 1, candle's activation has no plain form: it is Gelu, expected Relu",
    );
}

#[test]
fn plain_layers_are_modules_and_pooling_has_its_values() {
    let x =
        Tensor::from_vec((0..8).map(f64::from).collect::<Vec<_>>(), (1, 2, 2, 2), &CPU).unwrap();
    let pooled = |module: &dyn Module| values(&module.forward(&x).unwrap());
    assert_eq!(pooled(&nn::AveragePool { size: 2 }), [3.0, 11.0]);
    assert_eq!(pooled(&nn::NormPool { size: 2 }), [14.0_f64.sqrt(), 126.0_f64.sqrt()]);
    assert_eq!(pooled(&nn::Centring), [-1.5, -0.5, 0.5, 1.5, -1.5, -0.5, 0.5, 1.5]);
    let down = nn::Downsample { factor: 2 }.forward(&x).unwrap();
    assert_eq!(distance(&nn::Upsample { factor: 2 }.forward(&down).unwrap(), &x), 0.0);
    assert_eq!(pooled(&PlainLayer::Flatten), values(&x));
    // the gradient of a norm at 0 is 0
    let zero = Var::zeros((1, 1, 2, 2), DType::F32, &CPU).unwrap();
    let y = nn::NormPool { size: 2 }.forward(zero.as_tensor()).unwrap().sum_all().unwrap();
    assert_eq!(values(y.backward().unwrap().get(&zero).unwrap()), [0.0; 4]);
}
