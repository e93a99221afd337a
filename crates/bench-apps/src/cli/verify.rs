//! `lipconv verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device};
use certify::verify::{Data, Outline, Report, Selection, outline, verify};
use certify::{Eps, Pixels};
use clap::value_parser;
use lipconv::{PlainNetwork, output};
use lipconv_datasets::{ImageSet, has_known_hash, published_name, published_test_set};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use super::args::DataArgs;
use super::model::{assumed_config, tensors, trained_file};
use crate::config::{DatasetName, RunConfig, ascending};
use crate::files::{RunFiles, check_output, read, write_json};
use crate::progress::{Display, Stages, spoken};
use crate::report::table::certified_at;
use crate::stdout::{out, outln};
use crate::words::counted;

/// Check a certificate file against the weights and the images
///
/// Derives every claim again with code that shares no arithmetic with the program that wrote the file: layer norms by testing a
/// matrix for positive definiteness, logits and radii in twice the precision of f64. Names the first claim that it cannot
/// confirm and exits with status 1. Otherwise it says which images and weights the confirmation is about.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Images come from --dataset, or from the published data set that the run names. Other images that only the run's \
configuration names are refused, because the configuration may have come with the certificate.

Examples:
  lipconv verify certificate.json --model runs/first
  lipconv verify certificate.json --model network.safetensors --dataset mnist --samples 500
  lipconv verify certificate.json --model runs/first --json confirmed.json")]
pub(super) struct Args {
    /// The certificate
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// The certified network: a run directory, or a file of weights
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// Images: mnist, cifar10, stl10, synthetic, idx:DIR or images:DIR [default: the published data set that the run names]
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Check the claims about N images only, chosen at random
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// Choose the images of --samples by this number, to repeat an earlier check
    #[arg(long, value_name = "N", requires = "samples")]
    seed: Option<u64>,
    /// Radii at which to print certified accuracy, as in 0.5,1.58 or 36/255 [default: the data set's]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    eps: Option<Vec<Eps>>,
    /// Where to write what was confirmed; a refused certificate leaves no file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Confirmed<'a> {
    images: &'a str,
    /// The published test set that they are, by their content.
    published: Option<&'a str>,
    images_sha256: &'a str,
    weights_sha256: &'a str,
    n_layers: usize,
    n_samples: usize,
    n_checked: usize,
    /// What chose the samples, unless all were checked.
    seed: Option<u64>,
    certified: Vec<CertifiedShare>,
}

/// Certified accuracy of the images that were checked, in percent.
#[derive(Debug, Serialize)]
struct CertifiedShare {
    eps: Eps,
    real: f64,
    /// By the name of the arithmetic.
    executed: BTreeMap<String, f64>,
}

/// The images, and what the statement says about them.
struct Images {
    set: ImageSet,
    /// Images in the whole set, of which `set` are the first ones.
    n_all: usize,
    published: Option<&'static str>,
    whence: String,
    /// Whether they were loaded as a published data set, and not from a folder that may be called like one.
    is_data_set: bool,
    eps: Vec<Eps>,
}

impl Images {
    /// Whether they may bear the title of a published test set: by their content where it is known, else by their files.
    fn may_be(&self, title: &str) -> bool {
        let by_files = self.is_data_set && self.set.name() == title && !has_known_hash(title);
        self.published == Some(title) || by_files
    }
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let start = Instant::now();
    let name = args.certificate.display();
    let certificate = read(&args.certificate)?;
    output::protect(&args.certificate);
    let (file, run) = trained_file(&args.model)?;
    let model = read(&file)?;
    let outline =
        outline(&certificate).map_err(|failure| anyhow!("{name} is refused: {failure}"))?;
    let images = images(args, &file, run.as_ref(), &outline, display)?;
    if let Some(title) = published_name(&outline.data_name).filter(|title| !images.may_be(title)) {
        bail!(
            "{name} is refused: data.name: is {title}, but these are not the images of the published {title} test set"
        );
    }
    let selection = selection(args, outline.n_samples)?;
    args.json.as_deref().map(check_output).transpose()?;
    let report = check(&certificate, &model, &images.set, &outline, selection, display)
        .map_err(|failure| anyhow!("{name} is refused: {failure}"))?;
    outln!("{name} is confirmed, in {}.", spoken(start.elapsed()));
    out!("{}", statement(&report, &images, selection, args.seed.is_some()));
    if let Some(file) = &args.json {
        write_json(file, &confirmed(&report, &images, selection))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The images that the person names, or those of the known data set that the run names.
fn images(
    args: &Args,
    weights: &Path,
    run: Option<&RunFiles>,
    outline: &Outline,
    display: Display,
) -> Result<Images> {
    // a configuration may have come with the certificate, and must not choose the images that it is checked on
    if let (Some(run), None) = (run, &args.dataset)
        && let named @ (DatasetName::Idx(_) | DatasetName::Images(_)) = run.config()?.data.dataset
    {
        bail!(
            "the run's configuration takes its images from {named}; if you trust these images, name them: --dataset {named}"
        );
    }
    let mut config = match run {
        Some(run) => run.config_as_trained()?,
        // a file that holds no network is the checker's to refuse
        None => PlainNetwork::load(weights, &Device::Cpu)
            .map_or_else(|_| RunConfig::default(), |network| assumed_config(network.input())),
    };
    if let Some(named) = &args.dataset {
        config.data.dataset = named.clone();
    }
    let mut eps = RunConfig::of(config.data.dataset.clone()).evaluation.eps;
    if let Some(asked) = &args.eps {
        ascending("--eps", asked)?;
        eps.clone_from(asked);
    }
    // a published set is recognised as a whole; drawn digits need no more than are asked for
    let is_drawn = config.data.dataset == DatasetName::Synthetic;
    config.data.test_limit = is_drawn.then_some(outline.n_samples);
    config.data.train_limit = Some(1);
    config.validate()?;
    let is_data_set = matches!(
        config.data.dataset,
        DatasetName::Mnist | DatasetName::Cifar10 | DatasetName::Stl10
    );
    let dataset = args.data.load(&config, false, display)?;
    let (whence, all) = (dataset.source.to_string(), dataset.test);
    let published = published_test_set(&all);
    let (n_all, set) = (all.len(), all.head(outline.n_samples));
    Ok(Images { set, n_all, published, whence, is_data_set, eps })
}

/// All samples, or some that nobody could foresee.
fn selection(args: &Args, n_samples: usize) -> Result<Selection> {
    let Some(n) = args.samples else { return Ok(Selection::All) };
    let n = usize::try_from(n)?;
    if n >= n_samples {
        return Ok(Selection::All);
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => OsRng.try_next_u64().context("the system has no random numbers")?,
    };
    Ok(Selection::Random { n, seed })
}

fn check(
    certificate: &[u8],
    model: &[u8],
    images: &ImageSet,
    outline: &Outline,
    selection: Selection,
    display: Display,
) -> Result<Report> {
    let dtype = if outline.is_narrow { DType::F32 } else { DType::F64 };
    let (pixels, labels) = tensors(images, dtype)?;
    let pixels = pixels.flatten_all()?;
    let (narrow, wide): (Vec<f32>, Vec<f64>) = match dtype {
        DType::F32 => (pixels.to_vec1()?, Vec::new()),
        _ => (Vec::new(), pixels.to_vec1()?),
    };
    let pixels = if outline.is_narrow { Pixels::F32(&narrow) } else { Pixels::F64(&wide) };
    let mut bars = Stages::new(display);
    let data = Data { pixels, labels: &labels };
    let report = verify(certificate, model, &data, selection, &mut |done, all| {
        bars.show("verify", done as u64, all as u64, "");
    });
    bars.finish();
    Ok(report?)
}

/// The confirmed statement: which images and weights, and how many of the claims.
fn statement(report: &Report, images: &Images, selection: Selection, is_replayed: bool) -> String {
    let shown = &images.set;
    let known = match images.published {
        Some(title) => format!("published {title} test set"),
        None if shown.is_synthetic() => "synthetic digits, which this program draws".to_owned(),
        None => format!(
            "test set {}, which is none that this program knows by its content",
            shown.name()
        ),
    };
    let part = if shown.len() == images.n_all {
        format!("all {}", counted(shown.len(), "image"))
    } else {
        format!("the first {} of {} images", shown.len(), images.n_all)
    };
    let (n_checked, n_samples) = (report.checked.len(), report.n_samples);
    let of = format!("the claims about {n_checked} of {n_samples} images");
    let checked = match selection {
        Selection::All => of,
        Selection::Random { seed, .. } if is_replayed => {
            format!("{of}, chosen by seed {seed}: not at random for whoever knew the seed")
        }
        Selection::Random { seed, .. } => {
            format!("{of}, chosen at random (--seed {seed} repeats the choice)")
        }
    };
    format!(
        "images   {part} of the {known}; {}; SHA-256 {}\n\
         weights  {} with proven norms; SHA-256 {}\n\
         checked  {checked}\n\
         radii    derived by this program, for the exact function of the weights (real) and as executed in an arithmetic, in % of the images checked:\n\n{}",
        images.whence,
        report.data_sha256,
        counted(report.n_layers, "layer"),
        report.model_sha256,
        table(report, &images.eps)
    )
}

fn confirmed<'a>(report: &'a Report, images: &'a Images, selection: Selection) -> Confirmed<'a> {
    let seed = match selection {
        Selection::All => None,
        Selection::Random { seed, .. } => Some(seed),
    };
    Confirmed {
        images: images.set.name(),
        published: images.published,
        images_sha256: &report.data_sha256,
        weights_sha256: &report.model_sha256,
        n_layers: report.n_layers,
        n_samples: report.n_samples,
        n_checked: report.checked.len(),
        seed,
        certified: certified(report, &images.eps),
    }
}

/// In percent of the images that were checked.
fn share(report: &Report, n: usize) -> f64 {
    100.0 * n as f64 / report.checked.len().max(1) as f64
}

fn certified(report: &Report, eps: &[Eps]) -> Vec<CertifiedShare> {
    let share = |n| share(report, n);
    let at = |eps: &Eps| {
        let executed =
            |name: &str| (name.to_owned(), share(report.n_certified_executed(name, eps.value())));
        CertifiedShare {
            real: share(report.n_certified(eps.value())),
            executed: report.arithmetics().map(executed).collect(),
            eps: eps.clone(),
        }
    };
    eps.iter().map(at).collect()
}

fn table(report: &Report, eps: &[Eps]) -> String {
    let names: Vec<&str> = std::iter::once("real").chain(report.arithmetics()).collect();
    let n_held = |i: usize, eps: f64| match i {
        0 => report.n_certified(eps),
        _ => report.n_certified_executed(names[i], eps),
    };
    certified_at(&names, eps, |i, eps| Some(share(report, n_held(i, eps.value()))))
}
