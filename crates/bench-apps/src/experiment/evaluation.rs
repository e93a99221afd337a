//! Clean, certified and attacked accuracy of a network on a set of images.
//!
//! Guarantee: an attack that succeeds inside an executed radius is an error, never a number in a table (`certify`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use certify::{
    Arithmetic, Attack, AttackProgress, AutoAttack, ByEps, Eps, Evaluation, Evaluator, Fab, Fgsm,
    Loss, NominalRadius, Pgd, Scope, Stopping, batched_logits, certified_accuracy,
};
use lipconv::{PlainNetwork, Trainer};
use lipconv_datasets::ImageSet;
use serde::{Deserialize, Serialize};

use crate::config::{AutoAttackConfig, EvaluationConfig, PgdConfig};
use crate::progress::{Display, Stages};
use crate::results::{AutoAttacked, Certified, Nearest};
use crate::words::attack_name;

/// Clean accuracy and nominal certified accuracy, for the history of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct QuickTest {
    pub clean: f64,
    pub certified: ByEps,
}

/// Evaluates without attacks, by the nominal radius alone.
pub fn quick_test(
    network: &PlainNetwork,
    images: &ImageSet,
    config: &EvaluationConfig,
) -> Result<QuickTest> {
    let (pixels, labels) = whole_set(network, images)?;
    let logits = batched_logits(network, &pixels, config.batch_size)?;
    let radii = NominalRadius::new(network)?.radii(&logits, &labels)?;
    let certified = all_radii(config).into_iter().map(|eps| {
        let share = certified_accuracy(&radii, eps.value());
        (eps, share)
    });
    // a radius is positive exactly where the label's logit is strictly the largest
    Ok(QuickTest { clean: certified_accuracy(&radii, 0.0), certified: certified.collect() })
}

/// The radius of curves, searches and titles: the first at which the network is attacked; without attacks, the first of all.
pub fn headline(config: &EvaluationConfig) -> Option<&Eps> {
    config.attack_eps.first().or_else(|| config.eps.first())
}

#[derive(Debug, Clone)]
pub struct Evaluated {
    /// What `certify` found.
    pub evaluation: Evaluation,
    /// Radii of the certified accuracies, in their order.
    pub eps: Vec<Eps>,
    pub attacks: Vec<AttackRun>,
    /// Arithmetic in which the network was executed and attacked.
    pub arithmetic: Arithmetic,
    /// Images about which nearest adversarial examples were looked for, the first ones.
    pub n_approached: usize,
    pub seconds: f64,
}

#[derive(Debug, Clone)]
pub struct AttackRun {
    /// Its name in results.
    pub name: &'static str,
    pub eps: Eps,
    pub seconds: f64,
}

/// Evaluates with rigorous bounds and attacks.
pub fn evaluate(
    network: &PlainNetwork,
    images: &ImageSet,
    config: &EvaluationConfig,
    display: Display,
) -> Result<Evaluated> {
    let start = Instant::now();
    let (pixels, labels) = whole_set(network, images)?;
    let eps = all_radii(config);
    let mut evaluator = Evaluator::new(network, &pixels, &labels, config.batch_size)?;
    let mut bars = Stages::new(display);
    let mut runs = Vec::new();
    for planned in attacks(config) {
        let start = Instant::now();
        let show = &mut |report| show_attack(&mut bars, planned.named(report));
        evaluator.attack(planned.attack.as_ref(), planned.scope, show)?;
        let PlannedAttack { name, eps, .. } = planned;
        runs.push(AttackRun { name, eps, seconds: start.elapsed().as_secs_f64() });
    }
    let mut n_approached = 0;
    if let Some((fab, scope)) = approach(config) {
        evaluator.approach(&fab, scope, &mut |report| show_attack(&mut bars, report))?;
        n_approached = config.auto_attack.images.min(labels.len());
    }
    bars.finish();
    let values: Vec<f64> = eps.iter().map(Eps::value).collect();
    Ok(Evaluated {
        evaluation: evaluator.finish(&values)?,
        eps,
        attacks: runs,
        arithmetic: Arithmetic::of_network(network)?,
        n_approached,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Shows how an attack goes.
pub(crate) fn show_attack(bars: &mut Stages, report: AttackProgress) {
    const WHOLE: u64 = 1000;
    let done = (report.fraction * WHOLE as f64) as u64;
    let message = format!("{} of {} broken", report.n_broken, report.n_samples);
    bars.show(attack_name(report.attack), done, WHOLE, &message);
}

/// Radii of certified accuracy: those asked for and those of the attacks, ascending.
fn all_radii(config: &EvaluationConfig) -> Vec<Eps> {
    let mut eps = config.eps.clone();
    for extra in &config.attack_eps {
        if eps.iter().all(|e| e.text() != extra.text()) {
            eps.push(extra.clone());
        }
    }
    eps.sort_by(|a, b| a.value().total_cmp(&b.value()));
    eps
}

/// An attack with its name in results, its radius, and the samples that it attacks.
pub(crate) struct PlannedAttack {
    pub(crate) name: &'static str,
    pub(crate) eps: Eps,
    pub(crate) attack: Box<dyn Attack>,
    pub(crate) scope: Scope,
}

impl PlannedAttack {
    /// A report of this attack under its name in results; a report of a part keeps the part's.
    pub(crate) fn named(&self, report: AttackProgress) -> AttackProgress {
        let own = report.attack == self.attack.name();
        AttackProgress { attack: if own { self.name } else { report.attack }, ..report }
    }
}

/// The attacks of a configuration, in their order.
pub(crate) fn attacks(config: &EvaluationConfig) -> Vec<PlannedAttack> {
    let loss = Loss::CarliniWagner { confidence: config.pgd.kappa };
    let (seed, batch_size) = (config.seed, config.batch_size);
    let mut plan: Vec<PlannedAttack> = Vec::new();
    // all images: what is certified is put to the test
    let whole = Scope { first: None, certified: true };
    let mut add = |name, scope, attack: &dyn Fn(f64) -> Box<dyn Attack>| {
        let planned = config.attack_eps.iter().map(|eps| {
            let attack = attack(eps.value());
            PlannedAttack { name, eps: eps.clone(), attack, scope }
        });
        plan.extend(planned);
    };
    add("fgsm", whole, &|eps| Box::new(Fgsm { eps, loss, batch_size }));
    add("pgd", whole, &|eps| {
        let PgdConfig { steps, step_size, .. } = config.pgd;
        Box::new(Pgd { steps, step_size, loss, batch_size, ..Pgd::paper(eps, seed) })
    });
    let strong = &config.strong_pgd;
    if strong.restarts > 0 {
        add("strong_pgd", whole, &|eps| {
            let pgd = Pgd::strong(eps, strong.steps, strong.restarts, seed);
            Box::new(Pgd { loss, batch_size, ..pgd })
        });
    }
    let auto = &config.auto_attack;
    if auto.images > 0 {
        let scope = Scope { first: Some(auto.images), certified: false };
        add("auto", scope, &|eps| {
            let attack = AutoAttack::standard(eps, seed).with_batch_size(batch_size);
            Box::new(attack.with_budgets(Some(auto.steps), Some(auto.queries)))
        });
    }
    plan
}

/// Accuracies by the attack's name and the radius.
pub(crate) fn by_attack(
    rows: impl IntoIterator<Item = (&'static str, Eps, f64)>,
) -> BTreeMap<String, ByEps> {
    let mut pairs: BTreeMap<String, Vec<(Eps, f64)>> = BTreeMap::new();
    for (name, eps, accuracy) in rows {
        pairs.entry(name.to_owned()).or_default().push((eps, accuracy));
    }
    pairs.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect())).collect()
}

/// FAB to the end, for the nearest adversarial examples, where the configuration has AutoAttack.
fn approach(config: &EvaluationConfig) -> Option<(Fab, Scope)> {
    let AutoAttackConfig { images, steps, .. } = config.auto_attack;
    let eps = config.attack_eps.first().filter(|_| images > 0)?.value();
    let (stopping, batch_size) = (Stopping::Never, config.batch_size);
    let fab = Fab { steps, stopping, batch_size, ..Fab::standard(eps, config.seed) };
    Some((fab, Scope { first: Some(images), certified: true }))
}

fn whole_set(network: &PlainNetwork, images: &ImageSet) -> Result<(Tensor, Vec<usize>)> {
    let pixels = images.tensor(0..images.len(), network.dtype(), network.device())?;
    Ok((pixels, images.classes()))
}

/// `eval.json`. Percentages; every list is in the order of the radii.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    pub dataset: String,
    pub synthetic: bool,
    pub data_sha256: String,
    pub n_samples: usize,
    pub seconds: f64,
    pub clean: f64,
    /// Certified accuracy: nominal, in exact arithmetic, and as executed.
    pub certified: Certified,
    /// Certified accuracy as executed in each arithmetic that holds the weights.
    pub executed: BTreeMap<Arithmetic, ByEps>,
    /// Nominal, with the pairs of the last layer in place of √2.
    pub nominal_pairwise: ByEps,
    pub attacks: BTreeMap<String, ByEps>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auto_attack: Vec<AutoAttacked>,
    /// The first images with their nearest adversarial examples.
    #[serde(default, skip_serializing_if = "Nearest::is_empty")]
    pub nearest: Nearest,
    pub layers: Vec<LayerSummary>,
    pub lipschitz: f64,
}

/// A layer's bound in `eval.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerSummary {
    pub name: String,
    /// Upper bound of its norm.
    pub lipschitz: f64,
}

impl Evaluated {
    /// Certified accuracies, by what the certificate assumes.
    pub fn certified(&self) -> Certified {
        Certified {
            nominal: self.by_eps(|c| Some(c.nominal)),
            nominal_bound: self.evaluation.nominal_bound,
            real: self.by_eps(|c| Some(c.real)),
            executed: self.executed(self.arithmetic),
        }
    }

    /// Certified accuracy as executed in an arithmetic; empty where it cannot hold the weights.
    pub fn executed(&self, arithmetic: Arithmetic) -> ByEps {
        self.by_eps(|c| c.executed.get(&arithmetic).copied())
    }

    /// Accuracy of all images under each attack, by its name.
    pub fn attacked(&self) -> BTreeMap<String, ByEps> {
        let rows = self.attacks.iter().zip(&self.evaluation.attacks);
        let whole = rows.filter(|(_, row)| row.n_samples == self.evaluation.n_samples);
        by_attack(whole.map(|(run, row)| (run.name, run.eps.clone(), row.accuracy)))
    }

    /// AutoAttack beside what is certified of the same images.
    pub fn auto_attacked(&self) -> Vec<AutoAttacked> {
        let rows = self.attacks.iter().zip(&self.evaluation.attacks);
        let auto = rows.filter(|(run, _)| run.name == "auto");
        auto.map(|(run, row)| AutoAttacked {
            eps: run.eps.to_string(),
            n_images: row.n_samples,
            clean: row.clean,
            certified: Some(row.certified),
            accuracy: row.accuracy,
            seconds: run.seconds,
            parts: row.parts.clone(),
            flags: row.flags.clone(),
        })
        .collect()
    }

    /// The first images with their executed radii and nearest adversarial examples.
    pub fn nearest(&self) -> Nearest {
        let (n, samples) = (self.n_approached, &self.evaluation.samples);
        let radii = samples.certificates.executed.get(&self.arithmetic);
        Nearest {
            radii: radii.map_or_else(Vec::new, |radii| radii[..n].to_vec()),
            distances: samples.nearest[..n].to_vec(),
        }
    }

    pub fn summary(&self, images: &ImageSet) -> EvalSummary {
        let layers = self.evaluation.layers.iter();
        let arithmetics = self.evaluation.samples.certificates.executed.keys();
        EvalSummary {
            dataset: images.name().to_owned(),
            synthetic: images.is_synthetic(),
            data_sha256: images.sha256(),
            n_samples: self.evaluation.n_samples,
            seconds: self.seconds,
            clean: self.evaluation.clean,
            certified: self.certified(),
            executed: arithmetics.map(|&a| (a, self.executed(a))).collect(),
            nominal_pairwise: self.by_eps(|c| Some(c.nominal_pairwise)),
            attacks: self.attacked(),
            auto_attack: self.auto_attacked(),
            nearest: self.nearest(),
            layers: layers
                .map(|layer| LayerSummary { name: layer.name.clone(), lipschitz: layer.lipschitz })
                .collect(),
            lipschitz: self.evaluation.lipschitz,
        }
    }

    fn by_eps(&self, value: impl Fn(&certify::CertifiedAccuracy) -> Option<f64>) -> ByEps {
        let pairs = self.eps.iter().zip(&self.evaluation.certified);
        pairs.filter_map(|(eps, found)| Some((eps.clone(), value(found)?))).collect()
    }
}

/// Reads a network: a materialised one, or the present state of a training checkpoint, with its step if the run has not ended.
pub fn load_network(path: &Path, device: &Device) -> Result<(PlainNetwork, Option<u64>)> {
    let plain = match PlainNetwork::load(path, device) {
        Ok(network) => return Ok((network, None)),
        Err(error) => error,
    };
    if !plain.to_string().contains("holds `training`") {
        return Err(plain).context("cannot load a network");
    }
    let trainer = Trainer::resume(path, device).context("cannot load a network")?;
    let step = (!trainer.is_finished()).then(|| trainer.n_steps());
    Ok((trainer.averaged_network()?.materialize()?, step))
}

/// Logits of a batch of images, row by row in f64.
pub fn evaluated_logits(network: &PlainNetwork, images: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(network.forward(images)?.to_dtype(DType::F64)?.to_vec2::<f64>()?)
}
