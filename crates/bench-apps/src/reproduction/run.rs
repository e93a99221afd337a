//! One cell, from its plan to its result.
//!
//! Guarantee: a cell that was interrupted anywhere goes on from its last checkpoint and ends, on the CPU, with the same weights
//! as one that was not. Two workers never run the same cell: the second one gets
//! [`Error::RunLocked`](crate::Error::RunLocked). A run that was begun with other settings is moved aside, never deleted.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use candle_core::{DType, Device};
use lipconv::{Network, PlainNetwork};

use super::cell::{BestEpoch, CellResult, Plan};
use super::distances::DistancePlan;
use super::distances::run::run_distance;
use super::evidence::{AdversarialSample, adversarial_samples, first_images, spectra};
use super::published;
use crate::config::RunConfig;
use crate::data::Dataset;
use crate::experiment::build::{self, DataOptions, check_network, device_name, network_spec};
use crate::experiment::evaluation::{Evaluated, evaluate};
use crate::experiment::training::{TrainJob, Trained, train};
use crate::experiment::write_up::Finished;
use crate::files::EpochMetrics;
use crate::files::Provenance;
use crate::files::{RunDir, RunFiles, move_aside};
use crate::interrupt;
use crate::progress::Display;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where images may come from.
    pub data: DataOptions,
    /// Time between checkpoints within an epoch.
    pub checkpoint_every: Duration,
    /// How progress is shown.
    pub display: Display,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The result is written.
    Finished,
    /// There was a result already.
    FinishedBefore,
    /// A request to stop came; training is saved.
    Interrupted,
}

/// Runs the cell in `folder`, or what is missing of it.
///
/// # Errors
/// A plan that this version cannot follow, images that cannot be had, and those of training and evaluation.
pub fn run_cell(folder: &Path, work: &Work) -> Result<End> {
    if let Some(plan) = DistancePlan::read(folder)? {
        return run_distance(folder, &plan, work);
    }
    let plan = Plan::read(folder)?;
    if plan.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let dataset = build::dataset(&plan.config, &work.data)?;
    if plan.cell.is_published() {
        published::evaluate(&plan, &dataset, &work.data, work.display)?.put(folder)?;
        return Ok(End::Finished);
    }
    check_network(&plan.config.network, &dataset.train)?;
    let provenance = Provenance::collect(&device_name(plan.config.device));
    let run = open_run(&folder.join("run"), &plan.config, &provenance)?;
    // another worker may have finished while this one looked for its data
    if plan.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    run.bind_data(&dataset)?;
    let (config, display) = (&plan.config, work.display);
    let checkpoint_every = work.checkpoint_every;
    let job = TrainJob { config, dataset: &dataset, run: &run, display, checkpoint_every };
    let (network, seconds) = match train(&job)? {
        Trained::Finished { network, seconds } => (network.materialize()?, seconds),
        Trained::Interrupted { .. } => return Ok(End::Interrupted),
    };
    if interrupt::requested() {
        return Ok(End::Interrupted);
    }
    network.save(&run.files().network())?;
    let outcome = Outcome { plan: &plan, dataset: &dataset, run: &run, network, seconds };
    outcome.evaluate(display)?.put(folder)?;
    Ok(End::Finished)
}

/// The run, resumed where its settings are the present ones, else new.
fn open_run(path: &Path, config: &RunConfig, provenance: &Provenance) -> Result<RunDir> {
    let Ok(old) = RunFiles::open(path) else {
        return Ok(RunDir::create(path, config, provenance)?);
    };
    // held until the folder is moved: nobody else may be writing in it
    let lock = RunDir::resume(path)?;
    if old.config().is_ok_and(|before| before.trains_as(config)) {
        return Ok(lock);
    }
    let aside = move_aside(path)?;
    drop(lock);
    eprintln!("starting anew, the settings differ; the old run is now {}", aside.display());
    Ok(RunDir::create(path, config, provenance)?)
}

/// A trained cell.
struct Outcome<'a> {
    plan: &'a Plan,
    dataset: &'a Dataset,
    run: &'a RunDir,
    network: PlainNetwork,
    seconds: f64,
}

impl Outcome<'_> {
    fn evaluate(&self, display: Display) -> Result<CellResult> {
        let config = &self.plan.config;
        let test = &self.dataset.test;
        let evaluated = evaluate(&self.network, test, &config.evaluation, display)?;
        let files = self.run.files();
        crate::files::write_json(&files.eval(), &evaluated.summary(test))?;
        let history = files.metrics()?;
        let finished = Finished {
            experiment: "cell",
            config,
            dataset: self.dataset,
            network: &self.network,
            evaluated: &evaluated,
            history: history.clone(),
            training_seconds: self.seconds,
            provenance: files.provenance()?,
        };
        let mut row = finished.row();
        row.budget = Some(self.plan.cell.budget.clone());
        let first = test.head(self.plan.decision_images);
        Ok(CellResult {
            plan: self.plan.clone(),
            row,
            best: best_epoch(&history, config),
            first_images: first_images(&self.network, &first, self.plan)?,
            curve: finished.curve(),
            spectra: spectra(&self.initial()?, &self.network)?,
            samples: self.samples(&evaluated)?,
            lipschitz: Some(evaluated.evaluation.lipschitz),
            history,
            provenance: finished.provenance,
            notes: self.dataset.portable_notes(),
        })
    }

    /// The network before the first step, which its seed decides.
    fn initial(&self) -> Result<PlainNetwork> {
        let config = &self.plan.config;
        let spec = network_spec(&config.network, &self.dataset.train)?;
        let network = Network::new(&spec, DType::F32, &Device::Cpu, config.training.seed)?;
        Ok(network.materialize()?)
    }

    fn samples(&self, evaluated: &Evaluated) -> Result<Vec<AdversarialSample>> {
        let evaluation = &self.plan.config.evaluation;
        let executed = &evaluated.evaluation.samples.certificates.executed;
        let (Some(radii), Some(eps)) =
            (executed.get(&evaluated.arithmetic), evaluation.attack_eps.first())
        else {
            return Ok(Vec::new());
        };
        adversarial_samples(&self.network, &self.dataset.test, radii, eps, evaluation.seed)
    }
}

/// The epoch with the best test accuracy, the first of several.
fn best_epoch(history: &[EpochMetrics], config: &RunConfig) -> Option<BestEpoch> {
    let eps = config.evaluation.attack_eps.first()?.text();
    let mut best: Option<BestEpoch> = None;
    for row in history {
        let Some(clean) = row.test_clean else { continue };
        if best.is_none_or(|b| clean > b.clean) {
            let certified = row.test_certified.as_ref().and_then(|by_eps| by_eps.get(eps));
            best = Some(BestEpoch { epoch: row.epoch, clean, certified });
        }
    }
    best
}
