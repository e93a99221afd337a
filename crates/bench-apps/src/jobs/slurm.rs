//! Jobs as an array of the batch system Slurm.
//!
//! Definition: the folders of the cells to run are listed in a file, one a line; task i of the array runs line i with the same
//! command as the queue's workers. The folder must be shared by all machines. Slurm signals a task a minute before its limit
//! or when it is cancelled; the task saves and exits. A task that is killed loses the time since its last checkpoint.
//!
//! Guarantee: what stands in the script is quoted, for the shell and for Slurm, or refused: a request or a path cannot add a line
//! or a command. Submitting again lists only cells without a result, and a task whose cell has one meanwhile ends at once.
//!
//! Errors: [`Error::InvalidArgument`] and [`Error::Malformed`] for what a script cannot hold, [`Error::Write`], [`Error::BatchSystem`] when `sbatch` cannot be started or refuses.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::files::write_atomic;

/// Requests to the batch system; absent ones take its defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct SlurmOptions {
    /// Partition of the batch system
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// GPUs of each task, as in 1 or a100:1
    #[arg(long, value_name = "GPUS")]
    pub gpus: Option<String>,
    /// Time limit of each task, as in 04:00:00
    #[arg(long, value_name = "TIME")]
    pub time: Option<String>,
    /// Account to charge
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Processor cores of each task
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: Option<u32>,
}

/// A job array, before it is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobArray {
    /// Folder for script, list and logs.
    pub folder: PathBuf,
    pub cells: Vec<PathBuf>,
    pub program: PathBuf,
    /// Arguments of every worker after `experiment run FOLDER`.
    pub arguments: Vec<String>,
    /// Variables that the tasks need.
    pub environment: Vec<(String, String)>,
    pub options: SlurmOptions,
    /// Tasks at a time.
    pub at_a_time: Option<usize>,
}

impl JobArray {
    fn list(&self) -> PathBuf {
        self.folder.join("cells.txt")
    }

    /// The script.
    pub fn script(&self) -> Result<String> {
        let options = &self.options;
        let limit = self.at_a_time.map_or(String::new(), |n| format!("%{n}"));
        let mut script = String::from("#!/bin/sh\n#SBATCH --job-name=lipconv\n");
        let mut directive = |name: &str, value: &str| {
            writeln!(script, "#SBATCH --{name}={value}").expect("a String takes every text");
        };
        directive("array", &format!("1-{}{limit}", self.cells.len()));
        directive("output", &log_pattern(&self.folder)?);
        // a minute before the time is up: enough to save
        directive("signal", "B:TERM@60");
        let asked = [
            ("partition", options.partition.clone()),
            ("gpus", options.gpus.clone()),
            ("time", options.time.clone()),
            ("account", options.account.clone()),
            ("cpus-per-task", options.cpus.map(|n| n.to_string())),
        ];
        for (name, value) in asked {
            if let Some(value) = value {
                directive(name, request(name, &value)?);
            }
        }
        script.push_str("set -eu\n");
        for (name, value) in &self.environment {
            script += &format!("export {name}={}\n", quoted(value));
        }
        let list = quoted(text(&self.list())?);
        script += &format!("cell=$(sed -n \"${{SLURM_ARRAY_TASK_ID}}p\" {list})\n");
        let threads = options.cpus.map_or(String::new(), |n| format!(" --threads {n}"));
        let program = quoted(text(&self.program)?);
        let arguments: String = self.arguments.iter().map(|a| format!(" {}", quoted(a))).collect();
        // exec: the request to end reaches the worker itself
        script += &format!("exec {program} --quiet{threads} experiment run \"$cell\"{arguments}\n");
        Ok(script)
    }

    /// Writes list and script, hands the script to `sbatch` and returns the job's number.
    pub fn submit(&self) -> Result<String> {
        let script = self.script()?;
        let lines = self.cells.iter().map(|cell| Ok(format!("{}\n", text(cell)?)));
        let lines = lines.collect::<Result<String>>()?;
        write_atomic(&self.list(), lines.as_bytes())?;
        let path = self.folder.join("job.sh");
        write_atomic(&path, script.as_bytes())?;
        sbatch(&path)
    }
}

fn sbatch(script: &Path) -> Result<String> {
    let failed = |reason: String| Error::BatchSystem { command: "sbatch", reason };
    let output = Command::new("sbatch").arg("--parsable").arg(script).output();
    let output = output.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        return Err(failed(format!("{}: {text}", output.status)));
    }
    // "NUMBER" or "NUMBER;CLUSTER"
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.trim().split(';').next().unwrap_or_default().to_owned();
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(failed(format!("it answered {:?}, expected a job number", text.trim())));
    }
    Ok(number)
}

/// Whether neither the shell nor Slurm sees more in a character than itself.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.:,+=@/~".contains(c)
}

/// The value of a request, which stands in the script as it is.
fn request<'a>(name: &'static str, value: &'a str) -> Result<&'a str> {
    if !value.is_empty() && value.chars().all(is_plain) {
        return Ok(value);
    }
    Err(Error::argument(name, format!("{value:?}"), "letters, digits and _-.:,+=@/~"))
}

/// A path that can stand in the script and in the list.
fn text(path: &Path) -> Result<&str> {
    path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| {
        Error::malformed(
            path,
            "expected a path of UTF-8 without control characters, which a batch script can hold",
        )
    })
}

/// The logs in a folder, as Slurm reads a name: in quotes where it needs them, a percent sign doubled.
fn log_pattern(folder: &Path) -> Result<String> {
    let folder_text = text(folder)?;
    if folder_text.contains(['"', '\\']) {
        let what = "expected a path without quotation marks and backslashes, which Slurm takes for its own";
        return Err(Error::malformed(folder, what));
    }
    let pattern = format!("{}/%A_%a.log", folder_text.replace('%', "%%"));
    let plain = pattern.chars().all(|c| is_plain(c) || c == '%');
    Ok(if plain { pattern } else { format!("\"{pattern}\"") })
}

/// A word for the shell, whatever it holds.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
