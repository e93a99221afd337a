//! The paper's networks: numbers of parameters, and the reference networks rebuilt from their specs.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Activation, ConvMethod, ImageShape, LayerSpec, LinearMethod, Methods, Network, NetworkSpec,
};

use crate::golden::{golden, reference};
use crate::support::{check_close, eps, golden_tolerance, sum_tolerance, uniform, values};

const MNIST: ImageShape = ImageShape::new(1, 28, 28);
const CIFAR10: ImageShape = ImageShape::new(3, 32, 32);
const STL10: ImageShape = ImageShape::new(3, 64, 64);

fn large(input: ImageShape, methods: Methods) -> NetworkSpec {
    NetworkSpec::large(input, 10, methods, 1.0).unwrap()
}

fn critic(input: ImageShape, methods: Methods) -> NetworkSpec {
    NetworkSpec::critic(input, methods, 1.0).unwrap()
}

/// The table in the documentation of the module `spec`.
#[test]
fn numbers_of_parameters_are_those_of_the_documentation() {
    type Build = fn(Methods) -> NetworkSpec;
    let rows: [(Build, usize, usize, usize); 8] = [
        (|m| NetworkSpec::small(MNIST, 10, m), 171_014, 166_406, 157_958),
        (|m| NetworkSpec::small(CIFAR10, 10, m), 219_014, 214_918, 205_958),
        (|m| large(MNIST, m), 2_145_482, 1_974_762, 1_874_122),
        (|m| large(CIFAR10, m), 2_637_002, 2_466_858, 2_365_642),
        (|m| NetworkSpec::fc3(MNIST, 10, m), 2_913_290, 2_913_290, 2_913_290),
        (|m| NetworkSpec::fc3(CIFAR10, 10, m), 5_256_202, 5_256_202, 5_256_202),
        (|m| critic(STL10, m), 4_150_209, 2_764_737, 9_153),
        (|m| critic(CIFAR10, m), 4_144_065, 2_758_593, 3_009),
    ];
    for (build, with_bcop, with_others, with_fixed) in rows {
        // drawing the kernels takes long and counts nothing: only their shapes matter
        let shapes = |conv| build(Methods { conv, linear: Methods::UNCONSTRAINED.linear });
        let network = |conv| Network::new(&shapes(conv), DType::F32, &Device::Cpu, 0).unwrap();
        assert_eq!(network(ConvMethod::Svcm).n_parameters(), with_others);
        let fixed = network(ConvMethod::BcopFixed);
        assert_eq!(fixed.n_parameters(), with_bcop);
        assert_eq!(fixed.n_trained_parameters(), with_fixed);
    }
}

/// Sets an unconstrained network of this spec to the reference weights and compares the logits.
#[track_caller]
fn check_spec(file: &str, spec: &NetworkSpec, widest: usize) {
    let tensors = candle_core::safetensors::load(golden(file), &Device::Cpu).unwrap();
    for dtype in [DType::F32, DType::F64] {
        let network = Network::new(spec, dtype, &Device::Cpu, 0).unwrap();
        for (name, variable) in network.variables() {
            variable.set(&reference(&tensors, &name).to_dtype(dtype).unwrap()).unwrap();
        }
        let x = tensors["input"].to_dtype(dtype).unwrap();
        let tolerance = golden_tolerance(dtype, widest);
        let logits = network.materialize().unwrap().forward(&x).unwrap();
        check_close(file, &logits, &tensors["output_f64"], tolerance);
    }
}

#[test]
fn specs_are_the_networks_of_the_reference() {
    let methods = Methods::UNCONSTRAINED;
    check_spec("net_small_mnist.safetensors", &NetworkSpec::small(MNIST, 10, methods), 1568);
    let large = NetworkSpec::large(CIFAR10, 10, methods, 0.25).unwrap();
    check_spec("net_large_quarter_cifar10.safetensors", &large, 1024);
    let critic = NetworkSpec::critic(STL10, methods, 0.125).unwrap();
    check_spec("net_critic_eighth.safetensors", &critic, 1024);
}

#[test]
fn the_critic_takes_any_nonlinearity_and_images_that_16_divides() {
    for input in [ImageShape::new(1, 32, 48), CIFAR10] {
        let spec = NetworkSpec::critic(input, Methods::BCOP, 0.0625).unwrap();
        for activation in [Activation::MaxMin, Activation::Relu, Activation::GroupSort { group: 4 }]
        {
            let spec = spec.clone().with_activation(activation);
            let activation = LayerSpec::Activation(activation);
            let n = spec.layers.iter().filter(|&&layer| layer == activation).count();
            assert_eq!((n, spec.layers.len()), (4, 10));
            let network = Network::new(&spec, DType::F32, &Device::Cpu, 0).unwrap();
            let plain = network.materialize().unwrap();
            assert_eq!(plain.n_classes(), 1);
            assert!(plain.lipschitz_bound().unwrap().value() < 1.0 + 1e-4);
        }
    }
    let spec = NetworkSpec::critic(ImageShape::new(3, 40, 32), Methods::BCOP, 0.0625).unwrap();
    let error = Network::new(&spec, DType::F32, &Device::Cpu, 0).unwrap_err().to_string();
    assert_eq!(error, "conv4: image height 5 is not divisible by the stride 2");
}

/// The text of a layer in files.
#[test]
fn layers_are_stored_by_their_type() {
    let conv = LayerSpec::Conv { c_out: 4, kernel_size: 3, stride: 1, method: ConvMethod::RkL2ne };
    let rows = [
        (conv, r#"{"type":"conv","c_out":4,"kernel_size":3,"stride":1,"method":"rk-l2ne"}"#),
        (LayerSpec::Activation(Activation::MaxMin), r#"{"type":"max-min"}"#),
        (
            LayerSpec::Activation(Activation::GroupSort { group: 3 }),
            r#"{"type":"group-sort","group":3}"#,
        ),
        (LayerSpec::Activation(Activation::Relu), r#"{"type":"relu"}"#),
        (LayerSpec::Flatten, r#"{"type":"flatten"}"#),
    ];
    for (layer, text) in rows {
        assert_eq!(serde_json::to_string(&layer).unwrap(), text);
        assert_eq!(serde_json::from_str::<LayerSpec>(text).unwrap(), layer);
    }
    let more = r#"{"type":"group-sort","group":3,"order":1}"#;
    for wrong in [r#"{"type":"tanh"}"#, r#"{"type":"group-sort"}"#, more] {
        assert!(serde_json::from_str::<LayerSpec>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn more_convolutions_follow_those_that_downsample() {
    let input = ImageShape::new(3, 32, 32);
    let spec = NetworkSpec::large(input, 10, Methods::BCOP, 0.5).unwrap();
    let deep = spec.clone().with_more_convolutions(2);
    let convolutions: Vec<(usize, usize, usize)> = deep
        .layers
        .iter()
        .filter_map(|layer| match *layer {
            LayerSpec::Conv { c_out, kernel_size, stride, .. } => {
                Some((c_out, kernel_size, stride))
            }
            _ => None,
        })
        .collect();
    let expected = [
        (16, 3, 1),
        (16, 4, 2),
        (16, 3, 1),
        (16, 3, 1),
        (32, 3, 1),
        (32, 4, 2),
        (32, 3, 1),
        (32, 3, 1),
    ];
    assert_eq!(convolutions, expected);
    let n_activations = |spec: &NetworkSpec| {
        spec.layers.iter().filter(|l| matches!(l, LayerSpec::Activation(_))).count()
    };
    assert_eq!(n_activations(&deep), n_activations(&spec) + 4);
    Network::new(&deep, DType::F32, &Device::Cpu, 0).unwrap();
    assert_eq!(spec.clone().with_more_convolutions(0), spec);
}

/// Root mean square of the singular values of the matrices of a parameter.
fn gain(parameter: &Tensor) -> f64 {
    let n_values = match *parameter.dims() {
        [rows, columns] => rows.min(columns),
        [count, rows, columns] => count * rows.min(columns),
        [rows, channels, height, width] => rows.min(channels * height * width),
        _ => panic!("no matrices: {:?}", parameter.dims()),
    };
    let squares: f64 = values(parameter).into_iter().map(|x| x * x).sum();
    (squares / n_values as f64).sqrt()
}

/// The gain changes free matrices and, up to rounding, nothing that they stand for.
#[test]
fn the_gain_does_not_change_the_function() {
    let images = uniform(&[3, 2, 8, 12], 0.0, 1.0, DType::F64, 5);
    let scale_free = ["bcop", "bcop-fixed", "rko", "rk-l2ne", "aol", "bjorck", "bro", "lln"];
    let dense = LinearMethod::ALL.iter().map(|&linear| Methods { linear, ..Methods::BCOP });
    let conv = ConvMethod::ALL.iter().map(|&conv| Methods { conv, ..Methods::BCOP });
    for methods in dense.chain(conv) {
        let input = ImageShape::new(2, 8, 12);
        let spec = NetworkSpec::small(input, 4, methods);
        for dtype in [DType::F32, DType::F64] {
            let network = || Network::new(&spec, dtype, &Device::Cpu, 3).unwrap();
            let logits = |network: &Network| {
                network.materialize().unwrap().forward(&images.to_dtype(dtype).unwrap()).unwrap()
            };
            let before = network();
            for asked in [1e-3, 0.1, 1.0, 1e3] {
                let after = network().with_gain(asked).unwrap();
                // a materialised layer is divided by a bound of its norm, which rounding changes too
                let allowed = 1e3 * eps(dtype);
                check_close(
                    &format!("{methods:?} {asked}"),
                    &logits(&after),
                    &logits(&before),
                    allowed,
                );
                for ((name, old), (_, new)) in before.variables().iter().zip(after.variables()) {
                    let is_conv = name.starts_with("conv");
                    let method = if is_conv { methods.conv.name() } else { methods.linear.name() };
                    if name.ends_with("weight") && scale_free.contains(&method) {
                        let found = gain(&new);
                        let allowed = sum_tolerance(dtype, new.elem_count(), 1.0);
                        assert!((found / asked - 1.0).abs() <= allowed, "{name} {found}");
                    } else {
                        assert_eq!(values(old), values(&new), "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_gain_outside_its_domain_is_refused() {
    let spec = NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::BCOP);
    for gain in [0.0, -1.0, 1e-7, 1e7, f64::NAN, f64::INFINITY] {
        let network = Network::new(&spec, DType::F32, &Device::Cpu, 0).unwrap();
        let error = network.with_gain(gain).unwrap_err().to_string();
        assert_eq!(error, format!("gain is {gain}, expected a number from 1e-6 to 1e6"));
    }
    // of a matrix without a length, or whose length is no number, nothing is changed
    for (value, expected) in [
        (0.0, "linear1.weight is zero, expected a nonzero value: it is divided by its norm"),
        (1e200, "linear1.weight squared holds a value that is not a finite number"),
        (f64::NAN, "linear1.weight squared holds a value that is not a finite number"),
    ] {
        let network = Network::new(&spec, DType::F64, &Device::Cpu, 0).unwrap();
        let variables = network.variables();
        let (_, linear) = variables.iter().find(|(name, _)| name == "linear1.weight").unwrap();
        linear.set(&(linear.ones_like().unwrap() * value).unwrap()).unwrap();
        let before = values(&variables[0].1);
        assert_eq!(network.with_gain(0.1).unwrap_err().to_string(), expected);
        assert_eq!(values(&variables[0].1), before);
    }
}
