//! Everything that is reported of a trained network: clean, certified and attacked accuracy of a set of images.
//!
//! Definition, in percent of all samples:
//! * *clean*: the label's logit is strictly the largest;
//! * *certified at ε*: the certified radius exceeds ε, nominally, in real arithmetic, and as executed;
//! * *attacked at ε*: correct on the clean image and not broken by the attack; of the first samples where its scope has no others.
//!
//! Guarantee: `executed ≤ attacked ≤ clean` at the same ε. What an attack returns is judged before it counts: a perturbed
//! image that is no point of [0, 1] or of the ball breaks nothing, whoever wrote the attack. The rest is checked against
//! the executed radii of the attacked arithmetic, with the perturbation's true norm. A contradiction is
//! [`Error::Unsound`](crate::Error) or [`Error::BelowCertified`](crate::Error), not a number in a report.
//!
//! Not here: data sets, printing, clocks.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};

use crate::arithmetic::Arithmetic;
use crate::attack::{
    Attack, AttackOutcome, AttackProgress, AttackTarget, AutoAttackFlag, PartReport,
};
use crate::bounds::{LayerBound, LogitBound};
use crate::certifier::{Certificates, Certifier};
use crate::classifier::{batched_logits, check_batch_size, check_labels, is_correct, logit_rows};
use crate::error::{Error, Result};
use crate::margin::{certified_accuracy, percent};
use crate::soundness::{check_accuracy, check_soundness};

/// What to evaluate.
pub struct EvaluationSettings<'a> {
    /// Radii at which certified accuracy is reported, positive or zero.
    pub eps: &'a [f64],
    /// Attacks to run on the network as its element type executes it.
    pub attacks: &'a [&'a dyn Attack],
    /// Whether they attack certified samples as well, which tests the certificates; the accuracies need the others alone.
    pub attack_certified: bool,
    /// Images in one forward pass of the clean evaluation, at least 1.
    pub batch_size: usize,
}

/// The evaluation of one network on one set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of samples.
    pub n_samples: usize,
    /// Clean accuracy, percent.
    pub clean: f64,
    /// What the nominal radii rest on.
    pub nominal_bound: LogitBound,
    /// Certified accuracy at each ε, in the order asked for.
    pub certified: Vec<CertifiedAccuracy>,
    /// Accuracy under each attack, in the order asked for.
    pub attacks: Vec<AttackedAccuracy>,
    /// Bounds of the layers that compute.
    pub layers: Vec<LayerBound>,
    /// Their product.
    pub lipschitz: f64,
    /// What is known of every sample.
    pub samples: SampleResults,
}

/// Certified accuracy at one ε, percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertifiedAccuracy {
    /// The radius.
    pub eps: f64,
    /// By the [nominal radius](crate::NominalRadius) of the logits as executed, no rounding accounted for. With a last layer of norm 1 the
    /// paper's: L = 1 on faith, `√2`.
    pub nominal: f64,
    /// The same with the last layer's pairs in place of `√2`.
    pub nominal_pairwise: f64,
    /// For the exact real function of the stored weights.
    pub real: f64,
    /// For the function as executed.
    pub executed: BTreeMap<Arithmetic, f64>,
}

/// Accuracy under one attack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackedAccuracy {
    /// The attack's name.
    pub attack: String,
    /// Radius of its ball.
    pub eps: f64,
    /// Samples in its scope, the first ones; the percentages are of these.
    pub n_samples: usize,
    /// Percent that are correct.
    pub clean: f64,
    /// Percent that are certified at ε, as executed: they withstand whether attacked or not.
    pub certified: f64,
    /// Percent that are correct and were not broken.
    pub accuracy: f64,
    /// SampleResults broken although they were classified correctly at first.
    pub n_broken: usize,
    /// Largest perturbation of a broken sample, rounded up; 0 where none was broken.
    pub largest_distance: f64,
    /// SampleResults broken inside their nominal radius: nominal certificates that are wrong.
    pub n_inside_nominal: usize,
    /// What the parts of AutoAttack did.
    pub parts: Vec<PartReport>,
    /// Reasons to doubt the accuracy.
    pub flags: Vec<AutoAttackFlag>,
}

/// One entry for each sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleResults {
    /// Whether the clean image is classified correctly.
    pub correct: Vec<bool>,
    /// Margins and radii.
    pub certificates: Certificates,
    /// The smallest distance at which any attack found an image of another class, rounded up; 0 for a mistake. No executed radius
    /// exceeds it.
    pub nearest: Vec<Option<f64>>,
}

impl std::fmt::Debug for EvaluationSettings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let attacks: Vec<_> = self.attacks.iter().map(|a| (a.name(), a.eps())).collect();
        let mut debug = f.debug_struct("EvaluationSettings");
        debug.field("eps", &self.eps).field("attacks", &attacks);
        debug.field("attack_certified", &self.attack_certified);
        debug.field("batch_size", &self.batch_size).finish()
    }
}

/// Which samples an attack attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope {
    /// The first samples alone; all where absent or more than there are.
    pub first: Option<usize>,
    /// Certified samples as well, which tests the certificates; the accuracies need the others alone.
    pub certified: bool,
}

/// Evaluates `network` on `images` (n x c x h x w, in its element type, pixels in [0, 1]) with their labels.
///
/// # Errors
/// [`Error::Unsound`] when an attack refutes a certificate; [`Error::InvalidSetting`]; shape, label and
/// value errors of [`Certifier::certify`] and of the attacks.
pub fn evaluate(
    network: &PlainNetwork,
    images: &Tensor,
    labels: &[usize],
    settings: &EvaluationSettings<'_>,
    progress: &mut dyn FnMut(AttackProgress),
) -> Result<Evaluation> {
    let mut evaluator = Evaluator::new(network, images, labels, settings.batch_size)?;
    check_eps(settings.eps)?;
    let scope = Scope { first: None, certified: settings.attack_certified };
    for attack in settings.attacks {
        evaluator.attack(*attack, scope, progress)?;
    }
    evaluator.finish(settings.eps)
}

/// An evaluation under way, for a caller who wants to know what each attack took.
pub struct Evaluator<'a> {
    network: &'a PlainNetwork,
    images: &'a Tensor,
    labels: &'a [usize],
    certifier: Certifier,
    /// Of the network's element type.
    arithmetic: Arithmetic,
    attacks: Vec<AttackedAccuracy>,
    samples: SampleResults,
}

impl<'a> Evaluator<'a> {
    /// Clean accuracy and certificates; `batch_size` images in one forward pass, at least 1.
    ///
    /// # Errors
    /// Those of [`evaluate`] but for attacks.
    pub fn new(
        network: &'a PlainNetwork,
        images: &'a Tensor,
        labels: &'a [usize],
        batch_size: usize,
    ) -> Result<Self> {
        check_batch_size(batch_size)?;
        let arithmetic = Arithmetic::of_network(network)?;
        let certifier = Certifier::new(network)?;
        let logits = batched_logits(network, images, batch_size)?;
        check_labels(labels, logits.dims()[0], network.n_classes())?;
        let rows = logit_rows(&logits)?;
        let correct: Vec<bool> =
            rows.iter().zip(labels).map(|(row, &t)| is_correct(row, t)).collect();
        let mut certificates = certifier.certify(images, labels)?;
        certificates.nominal = certifier.nominal().radii(&logits, labels)?;
        // a mistake is its own adversarial example
        let nearest = correct.iter().map(|&c| if c { None } else { Some(0.0) }).collect();
        let samples = SampleResults { correct, certificates, nearest };
        Ok(Self { network, images, labels, certifier, arithmetic, attacks: Vec::new(), samples })
    }

    /// Attacks the network as its element type executes it.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn attack(
        &mut self,
        attack: &dyn Attack,
        scope: Scope,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<()> {
        let outcome = self.attacked(attack, scope, progress)?;
        let certificates = &self.samples.certificates;
        let radii = &certificates.executed[&self.arithmetic];
        let n = self.n_first(scope);
        let correct = &self.samples.correct[..n];
        let row = attacked(attack, outcome, correct, radii, &certificates.nominal);
        check_accuracy(&row.attack, row.eps, row.accuracy, row.certified)?;
        self.attacks.push(row);
        Ok(())
    }

    /// Looks for the nearest adversarial images and keeps their distances; it adds no accuracy.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub fn approach(
        &mut self,
        attack: &dyn Attack,
        scope: Scope,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<()> {
        self.attacked(attack, scope, progress).map(drop)
    }

    /// What was found so far of [`SampleResults::nearest`].
    #[must_use]
    pub fn nearest(&self) -> &[Option<f64>] {
        &self.samples.nearest
    }

    fn n_first(&self, scope: Scope) -> usize {
        scope.first.map_or(self.labels.len(), |n| n.min(self.labels.len()))
    }

    /// The outcome, judged and checked against the certificates, and its distances noted.
    fn attacked(
        &mut self,
        attack: &dyn Attack,
        scope: Scope,
        progress: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        let (images, labels) = (self.images, self.labels);
        let target = AttackTarget::new(self.network, images, labels);
        let radii = &self.samples.certificates.executed[&self.arithmetic];
        let is_certified = |i: usize| radii[i] > attack.eps();
        let in_scope = |&i: &usize| scope.certified || !is_certified(i);
        let samples: Vec<usize> = (0..self.n_first(scope)).filter(in_scope).collect();
        let outcome = if samples.len() == labels.len() {
            attack.run(target, progress)?
        } else {
            attack.run_on(&samples, target, progress)?
        };
        let outcome = outcome.judged(images, attack.eps())?;
        check_soundness(attack.name(), &outcome, labels, radii, self.arithmetic)?;
        for i in samples {
            let distance = outcome.distances[i];
            let changed = outcome.broken[i] || outcome.predictions[i] != labels[i];
            let nearest = &mut self.samples.nearest[i];
            if changed && distance.is_finite() && nearest.is_none_or(|nearest| distance < nearest) {
                *nearest = Some(distance);
            }
        }
        Ok(outcome)
    }

    /// Everything found, with certified accuracies at the radii `eps`, positive or zero.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`].
    pub fn finish(self, eps: &[f64]) -> Result<Evaluation> {
        check_eps(eps)?;
        let Self { certifier, attacks, samples, .. } = self;
        let n_correct = samples.correct.iter().filter(|&&c| c).count();
        Ok(Evaluation {
            n_samples: samples.correct.len(),
            clean: percent(n_correct, samples.correct.len()),
            nominal_bound: certifier.nominal().logit_bound(),
            certified: eps.iter().map(|&eps| samples.certificates.accuracy(eps)).collect(),
            attacks,
            layers: certifier.bounds().layers().to_vec(),
            lipschitz: certifier.bounds().lipschitz(),
            samples,
        })
    }
}

impl std::fmt::Debug for Evaluator<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Evaluator");
        debug.field("n_samples", &self.labels.len()).field("attacks", &self.attacks).finish()
    }
}

impl Certificates {
    /// Certified accuracy at `eps`, in percent.
    #[must_use]
    pub fn accuracy(&self, eps: f64) -> CertifiedAccuracy {
        let executed = self.executed.iter();
        CertifiedAccuracy {
            eps,
            nominal: certified_accuracy(&self.nominal, eps),
            nominal_pairwise: certified_accuracy(&self.nominal_pairwise, eps),
            real: certified_accuracy(&self.real, eps),
            executed: executed.map(|(&a, radii)| (a, certified_accuracy(radii, eps))).collect(),
        }
    }
}

fn check_eps(eps: &[f64]) -> Result<()> {
    match eps.iter().find(|eps| !(**eps >= 0.0 && eps.is_finite())) {
        Some(&value) => {
            let expected = "a finite number of at least 0";
            Err(Error::InvalidSetting { name: "eps", value, expected })
        }
        None => Ok(()),
    }
}

/// The accuracy of the first samples, those of `correct`.
fn attacked(
    attack: &dyn Attack,
    outcome: AttackOutcome,
    correct: &[bool],
    executed: &[f64],
    nominal: &[f64],
) -> AttackedAccuracy {
    let (eps, n) = (attack.eps(), correct.len());
    // rounding can carry a point of the sphere past ε and past a radius just above ε: such a point is outside of both
    let in_ball = |i: usize| outcome.distances[i] <= eps || executed[i] <= eps;
    let broken: Vec<usize> =
        (0..n).filter(|&i| correct[i] && outcome.broken[i] && in_ball(i)).collect();
    let n_correct = correct.iter().filter(|&&c| c).count();
    AttackedAccuracy {
        attack: attack.name().to_owned(),
        eps,
        n_samples: n,
        clean: percent(n_correct, n),
        certified: certified_accuracy(&executed[..n], eps),
        accuracy: percent(n_correct - broken.len(), n),
        n_broken: broken.len(),
        largest_distance: broken.iter().map(|&i| outcome.distances[i]).fold(0.0, f64::max),
        n_inside_nominal: broken.iter().filter(|&&i| outcome.distances[i] < nominal[i]).count(),
        parts: outcome.parts,
        flags: outcome.flags,
    }
}
