//! Training of generators: it learns, resumes to the bit, and refuses what does not fit.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use lipconv::gan::{
    GanConfig, GanEpochReport, GanObserver, GanStepReport, GanTrainer, PlayerConfig,
};
use lipconv::generator::{FrozenGenerator, Generator, GeneratorSpec};
use lipconv::{
    Activation, AdamConfig, Batch, BatchSource, Error, ImageShape, LayerSpec, LinearMethod,
    Methods, Network, NetworkSpec, Optimizer, Outcome, Schedule,
};

use crate::support::{check_close, uniform, values};

const CPU: Device = Device::Cpu;
const IMAGE: ImageShape = ImageShape::new(1, 8, 8);

/// Images whose left half is bright and whose right half is dark, with some noise.
struct Halves {
    dtype: DType,
    batch: usize,
    seed: u64,
}

const BRIGHT: f64 = 0.5;
const DARK: f64 = -0.4;

impl BatchSource for Halves {
    fn n_batches(&self) -> usize {
        6
    }

    fn start_epoch(&mut self, _epoch: usize, seed: u64) {
        self.seed = seed;
    }

    fn batch(&mut self, index: usize) -> lipconv::Result<Batch> {
        let noise = uniform(
            &[self.batch, 1, 8, 8],
            -0.1,
            0.1,
            self.dtype,
            self.seed.wrapping_add(index as u64),
        );
        let rows: Vec<f64> = (0..8).map(|x| if x < 4 { BRIGHT } else { DARK }).collect();
        let rows = Tensor::from_vec(rows, 8, &CPU)?.to_dtype(self.dtype)?;
        Ok(Batch { images: noise.broadcast_add(&rows)?, labels: vec![9; self.batch] })
    }
}

fn halves(dtype: DType) -> Halves {
    Halves { dtype, batch: 16, seed: 0 }
}

fn critic(dtype: DType, methods: Methods) -> Network {
    critic_on(&CPU, dtype, methods)
}

fn critic_on(device: &Device, dtype: DType, methods: Methods) -> Network {
    let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method: methods.conv };
    let linear = LayerSpec::Linear { out_features: 1, method: methods.linear };
    let maxmin = LayerSpec::Activation(Activation::MaxMin);
    let layers = vec![conv(8), maxmin, conv(16), maxmin, LayerSpec::Flatten, linear];
    Network::new(&NetworkSpec { input: IMAGE, layers }, dtype, device, 2).unwrap()
}

fn config(epochs: usize) -> GanConfig {
    let player = PlayerConfig { learning_rate: 5e-3, ..PlayerConfig::default() };
    let critic = PlayerConfig { schedule: Schedule::Linear, ..player };
    GanConfig { epochs, n_critic: 2, critic, generator: player, seed: 4 }
}

fn trainer(dtype: DType, epochs: usize, methods: Methods) -> GanTrainer {
    let spec = GeneratorSpec { latent: 4, hidden: 32, channels: 8, output: IMAGE };
    let generator = Generator::new(&spec, dtype, &CPU, 1).unwrap();
    let trainer = GanTrainer::new(generator, critic(dtype, methods), config(epochs));
    trainer.and_then(|trainer| trainer.epochs_of(6)).unwrap()
}

/// Mean of the left and of the right half of generated images.
fn brightness(generator: &FrozenGenerator) -> [f64; 2] {
    let images = generator.sample(128, 3, 0).unwrap();
    [0, 4].map(|start| {
        let half = images.narrow(3, start, 4).unwrap();
        values(&half.mean_all().unwrap())[0]
    })
}

#[derive(Default)]
struct History {
    steps: Vec<GanStepReport>,
    epochs: Vec<GanEpochReport>,
}

impl GanObserver for History {
    fn after_step(
        &mut self,
        trainer: &GanTrainer,
        report: &GanStepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        assert_eq!(trainer.n_steps(), report.step);
        self.steps.push(*report);
        Ok(ControlFlow::Continue(()))
    }

    fn after_epoch(
        &mut self,
        _: &GanTrainer,
        report: &GanEpochReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        self.epochs.push(*report);
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn a_generator_learns_what_the_data_look_like() {
    // the two play around the data's brightness, less and less far from it as the critic's rate falls
    for dtype in [DType::F32, DType::F64] {
        let mut trainer = trainer(dtype, 60, Methods::BCOP);
        let before = brightness(&trainer.generator().freeze().unwrap());
        let mut history = History::default();
        let outcome = trainer.fit(&mut halves(dtype), &mut history).unwrap();
        assert_eq!((outcome, history.steps.len()), (Outcome::Finished, 360));
        assert!(history.steps.iter().all(|s| s.generator.is_some() == s.step.is_multiple_of(2)));
        let [left, right] = brightness(&trainer.generator().freeze().unwrap());
        let error = (left - BRIGHT).abs().max((right - DARK).abs());
        assert!(error < 0.15, "{before:?} to {left}, {right}");
        let mean = history.epochs[59].objective;
        assert!(mean < 0.5 * history.epochs[1].objective, "{:?}", history.epochs);
        let steps = history.steps[354..].iter().map(|s| s.objective).sum::<f64>() / 6.0;
        assert!((mean - steps).abs() < 1e-9, "the epoch's objective is the mean of its steps'");
    }
}

/// The path of a GPU against the CPU's own, for every method, on every device at hand.
#[test]
fn portable_training_equals_that_of_the_engine() {
    let smooth = Optimizer::Adam(AdamConfig { epsilon: 1e-2, ..AdamConfig::default() });
    let player = PlayerConfig { optimizer: smooth, learning_rate: 1e-3, ..PlayerConfig::default() };
    let config = GanConfig { critic: player, generator: player, ..config(1) };
    let spec = GeneratorSpec { latent: 4, hidden: 32, channels: 8, output: IMAGE };
    for device in &crate::portable::devices() {
        for methods in [Methods::BCOP, Methods::RKO, Methods::OSSN] {
            let generator = |device| Generator::new(&spec, DType::F64, device, 1).unwrap();
            let critic = |device| critic_on(device, DType::F64, methods);
            let engine = GanTrainer::new(generator(&CPU), critic(&CPU), config).unwrap();
            let mut engine = engine.epochs_of(6).unwrap();
            let portable = GanTrainer::portable(generator(device), critic(device), config);
            let mut portable = portable.unwrap().epochs_of(6).unwrap();
            for index in 0..4 {
                let images = halves(DType::F64).batch(index).unwrap().images;
                let expected = engine.step(&images).unwrap();
                let got = portable.step(&images.to_device(device).unwrap()).unwrap();
                assert!((got.objective - expected.objective).abs() < 1e-5, "{got:?}, {expected:?}");
                assert_eq!(got.generator.is_some(), expected.generator.is_some());
            }
            let all = |trainer: &GanTrainer| {
                let variables = trainer.generator().variables();
                let variables = variables.into_iter().chain(trainer.critic().variables());
                let variables = variables.map(|(name, v)| (name, v.as_tensor().clone()));
                variables.chain(trainer.generator().statistics().unwrap()).collect::<Vec<_>>()
            };
            for ((name, expected), (_, got)) in all(&engine).iter().zip(all(&portable)) {
                let what = format!("{name}, {:?} on {device:?}", methods.conv);
                check_close(&what, &got.to_device(&CPU).unwrap(), expected, 1e-9);
            }
            // and its checkpoint goes on where it stopped
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("gan.safetensors");
            portable.save(&path).unwrap();
            let resumed = GanTrainer::resume(&path, device).unwrap();
            let mut resumed = resumed.epochs_of(6).unwrap();
            let images = halves(DType::F64).batch(4).unwrap().images.to_device(device).unwrap();
            let (a, b) = (portable.step(&images).unwrap(), resumed.step(&images).unwrap());
            assert!((a.objective - b.objective).abs() < 1e-5, "{a:?}, {b:?}");
        }
    }
}

struct SaveAndStop {
    after: u64,
    path: PathBuf,
}

impl GanObserver for SaveAndStop {
    fn after_step(
        &mut self,
        trainer: &GanTrainer,
        report: &GanStepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        if report.step < self.after {
            return Ok(ControlFlow::Continue(()));
        }
        trainer.save(&self.path)?;
        Ok(ControlFlow::Break(()))
    }
}

fn bits(trainer: &GanTrainer) -> Vec<u64> {
    let generator = trainer.generator();
    let variables = generator.variables().into_iter().chain(trainer.critic().variables());
    let tensors = variables.map(|(_, v)| v.as_tensor().clone());
    let rest = generator.statistics().unwrap().into_iter().chain(trainer.critic().vectors());
    let all = tensors.chain(rest.map(|(_, t)| t));
    all.flat_map(|t| values(&t)).map(f64::to_bits).collect()
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for (dtype, methods) in [(DType::F32, Methods::BCOP), (DType::F64, Methods::OSSN)] {
        let mut whole = trainer(dtype, 3, methods);
        whole.fit(&mut halves(dtype), &mut ()).unwrap();
        // between two steps of the generator, after one, and at the end of an epoch
        for after in [5, 8, 12] {
            let path = folder.path().join("gan.safetensors");
            let mut first = trainer(dtype, 3, methods);
            let mut observer = SaveAndStop { after, path: path.clone() };
            assert_eq!(first.fit(&mut halves(dtype), &mut observer).unwrap(), Outcome::Stopped);
            drop(first);
            let mut second = GanTrainer::resume(&path, &CPU).unwrap();
            assert_eq!((second.n_steps(), second.config()), (after, whole.config()));
            second.fit(&mut halves(dtype), &mut ()).unwrap();
            assert!(second.is_finished());
            assert_eq!(bits(&second), bits(&whole), "{dtype:?} after {after}");
        }
    }
}

type Entries = Vec<(String, Vec<usize>, Vec<u8>)>;

/// Rewrites the tensors of a file in f32.
fn rewrite(path: &Path, change: impl FnOnce(&mut Entries)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut entries: Entries = tensors
        .iter()
        .map(|(n, v)| (n.to_owned(), v.shape().to_vec(), v.data().to_vec()))
        .collect();
    change(&mut entries);
    let views = entries.iter().map(|(name, shape, data)| {
        let dtype = safetensors::Dtype::F32;
        (name.as_str(), safetensors::tensor::TensorView::new(dtype, shape.clone(), data).unwrap())
    });
    let bytes = safetensors::serialize(views, metadata.metadata().clone()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[track_caller]
fn check_refusals<T>(save: impl Fn(&Path), load: impl Fn(&Path) -> Result<T, Error>, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.safetensors");
    let refusal = |change: &dyn Fn(&mut Entries)| {
        save(&path);
        rewrite(&path, change);
        let text = load(&path).err().unwrap().to_string();
        assert!(text.contains("file.safetensors") && !text.contains('\n'), "{text}");
        text
    };
    let of = |tensors: &mut Entries| tensors.iter().position(|(n, ..)| n == name).unwrap();
    let missing = refusal(&|t| t.retain(|(n, ..)| n != name));
    assert!(missing.contains(&format!("tensor `{name}` is missing")), "{missing}");
    let extra = refusal(&|t| t.push(("linear9.weight".into(), vec![1], vec![0; 4])));
    assert!(extra.contains("unexpected tensor `linear9.weight`"), "{extra}");
    let misshapen = refusal(&|t| {
        let at = of(t);
        t[at].1.reverse();
    });
    assert!(misshapen.contains(&format!("tensor `{name}` has shape")), "{misshapen}");
    let nan = refusal(&|t| {
        let at = of(t);
        t[at].2[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(nan.contains(&format!("tensor `{name}` holds NaN at flat index 1")), "{nan}");
    save(&path);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let text = load(&path).err().unwrap().to_string();
    assert!(text.contains("not a complete safetensors file"), "{text}");
    let mut future = whole;
    let entry = b"\\\"format\\\":";
    let at = future.windows(entry.len()).position(|bytes| bytes == entry).unwrap();
    future[at + entry.len()] = b'7';
    std::fs::write(&path, future).unwrap();
    let text = load(&path).err().unwrap().to_string();
    assert!(text.contains("format version 7, expected 1"), "{text}");
}

#[test]
fn damaged_files_are_refused_by_name() {
    let trainer = trainer(DType::F32, 1, Methods::BCOP);
    let resume = |path: &Path| GanTrainer::resume(path, &CPU);
    let save = |path: &Path| trainer.save(path).unwrap();
    for name in ["conv1.weight", "generator.deconv1.weight", "adam.second.generator.linear1.weight"]
    {
        check_refusals(save, resume, name);
    }
    let frozen = trainer.generator().freeze().unwrap();
    let save = |path: &Path| frozen.save(path).unwrap();
    check_refusals(save, |path| FrozenGenerator::load(path, &CPU), "linear1.weight");
}

#[test]
fn files_of_another_kind_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.safetensors");
    let trainer = trainer(DType::F32, 1, Methods::BCOP);
    trainer.save(&path).unwrap();
    let text = FrozenGenerator::load(&path, &CPU).unwrap_err().to_string();
    assert!(text.ends_with("holds `gan`, expected `generator`"), "{text}");
    let text = lipconv::Trainer::resume(&path, &CPU).unwrap_err().to_string();
    assert!(text.ends_with("holds `gan`, expected `training`"), "{text}");
    trainer.generator().freeze().unwrap().save(&path).unwrap();
    let text = GanTrainer::resume(&path, &CPU).unwrap_err().to_string();
    assert!(text.ends_with("holds `generator`, expected `gan`"), "{text}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let generator = |output, dtype| {
        let spec = GeneratorSpec { latent: 4, hidden: 8, channels: 2, output };
        Generator::new(&spec, dtype, &CPU, 1).unwrap()
    };
    let says = |result: Result<GanTrainer, Error>, text: &str| {
        assert_eq!(result.unwrap_err().to_string(), text);
    };
    let with = |change: fn(&mut GanConfig)| {
        let mut config = config(1);
        change(&mut config);
        let generator = generator(IMAGE, DType::F32);
        GanTrainer::new(generator, critic(DType::F32, Methods::BCOP), config)
    };
    says(with(|c| c.n_critic = 0), "n_critic is 0, expected at least 1");
    says(with(|c| c.epochs = 0), "epochs is 0, expected at least 1");
    says(
        with(|c| c.generator.learning_rate = -1.0),
        "learning_rate is -1, expected a positive number",
    );
    let pair = |output, dtype, critic| GanTrainer::new(generator(output, dtype), critic, config(1));
    let bcop = || critic(DType::F32, Methods::BCOP);
    says(
        pair(ImageShape::new(1, 8, 12), DType::F32, bcop()),
        "image of the generator has shape [1, 8, 12], expected [1, 8, 8]",
    );
    says(pair(IMAGE, DType::F64, bcop()), "generator has dtype f64, expected f32");
    let linear = LayerSpec::Linear { out_features: 2, method: LinearMethod::Bjorck };
    let spec = NetworkSpec { input: IMAGE, layers: vec![LayerSpec::Flatten, linear] };
    let two = Network::new(&spec, DType::F32, &CPU, 0).unwrap();
    says(
        pair(IMAGE, DType::F32, two),
        "the network has 2 outputs, expected 1 for the Wasserstein loss",
    );
}

#[test]
fn a_refused_step_changes_nothing() {
    let mut trainer = trainer(DType::F32, 1, Methods::BCOP);
    let before = bits(&trainer);
    let good = halves(DType::F32).batch(0).unwrap().images;
    let bad = [
        good.narrow(3, 0, 4).unwrap(),
        good.to_dtype(DType::F64).unwrap(),
        good.narrow(0, 0, 1).unwrap(),
        (&good / 0.0).unwrap(),
    ];
    let texts = [
        "batch of images has shape [16, 1, 8, 4], expected [16, 1, 8, 8]",
        "batch of images has dtype f64, expected f32",
        "values in a channel of a batch is 1, expected at least 2",
        "step 1: logits holds",
    ];
    for (images, text) in bad.iter().zip(texts) {
        let error = trainer.step(images).unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
        assert_eq!((bits(&trainer), trainer.n_steps()), (before.clone(), 0));
    }
    // and the run goes on as if nothing had been tried
    let mut fresh = self::trainer(DType::F32, 1, Methods::BCOP);
    let (a, b) = (trainer.step(&good).unwrap(), fresh.step(&good).unwrap());
    assert_eq!((a, bits(&trainer)), (b, bits(&fresh)));
}
