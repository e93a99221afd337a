//! What is known of somebody's network: its constant from above and from below, and what becomes of the radii that are claimed for it.
//!
//! Definition. For images x, y and classes t, j the *slope* of a pair is `((f_t - f_j)(x) - (f_t - f_j)(y)) / ‖x - y‖₂`. No slope
//! exceeds the constant of a difference of two logits, nor √2 times that of the network. A claimed constant is *proved* where
//! the bound of the layers is not above it, and *refuted* where a slope is steeper than it allows; a claimed radius of an image is proved
//! where it does not exceed the certified one, and refuted by an image of another class nearer than it. Everything else is *open*.
//!
//! The search for slopes walks from each image along the gradient of the difference of its two largest logits, uphill and downhill, in
//! steps of one length inside [0, 1], and measures every step.
//!
//! Guarantee. A slope rounds down: the logits' differences are those of the exact function of the stored weights, less every error of their
//! evaluation, and the distance rounds up. So `proved` and `refuted` exclude each other. The search itself is no guarantee: the
//! steepest slope may be steeper than what it finds. A radius is refuted as far as the class of the near image is: attacks take it from the
//! network as executed.
//!
//! Cost of the search: three passes for every image and step.
//!
//! Not here: what the authors rest their claims on.

use candle_core::Tensor;
use lipconv::PlainNetwork;
use projectors::rounding::{add_down, div_down};
use serde::Serialize;

use crate::certifier::Certifier;
use crate::classifier::{Classifier, logit_rows, predicted_class};
use crate::error::{Error, Result};
use crate::tensor::{check_images, to_f64};
use crate::upper::{Upper, norm_up, quotient_down};

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds, rounding included.
    Proved,
    /// It does not hold.
    Refuted,
    /// Neither was shown.
    Open,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Refuted => "refuted",
            Self::Open => "open",
        }
    }

    /// Of the claim that a constant that lies between two bounds is at most `claimed`.
    #[must_use]
    pub fn of_constant(claimed: f64, at_least: f64, at_most: f64) -> Self {
        match (at_most <= claimed, at_least > claimed) {
            (true, _) => Self::Proved,
            (false, true) => Self::Refuted,
            (false, false) => Self::Open,
        }
    }

    /// Of a claimed radius, from the certified one and the distance of the nearest image of another class that is known.
    #[must_use]
    pub fn of_radius(claimed: f64, certified: f64, nearest: f64) -> Self {
        match (claimed <= certified, nearest < claimed) {
            (true, _) => Self::Proved,
            (false, true) => Self::Refuted,
            (false, false) => Self::Open,
        }
    }
}

/// A steep place of a network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slope {
    /// At most the slope of the difference of the two classes' logits.
    pub difference: f64,
    /// The classes.
    pub classes: (usize, usize),
    /// The image that the walk began with.
    pub sample: usize,
}

impl Slope {
    /// At most the Lipschitz constant of the network: a difference of two logits is √2 times as steep, at most.
    #[must_use]
    pub fn network(self) -> f64 {
        div_down(self.difference, std::f64::consts::SQRT_2.next_up())
    }
}

/// A search for steep places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlopeSearch {
    /// Steps in each direction; without one no slope is found.
    pub steps: usize,
    /// Length of a step, positive.
    pub step: f64,
    /// Images in one pass, at least 1.
    pub batch_size: usize,
}

impl Default for SlopeSearch {
    fn default() -> Self {
        Self { steps: 20, step: 0.1, batch_size: 250 }
    }
}

impl SlopeSearch {
    /// The steepest slope that the walks from `images` (b x c x h x w) found; None without two classes, or where nothing changes.
    ///
    /// `certifier` is that of `network`.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`], [`Error::ShapeMismatch`], [`Error::NonFinite`]; those of the network.
    pub fn run(
        self,
        network: &PlainNetwork,
        certifier: &Certifier,
        images: &Tensor,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Option<Slope>> {
        let (name, expected) = ("length of a step", "a positive number");
        if !(self.step > 0.0 && self.step.is_finite()) {
            return Err(Error::InvalidSetting { name, value: self.step, expected });
        }
        crate::classifier::check_batch_size(self.batch_size)?;
        let n = check_images(images, network.input())?;
        let mut steepest: Option<Slope> = None;
        if network.n_classes() < 2 {
            return Ok(None);
        }
        for start in (0..n).step_by(self.batch_size) {
            let len = self.batch_size.min(n - start);
            let images = images.narrow(0, start, len)?;
            let pairs = leading_pairs(&network.logits(&images)?)?;
            for direction in [1.0, -1.0] {
                let walk = Walk { network, certifier, pairs: &pairs, step: direction * self.step };
                for slope in walk.slopes(&images, self.steps)? {
                    if steepest.is_none_or(|known| slope.difference > known.difference) {
                        steepest = Some(Slope { sample: start + slope.sample, ..slope });
                    }
                }
            }
            progress(start + len);
        }
        Ok(steepest.filter(|slope| slope.difference > 0.0))
    }
}

/// From every image in one direction.
struct Walk<'a> {
    network: &'a PlainNetwork,
    certifier: &'a Certifier,
    pairs: &'a [(usize, usize)],
    step: f64,
}

impl Walk<'_> {
    fn slopes(&self, images: &Tensor, n_steps: usize) -> Result<Vec<Slope>> {
        let reversed: Vec<(usize, usize)> = self.pairs.iter().map(|&(t, j)| (j, t)).collect();
        let (mut place, mut slopes) = (images.clone(), Vec::new());
        for _ in 0..n_steps {
            let next = self.next(&place)?;
            let (here, there) = (to_f64(&place)?, to_f64(&next)?);
            // the higher end of the step, and the lower one
            let (high, low) = if self.step > 0.0 { (&next, &place) } else { (&place, &next) };
            let rise = self.certifier.differences(high, self.pairs)?;
            let fall = self.certifier.differences(low, &reversed)?;
            let n_values = here.len() / self.pairs.len();
            let points = here.chunks_exact(n_values).zip(there.chunks_exact(n_values));
            for (sample, (a, b)) in points.enumerate() {
                let distance = norm_up(a.iter().zip(b).map(|(a, b)| (a - b).abs().next_up()));
                let rise = add_down(rise[sample], fall[sample]);
                if rise > 0.0 && distance > Upper::new(f64::from(f32::EPSILON)) {
                    let difference = quotient_down(rise, distance);
                    slopes.push(Slope { difference, classes: self.pairs[sample], sample });
                }
            }
            place = next;
        }
        Ok(slopes)
    }

    /// A step along the gradient of the differences, in [0, 1].
    fn next(&self, place: &Tensor) -> Result<Tensor> {
        let n_classes = self.network.n_classes();
        let mut signs = vec![0.0; self.pairs.len() * n_classes];
        for (sample, &(t, j)) in self.pairs.iter().enumerate() {
            (signs[sample * n_classes + t], signs[sample * n_classes + j]) = (1.0, -1.0);
        }
        let signs = Tensor::from_vec(signs, (self.pairs.len(), n_classes), place.device())?;
        let signs = signs.to_dtype(place.dtype())?;
        let objective = |logits: &Tensor| (logits * &signs)?.sum_all();
        let (_, gradient) = self.network.logits_and_input_gradient(place, &objective)?;
        let length = gradient.sqr()?.flatten_from(1)?.sum(1)?.sqrt()?;
        let length = (length + f64::from(f32::MIN_POSITIVE))?.reshape(((), 1, 1, 1))?;
        let step = (gradient.broadcast_div(&length)? * self.step)?;
        Ok((place + step)?.clamp(0.0, 1.0)?)
    }
}

/// The classes of the largest logit and of the next one.
fn leading_pairs(logits: &Tensor) -> Result<Vec<(usize, usize)>> {
    let pair = |row: &Vec<f64>| {
        let first = predicted_class(row);
        let mut others = row.clone();
        others[first] = f64::NEG_INFINITY;
        let second = predicted_class(&others);
        (first, if second == first { usize::from(first == 0) } else { second })
    };
    Ok(logit_rows(logits)?.iter().map(pair).collect())
}
