//! Everything that is reported of a trained network: clean, certified and attacked accuracy of a set of images.
//!
//! Definition, in percent of all samples:
//! * *clean*: the label's logit is strictly the largest;
//! * *certified at ε*: the certified radius exceeds ε, nominally, in real arithmetic, and as executed;
//! * *attacked at ε*: correct on the clean image and not broken by the attack.
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
use crate::attack::{Attack, AttackOutcome, AttackProgress};
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
    /// Percent of all samples that are correct and were not broken.
    pub accuracy: f64,
    /// SampleResults broken although they were classified correctly at first.
    pub n_broken: usize,
    /// Largest perturbation of a broken sample, rounded up; 0 where none was broken.
    pub largest_distance: f64,
    /// SampleResults broken inside their nominal radius: nominal certificates that are wrong.
    pub n_inside_nominal: usize,
}

/// One entry for each sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleResults {
    /// Whether the clean image is classified correctly.
    pub correct: Vec<bool>,
    /// Margins and radii.
    pub certificates: Certificates,
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
    check_settings(settings)?;
    let arithmetic = Arithmetic::of_dtype(network.dtype())?;
    let certifier = Certifier::new(network)?;
    let logits = batched_logits(network, images, settings.batch_size)?;
    check_labels(labels, logits.dims()[0], network.n_classes())?;
    let rows = logit_rows(&logits)?;
    let correct: Vec<bool> = rows.iter().zip(labels).map(|(row, &t)| is_correct(row, t)).collect();
    let mut certificates = certifier.certify(images, labels)?;
    certificates.nominal = certifier.nominal().radii(&logits, labels)?;
    let mut attacks = Vec::new();
    for attack in settings.attacks {
        let radii = &certificates.executed[&arithmetic];
        let outcome = if settings.attack_certified {
            attack.run(network, images, labels, progress)?
        } else {
            let uncertified: Vec<usize> =
                (0..labels.len()).filter(|&i| radii[i] <= attack.eps()).collect();
            attack.run_on(&uncertified, network, images, labels, progress)?
        };
        let outcome = outcome.judged(images, attack.eps())?;
        check_soundness(attack.name(), &outcome, labels, radii, arithmetic)?;
        let row = attacked(*attack, &outcome, &correct, radii, &certificates.nominal);
        let certified = certified_accuracy(radii, attack.eps());
        check_accuracy(attack.name(), attack.eps(), row.accuracy, certified)?;
        attacks.push(row);
    }
    Ok(Evaluation {
        n_samples: labels.len(),
        clean: percent(correct.iter().filter(|&&c| c).count(), correct.len()),
        nominal_bound: certifier.nominal().logit_bound(),
        certified: settings.eps.iter().map(|&eps| certificates.accuracy(eps)).collect(),
        attacks,
        layers: certifier.bounds().layers().to_vec(),
        lipschitz: certifier.bounds().lipschitz(),
        samples: SampleResults { correct, certificates },
    })
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

fn check_settings(settings: &EvaluationSettings<'_>) -> Result<()> {
    check_batch_size(settings.batch_size)?;
    match settings.eps.iter().find(|eps| !(**eps >= 0.0 && eps.is_finite())) {
        Some(&value) => {
            let expected = "a finite number of at least 0";
            Err(Error::InvalidSetting { name: "eps", value, expected })
        }
        None => Ok(()),
    }
}

fn attacked(
    attack: &dyn Attack,
    outcome: &AttackOutcome,
    correct: &[bool],
    executed: &[f64],
    nominal: &[f64],
) -> AttackedAccuracy {
    let eps = attack.eps();
    // rounding can carry a point of the sphere past ε and past a radius just above ε: such a point is outside of both
    let in_ball = |i: usize| outcome.distances[i] <= eps || executed[i] <= eps;
    let broken: Vec<usize> =
        (0..correct.len()).filter(|&i| correct[i] && outcome.broken[i] && in_ball(i)).collect();
    let n_correct = correct.iter().filter(|&&c| c).count();
    AttackedAccuracy {
        attack: attack.name().to_owned(),
        eps,
        accuracy: percent(n_correct - broken.len(), correct.len()),
        n_broken: broken.len(),
        largest_distance: broken.iter().map(|&i| outcome.distances[i]).fold(0.0, f64::max),
        n_inside_nominal: broken.iter().filter(|&&i| outcome.distances[i] < nominal[i]).count(),
    }
}
