//! `lipconv experiment`.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use super::args::{DataArgs, log_to};
use super::train::checkpoint_interval;
use crate::Error;
use crate::interrupt;
use crate::progress::Display;
use crate::reproduction::cell::CellResult;
use crate::reproduction::distances::spec::Choice;
use crate::reproduction::queue::BUSY;
use crate::reproduction::run::{End, Work, run_cell};
use crate::reproduction::spec::{Experiment, NAMES};
use crate::stdout::out;
use crate::text_table::text_table;

/// Cells of the paper's tables and figures, one by one
///
/// `reproduce` writes a plan for each cell and runs what is missing; these commands are what it, and a batch system, run.
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

/// Run the cell in a folder, or what is missing of it
///
/// Trains from the last checkpoint, evaluates and writes result.json. Exit status 75: another process is at it.
#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The cell's folder, which holds cell.json
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

/// List the cells of an experiment, and which of them are finished
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// table1, table2, table3, table4, figure2 or a file; all where none is named
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,
    /// Budget: quick, default or full
    #[arg(long, default_value = "default")]
    budget: String,
    /// Folder of the cells
    #[arg(long, value_name = "DIR", default_value = super::reproduce_tables::OUT)]
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
    let work = Work { data: args.data.options(false, display), checkpoint_every, display };
    match run_cell(&args.folder, &work) {
        Ok(End::Finished) => Ok(ExitCode::SUCCESS),
        Ok(End::FinishedBefore) => {
            eprintln!("{} is finished already", args.folder.display());
            Ok(ExitCode::SUCCESS)
        }
        Ok(End::Interrupted) => {
            eprintln!("interrupted; the same command goes on");
            Ok(ExitCode::from(interrupt::STATUS))
        }
        Err(error) if matches!(error.downcast_ref(), Some(Error::RunLocked { .. })) => {
            eprintln!("note: {error}");
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
    let names: Vec<&str> = match args.experiments.as_slice() {
        [] => NAMES.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let mut rows = vec![["experiment", "cell", "state"].map(str::to_owned).to_vec()];
    for name in names {
        let experiment = Experiment::find(name)?;
        let budget = experiment.budget(&args.budget)?;
        for cell in experiment.cells(&args.budget, None, None)? {
            let state = match (CellResult::read(&cell.folder(&args.out))?, budget.config(&cell)) {
                (Some(_), _) => "finished".to_owned(),
                (None, Ok(_)) => "missing".to_owned(),
                (None, Err(error)) => format!("impossible: {error}"),
            };
            rows.push(vec![name.to_owned(), cell.id(), state]);
        }
        let budget = args.budget.as_str();
        let device = crate::config::DeviceKind::Cpu;
        let choice = Choice { budget, seeds: None, only: None, device };
        for plan in experiment.distance_cells(choice)?.0 {
            let there = plan.result(&plan.folder(&args.out))?.is_some();
            let state = if there { "finished" } else { "missing" };
            rows.push(vec![name.to_owned(), plan.id(), state.to_owned()]);
        }
    }
    out!("{}", text_table(&rows));
    Ok(ExitCode::SUCCESS)
}
