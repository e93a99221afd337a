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
use crate::rounding::{Centre, ErrorModel, Line, MeasuredNorms};
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
    /// Executed radius, for every arithmetic that can hold the weights; without [`Arithmetic::Tf32`] where a sum has 2^20 terms or more.
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
        let model = |a| match ErrorModel::new(&bounds, a) {
            // sums may be four times as long in f32: the other arithmetics are no worse for it
            Err(Error::DotTooLong { .. }) if a == Arithmetic::Tf32 => None,
            model => Some(model.map(|model| (a, model))),
        };
        let models = held.into_iter().filter_map(model).collect::<Result<_>>()?;
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
        let starts = chunks.iter().scan(0, |next, chunk| {
            let start = *next;
            *next += chunk.n_images;
            Some((chunk, &labels[start..*next]))
        });
        let work = starts.collect::<Vec<_>>().into_par_iter();
        let rows = work.flat_map_iter(|(chunk, labels)| self.certify_chunk(chunk, labels));
        Ok(self.columns(&rows.collect::<Vec<_>>()))
    }

    /// At most `f_t(x) - f_j(x)` of the exact function, for each of `images` (n x c x h x w, f32 or f64) and its pair (t, j) of classes; −∞
    /// where the evaluation overflows.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::CountMismatch`], [`Error::LabelOutOfRange`]; [`Error::NonFinite`] for an image.
    pub fn differences(&self, images: &Tensor, pairs: &[(usize, usize)]) -> Result<Vec<f64>> {
        let n = check_images(images, self.engine.input())?;
        let classes: Vec<usize> = pairs.iter().map(|&(t, j)| t.max(j)).collect();
        check_labels(&classes, n, self.engine.n_classes())?;
        let values = to_f64(images)?;
        check_finite("the image", &values, self.engine.input().n_values())?;
        let (mut room, mut pairs) = (Room::default(), pairs.iter());
        let mut differences = Vec::with_capacity(n);
        for chunk in self.engine.run::<Norms>(&values, Storage::F64) {
            let logits = chunk.logits.chunks_exact(self.engine.n_classes());
            for ((i, logits), &(t, j)) in logits.enumerate().zip(&mut pairs) {
                let centre = room.centre(&self.reference, &chunk.observed, i);
                let difference = self.margin(centre, logits, t, j);
                let is_bound = logits.iter().all(|y| y.is_finite()) && !difference.is_nan();
                differences.push(if is_bound { difference } else { f64::NEG_INFINITY });
            }
        }
        Ok(differences)
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

    fn certify_chunk(&self, chunk: &ChunkOutput<Norms>, labels: &[usize]) -> Vec<Row> {
        let mut room = Room::default();
        let logits = chunk.logits.chunks_exact(self.engine.n_classes());
        let row = |(i, (logits, &label)): (usize, (&[f64], &usize))| {
            let nominal = self.nominal.radius(logits, label);
            let (margin, real) = self.prove(&chunk.observed, i, logits, label, &mut room);
            let executed = self.models.iter().map(|(_, model)| match margin > 0.0 {
                true => self.executed_radius(model, label, &mut room),
                false => 0.0,
            });
            Row {
                prediction: predicted_class(logits),
                margin,
                nominal,
                nominal_pairwise: self.nominal_pairwise(logits, label).unwrap_or(nominal),
                real,
                executed: executed.collect(),
            }
        };
        logits.zip(labels).enumerate().map(row).collect()
    }

    /// Lower bounds of the margin and of the real-arithmetic radius of image `i` of a chunk; 0 where the label is not proven to be
    /// on top. The room keeps what the executed radii follow from.
    fn prove(
        &self,
        norms: &Norms,
        i: usize,
        logits: &[f64],
        label: usize,
        room: &mut Room,
    ) -> (f64, f64) {
        room.margins.clear();
        if !(is_correct(logits, label) && logits.iter().all(|y| y.is_finite())) {
            return (0.0, 0.0);
        }
        room.centre(&self.reference, norms, i);
        let Room { centre, margins, .. } = room;
        margins.extend(self.rivals(label).map(|j| self.margin(centre, logits, label, j)));
        if margins.iter().any(|m| m.is_nan() || *m <= 0.0) {
            return (0.0, 0.0);
        }
        let margin = margins.iter().copied().fold(f64::MAX, f64::min);
        let radius = |(j, m): (usize, &f64)| quotient_down(*m, self.logit_constant(label, j));
        (margin, self.rivals(label).zip(&*margins).map(radius).fold(f64::MAX, f64::min))
    }

    /// Class, margin and executed radius of image `i` of those that a workspace has evaluated; `model` is the place of its
    /// arithmetic.
    pub(crate) fn predict(
        &self,
        norms: &Norms,
        i: usize,
        logits: &[f64],
        model: usize,
        room: &mut Room,
    ) -> (usize, f64, f64) {
        let class = predicted_class(logits);
        let (margin, _) = self.prove(norms, i, logits, class, room);
        match margin > 0.0 {
            true => (class, margin, self.executed_radius(&self.models[model].1, class, room)),
            false => (class, 0.0, 0.0),
        }
    }

    pub(crate) fn engine(&self) -> &WideNetwork {
        &self.engine
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

    /// The radius of an image that was proven to be of its class, from what the proof left in `room`.
    fn executed_radius(&self, model: &ErrorModel, label: usize, room: &mut Room) -> f64 {
        let Room { centre, errors, margins, .. } = room;
        let ball = model.ball(centre, errors);
        let radius = |(j, m): (usize, &f64)| {
            let error = model.pair_error(self.bounds.head(), &ball, label, j);
            let rest = difference_down(*m, error.at_centre);
            if rest > 0.0 {
                quotient_down(rest, self.logit_constant(label, j) + error.slope)
            } else {
                0.0
            }
        };
        let radius = self.rivals(label).zip(&*margins).map(radius).fold(LARGEST_RADIUS, f64::min);
        if model.overflows(centre, radius, errors) { 0.0 } else { radius }
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

/// Norms of the signals of a chunk's images, rounded up: for each node those of all images.
#[derive(Debug, Default)]
pub(crate) struct Norms {
    n_images: usize,
    inputs: Vec<f64>,
    outputs: Vec<f64>,
}

/// Buffers for the proof of one image, which the next one reuses.
#[derive(Debug, Default)]
pub(crate) struct Room {
    measured: MeasuredNorms,
    centre: Centre,
    errors: Vec<Line>,
    margins: Vec<f64>,
}

impl Norms {
    /// Forgets everything but its buffers.
    pub(crate) fn clear(&mut self) {
        self.inputs.clear();
        self.outputs.clear();
    }

    fn of_image(&self, i: usize, into: &mut MeasuredNorms) {
        let pick = |from: &[f64], to: &mut Vec<f64>| {
            to.clear();
            to.extend(from.iter().skip(i).step_by(self.n_images));
        };
        pick(&self.inputs, &mut into.inputs);
        pick(&self.outputs, &mut into.outputs);
    }
}

impl SignalObserver for Norms {
    fn input(&mut self, idx: usize, signal: &[f64], n_images: usize) {
        self.n_images = n_images;
        let start = self.inputs.len();
        push_column_norms(signal, n_images, &mut self.inputs);
        // the second input of a layer that joins
        if idx * n_images < start {
            let (before, second) = self.inputs.split_at_mut(start);
            for (sum, &norm) in before[idx * n_images..].iter_mut().zip(&*second) {
                *sum = (Upper::new(*sum) + Upper::new(norm)).value();
            }
            self.inputs.truncate(start);
        }
    }

    fn output(&mut self, _: usize, signal: &[f64], n_images: usize) {
        push_column_norms(signal, n_images, &mut self.outputs);
    }
}

impl Room {
    /// What the f64 evaluation of image `i` says of the real function there.
    pub(crate) fn centre(&mut self, reference: &ErrorModel, norms: &Norms, i: usize) -> &Centre {
        norms.of_image(i, &mut self.measured);
        reference.centre(&self.measured, &mut self.errors, &mut self.centre);
        &self.centre
    }
}

/// Adds the norms of the columns of a features x images signal, rounded up.
fn push_column_norms(signal: &[f64], n_images: usize, norms: &mut Vec<f64>) {
    let start = norms.len();
    norms.resize(start + n_images, 0.0);
    let squares = &mut norms[start..];
    for row in signal.chunks_exact(n_images) {
        squares.iter_mut().zip(row).for_each(|(sum, v)| *sum += v * v);
    }
    let n = signal.len() / n_images;
    squares.iter_mut().for_each(|sum| *sum = norm_from_squares(*sum, n).value());
}
