//! The machine-readable results of an experiment.
//!
//! Definition: `results.json` is a list of rows, one for each trained network. Percentages are numbers from 0 to 100, times
//! are seconds. What was not computed is null or absent, never a guess.
//!
//! Not here: the evaluation of one run directory, which is its `eval.json`.

use std::collections::BTreeMap;
use std::path::Path;

use certify::LogitBound;
use serde::{Deserialize, Serialize};

use crate::config::{Activation, Method, Net};
use crate::eps::ByEps;
use crate::error::Result;
use crate::files::write_json;

/// One trained network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// The experiment, as in "reproduce".
    pub experiment: String,
    /// The images, as in "mnist" or "synthetic digits".
    pub dataset: String,
    /// Whether the images were drawn by a program.
    pub synthetic: bool,
    pub network: Net,
    pub layer: Method,
    pub activation: Activation,
    /// Seed of initialisation and batch order.
    pub seed: u64,
    pub epochs: usize,
    /// Name of the recipe; the paper's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// Name of the budget, for a cell of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    pub device: String,
    /// Commit of the source tree, where it is known.
    pub commit: Option<String>,
    /// Time of training and evaluation.
    pub seconds: f64,
    pub clean: f64,
    pub certified: Certified,
    /// Test accuracy under each attack.
    pub attacks: BTreeMap<String, ByEps>,
    /// The paper's figures for the same cell, where it has one.
    pub paper: Option<PaperFigures>,
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

/// Writes `results.json`, atomically.
pub fn write_results(path: &Path, rows: &[ResultRow]) -> Result<()> {
    write_json(path, &rows)
}
