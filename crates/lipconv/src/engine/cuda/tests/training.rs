//! Whole runs by [`Trainer`] on the engine against the CPU's: steps, epochs, checkpoints, failures.

use super::factors::conditioned;
use super::*;
use crate::optim::{Averaging, NAdamConfig};
use crate::train::{BatchSource, Observer, ResidentImages};
use crate::{AdamConfig, EpochReport, Outcome, StepReport};

const INPUT: ImageShape = ImageShape { channels: 3, height: 8, width: 6 };

/// 14 images of bytes in batches of 6, of which the last has 2; cuts and mirror images by the number of the epoch.
struct Bytes {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    epoch: usize,
    /// Whether a device may keep the images.
    is_resident: bool,
}

const N_IMAGES: usize = 14;
const BATCH: usize = 6;

impl Bytes {
    fn new(is_resident: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let pixels = (0..N_IMAGES * INPUT.n_values()).map(|_| rng.random()).collect();
        let labels = (0..N_IMAGES).map(|i| (i % 5) as u8).collect();
        Self { pixels, labels, epoch: 0, is_resident }
    }

    fn chosen(&self, index: usize) -> Vec<Sample> {
        let sample = |i: usize| Sample {
            image: ((i * 5 + self.epoch) % N_IMAGES) as u32,
            shift: (i as i16 % 3 - 1, (i + self.epoch) as i16 % 2),
            mirrored: (i + self.epoch).is_multiple_of(2),
        };
        (index * BATCH..((index + 1) * BATCH).min(N_IMAGES)).map(sample).collect()
    }
}

impl BatchSource for Bytes {
    fn n_batches(&self) -> usize {
        N_IMAGES.div_ceil(BATCH)
    }

    fn start_epoch(&mut self, epoch: usize, _: u64) {
        self.epoch = epoch;
    }

    fn batch(&mut self, index: usize) -> Result<Batch> {
        let samples = self.chosen(index);
        let values: Vec<f32> =
            samples.iter().flat_map(|&sample| cut(&self.pixels, INPUT, sample)).collect();
        let shape = (samples.len(), INPUT.channels, INPUT.height, INPUT.width);
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let labels = samples.iter().map(|s| u32::from(self.labels[s.image as usize])).collect();
        Ok(Batch { images, labels })
    }

    fn resident(&self) -> Option<ResidentImages<'_>> {
        let (pixels, labels) = (self.pixels.as_slice(), self.labels.as_slice());
        self.is_resident.then_some(ResidentImages { pixels, labels, batch_size: BATCH })
    }

    fn samples(&mut self, index: usize) -> Result<Vec<Sample>> {
        Ok(self.chosen(index))
    }
}

/// What an observer has seen, and the step after which it stops.
#[derive(Default)]
struct Seen {
    steps: Vec<StepReport>,
    epochs: Vec<EpochReport>,
    stop_after: Option<u64>,
    at_once: usize,
}

impl Observer for Seen {
    fn steps_between(&self) -> usize {
        self.at_once
    }

    fn after_step(
        &mut self,
        _: &Trainer,
        report: &StepReport,
    ) -> Result<std::ops::ControlFlow<()>> {
        self.steps.push(*report);
        Ok(match self.stop_after {
            Some(step) if step == report.step => std::ops::ControlFlow::Break(()),
            _ => std::ops::ControlFlow::Continue(()),
        })
    }

    fn after_epoch(
        &mut self,
        _: &Trainer,
        report: &EpochReport,
    ) -> Result<std::ops::ControlFlow<()>> {
        self.epochs.push(*report);
        Ok(std::ops::ControlFlow::Continue(()))
    }
}

/// A run whose epochs have three batches.
fn of_three(network: Network, config: TrainConfig) -> Trainer {
    let trainer = Trainer::new(network, config).expect("a trainer");
    trainer.epochs_of(3).expect("three batches")
}

fn on_device(trainer: Trainer) -> Trainer {
    let trainer = trainer.on_cuda(place()).expect("a network that the engine runs");
    assert_eq!(trainer.path(), "CUDA engine");
    trainer
}

fn trained(trainer: &Trainer) -> Vec<Vec<f32>> {
    let network = trainer.network();
    let variables = network.variables().into_iter().map(|(_, v)| values(v.as_tensor()));
    variables.chain(network.vectors().into_iter().map(|(_, v)| values(&v))).collect()
}

/// A run on the CPU and one on the device: losses of every step and the parameters at the end.
#[track_caller]
fn check_run(name: &str, spec: &NetworkSpec, config: TrainConfig) {
    let (mut on_cpu, mut seen) = (Seen::default(), Seen::default());
    let mut cpu = Trainer::new(network(spec), config).expect("a trainer");
    cpu.fit(&mut Bytes::new(false), &mut on_cpu).expect("the CPU's run");
    let mut device = on_device(Trainer::new(network(spec), config).expect("a trainer"));
    device.fit(&mut Bytes::new(true), &mut seen).expect("the device's run");
    assert_eq!(on_cpu.steps.len(), seen.steps.len(), "{name}");
    // the rounding of a step moves the parameters of the next ones
    for (expected, got) in on_cpu.steps.iter().zip(&seen.steps) {
        let allowed =
            40.0 * got.step as f64 * rounding(INPUT.n_values()) * expected.loss.abs().max(0.1);
        let apart = (got.loss - expected.loss).abs();
        assert!(apart <= allowed, "{name}: {got:?}, {expected:?}, {apart:e} > {allowed:e}");
        assert_eq!(
            (got.epoch, got.batch, got.n_samples),
            (expected.epoch, expected.batch, expected.n_samples)
        );
        assert_eq!(got.learning_rate, expected.learning_rate, "{name}");
    }
    for (got, expected) in seen.epochs.iter().zip(&on_cpu.epochs) {
        assert!(got.n_correct.abs_diff(expected.n_correct) <= 1, "{name}: {got:?}, {expected:?}");
    }
    let pairs = trained(&device).into_iter().zip(trained(&cpu));
    for (n, (got, expected)) in pairs.enumerate() {
        let apart = distance(&got, &expected);
        assert!(apart <= 0.02, "{name}: variable {n} is {apart:e} apart");
    }
    let averaged = |trainer: &Trainer| -> Vec<f32> {
        let network = trainer.averaged_network().expect("an average");
        network.variables().iter().flat_map(|(_, v)| values(v.as_tensor())).collect()
    };
    let apart = distance(&averaged(&device), &averaged(&cpu));
    assert!(apart <= 0.02, "{name}: averages are {apart:e} apart");
}

fn two_epochs(optimizer: Optimizer, averaging: Averaging) -> TrainConfig {
    // ε so large that a rounding error in a small gradient moves nothing
    let schedule = Schedule::Cosine { warm_up: 0.3 };
    TrainConfig { epochs: 2, learning_rate: 2e-3, schedule, averaging, ..config(optimizer) }
}

fn adam() -> Optimizer {
    Optimizer::Adam(AdamConfig { epsilon: 1e-3, ..AdamConfig::default() })
}

#[test]
fn runs_of_all_methods_are_the_cpus() {
    for method in methods() {
        let spec = small(INPUT, method, MAX_MIN);
        check_run(method.name(), &spec, two_epochs(adam(), Averaging::None));
    }
}

#[test]
fn runs_of_all_optimisers_averages_and_losses_are_the_cpus() {
    let optimizers = [
        Optimizer::RmsProp(RmsPropConfig { epsilon: 1e-2, ..Default::default() }),
        Optimizer::NAdam(NAdamConfig { epsilon: 1e-3, ..Default::default() }),
        adam(),
    ];
    let averagings = [
        Averaging::Exponential { decay: 0.7 },
        Averaging::Lookahead { period: 2, rate: 0.5 },
        Averaging::None,
    ];
    let radius = Some(TrainingRadius { start: 0.05, end: 0.3 });
    let loss = |annealing, radius| {
        Loss::CrossEntropy(CrossEntropy { offset: 0.2, temperature: 0.3, annealing, radius })
    };
    let losses = [loss(0.0, radius), loss(2.0, None), loss(2.0, radius)];
    let mut spec = small(INPUT, ConvMethod::Bcop, MAX_MIN);
    let last = spec.layers.len() - 1;
    spec.layers[last] = linear(5, LinearMethod::Lln);
    for ((optimizer, averaging), loss) in optimizers.into_iter().zip(averagings).zip(losses) {
        let config = TrainConfig { loss, ..two_epochs(optimizer, averaging) };
        check_run(&format!("{optimizer:?} {averaging:?} {loss:?}"), &spec, config);
    }
}

/// Images that the device keeps and images that the host sends; stopped, saved and resumed, there or on the device: the same bits.
#[test]
fn a_run_is_saved_and_resumed_to_the_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.safetensors");
    for method in [ConvMethod::Bcop, ConvMethod::Ossn, ConvMethod::Svcm] {
        let averaging = Averaging::Lookahead { period: 2, rate: 0.5 };
        let config = two_epochs(adam(), averaging);
        let spec = small(INPUT, method, MAX_MIN);
        let fresh = || on_device(Trainer::new(network(&spec), config).expect("a trainer"));
        let mut whole = fresh();
        let mut seen = Seen::default();
        whole.fit(&mut Bytes::new(true), &mut seen).expect("a run");
        let mut sent = fresh();
        let mut others = Seen::default();
        sent.fit(&mut Bytes::new(false), &mut others).expect("a run");
        assert_eq!(others.steps, seen.steps, "{method}");
        assert_eq!(trained(&sent), trained(&whole), "{method}");
        for stop_after in [1, 3, 4] {
            let mut first = fresh();
            let mut part = Seen { stop_after: Some(stop_after), ..Seen::default() };
            let outcome = first.fit(&mut Bytes::new(true), &mut part).expect("a run");
            assert_eq!((outcome, first.n_steps()), (Outcome::Stopped, stop_after));
            first.save(&path).expect("saved");
            let mut second = on_device(Trainer::resume(&path, &Device::Cpu).expect("resumed"));
            second.fit(&mut Bytes::new(true), &mut part).expect("a run");
            assert_eq!(part.steps, seen.steps, "{method}, {stop_after}");
            assert_eq!(trained(&second), trained(&whole), "{method}, {stop_after}");
            let average = |trainer: &Trainer| trainer.state().expect("read").moments;
            for (got, expected) in average(&second).iter().zip(average(&whole)) {
                let got: Vec<_> = got.iter().map(values).collect();
                assert_eq!(got, expected.iter().map(values).collect::<Vec<_>>(), "{method}");
            }
            // on the CPU the same run goes on, too
            let mut third = Trainer::resume(&path, &Device::Cpu).expect("resumed");
            third.fit(&mut Bytes::new(true), &mut ()).expect("a run");
            assert!(third.is_finished());
        }
    }
}

/// However many steps go by between two looks: the same steps, the same bits. A stop comes after the steps of one look.
#[test]
fn steps_between_two_looks_are_the_same_steps() {
    let averaging = Averaging::Exponential { decay: 0.7 };
    let radius = Some(TrainingRadius { start: 0.05, end: 0.3 });
    let loss =
        Loss::CrossEntropy(CrossEntropy { offset: 0.2, temperature: 0.3, annealing: 0.0, radius });
    for method in [ConvMethod::Bcop, ConvMethod::Ossn, ConvMethod::Svcm] {
        let mut spec = small(INPUT, method, MAX_MIN);
        let last = spec.layers.len() - 1;
        spec.layers[last] = linear(5, LinearMethod::Lln);
        let config = TrainConfig { loss, ..two_epochs(adam(), averaging) };
        let run = |at_once: usize, stop_after: Option<u64>| {
            let mut trainer = on_device(Trainer::new(network(&spec), config).expect("a trainer"));
            let mut seen = Seen { at_once, stop_after, ..Seen::default() };
            let outcome = trainer.fit(&mut Bytes::new(true), &mut seen).expect("a run");
            (outcome, seen, trainer)
        };
        let (_, one_by_one, trainer) = run(1, None);
        for at_once in [0, 2, 3, 100] {
            let (outcome, seen, other) = run(at_once, None);
            assert_eq!(outcome, Outcome::Finished);
            assert_eq!(seen.steps, one_by_one.steps, "{method}, {at_once}");
            assert_eq!(seen.epochs, one_by_one.epochs, "{method}, {at_once}");
            assert_eq!(trained(&other), trained(&trainer), "{method}, {at_once}");
        }
        let (outcome, seen, stopped) = run(2, Some(1));
        // SVCM clips after the first step of an epoch, which the host does between two looks
        let together = if method == ConvMethod::Svcm { 1 } else { 2 };
        assert_eq!((outcome, stopped.n_steps()), (Outcome::Stopped, together));
        assert_eq!(seen.steps.len() as u64, together);
    }
}

/// A step that fails between two looks: those before it count, it and those after it have not been.
#[test]
fn a_step_that_fails_between_two_looks_is_named() {
    let config = TrainConfig { learning_rate: 1e38, ..two_epochs(adam(), Averaging::None) };
    let mut spec = small(INPUT, ConvMethod::Unconstrained, MAX_MIN);
    let last = spec.layers.len() - 1;
    spec.layers[last] = linear(5, LinearMethod::Unconstrained);
    let run = |at_once: usize| {
        let mut trainer = on_device(Trainer::new(network(&spec), config).expect("a trainer"));
        let mut seen = Seen { at_once, ..Seen::default() };
        let error = trainer.fit(&mut Bytes::new(true), &mut seen).expect_err("it diverges");
        let Error::Step { step, source } = error else { panic!("{error}") };
        let numeric =
            matches!(*source, Error::NonFiniteSomewhere { .. } | Error::Orthonormalisation { .. });
        assert!(numeric, "{source}");
        assert_eq!((trainer.n_steps() + 1, seen.steps.len() as u64 + 1), (step, step));
        (seen.steps, trained(&trainer))
    };
    let one_by_one = run(1);
    assert!(!one_by_one.0.is_empty(), "the first step is finite");
    assert_eq!(run(3), one_by_one);
}

/// A matrix that needs more steps than the quickest level has: the step is done with more, and a resumed run begins with as many.
#[test]
fn levels_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.safetensors");
    let spec = small(INPUT, ConvMethod::Bcop, MAX_MIN);
    let network = network(&spec);
    let linear1 = network.parameters().nth(2).expect("two convolutions before it");
    let (rows, columns) = linear1.weight.dims2().expect("a matrix");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let stretched = conditioned(rows, columns, 300.0, &mut rng).mapv(|x| x as f32);
    let stretched = Tensor::from_iter(stretched, &Device::Cpu).expect("a tensor");
    linear1.weight.set(&stretched.reshape((rows, columns)).expect("r x c")).expect("set");
    let config = two_epochs(adam(), Averaging::None);
    let mut trainer = on_device(of_three(network, config));
    let mut source = Bytes::new(false);
    let batch = source.batch(0).expect("a batch");
    trainer.step(&batch).expect("a step");
    assert_eq!(trainer.levels(), [0, 0, 1, 0]);
    trainer.save(&path).expect("saved");
    let resumed = on_device(Trainer::resume(&path, &Device::Cpu).expect("resumed"));
    assert_eq!(resumed.levels(), [0, 0, 1, 0]);
    let elsewhere = resumed.into_portable().expect("candle's operations");
    assert_eq!((elsewhere.path(), elsewhere.levels()), ("candle's operations", vec![0, 0, 1, 0]));
}

#[test]
fn variables_that_are_changed_count_from_the_next_step_on() {
    let config = two_epochs(adam(), Averaging::None);
    let spec = small(INPUT, ConvMethod::Bcop, MAX_MIN);
    let trainers = || {
        let fresh = || of_three(network(&spec), config);
        [fresh(), on_device(fresh())]
    };
    let losses = trainers().map(|mut trainer| {
        let batch = Bytes::new(false).batch(0).expect("a batch");
        let loss = |trainer: &mut Trainer| trainer.step(&batch).expect("a step").loss;
        loss(&mut trainer);
        let (_, bias) = trainer.network().variables().pop().expect("a last bias");
        let before = bias.as_tensor().copy().expect("a copy");
        let fresh = Tensor::new(&[0.0_f32, 3.0, 0.0, 0.0, 0.0], &Device::Cpu).expect("a bias");
        bias.set(&fresh).expect("set");
        let changed = loss(&mut trainer);
        trainer.network().variables().pop().expect("a last bias").1.set(&before).expect("set");
        [changed, loss(&mut trainer)]
    });
    for (expected, got) in losses[0].iter().zip(losses[1]) {
        assert!((expected - got).abs() <= 1e-3 * expected, "{losses:?}");
    }
    assert!(losses[0][0] > 1.5 * losses[0][1], "the bias has no influence: {losses:?}");
}

/// A failing step names the step and changes nothing that is kept; the run goes on as if it had not been.
#[test]
fn a_failing_step_of_a_run_changes_nothing() {
    let averaging = Averaging::Exponential { decay: 0.5 };
    let config = two_epochs(adam(), averaging);
    let spec = small(INPUT, ConvMethod::Ossn, MAX_MIN);
    let fresh = || on_device(of_three(network(&spec), config));
    let batches: Vec<Batch> =
        (0..3).map(|n| Bytes::new(false).batch(n).expect("a batch")).collect();
    let mut bad = batches[1].clone();
    bad.images = (&bad.images * f64::NAN).expect("a product");
    let mut expected = fresh();
    let mut got = fresh();
    for (n, batch) in batches.iter().enumerate() {
        expected.step(batch).expect("a step");
        let error = got.step(&bad).expect_err("NaN");
        let Error::Step { step, source } = error else { panic!("{error}") };
        assert_eq!(step, n as u64 + 1);
        assert!(matches!(*source, Error::NonFiniteSomewhere { .. }), "{source}");
        got.step(batch).expect("a step");
    }
    assert_eq!(trained(&got), trained(&expected));
    let state = |trainer: &Trainer| -> Vec<Vec<f32>> {
        trainer.state().expect("read").moments.iter().flatten().map(values).collect()
    };
    assert_eq!(state(&got), state(&expected));
    let mut wrong = batches[0].clone();
    wrong.labels[2] = 5;
    assert!(matches!(
        got.step(&wrong),
        Err(Error::LabelOutOfRange { index: 2, label: 5, n_classes: 5 })
    ));
}

/// A device that records no graphs does the same operations one by one.
#[test]
fn a_device_without_graphs_takes_the_same_steps() {
    let config = two_epochs(adam(), Averaging::None);
    let spec = small(INPUT, ConvMethod::Bcop, MAX_MIN);
    let losses = [true, false].map(|takes_graphs| {
        let place = Place::Emulated(Emulated { takes_graphs, ..Emulated::default() });
        let trainer = Trainer::new(network(&spec), config).expect("a trainer");
        let mut trainer = trainer.on_cuda(place).expect("a device");
        let mut seen = Seen::default();
        trainer.fit(&mut Bytes::new(true), &mut seen).expect("a run");
        (seen.steps, trained(&trainer))
    });
    assert_eq!(losses[0], losses[1]);
}

#[test]
fn a_device_without_memory_says_so() {
    let config = two_epochs(adam(), Averaging::None);
    let place = Place::Emulated(Emulated { memory: 200_000, ..Emulated::default() });
    let spec = small(INPUT, ConvMethod::Bcop, MAX_MIN);
    let trainer = of_three(network(&spec), config);
    let mut trainer = trainer.on_cuda(place).expect("a device");
    let batch = Bytes::new(false).batch(0).expect("a batch");
    let error = trainer.step(&batch).expect_err("no room");
    let Error::Step { step: 1, source } = &error else { panic!("{error}") };
    let text = source.to_string();
    assert!(matches!(**source, Error::Device { doing: "allocate memory", .. }), "{text}");
    assert!(text.contains("200") || text.contains("out of memory"), "{text}");
    // nothing has been done, and the run goes on elsewhere
    let mut trainer = trainer.into_portable().expect("candle's operations");
    assert_eq!(trainer.step(&batch).expect("a step").step, 1);
}

/// Batches that grow need a larger engine, which takes over everything.
#[test]
fn a_larger_batch_makes_a_larger_engine() {
    let config = two_epochs(adam(), Averaging::Exponential { decay: 0.5 });
    let spec = small(INPUT, ConvMethod::Ossn, MAX_MIN);
    let batches: Vec<Batch> =
        [2, 6, 4].into_iter().map(|n| super::batch(INPUT, n, 5, n as u64)).collect();
    let run = |first: usize| {
        let mut trainer = on_device(of_three(network(&spec), config));
        if first > 0 {
            // an engine that is large from the start
            let images = super::batch(INPUT, first, 5, 9).images;
            let d = Tensor::ones((first, 5), DType::F32, &Device::Cpu).expect("ones");
            trainer.logits_and_input_gradient(&images, &d).expect("a gradient");
        }
        for batch in &batches {
            trainer.step(batch).expect("a step");
        }
        trained(&trainer)
    };
    assert_eq!(run(0), run(6));
}
