//! `lipconv audit`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use certify::{
    Arithmetic, Attack as _, AttackTarget, Certificates, Certifier, Eps, Fab, Slope, SlopeSearch,
    Stopping, Verdict, certified_accuracy, predicted_class,
};
use lipconv::{PlainLayer, PlainNetwork, output};
use serde::Serialize;

use super::args::DataArgs;
use super::export::ends_in;
use super::import;
use super::inspect::table;
use super::model::{Model, tensors};
use crate::config::{DatasetName, DeviceKind, ascending};
use crate::experiment::evaluation::evaluated_logits;
use crate::files::{check_output, read_json, write_json};
use crate::progress::{Display, Progress};
use crate::report::table::certified_at;
use crate::stdout::{out, outln};
use crate::words::{at_least, at_most, lipschitz_text};

/// Check somebody's claims about a network: its Lipschitz constant, its radii
///
/// Prints the proved bound of each layer beside the claims of the authors. A claim is proved, refuted or open. Two images refute a
/// constant if the logits differ more between them than it allows; an image of another class refutes a radius if it is nearer. The
/// program searches for both, so that an open claim may still be false. Constants are about the exact function of the stored
/// weights, radii about the network as it is executed here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Claimed radii are a JSON list of numbers, for the first test images in their order.

Examples:
  lipconv audit model.onnx --dataset cifar10 --claimed-constant 1
  lipconv audit weights.safetensors --description model.toml --claimed-constant 1 --claimed-radii radii.json
  lipconv audit runs/first --claimed-constant 1 --test-limit 1000

Exit status 1 says that a claim is refuted.")]
pub(super) struct Args {
    /// A model in ONNX, weights in safetensors with a description, a file of this program, or a run directory
    #[arg(value_name = "FILE")]
    model: PathBuf,
    /// The layers of weights in safetensors, as TOML
    #[arg(long, value_name = "FILE")]
    description: Option<PathBuf>,
    /// The Lipschitz constant that is claimed for the network, in the L2 norms of pixels from 0 to 1 and of logits
    #[arg(long, value_name = "L", allow_negative_numbers = true)]
    claimed_constant: Option<f64>,
    /// The radii that are claimed for its predictions, as JSON
    #[arg(long, value_name = "FILE")]
    claimed_radii: Option<PathBuf>,
    /// Images [default: by the network's input]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// The first N test images only
    #[arg(long, value_name = "N", default_value_t = 1000)]
    test_limit: usize,
    /// Radii at which to compare certified accuracy [default: the data set's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    eps: Option<Vec<Eps>>,
    /// Where to write the findings
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    dataset: String,
    n_images: usize,
    constant: Constant,
    layers: Vec<Layer>,
    clean: f64,
    radii: Radii,
}

#[derive(Debug, Serialize)]
struct Constant {
    claimed: Option<f64>,
    verdict: Option<Verdict>,
    at_least: f64,
    at_most: f64,
    /// The steepest place that was found.
    slope: Option<Slope>,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    /// Bound of its own constant; 1 for a layer that joins.
    at_most: f64,
}

/// For every image, of the class that the network gives it.
#[derive(Debug, Serialize)]
struct Radii {
    predictions: Vec<usize>,
    is_right: Vec<bool>,
    claimed: Option<Vec<f64>>,
    verdicts: Option<Vec<Verdict>>,
    /// margin / (√2 L) with the claimed constant.
    by_constant: Option<Vec<f64>>,
    exact: Vec<f64>,
    executed: Vec<f64>,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    if let Some(constant) = args.claimed_constant {
        let fits = constant > 0.0 && constant.is_finite();
        ensure!(fits, "--claimed-constant is {constant}, expected a positive number");
    }
    let model = load(args)?;
    let network = &model.network;
    let eps = args.eps.clone().unwrap_or_else(|| model.radii(args.dataset.as_ref()));
    ascending("--eps", &eps)?;
    let (dataset, limit) = (args.dataset.as_ref(), Some(args.test_limit));
    let images = model.test_images(&args.data, dataset, limit, display)?;
    let claimed =
        args.claimed_radii.as_deref().map(|file| radii(file, images.len())).transpose()?;
    args.json.as_deref().map(check_output).transpose()?;
    let (pixels, labels) = tensors(&images, network.dtype())?;
    let certifier = Certifier::new(network)?;
    let mut bar = Progress::new(display, "slopes", 0, labels.len() as u64);
    let search = SlopeSearch::default();
    let slope = search.run(network, &certifier, &pixels, &mut |n| bar.update(n as u64, ""))?;
    bar.finish();
    let constant = Constant::new(args.claimed_constant, &certifier, slope);
    // radii are about the class that is predicted, right or wrong
    let logits = evaluated_logits(network, &pixels)?;
    let predictions: Vec<usize> = logits.iter().map(|row| predicted_class(row)).collect();
    let certificates = certifier.certify(&pixels, &predictions)?;
    let target = AttackTarget::new(network, &pixels, &predictions);
    let is_right: Vec<bool> = predictions.iter().zip(&labels).map(|(p, t)| p == t).collect();
    let n_right = is_right.iter().filter(|is_right| **is_right).count();
    let clean = 100.0 * n_right as f64 / labels.len() as f64;
    let own = Arithmetic::of_network(network)?;
    let proved = (certificates, own, is_right);
    let radii = Radii::new(claimed, args.claimed_constant, proved, target, display)?;
    let names = network.names().iter().cloned().zip(network.lipschitz_bounds()?);
    let report = Report {
        dataset: images.name().to_owned(),
        n_images: images.len(),
        constant,
        layers: names.map(|(name, own)| Layer { name, at_most: own.value() }).collect(),
        clean,
        radii,
    };
    outln!("{}", table(network)?);
    print(&report, network, &eps);
    args.json.as_deref().map(|file| write_json(file, &report)).transpose()?;
    Ok(if report.is_refuted() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn load(args: &Args) -> Result<Model> {
    args.description.iter().chain(&args.claimed_radii).for_each(|file| output::protect(file));
    if !ends_in(&args.model, "onnx") && args.description.is_none() {
        return Model::load(&args.model, Some(DeviceKind::Cpu));
    }
    let network = import::read(&args.model, args.description.as_deref())?;
    Ok(Model::imported(network, &args.model))
}

fn radii(file: &Path, n_images: usize) -> Result<Vec<f64>> {
    let radii: Vec<f64> = read_json(file)?
        .with_context(|| format!("cannot read {}: there is no such file", file.display()))?;
    let (name, n) = (file.display(), radii.len());
    ensure!(n == n_images, "{name} holds {n} radii, expected {n_images}, one for each image");
    match radii.iter().position(|radius| !(*radius >= 0.0 && radius.is_finite())) {
        Some(i) => {
            anyhow::bail!("{name}: radius {i} is {}, expected a number not below 0", radii[i])
        }
        None => Ok(radii),
    }
}

impl Constant {
    fn new(claimed: Option<f64>, certifier: &Certifier, slope: Option<Slope>) -> Self {
        let at_most = certifier.bounds().lipschitz();
        let at_least = slope.map_or(0.0, Slope::network);
        let verdict = claimed.map(|claimed| Verdict::of_constant(claimed, at_least, at_most));
        Self { claimed, verdict, at_least, at_most, slope }
    }
}

impl Radii {
    fn new(
        claimed: Option<Vec<f64>>,
        constant: Option<f64>,
        (certificates, own, is_right): (Certificates, Arithmetic, Vec<bool>),
        target: AttackTarget<'_>,
        display: Display,
    ) -> Result<Self> {
        let Certificates { real: exact, mut executed, margins, .. } = certificates;
        let executed = executed.remove(&own).context("no radii of the network's own arithmetic")?;
        let by_constant = constant.map(|constant| {
            let radius = |margin: &f64| margin / (std::f64::consts::SQRT_2 * constant);
            margins.iter().map(radius).collect()
        });
        let verdicts = claimed.as_ref().map(|claimed| verdicts(claimed, &exact, target, display));
        let verdicts = verdicts.transpose()?;
        let predictions = target.labels.to_vec();
        Ok(Self { predictions, is_right, claimed, verdicts, by_constant, exact, executed })
    }

    /// Share of images, in percent, that are right within this radius.
    fn certified(&self, radii: &[f64], eps: f64) -> f64 {
        let right = |(radius, is_right): (&f64, &bool)| if *is_right { *radius } else { 0.0 };
        let radii: Vec<f64> = radii.iter().zip(&self.is_right).map(right).collect();
        certified_accuracy(&radii, eps)
    }
}

/// What is not proved is attacked, beyond what is claimed.
fn verdicts(
    claimed: &[f64],
    exact: &[f64],
    target: AttackTarget<'_>,
    display: Display,
) -> Result<Vec<Verdict>> {
    let open: Vec<usize> = (0..claimed.len()).filter(|&i| claimed[i] > exact[i]).collect();
    let largest = open.iter().map(|&i| claimed[i]).fold(f64::MIN_POSITIVE, f64::max);
    let attack = Fab { stopping: Stopping::Never, ..Fab::standard(largest, 0) };
    let mut bar = Progress::new(display, "attack", 0, open.len() as u64);
    let outcome = attack.run_on(&open, target, &mut |report| {
        bar.update((report.fraction * open.len() as f64) as u64, "");
    })?;
    bar.finish();
    let all =
        (0..claimed.len()).map(|i| Verdict::of_radius(claimed[i], exact[i], outcome.distances[i]));
    Ok(all.collect())
}

impl Report {
    fn is_refuted(&self) -> bool {
        let radii = self.radii.verdicts.iter().flatten();
        self.constant.verdict.iter().chain(radii).any(|verdict| *verdict == Verdict::Refuted)
    }
}

fn print(report: &Report, network: &PlainNetwork, eps: &[Eps]) {
    let Report { constant, radii, .. } = report;
    let found = at_least(constant.at_least, 5);
    outln!("Lipschitz constant: at least {found}, at most {}", lipschitz_text(constant.at_most));
    if let Some(Slope { difference, classes: (t, j), sample }) = constant.slope {
        let difference = at_least(difference, 5);
        outln!(
            "steepest place: the logits of classes {t} and {j}, {difference} near test image {sample}"
        );
    }
    if let (Some(claimed), Some(verdict)) = (constant.claimed, constant.verdict) {
        outln!("claimed: at most {claimed}, {}", verdict.name());
    }
    if let Some(lost) = lost(report, network) {
        outln!("\n{lost}");
    }
    outln!("\n{} test images of {}, {:.2} % right", report.n_images, report.dataset, report.clean);
    let mut columns =
        vec![("proved, exact", &radii.exact), ("proved, as executed", &radii.executed)];
    columns.extend(radii.by_constant.as_ref().map(|radii| ("by the claimed constant", radii)));
    columns.extend(radii.claimed.as_ref().map(|radii| ("claimed radii", radii)));
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let share = |i: usize, eps: &Eps| Some(radii.certified(columns[i].1, eps.value()));
    out!("{}", certified_at(&names, eps, share));
    if let Some(verdicts) = &radii.verdicts {
        let count = |verdict| verdicts.iter().filter(|v| **v == verdict).count();
        let [proved, refuted, open] = [Verdict::Proved, Verdict::Refuted, Verdict::Open].map(count);
        outln!("claimed radii: {proved} proved, {refuted} refuted, {open} open");
    }
}

/// The layers whose constants exceed 1 most.
fn lost(report: &Report, network: &PlainNetwork) -> Option<String> {
    const SHOWN: usize = 5;
    let mut layers: Vec<(&Layer, &PlainLayer)> =
        report.layers.iter().zip(network.layers()).filter(|(l, _)| l.at_most > 1.001).collect();
    layers.sort_by(|(a, _), (b, _)| b.at_most.total_cmp(&a.at_most));
    let lines = layers.iter().take(SHOWN).map(|(layer, plain)| {
        format!("  x {:>9}  {}: {}", at_most(layer.at_most, 4), layer.name, reason(plain))
    });
    let lines = lines.collect::<Vec<_>>().join("\n");
    (!lines.is_empty()).then(|| format!("where the constant is lost:\n{lines}"))
}

/// Why a layer's bound exceeds 1.
fn reason(layer: &PlainLayer) -> &'static str {
    match layer {
        PlainLayer::PaddedConv(conv) if conv.weight().dims()[1..] == [1, 1, 1] => {
            "factors of channels: a normalisation counts"
        }
        PlainLayer::PaddedConv(_) => {
            "the convolution's norm on a torus that holds the padded image"
        }
        PlainLayer::LeakyRelu { .. } => "the slope",
        _ => "the largest singular value",
    }
}
