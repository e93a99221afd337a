//! Lower bounds of the Wasserstein distance of two distributions, from a critic whose Lipschitz constant is bounded.
//!
//! Definition. By Kantorovich and Rubinstein, `W1(A, B) = sup E_A f - E_B f` over all f of Lipschitz constant at most 1 in
//! the Euclidean norm. A [`Critic`] is a network f of one output together with a rigorous bound `L ≥ Lip(f)`; with samples
//! x of A and y of B
//!
//! ```text
//! value = (mean f(x) - mean f(y) - ρ) / L,     ρ ≥ the rounding error of both means,
//! ```
//!
//! rounded down. Images must have the shape of the critic's input; their pixels may have any range.
//!
//! Guarantee, in two parts.
//! * `value` is at most the Wasserstein distance of the two *empirical* distributions, always: nothing in it is an estimate. Where
//!   the samples are the whole population, it bounds the distance itself.
//! * For samples that the critic was not trained on, drawn independently of each other, the expectation of `value` is at most
//!   `W1(A, B)`, and [`DualEstimate::standard_error`] says how far `value` is from it:
//!   `√(s_x²/n_x + s_y²/n_y) / L` with the sample variances s² of the critic's values, the samples of A being independent of
//!   those of B. Then [`DualEstimate::confidence_bound`] is below `W1(A, B)` with the confidence asked for, as far as the means are
//!   normal: asymptotically, which 6,400 samples are.
//!
//! A critic that was not trained well makes a small value, never a wrong one: multiplying it by a constant changes neither value
//! nor standard error.
//!
//! Arithmetic: the critic is evaluated in f64, whatever its weights are stored in and wherever they live: the exact real function
//! of the stored numbers up to ρ, which is about 1e-12. Batches are added one after another; nothing but sums is kept.
//!
//! Cost: the bounds of [`NetworkBounds`] once; an f64 forward pass of every image on the CPU.
//!
//! Errors: [`Error::NotACritic`] for a network of another number of outputs, those of [`NetworkBounds::new`],
//! [`Error::TooFewSamples`] where a variance needs more of them.
//!
//! Source: section 5.3 of the paper, which divides by nothing and takes the critic's constant on faith.

use candle_core::Tensor;
use lipconv::PlainNetwork;
use lipconv::wide::{Storage, WideNetwork};
use projectors::rounding::{add_down, add_up, div_down, div_up, sub_down};
use serde::{Deserialize, Serialize};

use crate::arithmetic::Arithmetic;
use crate::bounds::NetworkBounds;
use crate::certifier::{Norms, Room};
use crate::error::{Error, Result};
use crate::rounding::ErrorModel;
use crate::tensor::{check_finite, check_images, to_f64};
use crate::upper::Upper;

pub(crate) mod anchors;
pub(crate) mod distribution;
pub(crate) mod matching;
mod normal;

use normal::quantile;

/// A network of one output with a rigorous bound of its Lipschitz constant.
#[derive(Debug)]
pub struct Critic {
    engine: WideNetwork,
    bounds: NetworkBounds,
    model: ErrorModel,
}

/// The critic's values of a batch of images.
#[derive(Debug, Clone, PartialEq)]
pub struct CriticValues {
    /// One for each image, as evaluated.
    pub values: Vec<f64>,
    /// How far each can be from the value of the exact function.
    pub errors: Vec<f64>,
}

/// Sums over the samples of two distributions, batch after batch.
#[derive(Debug)]
pub struct DualEstimator<'a> {
    critic: &'a Critic,
    a: Sums,
    b: Sums,
}

/// A lower bound of a Wasserstein distance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DualEstimate {
    /// The dual objective of `f / L`, rounded down: a lower bound for the samples at hand.
    pub value: f64,
    /// Standard deviation of `value` over draws of independent samples, about.
    pub standard_error: f64,
    /// L, the rigorous bound of the critic's Lipschitz constant.
    pub lipschitz: f64,
    /// `mean f(x) - mean f(y)` as evaluated, not divided by L.
    pub mean_difference: f64,
    /// ρ, what was subtracted for rounding.
    pub rounding_error: f64,
    /// Samples of A.
    pub n_a: usize,
    /// Samples of B.
    pub n_b: usize,
}

impl Critic {
    /// The critic that `network` is, with bounds of its stored weights.
    ///
    /// # Errors
    /// [`Error::NotACritic`]; those of [`NetworkBounds::new`]; [`Error::DTypeMismatch`] for weights that are neither f32 nor f64, [`Error::DotTooLong`].
    pub fn new(network: &PlainNetwork) -> Result<Self> {
        if network.n_classes() != 1 {
            return Err(Error::NotACritic { n_outputs: network.n_classes() });
        }
        Arithmetic::of_dtype(network.dtype())?;
        let network = network.to_device(&candle_core::Device::Cpu)?;
        let engine = WideNetwork::new(&network)?;
        let bounds = NetworkBounds::of_engine(&network, &engine)?;
        let model = ErrorModel::new(&bounds, Arithmetic::F64)?;
        Ok(Self { engine, bounds, model })
    }

    /// The layer bounds whose product is L.
    #[must_use]
    pub fn bounds(&self) -> &NetworkBounds {
        &self.bounds
    }

    /// L.
    #[must_use]
    pub fn lipschitz(&self) -> f64 {
        self.bounds.lipschitz()
    }

    /// The critic's values of images (n x c x h x w, f32 or f64, on any device).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`]; [`Error::NonFinite`] for a NaN or an infinity in an image or in a value.
    pub fn evaluate(&self, images: &Tensor) -> Result<CriticValues> {
        check_images(images, self.engine.input())?;
        let pixels = to_f64(images)?;
        check_finite("the image", &pixels, self.engine.input().n_values())?;
        let chunks = self.engine.run::<Norms>(&pixels, Storage::F64);
        let mut result = CriticValues { values: Vec::new(), errors: Vec::new() };
        let mut room = Room::default();
        for chunk in &chunks {
            for (i, &value) in chunk.logits.iter().enumerate() {
                result.values.push(value);
                result
                    .errors
                    .push(room.centre(&self.model, &chunk.observed, i).output_error().value());
            }
        }
        check_finite("the critic's value", &result.values, 1)?;
        check_finite("the critic's rounding error", &result.errors, 1)?;
        Ok(result)
    }

    /// Begins an estimate.
    #[must_use]
    pub fn estimator(&self) -> DualEstimator<'_> {
        DualEstimator { critic: self, a: Sums::default(), b: Sums::default() }
    }

    /// The estimate from all samples at once, for those that fit in memory.
    ///
    /// # Errors
    /// As for [`Critic::evaluate`] and [`DualEstimator::finish`].
    pub fn estimate(&self, a: &Tensor, b: &Tensor) -> Result<DualEstimate> {
        let mut estimator = self.estimator();
        estimator.add_a(a)?;
        estimator.add_b(b)?;
        estimator.finish()
    }
}

impl DualEstimator<'_> {
    /// Adds images of distribution A.
    ///
    /// # Errors
    /// As for [`Critic::evaluate`].
    pub fn add_a(&mut self, images: &Tensor) -> Result<()> {
        self.a.add(&self.critic.evaluate(images)?);
        Ok(())
    }

    /// Adds images of distribution B.
    ///
    /// # Errors
    /// As for [`Critic::evaluate`].
    pub fn add_b(&mut self, images: &Tensor) -> Result<()> {
        self.b.add(&self.critic.evaluate(images)?);
        Ok(())
    }

    /// Samples of A and of B so far.
    #[must_use]
    pub fn n_samples(&self) -> (usize, usize) {
        (self.a.n, self.b.n)
    }

    /// The estimate from what was added.
    ///
    /// # Errors
    /// [`Error::TooFewSamples`] for fewer than two samples of a distribution.
    pub fn finish(&self) -> Result<DualEstimate> {
        for (distribution, sums) in [("A", &self.a), ("B", &self.b)] {
            if sums.n < 2 {
                return Err(Error::TooFewSamples { distribution, got: sums.n, expected: 2 });
            }
        }
        let lipschitz = self.critic.lipschitz();
        let lower = sub_down(self.a.mean_down(), self.b.mean_up());
        let rounding = self.a.mean_error() + self.b.mean_error();
        let numerator = sub_down(lower, rounding.value());
        // a critic that is constant tells nothing
        let per_unit = |x: f64| if lipschitz > 0.0 { x / lipschitz } else { 0.0 };
        Ok(DualEstimate {
            value: if lipschitz > 0.0 { div_down(numerator, lipschitz) } else { 0.0 },
            standard_error: per_unit((self.a.mean_variance() + self.b.mean_variance()).sqrt()),
            lipschitz,
            mean_difference: self.a.mean - self.b.mean,
            rounding_error: rounding.value(),
            n_a: self.a.n,
            n_b: self.b.n,
        })
    }
}

impl DualEstimate {
    /// A one-sided lower confidence bound of the distance of the distributions, at level `confidence` in (0, 1): the
    /// value minus z standard errors, with z the normal quantile.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a confidence outside (0, 1).
    pub fn confidence_bound(&self, confidence: f64) -> Result<f64> {
        if !(confidence > 0.0 && confidence < 1.0) {
            let expected = "a number between 0 and 1";
            return Err(Error::InvalidSetting { name: "confidence", value: confidence, expected });
        }
        Ok(self.value - quantile(confidence) * self.standard_error)
    }
}

/// What is kept of one distribution's samples.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    n: usize,
    /// Sum of the evaluated values, rounded down and up.
    low: f64,
    high: f64,
    /// Sum of their error bounds.
    error: f64,
    /// Running mean and sum of squared deviations (Welford), for the standard error alone.
    mean: f64,
    deviations: f64,
}

impl Sums {
    fn add(&mut self, batch: &CriticValues) {
        for (&value, &error) in batch.values.iter().zip(&batch.errors) {
            self.n += 1;
            self.low = add_down(self.low, value);
            self.high = add_up(self.high, value);
            self.error = add_up(self.error, error);
            let from_old = value - self.mean;
            self.mean += from_old / self.n as f64;
            self.deviations += from_old * (value - self.mean);
        }
    }

    fn mean_down(&self) -> f64 {
        div_down(self.low, self.n as f64)
    }

    fn mean_up(&self) -> f64 {
        div_up(self.high, self.n as f64)
    }

    fn mean_error(&self) -> Upper {
        Upper::new(div_up(self.error, self.n as f64))
    }

    /// Variance of the mean of n independent values.
    fn mean_variance(&self) -> f64 {
        let n = self.n as f64;
        self.deviations / (n - 1.0) / n
    }
}
