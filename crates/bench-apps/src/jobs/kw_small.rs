//! The published network KW-Small, attacked by us.
//!
//! Definition. "kw-small" is the Small network of Wong et al. 2018 for CIFAR-10 at ε = 36/255, in
//! `models/kw_cifar10_small_36px.safetensors` of a data folder (the one given by flag, `LIPCONV_DATA`, the cache). It was trained for
//! another certificate than ours: its Lipschitz constant says little, and no certified accuracy is reported.
//!
//! Guarantee: nothing is trained and nothing is locked; two workers at once would compute the same result twice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use certify::{AttackTarget, ByEps};
use interchange::{Description, described};
use lipconv::PlainNetwork;
use lipconv_datasets::{Dataset, Fallback, LocateOptions};

use super::cell::{CellResult, ClassifierJob};
use super::classifier::{data_facts, paper};
use super::evidence::{CertifiedCurve, clean_accuracy, first_images};
use super::job::{End, JobResult, Work};
use crate::config::{Activation, DeviceKind};
use crate::experiment::build::{self, DataOptions, device_name};
use crate::experiment::evaluation::{PlannedAttack, attacks, by_attack, show_attack};
use crate::files::{Provenance, read};
use crate::progress::{Display, Stages};
use crate::results::{AutoAttacked, Certified, Nearest, ResultRow};

const KW_SMALL: &str = "models/kw_cifar10_small_36px.safetensors";

/// Evaluates the network and writes the result.
pub(super) fn run(job: &ClassifierJob, folder: &Path, work: &Work) -> Result<End> {
    let dataset = build::dataset(&job.config, &work.data)?;
    let result = evaluate(job, &dataset, work)?;
    JobResult::Published(Box::new(result)).put(folder)?;
    Ok(End::Finished)
}

fn evaluate(job: &ClassifierJob, dataset: &Dataset, work: &Work) -> Result<CellResult> {
    let cell = &job.cell;
    let start = Instant::now();
    let network = load(&find(&work.data)?)?;
    let (clean, attacks, auto_attack) = accuracies(&network, job, dataset, work.display)?;
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
        attacks,
        auto_attack,
        paper: paper(job, dataset.is_synthetic()),
    };
    Ok(CellResult {
        plan: job.clone(),
        row,
        best: None,
        first_images: first,
        curve: CertifiedCurve::default(),
        nearest: Nearest::default(),
        history: Vec::new(),
        spectra: None,
        samples: Vec::new(),
        lipschitz: None,
        layers: Vec::new(),
        data: Some(data_facts(dataset)),
        accumulated: ByEps::default(),
        costs: None,
        provenance,
        notes: dataset.portable_notes(),
    })
}

/// The network, from the file of its weights.
pub fn load(path: &Path) -> Result<PlainNetwork> {
    let network = described(&Description::kw_small(), &read(path)?);
    network.with_context(|| path.display().to_string())
}

fn find(data: &DataOptions) -> Result<PathBuf> {
    let places = LocateOptions::from_environment(data.data_dir.clone(), Fallback::Refuse);
    let folders = [places.data_dir, places.env_dir, places.cache_dir];
    let found = folders.into_iter().flatten().map(|dir| dir.join(KW_SMALL)).find(|p| p.is_file());
    found.with_context(|| {
        format!(
            "no network KW-Small: expected {KW_SMALL} in the folder of --data-dir or LIPCONV_DATA, or in the \
             cache; crates/datasets/manifests/README.md says where it comes from"
        )
    })
}

/// Clean accuracy, accuracies of all images under each attack, and of the first ones under AutoAttack.
fn accuracies(
    network: &PlainNetwork,
    job: &ClassifierJob,
    dataset: &Dataset,
    display: Display,
) -> Result<(f64, BTreeMap<String, ByEps>, Vec<AutoAttacked>)> {
    let test = &dataset.test;
    let evaluation = &job.config.evaluation;
    let images = test.tensor(0..test.len(), network.dtype(), network.device())?;
    let labels = test.classes();
    let clean = clean_accuracy(network, &images, &labels, evaluation.batch_size)?;
    let (mut whole, mut auto) = (Vec::new(), Vec::new());
    let mut bars = Stages::new(display);
    for planned in attacks(evaluation) {
        let PlannedAttack { name, eps, attack, scope } = &planned;
        let start = Instant::now();
        let n = scope.first.map_or(labels.len(), |n| n.min(labels.len()));
        let (images, labels) = (images.narrow(0, 0, n)?, &labels[..n]);
        let target = AttackTarget::new(network, &images, labels);
        let show = &mut |report| show_attack(&mut bars, planned.named(report));
        let outcome = attack.run(target, show)?;
        let accuracy = outcome.accuracy();
        if *name == "auto" {
            auto.push(AutoAttacked {
                eps: eps.to_string(),
                n_images: n,
                clean: clean_accuracy(network, &images, labels, evaluation.batch_size)?,
                certified: None,
                accuracy,
                seconds: start.elapsed().as_secs_f64(),
                parts: outcome.parts,
                flags: outcome.flags,
            });
        }
        if n == test.len() {
            whole.push((*name, eps.clone(), accuracy));
        }
    }
    bars.finish();
    Ok((clean, by_attack(whole), auto))
}
