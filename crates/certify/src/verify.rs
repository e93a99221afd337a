//! An independent check of certificate files: every claim is derived again from the weights and the images.
//!
//! Definition. The claims are those of [`CertificateFile`](crate::CertificateFile). They are checked in this order, and the first one that
//! cannot be confirmed is returned as a [`Failure`], which names it:
//! 1. the file is complete, of this version, and has the members of that version, each once, all numbers finite and at
//!    least 0; the weights file likewise holds nothing that no reader asks for;
//! 2. `model` and `data` are the ones at hand, by their hashes;
//! 3. each layer's K and A, by a test of `K² I - W W*` for positive definiteness (module `norm`), its B, its sizes;
//! 4. of the selected samples the label, the prediction, the margin and the radii: the logits are enclosed by an
//!    evaluation with more than twice the precision of f64 (module `enclosure`), and the radii evaluated by the
//!    documented formulas in double-double arithmetic from the confirmed layer bounds (module `formula`); what is
//!    claimed must not exceed that, nor fall short of it by more than evaluation in f64 explains.
//!
//! Guarantee: what is confirmed holds, if the derivations in [`rounding`](crate::rounding) do and the machine computes f64 as IEEE
//! 754 says. The verifier shares with the program that wrote the certificate these derivations, the definition of the file and of
//! its hashes, and no numeric code: its own reader of weights, its own evaluation, its own bounds of rounding, no
//! candle and no BLAS. It is also tight: a radius that is raised by one part in 10⁶ is refused, since honest ones fall
//! short of what is derived here by about one in 10¹⁰.
//!
//! Cost: about ten f64 operations for each product of the network and image; a Cholesky factorisation for each layer and
//! frequency.
//!
//! Errors: [`Failure`], for bad files and false claims alike. Text of the files is quoted with its control characters escaped.

mod claims;
mod enclosure;
mod failure;
mod formula;
mod model;
mod network;
mod norm;
mod padded;
mod wide;

pub use failure::Failure;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::certificate::{Pixels, data_sha256, hex};
use claims::{ARITHMETICS, Claims, LayerClaim, SampleClaim};
use enclosure::{Enclosure, Evaluator, LANES};
use failure::Verdict;
use formula::{Constants, Machine, Range};
use network::{Affine, Joining, Layer, Model};
use wide::Wide;

/// The images that a certificate is said to be about.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    /// Pixels in [0, 1], image by image.
    pub pixels: Pixels<'a>,
    /// Their true classes.
    pub labels: &'a [usize],
}

/// Which samples to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Every one.
    All,
    /// A random subset; all of them where there are no more.
    Random {
        /// Its size.
        n: usize,
        /// Decides which.
        seed: u64,
    },
}

/// What a certificate says it is about, so that the images can be fetched. Nothing of it is confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// What the file calls its images.
    pub data_name: String,
    /// Samples in the file.
    pub n_samples: usize,
    /// Whether it claims radii for an arithmetic that stores weights in f32, so that its images are hashed in f32.
    pub is_narrow: bool,
}

/// Reads what the file says it is about.
///
/// # Errors
/// A file that is no certificate of this version.
pub fn outline(certificate: &[u8]) -> Result<Outline, Failure> {
    let claims = Claims::parse(certificate)?;
    let is_narrow = |sample: &SampleClaim| sample.executed.iter().any(|(name, _)| *name == "f32");
    Ok(Outline {
        n_samples: claims.samples.len(),
        is_narrow: claims.samples.first().is_some_and(is_narrow),
        data_name: claims.data_name,
    })
}

/// What was confirmed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What the file calls its images. Nothing here can tell whether they are that; the caller may.
    pub data_name: String,
    /// SHA-256 of the weights file.
    pub model_sha256: String,
    /// SHA-256 of the images and labels, as [`data_sha256`] defines it.
    pub data_sha256: String,
    /// Affine layers.
    pub n_layers: usize,
    /// Samples in the file.
    pub n_samples: usize,
    /// What was derived for the samples whose claims were checked, in their order.
    pub checked: Vec<Checked>,
}

/// What the verifier derived for one sample, where the file claims something; 0 elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Its place in the file.
    pub sample_idx: usize,
    /// Radius for the exact real function, rounded down.
    pub real: f64,
    /// Radii by the names of arithmetics, rounded down.
    pub executed: BTreeMap<String, f64>,
}

impl Report {
    /// Of the samples that were checked, how many have a real-arithmetic radius above `eps`.
    #[must_use]
    pub fn n_certified(&self, eps: f64) -> usize {
        self.checked.iter().filter(|checked| checked.real > eps).count()
    }

    /// The same as executed in an arithmetic, by its name.
    #[must_use]
    pub fn n_certified_executed(&self, arithmetic: &str, eps: f64) -> usize {
        let radius =
            |checked: &&Checked| checked.executed.get(arithmetic).is_some_and(|r| *r > eps);
        self.checked.iter().filter(radius).count()
    }

    /// The arithmetics in which every checked sample has an entry.
    pub fn arithmetics(&self) -> impl Iterator<Item = &str> {
        let in_all = |name: &&str| self.checked.iter().all(|c| c.executed.contains_key(*name));
        ARITHMETICS.into_iter().filter(|_| !self.checked.is_empty()).filter(in_all)
    }
}

/// Images between two reports of progress.
const GROUP: usize = 32 * LANES;

/// Checks a certificate against the bytes of the weights file and the images; `progress` gets the number of samples
/// confirmed so far and of those to check.
///
/// # Errors
/// The first claim that cannot be confirmed.
pub fn verify(
    certificate: &[u8],
    model: &[u8],
    data: &Data<'_>,
    selection: Selection,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Report, Failure> {
    let claims = Claims::parse(certificate)?;
    check_hash("model.sha256", &claims.model_sha256, &hex(&Sha256::digest(model)), "weights file")?;
    let found = data_sha256(data.pixels, data.labels);
    check_hash("data.sha256", &claims.data_sha256, &found, "data set")?;
    let model = Model::parse(model)?;
    check_sizes(&claims, &model, data)?;
    check_layers(&claims.layers, &model)?;
    let checker = Checker {
        evaluator: Evaluator::new(&model),
        constants: Constants::new(&model, &claims.layers),
        model: &model,
        data,
    };
    let selected = selected(selection, claims.samples.len())?;
    let mut checked = Vec::with_capacity(selected.len());
    for group in selected.chunks(GROUP) {
        let batches = group.par_chunks(LANES);
        let verdicts: Vec<Verdict<Vec<Checked>>> =
            batches.map(|batch| checker.check(batch, &claims.samples)).collect();
        // in order, so that the same file always fails at the same claim
        for verdict in verdicts {
            checked.extend(verdict?);
        }
        progress(checked.len(), selected.len());
    }
    Ok(Report {
        n_layers: claims.layers.len(),
        n_samples: claims.samples.len(),
        data_name: claims.data_name,
        model_sha256: claims.model_sha256,
        data_sha256: claims.data_sha256,
        checked,
    })
}

/// Ascending indices of the samples to check, at least one.
fn selected(selection: Selection, n_samples: usize) -> Verdict<Vec<usize>> {
    if n_samples == 0 || matches!(selection, Selection::Random { n: 0, .. }) {
        return Err(Failure::new("samples", "none are left to check, expected at least 1"));
    }
    Ok(match selection {
        Selection::Random { n, seed } if n < n_samples => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut chosen = index::sample(&mut rng, n_samples, n).into_vec();
            chosen.sort_unstable();
            chosen
        }
        Selection::All | Selection::Random { .. } => (0..n_samples).collect(),
    })
}

fn check_hash(claim: &str, claimed: &str, found: &str, what: &str) -> Verdict<()> {
    if claimed == found {
        return Ok(());
    }
    Err(Failure::new(claim, format!("is {claimed}, but that of this {what} is {found}")))
}

fn check_sizes(claims: &Claims, model: &Model, data: &Data<'_>) -> Verdict<()> {
    let equal = |claim: &str, claimed: usize, found: usize| {
        if claimed == found {
            return Ok(());
        }
        Err(Failure::new(claim, format!("is {claimed}, expected {found}")))
    };
    equal("model.n_classes", claims.n_classes, model.n_classes)?;
    equal("data.n_samples", claims.samples.len(), data.labels.len())?;
    let n_values = match data.pixels {
        Pixels::F32(values) => values.len(),
        Pixels::F64(values) => values.len(),
    };
    if n_values != data.labels.len() * model.input.n_values() {
        let network::Shape { channels, height, width } = model.input;
        let reason = format!(
            "the images have {n_values} values, expected {} of {channels} x {height} x {width}",
            data.labels.len()
        );
        return Err(Failure::new("data", reason));
    }
    Ok(())
}

fn check_layers(claims: &[LayerClaim], model: &Model) -> Verdict<()> {
    let nodes: Vec<&Layer> =
        model.layers.iter().filter(|layer| layer.node_name().is_some()).collect();
    let n_layers = nodes.len();
    if claims.len() != n_layers {
        let reason = format!("are {}, expected {n_layers} as in the weights file", claims.len());
        return Err(Failure::new("layers", reason));
    }
    for (i, (claim, layer)) in claims.iter().zip(nodes).enumerate() {
        let name = layer.node_name().unwrap_or_default();
        let checked = match layer {
            Layer::Affine(affine) => check_layer(claim, affine),
            Layer::Leaky { node, slope } => {
                let largest = slope.abs().max(1.0);
                check_joining(claim, node, [largest, largest], 0)
            }
            Layer::Concat { node, .. } => check_joining(claim, node, [1.0, 0.0], 0),
            Layer::Add { node, .. } => check_joining(claim, node, [1.0, 1.0], 1),
            _ => Ok(()),
        };
        checked.map_err(|failure| {
            let member = failure.claim;
            Failure::new(format!("layers[{i}].{member}"), format!("{} ({name})", failure.reason))
        })?;
    }
    Ok(())
}

/// The claims about a layer without weights: K and A at least what is given.
fn check_joining(
    claim: &LayerClaim,
    node: &Joining,
    [lipschitz, absolute]: [f64; 2],
    terms: usize,
) -> Verdict<()> {
    if claim.name != node.name {
        let reason = format!("is `{}`, expected `{}`", claim.name, node.name);
        return Err(Failure::new("name", reason));
    }
    let sizes =
        [("dot_length", claim.dot_length, terms), ("n_outputs", claim.n_outputs, node.n_outputs)];
    for (member, claimed, found) in sizes {
        if claimed != found {
            return Err(Failure::new(member, format!("is {claimed}, expected {found}")));
        }
    }
    let least = [
        ("lipschitz", claim.lipschitz, lipschitz),
        ("absolute_norm", claim.absolute_norm, absolute),
    ];
    for (member, claimed, least) in least {
        if claimed < least {
            return Err(Failure::new(
                member,
                format!("is {claimed:?}, expected at least {least:?}"),
            ));
        }
    }
    Ok(())
}

fn check_layer(claim: &LayerClaim, affine: &Affine) -> Verdict<()> {
    if claim.name != affine.name {
        let reason = format!("is `{}`, expected `{}`", claim.name, affine.name);
        return Err(Failure::new("name", reason));
    }
    let sizes = [
        ("dot_length", claim.dot_length, affine.n_terms),
        ("n_outputs", claim.n_outputs, affine.n_rows * affine.n_pixels),
    ];
    for (member, claimed, found) in sizes {
        if claimed != found {
            return Err(Failure::new(member, format!("is {claimed}, expected {found}")));
        }
    }
    if affine.n_terms > 1 << 22 {
        return Err(Failure::new("dot_length", "is more than the verifier's error bounds allow"));
    }
    let unproven = |member: &str, claimed: f64, what: &str| {
        let reason =
            format!("{claimed:?} is not proven to be an upper bound of the norm of {what}");
        Failure::new(member, reason)
    };
    if !norm::proves_lipschitz(affine, claim.lipschitz) {
        return Err(unproven("lipschitz", claim.lipschitz, "the layer"));
    }
    if !norm::proves_absolute(affine, claim.absolute_norm) {
        return Err(unproven("absolute_norm", claim.absolute_norm, "its absolute values"));
    }
    let bias = formula::bias_norm(affine);
    if bias.narrowed() > Wide::from(claim.bias_norm) {
        return Err(unproven("bias_norm", claim.bias_norm, "its bias"));
    }
    Ok(())
}

struct Checker<'a> {
    evaluator: Evaluator<'a>,
    constants: Constants<'a>,
    model: &'a Model,
    data: &'a Data<'a>,
}

impl Checker<'_> {
    /// Checks the samples of these indices.
    fn check(&self, batch: &[usize], claims: &[SampleClaim]) -> Verdict<Vec<Checked>> {
        let images: Vec<Vec<f64>> = batch.iter().map(|&i| self.image(i)).collect();
        let views: Vec<&[f64]> = images.iter().map(Vec::as_slice).collect();
        let enclosures = self.evaluator.enclose(&views);
        let samples = batch.iter().zip(&enclosures).zip(&images);
        samples
            .map(|((&i, enclosure), image)| {
                let narrow = image.iter().all(|&v| f64::from(v as f32) == v);
                self.check_sample(i, &claims[i], enclosure, narrow).map_err(|failure| {
                    Failure::new(format!("samples[{i}].{}", failure.claim), failure.reason)
                })
            })
            .collect()
    }

    fn image(&self, i: usize) -> Vec<f64> {
        let values = i * self.model.input.n_values()..(i + 1) * self.model.input.n_values();
        match self.data.pixels {
            Pixels::F32(pixels) => pixels[values].iter().map(|&v| f64::from(v)).collect(),
            Pixels::F64(pixels) => pixels[values].to_vec(),
        }
    }

    /// `narrow`: whether f32 holds the image.
    fn check_sample(
        &self,
        i: usize,
        claim: &SampleClaim,
        enclosure: &Enclosure,
        narrow: bool,
    ) -> Verdict<Checked> {
        let label = self.data.labels[i];
        if claim.label != label {
            return Err(Failure::new("label", format!("is {}, expected {label}", claim.label)));
        }
        if label >= self.model.n_classes {
            return Err(Failure::new("label", format!("{label} is not a class")));
        }
        check_prediction(claim.prediction, enclosure)?;
        let margin = self.constants.margin(enclosure, label);
        check_claim("margin", claim.margin, margin)?;
        let real = self.constants.real_radius(enclosure, label);
        let real = check_claim("real", claim.real, real)?;
        let executed = claim.executed.iter().map(|&(name, radius)| {
            let derived = self.check_executed(name, radius, enclosure, narrow, label)?;
            Ok((name.to_owned(), derived))
        });
        Ok(Checked { sample_idx: i, real, executed: executed.collect::<Verdict<_>>()? })
    }

    fn check_executed(
        &self,
        name: &str,
        radius: f64,
        enclosure: &Enclosure,
        narrow: bool,
        label: usize,
    ) -> Verdict<f64> {
        let member = format!("executed.{name}");
        let Some(machine) = Machine::named(name) else {
            return Err(Failure::new(member, "is no arithmetic known to this program"));
        };
        if radius == 0.0 {
            return Ok(0.0);
        }
        if machine.narrow && (self.model.stored_in_f64 || !narrow) {
            let reason = "this arithmetic does not hold the weights or the image";
            return Err(Failure::new(member, reason));
        }
        let derived = self.constants.executed_radius(enclosure, machine, label);
        let derived = check_claim(&member, radius, derived)?;
        if !self.constants.stays_finite(enclosure, machine, radius) {
            return Err(Failure::new(member, format!("within {radius:?} a sum may overflow")));
        }
        // beyond the claim nothing was said about overflow
        Ok(derived.min(radius))
    }
}

/// Differences of logits below this part of the largest one count as ties.
const TIE: f64 = 1e-9;

fn check_prediction(prediction: usize, enclosure: &Enclosure) -> Verdict<()> {
    let logits: Vec<f64> = enclosure.logits.iter().map(|y| y.nearest()).collect();
    let Some(&predicted) = logits.get(prediction) else {
        return Err(Failure::new("prediction", format!("{prediction} is not a class")));
    };
    let slack = TIE * logits.iter().fold(0.0, |most, y| y.abs().max(most));
    match logits.iter().position(|&y| y.is_nan() || y > predicted + slack) {
        None => Ok(()),
        Some(better) => {
            let reason = format!("is {prediction}, but the logit of class {better} is larger");
            Err(Failure::new("prediction", reason))
        }
    }
}

/// Claims are cut off here.
const LARGEST_CLAIM: f64 = 1e9;

/// A positive claim must not exceed what holds, nor differ from what the formulas give; returns what holds, rounded down.
fn check_claim(member: &str, claimed: f64, derived: Option<Range>) -> Verdict<f64> {
    if claimed == 0.0 {
        return Ok(0.0);
    }
    let Some(Range { floor, ceiling }) = derived else {
        return Err(Failure::new(member, "dot products are too long for this arithmetic"));
    };
    if !(ceiling.is_finite() && Wide::from(claimed) <= ceiling) {
        let most = ceiling.nearest();
        let reason = format!("is {claimed:?}, but no more than {most:?} can be derived");
        return Err(Failure::new(member, reason));
    }
    if Wide::from(claimed) < floor && claimed < LARGEST_CLAIM {
        let least = floor.nearest();
        let reason = format!("is {claimed:?}, but the layer bounds and the weights give {least:?}");
        return Err(Failure::new(member, reason));
    }
    Ok(ceiling.nearest().next_down().max(claimed))
}
