//! `lipconv train`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lipconv_datasets::Dataset;

use super::args::{DataArgs, TrainFlags, log_to};
use crate::config::{DatasetName, RunConfig};
use crate::experiment::build::{self, check_network, device_name};
use crate::experiment::training::{TrainJob, Trained, first_network, open_trainer, train};
use crate::files::{Provenance, RunDir};
use crate::interrupt;
use crate::progress::{Display, spoken_seconds};
use crate::stdout::{note, outln};
use crate::wasserstein::number_text;
use crate::words::{percent, shell_quoted};

/// Train a network in a run directory
///
/// The folder holds the configuration, the versions of everything, the history (metrics.jsonl), the checkpoint, the log
/// and, at the end, the trained network. Ctrl-C saves and stops; a killed run loses its last few seconds at most. A resumed run
/// ends with the same weights, to the bit, as one that was never interrupted. A run that is resumed with more epochs follows
/// the learning-rate schedule of the longer run from there on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv train --out runs/first --epochs 3
  lipconv train --config examples/configs/bcop-small-mnist-paper.toml --out runs/paper --seed 1
  lipconv train --dataset cifar10 --network large --recipe certified --out runs/cifar
  lipconv train --recipe certified --target-eps 1.58 --print-config
  lipconv train --resume runs/paper
  lipconv train --resume runs/first --epochs 10
  lipconv train --init-from runs/first --dataset images:photos --size 28 --out runs/fine-tuned")]
pub(super) struct Args {
    /// Folder of a new run [default: runs/LAYER-NETWORK-seedN, with the data set's name before it except for MNIST]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder, as it is configured there; with --epochs N, until N epochs are done
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Begin with the network of the run in this folder, which may have had other images or another recipe
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    init_from: Option<PathBuf>,
    /// Print the whole configuration and train nothing
    #[arg(long, conflicts_with = "resume")]
    print_config: bool,
    /// Seconds between checkpoints within an epoch
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    checkpoint_every: f64,
    #[command(flatten)]
    flags: TrainFlags,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    if args.print_config {
        outln!("{}", config(args)?.to_toml()?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let checkpoint_every = checkpoint_interval(args.checkpoint_every)?;
    let (run, config, dataset) = match &args.resume {
        Some(dir) => {
            let run = RunDir::resume(dir)?;
            let (network, checkpoint) = (run.files().network(), run.files().checkpoint());
            ensure!(
                checkpoint.is_file() || !network.is_file(),
                "{} is missing, expected the state of training beside the trained network",
                checkpoint.display()
            );
            let epochs = args.flags.epochs_alone().context(
                "a resumed run keeps its settings: of the flags of training only --epochs goes with --resume",
            )?;
            let mut config = run.files().config_as_trained()?;
            config.training.epochs = epochs.unwrap_or(config.training.epochs);
            config.validate()?;
            let dataset = args.data.load(&config, true, display)?;
            (run, config, dataset)
        }
        None => begin(args, display)?,
    };
    log_to(&run.files().log())?;
    run.bind_data(&dataset)?;
    let job = TrainJob {
        config: &config,
        dataset: &dataset,
        label: "training",
        run: &run,
        display,
        checkpoint_every,
    };
    plan_epochs(&job)?;
    finish(&run, train(&job)?, dataset.is_synthetic())
}

/// Takes another number of epochs into the configuration of a run, once everything else of it is there.
fn plan_epochs(job: &TrainJob<'_>) -> Result<()> {
    let (epochs, mut config) = (job.config.training.epochs, job.run.files().config()?);
    let planned = std::mem::replace(&mut config.training.epochs, epochs);
    if epochs == planned {
        return Ok(());
    }
    open_trainer(job, &build::device(job.config.device)?)?;
    // before the plan, so that no moment shows an old network as that of the new plan
    job.run.set_network_aside(planned)?;
    note(&format!(
        "{epochs} epochs in place of {planned}: further steps take the learning rates of a run of {epochs} epochs"
    ));
    Ok(job.run.put_config(&config)?)
}

fn config(args: &Args) -> Result<RunConfig> {
    let mut config = args.flags.config()?;
    if let Some(from) = args.init_from.as_ref().or(config.init_from.as_ref()) {
        config.init_from = Some(std::path::absolute(from)?);
    }
    Ok(config)
}

/// Images and configuration come before the folder, so that a mistake in them leaves nothing behind.
fn begin(args: &Args, display: Display) -> Result<(RunDir, RunConfig, Dataset)> {
    let config = config(args)?;
    let dataset = args.data.load(&config, true, display)?;
    check_network(&config.network, &dataset.train)?;
    // as do a device that is not there and a first network that does not fit
    let device = build::device(config.device)?;
    if config.init_from.is_some() {
        first_network(&config, &dataset.train, &device)?;
    }
    let out = args.out.clone().unwrap_or_else(|| default_dir(&config));
    let provenance = Provenance::collect(&device_name(config.device));
    let run = RunDir::create(&out, &config, &provenance)?;
    Ok((run, config, dataset))
}

fn default_dir(config: &RunConfig) -> PathBuf {
    let network = &config.network;
    let dataset = match &config.data.dataset {
        DatasetName::Mnist | DatasetName::Synthetic => "",
        DatasetName::Cifar10 => "cifar10-",
        DatasetName::Stl10 => "stl10-",
        DatasetName::Idx(_) | DatasetName::Images(_) => "own-",
    };
    let name = format!("{dataset}{}-{}-seed{}", network.layer, network.name, config.training.seed);
    Path::new("runs").join(name)
}

pub(super) fn checkpoint_interval(seconds: f64) -> Result<Duration> {
    if seconds == f64::INFINITY {
        return Ok(Duration::MAX);
    }
    if !(0.0..=1e18).contains(&seconds) {
        bail!("--checkpoint-every is {}, expected 0 to 1e18 seconds, or inf", number_text(seconds));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn finish(run: &RunDir, trained: Trained, synthetic: bool) -> Result<ExitCode> {
    let dir = shell_quoted(run.files().path());
    match trained {
        Trained::Finished { network, seconds } => {
            let file = run.files().network();
            let before = std::fs::read(&file).ok();
            network.materialize()?.save(&file)?;
            // an evaluation may be of the run before its end
            if std::fs::read(&file).ok() != before {
                run.forget_evaluation()?;
            }
            let history = run.files().metrics()?;
            let last = history.last().and_then(|row| row.test_clean);
            let label = if synthetic { " (synthetic digits)" } else { "" };
            let accuracy = match percent(last) {
                none if none.is_empty() && history.is_empty() => {
                    "its history is missing".to_owned()
                }
                none if none.is_empty() => "its last epoch was not evaluated".to_owned(),
                known => format!("test accuracy {known} %"),
            };
            outln!("trained in {}: {accuracy}{label}", spoken_seconds(seconds));
            outln!("evaluate it with: lipconv eval {dir}");
            Ok(ExitCode::SUCCESS)
        }
        Trained::Interrupted { step, total } => {
            Ok(interrupted(step, total, &format!("lipconv train --resume {dir}")))
        }
    }
}

/// Says that the same command goes on; the status is that of an interrupted program.
pub(super) fn stopped() -> ExitCode {
    crate::stdout::errln!("interrupted; the same command goes on");
    ExitCode::from(interrupt::STATUS)
}

/// Says how to go on, after a step.
pub(super) fn interrupted(step: u64, total: u64, how: &str) -> ExitCode {
    crate::stdout::errln!(
        "interrupted after step {step} of {total}, which is saved; go on with: {how}"
    );
    ExitCode::from(interrupt::STATUS)
}
