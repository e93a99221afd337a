//! The exact logits and norms of a network at an image, to more digits than f64 holds.
//!
//! Definition: a value is kept as a pair hi + lo of f64, of which hi = top + bottom is split at 29 bits, and `rest = bottom + lo`; a
//! weight as w = v + r with v its rounding to 24 bits (r = 0 for weights stored in f32). A dot product is
//!
//! ```text
//! Σ v·top   exactly, as s + Σ e           (24 + 29 = 53 bits; e is the error of a sum of two f64, itself a f64)
//! c = Σ (e + v·rest + r·hi)                in f64
//! ```
//!
//! and its value s + c. With T = Σ |w| |a| and n ≤ 2^22 terms: |e| ≤ 1.1 u T for each of the n sums, |v·rest| sum up to at most
//! 2^-28·1.1 T, |r·hi| to 2^-24·1.1 T. The f64 sum c of 3n such terms errs by at most 3nu times that, the products by u
//! times that, rest by 2^-81 T, and r·lo ≤ 2^-77 T is left out. In all the error is at most n·2^-77 T for weights in f32
//! and n·2^-73 T for weights in f64, plus n·1e-300 for underflow.
//!
//! The error of a layer's input adds `max_o Σ_t |w[o, t]|` times itself: errors are bounded in the maximum norm, for which
//! all activations are 1-Lipschitz (comparisons of pairs are exact). What f64 evaluation knows to 1e-13 is known here to about 1e-20.
//!
//! A sum of two signals adds their errors; it and a product with a slope of a leaky ReLU have a relative error of 2^-100 each, for which
//! 2^-95 of the largest value is added.
//!
//! Shapes: features x [`LANES`] images at a time. Cost: about ten operations for each product of the network.

use std::collections::BTreeMap;

use super::network::{Affine, Layer, Model};
use super::wide::{Wide, two_sum};

/// Images that go through the network together.
pub(super) const LANES: usize = 8;

type Lanes = [f64; LANES];

/// What is known of one image.
#[derive(Debug)]
pub(super) struct Enclosure {
    pub(super) logits: Vec<Wide>,
    /// At least the error of every logit.
    pub(super) logit_error: Wide,
    /// At least the norm of the input of every affine layer, and of its output.
    pub(super) inputs: Vec<Wide>,
    pub(super) outputs: Vec<Wide>,
}

/// The layers with what the pass needs of their weights.
#[derive(Debug)]
pub(super) struct Evaluator<'a> {
    model: &'a Model,
    splits: Vec<Split>,
}

/// The weights of an affine layer, split.
#[derive(Debug)]
struct Split {
    top: Vec<f64>,
    /// Empty where all are 0.
    rest: Vec<f64>,
    /// max_o Σ_t |w[o, t]|, rounded up.
    row_sum: f64,
    largest_bias: f64,
    /// n·2^-77 or n·2^-73.
    roundoff: f64,
}

/// The sums of the norms of two signals.
fn sum_of_norms(a: &Signal, b: &Signal) -> [Wide; LANES] {
    let (a, b) = (a.norms(), b.norms());
    std::array::from_fn(|lane| (a[lane] + b[lane]).widened())
}

/// 2^-95.
const JOINING: f64 = 1.0 / (1u128 << 95) as f64;

/// Values hi + lo of several images and a bound of their errors.
#[derive(Debug, Clone)]
struct Signal {
    hi: Vec<Lanes>,
    lo: Vec<Lanes>,
    error: Lanes,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        let splits = model.affine().map(|affine| Split::new(affine, model.stored_in_f64)).collect();
        Self { model, splits }
    }

    /// Encloses up to [`LANES`] images.
    pub(super) fn enclose(&self, images: &[&[f64]]) -> Vec<Enclosure> {
        let mut signal = Signal::new(images, self.model.input.n_values());
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut splits = self.splits.iter();
        let recalled = self.model.recalled();
        let mut kept: BTreeMap<usize, Signal> = BTreeMap::new();
        for (i, layer) in self.model.layers.iter().enumerate() {
            if recalled.contains(&i) {
                kept.insert(i, signal.clone());
            }
            match layer {
                Layer::Affine(affine) => {
                    let split = splits.next().expect("one for each affine layer");
                    inputs.push(signal.norms());
                    signal = signal.apply(affine, split);
                    outputs.push(signal.norms());
                }
                Layer::MaxMin => signal.max_min(),
                Layer::GroupSort { group, n_pixels } => signal.group_sort(*group, *n_pixels),
                Layer::Relu => signal.relu(),
                Layer::Flatten => {}
                Layer::Recall { from } => signal = kept[from].clone(),
                Layer::Leaky { slope, .. } => {
                    inputs.push(signal.norms());
                    signal.leak(*slope);
                    outputs.push(signal.norms());
                }
                Layer::Add { from, .. } => {
                    inputs.push(sum_of_norms(&kept[from], &signal));
                    signal.add(&kept[from]);
                    outputs.push(signal.norms());
                }
                Layer::Concat { from, .. } => {
                    inputs.push(sum_of_norms(&kept[from], &signal));
                    signal.put_behind(&kept[from]);
                    outputs.push(signal.norms());
                }
            }
        }
        let image = |lane: usize| Enclosure {
            logits: (0..signal.hi.len()).map(|i| signal.value(i, lane)).collect(),
            logit_error: Wide::from(signal.error[lane]),
            inputs: inputs.iter().map(|norms| norms[lane]).collect(),
            outputs: outputs.iter().map(|norms| norms[lane]).collect(),
        };
        (0..images.len()).map(image).collect()
    }
}

impl Split {
    fn new(affine: &Affine, stored_in_f64: bool) -> Self {
        let top: Vec<f64> = affine.weight.iter().map(|&w| leading::<29>(w)).collect();
        let rest: Vec<f64> = affine.weight.iter().zip(&top).map(|(w, v)| w - v).collect();
        let rest = if rest.iter().all(|&r| r == 0.0) { Vec::new() } else { rest };
        let rows = affine.weight.chunks_exact(affine.n_terms);
        let row_sum = rows.map(|row| row.iter().map(|w| w.abs()).sum::<f64>()).fold(0.0, f64::max);
        let n = affine.n_terms as f64;
        let bits = if stored_in_f64 { 73 } else { 77 };
        Self {
            top,
            rest,
            row_sum: row_sum * (1.0 + n * f64::EPSILON),
            largest_bias: affine.bias.iter().fold(0.0, |b, v| v.abs().max(b)),
            roundoff: n / (1u128 << bits) as f64,
        }
    }
}

/// v without its last `BITS` bits: rounded to 53 - BITS (Veltkamp 1968).
fn leading<const BITS: u32>(v: f64) -> f64 {
    let scaled = v * ((1u64 << BITS) + 1) as f64;
    scaled - (scaled - v)
}

impl Signal {
    fn new(images: &[&[f64]], n_values: usize) -> Self {
        let value = |i: usize, lane: usize| images.get(lane).map_or(0.0, |image| image[i]);
        let hi = (0..n_values).map(|i| std::array::from_fn(|lane| value(i, lane))).collect();
        Self { hi, lo: vec![[0.0; LANES]; n_values], error: [0.0; LANES] }
    }

    fn value(&self, i: usize, lane: usize) -> Wide {
        Wide::sum_of(self.hi[i][lane], self.lo[i][lane])
    }

    /// Upper bounds of the norms of the exact values.
    fn norms(&self) -> [Wide; LANES] {
        let spread = Wide::from(self.hi.len() as f64).sqrt();
        std::array::from_fn(|lane| {
            let square = |i: usize| self.value(i, lane) * self.value(i, lane);
            let norm = (0..self.hi.len()).map(square).sum::<Wide>().sqrt();
            (norm + spread * Wide::from(self.error[lane])).widened()
        })
    }

    fn apply(&self, affine: &Affine, split: &Split) -> Self {
        let (top, rest) = self.split();
        let n_outputs = affine.n_rows * affine.n_pixels;
        let (mut hi, mut lo) = (Vec::with_capacity(n_outputs), Vec::with_capacity(n_outputs));
        for row in 0..affine.n_rows {
            let weights = row * affine.n_terms..(row + 1) * affine.n_terms;
            let tops = &split.top[weights.clone()];
            let group = row * affine.n_groups / affine.n_rows;
            let table = affine.n_pixels * affine.n_terms;
            let sources = &affine.source[group * table..(group + 1) * table];
            for source in sources.chunks_exact(affine.n_terms) {
                let mut sum = [affine.bias[row]; LANES];
                let mut correction = [0.0; LANES];
                for (&w, &from) in tops.iter().zip(source) {
                    let (top, rest) = (&top[from as usize], &rest[from as usize]);
                    for lane in 0..LANES {
                        let (s, e) = two_sum(sum[lane], w * top[lane]);
                        sum[lane] = s;
                        correction[lane] += e + w * rest[lane];
                    }
                }
                if !split.rest.is_empty() {
                    for (&w, &from) in split.rest[weights.clone()].iter().zip(source) {
                        let values = self.hi.get(from as usize).unwrap_or(&[0.0; LANES]);
                        (0..LANES).for_each(|lane| correction[lane] += w * values[lane]);
                    }
                }
                let pairs: [(f64, f64); LANES] =
                    std::array::from_fn(|lane| two_sum(sum[lane], correction[lane]));
                hi.push(pairs.map(|(s, _)| s));
                lo.push(pairs.map(|(_, e)| e));
            }
        }
        Self { hi, lo, error: self.error_after(affine, split) }
    }

    fn error_after(&self, affine: &Affine, split: &Split) -> Lanes {
        std::array::from_fn(|lane| {
            let largest = self.hi.iter().fold(0.0, |most, v| v[lane].abs().max(most));
            let carried = split.row_sum * self.error[lane];
            let own = split.roundoff * (split.row_sum * largest + split.largest_bias);
            // a few roundings of non-negative numbers
            (carried + own) * (1.0 + 32.0 * f64::EPSILON) + affine.n_terms as f64 * 1e-300
        })
    }

    /// The leading 29 bits of every hi, and the rest; behind them a 0 for what is outside of an image.
    fn split(&self) -> (Vec<Lanes>, Vec<Lanes>) {
        let mut top: Vec<Lanes> = self.hi.iter().map(|hi| hi.map(leading::<24>)).collect();
        let rest = |i: usize| {
            std::array::from_fn(|lane| (self.hi[i][lane] - top[i][lane]) + self.lo[i][lane])
        };
        let mut rest: Vec<Lanes> = (0..self.hi.len()).map(rest).collect();
        top.push([0.0; LANES]);
        rest.push([0.0; LANES]);
        (top, rest)
    }

    fn max_min(&mut self) {
        let half = self.hi.len() / 2;
        for i in 0..half {
            for lane in 0..LANES {
                if self.value(i, lane) < self.value(i + half, lane) {
                    self.swap(i, i + half, lane);
                }
            }
        }
    }

    fn group_sort(&mut self, group: usize, n_pixels: usize) {
        let n_groups = self.hi.len() / (group * n_pixels);
        for (g, pixel) in (0..n_groups).flat_map(|g| (0..n_pixels).map(move |p| (g, p))) {
            let at = |member: usize| (g * group + member) * n_pixels + pixel;
            for lane in 0..LANES {
                // insertion sort, ascending
                for end in 1..group {
                    let mut i = end;
                    while i > 0 && self.value(at(i), lane) < self.value(at(i - 1), lane) {
                        self.swap(at(i), at(i - 1), lane);
                        i -= 1;
                    }
                }
            }
        }
    }

    fn relu(&mut self) {
        for (hi, lo) in self.hi.iter_mut().zip(&mut self.lo) {
            for lane in 0..LANES {
                if hi[lane] < 0.0 {
                    (hi[lane], lo[lane]) = (0.0, 0.0);
                }
            }
        }
    }

    /// Values below 0 times the slope.
    fn leak(&mut self, slope: f64) {
        for i in 0..self.hi.len() {
            for lane in 0..LANES {
                if self.hi[i][lane] < 0.0 {
                    let product = self.value(i, lane) * Wide::from(slope);
                    (self.hi[i][lane], self.lo[i][lane]) = product.parts();
                }
            }
        }
        let largest = self.largest();
        for (error, largest) in self.error.iter_mut().zip(largest) {
            *error = (*error * slope.abs().max(1.0) + JOINING * largest)
                * (1.0 + 8.0 * f64::EPSILON)
                + 1e-300;
        }
    }

    fn add(&mut self, other: &Self) {
        let before = self.largest().into_iter().zip(other.largest());
        let before: Vec<f64> = before.map(|(a, b)| a + b).collect();
        for i in 0..self.hi.len() {
            for lane in 0..LANES {
                let sum = self.value(i, lane) + other.value(i, lane);
                (self.hi[i][lane], self.lo[i][lane]) = sum.parts();
            }
        }
        for (lane, largest) in before.into_iter().enumerate() {
            let error = self.error[lane] + other.error[lane] + JOINING * largest;
            self.error[lane] = error * (1.0 + 8.0 * f64::EPSILON) + 1e-300;
        }
    }

    /// `other` first, then this.
    fn put_behind(&mut self, other: &Self) {
        self.hi.splice(0..0, other.hi.iter().copied());
        self.lo.splice(0..0, other.lo.iter().copied());
        for lane in 0..LANES {
            self.error[lane] = self.error[lane].max(other.error[lane]);
        }
    }

    /// The largest absolute value, about.
    fn largest(&self) -> Lanes {
        let largest =
            |lane: usize| self.hi.iter().fold(0.0, |most: f64, v| v[lane].abs().max(most)) * 1.001;
        std::array::from_fn(largest)
    }

    fn swap(&mut self, i: usize, j: usize, lane: usize) {
        (self.hi[i][lane], self.hi[j][lane]) = (self.hi[j][lane], self.hi[i][lane]);
        (self.lo[i][lane], self.lo[j][lane]) = (self.lo[j][lane], self.lo[i][lane]);
    }
}
