//! What is fuzzed: each reader of files that others may have written, as the commands call it.
//!
//! A reader returns the refusal as a text. It panics where it finds the product at fault, for example when two readers of one file
//! disagree.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use bench_apps::config::{DeviceKind, RunConfig};
use bench_apps::files::RunFiles;
use bench_apps::jobs::job::{Choice, Job, JobResult};
use bench_apps::jobs::spec::Experiment;
use candle_core::{DType, Device, Tensor};
use certify::verify::{Data, Selection, outline, verify};
use certify::{Certifier, Pixels};
use lipconv::gan::{GanObserver, GanStepReport, GanTrainer};
use lipconv::generator::FrozenGenerator;
use lipconv::train::{Observer, StepReport};
use lipconv::{Batch, BatchSource, ImageShape, PlainNetwork, Trainer};
use lipconv_datasets::{
    Cifar10Files, Manifest, MnistFiles, Stl10Files, Stl10Part, decode_image, flat_folder,
    has_colour, idx_folder, image_folder, images_below,
};

/// A kind of file.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Folders below the crate's.
    pub(crate) seeds: &'static [&'static str],
    /// The end of the names of the files that count; all where empty.
    pub(crate) ends: &'static [&'static str],
    pub(crate) read: fn(&Path) -> Result<()>,
}

pub(crate) const TARGETS: [Target; 14] = [
    Target { name: "idx", seeds: &["examples/fuzz/seeds/idx"], ends: &[], read: idx },
    Target { name: "cifar10", seeds: &["examples/fuzz/seeds/cifar10"], ends: &[], read: cifar10 },
    Target { name: "stl10", seeds: &["examples/fuzz/seeds/stl10"], ends: &[], read: stl10 },
    Target { name: "images", seeds: &["examples/fuzz/seeds/images"], ends: &[], read: images },
    Target { name: "onnx", seeds: &["../interchange/tests/data"], ends: &[".onnx"], read: onnx },
    Target {
        name: "description",
        seeds: &["examples/fuzz/seeds/description"],
        ends: &[],
        read: description,
    },
    Target { name: "weights", seeds: &["examples/fuzz/seeds/weights"], ends: &[], read: weights },
    Target {
        name: "checkpoint",
        seeds: &["examples/fuzz/seeds/checkpoint"],
        ends: &[],
        read: checkpoint,
    },
    Target { name: "gan", seeds: &["examples/fuzz/seeds/gan"], ends: &[], read: gan },
    Target {
        name: "certificate",
        seeds: &["examples/fuzz/seeds/certificate"],
        ends: &[],
        read: certificate,
    },
    Target {
        name: "config",
        seeds: &["examples/configs", "tests/data/v0.1/run"],
        ends: &[".toml"],
        read: config,
    },
    Target {
        name: "experiment",
        seeds: &["../../experiments"],
        ends: &["table1.toml", "table3.toml", "table4.toml", "figure2.toml", "default.toml"],
        read: experiment,
    },
    Target {
        name: "manifest",
        seeds: &["../datasets/manifests"],
        ends: &[".toml"],
        read: manifest,
    },
    Target {
        name: "records",
        seeds: &["tests/data/v0.1"],
        ends: &[
            "config.toml",
            "versions.json",
            "metrics.jsonl",
            "data.json",
            "cell.json",
            "result.json",
        ],
        read: records,
    },
];

static MNIST: LazyLock<Manifest> = LazyLock::new(|| Manifest::mnist().expect("compiled in"));
static CIFAR10: LazyLock<Manifest> = LazyLock::new(|| Manifest::cifar10().expect("compiled in"));
static STL10: LazyLock<Manifest> = LazyLock::new(|| Manifest::stl10().expect("compiled in"));

/// Larger networks are loaded and not run.
const LARGEST: usize = 4096;

fn idx(dir: &Path) -> Result<()> {
    if let Some(files) = MnistFiles::find(dir) {
        // as MNIST, which has ten classes; its own shape is not asked for
        let _ = files.load(&MNIST);
    }
    idx_folder(dir)?;
    Ok(())
}

fn cifar10(dir: &Path) -> Result<()> {
    let files = Cifar10Files::find(dir).context("not found")?;
    files.load(&CIFAR10)?;
    Ok(())
}

fn stl10(dir: &Path) -> Result<()> {
    let files = Stl10Files::find(dir).context("not found")?;
    let _ = files.read(Stl10Part::Unlabeled, 32);
    files.load(&STL10)?;
    Ok(())
}

fn images(dir: &Path) -> Result<()> {
    for path in images_below(dir)?.0 {
        // the header and the whole tell the same
        if let (Ok(colour), Ok(picture)) = (has_colour(&path), decode_image(&path)) {
            assert_eq!(colour, picture.shape[0] == 3, "{}", path.display());
        }
    }
    let _ = flat_folder(dir, Some((4, 4)), 1);
    image_folder(dir)?;
    Ok(())
}

fn weights(dir: &Path) -> Result<()> {
    let path = dir.join("network.safetensors");
    let network = match PlainNetwork::load(&path, &Device::Cpu) {
        Err(error) if error.to_string().contains("`generator`") => return generator(&path),
        network => network?,
    };
    if network.input().n_values() <= LARGEST {
        let images = zeros(1, network.input(), network.dtype())?;
        network.forward(&images)?;
        Certifier::new(&network)?.certify(&images, &[0])?;
    }
    Ok(())
}

/// What is read is a network that runs; written and read again it is the same.
fn onnx(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let network = interchange::from_onnx(&fs::read(entry?.path())?)?.network;
        let again = interchange::from_onnx(&interchange::to_onnx(&network)?)?.network;
        assert_eq!(network.names(), again.names());
        if network.input().n_values() <= LARGEST {
            network.forward(&zeros(1, network.input(), network.dtype())?)?;
        }
    }
    Ok(())
}

/// Weights of another program, with their layers as TOML.
fn description(dir: &Path) -> Result<()> {
    let text = String::from_utf8(fs::read(dir.join("model.toml"))?)?;
    let weights = fs::read(dir.join("network.safetensors"))?;
    let network = interchange::described(&toml::from_str(&text)?, &weights)?;
    if network.input().n_values() <= LARGEST {
        network.forward(&zeros(1, network.input(), network.dtype())?)?;
    }
    Ok(())
}

fn generator(path: &Path) -> Result<()> {
    let generator = FrozenGenerator::load(path, &Device::Cpu)?;
    if generator.spec().output.n_values() <= LARGEST {
        generator.sample(2, 0, 0)?;
    }
    Ok(())
}

fn zeros(n: usize, input: ImageShape, dtype: DType) -> Result<Tensor> {
    Ok(Tensor::zeros((n, input.channels, input.height, input.width), dtype, &Device::Cpu)?)
}

/// Black images of class 0 or 1.
struct Black(Batch);

impl BatchSource for Black {
    fn n_batches(&self) -> usize {
        5
    }

    fn start_epoch(&mut self, _: usize, _: u64) {}

    fn batch(&mut self, _: usize) -> lipconv::Result<Batch> {
        Ok(self.0.clone())
    }
}

/// Stops after the second step.
struct Two(usize);

impl Observer for Two {
    fn after_step(&mut self, _: &Trainer, _: &StepReport) -> lipconv::Result<ControlFlow<()>> {
        self.0 += 1;
        Ok(if self.0 < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

impl GanObserver for Two {
    fn after_step(
        &mut self,
        _: &GanTrainer,
        _: &GanStepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        self.0 += 1;
        Ok(if self.0 < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

fn checkpoint(dir: &Path) -> Result<()> {
    let mut trainer = Trainer::resume(&dir.join("checkpoint.safetensors"), &Device::Cpu)?;
    let input = trainer.network().spec().input;
    if input.n_values() <= LARGEST {
        let images = zeros(2, input, trainer.network().dtype())?;
        let labels = vec![0, u32::from(trainer.network().n_classes() > 1)];
        trainer.fit(&mut Black(Batch { images, labels }), &mut Two(0))?;
        trainer.averaged_network()?.materialize()?;
    }
    Ok(())
}

fn gan(dir: &Path) -> Result<()> {
    let mut trainer = GanTrainer::resume(&dir.join("checkpoint.safetensors"), &Device::Cpu)?;
    let output = trainer.generator().spec().output;
    if output.n_values() <= LARGEST {
        let images = zeros(2, output, trainer.generator().dtype())?;
        trainer.fit(&mut Black(Batch { images, labels: vec![0; 2] }), &mut Two(0))?;
        trainer.generator().freeze()?.sample(2, 0, 0)?;
    }
    Ok(())
}

fn certificate(dir: &Path) -> Result<()> {
    let certificate = fs::read(dir.join("certificate.json"))?;
    let model = fs::read(dir.join("network.safetensors"))?;
    let images = idx_folder(dir)?.test;
    let outline = outline(&certificate)?;
    let set = images.head(outline.n_samples);
    let narrow: Vec<f32> = set.pixels().iter().map(|&p| f32::from(p) / 255.0).collect();
    let wide: Vec<f64> = set.pixels().iter().map(|&p| f64::from(p) / 255.0).collect();
    let pixels = if outline.is_narrow { Pixels::F32(&narrow) } else { Pixels::F64(&wide) };
    let data = Data { pixels, labels: &set.classes() };
    verify(&certificate, &model, &data, Selection::All, &mut |_, _| {})?;
    let loaded = PlainNetwork::load(&dir.join("network.safetensors"), &Device::Cpu);
    loaded.expect("weights that the verifier takes are weights to other readers");
    Ok(())
}

/// The files in a folder.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
    Ok(entries.collect::<std::io::Result<_>>()?)
}

fn config(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let config = RunConfig::read(&path)?;
        let again = RunConfig::parse("again", &config.to_toml()?);
        assert_eq!(again.expect("what is written is read"), config);
    }
    Ok(())
}

fn experiment(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let experiment = Experiment::find(path.to_str().context("not UTF-8")?)?;
        for budget in ["quick", "default", "full"] {
            let choice = Choice { budget, seeds: None, only: None, device: DeviceKind::Cpu };
            for job in experiment.jobs(choice)?.jobs {
                // what a file names stays below the folder of the results
                let folder = job.folder(Path::new("out"));
                let leaves = folder.components().any(|part| part.as_os_str() == "..");
                assert!(folder.starts_with("out") && !leaves, "{}", folder.display());
            }
        }
    }
    Ok(())
}

fn manifest(dir: &Path) -> Result<()> {
    for path in files(dir)? {
        let text = fs::read_to_string(&path).context("not UTF-8")?;
        let manifest = Manifest::parse("manifest", &text)?;
        ensure!(manifest.total_size() > 0, "no content");
    }
    Ok(())
}

fn records(dir: &Path) -> Result<()> {
    if let Ok(run) = RunFiles::open(dir) {
        let _ = (run.provenance(), run.metrics(), run.classes());
        run.config_as_trained()?;
    }
    if dir.join("cell.json").exists() {
        let job = Job::read(dir)?;
        job.result(dir)?;
        if let Some(result) = JobResult::read(dir)? {
            result.headline();
        }
    }
    Ok(())
}
