//! `lipconv reproduce`: one network, or the paper's tables and figures.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::args::{DataArgs, EvalFlags, TrainFlags, log_to};
use super::train::{checkpoint_interval, stopped};
use crate::config::{DeviceKind, Recipe, RunConfig};
use crate::files::{write_atomic, write_json};
use crate::jobs::cell::{Cell, ClassifierJob};
use crate::jobs::collect::{collect, sorted};
use crate::jobs::job::{Choice, End, Job, JobResult, Reuse, State, Work};
use crate::jobs::queue::{self, Queue, Summary, Task};
use crate::jobs::slurm::{JobArray, SlurmOptions};
use crate::jobs::spec::{CellBlock, Experiment, names};
use crate::progress::Display;
use crate::report::{markdown, page, terminal};
use crate::stdout::{note, out, outln};
use crate::words::{counted, distinct, once};

/// Folder of the jobs and the report.
pub(super) const OUT: &str = "target/reproduction";

/// Train, certify and attack the paper's BCOP-Small on MNIST, or reproduce its tables and figures
///
/// With the name of a table or figure, with all of them (all) or with an experiment file, runs every
/// missing job and writes up all of them; see experiments/README.md. Finished jobs are not run again, and an interrupted
/// job continues from its last checkpoint. Without a name, trains on the 60,000 training images with a short schedule and
/// evaluates on the 10,000 test images: clean accuracy, accuracy certified at several radii, accuracy under FGSM and
/// PGD. It trains once by the paper's recipe and once by a recent one; --recipe NAME trains by that recipe alone. Prints a table beside the
/// paper's numbers, and writes results.json and report.html. After an interruption the same command continues; a finished
/// training with the same settings and the same source is not repeated.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lipconv reproduce
  lipconv reproduce --data-dir ../datasets --out target/mine
  lipconv reproduce --epochs 200 --schedule exponential        the paper's budget
  lipconv reproduce --epochs 1 --train-limit 6000 --test-limit 500   a quick look
  lipconv reproduce --recipe large-radii                       a recipe of today, alone
  lipconv reproduce all --quick
  lipconv reproduce table1 --full --seeds 0,1,2 --only bcop,rko --jobs 2
  lipconv reproduce table1 --full --device cuda --executor slurm --partition gpu --gpus 1 --time 08:00:00 --out shared/out
  lipconv reproduce --collect --out shared/out")]
pub(super) struct Args {
    #[arg(value_name = "EXPERIMENT", help = experiments_help())]
    experiments: Vec<String>,
    /// Folder of report.html, results.json and the runs [default: target/reproduce, for tables target/reproduction]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Train again even if there is a run with the same settings
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

/// Flags of the tables and figures.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Tables and figures")]
struct TableFlags {
    /// A few minutes for each table: few epochs on some of the images
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The paper's budget: 200 epochs, 5 seeds
    #[arg(long)]
    full: bool,
    /// Seeds, but for cells with seeds of their own [default: those of the budget]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// These methods only, as in bcop,rko
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// Jobs at a time [default: 1; with a batch system: all]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Write up the finished jobs and run nothing
    #[arg(long)]
    collect: bool,
    /// Where the jobs run
    #[arg(long, value_enum)]
    executor: Option<Executor>,
    #[command(flatten)]
    slurm: SlurmOptions,
    /// Print the batch script and submit nothing
    #[arg(long)]
    print: bool,
}

/// Where the jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Executor {
    /// Processes on this machine
    Local,
    /// A job array of the batch system Slurm; OUT must be a folder that its machines share
    Slurm,
}

/// What may stand for an experiment.
pub(super) fn experiments_help() -> String {
    format!("{}, all, or a file such as those in experiments/", names().join(", "))
}

pub(super) fn run(args: &Args, display: Display) -> Result<ExitCode> {
    checkpoint_interval(args.checkpoint_every)?;
    if args.experiments.is_empty() && !args.tables.collect {
        return run_alone(args, display);
    }
    let device = args.flags.device_alone();
    ensure!(
        device.is_some() && args.evaluation == EvalFlags::default() && !args.fresh,
        "cells of tables and figures take their settings from experiment files: of the flags of training and evaluation \
         only --device goes with them"
    );
    let call = Call {
        flags: &args.tables,
        out: args.out.clone().unwrap_or_else(|| OUT.into()),
        device: device.flatten().unwrap_or_default(),
        data: &args.data,
        checkpoint_every: args.checkpoint_every,
        display,
    };
    call.run(&find(&args.experiments)?)
}

/// The default experiment, in this process, with the settings of the flags. The paper's recipe has the output folder, another
/// recipe the folder of its name there.
fn run_alone(args: &Args, display: Display) -> Result<ExitCode> {
    ensure!(
        args.tables == TableFlags::default(),
        "flags of tables and figures need one, as in: lipconv reproduce table1 --quick"
    );
    let out = args.out.clone().unwrap_or_else(|| "target/reproduce".into());
    let mut config = args.flags.config()?;
    args.evaluation.apply(&mut config)?;
    // found again from wherever the command goes on
    if let Some(from) = &config.init_from {
        config.init_from = Some(std::path::absolute(from)?);
    }
    let (experiment, jobs) = alone(&config, &args.flags)?;
    let work = Work {
        data: args.data.options(true, display),
        checkpoint_every: checkpoint_interval(args.checkpoint_every)?,
        display,
        reuse: if args.fresh { Reuse::Nothing } else { Reuse::Training },
        log: log_to,
    };
    let mut results = Vec::new();
    for (i, job) in jobs.into_iter().enumerate() {
        let folder = match &job.cell.recipe {
            Some(recipe) if i > 0 => out.join(recipe),
            _ => out.clone(),
        };
        let mut job = Job::Classifier(Box::new(job));
        job.put_in(&folder)?;
        if crate::jobs::run(&job, &folder, &work)? == End::Interrupted {
            return Ok(stopped());
        }
        results.extend(JobResult::read(&folder)?);
    }
    let reproduction = sorted(results, Vec::new(), &[experiment]);
    write_json(&out.join("results.json"), &reproduction.result_rows())?;
    write_atomic(&out.join("report.html"), page(&reproduction)?.as_bytes())?;
    out!("{}", terminal(&reproduction));
    outln!("report:  {}", out.join("report.html").display());
    outln!("results: {}", out.join("results.json").display());
    Ok(ExitCode::SUCCESS)
}

/// The compiled-in default experiment and its jobs, changed to the settings of the flags.
///
/// Its recipes train the same network on the same images for as many epochs. They are left out where the flags choose the way
/// of training, and for a network that nothing constrains.
fn alone(config: &RunConfig, flags: &TrainFlags) -> Result<(Experiment, Vec<ClassifierJob>)> {
    let mut experiment = Experiment::find("default")?;
    let budget = experiment.budget("default")?;
    let one = flags.choose_recipe() || config.network.layer.is_unconstrained();
    experiment.cells.truncate(if one { 1 } else { experiment.cells.len() });
    let mut jobs = Vec::new();
    for (i, block) in experiment.cells.iter_mut().enumerate() {
        let config = match block.recipe.as_deref().filter(|_| i > 0) {
            Some(name) => config.trained_by(&Recipe::named(name)?)?,
            None => config.clone(),
        };
        if i == 0 {
            block.recipe = flags.recipe().map(str::to_owned);
        }
        let cell = Cell {
            dataset: config.data.dataset.clone(),
            network: config.network.name,
            method: config.network.layer,
            recipe: block.recipe.clone(),
            seed: config.training.seed,
            budget: String::new(),
            attacks: Vec::new(),
        };
        *block = CellBlock {
            datasets: vec![cell.dataset.clone()],
            networks: vec![cell.network],
            methods: vec![cell.method.to_string()],
            recipe: cell.recipe.clone(),
            seeds: None,
            attacks: Vec::new(),
        };
        let (decision_images, boundary_steps) = (budget.decision_images, budget.boundary_steps);
        let search = None;
        jobs.push(ClassifierJob { cell, config, decision_images, boundary_steps, search });
    }
    Ok((experiment, jobs))
}

/// The experiments of these names, each once; without names, all. Different ones of the same name are refused.
pub(super) fn find(asked: &[String]) -> Result<Vec<Experiment>> {
    if asked.is_empty() {
        return Ok(Experiment::all());
    }
    let mut found: Vec<(&str, Experiment)> = Vec::new();
    for by in asked.iter().map(String::as_str) {
        let of = if by == "all" { Experiment::all() } else { vec![Experiment::find(by)?] };
        for experiment in of {
            let same = found.iter().position(|(_, other)| other.name == experiment.name);
            let Some(same) = same else {
                found.push((by, experiment));
                continue;
            };
            let (before, other) = &found[same];
            ensure!(
                *other == experiment,
                "{before} and {by} are different experiments of one name, {:?}, expected a name for each",
                experiment.name
            );
        }
    }
    Ok(found.into_iter().map(|(_, experiment)| experiment).collect())
}

/// A call for tables and figures.
struct Call<'a> {
    flags: &'a TableFlags,
    out: PathBuf,
    device: DeviceKind,
    data: &'a DataArgs,
    checkpoint_every: f64,
    display: Display,
}

/// The jobs of a call.
#[derive(Debug, Default)]
struct Planned {
    missing: Vec<Task>,
    n_finished: usize,
    /// Jobs that this version cannot run, with the reason.
    impossible: Vec<String>,
    notes: Vec<String>,
}

impl Call<'_> {
    fn run(&self, experiments: &[Experiment]) -> Result<ExitCode> {
        self.check(experiments)?;
        if self.flags.collect {
            if self.flags.only.is_some() || self.flags.seeds.is_some() {
                note("--collect writes up every finished cell, whatever --only and --seeds are");
            }
            let whole = self.write_up(experiments)? == 0;
            return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        let planned = self.plan(experiments)?;
        planned.notes.iter().for_each(|line| note(line));
        for problem in &planned.impossible {
            note(&format!("left out: {problem}"));
        }
        let n = planned.missing.len() + planned.n_finished;
        crate::stdout::errln!("{}, {} finished before", counted(n, "cell"), planned.n_finished);
        if self.flags.executor == Some(Executor::Slurm) {
            return self.submit(&planned);
        }
        let queue = Queue {
            jobs: self.flags.jobs.unwrap_or(1),
            arguments: self.worker_arguments()?,
            display: self.display,
        };
        let summary = queue::run(&queue, &planned.missing)?;
        // failures are reported even where the report cannot be written either
        let written = self.write_up(experiments);
        let status = conclude(&summary, &planned, *written.as_ref().unwrap_or(&0));
        written.map(|_| status)
    }

    fn check(&self, experiments: &[Experiment]) -> Result<()> {
        let flags = self.flags;
        if let Some(jobs) = flags.jobs {
            ensure!((1..=1000).contains(&jobs), "--jobs is {jobs}, expected 1 to 1000");
        }
        let asks_slurm = flags.slurm != SlurmOptions::default() || flags.print;
        ensure!(
            !asks_slurm || flags.executor == Some(Executor::Slurm),
            "--partition, --gpus, --time, --account, --cpus and --print go with --executor slurm"
        );
        let known = distinct(experiments.iter().flat_map(Experiment::methods));
        for name in flags.only.iter().flatten() {
            ensure!(
                known.contains(&name.as_str()),
                "--only has {name:?}, expected methods of the cells that are asked for: {}",
                known.join(", ")
            );
        }
        Ok(())
    }

    fn budget(&self) -> &'static str {
        match (self.flags.quick, self.flags.full) {
            (true, _) => "quick",
            (_, true) => "full",
            _ => "default",
        }
    }

    /// Writes the file of every job, and sorts out those that have a result.
    fn plan(&self, experiments: &[Experiment]) -> Result<Planned> {
        let mut planned = Planned::default();
        let choice = Choice {
            budget: self.budget(),
            seeds: self.flags.seeds.as_deref(),
            only: self.flags.only.as_deref(),
            device: self.device,
        };
        let mut folders = Vec::new();
        for experiment in experiments {
            let found = experiment.jobs(choice)?;
            planned.impossible.extend(found.impossible);
            planned.notes.extend(found.notes);
            for mut job in found.jobs {
                folders.push(job.put(&self.out)?);
            }
        }
        // read again: two experiments may ask different things of one cell
        for folder in distinct(folders) {
            let job = Job::read(&folder)?;
            match job.state(&folder) {
                Ok(State::Finished(_)) => {
                    planned.n_finished += 1;
                    continue;
                }
                Ok(State::Damaged(error)) => planned.notes.push(format!("made again: {error}")),
                // the worker says what hinders it
                Ok(State::Missing) | Err(_) => {}
            }
            planned.missing.push(Task { folder, job });
        }
        let n = planned.missing.len() + planned.n_finished + planned.impossible.len();
        ensure!(n > 0, "no cells are left of what was asked for, expected one at least");
        planned.missing.sort_by_key(|task| task.job.order());
        planned.impossible = once(planned.impossible.into_iter());
        Ok(planned)
    }

    fn worker_arguments(&self) -> Result<Vec<OsString>> {
        let mut arguments = self.data.as_arguments()?;
        arguments.push(format!("--checkpoint-every={}", self.checkpoint_every).into());
        Ok(arguments)
    }

    fn submit(&self, planned: &Planned) -> Result<ExitCode> {
        if planned.missing.is_empty() {
            outln!("nothing is missing; write it up with --collect");
            return Ok(planned.status());
        }
        let out = std::path::absolute(&self.out)?;
        let array = JobArray {
            folder: free_folder(&out.join("slurm"))?,
            cells: planned
                .missing
                .iter()
                .map(|task| std::path::absolute(&task.folder))
                .collect::<std::io::Result<_>>()?,
            program: std::env::current_exe().context("cannot find this program")?,
            arguments: texts(self.worker_arguments()?)?,
            environment: environment()?,
            options: self.flags.slurm.clone(),
            at_a_time: self.flags.jobs,
        };
        if self.flags.print {
            out!("{}", array.script()?);
            return Ok(ExitCode::SUCCESS);
        }
        let number = array.submit()?;
        let (n, folder) = (counted(array.cells.len(), "cell"), array.folder.display());
        outln!("submitted {n} as job array {number}; logs in {folder}");
        outln!(
            "the same command submits the missing jobs again; --collect writes up the finished ones"
        );
        Ok(planned.status())
    }

    /// Writes the report; the number of results that are not in it because they cannot be read.
    fn write_up(&self, experiments: &[Experiment]) -> Result<usize> {
        let (reproduction, unreadable) = collect(&self.out, experiments)?;
        let mut files = vec!["report.html", "report.md", "results.json"];
        write_json(&self.out.join("results.json"), &reproduction.result_rows())?;
        let distances = reproduction.distance_rows();
        if !distances.is_empty() {
            write_json(&self.out.join("distances.json"), &distances)?;
            files.push("distances.json");
        }
        write_atomic(&self.out.join("report.md"), markdown(&reproduction).as_bytes())?;
        write_atomic(&self.out.join("report.html"), page(&reproduction)?.as_bytes())?;
        out!("{}", terminal(&reproduction));
        for file in files {
            outln!("{}", self.out.join(file).display());
        }
        for error in &unreadable {
            note(&format!("left out: {error}"));
        }
        if !unreadable.is_empty() {
            crate::stdout::errln!(
                "error: {} cannot be read; reproduce makes such a result again under the budget of its cell",
                counted(unreadable.len(), "result")
            );
        }
        Ok(unreadable.len())
    }
}

impl Planned {
    /// The status of a call that leaves nothing else undone.
    fn status(&self) -> ExitCode {
        if self.impossible.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The variables that the tasks need: they may start in another folder.
fn environment() -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    if let Some(dir) = std::env::var_os("LIPCONV_DATA").filter(|dir| !dir.is_empty()) {
        let dir = std::path::absolute(Path::new(&dir))?;
        variables.push(("LIPCONV_DATA".into(), dir.display().to_string()));
    }
    if let Ok(value) = std::env::var("LIPCONV_OFFLINE") {
        variables.push(("LIPCONV_OFFLINE".into(), value));
    }
    Ok(variables)
}

fn free_folder(parent: &Path) -> Result<PathBuf> {
    (1..100_000)
        .map(|i| parent.join(i.to_string()))
        .find(|path| !path.exists())
        .context("too many submissions in the output folder")
}

fn conclude(summary: &Summary, planned: &Planned, n_unreadable: usize) -> ExitCode {
    for (cell, reason) in &summary.failed {
        crate::stdout::errln!("failed: {cell}: {reason}");
    }
    for cell in &summary.busy {
        crate::stdout::errln!("left to another process: {cell}");
    }
    if summary.interrupted {
        return stopped();
    }
    let n = summary.failed.len() + planned.impossible.len();
    if n == 0 {
        return if n_unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    crate::stdout::errln!(
        "error: {} not run; the same command tries again what failed",
        counted(n, "cell")
    );
    ExitCode::FAILURE
}

/// What a batch script can hold.
fn texts(arguments: Vec<OsString>) -> Result<Vec<String>> {
    let text = |argument: OsString| {
        argument.into_string().map_err(|argument| {
            anyhow::anyhow!("{} is not UTF-8, expected text for a batch script", argument.display())
        })
    };
    arguments.into_iter().map(text).collect()
}
