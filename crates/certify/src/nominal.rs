//! The nominal radius of a network: what the literature calls certified.
//!
//! Definition, for logits y of class t, rows w_j of the last weight and bounds K_i of the layers' norms:
//! * where the last layer's norm is at most 1: the paper's `margin / √2`, every layer's constant of 1 taken on faith;
//! * where it is not, and the last layer is dense: `min_j (y_t - y_j) / (‖w_t - w_j‖ Π_{i<L} K_i)`;
//! * otherwise: `margin / (√2 Π K_i)`.
//!
//! Networks of other programs (with padded convolutions, leaky ReLUs, or layers that join signals) claim no constant of 1: for them the second
//! or the third holds whatever the last layer's norm, with the network's bound in place of Π K_i.
//!
//! Rows of norm 1 that are not orthogonal make a last layer of the second kind.
//!
//! Guarantee: rounding is ignored, in the logits and here. Where the last layer's norm exceeds 1 nothing is taken on faith, and in exact
//! arithmetic the radius is proven.
//!
//! Cost: the bounds of all layers where the last one's exceeds 1, once per network; C operations for each image.
//!
//! Source: Li et al. 2019 (arXiv 1911.00937), section 2; Tsuzuku et al. 2018 and Singla et al. 2022 for the pairs.

use candle_core::Tensor;
use lipconv::PlainNetwork;

use crate::bounds::{LogitBound, NetworkBounds, is_own, rigorous};
use crate::classifier::{check_labels, logit_rows};
use crate::error::{Error, Result};
use crate::margin::margin;
use crate::upper::Upper;

/// By how much an orthonormal weight that was rounded to f32 may exceed the norm 1.
const ROUNDING: f64 = 1e-4;

/// How the logits of one network become nominal radii.
#[derive(Debug, Clone, PartialEq)]
pub struct NominalRadius {
    n_classes: usize,
    constants: Constants,
}

/// Bounds of the change of a difference of two logits, for a perturbation of length 1.
#[derive(Debug, Clone, PartialEq)]
enum Constants {
    /// The same for all pairs.
    Global(f64),
    /// Of every pair, row-major.
    Pairwise(Vec<f64>),
}

impl NominalRadius {
    /// The nominal radius of `network`.
    ///
    /// # Errors
    /// As for [`NetworkBounds::new`] when a layer's norm cannot be bounded.
    pub fn new(network: &PlainNetwork) -> Result<Self> {
        let layers = network.layers().iter().zip(network.names());
        let last = layers.rev().find(|(layer, _)| layer.parameters().is_some());
        if let Some((layer, name)) = last {
            let own = is_own(network);
            if !own || rigorous(name, &layer.lipschitz_bound(name)?)? > 1.0 + ROUNDING {
                return Ok(Self::of_bounds(&NetworkBounds::new(network)?, network.n_classes()));
            }
        }
        Ok(Self::paper(network.n_classes()))
    }

    /// The paper's radius, every layer's constant of 1 taken on faith.
    fn paper(n_classes: usize) -> Self {
        Self { n_classes, constants: Constants::Global(std::f64::consts::SQRT_2) }
    }

    pub(crate) fn of_bounds(bounds: &NetworkBounds, n_classes: usize) -> Self {
        let Some(last) = bounds.layers().last() else {
            return Self::paper(n_classes);
        };
        if bounds.is_own() && last.lipschitz <= 1.0 + ROUNDING {
            return Self::paper(n_classes);
        }
        let Some(head) = bounds.head() else {
            let global = std::f64::consts::SQRT_2 * bounds.lipschitz();
            return Self { n_classes, constants: Constants::Global(global) };
        };
        let before = bounds.slopes().last().map_or(Upper::ONE, |(before, _)| *before);
        let pairs = (0..n_classes).flat_map(|t| (0..n_classes).map(move |j| (t, j)));
        let constants = pairs.map(|(t, j)| (before * head.difference(t, j)).value());
        Self { n_classes, constants: Constants::Pairwise(constants.collect()) }
    }

    /// Whether the radius rests on one constant or on that of every pair of classes.
    #[must_use]
    pub fn logit_bound(&self) -> LogitBound {
        match self.constants {
            Constants::Global(_) => LogitBound::Global,
            Constants::Pairwise(_) => LogitBound::Pairwise,
        }
    }

    /// The radius of one row of logits; 0 where the label is not strictly on top.
    pub(crate) fn radius(&self, logits: &[f64], label: usize) -> f64 {
        let margin = margin(logits, label);
        match &self.constants {
            Constants::Global(constant) => margin / constant,
            Constants::Pairwise(_) if margin <= 0.0 => 0.0,
            Constants::Pairwise(constants) => {
                let constants = &constants[label * self.n_classes..][..self.n_classes];
                let rivals = logits.iter().zip(constants).enumerate();
                let rivals = rivals.filter(|(j, _)| *j != label);
                let radius = rivals.map(|(_, (y, constant))| (logits[label] - y) / constant);
                radius.fold(f64::INFINITY, f64::min)
            }
        }
    }

    /// The radius of each row of logits (b x n_classes).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `logits` does not have the network's number of classes; label errors.
    pub fn radii(&self, logits: &Tensor, labels: &[usize]) -> Result<Vec<f64>> {
        let dims = logits.dims();
        if dims.len() != 2 || dims[1] != self.n_classes {
            return Err(Error::ShapeMismatch {
                what: "logits",
                expected: format!("b x {}", self.n_classes),
                got: dims.to_vec(),
            });
        }
        check_labels(labels, dims[0], self.n_classes)?;
        let rows = logit_rows(logits)?;
        Ok(rows.iter().zip(labels).map(|(row, &label)| self.radius(row, label)).collect())
    }
}
