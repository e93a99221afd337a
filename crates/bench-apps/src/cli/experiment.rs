//! `lipconv experiment`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::args::{DataArgs, log_to};
use super::train::checkpoint_interval;
use crate::Error;
use crate::config::DeviceKind;
use crate::interrupt;
use crate::jobs::job::{Choice, End, Job, Reuse, Work};
use crate::jobs::queue::BUSY;
use crate::jobs::spec::Experiment;
use crate::progress::Display;
use crate::report::table::Table;
use crate::stdout::out;

/// Jobs of the paper's tables and figures, one by one
///
/// `reproduce` writes cell.json for each job and starts the missing ones with these commands; so does a batch system.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    List(ListArgs),
}

/// Run the job of a folder, or the part of it that is missing
///
/// Trains from the last checkpoint, evaluates and writes result.json. Exit status 75: another process runs the job.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The job's folder, which holds cell.json
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Report progress on standard output, and save and stop when standard input ends
    #[arg(long)]
    supervised: bool,
    /// Seconds between checkpoints within an epoch
    #[arg(long, value_name = "S", default_value_t = 10.0, allow_negative_numbers = true)]
    checkpoint_every: f64,
    #[command(flatten)]
    data: DataArgs,
}

/// List the jobs of an experiment and their states
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// table1, table2, table3, table4, figure2, records, methods, ablation or a file [default: all]
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,
    /// Budget: quick, default or full
    #[arg(long, default_value = "default")]
    budget: String,
    /// Folder of the jobs
    #[arg(long, value_name = "DIR", default_value = super::reproduce::OUT)]
    out: PathBuf,
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    match &args.command {
        Command::Run(args) => run_one(args, display),
        Command::List(args) => list(args),
    }
}

fn run_one(args: &RunArgs, display: Display) -> Result<ExitCode> {
    let checkpoint_every = checkpoint_interval(args.checkpoint_every)?;
    let display = if args.supervised { Display::Reports } else { display };
    if args.supervised {
        stop_with_standard_input();
    }
    if args.folder.is_dir() {
        log_to(&args.folder.join("log.txt"))?;
    }
    let work = Work {
        data: args.data.options(false, display),
        checkpoint_every,
        display,
        reuse: Reuse::Results,
        // the worker's log is that of the job's folder
        log: |_| Ok(()),
    };
    match Job::read(&args.folder)
        .map_err(Into::into)
        .and_then(|job| crate::jobs::run(&job, &args.folder, &work))
    {
        Ok(End::Finished) => Ok(ExitCode::SUCCESS),
        Ok(End::FinishedBefore) => {
            crate::stdout::errln!("{} is finished already", args.folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Ok(End::Interrupted) => {
            crate::stdout::errln!("interrupted; the same command goes on");
            Ok(ExitCode::from(interrupt::STATUS))
        }
        Err(error) if matches!(error.downcast_ref(), Some(Error::RunLocked { .. })) => {
            crate::stdout::errln!("note: {error}");
            Ok(ExitCode::from(BUSY))
        }
        Err(error) => Err(error),
    }
}

/// The process that started this one holds the other end; the input ends with it.
fn stop_with_standard_input() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        interrupt::request();
    });
}

fn list(args: &ListArgs) -> Result<ExitCode> {
    let experiments = match args.experiments.as_slice() {
        [] => Experiment::all(),
        names => names.iter().map(|name| Experiment::find(name)).collect::<crate::Result<_>>()?,
    };
    let mut rows = Vec::new();
    for experiment in experiments {
        let name = experiment.name.as_str();
        let device = DeviceKind::Cpu;
        let choice = Choice { budget: &args.budget, seeds: None, only: None, device };
        let found = experiment.jobs(choice)?;
        for job in found.jobs {
            let there = job.result(&job.folder(&args.out))?.is_some();
            let state = if there { "finished" } else { "missing" };
            rows.push(vec![name.to_owned(), job.id(), state.to_owned()]);
        }
        for reason in found.impossible {
            let (id, reason) = reason.split_once(": ").unwrap_or((name, &reason));
            rows.push(vec![name.to_owned(), id.to_owned(), format!("impossible: {reason}")]);
        }
    }
    out!("{}", Table::plain(&["experiment", "cell", "state"], rows).terminal());
    Ok(ExitCode::SUCCESS)
}
