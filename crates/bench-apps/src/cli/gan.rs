//! `lipconv gan`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use candle_core::Device;
use certify::Distribution;

use super::args::{DataArgs, log_to};
use super::train::{checkpoint_interval, interrupted};
use crate::config::{DatasetName, DeviceKind};
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, write_json};
use crate::progress::{Display, spoken};
use crate::stdout::outln;
use crate::wasserstein::gan::{
    GanEnd, GanJob, GanSettings, check_gan, generator_file, last_grid, train_gan,
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
    /// Folder of the run; the same folder and settings go on with it
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Images: cifar10, stl10, mnist, synthetic, idx:DIR or images:DIR (every PNG and JPEG below DIR)
    #[arg(long, value_name = "NAME", default_value = "cifar10")]
    dataset: DatasetName,
    /// Height and width, a multiple of 16 from 32 on [default: 64 for STL-10, 32 for CIFAR-10 and MNIST, a folder's own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Where to compute
    #[arg(long, value_enum, default_value = "cpu")]
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

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let start = Instant::now();
    let checkpoint_every: Duration = checkpoint_interval(args.checkpoint_every)?;
    args.settings.validate()?;
    let n = args.samples_every;
    ensure!((1..=100_000_000).contains(&n), "--samples-every is {n}, expected 1 to 100000000");
    let options = args.data.options(true, display);
    let loading = Loading { size: args.size, population: false, options: &options };
    let (images, notes) = loading.images(&args.dataset)?;
    notes.iter().for_each(|note| crate::stdout::note(note));
    let device: Device = build::device(args.device)?;
    let job = GanJob {
        settings: &args.settings,
        images: &images,
        device: &device,
        folder: &args.out,
        grid_every: args.samples_every,
        checkpoint_every,
        display,
    };
    check_gan(&job)?;
    let versions = args.out.join("versions.json");
    if !versions.is_file() {
        write_json(&versions, &Provenance::collect(&device_name(args.device)))?;
    }
    log_to(&args.out.join("log.txt"))?;
    match train_gan(&job)? {
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
