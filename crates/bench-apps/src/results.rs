//! The machine-readable results of an experiment.
//!
//! Definition: `results.json` is a list of rows, one for each trained network. Percentages are numbers from 0 to 100, times
//! are seconds. What was not computed is null or absent, never a guess.
//!
//! Not here: the evaluation of one run directory, which is its `eval.json`.

use std::collections::BTreeMap;

use certify::{AutoAttackFlag, ByEps, LogitBound, PartReport};
use serde::{Deserialize, Serialize};

use crate::config::{Activation, Method, Net};

/// One trained network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// The experiment, as in "reproduce".
    pub experiment: String,
    /// The images, as in "mnist" or "synthetic digits".
    pub dataset: String,
    pub synthetic: bool,
    pub network: Net,
    pub layer: Method,
    pub activation: Activation,
    pub seed: u64,
    pub epochs: usize,
    /// Name of the recipe; the paper's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Name of the budget, for a cell of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    pub device: String,
    pub commit: Option<String>,
    /// Time of training and evaluation.
    pub seconds: f64,
    pub clean: f64,
    pub certified: Certified,
    pub attacks: BTreeMap<String, ByEps>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub auto_attack: Vec<AutoAttacked>,
    /// The paper's figures for the same cell, where it has one.
    pub paper: Option<PaperFigures>,
}

/// Accuracy under AutoAttack at one radius, on the first test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoAttacked {
    pub eps: String,
    /// The images: percentages are of these.
    pub n_images: usize,
    pub clean: f64,
    /// Certified accuracy as executed; null for a network without certificates.
    pub certified: Option<f64>,
    pub accuracy: f64,
    pub seconds: f64,
    pub parts: Vec<PartReport>,
    /// Reasons to doubt the accuracy.
    pub flags: Vec<AutoAttackFlag>,
}

/// Bounds from both sides of the distance to the next class; one entry for each image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Nearest {
    /// Certified radii as executed, 0 for a mistake; none for a network without certificates.
    pub radii: Vec<f64>,
    /// The smallest distance at which any attack found an image of another class: 0 for a mistake, null where none did.
    pub distances: Vec<Option<f64>>,
}

impl Nearest {
    pub fn is_empty(&self) -> bool {
        self.distances.is_empty()
    }

    /// Radius and distance of each correctly classified image that has an adversarial example.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let pairs = self.radii.iter().zip(&self.distances);
        pairs.filter_map(|(&radius, distance)| Some((radius, (*distance)?))).filter(|p| p.1 > 0.0)
    }

    /// Images that a certificate calls safe at the distance of an adversarial example: there must be none.
    pub fn n_refuted(&self) -> usize {
        let pairs = self.radii.iter().zip(&self.distances);
        pairs
            .filter(|&(radius, distance)| distance.is_some_and(|d| d.is_nan() || d < *radius))
            .count()
    }
}

/// Certified accuracy over the radius, by what the certificate assumes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certified {
    /// Rounding ignored: what the literature reports.
    pub nominal: ByEps,
    /// What the nominal radius rests on: a Lipschitz constant of 1 taken on faith ("global"), or, where the last layer's exceeds
    /// 1, rigorous bounds and the distances of its rows ("pairwise"). Earlier files have the first alone.
    #[serde(default = "global")]
    pub nominal_bound: LogitBound,
    /// Rigorous for the stored weights in exact arithmetic.
    pub real: ByEps,
    /// Rigorous for the network as it was executed, in the arithmetic of the device.
    pub executed: ByEps,
}

fn global() -> LogitBound {
    LogitBound::Global
}

impl Default for Certified {
    fn default() -> Self {
        let none = ByEps::default;
        Self { nominal: none(), nominal_bound: global(), real: none(), executed: none() }
    }
}

/// The paper's means.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PaperFigures {
    pub clean: f64,
    /// Certified accuracy at the paper's radius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<f64>,
}
