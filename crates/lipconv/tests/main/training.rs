//! Training: both gradient paths agree, the loss falls, layers stay orthogonal.

use std::ops::ControlFlow;

use candle_core::{DType, Device};
use lipconv::train::{EpochReport, Observer, StepReport};
use lipconv::{
    Activation, BatchSource, ConvMethod, ImageShape, InMemory, LayerSpec, LinearMethod, Loss,
    Methods, Network, NetworkSpec, Optimizer, Outcome, Schedule, TrainConfig, Trainer,
};
use ndarray::Array4;

use crate::support::{Stripes, check_close, distance, sum_tolerance, uniform, values};

pub(crate) fn config(epochs: usize) -> TrainConfig {
    TrainConfig {
        epochs,
        learning_rate: 5e-3,
        schedule: Schedule::paper_over(epochs),
        optimizer: Optimizer::default(),
        averaging: lipconv::Averaging::None,
        loss: Loss::MultiClassHinge { margin: 0.7 },
        seed: 5,
    }
}

pub(crate) fn small_spec() -> NetworkSpec {
    NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::BCOP)
}

pub(crate) fn trainer(dtype: DType, epochs: usize) -> Trainer {
    let network = Network::new(&small_spec(), dtype, &Device::Cpu, 7).unwrap();
    Trainer::new(network, config(epochs)).unwrap()
}

pub(crate) fn stripes(dtype: DType) -> Stripes {
    Stripes::new([1, 8, 8], 4, 16, dtype)
}

#[derive(Default)]
struct History {
    losses: Vec<f64>,
    epochs: Vec<EpochReport>,
}

impl Observer for History {
    fn after_step(&mut self, _: &Trainer, report: &StepReport) -> lipconv::Result<ControlFlow<()>> {
        self.losses.push(report.loss);
        Ok(ControlFlow::Continue(()))
    }

    fn after_epoch(
        &mut self,
        _: &Trainer,
        report: &EpochReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        self.epochs.push(*report);
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn training_learns_and_layers_stay_orthogonal() {
    for (dtype, allowed) in [(DType::F32, 1e-5), (DType::F64, 1e-11)] {
        let mut trainer = trainer(dtype, 12);
        let mut history = History::default();
        let outcome = trainer.fit(&mut stripes(dtype), &mut history).unwrap();
        assert_eq!(
            (outcome, history.losses.len(), history.epochs.len()),
            (Outcome::Finished, 60, 12)
        );
        let (first, last) = (history.epochs[0], history.epochs[11]);
        assert!(last.loss < 0.5 * first.loss, "{} to {}", first.loss, last.loss);
        assert!(last.n_correct * 10 >= last.n_samples * 9, "{last:?}");
        let plain = trainer.network().materialize().unwrap();
        for (layer, name) in plain.layers().iter().zip(plain.names()) {
            let bound = layer.lipschitz_bound(name).unwrap().value();
            assert!((bound - 1.0).abs() <= allowed, "{name} after 60 steps: bound {bound}");
        }
    }
}

/// A network outside the block form (MaxMin directly after Flatten) is trained in candle's operations; the
/// same network with the activation before Flatten, where for an even number of channels it does the same,
/// runs on the engine.
#[test]
fn engine_and_graph_train_alike() {
    let conv = LayerSpec::Conv { c_out: 4, kernel_size: 3, stride: 1, method: ConvMethod::Bcop };
    let linear = LayerSpec::Linear { out_features: 4, method: LinearMethod::Bjorck };
    let engine = vec![conv, LayerSpec::Activation(Activation::MaxMin), LayerSpec::Flatten, linear];
    let graph = vec![conv, LayerSpec::Flatten, LayerSpec::Activation(Activation::MaxMin), linear];
    for dtype in [DType::F32, DType::F64] {
        let run = |layers: &[LayerSpec]| {
            let spec = NetworkSpec { input: ImageShape::new(1, 8, 8), layers: layers.to_vec() };
            let network = Network::new(&spec, dtype, &Device::Cpu, 3).unwrap();
            let mut trainer = Trainer::new(network, config(2)).unwrap().epochs_of(5).unwrap();
            let mut source = stripes(dtype);
            source.start_epoch(0, 1);
            for n in 0..3 {
                let batch = source.batch(n).unwrap();
                trainer.step(&batch).unwrap();
            }
            trainer.into_network().variables()
        };
        for ((name, a), (_, b)) in run(&engine).iter().zip(run(&graph)) {
            // Adam divides by the gradient's own size: a few roundings of it move a value by a few times the rate
            let allowed = sum_tolerance(dtype, 1 << 12, 1.0);
            check_close(&format!("{name} {dtype:?}"), a, &b, allowed);
        }
    }
}

/// Norms of the first kernel of a network on 8 x 8 images, after every step.
struct FirstNorms(Vec<f64>);

impl Observer for FirstNorms {
    fn after_step(
        &mut self,
        trainer: &Trainer,
        _: &StepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        let kernel = trainer.network().variables()[0].1.as_tensor().clone();
        let kernel = Array4::from_shape_vec(kernel.dims4()?, values(&kernel)).unwrap();
        let sigma = blockconv::spectrum::layer_singular_values(kernel.view(), (4, 4)).unwrap();
        self.0.push(sigma.iter().fold(0.0, |m, s| s.max(m)));
        Ok(ControlFlow::Continue(()))
    }
}

/// Kernels leave the unit ball within an epoch at a high rate, and are back before anyone looks between two epochs.
#[test]
fn svcm_projects_after_the_first_and_the_last_batch_of_an_epoch() {
    let spec = NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::SVCM);
    let network = Network::new(&spec, DType::F64, &Device::Cpu, 7).unwrap();
    let settings = TrainConfig { learning_rate: 0.2, schedule: Schedule::Constant, ..config(3) };
    let mut norms = FirstNorms(Vec::new());
    let mut trainer = Trainer::new(network, settings).unwrap();
    trainer.fit(&mut stripes(DType::F64), &mut norms).unwrap();
    assert_eq!(norms.0.len(), 15);
    for epoch in norms.0.chunks(5) {
        let [first, second, _, fourth, last] = epoch else { unreachable!() };
        assert!(*first < 1.02 && *last < 1.02, "not projected: {epoch:?}");
        assert!(*second > 1.02 && *fourth > 1.02, "the rate is too low to tell: {epoch:?}");
    }
}

#[test]
fn schedules_end_where_the_paper_ends() {
    let paper = Schedule::paper_over(200).factor(199, 0, 1);
    let short = Schedule::paper_over(20).factor(20, 0, 1);
    assert!((paper - lipconv::optim::PAPER_GAMMA.powi(199)).abs() < 1e-12);
    assert!((short - lipconv::optim::PAPER_GAMMA.powi(200)).abs() < 1e-12);
    assert!((Schedule::Linear.factor(0, 50, 100) - 0.5).abs() < 1e-15);
}

#[test]
fn the_cosine_rises_and_falls() {
    let cosine = Schedule::Cosine { warm_up: 0.0 };
    for (step, expected) in [(0, 1.0), (25, 0.853_553_390_593_273_8), (50, 0.5), (100, 0.0)] {
        let got = cosine.factor(0, step, 100);
        assert!((got - expected).abs() < 1e-15, "step {step}: {got}");
    }
    let warm = Schedule::Cosine { warm_up: 0.2 };
    for step in 0..100 {
        let rising = ((step + 1) as f64 / 20.0).min(1.0);
        let expected = rising * cosine.factor(0, step, 100);
        assert!((warm.factor(0, step, 100) - expected).abs() < 1e-15, "step {step}");
    }
    // a warm-up shorter than a step is none
    assert_eq!(Schedule::Cosine { warm_up: 1e-9 }.factor(0, 0, 100), 1.0);
}

#[test]
fn an_observer_stops_the_run() {
    struct Stop;
    impl Observer for Stop {
        fn after_step(
            &mut self,
            _: &Trainer,
            report: &StepReport,
        ) -> lipconv::Result<ControlFlow<()>> {
            Ok(if report.step == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        }
    }
    let mut trainer = trainer(DType::F32, 3);
    assert_eq!(trainer.fit(&mut stripes(DType::F32), &mut Stop).unwrap(), Outcome::Stopped);
    assert_eq!(trainer.n_steps(), 7);
}

#[test]
fn data_in_memory_is_shuffled_by_its_seed_and_complete() {
    let images = uniform(&[7, 2], 0.0, 1.0, DType::F32, 1);
    let labels = vec![0, 1, 2, 3, 4, 5, 6];
    let mut source = InMemory::new(images.clone(), labels, 3).unwrap();
    assert_eq!(source.n_batches(), 3);
    let mut epoch = |seed: u64| {
        source.start_epoch(0, seed);
        let batches = (0..3).map(|index| source.batch(index).unwrap()).collect::<Vec<_>>();
        let sizes = batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>();
        assert_eq!(sizes, [3, 3, 1]);
        for batch in &batches {
            for (place, &label) in batch.labels.iter().enumerate() {
                let original = images.get(label as usize).unwrap();
                assert_eq!(distance(&batch.images.get(place).unwrap(), &original), 0.0);
            }
        }
        batches.into_iter().flat_map(|batch| batch.labels).collect::<Vec<_>>()
    };
    let (first, again, other) = (epoch(1), epoch(1), epoch(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let mut sorted = first.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
    let error = source.batch(3).unwrap_err().to_string();
    assert_eq!(error, "index of a batch is 3, expected less than the number of batches");
    let error = InMemory::new(images.clone(), vec![0], 3).unwrap_err().to_string();
    assert_eq!(error, "labels has shape [1], expected [7]");
    let error = InMemory::new(images, vec![0; 7], 0).unwrap_err().to_string();
    assert_eq!(error, "batch size is 0, expected at least 1");
}

/// Points go in as they are, with and without the two axes of an image.
#[test]
fn points_are_inputs() {
    let points = uniform(&[6, 2], -1.0, 1.0, DType::F64, 1);
    let images = points.reshape((6, 2, 1, 1)).unwrap();
    let spec = NetworkSpec::fc3(ImageShape::vector(2), 2, Methods::BCOP);
    let network = Network::new(&spec, DType::F64, &Device::Cpu, 0).unwrap();
    let plain = network.materialize().unwrap();
    let y = network.forward(&images).unwrap();
    assert_eq!(distance(&network.forward(&points).unwrap(), &y), 0.0);
    let tolerance = sum_tolerance(DType::F64, 1024, 1.0);
    check_close("plain", &plain.forward(&points).unwrap(), &y, tolerance);
    check_close("recorded", plain.record(&points).unwrap().logits(), &y, tolerance);
    let mut trainer =
        Trainer::new(network, TrainConfig { epochs: 1, ..Default::default() }).unwrap();
    let mut source = InMemory::new(points, vec![0, 1, 0, 1, 0, 1], 4).unwrap();
    trainer.fit(&mut source, &mut ()).unwrap();
    assert_eq!(trainer.n_steps(), 2);
}

/// candle's optimizers get no gradient for a weight that is not to be trained.
#[test]
fn fixed_weights_have_no_gradient() {
    let spec = NetworkSpec::small(ImageShape::new(1, 8, 8), 4, Methods::BCOP_FIXED);
    let network = Network::new(&spec, DType::F64, &Device::Cpu, 0).unwrap();
    let images = uniform(&[2, 1, 8, 8], 0.0, 1.0, DType::F64, 1);
    let gradients = network.forward(&images).unwrap().sum_all().unwrap().backward().unwrap();
    let trained = network.trained_variables();
    let names = trained.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    let expected = [
        "conv1.bias",
        "conv2.bias",
        "linear1.weight",
        "linear1.bias",
        "linear2.weight",
        "linear2.bias",
    ];
    assert_eq!(names, expected);
    for (name, variable) in network.variables() {
        let is_trained = names.contains(&name.as_str());
        assert_eq!(gradients.get(variable.as_tensor()).is_some(), is_trained, "{name}");
    }
}
