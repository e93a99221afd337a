//! The radii that follow from layer bounds, norms and margins, in double the precision of f64.
//!
//! The formulas are those that [`rounding`](crate::rounding) and [`Certifier`](crate::Certifier) derive; this is an
//! evaluation of its own, from its own constants, with no rounding to speak of: every operation has a relative error of
//! 2^-100, and what comes out is widened or narrowed by 2^-80. A radius of the certificate, in which hundreds of operations
//! were rounded outwards in f64, must not exceed it.

use super::claims::LayerClaim;
use super::enclosure::Enclosure;
use super::network::{Affine, Inputs, Model};
use super::wide::Wide;

/// The constants of an arithmetic: see [`Arithmetic`](crate::Arithmetic).
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// f: what each factor of a product loses first.
    factor: f64,
    /// u: unit roundoff of products and sums.
    unit: f64,
    /// s: that of storing a layer's output.
    storage: f64,
    /// η: what an underflow loses.
    underflow: f64,
    largest: f64,
    /// Whether values are stored in f32.
    pub(super) narrow: bool,
    /// Whether its sums are blocked.
    blocked: bool,
}

impl Machine {
    /// q: most roundings of a product in a sum of n products and a bias.
    fn roundings(self, n: usize) -> usize {
        if self.blocked { n.min(128 + n.div_ceil(128)) + 1 } else { n + 1 }
    }

    /// γ: what a sum of n products and a bias loses, relatively; None where (n + 1) u exceeds 1/4.
    fn gamma(self, n: usize) -> Option<Wide> {
        let of_sum = gamma(self.roundings(n), self.unit)?;
        let factors = Wide::from((2.0 + self.factor) * self.factor);
        Some(factors + of_sum + factors * of_sum)
    }

    /// The arithmetic of this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (single, double) = (f64::from(f32::EPSILON) / 2.0, f64::EPSILON / 2.0);
        let f32s = |unit, storage, blocked| Self {
            factor: 0.0,
            unit,
            storage,
            underflow: f64::from(f32::MIN_POSITIVE),
            largest: f64::from(f32::MAX),
            narrow: true,
            blocked,
        };
        Some(match name {
            "tf32" => Self { factor: 0.5f64.powi(10), ..f32s(0.5f64.powi(22), 0.0, false) },
            "f32" => f32s(single, 0.0, false),
            "f32_blocked" => f32s(single, 0.0, true),
            "f32_accumulate_f64" => f32s(double, single, false),
            "f64" => Self {
                factor: 0.0,
                unit: double,
                storage: 0.0,
                underflow: f64::MIN_POSITIVE,
                largest: f64::MAX,
                narrow: false,
                blocked: false,
            },
            _ => return None,
        })
    }
}

/// Where an honest claim lies: at most the ceiling, which is what holds, and at least the floor, which is what
/// evaluation in f64 with outward rounding reaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) floor: Wide,
    pub(super) ceiling: Wide,
}

const LARGEST: Wide = Wide::exactly(f64::MAX);

/// What an honest claim may lose by rounding outwards in f64, relatively, besides what it loses by cancellation.
const TOLERANCE: f64 = 1e-9;

impl Range {
    /// x / y for x in a range.
    fn of_quotients(least: Wide, most: Wide, y: Wide) -> Self {
        let keep = Wide::from(1.0 - TOLERANCE);
        Self { floor: quotient(least, y) * keep, ceiling: quotient(most, y) }
    }
}

/// value at the centre + slope · radius.
#[derive(Debug, Clone, Copy)]
struct Line {
    at: Wide,
    slope: Wide,
}

impl Line {
    const ZERO: Self = Self { at: Wide::ZERO, slope: Wide::ZERO };

    fn constant(at: Wide) -> Self {
        Self { at, slope: Wide::ZERO }
    }

    fn plus(self, other: Self) -> Self {
        Self { at: self.at + other.at, slope: self.slope + other.slope }
    }

    fn times(self, factor: Wide) -> Self {
        Self { at: self.at * factor, slope: self.slope * factor }
    }

    /// At least √(self² + other²).
    fn beside(self, other: Self) -> Self {
        Self { at: beside(self.at, other.at), slope: beside(self.slope, other.slope) }
    }
}

/// √(a² + b²).
fn beside(a: Wide, b: Wide) -> Wide {
    (a * a + b * b).sqrt()
}

/// What is known of the inputs of a layer, put together.
fn joined<T: Copy>(
    inputs: Inputs,
    image: T,
    of: impl Fn(usize) -> T,
    sum: impl Fn(T, T) -> T,
    side_by_side: impl Fn(T, T) -> T,
) -> T {
    let one = |input: Option<usize>| input.map_or(image, &of);
    match inputs {
        Inputs::One(input) => one(input),
        Inputs::Sum(a, b) => sum(one(a), one(b)),
        Inputs::SideBySide(a, b) => side_by_side(one(a), one(b)),
    }
}

/// What the formulas need of a network besides an image.
#[derive(Debug)]
pub(super) struct Constants<'a> {
    layers: &'a [LayerClaim],
    inputs: Vec<Inputs>,
    /// How fast input and output of each layer move with the image.
    slopes: Vec<(Wide, Wide)>,
    n_classes: usize,
    head: Option<Head>,
    /// √2 times the network's.
    global: Wide,
    /// That of the last layer's input.
    before_last: Wide,
}

/// Pairs of rows of a head.
#[derive(Debug)]
struct Head {
    difference: Vec<Wide>,
    absolute_sum: Vec<Wide>,
    bias: Vec<Wide>,
}

impl<'a> Constants<'a> {
    pub(super) fn new(model: &Model, layers: &'a [LayerClaim]) -> Self {
        let (inputs, _) = model.graph();
        let mut slopes: Vec<(Wide, Wide)> = Vec::with_capacity(layers.len());
        for (layer, &inputs) in layers.iter().zip(&inputs) {
            let before = joined(inputs, Wide::ONE, |i| slopes[i].1, |a, b| a + b, beside);
            slopes.push((before, before * Wide::from(layer.lipschitz)));
        }
        let (before_last, network) = slopes.last().copied().unwrap_or((Wide::ONE, Wide::ONE));
        Self {
            layers,
            inputs,
            slopes,
            n_classes: model.n_classes,
            head: model.head().map(Head::new),
            global: (network * Wide::from(2.0).sqrt()).widened(),
            before_last: before_last.widened(),
        }
    }

    /// L_tj: how fast the difference of two logits moves with the image.
    fn speed(&self, t: usize, j: usize) -> Wide {
        let Some(head) = &self.head else { return self.global };
        self.global.min((self.before_last * head.difference[t * self.n_classes + j]).widened())
    }

    fn rivals(&self, t: usize) -> impl Iterator<Item = usize> {
        (0..self.n_classes).filter(move |&j| j != t)
    }

    /// A lower bound of `y_t - y_j`.
    fn gap(enclosure: &Enclosure, t: usize, j: usize) -> Wide {
        let error = enclosure.logit_error + enclosure.logit_error;
        enclosure.logits[t] - enclosure.logits[j] - error.widened()
    }

    /// The margin of the exact function.
    pub(super) fn margin(&self, enclosure: &Enclosure, t: usize) -> Option<Range> {
        let doubt = self.doubts(enclosure, t)?;
        Some(self.least(t, |j| {
            let most = Self::gap(enclosure, t, j);
            Range { floor: most - doubt(j), ceiling: most }
        }))
    }

    /// The real-arithmetic radius.
    pub(super) fn real_radius(&self, enclosure: &Enclosure, t: usize) -> Option<Range> {
        let doubt = self.doubts(enclosure, t)?;
        Some(self.least(t, |j| {
            let gap = Self::gap(enclosure, t, j);
            Range::of_quotients(gap - doubt(j), gap, self.speed(t, j))
        }))
    }

    /// The executed radius; None where a dot product is too long for the model of rounding.
    pub(super) fn executed_radius(
        &self,
        enclosure: &Enclosure,
        machine: Machine,
        t: usize,
    ) -> Option<Range> {
        let doubt = self.doubts(enclosure, t)?;
        let errors = self.errors(enclosure, machine)?;
        Some(self.least(t, |j| {
            let error = self.pair_error(&errors, machine, t, j);
            let rest = Self::gap(enclosure, t, j).narrowed() - error.at.widened();
            let doubt = doubt(j) + error.at * Wide::from(TOLERANCE);
            Range::of_quotients(rest - doubt, rest, (self.speed(t, j) + error.slope).widened())
        }))
    }

    /// By how much the claimed lower bound of `y_t - y_j` may fall short of the exact difference: twice the error of an
    /// evaluation in f64, once for its value and once for the bound of it, and a little.
    fn doubts(&self, enclosure: &Enclosure, t: usize) -> Option<impl Fn(usize) -> Wide> {
        let machine = Machine::named("f64")?;
        let errors = self.errors(enclosure, machine)?;
        Some(move |j| self.pair_error(&errors, machine, t, j).at * Wide::from(2.1))
    }

    fn least(&self, t: usize, range: impl Fn(usize) -> Range) -> Range {
        let rivals = self.rivals(t).map(range);
        rivals.fold(Range { floor: LARGEST, ceiling: LARGEST }, |least, range| Range {
            floor: least.floor.min(range.floor),
            ceiling: least.ceiling.min(range.ceiling),
        })
    }

    /// Whether nothing overflows for an image at this distance.
    pub(super) fn stays_finite(
        &self,
        enclosure: &Enclosure,
        machine: Machine,
        radius: f64,
    ) -> bool {
        let Some(errors) = self.errors(enclosure, machine) else { return false };
        let two = Wide::from(2.0);
        self.layers.iter().zip(&errors).all(|(layer, e)| {
            let executed = e.input.plus(e.input_error);
            let input = executed.at + executed.slope * Wide::from(radius);
            let sum = input * Wide::from(layer.lipschitz) + Wide::from(layer.bias_norm);
            let peak = (sum * two + e.lost).widened();
            peak.is_finite() && peak < Wide::from(machine.largest)
        })
    }

    fn errors(&self, enclosure: &Enclosure, machine: Machine) -> Option<Vec<LayerError>> {
        let mut all: Vec<LayerError> = Vec::with_capacity(self.layers.len());
        for (i, layer) in self.layers.iter().enumerate() {
            let inputs = self.inputs[i];
            let error =
                joined(inputs, Line::ZERO, |i| all[i].output_error, Line::plus, Line::beside);
            let (before, slope) = self.slopes[i];
            let input = Line { at: enclosure.inputs[i], slope: before };
            let output = Line { at: enclosure.outputs[i], slope };
            if let Inputs::SideBySide(..) = inputs {
                all.push(LayerError::of_concatenation(input, error, output));
                continue;
            }
            let gamma = machine.gamma(layer.dot_length)?;
            let executed = input.plus(error).times(Wide::from(layer.absolute_norm));
            let rounding = executed.plus(Line::constant(Wide::from(layer.bias_norm))).times(gamma);
            let sum_error = error.times(Wide::from(layer.lipschitz)).plus(rounding);
            let s = Wide::from(machine.storage);
            let terms = Wide::from((4 * layer.dot_length + 2) as f64);
            let one_lost = terms * Wide::from(machine.underflow);
            let lost = one_lost * Wide::from(layer.n_outputs as f64).sqrt();
            let stored = sum_error.times(Wide::ONE + s).plus(output.times(s));
            let output_error = stored.plus(Line::constant(lost));
            all.push(LayerError {
                input,
                input_error: error,
                output,
                sum_error,
                output_error,
                gamma,
                one_lost,
                lost,
            });
        }
        Some(all)
    }

    /// E_tj.
    fn pair_error(&self, errors: &[LayerError], machine: Machine, t: usize, j: usize) -> Line {
        let root2 = Wide::from(2.0).sqrt();
        let Some(last) = errors.last() else { return Line::ZERO };
        let Some(head) = &self.head else { return last.output_error.times(root2) };
        let pair = t * self.n_classes + j;
        let executed = last.input.plus(last.input_error).times(head.absolute_sum[pair]);
        let rounding = executed.plus(Line::constant(head.bias[t] + head.bias[j])).times(last.gamma);
        let through = last.input_error.times(head.difference[pair]);
        let storing = last.output.plus(last.sum_error).times(Wide::from(machine.storage) * root2);
        let lost = Line::constant(last.one_lost + last.one_lost);
        through.plus(rounding).plus(storing).plus(lost)
    }
}

/// The errors of one layer over the ball.
#[derive(Debug, Clone, Copy)]
struct LayerError {
    input: Line,
    input_error: Line,
    output: Line,
    sum_error: Line,
    output_error: Line,
    gamma: Wide,
    /// τ of one output, and √m τ.
    one_lost: Wide,
    lost: Wide,
}

impl LayerError {
    /// Nothing is computed.
    fn of_concatenation(input: Line, error: Line, output: Line) -> Self {
        Self {
            input,
            input_error: error,
            output,
            sum_error: error,
            output_error: error,
            gamma: Wide::ZERO,
            one_lost: Wide::ZERO,
            lost: Wide::ZERO,
        }
    }
}

impl Head {
    fn new(affine: &Affine) -> Self {
        let rows = || affine.weight.chunks_exact(affine.n_terms);
        let pairs = |square: fn(f64, f64) -> Wide| -> Vec<Wide> {
            let norm = |a: &[f64], b: &[f64]| {
                a.iter().zip(b).map(|(&a, &b)| square(a, b)).sum::<Wide>().sqrt().widened()
            };
            rows().flat_map(|a| rows().map(move |b| norm(a, b))).collect()
        };
        let difference = |a: f64, b: f64| Wide::sum_of(a, -b) * Wide::sum_of(a, -b);
        let sum = |a: f64, b: f64| Wide::sum_of(a.abs(), b.abs()) * Wide::sum_of(a.abs(), b.abs());
        Self {
            difference: pairs(difference),
            absolute_sum: pairs(sum),
            bias: affine.bias.iter().map(|b| Wide::from(b.abs())).collect(),
        }
    }
}

/// n u / (1 - n u); None where n u exceeds 1/4.
fn gamma(n: usize, unit: f64) -> Option<Wide> {
    let nu = Wide::product_of(n as f64, unit);
    (nu <= Wide::from(0.25)).then(|| nu / (Wide::ONE - nu))
}

/// At most x / y; nothing below 0, and no end where y = 0.
fn quotient(x: Wide, y: Wide) -> Wide {
    if x <= Wide::ZERO || !x.is_finite() {
        return Wide::ZERO;
    }
    if y == Wide::ZERO { Wide::from(f64::MAX) } else { (x / y).narrowed() }
}

/// At least ‖b‖₂ with the bias repeated for every pixel.
pub(super) fn bias_norm(affine: &Affine) -> Wide {
    let sum: Wide = affine.bias.iter().map(|&b| Wide::product_of(b, b)).sum();
    (sum * Wide::from(affine.n_pixels as f64)).sqrt()
}
