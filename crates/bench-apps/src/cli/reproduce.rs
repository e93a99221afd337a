//! `lipconv reproduce`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use lipconv::Network;

use super::args::{DataArgs, EvalFlags, TrainFlags, log_to};
use super::reproduce_tables::{self, Call, TableFlags};
use super::train::{checkpoint_interval, interrupted};
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::experiment::build::{check_network, device_name};
use crate::experiment::evaluation::evaluate;
use crate::experiment::training::{TrainJob, Trained, train};
use crate::experiment::write_up::Finished;
use crate::files::Provenance;
use crate::files::write_atomic;
use crate::files::{RunDir, RunFiles};
use crate::progress::{Display, spoken};
use crate::report::{Report, compared, render};
use crate::results::write_results;
use crate::stdout::{out, outln};
use crate::text_table::{counted, percent, text_table};

/// Train, certify and attack the paper's BCOP-Small on MNIST, or reproduce its tables and figures
///
/// With the name of a table or figure (table1, table2, table3, figure2, all) or an experiment file, every cell that is
/// missing is run, and all of them are written up; see experiments/README.md. Finished cells are never run again, and
/// an interrupted one goes on where it stopped. Without a name, trains on the 60,000 training images with a short schedule and evaluates on the 10,000 test images: clean accuracy,
/// accuracy certified at several radii, accuracy under FGSM and PGD. Prints a table beside the paper's numbers, and
/// writes results.json and report.html. After an interruption the same command goes on where it stopped; a finished
/// training with the same settings and the same source is not repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv reproduce
  lipconv reproduce --data-dir ../datasets --out target/mine
  lipconv reproduce --epochs 200 --schedule exponential        the paper's budget
  lipconv reproduce --epochs 1 --train-limit 6000 --test-limit 500   a quick look
  lipconv reproduce all --quick
  lipconv reproduce table1 --full --seeds 0,1,2 --only bcop,rko --jobs 2
  lipconv reproduce table1 --full --device cuda --executor slurm --partition gpu --gpus 1 --time 08:00:00 --out shared/out
  lipconv reproduce --collect --out shared/out")]
pub(super) struct Args {
    /// table1, table2, table3, figure2, all, or a file such as those in experiments/
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,
    /// Folder of report.html, results.json and the runs [default: target/reproduce, for tables target/reproduction]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Train anew even where a run with the same settings is there
    #[arg(long)]
    fresh: bool,
    /// Seconds between checkpoints within an epoch
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    checkpoint_every: f64,
    #[command(flatten)]
    tables: TableFlags,
    #[command(flatten)]
    flags: TrainFlags,
    #[command(flatten)]
    evaluation: EvalFlags,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    let checkpoint_every = checkpoint_interval(args.checkpoint_every)?;
    if !args.experiments.is_empty() || args.tables.collect {
        return run_tables(args, display);
    }
    anyhow::ensure!(
        args.tables == TableFlags::default(),
        "flags of tables and figures need one, as in: lipconv reproduce table1 --quick"
    );
    let out = args.out.clone().unwrap_or_else(|| "target/reproduce".into());
    let mut config = args.flags.config()?;
    args.evaluation.apply(&mut config)?;
    let dataset = args.data.load(&config, true, display)?;
    check_network(&config.network, &dataset.train)?;
    let provenance = Provenance::collect(&device_name(config.device));
    let run = open_run(&out, args.fresh, &config, &provenance)?;
    log_to(&run.files().log())?;
    run.bind_data(&dataset)?;
    announce(&config, &dataset, &provenance);
    let job = TrainJob { config: &config, dataset: &dataset, run: &run, display, checkpoint_every };
    let (network, training_seconds) = match train(&job)? {
        Trained::Finished { network, seconds } => (network, seconds),
        Trained::Interrupted { step, total } => {
            return Ok(interrupted(step, total, "the same command"));
        }
    };
    let trained = TrainedRun { run: &run, network, seconds: training_seconds, provenance };
    let report = conclude(&trained, &config, &dataset, display, &out)?;
    print_summary(&report, &out);
    Ok(ExitCode::SUCCESS)
}

fn run_tables(args: &Args, display: Display) -> Result<ExitCode> {
    let device = args.flags.device_alone();
    anyhow::ensure!(
        device.is_some() && args.evaluation == EvalFlags::default() && !args.fresh,
        "cells of tables and figures take their settings from experiment files: of the flags of training and evaluation \
         only --device goes with them"
    );
    reproduce_tables::run(&Call {
        experiments: &args.experiments,
        flags: &args.tables,
        out: args.out.clone().unwrap_or_else(|| reproduce_tables::OUT.into()),
        device: device.flatten().unwrap_or_default(),
        data: &args.data,
        checkpoint_every: args.checkpoint_every,
        display,
    })
}

fn announce(config: &RunConfig, dataset: &Dataset, provenance: &Provenance) {
    eprintln!(
        "{}: {} training and {} test images ({}); {} on {}",
        dataset.train.name(),
        dataset.train.len(),
        dataset.test.len(),
        dataset.source,
        counted(config.training.epochs, "epoch"),
        provenance.device
    );
}

/// The run under `OUT/run`: resumed where it has the same settings and the same source, new otherwise. An old run is moved
/// aside, never deleted.
fn open_run(
    out: &Path,
    fresh: bool,
    config: &RunConfig,
    provenance: &Provenance,
) -> Result<RunDir> {
    let path = out.join("run");
    let Ok(old) = RunFiles::open(&path) else {
        return Ok(RunDir::create(&path, config, provenance)?);
    };
    let why = match &old.config() {
        _ if fresh => Some("as asked for"),
        Ok(before) if !before.trains_as(config) => Some("its settings differ"),
        Ok(_) if old.provenance().ok().map(|p| p.commit) != Some(provenance.commit.clone()) => {
            Some("it was made by another version of the source")
        }
        Ok(_) => None,
        Err(_) => Some("its configuration cannot be read"),
    };
    match why {
        None => {
            eprintln!("going on with the run in {}", path.display());
            Ok(RunDir::resume(&path)?)
        }
        Some(why) => {
            // held until the folder is moved: nobody else may be writing in it
            let lock = RunDir::resume(&path)?;
            let aside = free_name(out)?;
            fs::rename(&path, &aside)
                .with_context(|| format!("cannot move {} aside", path.display()))?;
            drop(lock);
            eprintln!("starting anew, {why}; the old run is now {}", aside.display());
            Ok(RunDir::create(&path, config, provenance)?)
        }
    }
}

fn free_name(out: &Path) -> Result<PathBuf> {
    (1..10_000)
        .map(|i| out.join(format!("run-old-{i}")))
        .find(|path| !path.exists())
        .context("too many old runs in the output folder")
}

struct TrainedRun<'a> {
    run: &'a RunDir,
    network: Network,
    seconds: f64,
    provenance: Provenance,
}

/// Evaluates and writes everything up; `report.html` comes last.
fn conclude(
    trained: &TrainedRun<'_>,
    config: &RunConfig,
    dataset: &Dataset,
    display: Display,
    out: &Path,
) -> Result<Report> {
    let files = trained.run.files();
    let plain = trained.network.materialize()?;
    plain.save(&files.network())?;
    let evaluated = evaluate(&plain, &dataset.test, &config.evaluation, display)?;
    crate::files::write_json(&files.eval(), &evaluated.summary(&dataset.test))?;
    tracing::info!(clean = evaluated.clean(), seconds = evaluated.seconds, "evaluation finished");
    let finished = Finished {
        experiment: "reproduce",
        config,
        dataset,
        network: &plain,
        evaluated: &evaluated,
        history: files.metrics()?,
        training_seconds: trained.seconds,
        provenance: trained.provenance.clone(),
    };
    let report = finished.report()?;
    write_results(&out.join("results.json"), std::slice::from_ref(&report.row))?;
    write_atomic(&out.join("report.html"), render(&report)?.as_bytes())?;
    Ok(report)
}

fn print_summary(report: &Report, out: &Path) {
    let row = &report.row;
    let label =
        if row.synthetic { " (SYNTHETIC DATA: compares with nothing in the paper)" } else { "" };
    let seconds = Duration::from_secs_f64(row.seconds.max(0.0));
    outln!(
        "\n{} {} on {}{label}: {}, seed {}, {}, {}\n",
        row.layer,
        row.network,
        row.dataset,
        counted(row.epochs, "epoch"),
        row.seed,
        row.device,
        spoken(seconds)
    );
    out!("{}", comparison_table(report));
    outln!("\nreport:  {}", out.join("report.html").display());
    outln!("results: {}", out.join("results.json").display());
}

fn comparison_table(report: &Report) -> String {
    let mut heading = vec!["test accuracy, %".to_owned(), "ours".to_owned()];
    if report.reference.is_some() {
        heading.extend(["paper (200 epochs, 5 seeds)".into(), "difference".into()]);
    }
    let mut rows = vec![heading];
    for compared in compared(report) {
        let mut row = vec![compared.what.clone(), percent(compared.ours)];
        if report.reference.is_some() {
            let sd = compared.sd.map_or(String::new(), |sd| format!(" ± {sd:.2}"));
            row.push(percent(compared.paper) + &sd);
            row.push(compared.difference().map_or(String::new(), |d| format!("{d:+.2}")));
        }
        rows.push(row);
    }
    text_table(&rows)
}
