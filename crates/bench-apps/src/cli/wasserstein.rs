//! `lipconv wasserstein`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use certify::{Distribution, MOST_MATCHED, SamplePart, matching_distance};
use lipconv::{ImageShape, PlainNetwork};

use super::args::{DataArgs, log_to};
use super::gan::training_device;
use super::train::{checkpoint_interval, stopped};
use crate::config::{Activation, DeviceKind, Method};
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, check_output, lock_folder, read, write_atomic, write_json};
use crate::progress::{Display, spoken};
use crate::report::distance_page::{DistanceReport, Side, curve_svg, rates, render};
use crate::stdout::{note, out, outln};
use crate::wasserstein::search::{Found, RateResult, Search, SearchEnd};
use crate::wasserstein::source::{Loading, check_shapes};
use crate::wasserstein::{
    CriticConfig, CriticNetwork, Estimate, Generated, SourceName, check_own, estimate, number_text,
};
use crate::words::{at_least, at_most, shape_text};

/// Lower bound of the Wasserstein distance between two sets of images
///
/// A 1-Lipschitz critic is trained to tell the two apart. Its mean difference on images that it was not trained on, divided by a
/// rigorous bound of its Lipschitz constant, is a lower bound of the distance, up to the printed sampling error. Lengths are L2 norms of
/// images with values in [-1, 1]. The folder holds the critic, the estimate over the steps (SVG and in a page of its own) and
/// wasserstein.json; the same command goes on after an interruption.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A and B are cifar10, stl10, mnist, synthetic, idx:DIR, images:DIR (every PNG, JPEG, GIF, WebP, BMP
or TIFF below DIR) or generator:FILE (of lipconv gan). Data sets report on their test images; the
images of a folder are cut into three parts: to train on, to choose a rate on, and to report on.

Examples:
  lipconv wasserstein cifar10 generator:runs/gan/generator.safetensors --out runs/distance
  lipconv wasserstein images:summer images:winter --size 64 --out runs/seasons
  lipconv wasserstein images:a images:b --population --learning-rate 0.01,0.001 --out runs/few
  lipconv wasserstein cifar10 images:mine --size 32 --critic runs/distance/critic.safetensors")]
pub(super) struct Args {
    /// One set of images
    #[arg(value_name = "A")]
    a: SourceName,
    /// The other
    #[arg(value_name = "B")]
    b: SourceName,
    /// Folder of the results [default: runs/wasserstein; none with --critic]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Height and width, a multiple of 16 from 32 on [default: 64 for STL-10, 32 for CIFAR-10 and MNIST, a folder's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// The images at hand are the distributions themselves, not samples of them: train and report on all of them
    #[arg(long)]
    population: bool,
    /// Measure with this trained critic, and train none
    #[arg(long, value_name = "FILE", conflicts_with = "Training")]
    critic: Option<PathBuf>,
    /// Number of image pairs to evaluate (at most as many as each set holds)
    #[arg(long, value_name = "N", default_value_t = 6400)]
    pairs: usize,
    /// Where to compute
    #[arg(long, value_parser = training_device(), default_value = "cpu")]
    device: DeviceKind,
    #[command(flatten)]
    training: Training,
    #[command(flatten)]
    data: DataArgs,
}

/// How the critic is trained.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Critic")]
struct Training {
    /// How convolutions are constrained: bcop, rko, ossn and so on
    #[arg(long, value_name = "METHOD", default_value = "bcop")]
    layer: Method,
    /// Nonlinearity: maxmin, relu or groupsort:GROUP
    #[arg(long, value_name = "NAME", default_value = "maxmin")]
    activation: Activation,
    /// Width; 1 is the paper's
    #[arg(long, value_name = "X", default_value_t = 0.25)]
    width: f64,
    /// Epochs; the paper's are 256
    #[arg(long, value_name = "N", default_value_t = 24)]
    epochs: usize,
    /// Steps in an epoch
    #[arg(long, value_name = "N", default_value_t = 100)]
    epoch_steps: usize,
    /// Images of each side in a step
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch_size: usize,
    /// RMSprop's initial step size; of several, the best on images kept for the choice
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "0.001",
        allow_negative_numbers = true
    )]
    learning_rate: Vec<f64>,
    /// Seed of initialisation and samples
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 30.0, allow_negative_numbers = true)]
    checkpoint_every: f64,
}

type Loaded = Box<dyn Distribution>;

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    ensure!(args.pairs >= 2, "--pairs is {}, expected at least 2", args.pairs);
    let generated = [&args.a, &args.b].into_iter().any(|s| matches!(s, SourceName::Generator(_)));
    ensure!(
        !(args.population && generated),
        "--population is for images at hand, a generator has as many as anyone wants"
    );
    let checkpoint_every = checkpoint_interval(args.training.checkpoint_every)?;
    let device = build::device(args.device)?;
    let (a, b) = (load(&args.a, args, &device, display)?, load(&args.b, args, &device, display)?);
    check_shapes(a.as_ref(), b.as_ref())?;
    match &args.critic {
        Some(file) => measure(file, args, a.as_ref(), b.as_ref()),
        None => train(args, a.as_ref(), b.as_ref(), &device, checkpoint_every, display),
    }
}

fn load(name: &SourceName, args: &Args, device: &Device, display: Display) -> Result<Loaded> {
    match name {
        SourceName::Generator(file) => {
            lipconv::output::protect(file);
            Ok(Box::new(Generated::load(file, args.size, device)?))
        }
        SourceName::Data(data) => {
            let options = args.data.options(true, display);
            let loading =
                Loading { size: args.size, population: args.population, options: &options };
            let (images, notes) = loading.images(data)?;
            notes.iter().for_each(|line| note(line));
            Ok(Box::new(images))
        }
    }
}

fn measure(
    file: &Path,
    args: &Args,
    a: &dyn Distribution,
    b: &dyn Distribution,
) -> Result<ExitCode> {
    lipconv::output::protect(file);
    let critic = PlainNetwork::load(file, &Device::Cpu).context("cannot load a critic")?;
    let ImageShape { channels, height, width } = critic.input();
    let expected = [channels, height, width];
    if a.shape() != expected {
        bail!(
            "the critic {} is for images of {}, those of {} are {}",
            file.display(),
            shape_text(&expected),
            a.name(),
            shape_text(&a.shape())
        );
    }
    let json = args.out.as_ref().map(|out| out.join("wasserstein.json"));
    json.as_deref().map_or(Ok(()), check_output)?;
    let found = estimate(&critic, a, b, SamplePart::Report, args.pairs)?;
    out!("{}", summary(args, a, b, &found));
    if let Some(path) = json {
        write_json(&path, &report(args, a, b, &found, &[], None)?)?;
        outln!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn train(
    args: &Args,
    a: &dyn Distribution,
    b: &dyn Distribution,
    device: &Device,
    checkpoint_every: Duration,
    display: Display,
) -> Result<ExitCode> {
    let start = Instant::now();
    let rates = &args.training.learning_rate;
    let config = args.training.config(rates[0])?;
    // a size that the critic cannot take is refused before the folder is made
    let spec = config.spec(a.shape())?;
    lipconv::Network::new(&spec, candle_core::DType::F32, &Device::Cpu, 0).context(
        "the critic takes images with sides that are multiples of 16, from 32 on (--size)",
    )?;
    config.train_config()?;
    let out = args.out.clone().unwrap_or_else(|| "runs/wasserstein".into());
    // a log in the folder of something else would be added to
    let foreign = ["config.toml", "gan.json", "cell.json"];
    check_own(&out, "training/begun.json", &foreign, "results of wasserstein")?;
    let _lock = lock_folder(&out)?;
    log_to(&out.join("log.txt"))?;
    let search = Search {
        config: &config,
        rates,
        a,
        b,
        device,
        folder: &out.join("training"),
        purpose: purpose(args, &config),
        n_select: args.pairs,
        n_report: args.pairs,
        checkpoint_every,
        display,
    };
    let found = match search.run()? {
        SearchEnd::Finished(found) => found,
        SearchEnd::Interrupted => return Ok(stopped()),
    };
    write_up(args, a, b, &out, &found)?;
    outln!("in {}", spoken(start.elapsed()));
    Ok(ExitCode::SUCCESS)
}

/// What decides the result, the folders of data aside.
fn purpose(args: &Args, config: &CriticConfig) -> serde_json::Value {
    serde_json::json!({
        "a": args.a.to_string(),
        "b": args.b.to_string(),
        "size": args.size,
        "population": args.population,
        "pairs": args.pairs,
        "device": args.device,
        "critic": CriticConfig { learning_rate: 0.0, ..config.clone() },
    })
}

fn write_up(
    args: &Args,
    a: &dyn Distribution,
    b: &dyn Distribution,
    out: &Path,
    found: &Found,
) -> Result<()> {
    let best = &found.rates[found.best];
    let shown = best.report.context("the chosen critic was not measured")?;
    let critic = out.join("critic.safetensors");
    write_atomic(&critic, &read(&found.critic)?)?;
    let report = report(args, a, b, &shown, &found.rates, Some(found.best))?;
    write_json(&out.join("wasserstein.json"), &report)?;
    write_atomic(&out.join("estimate.svg"), curve_svg(&report)?.as_bytes())?;
    write_atomic(&out.join("report.html"), render(&report)?.as_bytes())?;
    out!("{}", summary(args, a, b, &shown));
    if found.rates.len() > 1 {
        out!("\n{}", rates(&report).terminal());
    }
    if let Some(exact) = report.exact {
        outln!("the exact distance, by the best matching: {exact:.4}");
    }
    outln!("");
    for file in ["report.html", "estimate.svg", "wasserstein.json", "critic.safetensors"] {
        outln!("{}", out.join(file).display());
    }
    Ok(())
}

fn report(
    args: &Args,
    a: &dyn Distribution,
    b: &dyn Distribution,
    found: &Estimate,
    rates: &[RateResult],
    best: Option<usize>,
) -> Result<DistanceReport> {
    Ok(DistanceReport {
        a: Side::of(a)?,
        b: Side::of(b)?,
        population: args.population,
        critic: best.map(|best| args.training.config(rates[best].learning_rate)).transpose()?,
        estimate: *found,
        exact: exact(a, b)?,
        rates: rates.to_vec(),
        best,
        provenance: Provenance::collect(&device_name(args.device)),
    })
}

/// The exact distance of two small populations of one size.
fn exact(a: &dyn Distribution, b: &dyn Distribution) -> Result<Option<f64>> {
    let (Some(n), Some(m)) = (a.n_held_out(SamplePart::Report), b.n_held_out(SamplePart::Report))
    else {
        return Ok(None);
    };
    if !(a.is_population() && b.is_population()) || n != m || n > MOST_MATCHED {
        return Ok(None);
    }
    let values = |of: &dyn Distribution| -> Result<Vec<f32>> {
        Ok(of.held_out(SamplePart::Report, 0..n)?.flatten_all()?.to_vec1()?)
    };
    let d = a.shape().iter().product();
    Ok(Some(matching_distance(&values(a)?, &values(b)?, d)?))
}

impl Training {
    fn config(&self, learning_rate: f64) -> Result<CriticConfig> {
        let rates = &self.learning_rate;
        let valid = |rate: &&f64| rate.is_finite() && **rate > 0.0;
        if let Some(rate) = rates.iter().find(|rate| !valid(rate)) {
            bail!("--learning-rate is {}, expected positive numbers", number_text(*rate));
        }
        Ok(CriticConfig {
            network: CriticNetwork::Paper { width: self.width },
            method: self.layer,
            activation: self.activation,
            epochs: self.epochs,
            epoch_steps: self.epoch_steps,
            batch_size: self.batch_size,
            learning_rate,
            seed: self.seed,
        })
    }
}

fn summary(args: &Args, a: &dyn Distribution, b: &dyn Distribution, found: &Estimate) -> String {
    let label = if a.is_synthetic() || b.is_synthetic() { " (synthetic digits)" } else { "" };
    let mut text =
        format!("W1({}, {}){label} is at least {}", a.name(), b.name(), at_least(found.value, 4));
    if found.standard_error > 0.0 {
        text += &format!(
            " ± {:.4} (standard error); {} with a confidence of 99 %",
            found.standard_error,
            at_least(found.confident, 4)
        );
    }
    if found.value <= 0.0 {
        text += "; the critic shows nothing, and 0 is a better bound";
    }
    let what = match (args.population, &args.critic) {
        (true, _) => "all there are",
        (false, None) => "none of which the critic was trained on",
        // its file does not say
        (false, Some(_)) => {
            "a bound if the critic was not trained on any of them, which its file does not tell"
        }
    };
    let [n_a, n_b] = found.n_samples;
    text += &format!("\n{n_a} and {n_b} images, {what}");
    text +=
        &format!("\nLipschitz constant of the critic: at most {}\n", at_most(found.lipschitz, 9));
    text
}
