//! Rounding errors of a whole network: how far the executed function can be from the real one.
//!
//! # Setting
//! Affine layer i maps `a_{i-1}` to `z_i = W_i a_{i-1} + b_i`, the activation to `a_i = φ_i(z_i)`. The φ_i (MaxMin,
//! GroupSort, ReLU), downsampling, padding and flattening only compare and move values: they are exact in any
//! arithmetic, 1-Lipschitz and do not increase the norm. Hats denote executed values. Constants of a layer
//! ([`LayerBound`]): `K ≥ ‖W‖₂`, `A ≥ ‖|W|‖₂`, `B ≥ ‖b‖₂`, n = length of the dot products, m = number of outputs.
//! Constants of an arithmetic ([`Arithmetic`]): u of products and sums, s of storing, η of underflow.
//!
//! # One layer
//! A dot product with its bias is a sum of n products and b, each of which passes through at most q roundings: n + 1 in any order of
//! summation, `min(n, 128 + ⌈n / 128⌉) + 1` with blocked sums ([`Arithmetic`]). So (Higham, lemma 3.1)
//!
//! ```text
//! |fl(W â + b) - (W â + b)| ≤ γ (|W| |â| + |b|) + τ,   γ = γ_q = q u / (1 - q u)
//! ```
//!
//! entry by entry. Where the factors lose a part f first, `γ = (1 + f)² (1 + γ_q) - 1`. τ collects underflow: n products and n sums lose at most η each, what is lost is magnified
//! by at most 1 + γ ≤ 2, and storing may lose one more η: `τ ≤ (4n + 2) η`. Rounding to the storage format adds a
//! relative error s. In norms, with `‖ |W| |â| ‖ ≤ A ‖â‖` and `‖â‖ ≤ ‖a‖ + ‖â - a‖`, the error
//! `D_i ≥ ‖ẑ_i - z_i‖₂ ≥ ‖â_i - a_i‖₂` obeys
//!
//! ```text
//! S_i = K_i D_{i-1} + γ_i (A_i (R_{i-1} + D_{i-1}) + B_i)          error of the sum before it is stored
//! D_i = (1 + s) S_i + s Z_i + √m τ_i,      D_0 = 0,
//! ```
//!
//! where `R_i ≥ ‖a_i‖₂` and `Z_i ≥ ‖z_i‖₂`: the stored number is v(1 + δ) with `‖v - z‖ ≤ S` and `‖v‖ ≤ Z + S`.
//! `D_0 = 0` because the perturbation is that of the image handed to the network, in its storage format.
//!
//! # Layers that join, and slopes
//! A sum of two signals is a dot product of two terms with weights 1: D_{i-1}, R_{i-1} and P_{i-1} are the sums of theirs, K = A = 1, B = 0, n = 1.
//! A concatenation rounds nothing and stores nothing; all three are √(x² + y²), which for x = x₀ + x₁ r and y = y₀ + y₁ r is at most
//! `√(x₀² + y₀²) + √(x₁² + y₁²) r` by Minkowski's inequality. A leaky ReLU is one product: K = A = max(1, |slope|), B = 0, n = 0.
//!
//! # At the centre
//! The certificate evaluates the network at the image x itself in f64. Its own error e_i obeys the same
//! recurrence with the *measured* `‖â_{i-1}‖` in place of `R + D`, and `‖a_i(x)‖ ≤ ‖â_i‖ + e_i`: every norm below is
//! a measured one plus an error of order 1e-13, not a product of layer norms.
//!
//! # Over the ball of radius r about x
//! `R_i(r) = ‖a_i(x)‖ + P_i r` and `Z_i(r) = ‖z_i(x)‖ + P_i r` with `P_i = Π_{l≤i} K_l`. All of the above is affine in r
//! with non-negative coefficients, so the pair (value at r = 0, slope) is carried through the recurrence.
//!
//! # The last layer
//! For a head (last layer dense, nothing after it) the executed difference of the logits of t and j differs
//! from the real one by at most
//!
//! ```text
//! E_tj = ‖w_t - w_j‖ D_{L-1} + γ_L (‖|w_t| + |w_j|‖ (R_{L-1} + D_{L-1}) + |b_t| + |b_j|) + √2 s (Z_L + S_L) + 2 τ_L,
//! ```
//!
//! by the same argument for two rows (`|v_t| + |v_j| ≤ √2 ‖v‖`); otherwise by `√2 D_L`.
//!
//! # Guarantee
//! Upper bounds for every order of summation (in `F32Blocked`: within the blocks), with fused multiply-add or without, with gradual underflow or
//! results flushed to zero, provided that nothing overflows (checked for every radius before it is reported: in any
//! order a partial sum is at most `2 (K (R + D) + B) + τ`) and that (n + 1) u ≤ 1/4 (checked for every layer).
//! Evaluated with every operation rounded up.
//!
//! Source: the recurrence is that of Murray, arXiv 2603.13334, for dense ReLU networks; here for convolutions,
//! mixed precision, measured centre norms and pairs of logits.

use crate::arithmetic::Arithmetic;
use crate::bounds::{Head, Joint, LayerBound, NetworkBounds, quadrature};
use crate::error::{Error, Result};
use crate::upper::{Upper, gamma};

/// A bound that is affine in the radius r of the ball: `at_centre + slope · r`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) at_centre: Upper,
    pub(crate) slope: Upper,
}

/// Norms that the f64 evaluation measured for one image, rounded up: of the executed values.
#[derive(Debug, Clone, Default)]
pub(crate) struct MeasuredNorms {
    /// ‖â_{i-1}‖ entering layer i; of a sum of signals the sum of their norms.
    pub(crate) inputs: Vec<f64>,
    /// ‖ẑ_i‖ leaving it.
    pub(crate) outputs: Vec<f64>,
}

/// Bounds of the real activations at one image, and of the f64 evaluation's own error there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Centre {
    /// ‖a_{i-1}(x)‖ and ‖z_i(x)‖ of the real function.
    inputs: Vec<Upper>,
    outputs: Vec<Upper>,
    /// ‖â_{L-1}‖ as measured and its error e_{L-1}.
    last_input: Upper,
    last_input_error: Upper,
    /// e_L, the error of the logits.
    output_error: Upper,
}

/// The constants of one layer in one arithmetic.
#[derive(Debug, Clone, Copy)]
struct LayerModel {
    k: Upper,
    a: Upper,
    b: Upper,
    gamma: Upper,
    /// √m τ.
    tau: Upper,
    /// P_{i-1} and P_i: how fast its input and its output move with the image.
    slope_before: Upper,
    slope: Upper,
    /// s where its output is stored anew.
    s: Upper,
    joint: Joint,
}

/// The rounding model of a network in one arithmetic.
#[derive(Debug, Clone)]
pub(crate) struct ErrorModel {
    layers: Vec<LayerModel>,
    largest: Upper,
}

/// The executed error before the last layer, S_L and Z_L, and ‖a_{L-1}‖: all over the ball.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BallError {
    input: Line,
    input_error: Line,
    output: Line,
    sum_error: Line,
    output_error: Line,
}

impl Centre {
    /// e_L: the norm of the error of all logits.
    pub(crate) fn output_error(&self) -> Upper {
        self.output_error
    }
}

impl Line {
    fn constant(at_centre: Upper) -> Self {
        Self { at_centre, slope: Upper::ZERO }
    }

    fn plus(self, other: Self) -> Self {
        Self { at_centre: self.at_centre + other.at_centre, slope: self.slope + other.slope }
    }

    fn times(self, factor: Upper) -> Self {
        Self { at_centre: self.at_centre * factor, slope: self.slope * factor }
    }

    /// At least √(self² + other²) for every radius.
    fn beside(self, other: Self) -> Self {
        Self {
            at_centre: quadrature(self.at_centre, other.at_centre),
            slope: quadrature(self.slope, other.slope),
        }
    }

    /// The bound for a ball of radius `r`.
    fn at(self, r: Upper) -> Upper {
        self.at_centre + self.slope * r
    }
}

impl LayerModel {
    /// `K D + γ (A a + B)`: the error of the sum, from the error D of the input and the norm a of the executed
    /// input.
    fn sum_error(&self, error: Line, executed_input: Line) -> Line {
        let rounding = executed_input.times(self.a).plus(Line::constant(self.b)).times(self.gamma);
        error.times(self.k).plus(rounding)
    }

    /// The error of its input, from those of all layers before it.
    fn input_error(&self, errors: &[Line]) -> Line {
        self.joint.of(|i| errors[i], Line::constant(Upper::ZERO), Line::plus, Line::beside)
    }
}

impl ErrorModel {
    /// The model of the layers in `bounds`, executed in `arithmetic`.
    ///
    /// # Errors
    /// [`Error::DotTooLong`] when (n + 1) u exceeds 1/4.
    pub(crate) fn new(bounds: &NetworkBounds, arithmetic: Arithmetic) -> Result<Self> {
        let layers = bounds.layers().iter().zip(bounds.joints()).zip(bounds.slopes());
        let model = |((bound, joint), slopes): ((&LayerBound, &Joint), _)| {
            layer_model(bound, arithmetic, *joint, slopes)
        };
        let layers = layers.map(model).collect::<Result<Vec<_>>>()?;
        Ok(Self { layers, largest: Upper::new(arithmetic.largest()) })
    }

    /// The error of an evaluation in this model whose norms were `measured`, and bounds of the real norms.
    ///
    /// Meant for the f64 evaluation: s must be 0. `errors` is room for those of the layers, here and below.
    pub(crate) fn centre(
        &self,
        measured: &MeasuredNorms,
        errors: &mut Vec<Line>,
        centre: &mut Centre,
    ) {
        errors.clear();
        centre.inputs.clear();
        centre.outputs.clear();
        for (i, layer) in self.layers.iter().enumerate() {
            let input_error = layer.input_error(errors);
            centre.last_input = Upper::new(measured.inputs[i]);
            centre.last_input_error = input_error.at_centre;
            centre.inputs.push(centre.last_input + centre.last_input_error);
            let executed = Line::constant(centre.last_input);
            let error = layer.sum_error(input_error, executed).at_centre + layer.tau;
            errors.push(Line::constant(error));
            centre.outputs.push(Upper::new(measured.outputs[i]) + error);
            centre.output_error = error;
        }
    }

    /// The error of the executed network over balls about the image that `centre` describes.
    pub(crate) fn ball(&self, centre: &Centre, errors: &mut Vec<Line>) -> BallError {
        errors.clear();
        let zero = Line::constant(Upper::ZERO);
        let mut ball = BallError {
            input: zero,
            input_error: zero,
            output: zero,
            sum_error: zero,
            output_error: zero,
        };
        for (i, layer) in self.layers.iter().enumerate() {
            let input = Line { at_centre: centre.inputs[i], slope: layer.slope_before };
            let output = Line { at_centre: centre.outputs[i], slope: layer.slope };
            let input_error = layer.input_error(errors);
            let sum_error = layer.sum_error(input_error, input.plus(input_error));
            let output_error = sum_error
                .times(Upper::ONE + layer.s)
                .plus(output.times(layer.s))
                .plus(Line::constant(layer.tau));
            errors.push(output_error);
            ball = BallError { input, input_error, output, sum_error, output_error };
        }
        ball
    }

    /// E_tj: by how much the executed difference of two logits can be off, over the ball.
    pub(crate) fn pair_error(
        &self,
        head: Option<&Head>,
        ball: &BallError,
        t: usize,
        j: usize,
    ) -> Line {
        let root2 = Upper::new(2.0).sqrt();
        let (Some(head), Some(layer)) = (head, self.layers.last()) else {
            return ball.output_error.times(root2);
        };
        let executed = ball.input.plus(ball.input_error);
        let rounding =
            executed.times(head.absolute_sum(t, j)).plus(Line::constant(head.bias(t, j)));
        let storing = ball.output.plus(ball.sum_error).times(layer.s * root2);
        let through = ball.input_error.times(head.difference(t, j));
        let tau = Line::constant(layer.tau + layer.tau);
        through.plus(rounding.times(layer.gamma)).plus(storing).plus(tau)
    }

    /// The same for the f64 evaluation at the centre.
    pub(crate) fn centre_pair_error(
        &self,
        head: Option<&Head>,
        centre: &Centre,
        t: usize,
        j: usize,
    ) -> Upper {
        let (Some(head), Some(layer)) = (head, self.layers.last()) else {
            return centre.output_error * Upper::new(2.0).sqrt();
        };
        let rounding = head.absolute_sum(t, j) * centre.last_input + head.bias(t, j);
        let through = head.difference(t, j) * centre.last_input_error;
        through + rounding * layer.gamma + layer.tau + layer.tau
    }

    /// Whether a product or partial sum of the executed network could overflow for an image in the ball of
    /// radius `r`.
    ///
    /// In any order, a partial sum is at most `(1 + γ)(Σ |w| |â| + |b|) + τ ≤ 2 (K ‖â‖ + B) + τ`, since a row of W has
    /// norm at most K.
    pub(crate) fn overflows(&self, centre: &Centre, r: f64, errors: &mut Vec<Line>) -> bool {
        errors.clear();
        let r = Upper::new(r);
        let two = Upper::new(2.0);
        for (i, layer) in self.layers.iter().enumerate() {
            let input = Line { at_centre: centre.inputs[i], slope: layer.slope_before };
            let output = Line { at_centre: centre.outputs[i], slope: layer.slope };
            let error = layer.input_error(errors);
            let executed = input.plus(error);
            let peak = (executed.at(r) * layer.k + layer.b) * two + layer.tau;
            if !(peak.is_finite() && peak < self.largest) {
                return true;
            }
            let sum = layer.sum_error(error, executed);
            let error = sum.times(Upper::ONE + layer.s).plus(output.times(layer.s));
            errors.push(error.plus(Line::constant(layer.tau)));
        }
        false
    }
}

fn layer_model(
    bound: &LayerBound,
    arithmetic: Arithmetic,
    joint: Joint,
    (slope_before, slope): (Upper, Upper),
) -> Result<LayerModel> {
    if let Joint::Concat(_) = joint {
        let (k, a, b, gamma, tau, s) =
            (Upper::ONE, Upper::ZERO, Upper::ZERO, Upper::ZERO, Upper::ZERO, Upper::ZERO);
        return Ok(LayerModel { k, a, b, gamma, tau, slope_before, slope, s, joint });
    }
    let (n, u) = (bound.dot_length, arithmetic.unit_roundoff());
    let limit = (0.25 / u) as usize - 1;
    if n > limit {
        let (layer, arithmetic) = (bound.name.clone(), arithmetic.name());
        return Err(Error::DotTooLong { layer, length: n, arithmetic, limit });
    }
    let terms = Upper::new((4 * n + 2) as f64);
    // (1 + f)² (1 + γ_q) - 1 without the 1, which would be rounded
    let (f, of_sum) = (Upper::new(arithmetic.factor_roundoff()), gamma(arithmetic.roundings(n), u));
    let factors = f + f + f * f;
    let outputs = Upper::new(bound.n_outputs as f64).sqrt();
    Ok(LayerModel {
        k: Upper::new(bound.lipschitz),
        a: Upper::new(bound.absolute_norm),
        b: Upper::new(bound.bias_norm),
        gamma: factors + of_sum + factors * of_sum,
        tau: terms * outputs * Upper::new(arithmetic.underflow()),
        slope_before,
        slope,
        s: Upper::new(arithmetic.storage_roundoff()),
        joint,
    })
}

#[cfg(test)]
mod tests;
