//! The paper's tables and figures, from a list of jobs to their results.
//!
//! Definition. A *job* trains or evaluates one network: a *classifier* (a data set, a network, a method and a seed under a
//! budget), a *published* network, a *generator* for a data set, a *critic* between that generator and the data, or the
//! *anchors*, critics on distributions whose distance is known. An experiment is a set of jobs, as a TOML file ([`spec`]).
//! The folder of a job is `DIR/cells/BUDGET/NAME`, for the last three kinds `DIR/distances/BUDGET/NAME`. It holds `cell.json`, the
//! job with its whole configuration; `run/`, a run directory; `worker.log`; and, at the end, `result.json`. The
//! queue ([`queue`]), a batch system ([`slurm`]) and the write-up ([`collect`]) communicate through these files alone.
//!
//! Guarantee: files are replaced whole. A job that has a result is not run again. Any number of processes, on any machines
//! that share the folder, may work at once: a job belongs to the one that holds its lock.
//!
//! Not here: flags (`cli`), the page ([`crate::report`]).

pub mod cell;
pub mod classifier;
pub mod collect;
pub mod collect_distances;
pub mod costs;
pub mod distance;
mod distance_run;
pub mod distance_spec;
pub mod evidence;
pub mod job;
pub mod kw_small;
pub mod queue;
pub mod slurm;
pub mod spec;
mod trials;

use std::path::Path;

use anyhow::Result;

use self::job::{End, Job, Reuse, Work};

/// Runs the job in `folder`, or the part of it that is missing.
pub fn run(job: &Job, folder: &Path, work: &Work) -> Result<End> {
    if work.reuse == Reuse::Results && job.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    match job {
        Job::Classifier(job) => classifier::run(job, folder, work),
        Job::Published(job) => kw_small::run(job, folder, work),
        Job::Generator(job) => distance_run::generator(job, folder, work),
        Job::Anchors(job) => distance_run::anchors(job, folder, work),
        Job::Critic(job) => distance_run::critic(job, folder, work),
    }
}
