//! The dual objective as a loss: value, gradient, training of critics on every path, refused input.

use candle_core::{DType, Device, Tensor, Var};
use lipconv::{
    Activation, Batch, Error, ImageShape, LayerSpec, LinearMethod, Loss, Methods, Network,
    NetworkSpec, Optimizer, RmsPropConfig, Schedule, TrainConfig, Trainer,
};

use crate::support::{check_close, sum_tolerance, uniform, values};

const CPU: Device = Device::Cpu;
const LABELS: [u32; 7] = [1, 0, 0, 1, 0, 0, 1];

fn critic(dtype: DType, device: &Device) -> Network {
    let methods = Methods::BCOP;
    let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method: methods.conv };
    let linear = LayerSpec::Linear { out_features: 1, method: LinearMethod::Bjorck };
    let layers = vec![
        conv(4),
        LayerSpec::Activation(Activation::MaxMin),
        conv(6),
        LayerSpec::Flatten,
        linear,
    ];
    let spec = NetworkSpec { input: ImageShape::new(1, 8, 8), layers };
    Network::new(&spec, dtype, device, 7).unwrap()
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 1,
        learning_rate: 1e-2,
        schedule: Schedule::Linear,
        optimizer: Optimizer::RmsProp(RmsPropConfig::default()),
        averaging: lipconv::Averaging::None,
        loss: Loss::Wasserstein,
        seed: 5,
    }
}

#[test]
fn the_loss_is_the_difference_of_means() {
    let logits: [f64; 7] = [0.5, 2.0, -1.0, 4.0, 0.25, 0.75, -3.0];
    let value = Loss::Wasserstein.evaluate(&logits, &LABELS, 1).unwrap();
    let expected = (0.5 + 4.0 - 3.0) / 3.0 - (2.0 - 1.0 + 0.25 + 0.75) / 4.0;
    assert!((value.value - expected).abs() < 1e-15, "{value:?}");
    assert_eq!(value.n_correct, 0);
    for (gradient, label) in value.d_logits.iter().zip(LABELS) {
        let expected = if label == 1 { 1.0 / 3.0 } else { -0.25 };
        assert!((gradient - expected).abs() < 1e-15);
    }
}

#[test]
fn tensors_and_numbers_give_the_same_loss() {
    for device in &crate::portable::devices() {
        for dtype in [DType::F32, DType::F64] {
            let logits = Var::from_tensor(&uniform(&[7, 1], -3.0, 3.0, dtype, 4)).unwrap();
            let numbers = values(logits.as_tensor());
            let expected = Loss::Wasserstein.evaluate(&numbers, &LABELS, 1).unwrap();
            let on_device = Var::from_tensor(&logits.to_device(device).unwrap()).unwrap();
            let labels = Tensor::new(&LABELS, device).unwrap();
            let loss = Loss::Wasserstein.forward(on_device.as_tensor(), &labels).unwrap();
            let gradients = loss.backward().unwrap();
            let gradient = gradients.get(on_device.as_tensor()).unwrap();
            let allowed = sum_tolerance(dtype, 7, 3.0);
            let close = |got: &Tensor, expected: &[f64]| {
                let got = got.to_device(&CPU).unwrap().flatten_all().unwrap();
                let expected = Tensor::new(expected, &CPU).unwrap();
                check_close("loss", &got.to_dtype(DType::F64).unwrap(), &expected, allowed);
            };
            close(&loss, &[expected.value]);
            close(gradient, &expected.d_logits);
        }
    }
}

/// The distance of two point masses is that of the points. A trained critic finds it, and never more.
#[test]
fn a_critic_finds_the_distance_of_two_points() {
    let points = uniform(&[2, 1, 8, 8], -1.0, 1.0, DType::F64, 21);
    let shift = (points.get(0).unwrap() - points.get(1).unwrap()).unwrap();
    let exact = values(&shift.sqr().unwrap().sum_all().unwrap())[0].sqrt();
    for dtype in [DType::F32, DType::F64] {
        let n_steps = 150;
        let trainer = Trainer::new(critic(dtype, &CPU), config()).unwrap();
        let mut trainer = trainer.epochs_of(n_steps).unwrap();
        let images = points.to_dtype(dtype).unwrap();
        let batch = Batch { images, labels: vec![0, 1] };
        let estimates = (0..n_steps).map(|_| -trainer.step(&batch).unwrap().loss);
        let estimates: Vec<f64> = estimates.collect();
        let most = exact * (1.0 + sum_tolerance(dtype, 64, 1.0));
        assert!(estimates.iter().all(|&e| e <= most), "{exact}: {estimates:?}");
        assert!(*estimates.last().unwrap() > 0.95 * exact, "{exact}: {estimates:?}");
    }
}

#[test]
fn every_path_trains_the_same_critic() {
    for device in &crate::portable::devices() {
        for dtype in [DType::F32, DType::F64] {
            // with PyTorch's ε the noise of gradients that are nearly 0 would be divided by its own size
            let optimizer = Optimizer::RmsProp(RmsPropConfig { alpha: 0.99, epsilon: 1e-2 });
            let config = TrainConfig { optimizer, ..config() };
            let images = uniform(&[7, 1, 8, 8], -1.0, 1.0, dtype, 3);
            let run = |trainer: Trainer, device: &Device| {
                let mut trainer = trainer.epochs_of(4).unwrap();
                let images = images.to_device(device).unwrap();
                let batch = Batch { images, labels: LABELS.to_vec() };
                let losses: Vec<f64> = (0..4).map(|_| trainer.step(&batch).unwrap().loss).collect();
                (losses, trainer.into_network().variables())
            };
            let (losses, expected) = run(Trainer::new(critic(dtype, &CPU), config).unwrap(), &CPU);
            let other = Trainer::portable(critic(dtype, device), config).unwrap();
            let (portable_losses, got) = run(other, device);
            // the portable step reports in f32
            let allowed = 64.0 * sum_tolerance(DType::F32, 1 << 10, 1.0);
            let pairs = losses.iter().zip(&portable_losses);
            let close = pairs.into_iter().all(|(a, b)| (a - b).abs() < allowed);
            assert!(close, "{dtype:?} on {device:?}: {portable_losses:?}, {losses:?}");
            for ((name, expected), (_, got)) in expected.iter().zip(&got) {
                let got = got.to_device(&CPU).unwrap();
                let allowed = 64.0 * sum_tolerance(dtype, 1 << 10, 1.0);
                check_close(&format!("{name} {dtype:?} on {device:?}"), &got, expected, allowed);
            }
        }
    }
}

/// The input gradient in mid-training against the plain network's, on every path.
#[test]
fn input_gradients_are_those_of_the_materialised_network() {
    for device in &crate::portable::devices() {
        for dtype in [DType::F32, DType::F64] {
            let images = uniform(&[5, 1, 8, 8], -1.0, 1.0, dtype, 3);
            let d_logits = uniform(&[5, 1], -1.0, 1.0, dtype, 4);
            let network = critic(dtype, &CPU);
            let plain = network.materialize().unwrap();
            let recording = plain.record(&images).unwrap();
            let logits = recording.logits().clone();
            let gradient = recording.input_gradient(&d_logits).unwrap();
            let trainers = [
                (Trainer::new(network, config()).unwrap(), &CPU),
                (Trainer::portable(critic(dtype, device), config()).unwrap(), device),
            ];
            for (mut trainer, device) in trainers {
                let x = images.to_device(device).unwrap();
                let d = d_logits.to_device(device).unwrap();
                let (y, dx) = trainer.logits_and_input_gradient(&x, &d).unwrap();
                let allowed = sum_tolerance(dtype, 1 << 10, 1.0);
                check_close("logits", &y.to_device(&CPU).unwrap(), &logits, allowed);
                check_close("gradient", &dx.to_device(&CPU).unwrap(), &gradient, allowed);
            }
        }
    }
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, Error>, text: &str) {
    assert_eq!(result.unwrap_err().to_string(), text);
}

#[test]
fn what_is_not_a_comparison_is_refused() {
    let evaluate = |n: usize, labels: &[u32], n_logits: usize| {
        Loss::Wasserstein.evaluate(&vec![0.0; n], labels, n_logits)
    };
    let one_sided = |label, n| {
        format!(
            "{n} samples and none of label {label}, expected samples of both distributions: labels 0 and 1"
        )
    };
    says(evaluate(3, &[0, 0, 0], 1), &one_sided(1, 3));
    says(evaluate(2, &[1, 1], 1), &one_sided(0, 2));
    says(evaluate(2, &[1, 2], 1), "label 2 at index 1 is not a class: expected 0 … 1");
    let outputs = "the network has 2 outputs, expected 1 for the Wasserstein loss";
    says(evaluate(4, &[0, 1], 2), outputs);
    says(evaluate(3, &[0, 1], 1), "logits has shape [3, 1], expected [2, 1]");
    let infinite = Loss::Wasserstein.evaluate(&[0.0, f64::INFINITY], &[0, 1], 1);
    says(infinite, "logits holds inf at flat index 1, expected finite numbers");

    let linear = LayerSpec::Linear { out_features: 2, method: LinearMethod::Bjorck };
    let spec =
        NetworkSpec { input: ImageShape::new(1, 8, 8), layers: vec![LayerSpec::Flatten, linear] };
    let two = Network::new(&spec, DType::F32, &CPU, 0).unwrap();
    says(Trainer::new(two, config()), outputs);

    let images = uniform(&[3, 1, 8, 8], -1.0, 1.0, DType::F32, 3);
    let batch = Batch { images: images.clone(), labels: vec![1, 1, 1] };
    let trainers = [Trainer::new, Trainer::portable];
    for new in trainers {
        let trainer = new(critic(DType::F32, &CPU), config()).unwrap();
        let mut trainer = trainer.epochs_of(1).unwrap();
        says(trainer.step(&batch), &one_sided(0, 3));
        let d = Tensor::zeros((2, 1), DType::F32, &CPU).unwrap();
        says(
            trainer.logits_and_input_gradient(&images, &d),
            "gradient of the logits has shape [2, 1], expected [3, 1]",
        );
    }
}
