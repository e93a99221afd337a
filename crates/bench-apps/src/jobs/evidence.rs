//! Evidence beside the accuracies of a classifier: spectra, layer bounds, certified accuracy over the radius, adversarial examples,
//! and attacks that see decisions alone.
//!
//! Definition. The *spectrum* of a convolution is that of the cyclic linear map at the image size that the layer sees. The
//! *nearest adversarial example* of a correctly classified image x is looked for by PGD at growing radii, and then moved towards
//! x along the segment as long as the class stays wrong (bisection); its distance is an upper bound of the distance to the
//! decision boundary, as the certified radius is a lower one.
//!
//! Guarantee: an adversarial example nearer than the executed radius is an error.
//!
//! Cost: for 16 images of Large on CIFAR-10, some 300 forward and backward passes of 16 images.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use blockconv::spectrum::layer_singular_values;
use candle_core::{DType, Tensor};
use certify::{
    Attack, AttackStart, AttackTarget, Boundary, Classifier, Eps, Loss, Pgd, Pointwise, Stopping,
    batched_logits,
};
use lipconv::{PlainLayer, PlainNetwork, SignalShape};
use lipconv_datasets::{ImageSet, data_url, png};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::config::{DecisionAttack, EvaluationConfig};
use crate::experiment::evaluation::Evaluated;
use crate::words::shape_text;

/// Images shown of each cell.
pub const N_SHOWN: usize = 16;
/// Points of the certified-accuracy curve.
const N_POINTS: usize = 160;
const N_BINS: usize = 60;
/// Radii at which adversarial examples are looked for, in units of the headline radius.
const LADDER: [f64; 10] = [0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0];
/// Halvings of the segment between an image and its adversarial example.
const N_HALVINGS: usize = 12;

/// Singular values of one layer before and after training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectra {
    pub layer: String,
    /// Height and width that it sees.
    pub size: (usize, usize),
    pub initial: Histogram,
    pub trained: Histogram,
}

/// Counts of values in equal bins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Upper end of the last bin; the first begins at 0.
    pub end: f64,
    /// Values in each bin; the last one holds its upper end as well.
    pub counts: Vec<u64>,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
}

impl Histogram {
    pub fn of(values: &[f64], end: f64) -> Self {
        let mut counts = vec![0; N_BINS];
        for value in values {
            let bin = (value / end * N_BINS as f64).max(0.0) as usize;
            counts[bin.min(N_BINS - 1)] += 1;
        }
        Self {
            end,
            counts,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
            max: values.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// The spectra of the second convolution; `None` for a network with fewer than two.
pub fn spectra(initial: &PlainNetwork, trained: &PlainNetwork) -> Result<Option<Spectra>> {
    let (Some(before), Some(after)) = (second_convolution(initial)?, second_convolution(trained)?)
    else {
        return Ok(None);
    };
    let largest = before.values.iter().chain(&after.values).copied().fold(1.0, f64::max);
    let end = 1.05 * largest;
    Ok(Some(Spectra {
        layer: after.name,
        size: after.size,
        initial: Histogram::of(&before.values, end),
        trained: Histogram::of(&after.values, end),
    }))
}

struct Spectrum {
    name: String,
    size: (usize, usize),
    values: Vec<f64>,
}

fn second_convolution(network: &PlainNetwork) -> Result<Option<Spectrum>> {
    let mut shape = SignalShape::Image(network.input());
    let mut n_convs = 0;
    for (layer, name) in network.layers().iter().zip(network.names()) {
        shape = layer.output_shape(shape, name)?;
        let (PlainLayer::CyclicConv(conv), SignalShape::Image(image)) = (layer, shape) else {
            continue;
        };
        n_convs += 1;
        if n_convs == 2 {
            // a convolution keeps the size that it sees after downsampling
            let size = (image.height, image.width);
            let values = singular_values(conv.weight(), size)?;
            return Ok(Some(Spectrum { name: name.clone(), size, values }));
        }
    }
    Ok(None)
}

/// Those of a layer that sees this height and width; a dense weight is a 1 x 1 convolution.
pub fn singular_values(weight: &Tensor, size: (usize, usize)) -> Result<Vec<f64>> {
    let dims = match *weight.dims() {
        [c_out, c_in] => (c_out, c_in, 1, 1),
        _ => weight.dims4()?,
    };
    let values = weight.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let oihw = Array4::from_shape_vec(dims, values)?;
    Ok(layer_singular_values(oihw.view(), size)?.to_vec())
}

/// Certified accuracy over the radius: one ordinate per radius and kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CertifiedCurve {
    /// Radii, ascending from 0.
    pub eps: Vec<f64>,
    pub nominal: Vec<f64>,
    pub real: Vec<f64>,
    pub executed: Vec<f64>,
}

impl CertifiedCurve {
    /// The curves of three lists of radii, one per sample each: the percentage of samples whose radius exceeds ε.
    pub fn from_radii(eps: Vec<f64>, nominal: &[f64], real: &[f64], executed: &[f64]) -> Self {
        let at_all =
            |radii: &[f64]| eps.iter().map(|&e| certify::certified_accuracy(radii, e)).collect();
        let (nominal, real, executed) = (at_all(nominal), at_all(real), at_all(executed));
        Self { eps, nominal, real, executed }
    }
}

/// The curve of an evaluation, up to the largest radius.
pub fn certified_curve(evaluated: &Evaluated) -> CertifiedCurve {
    let certificates = &evaluated.evaluation.samples.certificates;
    let largest =
        certificates.nominal.iter().copied().filter(|r| r.is_finite()).fold(0.0, f64::max);
    let asked = evaluated.eps.last().map_or(1.0, Eps::value);
    let end = largest.min(2.0 * asked).max(asked);
    let eps = (0..=N_POINTS).map(|i| end * i as f64 / N_POINTS as f64).collect();
    let executed = certificates.executed.get(&evaluated.arithmetic);
    let executed = executed.map_or(&[][..], Vec::as_slice);
    CertifiedCurve::from_radii(eps, &certificates.nominal, &certificates.real, executed)
}

/// A layer's bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFact {
    pub name: String,
    /// Shape of the weight, as in "32 x 64 x 2 x 2".
    pub weight: String,
    /// Rigorous upper bound of its norm.
    pub bound: f64,
}

/// The layers that have weights, with their bounds.
pub fn layer_facts(network: &PlainNetwork, evaluated: &Evaluated) -> Vec<LayerFact> {
    let shape_of = |name: &str| {
        let position = network.names().iter().position(|n| n == name);
        let weight = position.and_then(|i| network.layers()[i].parameters());
        weight.map_or_else(String::new, |(weight, _)| shape_text(weight.dims()))
    };
    let fact = |layer: &certify::LayerBound| LayerFact {
        name: layer.name.clone(),
        weight: shape_of(&layer.name),
        bound: layer.lipschitz,
    };
    evaluated.evaluation.layers.iter().map(fact).collect()
}

/// A test image, its certificate, and the nearest adversarial example that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdversarialSample {
    /// The image, as a `data:` address.
    pub image: String,
    pub label: usize,
    pub predicted: usize,
    /// Executed radius; 0 where the network is wrong.
    pub radius: f64,
    pub adversarial: Option<Adversarial>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adversarial {
    /// The image, rounded to 8 bits, as a `data:` address.
    pub image: String,
    pub predicted: usize,
    /// Its distance from the original in L2, before rounding to 8 bits.
    pub distance: f64,
}

/// The first test images with their radii (one for each test image) and nearest adversarial examples.
pub fn adversarial_samples(
    network: &PlainNetwork,
    test: &ImageSet,
    radii: &[f64],
    headline: &Eps,
    seed: u64,
) -> Result<Vec<AdversarialSample>> {
    let n = N_SHOWN.min(test.len());
    let pixels = test.tensor(0..n, network.dtype(), network.device())?;
    let predicted = classes(network, &pixels)?;
    let labels = test.head(n).classes();
    let correct: Vec<usize> = (0..n).filter(|&i| predicted[i] == labels[i]).collect();
    let mut found = nearest(network, &pixels, &labels, &correct, headline.value(), seed)?;
    let mut samples = Vec::new();
    for i in 0..n {
        let adversarial = found.remove(&i);
        if let Some(found) = &adversarial {
            ensure!(
                found.distance > radii[i],
                "test image {i} is broken at distance {}, inside its certified radius {}",
                found.distance,
                radii[i]
            );
        }
        let address = |pixels: &[u8]| png(test.shape(), pixels).map(|png| data_url(&png));
        let shown = |Found { pixels, predicted, distance }| -> Result<Adversarial> {
            Ok(Adversarial { image: address(&rounded(&pixels))?, predicted, distance })
        };
        samples.push(AdversarialSample {
            image: address(test.image(i)?)?,
            label: labels[i],
            predicted: predicted[i],
            radius: radii[i],
            adversarial: adversarial.map(shown).transpose()?,
        });
    }
    Ok(samples)
}

fn rounded(pixels: &[f64]) -> Vec<u8> {
    pixels.iter().map(|p| (255.0 * p).round().clamp(0.0, 255.0) as u8).collect()
}

struct Found {
    pixels: Vec<f64>,
    predicted: usize,
    distance: f64,
}

/// The nearest adversarial example of each of the images `todo` for which one is found, by position.
fn nearest(
    network: &PlainNetwork,
    pixels: &Tensor,
    labels: &[usize],
    todo: &[usize],
    unit: f64,
    seed: u64,
) -> Result<BTreeMap<usize, Found>> {
    let mut todo = todo.to_vec();
    let mut found = BTreeMap::new();
    for factor in LADDER {
        if todo.is_empty() {
            break;
        }
        let images = select(pixels, &todo)?;
        let targets: Vec<usize> = todo.iter().map(|&i| labels[i]).collect();
        let target = AttackTarget::new(network, &images, &targets);
        let outcome = ladder_attack(factor * unit, seed).run(target, &mut |_| {})?;
        let broken: Vec<usize> = (0..todo.len()).filter(|&j| outcome.broken[j]).collect();
        if !broken.is_empty() {
            let labels: Vec<usize> = broken.iter().map(|&j| targets[j]).collect();
            let moved = nearer(
                network,
                &select(&images, &broken)?,
                &select(&outcome.adversarial, &broken)?,
                &labels,
            )?;
            found.extend(broken.iter().map(|&j| todo[j]).zip(moved));
        }
        todo.retain(|i| !found.contains_key(i));
    }
    Ok(found)
}

fn ladder_attack(eps: f64, seed: u64) -> Pgd {
    const STEPS: usize = 30;
    Pgd {
        eps,
        steps: STEPS,
        step_size: 2.5 * eps / STEPS as f64,
        loss: Loss::CarliniWagner { confidence: 50.0 },
        start: AttackStart::Zero,
        restarts: 1,
        seed,
        stopping: Stopping::WhenBroken,
        batch_size: N_SHOWN,
    }
}

/// Adversarial examples moved towards their images while their class stays wrong.
fn nearer(
    network: &PlainNetwork,
    images: &Tensor,
    adversarial: &Tensor,
    labels: &[usize],
) -> Result<Vec<Found>> {
    let (from, to) = (rows(images)?, rows(adversarial)?);
    let point = |j: usize, t: f64| -> Vec<f64> {
        from[j].iter().zip(&to[j]).map(|(x, y)| x + t * (y - x)).collect()
    };
    let at = |ts: &[f64]| -> Result<Tensor> {
        let values: Vec<f64> = ts.iter().enumerate().flat_map(|(j, &t)| point(j, t)).collect();
        let tensor = Tensor::from_vec(values, images.dims(), images.device())?;
        Ok(tensor.to_dtype(images.dtype())?)
    };
    // wrong at `far`, unknown below
    let (mut near, mut far) = (vec![0.0; labels.len()], vec![1.0; labels.len()]);
    for _ in 0..N_HALVINGS {
        let middle: Vec<f64> = near.iter().zip(&far).map(|(a, b)| 0.5 * (a + b)).collect();
        for (j, class) in classes(network, &at(&middle)?)?.into_iter().enumerate() {
            let end = if class == labels[j] { &mut near } else { &mut far };
            end[j] = middle[j];
        }
    }
    let last = at(&far)?;
    let predicted = classes(network, &last)?;
    // as the network saw them, rounded to its element type
    let seen = rows(&last)?;
    let result = seen.into_iter().zip(predicted).enumerate().map(|(j, (pixels, predicted))| {
        let squares = pixels.iter().zip(&from[j]).map(|(a, b)| (a - b) * (a - b));
        Found { distance: squares.sum::<f64>().sqrt(), pixels, predicted }
    });
    Ok(result.collect())
}

fn select(images: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let rows: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
    let rows = Tensor::new(rows, images.device())?;
    Ok(images.index_select(&rows, 0)?)
}

fn rows(images: &Tensor) -> Result<Vec<Vec<f64>>> {
    Ok(images.to_dtype(DType::F64)?.flatten_from(1)?.to_vec2::<f64>()?)
}

fn classes(network: &PlainNetwork, images: &Tensor) -> Result<Vec<usize>> {
    let classes = network.forward(images)?.argmax(1)?.to_vec1::<u32>()?;
    Ok(classes.into_iter().map(|class| class as usize).collect())
}

/// Accuracy on the first test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FirstImages {
    pub n: usize,
    pub eps: String,
    pub clean: f64,
    /// Accuracy under each attack, percent.
    pub attacked: BTreeMap<DecisionAttack, f64>,
}

/// Attacks that see decisions alone, and how much they may do.
#[derive(Debug, Clone, Copy)]
pub struct DecisionEffort<'a> {
    pub attacks: &'a [DecisionAttack],
    /// Radius, seed and batch size.
    pub evaluation: &'a EvaluationConfig,
    pub boundary_steps: usize,
}

/// Accuracy on all of `test` under attacks that see decisions alone; `None` without attacks.
pub fn first_images(
    network: &dyn Classifier,
    test: &ImageSet,
    effort: &DecisionEffort<'_>,
) -> Result<Option<FirstImages>> {
    let evaluation = effort.evaluation;
    let Some(eps) = evaluation.attack_eps.first().filter(|_| !effort.attacks.is_empty()) else {
        return Ok(None);
    };
    let images = test.tensor(0..test.len(), network.dtype(), network.device())?;
    let labels = test.classes();
    let mut attacked = BTreeMap::new();
    for &name in effort.attacks {
        let (value, seed) = (eps.value(), evaluation.seed);
        let attack: Box<dyn Attack> = match name {
            DecisionAttack::Boundary => {
                Box::new(Boundary { steps: effort.boundary_steps, ..Boundary::new(value, seed) })
            }
            DecisionAttack::Pointwise => Box::new(Pointwise::new(value, seed)),
        };
        let target = AttackTarget::new(network, &images, &labels);
        let outcome = attack.run(target, &mut |_| {})?;
        attacked.insert(name, outcome.accuracy());
    }
    let clean = clean_accuracy(network, &images, &labels, evaluation.batch_size)?;
    Ok(Some(FirstImages { n: test.len(), eps: eps.to_string(), clean, attacked }))
}

/// The share of images whose label has strictly the largest logit, percent.
pub fn clean_accuracy(
    network: &dyn Classifier,
    images: &Tensor,
    labels: &[usize],
    batch_size: usize,
) -> Result<f64> {
    let logits = batched_logits(network, images, batch_size)?;
    // a radius is positive exactly there, whatever the network's norm
    let radii = certify::nominal_radii(&logits, labels, 1.0)?;
    Ok(certify::certified_accuracy(&radii, 0.0))
}
