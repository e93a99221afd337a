//! A critic between data and generator, for several learning rates.
//!
//! Guarantee: a critic whose generator is being trained by another process waits for it; where nobody trains it, the critic's
//! job does so itself.

use std::path::Path;

use anyhow::Result;
use certify::Distribution;
use lipconv_datasets::sha256_file;

use super::distance::{CriticJob, CriticResult};
use super::generator::{images, trained_beside};
use super::job::{End, Job, JobResult, Work};
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, lock_folder};
use crate::wasserstein::gan::generator_file;
use crate::wasserstein::search::{Search, SearchEnd};
use crate::wasserstein::{CriticConfig, CriticNetwork, Generated};

/// Trains the critics and writes the result.
pub(super) fn run(plan: &CriticJob, folder: &Path, work: &Work) -> Result<End> {
    let _lock = lock_folder(folder)?;
    let whole = Job::Critic(plan.clone());
    if whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let Some(beside) = trained_beside(&plan.generator, folder, work)? else {
        return Ok(End::Interrupted);
    };
    let (images, _) = images(&plan.generator, work)?;
    let device = build::device(plan.generator.device)?;
    let file = generator_file(&beside.join("run"));
    let generated = Generated::load(&file, Some(plan.generator.size), &device)?;
    let generator_sha256 = sha256_file(&file)?;
    let config = config(plan);
    let search = Search {
        config: &config,
        rates: &plan.learning_rates,
        a: &images,
        b: &generated,
        device: &device,
        folder: &folder.join("run"),
        purpose: serde_json::json!({ "plan": whole, "generator": generator_sha256 }),
        n_select: plan.n_select,
        n_report: plan.n_report,
        checkpoint_every: work.checkpoint_every,
        display: work.display,
    };
    let found = match search.run()? {
        SearchEnd::Finished(found) => found,
        SearchEnd::Interrupted => return Ok(End::Interrupted),
    };
    let seconds = found.rates.iter().map(|rate| rate.seconds).sum();
    JobResult::Critic(CriticResult {
        plan: plan.clone(),
        dataset: images.name(),
        synthetic: images.is_synthetic(),
        generator_sha256,
        rates: found.rates,
        best: found.best,
        seconds,
        provenance: Provenance::collect(&device_name(plan.generator.device)),
    })
    .put(folder)?;
    Ok(End::Finished)
}

fn config(plan: &CriticJob) -> CriticConfig {
    CriticConfig {
        network: CriticNetwork::Paper { width: plan.width },
        method: plan.method,
        activation: plan.activation,
        epochs: plan.epochs,
        epoch_steps: plan.epoch_steps,
        batch_size: plan.batch_size,
        // one of the job's takes its place
        learning_rate: plan.learning_rates[0],
        seed: plan.seed,
    }
}
