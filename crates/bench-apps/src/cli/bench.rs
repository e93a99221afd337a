//! `lipconv bench`.
//!
//! Times are medians of wall-clock milliseconds after a warm-up. The peers run in the same minute, between two halves of our
//! own measurement, because machines are noisy. Every timed loop checks what it computed.

mod flops;
mod layers;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use blockconv::Scratch;
use blockconv::bcop::Bcop;
use blockconv::spectrum::layer_singular_values;
use candle_core::{DType, Device, Tensor};
use certify::{Arithmetic, Predictor};
use clap::ValueEnum;
use interchange::to_onnx;
use lipconv::{Batch, ImageShape, Network, NetworkSpec, Trainer};
use ndarray::{Array3, Array4};
use projectors::haar_orthogonal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::config::{DeviceKind, Method, TrainingConfig};
use crate::experiment::build::{device, evaluated_on, on_device, train_config};
use crate::files::write_json;
use crate::progress::Display;
use crate::stdout::outln;
use crate::words::text_table;

/// Measure the speed, beside PyTorch's if a script and an interpreter are given
///
/// Times are medians in milliseconds. GFLOP/s counts the matrix products that the work needs. The rate of plain
/// matrix products on this machine, measured in the same run, is printed with it. The peers are the same network without any constraint (torch_plain), the paper's
/// algorithm written out in PyTorch (torch_bcop), the fastest published library (orthogonium), for a single layer the same formula in PyTorch
/// (torch) and, for predictions, the exported network in onnxruntime; these give logits without a guarantee.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv bench step
  lipconv bench step --net small-mnist,large-cifar10 --peer-script bench/peer_torch.py --json bench.json
  lipconv bench step --net large-cifar10 --layer rko,ossn,unconstrained
  lipconv bench step --device cuda --net large-cifar10 --peer-script bench/peer_torch.py
  lipconv bench layers --peer-script bench/peer_torch.py
  lipconv bench predict --net small-mnist,large-cifar10 --batch 1 --peer-script bench/peer_torch.py
  lipconv bench all --repeat 50")]
pub(super) struct Args {
    /// What to measure
    #[arg(value_enum, default_value = "step")]
    what: What,
    /// Networks of step, infer and predict
    #[arg(long, value_enum, value_delimiter = ',', default_value = "small-mnist")]
    net: Vec<Net>,
    /// How their layers are constrained: bcop, rko, ossn and so on
    #[arg(long, value_delimiter = ',', default_value = "bcop", value_name = "LIST")]
    layer: Vec<Method>,
    /// Images in a step
    #[arg(long, default_value_t = 128, value_name = "N")]
    batch: usize,
    /// Measurements of each kind, at least 3
    #[arg(long, default_value_t = 30, value_name = "N")]
    repeat: usize,
    /// Device of step and infer, and of the peers
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceKind,
    /// Script that measures the peers (bench/peer_torch.py)
    #[arg(long, value_name = "FILE")]
    peer_script: Option<PathBuf>,
    /// Interpreter of the script
    #[arg(long, value_name = "PROGRAM", default_value = "python3")]
    python: OsString,
    /// Where to write the results
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Training steps
    Step,
    /// Kernel assembly, 32 to 512 channels at 3 x 3 and 128 at 5 x 5
    Kernels,
    /// Singular values, 128 channels, 3 x 3, on 16 x 16
    Spectrum,
    /// One layer of each kind, forward and backward, on the CPU
    Layers,
    /// Forward passes of a trained network
    Infer,
    /// Class, margin and certified radius of a batch, beside programs that compute the logits alone
    Predict,
    /// All of them
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Net {
    SmallMnist,
    SmallCifar10,
    LargeMnist,
    LargeCifar10,
}

/// One line of the results.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    name: String,
    threads: usize,
    ours_ms: f64,
    peers: BTreeMap<String, f64>,
    /// Operations counted from the shapes over our time, 10⁹ per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    /// That as a share of the rate of matrix products on this machine in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    gemm_share: Option<f64>,
}

/// A peer's name, the script's arguments, and the field of its answer.
type Peer = (&'static str, Vec<String>, &'static str);

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    anyhow::ensure!(args.repeat >= 3, "--repeat is {}, expected at least 3", args.repeat);
    anyhow::ensure!(args.batch >= 1, "--batch is 0, expected at least 1");
    let bench = Bench { args, display };
    let mut results = Vec::new();
    let wanted = |what| args.what == what || args.what == What::All;
    for &net in &args.net {
        for &layer in args.layer.iter().filter(|_| wanted(What::Step)) {
            results.push(bench.step(net, layer)?);
        }
        if wanted(What::Infer) {
            results.push(bench.infer(net)?);
        }
        if wanted(What::Predict) {
            results.push(bench.predict(net)?);
        }
    }
    if wanted(What::Kernels) {
        results.extend(bench.kernels()?);
    }
    if wanted(What::Spectrum) {
        results.push(bench.spectrum()?);
    }
    if wanted(What::Layers) {
        results.extend(bench.layers()?);
    }
    outln!("{}", text_table(&rows(&results)).trim_end());
    if let Some(path) = &args.json {
        write_json(path, &results)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Channels and kernel sizes of the assemblies measured.
const KERNELS: [(usize, usize); 6] = [(32, 3), (64, 3), (128, 3), (256, 3), (512, 3), (128, 5)];

struct Bench<'a> {
    args: &'a Args,
    display: Display,
}

impl Bench<'_> {
    fn step(&self, net: Net, layer: Method) -> Result<Measured> {
        let (spec, images) = (net.spec(layer)?, self.images(net)?);
        let network = Network::new(&spec, DType::F32, images.device(), 0)?;
        let trainer = Trainer::new(network, train_config(&TrainingConfig::default()))?;
        let mut trainer = on_device(trainer, self.args.device)?.epochs_of(1_000)?;
        let labels = (0..self.args.batch).map(|i| (i % 10) as u32).collect();
        let batch = Batch { images, labels };
        let ours = || {
            let loss = trainer.step(&batch)?.loss;
            anyhow::ensure!(loss.is_finite(), "a training step gave a loss of {loss}");
            Ok(())
        };
        let peer =
            |name, mode: &str| (name, self.peer_arguments(["step", &net.name(), mode]), "step_ms");
        let mut peers = vec![peer("torch_plain", "plain")];
        let is_bcop = layer == Method::default();
        if is_bcop {
            peers.extend([peer("torch_bcop", "bcop"), peer("orthogonium", "orthogonium")]);
        }
        let method = if is_bcop { String::new() } else { format!(" {layer}") };
        let measured = self.measure(&format!("step {}{method}", net.name()), ours, &peers)?;
        Ok(self.rated(measured, flops::step(&spec, self.args.batch)))
    }

    fn infer(&self, net: Net) -> Result<Measured> {
        let (spec, images) = (net.spec(Method::default())?, self.images(net)?);
        let network = Network::new(&spec, DType::F32, images.device(), 0)?.materialize()?;
        let network = evaluated_on(network, self.args.device)?;
        let ours = || {
            let sum = network.forward(&images)?.sum_all()?.to_scalar::<f32>()?;
            anyhow::ensure!(sum.is_finite(), "a forward pass gave logits of sum {sum}");
            Ok(())
        };
        let arguments = self.peer_arguments(["step", &net.name(), "plain"]);
        let measured = self.measure(
            &format!("infer {}", net.name()),
            ours,
            &[("torch_plain", arguments, "plain_forward_ms")],
        )?;
        Ok(self.rated(measured, flops::forward(&spec, self.args.batch)))
    }

    fn predict(&self, net: Net) -> Result<Measured> {
        let (spec, images) = (net.spec(Method::default())?, self.images(net)?);
        let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?.materialize()?;
        let predictor = Predictor::new(&network, Arithmetic::F32)?;
        let pixels: Vec<f32> = images.flatten_all()?.to_vec1()?;
        let ours = || {
            let predictions = predictor.predict_batch(&pixels)?;
            let sum: f64 = predictions.iter().map(|prediction| prediction.radius).sum();
            anyhow::ensure!(sum.is_finite(), "predictions have radii of sum {sum}");
            Ok(())
        };
        let folder = tempfile::tempdir()?;
        let onnx = folder.path().join("network.onnx");
        std::fs::write(&onnx, to_onnx(&network)?)?;
        let in_onnx = self.peer_arguments(["onnx", &onnx.display().to_string()]);
        let plain = self.peer_arguments(["step", &net.name(), "plain"]);
        let peers = [
            ("torch_plain", plain, "plain_forward_ms"),
            ("onnxruntime", in_onnx, "onnx_forward_ms"),
        ];
        self.measure(&format!("predict {}, batch {}", net.name(), self.args.batch), ours, &peers)
    }

    /// With the rate for `flops` operations; this processor's own rate is nothing to compare another device's with.
    fn rated(&self, measured: Measured, flops: f64) -> Measured {
        match self.args.device {
            DeviceKind::Cpu | DeviceKind::Portable => measured.with_flops(flops),
            _ => Measured { gflops: Some(flops / measured.ours_ms / 1e6), ..measured },
        }
    }

    fn kernels(&self) -> Result<Vec<Measured>> {
        let mut results = Vec::with_capacity(2 * KERNELS.len());
        for (c, k) in KERNELS {
            results.extend(self.kernel(c, k)?);
        }
        Ok(results)
    }

    /// Assembly of a `c` channel, `k` x `k` kernel from parameters as a layer starts with: orthogonal, gain 1/√c.
    fn kernel(&self, c: usize, k: usize) -> Result<[Measured; 2]> {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let gain = 1.0 / (c as f32).sqrt();
        let mut parameters = Array3::zeros((2 * k - 1, c, c));
        for mut matrix in parameters.outer_iter_mut() {
            matrix.assign(&(haar_orthogonal::<f32>(c, &mut rng) * gain));
        }
        let cotangent = Array4::from_elem((c, c, k, k), 1.0_f32);
        // as training does it, in the memory of the step before
        let scratch = Scratch::default();
        let assemble = || Bcop::assemble_into(parameters.view(), c, c, None, &scratch);
        let forward = || {
            let weight = assemble()?.layer_weight();
            anyhow::ensure!(weight[[0, 0, 1, 1]].is_finite(), "an assembled kernel is not finite");
            Ok(())
        };
        let both = || {
            let gradient = assemble()?.pullback(cotangent.view())?;
            anyhow::ensure!(gradient[[0, 0, 0]].is_finite(), "a kernel's gradient is not finite");
            Ok(())
        };
        let peers = |fields: [&'static str; 2]| -> Vec<Peer> {
            let arguments = self.peer_arguments(["build", &c.to_string(), &k.to_string()]);
            vec![
                ("torch_bcop", arguments.clone(), fields[0]),
                ("orthogonium", arguments, fields[1]),
            ]
        };
        Ok([
            self.measure(
                &format!("assemble {c} channels {k} x {k}, forward"),
                forward,
                &peers(["bcop_forward_ms", "orthogonium_forward_ms"]),
            )?
            .with_flops(flops::assembly(c, k, false)),
            self.measure(
                &format!("assemble {c} channels {k} x {k}, forward and backward"),
                both,
                &peers(["bcop_forward_backward_ms", "orthogonium_forward_backward_ms"]),
            )?
            .with_flops(flops::assembly(c, k, true)),
        ])
    }

    fn spectrum(&self) -> Result<Measured> {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let weight =
            Array4::from_shape_simple_fn((128, 128, 3, 3), || rng.random_range(-1.0..1.0_f64));
        let ours = || {
            let sigma = layer_singular_values(weight.view(), (16, 16))?;
            anyhow::ensure!(
                sigma.len() == 128 * 16 * 16,
                "{} singular values, expected 32768",
                sigma.len()
            );
            Ok(())
        };
        let arguments = self.peer_arguments(["spectrum", "128", "3", "16"]);
        self.measure(
            "spectrum 128 channels 3 x 3 on 16 x 16",
            ours,
            &[("numpy", arguments, "numpy_ms")],
        )
    }

    fn images(&self, net: Net) -> Result<Tensor> {
        let ImageShape { channels, height, width } = net.input();
        let shape = [self.args.batch, channels, height, width];
        Ok(layers::noise(&shape, 0.0..1.0, 1)?.to_device(&device(self.args.device)?)?)
    }

    /// Our first half, the peers, our second half.
    fn measure(
        &self,
        name: &str,
        mut ours: impl FnMut() -> Result<()>,
        peers: &[Peer],
    ) -> Result<Measured> {
        self.say(&format!("measuring {name}"));
        for _ in 0..(self.args.repeat / 5).clamp(2, 10) {
            ours()?;
        }
        let half = self.args.repeat.div_ceil(2);
        let mut times = Vec::with_capacity(2 * half);
        time(half, &mut ours, &mut times)?;
        let peers = self.peers(peers);
        if !peers.is_empty() {
            ours()?;
        }
        time(half, &mut ours, &mut times)?;
        let threads = rayon::current_num_threads();
        let ours_ms = median(&mut times);
        Ok(Measured {
            name: name.to_owned(),
            threads,
            ours_ms,
            peers,
            gflops: None,
            gemm_share: None,
        })
    }

    fn peer_arguments<const N: usize>(&self, arguments: [&str; N]) -> Vec<String> {
        let threads = rayon::current_num_threads().to_string();
        let batch = self.args.batch.to_string();
        let mut options = vec!["--threads", &threads, "--batch", &batch];
        if self.args.device == DeviceKind::Cuda {
            options.extend(["--device", "cuda"]);
        }
        arguments.iter().chain(&options).map(ToString::to_string).collect()
    }

    /// Times of the peers; a peer that cannot be run is left out with a message.
    fn peers(&self, peers: &[Peer]) -> BTreeMap<String, f64> {
        let Some(script) = &self.args.peer_script else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (name, arguments, field) in peers {
            match self.peer(script, arguments, field) {
                Ok(milliseconds) => {
                    found.insert((*name).to_owned(), milliseconds);
                }
                Err(error) => self.say(&format!("{name} left out: {error:#}")),
            }
        }
        found
    }

    fn peer(&self, script: &PathBuf, arguments: &[String], field: &str) -> Result<f64> {
        // OpenBLAS is held to one thread for us alone; the peer decides for itself
        let output = Command::new(&self.args.python)
            .arg(script)
            .args(arguments)
            .env_remove("OPENBLAS_NUM_THREADS")
            .env_remove("OMP_NUM_THREADS")
            .output()
            .with_context(|| format!("cannot run {}", self.args.python.display()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{}", text.lines().last().unwrap_or("it failed"));
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("its answer is not JSON")?;
        answer[field].as_f64().with_context(|| format!("its answer has no {field}"))
    }

    fn say(&self, line: &str) {
        if self.display != Display::Silent {
            crate::stdout::errln!("{line}");
        }
    }
}

impl Measured {
    /// Adds the rate for `flops` operations, and its share of the machine's, measured in the same minute.
    fn with_flops(mut self, flops: f64) -> Self {
        let rate = flops / self.ours_ms * 1e3;
        self.gflops = Some(rate / 1e9);
        self.gemm_share = Some(rate / flops::gemm_rate());
        self
    }
}

fn time(n: usize, work: &mut impl FnMut() -> Result<()>, times: &mut Vec<f64>) -> Result<()> {
    for _ in 0..n {
        let start = Instant::now();
        work()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn rows(results: &[Measured]) -> Vec<Vec<String>> {
    let mut names: Vec<&String> = results.iter().flat_map(|r| r.peers.keys()).collect();
    names.sort();
    names.dedup();
    let mut heading = vec!["median, ms".to_owned(), "threads".into(), "ours".into()];
    heading.extend(["GFLOP/s", "of GEMM rate"].map(String::from));
    heading.extend(names.iter().flat_map(|name| [(*name).clone(), "ours / it".into()]));
    let mut rows = vec![heading];
    for result in results {
        let mut row =
            vec![result.name.clone(), result.threads.to_string(), format!("{:.2}", result.ours_ms)];
        row.push(result.gflops.map_or_else(String::new, |rate| format!("{rate:.0}")));
        row.push(result.gemm_share.map_or_else(String::new, |s| format!("{:.0} %", 100.0 * s)));
        for name in &names {
            match result.peers.get(*name) {
                Some(ms) => row.extend([format!("{ms:.2}"), format!("{:.2}", result.ours_ms / ms)]),
                None => row.extend([String::new(), String::new()]),
            }
        }
        rows.push(row);
    }
    rows
}

impl Net {
    /// As the flag has it.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn input(self) -> ImageShape {
        match self {
            Self::SmallMnist | Self::LargeMnist => ImageShape::new(1, 28, 28),
            Self::SmallCifar10 | Self::LargeCifar10 => ImageShape::new(3, 32, 32),
        }
    }

    fn spec(self, layer: Method) -> Result<NetworkSpec> {
        let (input, methods) = (self.input(), layer.methods());
        let spec = match self {
            Self::SmallMnist | Self::SmallCifar10 => NetworkSpec::small(input, 10, methods),
            Self::LargeMnist | Self::LargeCifar10 => NetworkSpec::large(input, 10, methods, 1.0)?,
        };
        Ok(layer.placed(spec))
    }
}
