//! Networks that others published, attacked by us.
//!
//! Definition. "kw-small" is the Small network of Wong et al. 2018 for CIFAR-10 at ε = 36/255, in
//! `models/kw_cifar10_small_36px.safetensors` of a data folder (the one given by flag, `LIPCONV_DATA`, the cache). It is not
//! 1-Lipschitz by construction: there is no certificate of ours for it, and none is reported.
//!
//! Guarantee: nothing is trained and nothing is locked; two workers at once would compute the same result twice.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, ensure};
use certify::{Classifier, ZeroPaddedNetwork, ZeroPaddedSpec};

use super::cell::{CellResult, Plan};
use super::evidence::{clean_accuracy, first_images};
use crate::data::{Dataset, Fallback, LocateOptions};
use crate::eps::Eps;
use crate::error::Error;
use crate::experiment::build::{DataOptions, device_name};
use crate::experiment::evaluation::attacks;
use crate::files::Provenance;
use crate::progress::{Display, Progress};
use crate::report::CertifiedCurve;
use crate::report::paper;
use crate::results::{Certified, PaperFigures, ResultRow};

const KW_SMALL: &str = "models/kw_cifar10_small_36px.safetensors";

/// Clean accuracy and accuracy under all attacks of the plan.
///
/// # Errors
/// A network that is not known or not there; those of the attacks.
pub fn evaluate(
    plan: &Plan,
    dataset: &Dataset,
    data: &DataOptions,
    display: Display,
) -> Result<CellResult> {
    let cell = &plan.cell;
    ensure!(cell.network == "kw-small", "published network is {}, expected kw-small", cell.network);
    let start = Instant::now();
    let network = ZeroPaddedNetwork::load(&find(data)?, &ZeroPaddedSpec::kw_small())?;
    let (clean, attacked) = accuracies(&network, plan, dataset, display)?;
    let first = first_images(&network, &dataset.test.head(plan.decision_images), plan)?;
    let provenance = Provenance::collect(&device_name(crate::config::DeviceKind::Cpu));
    let row = ResultRow {
        experiment: "cell".into(),
        dataset: cell.dataset.to_string(),
        synthetic: dataset.is_synthetic(),
        network: cell.network.clone(),
        layer: cell.method.clone(),
        activation: "relu".into(),
        seed: cell.seed,
        epochs: 0,
        budget: Some(cell.budget.clone()),
        device: provenance.device.clone(),
        commit: provenance.commit.clone(),
        seconds: start.elapsed().as_secs_f64(),
        clean,
        certified: Certified::default(),
        attacks: attacked,
        paper: paper::reference("cifar10", &cell.network, &cell.method).map(PaperFigures::from),
    };
    Ok(CellResult {
        plan: plan.clone(),
        row,
        best: None,
        first_images: first,
        curve: CertifiedCurve::default(),
        history: Vec::new(),
        spectra: None,
        samples: Vec::new(),
        lipschitz: None,
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
    plan: &Plan,
    dataset: &Dataset,
    display: Display,
) -> Result<(f64, BTreeMap<String, crate::ByEps>)> {
    let test = &dataset.test;
    let evaluation = &plan.config.evaluation;
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
