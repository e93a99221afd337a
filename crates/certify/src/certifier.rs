//! The certificate of a network: radii within which no perturbation changes the class of an image.
//!
//! Three statements, each rigorous for the stored weights (no estimate, no rounding left out):
//! 1. *Layer bounds* ([`NetworkBounds`]): `K_i ≥ ‖W_i‖₂`.
//! 2. *Real-arithmetic radius*. With f the exact real function of the stored weights, x an image, t its
//!    label: if `‖δ‖₂ < radius` then `f_t(x + δ) > f_j(x + δ)` for every other class j.
//! 3. *Executed radius*, for each [`Arithmetic`]: the same for the function as executed, whatever the order of its
//!    sums, for every image x + δ that its storage format can hold.
//!
//! Definition. Let ŷ be the logits from an f64 evaluation at x whose error is bounded a posteriori
//! (module [`rounding`](crate::rounding)), `m_tj ≤ f_t(x) - f_j(x)` the lower bounds that follow, and
//! `L_tj = min(√2 Π K_i, ‖w_t - w_j‖ Π_{i<L} K_i)` (with sums and concatenations in place of products where signals join; the latter where the last layer is dense with rows w). Then
//!
//! ```text
//! real     = min_j  m_tj / L_tj
//! executed = min_j  (m_tj - α_tj) / (L_tj + β_tj)     where the executed logit difference is within α_tj + β_tj r
//!                                                      of the real one for all images at distance r from x,
//! ```
//!
//! because `m - L r - (α + β r) > 0` exactly when r is smaller. The measured margin is that of the exact function, so the
//! forward error is subtracted once. Numerators round down, denominators up, quotients down. A sample that
//! is misclassified, tied, or whose evaluation overflows has radius 0.
//!
//! Besides, for comparison: the [nominal radius](crate::NominalRadius) on the same logits, and the same with `L = 1` taken on faith and
//! the pairs of the last layer.
//!
//! Cost: one f64 forward pass, a norm of each layer's signal, and a few hundred operations for each image.
//!
//! Source: see [`rounding`](crate::rounding) for the recurrence; Tsuzuku et al. 2018 for the last layer's pairs.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lipconv::PlainNetwork;
use lipconv::wide::{ChunkOutput, SignalObserver, Storage, WideNetwork};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::arithmetic::Arithmetic;
use crate::bounds::{LogitBound, NetworkBounds};
use crate::classifier::{check_labels, is_correct, predicted_class};
use crate::error::{Error, Result};
use crate::margin::margin;
use crate::nominal::NominalRadius;
use crate::rounding::{Centre, ErrorModel, MeasuredNorms};
use crate::tensor::{check_finite, check_images, to_f64};
use crate::upper::{Upper, difference_down, norm_from_squares, quotient_down};

/// Certifies images for one network.
#[derive(Debug)]
pub struct Certifier {
    engine: WideNetwork,
    bounds: NetworkBounds,
    reference: ErrorModel,
    models: Vec<(Arithmetic, ErrorModel)>,
    /// L_tj, row-major.
    logit_constants: Vec<Upper>,
    nominal: NominalRadius,
}

/// Certificates of a list of images; every vector has one entry for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificates {
    /// Class of the largest evaluated logit, the first of equals.
    pub predictions: Vec<usize>,
    /// Lower bound of the margin of the exact real function; 0 where it is not proven positive.
    pub margins: Vec<f64>,
    /// The [nominal radius](crate::NominalRadius) on the evaluated logits: rounding is ignored, and with a last layer of norm 1 it is the
    /// paper's `margin / √2`.
    pub nominal: Vec<f64>,
    /// The same with `‖w_t - w_j‖` in place of √2; the nominal one where the last layer is not dense, or its norm exceeds 1.
    pub nominal_pairwise: Vec<f64>,
    /// Real-arithmetic radius.
    pub real: Vec<f64>,
    /// Executed radius, for every arithmetic that can hold the weights.
    pub executed: BTreeMap<Arithmetic, Vec<f64>>,
}

/// Executed radii are cut off here: no image of pixels lies that far from another.
const LARGEST_RADIUS: f64 = 1e9;

/// A table of one number for every pair of classes has 128 MiB.
const MAX_CLASSES: usize = 4096;

impl Certifier {
    /// A certifier for the weights that `network` stores.
    ///
    /// # Errors
    /// [`Error::NotRigorous`], [`Error::Network`] or [`Error::Norm`] when a layer's norm cannot be bounded,
    /// [`Error::DTypeMismatch`] for weights that are neither f32 nor f64, [`Error::InvalidSetting`] for more than 4096 classes,
    /// [`Error::DotTooLong`].
    pub fn new(network: &PlainNetwork) -> Result<Self> {
        Arithmetic::of_dtype(network.dtype())?;
        if network.n_classes() > MAX_CLASSES {
            return Err(Error::InvalidSetting {
                name: "number of classes",
                value: network.n_classes() as f64,
                expected: "at most 4096: a constant is kept for every pair",
            });
        }
        let engine = WideNetwork::new(network)?;
        let bounds = NetworkBounds::of_engine(network, &engine)?;
        let held = Arithmetic::ALL.into_iter().filter(|a| a.holds(network.dtype()));
        Self::of_bounds(engine, bounds, held.collect())
    }

    fn of_bounds(
        engine: WideNetwork,
        bounds: NetworkBounds,
        held: Vec<Arithmetic>,
    ) -> Result<Self> {
        let models = held.into_iter().map(|a| Ok((a, ErrorModel::new(&bounds, a)?)));
        let models = models.collect::<Result<_>>()?;
        let reference = ErrorModel::new(&bounds, Arithmetic::F64)?;
        let logit_constants = logit_constants(&bounds, engine.n_classes(), LogitBound::default());
        let nominal = NominalRadius::of_bounds(&bounds, engine.n_classes());
        Ok(Self { engine, bounds, reference, models, logit_constants, nominal })
    }

    /// The same certifier with layer bounds K and A raised by a factor of `1 + room`: radii are smaller accordingly, and a proof
    /// of the bounds by another method has room to succeed.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] unless `room` is in [0, 1].
    pub fn with_raised_bounds(self, room: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&room) {
            let expected = "a number from 0 to 1";
            return Err(Error::InvalidSetting { name: "room", value: room, expected });
        }
        let held = self.arithmetics().collect();
        Self::of_bounds(self.engine, self.bounds.raised(Upper::ONE + Upper::new(room)), held)
    }

    /// The same certifier with another way to bound the logits' change.
    #[must_use]
    pub fn with_logit_bound(self, logit_bound: LogitBound) -> Self {
        let logit_constants = logit_constants(&self.bounds, self.engine.n_classes(), logit_bound);
        Self { logit_constants, ..self }
    }

    /// The layer bounds that the certificates rest on.
    #[must_use]
    pub fn bounds(&self) -> &NetworkBounds {
        &self.bounds
    }

    /// At least how fast the difference of the logits of two classes can move with the image: L_tj; +∞ where a class does not exist.
    #[must_use]
    pub fn difference_constant(&self, t: usize, j: usize) -> f64 {
        let n = self.engine.n_classes();
        if t < n && j < n { self.logit_constant(t, j).value() } else { f64::INFINITY }
    }

    /// How the nominal radii follow from the logits.
    #[must_use]
    pub fn nominal(&self) -> &NominalRadius {
        &self.nominal
    }

    /// The arithmetics for which radii are computed: those that hold the stored weights.
    pub fn arithmetics(&self) -> impl Iterator<Item = Arithmetic> {
        self.models.iter().map(|(arithmetic, _)| *arithmetic)
    }

    /// Certificates of `images` (n x c x h x w, f32 or f64) with their true classes.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::CountMismatch`], [`Error::LabelOutOfRange`];
    /// [`Error::NonFinite`] for a NaN or an infinity in an image; [`Error::NotRepresentable`] for f64 images
    /// that an arithmetic with f32 storage would round.
    pub fn certify(&self, images: &Tensor, labels: &[usize]) -> Result<Certificates> {
        let n = check_images(images, self.engine.input())?;
        check_labels(labels, n, self.engine.n_classes())?;
        let values = to_f64(images)?;
        let n_values = self.engine.input().n_values();
        check_finite("the image", &values, n_values)?;
        self.check_representable(&values, n_values)?;
        let chunks = self.engine.run::<Norms>(&values, Storage::F64);
        let samples: Vec<Sample> = chunks.into_iter().flat_map(Sample::split).collect();
        let work =
            samples.par_iter().zip(labels).map(|(sample, &label)| self.certify_one(sample, label));
        let rows = work.collect::<Vec<_>>();
        Ok(self.columns(&rows))
    }

    fn check_representable(&self, values: &[f64], n_values: usize) -> Result<()> {
        let narrow = self.arithmetics().find(|a| a.storage() == candle_core::DType::F32);
        let Some(arithmetic) = narrow else { return Ok(()) };
        match values.iter().position(|&v| f64::from(v as f32) != v) {
            Some(at) => Err(Error::NotRepresentable {
                sample: at / n_values.max(1),
                value: values[at],
                arithmetic: arithmetic.name(),
            }),
            None => Ok(()),
        }
    }

    fn certify_one(&self, sample: &Sample, label: usize) -> Row {
        let logits = &sample.logits;
        let nominal = self.nominal.radius(logits, label);
        let mut row = Row {
            prediction: predicted_class(logits),
            margin: 0.0,
            nominal,
            nominal_pairwise: self.nominal_pairwise(logits, label).unwrap_or(nominal),
            real: 0.0,
            executed: vec![0.0; self.models.len()],
        };
        if !(is_correct(logits, label) && logits.iter().all(|y| y.is_finite())) {
            return row;
        }
        let centre = self.reference.centre(&sample.norms);
        let margins: Vec<f64> =
            self.rivals(label).map(|j| self.margin(&centre, logits, label, j)).collect();
        if margins.iter().any(|m| m.is_nan() || *m <= 0.0) {
            return row;
        }
        row.margin = margins.iter().copied().fold(f64::MAX, f64::min);
        let radius = |(j, m): (usize, &f64)| quotient_down(*m, self.logit_constant(label, j));
        row.real = self.rivals(label).zip(&margins).map(radius).fold(f64::MAX, f64::min);
        for ((_, model), executed) in self.models.iter().zip(&mut row.executed) {
            *executed = self.executed_radius(model, &centre, &margins, label);
        }
        row
    }

    fn rivals(&self, label: usize) -> impl Iterator<Item = usize> {
        (0..self.engine.n_classes()).filter(move |&j| j != label)
    }

    /// Lower bound of `f_t(x) - f_j(x)` of the exact function.
    fn margin(&self, centre: &Centre, logits: &[f64], t: usize, j: usize) -> f64 {
        let error = self.reference.centre_pair_error(self.bounds.head(), centre, t, j);
        let difference = projectors::rounding::sub_down(logits[t], logits[j]);
        difference_down(difference, error)
    }

    /// L_tj: how fast the difference of two logits of the exact function can move with the image.
    fn logit_constant(&self, t: usize, j: usize) -> Upper {
        self.logit_constants[t * self.engine.n_classes() + j]
    }

    fn executed_radius(
        &self,
        model: &ErrorModel,
        centre: &Centre,
        margins: &[f64],
        label: usize,
    ) -> f64 {
        let ball = model.ball(centre);
        let radius = |(j, m): (usize, &f64)| {
            let error = model.pair_error(self.bounds.head(), &ball, label, j);
            let rest = difference_down(*m, error.at_centre);
            if rest > 0.0 {
                quotient_down(rest, self.logit_constant(label, j) + error.slope)
            } else {
                0.0
            }
        };
        let radius = self.rivals(label).zip(margins).map(radius).fold(LARGEST_RADIUS, f64::min);
        if model.overflows(centre, radius) { 0.0 } else { radius }
    }

    /// The paper's radius with the pairs of the last layer, where that layer is dense and 1-Lipschitz.
    fn nominal_pairwise(&self, logits: &[f64], label: usize) -> Option<f64> {
        let head = self.bounds.head().filter(|_| margin(logits, label) > 0.0)?;
        if self.nominal.logit_bound() == LogitBound::Pairwise {
            return None;
        }
        let radius = |j: usize| (logits[label] - logits[j]) / head.difference(label, j).value();
        Some(self.rivals(label).map(radius).fold(f64::INFINITY, f64::min))
    }

    fn columns(&self, rows: &[Row]) -> Certificates {
        let column = |f: &dyn Fn(&Row) -> f64| rows.iter().map(f).collect::<Vec<f64>>();
        let executed = self.arithmetics().enumerate();
        Certificates {
            predictions: rows.iter().map(|row| row.prediction).collect(),
            margins: column(&|row| row.margin),
            nominal: column(&|row| row.nominal),
            nominal_pairwise: column(&|row| row.nominal_pairwise),
            real: column(&|row| row.real),
            executed: executed.map(|(i, a)| (a, column(&|row| row.executed[i]))).collect(),
        }
    }
}

fn logit_constants(bounds: &NetworkBounds, n_classes: usize, bound: LogitBound) -> Vec<Upper> {
    let (before, network) = bounds.slopes().pop().unwrap_or((Upper::ONE, Upper::ONE));
    let global = network * Upper::new(2.0).sqrt();
    let Some(head) = bounds.head().filter(|_| bound == LogitBound::Pairwise) else {
        return vec![global; n_classes * n_classes];
    };
    let pairs = (0..n_classes).flat_map(|t| (0..n_classes).map(move |j| (t, j)));
    let pairwise = pairs.map(|(t, j)| before * head.difference(t, j));
    pairwise.map(|constant| if constant < global { constant } else { global }).collect()
}

/// What was computed for one image.
#[derive(Debug)]
struct Row {
    prediction: usize,
    margin: f64,
    nominal: f64,
    nominal_pairwise: f64,
    real: f64,
    executed: Vec<f64>,
}

/// One image after the f64 evaluation.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) logits: Vec<f64>,
    pub(crate) norms: MeasuredNorms,
}

/// Observes the norms of every image's signals, rounded up; layer by layer.
#[derive(Debug, Default)]
pub(crate) struct Norms {
    inputs: Vec<Vec<f64>>,
    outputs: Vec<Vec<f64>>,
}

impl SignalObserver for Norms {
    fn input(&mut self, idx: usize, signal: &[f64], n_images: usize) {
        let norms = column_norms(signal, n_images);
        match self.inputs.get_mut(idx) {
            // the second input of a layer that joins
            Some(first) => {
                let sum = |(a, b): (&mut f64, f64)| *a = (Upper::new(*a) + Upper::new(b)).value();
                first.iter_mut().zip(norms).for_each(sum);
            }
            None => self.inputs.push(norms),
        }
    }

    fn output(&mut self, _: usize, signal: &[f64], n_images: usize) {
        self.outputs.push(column_norms(signal, n_images));
    }
}

impl Sample {
    pub(crate) fn split(chunk: ChunkOutput<Norms>) -> Vec<Self> {
        let n_classes = chunk.logits.len() / chunk.n_images.max(1);
        let of = |norms: &[Vec<f64>], i: usize| norms.iter().map(|layer| layer[i]).collect();
        let sample = |i: usize| Self {
            logits: chunk.logits[i * n_classes..(i + 1) * n_classes].to_vec(),
            norms: MeasuredNorms {
                inputs: of(&chunk.observed.inputs, i),
                outputs: of(&chunk.observed.outputs, i),
            },
        };
        (0..chunk.n_images).map(sample).collect()
    }
}

/// Norms of the columns of a features x images signal, rounded up.
fn column_norms(signal: &[f64], n_images: usize) -> Vec<f64> {
    let mut squares = vec![0.0; n_images];
    for row in signal.chunks_exact(n_images) {
        squares.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v);
    }
    let n = signal.len() / n_images;
    squares.into_iter().map(|sum| norm_from_squares(sum, n).value()).collect()
}
