//! Clean, certified and attacked accuracy of a network on a set of images.
//!
//! Guarantee: an attack that succeeds inside an executed radius is an error, never a number in a table (`certify`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use certify::batched_logits;
use certify::{
    Arithmetic, Attack, AttackStart, Evaluation, EvaluationSettings, Fgsm, Loss, NominalRadius,
    Pgd, Stopping, certified_accuracy,
};
use lipconv::{PlainNetwork, Trainer};
use serde::{Deserialize, Serialize};

use crate::config::EvaluationConfig;
use crate::data::ImageSet;
use crate::eps::{ByEps, Eps};
use crate::progress::{Display, Progress};
use crate::results::Certified;

/// Clean accuracy and nominal certified accuracy, for the history of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct QuickTest {
    pub clean: f64,
    /// Nominal certified accuracy, percent.
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

/// A finished evaluation.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// What `certify` found.
    pub evaluation: Evaluation,
    /// Radii of the certified accuracies, in their order.
    pub eps: Vec<Eps>,
    /// Name and radius of the attacks, in their order.
    pub attacks: Vec<(&'static str, Eps)>,
    /// Arithmetic in which the network was executed and attacked.
    pub arithmetic: Arithmetic,
    pub seconds: f64,
}

/// Evaluates with rigorous bounds and attacks.
///
/// # Errors
/// Images that do not fit the network; an attack that refutes a certificate.
pub fn evaluate(
    network: &PlainNetwork,
    images: &ImageSet,
    config: &EvaluationConfig,
    display: Display,
) -> Result<Evaluated> {
    let start = Instant::now();
    let (pixels, labels) = whole_set(network, images)?;
    let eps = all_radii(config);
    let values: Vec<f64> = eps.iter().map(Eps::value).collect();
    let plan = attacks(config);
    let attacks: Vec<&dyn Attack> = plan.iter().map(|(_, _, attack)| attack.as_ref()).collect();
    let settings = EvaluationSettings {
        eps: &values,
        attacks: &attacks,
        attack_certified: true,
        batch_size: config.batch_size,
    };
    let mut shown: Option<(&'static str, Progress)> = None;
    let evaluation = certify::evaluate(network, &pixels, &labels, &settings, &mut |report| {
        show(&mut shown, display, report);
    })?;
    if let Some((_, bar)) = shown {
        bar.finish();
    }
    Ok(Evaluated {
        evaluation,
        eps,
        attacks: plan.iter().map(|(name, eps, _)| (*name, eps.clone())).collect(),
        arithmetic: Arithmetic::of_dtype(network.dtype())?,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn show(
    shown: &mut Option<(&'static str, Progress)>,
    display: Display,
    report: certify::AttackProgress,
) {
    const WHOLE: u64 = 1000;
    if shown.as_ref().is_none_or(|(name, _)| *name != report.attack) {
        let label = crate::words::attack_name(report.attack);
        if let Some((_, finished)) =
            shown.replace((report.attack, Progress::new(display, label, 0, WHOLE)))
        {
            finished.finish();
        }
    }
    if let Some((_, bar)) = shown {
        let done = (report.fraction * WHOLE as f64) as u64;
        bar.update(done, &format!("{} of {} broken", report.n_broken, report.n_samples));
    }
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

/// An attack with its name in results and its radius.
pub(crate) type PlannedAttack = (&'static str, Eps, Box<dyn Attack>);

/// The attacks of a configuration, in their order.
pub(crate) fn attacks(config: &EvaluationConfig) -> Vec<PlannedAttack> {
    let loss = Loss::CarliniWagner { confidence: config.pgd.kappa };
    let mut plan: Vec<PlannedAttack> = Vec::new();
    for eps in &config.attack_eps {
        let fgsm = Fgsm { eps: eps.value(), loss, batch_size: config.batch_size };
        plan.push(("fgsm", eps.clone(), Box::new(fgsm)));
    }
    for eps in &config.attack_eps {
        let pgd = Pgd {
            eps: eps.value(),
            steps: config.pgd.steps,
            step_size: config.pgd.step_size,
            loss,
            start: AttackStart::Random,
            restarts: 1,
            seed: config.seed,
            stopping: Stopping::WhenBroken,
            batch_size: config.batch_size,
        };
        plan.push(("pgd", eps.clone(), Box::new(pgd)));
    }
    let strong = &config.strong_pgd;
    for eps in config.attack_eps.iter().filter(|_| strong.restarts > 0) {
        let pgd = Pgd::strong(eps.value(), strong.steps, strong.restarts, config.seed);
        let pgd = Pgd { loss, batch_size: config.batch_size, ..pgd };
        plan.push(("strong_pgd", eps.clone(), Box::new(pgd)));
    }
    plan
}

fn whole_set(network: &PlainNetwork, images: &ImageSet) -> Result<(Tensor, Vec<usize>)> {
    let pixels = images.tensor(0..images.len(), network.dtype(), network.device())?;
    Ok((pixels, images.classes()))
}

/// `eval.json`. Percentages; every list is in the order of the radii.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalSummary {
    pub dataset: String,
    /// Whether they were drawn by a program.
    pub synthetic: bool,
    /// SHA-256 of the images and labels.
    pub data_sha256: String,
    pub n_samples: usize,
    /// Time it took, seconds.
    pub seconds: f64,
    pub clean: f64,
    /// Certified accuracy: nominal, in exact arithmetic, and as executed.
    pub certified: Certified,
    /// Certified accuracy as executed in each arithmetic that holds the weights.
    pub executed: BTreeMap<Arithmetic, ByEps>,
    /// Nominal, with the pairs of the last layer in place of √2.
    pub nominal_pairwise: ByEps,
    /// Accuracy under each attack.
    pub attacks: BTreeMap<String, ByEps>,
    /// Rigorous bound of each layer's norm.
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
    /// Clean accuracy, percent.
    pub fn clean(&self) -> f64 {
        self.evaluation.clean
    }

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

    /// Accuracy under each attack, by its name.
    pub fn attacked(&self) -> BTreeMap<String, ByEps> {
        let mut pairs: BTreeMap<String, Vec<(Eps, f64)>> = BTreeMap::new();
        for ((name, eps), found) in self.attacks.iter().zip(&self.evaluation.attacks) {
            pairs.entry((*name).to_owned()).or_default().push((eps.clone(), found.accuracy));
        }
        pairs.into_iter().map(|(name, pairs)| (name, pairs.into_iter().collect())).collect()
    }

    /// The summary for `eval.json`.
    pub fn summary(&self, images: &ImageSet) -> EvalSummary {
        let arithmetics = self.evaluation.samples.certificates.executed.keys();
        EvalSummary {
            dataset: images.name().to_owned(),
            synthetic: images.is_synthetic(),
            data_sha256: images.sha256(),
            n_samples: self.evaluation.n_samples,
            seconds: self.seconds,
            clean: self.clean(),
            certified: self.certified(),
            executed: arithmetics.map(|&a| (a, self.executed(a))).collect(),
            nominal_pairwise: self.by_eps(|c| Some(c.nominal_pairwise)),
            attacks: self.attacked(),
            layers: self
                .evaluation
                .layers
                .iter()
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

/// A network with where it came from.
#[derive(Debug)]
pub struct Loaded {
    pub network: PlainNetwork,
    /// Steps trained, where the file is a training checkpoint.
    pub step: Option<u64>,
    /// Whether it is the checkpoint of a run that has not ended.
    pub unfinished: bool,
}

/// Reads a network: a materialised one, or the present state of a training checkpoint.
///
/// # Errors
/// Those of the two formats; for a file that is neither, that of the materialised one.
pub fn load_network(path: &Path, device: &Device) -> Result<Loaded> {
    let plain = match PlainNetwork::load(path, device) {
        Ok(network) => return Ok(Loaded { network, step: None, unfinished: false }),
        Err(error) => error,
    };
    if !plain.to_string().contains("holds `training`") {
        return Err(plain).context("cannot load a network");
    }
    let trainer = Trainer::resume(path, device).context("cannot load a network")?;
    Ok(Loaded {
        network: trainer.averaged_network()?.materialize()?,
        step: Some(trainer.n_steps()),
        unfinished: !trainer.is_finished(),
    })
}

/// Logits of a batch of images, row by row in f64.
pub fn evaluated_logits(network: &PlainNetwork, images: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(network.forward(images)?.to_dtype(DType::F64)?.to_vec2::<f64>()?)
}
