//! The engine on the emulated device against the CPU engine, and on a real one where the variable `LIPCONV_CUDA_DEVICE` names it.

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

mod factors;
mod plain;
mod single;
mod tensors;
mod training;

use super::{Emulated, Engine, Place, Sample, bytes_of};
use crate::activation::Activation;
use crate::engine::cpu::training::{TrainBuffers, logits_and_image_gradient, loss_and_gradients};
use crate::error::{Error, Result};
use crate::loss::CrossEntropy;
use crate::network::Network;
use crate::optim::{Optimizer, RmsPropConfig, Schedule};
use crate::shape::ImageShape;
use crate::spec::{LayerSpec, Methods, NetworkSpec};
use crate::train::{Batch, TrainConfig, Trainer};
use crate::{ConvMethod, LinearMethod, Loss, TrainingRadius};

const HINGE: Loss = Loss::MultiClassHinge { margin: 0.7 };
const MAX_MIN: LayerSpec = LayerSpec::Activation(Activation::MaxMin);

/// A real device where the variable names it, an emulated one otherwise.
fn place() -> Place {
    #[cfg(feature = "cuda-engine")]
    if let Some(ordinal) = std::env::var("LIPCONV_CUDA_DEVICE").ok().and_then(|n| n.parse().ok()) {
        return Place::Device(ordinal);
    }
    Place::Emulated(Emulated::default())
}

fn engine(network: &Network, config: &TrainConfig, batch: usize) -> Engine {
    Engine::for_network(network, config, place(), batch).expect("a network that the engine runs")
}

fn config(optimizer: Optimizer) -> TrainConfig {
    TrainConfig {
        epochs: 3,
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        optimizer,
        loss: HINGE,
        seed: 0,
        averaging: crate::Averaging::None,
    }
}

fn conv(c_out: usize, kernel_size: usize, stride: usize, method: ConvMethod) -> LayerSpec {
    LayerSpec::Conv { c_out, kernel_size, stride, method }
}

fn linear(out_features: usize, method: LinearMethod) -> LayerSpec {
    LayerSpec::Linear { out_features, method }
}

/// Two convolutions and two dense layers.
fn small(input: ImageShape, conv_method: ConvMethod, activation: LayerSpec) -> NetworkSpec {
    let layers = vec![
        conv(8, 3, 1, conv_method),
        activation,
        conv(6, 4, 2, conv_method),
        activation,
        LayerSpec::Flatten,
        linear(20, LinearMethod::Bjorck),
        activation,
        linear(5, LinearMethod::Bjorck),
    ];
    NetworkSpec { input, layers }
}

fn batch(input: ImageShape, n: usize, n_classes: usize, seed: u64) -> Batch {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..n * input.n_values()).map(|_| rng.random_range(0.0..1.0)).collect();
    let shape = (n, input.channels, input.height, input.width);
    let labels = (0..n).map(|_| rng.random_range(0..n_classes as u32)).collect();
    Batch { images: Tensor::from_vec(values, shape, &Device::Cpu).expect("as many values"), labels }
}

/// A network. Of rows with equal sums, as orthonormal ones have, RK-L2NE's gradient takes any: with this method weights have some noise.
fn network(spec: &NetworkSpec) -> Network {
    let network = Network::new(spec, DType::F32, &Device::Cpu, 7).expect("a network");
    let chooses =
        |layer: &LayerSpec| matches!(layer, LayerSpec::Conv { method: ConvMethod::RkL2ne, .. });
    if spec.layers.iter().any(chooses) {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for p in network.parameters() {
            let weight = values(p.weight.as_tensor()).into_iter();
            let noisy = weight.map(|v| v + rng.random_range(-0.02_f32..0.02));
            let noisy = Tensor::from_iter(noisy, &Device::Cpu);
            let noisy = noisy.and_then(|t| t.reshape(p.weight.shape()));
            p.weight.set(&noisy.expect("as many values")).expect("set");
        }
    }
    network
}

fn values(tensor: &Tensor) -> Vec<f32> {
    crate::element::to_vec(tensor).expect("values")
}

/// ‖a - b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let apart: f64 = a.iter().zip(b).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let size: f64 = b.iter().map(|&b| square(f64::from(b))).sum();
    (apart / size.max(f64::MIN_POSITIVE)).sqrt()
}

/// What separates two evaluations in f32 of sums of `n` terms through a few layers.
fn rounding(n: usize) -> f64 {
    64.0 * f64::from(f32::EPSILON) * (n as f64).sqrt()
}

/// Loss, gradients and logits of one batch.
#[track_caller]
fn check_gradients(name: &str, spec: &NetworkSpec, loss: Loss) {
    check_gradients_of(name, &network(spec), loss);
}

#[track_caller]
fn check_gradients_of(name: &str, network: &Network, loss: Loss) {
    let spec = network.spec();
    let batch = batch(spec.input, 5, network.n_classes().max(2), 3);
    let config = TrainConfig { loss, ..config(Optimizer::default()) };
    let mut buffers = TrainBuffers::<f32>::default();
    let (value, gradients) =
        loss_and_gradients(network, &config.loss, &batch.images, &batch.labels, &mut buffers)
            .expect("the CPU's step");
    let expected: Vec<f32> = gradients
        .into_iter()
        .zip(network.parameters())
        .flat_map(|(g, p)| {
            let weight = g.weight.unwrap_or_else(|| vec![0.0; p.weight.elem_count()]);
            [weight, g.bias].concat()
        })
        .collect();
    let mut engine = engine(network, &config, 5);
    let images = values(&batch.images);
    let (loss, n_correct) = engine.step(&images, &batch.labels, 0.0, 1).expect("a step");
    let allowed = rounding(spec.input.n_values() * 9);
    assert!((loss - value.value).abs() <= allowed, "{name}: loss {loss} and {}", value.value);
    assert_eq!(n_correct, value.n_correct, "{name}");
    let got = engine.gradients().expect("gradients");
    let apart = distance(&got, &expected);
    assert!(apart <= allowed, "{name}: gradients are {apart:e} apart, allowed {allowed:e}");
    // the parameters have not moved, the vectors have
    engine.write_network(network).expect("parameters");
    let logits = engine.logits(&images).expect("logits");
    let expected = values(&network.forward(&batch.images).expect("logits"));
    let apart = distance(&logits, &expected);
    assert!(apart <= allowed, "{name}: logits are {apart:e} apart, allowed {allowed:e}");
    let d_logits: Vec<f32> = (0..logits.len()).map(|i| (i as f32 * 0.7).sin()).collect();
    let (again, gradient) = engine.input_gradient(&images, &d_logits).expect("a gradient");
    assert_eq!(again, logits, "{name}");
    let shape = (5, network.n_classes());
    let d_logits = Tensor::from_vec(d_logits, shape, &Device::Cpu).expect("as many values");
    let mut buffers = TrainBuffers::<f32>::default();
    let (_, expected) = logits_and_image_gradient(network, &batch.images, &d_logits, &mut buffers)
        .expect("on the CPU");
    let apart = distance(&gradient, &expected);
    assert!(apart <= allowed, "{name}: gradients of images are {apart:e} apart");
}

/// The methods that the engine has kernels for; others train in candle's operations.
fn methods() -> impl Iterator<Item = ConvMethod> {
    ConvMethod::ALL.iter().copied().filter(|&method| method != ConvMethod::Aol)
}

#[test]
fn gradients_are_the_cpus() {
    let input = ImageShape::new(3, 8, 6);
    for method in methods() {
        let activations = [
            MAX_MIN,
            LayerSpec::Activation(Activation::GroupSort { group: 2 }),
            LayerSpec::Activation(Activation::Relu),
        ];
        for activation in activations {
            let name = format!("{method} {activation:?}");
            check_gradients(&name, &small(input, method, activation), HINGE);
        }
    }
}

#[test]
fn gradients_of_large_factors_are_the_cpus() {
    // more than 64 rows leave the kernels of one block; tall weights are turned; every kernel size to 5
    let dense = |features: &[usize]| {
        let mut layers = vec![LayerSpec::Flatten];
        for &n in features {
            layers.extend([linear(n, LinearMethod::Bjorck), MAX_MIN]);
        }
        layers.push(linear(3, LinearMethod::Unconstrained));
        NetworkSpec { input: ImageShape::new(2, 6, 6), layers }
    };
    check_gradients("wide and square", &dense(&[70, 70]), HINGE);
    check_gradients("tall", &dense(&[90, 100]), HINGE);
    for (c_out, kernel) in [(70, 2), (6, 1), (9, 5)] {
        let layers = vec![
            conv(c_out, kernel, 1, ConvMethod::Bcop),
            LayerSpec::Flatten,
            linear(3, LinearMethod::Bjorck),
        ];
        let spec = NetworkSpec { input: ImageShape::new(4, 5, 6), layers };
        check_gradients(&format!("{c_out} channels of {kernel} x {kernel}"), &spec, HINGE);
    }
}

#[test]
fn gradients_of_all_losses_are_the_cpus() {
    let mut spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let last = spec.layers.len() - 1;
    let radius = TrainingRadius { start: 0.3, end: 0.6 };
    for annealing in [0.0, 2.5] {
        for radius in [None, Some(radius)] {
            let loss = Loss::CrossEntropy(CrossEntropy {
                offset: 0.4,
                temperature: 0.25,
                annealing,
                radius,
            });
            let methods = [LinearMethod::Lln, LinearMethod::Bjorck, LinearMethod::Unconstrained];
            for method in methods {
                spec.layers[last] = linear(5, method);
                check_gradients(&format!("{method}, {loss:?}"), &spec, loss);
            }
        }
    }
    // a head with more classes than features lies in memory as its transpose
    spec.layers[last] = linear(30, LinearMethod::Bjorck);
    let settings =
        CrossEntropy { offset: 0.0, temperature: 1.0, annealing: 0.0, radius: Some(radius) };
    check_gradients("a tall head", &spec, Loss::CrossEntropy(settings));
    spec.layers[last] = linear(1, LinearMethod::Bjorck);
    check_gradients("a critic", &spec, Loss::Wasserstein);
}

/// OSSN and RK-L2NE divide, or leave alone, whatever the weight's size; vectors follow.
#[test]
fn quotients_are_the_cpus_inside_and_outside_of_the_unit_ball() {
    for method in [ConvMethod::Ossn, ConvMethod::RkL2ne] {
        for scale in [0.2, 1.0, 6.0] {
            let spec = small(ImageShape::new(4, 8, 6), method, MAX_MIN);
            let network = network(&spec);
            for p in network.parameters() {
                let scaled = (p.weight.as_tensor() * scale).expect("scaled");
                p.weight.set(&scaled).expect("set");
            }
            check_gradients_of(&format!("{method} scaled by {scale}"), &network, HINGE);
        }
    }
}

/// Some steps of training, the last batch of an epoch smaller.
#[track_caller]
fn check_training(optimizer: Optimizer) {
    let spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let config = config(optimizer);
    let trainer = Trainer::new(network(&spec), config).expect("a trainer");
    let mut trainer = trainer.epochs_of(4).expect("four batches");
    let mut engine = engine(trainer.network(), &config, 6);
    for (n, size) in [6, 6, 4, 6].into_iter().enumerate() {
        let batch = batch(spec.input, size, 5, n as u64);
        let report = trainer.step(&batch).expect("the CPU's step");
        let images = values(&batch.images);
        let step = n as u64 + 1;
        let (loss, _) =
            engine.step(&images, &batch.labels, report.learning_rate, step).expect("a step");
        let allowed = 50.0 * rounding(spec.input.n_values());
        assert!((loss - report.loss).abs() <= allowed, "step {step}: {loss} and {}", report.loss);
    }
    let other = network(&spec);
    engine.read_network(&other).expect("parameters");
    for ((name, got), (_, expected)) in other.variables().iter().zip(trainer.network().variables())
    {
        let apart = distance(&values(got), &values(&expected));
        // a parameter moves by the learning rate however small its gradient is, so that signs of rounding errors count
        assert!(apart <= 0.02, "{name} is {apart:e} apart");
    }
}

#[test]
fn steps_of_training_are_the_cpus() {
    check_training(Optimizer::default());
    check_training(Optimizer::RmsProp(RmsPropConfig { epsilon: 1e-3, ..Default::default() }));
}

/// Images on the device: the same as the host's batches, cut and mirrored.
#[test]
fn resident_images_are_cut_and_mirrored() {
    let spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let (network, config) = (network(&spec), config(Optimizer::default()));
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let n_values = spec.input.n_values();
    let images: Vec<u8> = (0..7 * n_values).map(|_| rng.random()).collect();
    let labels = [0, 1, 2, 3, 4, 0, 1];
    let samples: Vec<Sample> = (0..10)
        .map(|n| Sample {
            image: n % 7,
            shift: (n as i16 % 3 - 1, 2 - n as i16 % 4),
            mirrored: n % 2 == 1,
        })
        .collect();
    let mut resident = engine(&network, &config, 4);
    resident.set_images(&images, &labels, 3).expect("room for the images");
    let rates: Vec<_> = (1..=3).map(|step| (1e-2, step)).collect();
    resident.begin_epoch(&samples, &rates).expect("an epoch");
    resident.run(2).expect("two steps");
    let status = resident.run(1).expect("a step");
    assert_eq!(status.batch, 3);
    let mut copied = engine(&network, &config, 4);
    let mut losses = 0.0;
    for (n, samples) in samples.chunks(4).enumerate() {
        let values: Vec<f32> =
            samples.iter().flat_map(|sample| cut(&images, spec.input, *sample)).collect();
        let labels: Vec<u32> =
            samples.iter().map(|s| u32::from(labels[s.image as usize])).collect();
        losses += copied.step(&values, &labels, 1e-2, n as u64 + 1).expect("a step").0;
    }
    assert_eq!(status.loss_sum, losses);
    assert_eq!(resident.parameters().expect("read"), copied.parameters().expect("read"));
}

/// An image as a [`Sample`] says.
fn cut(images: &[u8], shape: ImageShape, sample: Sample) -> Vec<f32> {
    let ImageShape { channels, height, width } = shape;
    let own = &images[sample.image as usize * shape.n_values()..][..shape.n_values()];
    let mut values = Vec::new();
    for c in 0..channels {
        for y in 0..height {
            for x in 0..width {
                let x = if sample.mirrored { width - 1 - x } else { x };
                let row = usize::try_from(y as i64 + i64::from(sample.shift.0))
                    .ok()
                    .filter(|&r| r < height);
                let column = usize::try_from(x as i64 + i64::from(sample.shift.1))
                    .ok()
                    .filter(|&c| c < width);
                let byte =
                    row.zip(column).map(|(row, column)| own[(c * height + row) * width + column]);
                values.push(byte.map_or(0.0, |byte| f32::from(byte) / 255.0));
            }
        }
    }
    values
}

/// A run taken up from its parameters and running means ends as one that was not interrupted, to the bit.
#[test]
fn a_resumed_run_ends_the_same() {
    let spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let (network, config) = (network(&spec), config(Optimizer::default()));
    let batches: Vec<_> = (0..4).map(|n| batch(spec.input, 4, 5, n)).collect();
    let step = |engine: &mut Engine, n: usize| {
        let images = values(&batches[n].images);
        engine.step(&images, &batches[n].labels, 1e-2, n as u64 + 1).expect("a step");
    };
    let mut whole = engine(&network, &config, 4);
    (0..4).for_each(|n| step(&mut whole, n));
    let mut first = engine(&network, &config, 4);
    (0..2).for_each(|n| step(&mut first, n));
    let mut second = engine(&network, &config, 4);
    second.set_parameters(&first.parameters().expect("read")).expect("written");
    second.write_moments(&first.read_moments().expect("read")).expect("written");
    (2..4).for_each(|n| step(&mut second, n));
    assert_eq!(second.parameters().expect("read"), whole.parameters().expect("read"));
}

#[test]
fn a_step_that_fails_changes_nothing() {
    let spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let network = network(&spec);
    let mut engine = engine(&network, &config(Optimizer::default()), 4);
    let batch = batch(spec.input, 4, 5, 0);
    let mut images = values(&batch.images);
    engine.step(&images, &batch.labels, 1e-2, 1).expect("a step");
    let before = (engine.parameters().expect("read"), engine.read_moments().expect("read"));
    images[17] = f32::NAN;
    let error = engine.step(&images, &batch.labels, 1e-2, 2).expect_err("NaN");
    assert!(matches!(error, Error::NonFiniteSomewhere { .. }), "{error}");
    assert_eq!((engine.parameters().expect("read"), engine.read_moments().expect("read")), before);
    // a parameter without a direction: the layer is named
    let mut parameters = before.0.clone();
    let linear1 =
        network.parameters().take(2).map(|p| p.weight.elem_count() + p.bias.elem_count()).sum();
    let length = network.parameters().nth(2).expect("linear1").weight.elem_count();
    parameters[linear1..][..length].fill(0.0);
    engine.set_parameters(&parameters).expect("written");
    let images = values(&batch.images);
    let error = engine.step(&images, &batch.labels, 1e-2, 2).expect_err("rank");
    assert!(
        matches!(&error, Error::Orthonormalisation { layer, .. } if layer == "linear1"),
        "{error}"
    );
    assert_eq!(engine.parameters().expect("read"), parameters);
    engine.set_parameters(&before.0).expect("written");
    engine.step(&images, &batch.labels, 1e-2, 2).expect("the run goes on");
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let spec = NetworkSpec::small(ImageShape::new(1, 28, 28), 10, Methods::BCOP);
    let mut engine = engine(&network(&spec), &config(Optimizer::default()), 2);
    assert!(matches!(engine.set_images(&[0; 10], &[1], 1), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(engine.set_images(&[0; 784], &[10], 1), Err(Error::LabelOutOfRange { .. })));
    assert!(engine.begin_epoch(&[], &[]).is_err(), "no images yet");
    engine.set_images(&[0; 784], &[1], 1).expect("an image");
    let samples = [Sample { image: 1, ..Sample::default() }; 2];
    assert!(matches!(engine.begin_epoch(&samples, &[(1.0, 1)]), Err(Error::InvalidSetting { .. })));
    assert!(matches!(engine.begin_epoch(&samples[..1], &[]), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn what_the_engine_does_not_run_is_named() {
    let config = config(Optimizer::default());
    let refused = |network: &Network, expected: &str| {
        let error = Engine::for_network(network, &config, place(), 2).expect_err("not run");
        let text = error.to_string();
        assert!(matches!(error, Error::NotOnEngine { .. }) && text.contains(expected), "{text}");
    };
    let spec = small(ImageShape::new(3, 8, 6), ConvMethod::Bcop, MAX_MIN);
    let wide = Network::new(&spec, DType::F64, &Device::Cpu, 7).expect("a network");
    refused(&wide, "networks in f64");
    let mut twice = spec.clone();
    twice.layers.insert(1, MAX_MIN);
    refused(&network(&twice), "maxmin");
    let one_channel = vec![
        conv(1, 1, 1, ConvMethod::Bcop),
        LayerSpec::Flatten,
        linear(2, LinearMethod::Unconstrained),
    ];
    let spec = NetworkSpec { input: ImageShape::new(1, 4, 4), layers: one_channel };
    refused(&network(&spec), "BCOP in conv1");
}
