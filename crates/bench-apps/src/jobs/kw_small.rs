//! The published network KW-Small, attacked by us.
//!
//! Definition. "kw-small" is the Small network of Wong et al. 2018 for CIFAR-10 at ε = 36/255, in
//! `models/kw_cifar10_small_36px.safetensors` of a data folder (the one given by flag, `LIPCONV_DATA`, the cache). It is not
//! 1-Lipschitz by construction: there is no certificate of ours for it, and none is reported.
//!
//! Guarantee: nothing is trained and nothing is locked; two workers at once would compute the same result twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use certify::{Classifier, ZeroPaddedNetwork, ZeroPaddedSpec};

use super::cell::{CellResult, ClassifierJob};
use super::classifier::{data_facts, paper};
use super::evidence::{CertifiedCurve, clean_accuracy, first_images};
use super::job::JobResult;
use super::work::{End, Work};
use crate::config::{Activation, DeviceKind};
use crate::data::{Dataset, Fallback, LocateOptions};
use crate::eps::{ByEps, Eps};
use crate::error::Error;
use crate::experiment::build::{self, DataOptions, device_name};
use crate::experiment::evaluation::attacks;
use crate::files::Provenance;
use crate::progress::{Display, Progress};
use crate::results::{Certified, ResultRow};

const KW_SMALL: &str = "models/kw_cifar10_small_36px.safetensors";

/// Evaluates the network and writes the result.
///
/// # Errors
/// A network that is not there; those of the attacks.
pub(super) fn run(job: &ClassifierJob, folder: &Path, work: &Work) -> Result<End> {
    let dataset = build::dataset(&job.config, &work.data)?;
    let result = evaluate(job, &dataset, work)?;
    JobResult::Published(Box::new(result)).put(folder)?;
    Ok(End::Finished)
}

fn evaluate(job: &ClassifierJob, dataset: &Dataset, work: &Work) -> Result<CellResult> {
    let cell = &job.cell;
    let start = Instant::now();
    let network = ZeroPaddedNetwork::load(&find(&work.data)?, &ZeroPaddedSpec::kw_small())?;
    let (clean, attacked) = accuracies(&network, job, dataset, work.display)?;
    let first = first_images(&network, &dataset.test.head(job.decision_images), &job.effort())?;
    let provenance = Provenance::collect(&device_name(DeviceKind::Cpu));
    let row = ResultRow {
        experiment: "cell".into(),
        dataset: cell.dataset.to_string(),
        synthetic: dataset.is_synthetic(),
        network: cell.network,
        layer: cell.method,
        activation: Activation::RELU,
        seed: cell.seed,
        epochs: 0,
        recipe: None,
        budget: Some(cell.budget.clone()),
        device: provenance.device.clone(),
        commit: provenance.commit.clone(),
        seconds: start.elapsed().as_secs_f64(),
        clean,
        certified: Certified::default(),
        attacks: attacked,
        paper: paper(job, dataset.is_synthetic()),
    };
    Ok(CellResult {
        plan: job.clone(),
        row,
        best: None,
        first_images: first,
        curve: CertifiedCurve::default(),
        history: Vec::new(),
        spectra: None,
        samples: Vec::new(),
        lipschitz: None,
        layers: Vec::new(),
        data: Some(data_facts(dataset)),
        accumulated: ByEps::default(),
        provenance,
        notes: dataset.portable_notes(),
    })
}

fn find(data: &DataOptions) -> Result<PathBuf> {
    let places = LocateOptions::from_environment(data.data_dir.clone(), Fallback::Refuse);
    let folders = [places.data_dir, places.env_dir, places.cache_dir];
    let found = folders.into_iter().flatten().map(|dir| dir.join(KW_SMALL)).find(|p| p.is_file());
    Ok(found.ok_or_else(|| Error::DataNotFound {
        dataset: "network KW-Small".into(),
        reason: format!(
            "expected {KW_SMALL} in the folder of --data-dir or LIPCONV_DATA, or in the cache; \
             datasets/README.md says where it comes from"
        ),
    })?)
}

/// Clean accuracy, and accuracy under each attack by name and radius.
fn accuracies(
    network: &ZeroPaddedNetwork,
    job: &ClassifierJob,
    dataset: &Dataset,
    display: Display,
) -> Result<(f64, BTreeMap<String, ByEps>)> {
    let test = &dataset.test;
    let evaluation = &job.config.evaluation;
    let images = test.tensor(0..test.len(), network.dtype(), network.device())?;
    let labels = test.classes();
    let clean = clean_accuracy(network, &images, &labels, evaluation.batch_size)?;
    let mut pairs: BTreeMap<String, Vec<(Eps, f64)>> = BTreeMap::new();
    for (name, eps, attack) in attacks(evaluation) {
        let mut progress = Progress::new(display, name, 0, 1000);
        let outcome = attack.run(network, &images, &labels, &mut |report| {
            progress.update((1000.0 * report.fraction) as u64, "");
        })?;
        progress.finish();
        pairs.entry(name.to_owned()).or_default().push((eps, outcome.accuracy()));
    }
    let attacked = pairs.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect()));
    Ok((clean, attacked.collect()))
}
