//! `lipconv gan`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use certify::Distribution;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::args::{DataArgs, log_to};
use super::train::{checkpoint_interval, interrupted};
use crate::config::{DatasetName, DeviceKind};
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, write_json};
use crate::progress::{Display, spoken};
use crate::stdout::{note, outln};
use crate::wasserstein::gan::{
    GanEnd, GanJob, GanSettings, claim_folder, generator_file, last_grid, train_claimed,
};
use crate::wasserstein::source::Loading;

/// Train a generator of images against a 1-Lipschitz critic
///
/// The paper's generator (62 random numbers, two dense layers, two transposed convolutions) against a BCOP critic, without a
/// gradient penalty: the critic's constraint is in its layers. The folder holds samples as PNG at regular steps, a
/// checkpoint and, at the end, the frozen generator. The same command resumes an interrupted run, on the CPU to the bit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv gan --out runs/gan                                   CIFAR-10 at 32 x 32
  lipconv gan --dataset images:photographs --size 64 --steps 20000 --out runs/photographs
  lipconv gan --dataset stl10 --device cuda --critic-width 1 --out runs/stl10
  lipconv wasserstein cifar10 generator:runs/gan/generator.safetensors")]
pub(super) struct Args {
    /// Folder of the run; the same folder and settings resume it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images: cifar10, stl10, mnist, synthetic, idx:DIR or images:DIR (every PNG, JPEG, GIF, WebP, BMP or TIFF below DIR)
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    dataset: DatasetName,
    /// Height and width, a multiple of 16 from 32 on [default: 64 for STL-10, 32 for CIFAR-10 and MNIST, a folder's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Where to compute
    #[arg(long, value_parser = training_device(), default_value = "cpu")]
    device: DeviceKind,
    #[command(flatten)]
    settings: GanSettings,
    /// Steps between pictures of samples
    #[arg(long, value_name = "N", default_value_t = 500)]
    samples_every: usize,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 30.0, allow_negative_numbers = true)]
    checkpoint_every: f64,
    #[command(flatten)]
    data: DataArgs,
}

/// The devices that train critics and generators: what else there is for classifiers is for comparisons and tests of their engines.
pub(super) fn training_device() -> impl TypedValueParser<Value = DeviceKind> {
    let devices = [DeviceKind::Cpu, DeviceKind::Cuda].into_iter();
    let values = devices.filter_map(|device| device.to_possible_value());
    PossibleValuesParser::new(values)
        .try_map(|name: String| <DeviceKind as ValueEnum>::from_str(&name, false))
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let start = Instant::now();
    let checkpoint_every = checkpoint_interval(args.checkpoint_every)?;
    args.settings.validate()?;
    let n = args.samples_every;
    ensure!((1..=100_000_000).contains(&n), "--samples-every is {n}, expected 1 to 100000000");
    let options = args.data.options(true, display);
    let loading = Loading { size: args.size, population: false, options: &options };
    let (images, notes) = loading.images(&args.dataset)?;
    notes.iter().for_each(|line| note(line));
    let device = build::device(args.device)?;
    let job = GanJob {
        settings: &args.settings,
        images: &images,
        device: &device,
        folder: &args.out,
        grid_every: args.samples_every,
        checkpoint_every,
        display,
    };
    // nothing is written into the folder before
    let claimed = claim_folder(&job)?;
    let versions = args.out.join("versions.json");
    if !versions.is_file() {
        write_json(&versions, &Provenance::collect(&device_name(args.device)))?;
    }
    log_to(&args.out.join("log.txt"))?;
    match train_claimed(&job, &claimed)? {
        GanEnd::Finished(_) => {
            let label = if images.is_synthetic() { " (synthetic digits)" } else { "" };
            outln!("trained on {}{label} in {}", images.name(), spoken(start.elapsed()));
            outln!("{}", generator_file(&args.out).display());
            if let Some(grid) = last_grid(&args.out) {
                outln!("{}", grid.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        GanEnd::Interrupted { step } => {
            Ok(interrupted(step, args.settings.steps as u64, "the same command"))
        }
    }
}
