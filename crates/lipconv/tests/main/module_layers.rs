//! Layers of [`lipconv::nn`] in networks: training, files, plain forms, gradients, and what is refused.

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Activation, BatchSource, Error, ImageShape, LayerSpec, LinearMethod, Methods, ModuleKind,
    Network, NetworkSpec, Trainer,
};

use crate::support::{Stripes, check_close, distance, eps, uniform, values};
use crate::training::config;

/// c_in, c_out, kernel size, stride and side: c_in s² <, =, > c_out, odd and even kernels, an odd image, strides.
const ROWS: [(usize, usize, usize, usize, usize); 5] =
    [(2, 5, 3, 1, 5), (4, 4, 2, 1, 4), (3, 2, 3, 1, 4), (2, 6, 4, 2, 8), (1, 9, 6, 3, 9)];

fn module(kind: ModuleKind, (c_out, kernel_size, stride): (usize, usize, usize)) -> LayerSpec {
    LayerSpec::Module { c_out, kernel_size, stride, kind }
}

/// The layer in question, all its channels sorted, and a dense head.
fn spec(kind: ModuleKind, row: (usize, usize, usize, usize, usize)) -> NetworkSpec {
    let (c_in, c_out, kernel, stride, side) = row;
    let layers = vec![
        module(kind, (c_out, kernel, stride)),
        LayerSpec::Activation(Activation::GroupSort { group: c_out }),
        LayerSpec::Flatten,
        LayerSpec::Linear { out_features: 3, method: LinearMethod::Bjorck },
    ];
    NetworkSpec { input: ImageShape::new(c_in, side, side), layers }
}

fn bits(network: &Network) -> Vec<Vec<u64>> {
    let all = network.variables().into_iter();
    all.map(|(_, v)| values(&v).iter().map(|x| x.to_bits()).collect()).collect()
}

/// Some steps; those of one run are enough to see that an interrupted one does the same.
fn trained(trainer: &mut Trainer, source: &mut Stripes, steps: std::ops::Range<usize>) -> f64 {
    let mut loss = 0.0;
    for step in steps {
        loss = trainer.step(&source.batch(step).unwrap()).unwrap().loss;
    }
    loss
}

#[test]
fn modules_in_networks_train_resume_and_have_plain_forms_of_norm_one() {
    let folder = tempfile::tempdir().unwrap();
    for (&kind, row) in ModuleKind::ALL.iter().flat_map(|k| ROWS.map(|row| (k, row))) {
        for dtype in [DType::F64, DType::F32] {
            let what = format!("{kind} {row:?} {dtype:?}");
            let (c_in, .., side) = row;
            let network = Network::new(&spec(kind, row), dtype, &Device::Cpu, 7).unwrap();
            let start = bits(&network);
            let mut source = Stripes::new([c_in, side, side], 3, 4, dtype);
            source.start_epoch(0, 3);
            let trainer = Trainer::new(network, config(1)).unwrap();
            let mut trainer = trainer.epochs_of(12).unwrap();
            trained(&mut trainer, &mut source, 0..6);
            let path = folder.path().join("run.safetensors");
            trainer.save(&path).unwrap();
            trained(&mut trainer, &mut source, 6..12);
            let resumed = Trainer::resume(&path, &Device::Cpu).unwrap();
            let mut resumed = resumed.epochs_of(12).unwrap();
            trained(&mut resumed, &mut source, 6..12);
            assert_eq!(bits(trainer.network()), bits(resumed.network()), "{what}");
            for (before, after) in start.iter().zip(bits(trainer.network())) {
                assert_ne!(*before, after, "{what}: a parameter that is not trained");
            }
            check_plain_form(&what, trainer.network(), dtype);
        }
    }
}

/// The plain network computes the same, and the layers that stand for the module have norms of product 1 at most.
#[track_caller]
fn check_plain_form(what: &str, network: &Network, dtype: DType) {
    let ImageShape { channels, height, width } = network.spec().input;
    let images = uniform(&[3, channels, height, width], 0.0, 1.0, dtype, 5);
    let plain = network.materialize().unwrap();
    let logits = network.forward(&images).unwrap();
    check_close(what, &plain.forward(&images).unwrap(), &logits, 1e5 * eps(dtype));
    let bounds = plain.lipschitz_bounds().unwrap();
    // the dense head is the last layer
    let (_, of_module) = bounds.split_last().unwrap();
    assert!(of_module.iter().all(lipconv::LipschitzBound::is_rigorous), "{what}");
    let norm: f64 = of_module.iter().map(|bound| bound.value()).product();
    // two layers at most, each bound within 2e-5 of its norm
    let allowed = if dtype == DType::F64 { 5e-5 } else { 1e-4 };
    assert!(norm <= 1.0 + allowed, "{what}: norm {norm}");
    assert_eq!(network.lipschitz_estimates().unwrap()[0].value(), 1.0, "{what}");
}

#[test]
fn gradients_of_module_parameters_are_slopes() {
    for (&kind, row) in ModuleKind::ALL.iter().flat_map(|k| ROWS.map(|row| (k, row))) {
        let (c_in, .., side) = row;
        let network = Network::new(&spec(kind, row), DType::F64, &Device::Cpu, 7).unwrap();
        let images = uniform(&[2, c_in, side, side], -1.0, 1.0, DType::F64, 1);
        let cotangent = uniform(&[2, 3], -1.0, 1.0, DType::F64, 2);
        let objective = || {
            let logits = network.forward(&images).unwrap();
            (logits * &cotangent).unwrap().sum_all().unwrap()
        };
        // away from the start, whose correlations are 0: sums of absolute values have kinks there
        for (_, variable) in network.variables() {
            let noise = uniform(variable.dims(), -0.2, 0.2, DType::F64, 4);
            variable.set(&(variable.as_tensor() + noise).unwrap()).unwrap();
        }
        for (name, variable) in network.variables().into_iter().take(2) {
            let gradient = objective().backward().unwrap().remove(variable.as_tensor()).unwrap();
            let at = variable.as_tensor().copy().unwrap();
            let direction = uniform(at.dims(), -1.0, 1.0, DType::F64, 3);
            let moved = |h: f64| {
                variable.set(&(&at + (&direction * h).unwrap()).unwrap()).unwrap();
                let value = objective().to_scalar::<f64>().unwrap();
                variable.set(&at).unwrap();
                value
            };
            let h = 1e-6;
            let slope = (moved(h) - moved(-h)) / (2.0 * h);
            let expected = (gradient * direction).unwrap().sum_all().unwrap();
            let expected = expected.to_scalar::<f64>().unwrap();
            assert!(
                (slope - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{kind} {row:?} {name}: {slope} and {expected}"
            );
        }
    }
}

/// Candle's operations alone take the steps that the CPU's own operations take.
#[test]
fn portable_steps_are_the_cpus() {
    for &kind in ModuleKind::ALL {
        let row = (2, 6, 4, 2, 8);
        let network = || Network::new(&spec(kind, row), DType::F64, &Device::Cpu, 7).unwrap();
        let own = Trainer::new(network(), config(1)).unwrap();
        let portable = Trainer::portable(network(), config(1)).unwrap();
        let [own, portable] = [own, portable].map(|trainer| {
            let mut source = Stripes::new([2, 8, 8], 3, 4, DType::F64);
            source.start_epoch(0, 3);
            let mut trainer = trainer.epochs_of(3).unwrap();
            trained(&mut trainer, &mut source, 0..3);
            trainer
        });
        for ((name, a), (_, b)) in
            own.network().variables().iter().zip(portable.network().variables())
        {
            check_close(&format!("{kind} {name}"), a, &b, 1e-7);
        }
    }
}

#[test]
fn a_network_of_modules_learns() {
    for &kind in ModuleKind::ALL {
        let input = ImageShape::new(1, 16, 16);
        let spec = NetworkSpec::small(input, 4, Methods::BCOP).with_modules(kind);
        let network = Network::new(&spec, DType::F32, &Device::Cpu, 7).unwrap();
        let mut trainer = Trainer::new(network, config(1)).unwrap().epochs_of(40).unwrap();
        let mut source = Stripes::new([1, 16, 16], 4, 16, DType::F32);
        source.start_epoch(0, 1);
        let first = trained(&mut trainer, &mut source, 0..1);
        let last = trained(&mut trainer, &mut source, 1..40);
        assert!(last < 0.7 * first, "{kind}: {first} to {last}");
    }
}

#[test]
fn equal_seeds_give_equal_modules_and_layers_differ() {
    for &kind in ModuleKind::ALL {
        let layers = vec![
            module(kind, (4, 3, 1)),
            module(kind, (4, 3, 1)),
            LayerSpec::Flatten,
            LayerSpec::Linear { out_features: 2, method: LinearMethod::Bjorck },
        ];
        let spec = NetworkSpec { input: ImageShape::new(4, 4, 4), layers };
        let network = |seed| Network::new(&spec, DType::F64, &Device::Cpu, seed).unwrap();
        assert_eq!(bits(&network(1)), bits(&network(1)), "{kind}");
        assert_ne!(bits(&network(1)), bits(&network(2)), "{kind}");
        let [first, second] = [0, 2].map(|n| Tensor::clone(&network(1).variables()[n].1));
        assert!(distance(&first, &second) > 0.0, "{kind}");
        let text = serde_json::to_string(&spec).unwrap();
        assert!(text.contains(&format!(
            r#""type":"module","c_out":4,"kernel_size":3,"stride":1,"kind":"{kind}""#
        )));
        assert_eq!(serde_json::from_str::<NetworkSpec>(&text).unwrap(), spec);
        assert_eq!(kind.name().parse::<ModuleKind>().unwrap(), kind);
    }
}

#[test]
fn modules_that_do_not_fit_are_refused_by_name() {
    let build = |kind, (height, width), sizes| -> Error {
        let layers = vec![module(kind, sizes), LayerSpec::Flatten];
        let spec = NetworkSpec { input: ImageShape::new(2, height, width), layers };
        Network::new(&spec, DType::F64, &Device::Cpu, 1).unwrap_err()
    };
    for &kind in ModuleKind::ALL {
        let error = build(kind, (4, 4), (3, 3, 2)).to_string();
        assert_eq!(error, "conv1: kernel size 3 is not divisible by the stride 2");
        assert_eq!(
            build(kind, (4, 4), (0, 3, 1)).to_string(),
            "conv1: c_out is 0, expected at least 1"
        );
        if kind != ModuleKind::Aoc {
            assert_eq!(
                build(kind, (4, 6), (3, 3, 1)).to_string(),
                "conv1 has no plain form: its image is 4 x 6, expected a square one"
            );
        }
    }
    // an odd kernel of three taps in place of two
    assert_eq!(
        build(ModuleKind::Soc, (4, 4), (3, 4, 2)).to_string(),
        "conv1: a 3 x 3 kernel exceeds its 2 x 2 image; a cyclic convolution needs an image at least as large as the kernel"
    );
    assert_eq!(
        "eco".parse::<ModuleKind>().unwrap_err().to_string(),
        "unknown kind of layer `eco`, expected one of `aoc`, `cayley`, `bro`, `lot`, `soc`, `sll`, `cpl`, `sandwich`"
    );
}
