//! `lipconv experiment`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::args::{DataArgs, log_to};
use super::reproduce::{experiments_help, find};
use super::train::{checkpoint_interval, stopped};
use crate::Error;
use crate::config::DeviceKind;
use crate::interrupt;
use crate::jobs::job::{Choice, End, Job, Reuse, State, Work};
use crate::jobs::queue::BUSY;
use crate::progress::Display;
use crate::report::table::Table;
use crate::stdout::{note, out};

/// Jobs of the paper's tables and figures, one by one
///
/// `reproduce` writes cell.json for each job and runs the missing jobs with these commands. A batch system can do the same.
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
    #[arg(value_name = "EXPERIMENT", help = format!("{} [default: all]", experiments_help()))]
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
        Ok(End::Interrupted) => Ok(stopped()),
        Err(error) if matches!(error.downcast_ref(), Some(Error::RunLocked { .. })) => {
            note(&error.to_string());
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
    let mut rows = Vec::new();
    for experiment in find(&args.experiments)? {
        let name = experiment.name.as_str();
        let device = DeviceKind::Cpu;
        let choice = Choice { budget: &args.budget, seeds: None, only: None, device };
        let found = experiment.jobs(choice)?;
        for job in found.jobs {
            let state = match job.state(&job.folder(&args.out)) {
                Ok(State::Finished(_)) => "finished".to_owned(),
                Ok(State::Missing) => "missing".to_owned(),
                // one that the system refuses to read hides no other either
                Ok(State::Damaged(error)) | Err(error) => format!("unreadable: {error}"),
            };
            rows.push(vec![name.to_owned(), job.id(), state]);
        }
        for reason in found.impossible {
            let (id, reason) = reason.split_once(": ").unwrap_or((name, &reason));
            rows.push(vec![name.to_owned(), id.to_owned(), format!("impossible: {reason}")]);
        }
    }
    out!("{}", Table::plain(&["experiment", "cell", "state"], rows).terminal());
    Ok(ExitCode::SUCCESS)
}
