//! `lipconv verify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use certify::Pixels;
use certify::verify::{Data, Selection, verify};
use lipconv::PlainNetwork;

use super::args::DataArgs;
use super::plain_model::{likely_dataset, tensors, test_images, weights_file};
use crate::config::{DatasetName, RunConfig};
use crate::progress::{Display, Progress, spoken};
use crate::run_dir::RunFiles;
use crate::stdout::outln;

/// Check a certificate file against the weights and the images
///
/// Every claim is derived again by code that shares nothing numeric with what wrote the file: layer norms by testing a matrix for
/// positive definiteness, logits and radii in twice the precision of f64. The first claim that cannot be confirmed is named, and the
/// exit status is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv verify certificate.json --model runs/first
  lipconv verify certificate.json --model network.safetensors --dataset mnist --samples 500")]
pub(super) struct Args {
    /// The certificate
    #[arg(value_name = "FILE")]
    certificate: PathBuf,
    /// The network it is about: a run directory, or a file of weights
    #[arg(long, value_name = "RUN")]
    model: PathBuf,
    /// Images [default: as trained]
    #[arg(long, value_enum)]
    dataset: Option<DatasetName>,
    /// Check the claims about N images drawn at random only
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Decides which
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let start = Instant::now();
    let certificate = read(&args.certificate)?;
    let (file, run) = weights_file(&args.model)?;
    let model = read(&file)?;
    let was_synthetic = run.as_ref().and_then(RunFiles::is_synthetic) == Some(true);
    let config = match run {
        Some(run) => run.config()?,
        // a file that holds no network is the checker's to refuse
        None => PlainNetwork::load(&file, &Device::Cpu)
            .map_or_else(|_| RunConfig::default(), |n| RunConfig::of(likely_dataset(n.input()))),
    };
    let limit = claimed_samples(&certificate);
    let images =
        test_images(config, was_synthetic, &args.data, args.dataset.clone(), limit, display)?;
    let (pixels, labels) = tensors(&images, stored_dtype(&certificate))?;
    let pixels = pixels.flatten_all()?;
    let (narrow, wide): (Vec<f32>, Vec<f64>) = match pixels.dtype() {
        candle_core::DType::F32 => (pixels.to_vec1()?, Vec::new()),
        _ => (Vec::new(), pixels.to_vec1()?),
    };
    let pixels = if wide.is_empty() { Pixels::F32(&narrow) } else { Pixels::F64(&wide) };
    let selection = match args.samples {
        Some(n) => Selection::Random { n, seed: args.seed },
        None => Selection::All,
    };
    let mut bar: Option<Progress> = None;
    let data = Data { pixels, labels: &labels };
    let report = verify(&certificate, &model, &data, selection, &mut |done, all| {
        let bar = bar.get_or_insert_with(|| Progress::new(display, "verify", 0, all as u64));
        bar.update(done as u64, "");
    });
    if let Some(bar) = bar {
        bar.finish();
    }
    let name = args.certificate.display();
    let report = report.map_err(|failure| anyhow::anyhow!("{name} is refused: {failure}"))?;
    outln!(
        "{name} is confirmed: bounds of {} layers, claims about {} of {} images, in {}",
        report.n_layers,
        report.n_checked,
        report.n_samples,
        spoken(Duration::from_secs_f64(start.elapsed().as_secs_f64()))
    );
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// How many images the file says it is about: the first ones of the test set. A wrong number is the verifier's to refuse.
fn claimed_samples(certificate: &[u8]) -> Option<usize> {
    let value: serde_json::Value = serde_json::from_slice(certificate).ok()?;
    usize::try_from(value.get("data")?.get("n_samples")?.as_u64()?).ok().filter(|&n| n > 0)
}

/// The element type of the images: that of the weights, which in f64 are executed in f64 alone.
fn stored_dtype(certificate: &[u8]) -> candle_core::DType {
    let value: Option<serde_json::Value> = serde_json::from_slice(certificate).ok();
    let narrow = value
        .as_ref()
        .and_then(|value| value.get("samples")?.get(0)?.get("executed")?.get("f32"))
        .is_some();
    if narrow { candle_core::DType::F32 } else { candle_core::DType::F64 }
}
