//! Plain networks on the engine against the CPU's.

use super::*;
use crate::plain::{CyclicConv, Dense, PlainLayer, PlainNetwork};

#[test]
fn plain_networks_are_the_cpus() {
    let group = LayerSpec::Activation(Activation::GroupSort { group: 2 });
    for (method, activation) in [(ConvMethod::Bcop, MAX_MIN), (ConvMethod::Unconstrained, group)] {
        let spec = small(ImageShape::new(3, 8, 6), method, activation);
        let plain = network(&spec).materialize().expect("a plain network");
        check(&plain);
    }
}

#[test]
fn layers_without_biases_and_without_convolutions_are_run() {
    let tensor = |dims: &[usize], seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n = dims.iter().product::<usize>();
        let values: Vec<f32> = (0..n).map(|_| rng.random_range(-0.5..0.5)).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).expect("as many values")
    };
    let dense =
        |dims, seed| PlainLayer::Dense(Dense::new(tensor(dims, seed), None).expect("dense"));
    let conv = CyclicConv::new(tensor(&[4, 12, 3, 3], 1), None, 2).expect("a convolution");
    let relu = PlainLayer::Activation(Activation::Relu);
    let with_conv = vec![
        PlainLayer::CyclicConv(conv),
        relu.clone(),
        PlainLayer::Flatten,
        dense(&[5, 4 * 4 * 3], 2),
    ];
    let without = vec![PlainLayer::Flatten, dense(&[6, 3 * 8 * 6], 3), relu, dense(&[2, 6], 4)];
    for layers in [with_conv, without] {
        check(&PlainNetwork::new(ImageShape::new(3, 8, 6), layers).expect("a network"));
    }
}

/// More images than the engine is given at once.
#[test]
fn large_batches_go_in_parts() {
    let layers = vec![LayerSpec::Flatten, linear(3, LinearMethod::Unconstrained)];
    let spec = NetworkSpec { input: ImageShape::new(1, 2, 2), layers };
    let plain = network(&spec).materialize().expect("a plain network");
    let device = plain.on_cuda(place()).expect("a network that the engine runs");
    let images = batch(spec.input, 1030, 2, 1).images;
    let d = Tensor::ones((1030, 3), DType::F32, &Device::Cpu).expect("ones");
    let both = |network: &PlainNetwork| {
        let recording = network.record(&images).expect("a pass");
        let logits = values(recording.logits());
        (logits, values(&recording.input_gradient(&d).expect("a gradient")))
    };
    let ((logits, gradient), expected) = (both(&device), both(&plain));
    assert!(distance(&logits, &expected.0) <= rounding(4));
    assert!(distance(&gradient, &expected.1) <= rounding(4));
}

#[track_caller]
fn check(plain: &PlainNetwork) {
    let device = plain.on_cuda(place()).expect("a network that the engine runs");
    let copy = device.clone();
    let allowed = rounding(9 * plain.input().n_values());
    // a larger batch needs a larger engine
    for n in [2, 5, 3] {
        let images = batch(plain.input(), n, 2, n as u64).images;
        let expected = values(&plain.forward(&images).expect("on the CPU"));
        let apart = distance(&values(&device.forward(&images).expect("logits")), &expected);
        assert!(apart <= allowed, "{apart:e}");
        let d =
            Tensor::from_iter((0..n * plain.n_classes()).map(|i| (i as f32).cos()), &Device::Cpu);
        let d = d.expect("values").reshape((n, plain.n_classes())).expect("n x classes");
        let gradient = |network: &PlainNetwork| {
            let recording = network.record(&images).expect("a pass");
            let logits = values(recording.logits());
            (logits, values(&recording.input_gradient(&d).expect("a gradient")))
        };
        let ((logits, got), (expected_logits, expected)) = (gradient(&copy), gradient(plain));
        assert!(distance(&logits, &expected_logits) <= allowed);
        assert!(distance(&got, &expected) <= allowed, "{:e}", distance(&got, &expected));
    }
    // with other weights or numbers it is another network, on no engine until it is told so
    let twice = device.to_dtype(DType::F64).expect("in f64");
    let images = batch(plain.input(), 2, 2, 9).images.to_dtype(DType::F64).expect("in f64");
    let on_cpu = plain.to_dtype(DType::F64).expect("in f64").forward(&images).expect("logits");
    let same = twice.forward(&images).expect("logits");
    assert_eq!(
        same.to_vec2::<f64>().expect("2 x classes"),
        on_cpu.to_vec2::<f64>().expect("2 x classes")
    );
    assert!(matches!(twice.on_cuda(place()), Err(Error::NotOnEngine { .. })));
}
