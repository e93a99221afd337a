//! A classifier, trained, certified and attacked.
//!
//! Guarantee: a job that was interrupted anywhere continues from its last checkpoint and ends, on the CPU, with the same weights
//! as one that was not. A run that was begun with other settings is moved aside, never deleted.

use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use certify::Arithmetic;
use lipconv::PlainNetwork;
use lipconv_datasets::Dataset;

use super::cell::{BestEpoch, CellResult, ClassifierJob, DataFacts};
use super::costs::{Costs, costs};
use super::evidence::{
    AdversarialSample, adversarial_samples, certified_curve, first_images, layer_facts, spectra,
};
use super::job::{End, Job, JobResult, Reuse, Work};
use super::spec::published_figure;
use super::trials::{open_run, settled};
use crate::config::{Activation, DatasetName, Net, RunConfig};
use crate::experiment::build::{self, check_network, device_name};
use crate::experiment::evaluation::{Evaluated, evaluate, headline};
use crate::experiment::training::{Trained, first_network, train};
use crate::files::{EpochMetrics, Provenance, RunDir, write_json};
use crate::interrupt;
use crate::progress::Display;
use crate::results::{PaperFigures, ResultRow};
use crate::statistic::{Figure, What};
use crate::stdout::note;
use crate::words::counted;

pub(super) fn run(plan: &ClassifierJob, folder: &Path, work: &Work) -> Result<End> {
    let dataset = build::dataset(&plan.config, &work.data)?;
    dataset.notes.iter().for_each(|line| note(line));
    check_network(&plan.config.network, &dataset.train)?;
    let provenance = Provenance::collect(&device_name(plan.config.device));
    let settled = match &plan.search {
        Some(search) => settled(plan, search, &dataset, (folder, work, &provenance))?,
        None => Some(plan.clone()),
    };
    let Some(plan) = &settled else { return Ok(End::Interrupted) };
    let n_train = plan.config.data.train_limit.unwrap_or(usize::MAX);
    let dataset = Dataset { train: dataset.train.head(n_train), ..dataset };
    // another run's network is read now: that run may be gone, or trained further, when this one ends
    let begun_with = plan.config.init_from.is_some();
    let begun_with = begun_with.then(|| before_training(&plan.config, &dataset)).transpose()?;
    announce(plan, &dataset, &provenance);
    let run = open_run(plan, &folder.join("run"), work.reuse, &provenance)?;
    // another worker may have finished while this one looked for its data
    let whole = Job::Classifier(Box::new(plan.clone()));
    if work.reuse == Reuse::Results && whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    (work.log)(&run.files().log())?;
    run.bind_data(&dataset)?;
    let training = work.training("training", &plan.config, &dataset, &run);
    let (n_parameters, network, seconds) = match train(&training)? {
        Trained::Finished { network, seconds } => {
            (network.n_parameters(), network.materialize()?, seconds)
        }
        Trained::Interrupted { step, total } => {
            crate::stdout::errln!("interrupted after step {step} of {total}, which is saved");
            return Ok(End::Interrupted);
        }
    };
    if interrupt::requested() {
        return Ok(End::Interrupted);
    }
    network.save(&run.files().network())?;
    let costs = match plan.search {
        Some(_) => Some(costs(&folder.join("costs.json"), n_parameters, &network, &dataset.test)?),
        None => None,
    };
    let initial = match begun_with {
        Some(network) => network,
        None => before_training(&plan.config, &dataset)?,
    };
    let (job, dataset, run) = (plan, &dataset, &run);
    let trained = TrainedCell { job, dataset, run, initial, network, seconds, costs };
    JobResult::Classifier(Box::new(trained.evaluate(work.display)?)).put(folder)?;
    Ok(End::Finished)
}

fn announce(job: &ClassifierJob, dataset: &Dataset, provenance: &Provenance) {
    crate::stdout::errln!(
        "{}: {} training and {} test images ({}); {} on {}",
        dataset.train.name(),
        dataset.train.len(),
        dataset.test.len(),
        dataset.source,
        counted(job.config.training.epochs, "epoch"),
        provenance.device
    );
}

/// The paper's figures; none for synthetic images, for part of a data set, or for another nonlinearity.
pub(super) fn paper(job: &ClassifierJob, synthetic: bool) -> Option<PaperFigures> {
    let data = &job.config.data;
    let whole = data.train_limit.is_none() && data.test_limit.is_none();
    let maxmin = job.config.network.activation == Activation::MAXMIN;
    let published = job.cell.network == Net::KwSmall;
    let comparable = !synthetic && (published || (whole && maxmin));
    let figure = |what| published_figure(&job.cell, what).map(Figure::mean);
    let figures = PaperFigures { clean: figure(What::Clean)?, certified: figure(What::Certified) };
    Some(figures).filter(|_| comparable)
}

pub(super) fn data_facts(dataset: &Dataset) -> DataFacts {
    DataFacts {
        n_train: dataset.train.len(),
        n_test: dataset.test.len(),
        test_sha256: dataset.test.sha256(),
    }
}

/// The network before the first step: another run's, or the one that the seed decides.
fn before_training(config: &RunConfig, dataset: &Dataset) -> Result<PlainNetwork> {
    let network = first_network(config, &dataset.train, &Device::Cpu).with_context(|| {
        let Some(from) = &config.init_from else { return "the network before training".into() };
        format!(
            "init_from is {}, expected the run that training begins with: the singular values of its network are shown",
            from.display()
        )
    })?;
    Ok(network.materialize()?)
}

struct TrainedCell<'a> {
    job: &'a ClassifierJob,
    dataset: &'a Dataset,
    run: &'a RunDir,
    /// The network before training.
    initial: PlainNetwork,
    network: PlainNetwork,
    seconds: f64,
    costs: Option<Costs>,
}

impl TrainedCell<'_> {
    fn evaluate(&self, display: Display) -> Result<CellResult> {
        let config = &self.job.config;
        let test = &self.dataset.test;
        let evaluated = evaluate(&self.network, test, &config.evaluation, display)?;
        let files = self.run.files();
        write_json(&files.eval(), &evaluated.summary(test))?;
        let history = files.metrics()?;
        let first = test.head(self.job.decision_images);
        Ok(CellResult {
            plan: self.job.clone(),
            row: self.row(&evaluated)?,
            best: best_epoch(&history, config),
            first_images: first_images(&self.network, &first, &self.job.effort())?,
            curve: certified_curve(&evaluated),
            nearest: evaluated.nearest(),
            spectra: spectra(&self.initial, &self.network)?,
            samples: self.samples(&evaluated)?,
            lipschitz: Some(evaluated.evaluation.lipschitz),
            layers: layer_facts(&self.network, &evaluated),
            data: Some(data_facts(self.dataset)),
            accumulated: evaluated.executed(Arithmetic::F32AccumulateF64),
            history,
            costs: self.costs,
            provenance: files.provenance()?,
            notes: self.dataset.portable_notes(),
        })
    }

    fn row(&self, evaluated: &Evaluated) -> Result<ResultRow> {
        let (cell, config) = (&self.job.cell, &self.job.config);
        let provenance = self.run.files().provenance()?;
        let synthetic = self.dataset.is_synthetic();
        let dataset = match cell.dataset {
            DatasetName::Mnist | DatasetName::Cifar10 | DatasetName::Stl10 if !synthetic => {
                cell.dataset.to_string()
            }
            _ => self.dataset.test.name().to_owned(),
        };
        Ok(ResultRow {
            experiment: "cell".into(),
            dataset,
            synthetic,
            network: cell.network,
            layer: cell.method,
            activation: config.network.activation,
            seed: config.training.seed,
            epochs: config.training.epochs,
            recipe: cell.recipe.clone(),
            budget: Some(cell.budget.clone()).filter(|name| !name.is_empty()),
            device: provenance.device,
            commit: provenance.commit,
            seconds: self.seconds + evaluated.seconds,
            clean: evaluated.evaluation.clean,
            certified: evaluated.certified(),
            attacks: evaluated.attacked(),
            auto_attack: evaluated.auto_attacked(),
            paper: paper(self.job, synthetic),
        })
    }

    fn samples(&self, evaluated: &Evaluated) -> Result<Vec<AdversarialSample>> {
        let evaluation = &self.job.config.evaluation;
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
    let eps = headline(&config.evaluation)?.text();
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
