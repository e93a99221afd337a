//! `lipconv reproduce table1 …`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::args::DataArgs;
use crate::config::DeviceKind;
use crate::files::write_atomic;
use crate::files::write_json;
use crate::interrupt;
use crate::progress::Display;
use crate::report::reproduction::{markdown, page, terminal};
use crate::reproduction::cell::Plan;
use crate::reproduction::collect::collect;
use crate::reproduction::distances::spec::Choice;
use crate::reproduction::queue::{self, Queue, Summary, Task, TaskPlan};
use crate::reproduction::slurm::{Job, SlurmOptions};
use crate::reproduction::spec::{Experiment, NAMES};
use crate::results::write_results;
use crate::stdout::{out, outln};
use crate::text_table::counted;

/// Where cells and report go.
pub(super) const OUT: &str = "target/reproduction";

/// Flags of the tables and figures.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Tables and figures")]
pub(super) struct TableFlags {
    /// A few minutes for each table: one epoch on some of the images
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// The paper's budget: 200 epochs, 5 seeds
    #[arg(long)]
    full: bool,
    /// Seeds [default: the budget's]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// These methods only, as in bcop,rko
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// Cells at a time [default: 1; of a batch system: all]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Write up what is finished, and run nothing
    #[arg(long)]
    pub(super) collect: bool,
    /// Who runs the cells
    #[arg(long, value_enum)]
    executor: Option<Executor>,
    /// Partition of the batch system
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,
    /// GPUs of each task, as in 1 or a100:1
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,
    /// Time limit of each task, as in 04:00:00
    #[arg(long, value_name = "TIME")]
    time: Option<String>,
    /// Account to charge
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// Processor cores of each task
    #[arg(long, value_name = "N")]
    cpus: Option<usize>,
    /// Show the batch script, and submit nothing
    #[arg(long)]
    print: bool,
}

/// Who runs the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Executor {
    /// Processes on this machine
    Local,
    /// A job array of the batch system Slurm; OUT must be a folder that its machines share
    Slurm,
}

/// What the rest of the command line says.
pub(super) struct Call<'a> {
    pub(super) experiments: &'a [String],
    pub(super) flags: &'a TableFlags,
    pub(super) out: PathBuf,
    pub(super) device: DeviceKind,
    pub(super) data: &'a DataArgs,
    pub(super) checkpoint_every: f64,
    pub(super) display: Display,
}

pub(super) fn run(call: &Call<'_>) -> Result<ExitCode> {
    let experiments = find(call.experiments)?;
    call.check()?;
    if call.flags.collect {
        call.write_up(&experiments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let planned = call.plan(&experiments)?;
    for problem in &planned.impossible {
        eprintln!("note: left out: {problem}");
    }
    let n_missing = planned.missing.len();
    eprintln!(
        "{}, {} finished before",
        counted(n_missing + planned.n_finished, "cell"),
        planned.n_finished
    );
    if call.flags.executor == Some(Executor::Slurm) {
        return call.submit(&planned);
    }
    let queue = Queue {
        jobs: call.flags.jobs.unwrap_or(1),
        arguments: call.worker_arguments()?,
        display: call.display,
    };
    let summary = queue::run(&queue, &planned.missing)?;
    // what failed is said even where the report cannot be written either
    let written = call.write_up(&experiments);
    let status = conclude(&summary, &planned);
    written.map(|()| status)
}

/// The cells of a call.
#[derive(Debug, Default)]
struct Planned {
    missing: Vec<Task>,
    n_finished: usize,
    /// Cells that this version cannot run, with the reason.
    impossible: Vec<String>,
}

fn find(names: &[String]) -> Result<Vec<Experiment>> {
    let mut wanted: Vec<&str> = Vec::new();
    for name in names.iter().map(String::as_str) {
        match name {
            "all" => wanted.extend(NAMES),
            name => wanted.push(name),
        }
    }
    if names.is_empty() {
        wanted.extend(NAMES);
    }
    let mut seen = Vec::new();
    wanted.retain(|name| {
        !seen.contains(name) && {
            seen.push(*name);
            true
        }
    });
    Ok(wanted.into_iter().map(Experiment::find).collect::<crate::Result<_>>()?)
}

impl Call<'_> {
    fn check(&self) -> Result<()> {
        let flags = self.flags;
        if let Some(jobs) = flags.jobs {
            ensure!((1..=1000).contains(&jobs), "--jobs is {jobs}, expected 1 to 1000");
        }
        let asks_slurm = flags.partition.is_some()
            || flags.gpus.is_some()
            || flags.time.is_some()
            || flags.account.is_some()
            || flags.cpus.is_some()
            || flags.print;
        ensure!(
            !asks_slurm || flags.executor == Some(Executor::Slurm),
            "--partition, --gpus, --time, --account, --cpus and --print go with --executor slurm"
        );
        Ok(())
    }

    fn budget(&self) -> &'static str {
        match (self.flags.quick, self.flags.full) {
            (true, _) => "quick",
            (_, true) => "full",
            _ => "default",
        }
    }

    /// Writes the plan of every cell, and tells which have no result for it.
    fn plan(&self, experiments: &[Experiment]) -> Result<Planned> {
        let mut planned = Planned::default();
        let (budget_name, flags) = (self.budget(), self.flags);
        let mut folders = Vec::new();
        for experiment in experiments {
            let budget = experiment.budget(budget_name)?;
            for cell in
                experiment.cells(budget_name, flags.seeds.as_deref(), flags.only.as_deref())?
            {
                let mut config = match budget.config(&cell) {
                    Ok(config) => config,
                    Err(error) => {
                        planned.impossible.push(format!("{}: {error}", cell.id()));
                        continue;
                    }
                };
                config.device = self.device;
                let mut plan = Plan {
                    cell,
                    config,
                    decision_images: budget.decision_images,
                    boundary_steps: budget.boundary_steps,
                };
                let folder = plan.put(&self.out)?;
                if !folders.contains(&folder) {
                    folders.push(folder);
                }
            }
        }
        // read again: two experiments may ask different things of one cell
        for folder in folders {
            let plan = Plan::read(&folder)?;
            // a result that cannot be read is made again
            match plan.result(&folder) {
                Ok(Some(_)) => planned.n_finished += 1,
                _ => {
                    let plan = TaskPlan::Classifier(Box::new(plan));
                    planned.missing.push(Task { folder, plan });
                }
            }
        }
        for experiment in experiments {
            self.plan_distances(experiment, &mut planned)?;
        }
        planned.missing.sort_by_key(Task::order);
        planned.impossible.sort();
        planned.impossible.dedup();
        Ok(planned)
    }

    /// Adds the cells of an experiment that measure distances.
    fn plan_distances(&self, experiment: &Experiment, planned: &mut Planned) -> Result<()> {
        let choice = Choice {
            budget: self.budget(),
            seeds: self.flags.seeds.as_deref(),
            only: self.flags.only.as_deref(),
            device: self.device,
        };
        let (plans, unknown) = experiment.distance_cells(choice)?;
        planned.impossible.extend(unknown.iter().map(|e| format!("{}: {e}", experiment.name)));
        for plan in plans {
            let folder = plan.put(&self.out)?;
            if planned.missing.iter().any(|task| task.folder == folder) {
                continue;
            }
            match plan.result(&folder) {
                Ok(Some(_)) => planned.n_finished += 1,
                _ => {
                    let plan = TaskPlan::Distance(Box::new(plan));
                    planned.missing.push(Task { folder, plan });
                }
            }
        }
        Ok(())
    }

    fn worker_arguments(&self) -> Result<Vec<String>> {
        let mut arguments = self.data.as_arguments()?;
        arguments.push(format!("--checkpoint-every={}", self.checkpoint_every));
        Ok(arguments)
    }

    fn submit(&self, planned: &Planned) -> Result<ExitCode> {
        if planned.missing.is_empty() {
            outln!("nothing is missing; write it up with --collect");
            return Ok(ExitCode::SUCCESS);
        }
        let out = std::path::absolute(&self.out)?;
        let flags = self.flags;
        let job = Job {
            folder: free_folder(&out.join("slurm"))?,
            cells: planned
                .missing
                .iter()
                .map(|task| std::path::absolute(&task.folder))
                .collect::<std::io::Result<_>>()?,
            program: std::env::current_exe().context("cannot find this program")?,
            arguments: self.worker_arguments()?,
            environment: environment()?,
            options: SlurmOptions {
                partition: flags.partition.clone(),
                gpus: flags.gpus.clone(),
                time: flags.time.clone(),
                account: flags.account.clone(),
                cpus: flags.cpus,
                at_a_time: flags.jobs,
            },
        };
        if flags.print {
            out!("{}", job.script());
            return Ok(ExitCode::SUCCESS);
        }
        let number = job.submit()?;
        outln!(
            "submitted {} as job array {number}; logs in {}",
            counted(job.cells.len(), "cell"),
            job.folder.display()
        );
        outln!(
            "the same command submits what is missing then; --collect writes up what is finished"
        );
        Ok(if planned.impossible.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn write_up(&self, experiments: &[Experiment]) -> Result<()> {
        let reproduction = collect(&self.out, experiments)?;
        write_results(&self.out.join("results.json"), &reproduction.result_rows())?;
        let distances = reproduction.distance_rows();
        if !distances.is_empty() {
            write_json(&self.out.join("wasserstein.json"), &distances)?;
        }
        write_atomic(&self.out.join("report.md"), markdown(&reproduction).as_bytes())?;
        write_atomic(&self.out.join("report.html"), page(&reproduction)?.as_bytes())?;
        out!("{}", terminal(&reproduction));
        let further = (!distances.is_empty()).then_some("wasserstein.json");
        for file in ["report.html", "report.md", "results.json"].into_iter().chain(further) {
            outln!("{}", self.out.join(file).display());
        }
        Ok(())
    }
}

/// What the tasks need of this environment: they may start in another folder.
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

fn conclude(summary: &Summary, planned: &Planned) -> ExitCode {
    for (cell, reason) in &summary.failed {
        eprintln!("failed: {cell}: {reason}");
    }
    for cell in &summary.busy {
        eprintln!("left to another process: {cell}");
    }
    if summary.interrupted {
        eprintln!("interrupted; the same command goes on");
        return ExitCode::from(interrupt::STATUS);
    }
    if summary.failed.is_empty() && planned.impossible.is_empty() {
        return ExitCode::SUCCESS;
    }
    let n = summary.failed.len() + planned.impossible.len();
    eprintln!("error: {} not run; the same command tries again what failed", counted(n, "cell"));
    ExitCode::FAILURE
}
