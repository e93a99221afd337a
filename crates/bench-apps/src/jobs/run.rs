//! Any job.

use std::path::Path;

use anyhow::Result;

use super::job::Job;
use super::work::{End, Reuse, Work};
use super::{anchors, classifier, critic, generator, kw_small};

/// Runs the job in `folder`, or the part of it that is missing.
///
/// # Errors
/// [`crate::Error::RunLocked`] where another process runs it; images that cannot be had; those of training and evaluation.
pub fn run(job: &Job, folder: &Path, work: &Work) -> Result<End> {
    if work.reuse == Reuse::Results && job.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    match job {
        Job::Classifier(job) => classifier::run(job, folder, work),
        Job::Published(job) => kw_small::run(job, folder, work),
        Job::Generator(job) => generator::run(job, folder, work),
        Job::Anchors(job) => anchors::run(job, folder, work),
        Job::Critic(job) => critic::run(job, folder, work),
    }
}
