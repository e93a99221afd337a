//! The report of an experiment: one HTML file that needs nothing else.
//!
//! Definition: results beside the paper's, certified accuracy over the radius, training curves, test images with their radii,
//! layer bounds, and everything that is needed to run the same again. Figures are inline SVG, images inline PNG, the style
//! sheet is in the file; it reads on paper, on a phone, and on a dark screen.
//!
//! Guarantee: a number that was not computed is an empty cell. Synthetic images are announced at the top of the page and in
//! every heading that shows a result on them.
//!
//! Errors: [`Error::Draw`](crate::Error::Draw).
//!
//! Not here: computing any of the numbers.

mod base64;
mod chart;
mod comparison;
pub mod distance;
mod figures;
mod page;
pub mod paper;
mod picture;
pub mod reproduction;

use serde::{Deserialize, Serialize};

use crate::files::EpochMetrics;
use crate::results::ResultRow;

pub use comparison::{Compared, compared};
pub use figures::attack_name;
pub use page::render;
pub use picture::{data_url, png_data_url};

/// What a report shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// The row of `results.json`.
    pub row: ResultRow,
    /// The paper's figures for the same cell; `None` where it has none, as on synthetic images.
    pub reference: Option<&'static paper::Reference>,
    /// The radius, as text, that headlines are about.
    pub headline_eps: String,
    /// Accuracy certified for f32 storage with f64 accumulation at the headline radius.
    pub accumulate_f64: Option<f64>,
    /// Training, epoch by epoch.
    pub history: Vec<EpochMetrics>,
    /// Certified accuracy over the radius.
    pub curve: CertifiedCurve,
    /// Test images with their certificates.
    pub samples: Vec<Sample>,
    /// What `samples` are, as in "the first 40 test images".
    pub samples_are: String,
    /// Layer bounds.
    pub layers: Vec<LayerFact>,
    /// Product of the layer bounds.
    pub lipschitz: f64,
    /// What is needed to run the same again, as label and value.
    pub facts: Vec<(String, String)>,
    /// Lines a reader should see, as a hash that differs.
    pub notes: Vec<String>,
}

/// Certified accuracy over the radius: one ordinate per radius and kind.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CertifiedCurve {
    /// Radii, ascending from 0.
    pub eps: Vec<f64>,
    /// Nominal.
    pub nominal: Vec<f64>,
    /// In exact arithmetic.
    pub real: Vec<f64>,
    /// As executed.
    pub executed: Vec<f64>,
}

impl CertifiedCurve {
    /// The curves of three lists of radii, one per sample each: the percentage of samples whose radius exceeds ε.
    #[must_use]
    pub fn from_radii(eps: Vec<f64>, nominal: &[f64], real: &[f64], executed: &[f64]) -> Self {
        let at_all = |radii: &[f64]| eps.iter().map(|&e| share_beyond(radii, e)).collect();
        let (nominal, real, executed) = (at_all(nominal), at_all(real), at_all(executed));
        Self { eps, nominal, real, executed }
    }
}

fn share_beyond(radii: &[f64], eps: f64) -> f64 {
    let n_beyond = radii.iter().filter(|&&radius| radius > eps).count();
    100.0 * n_beyond as f64 / radii.len().max(1) as f64
}

/// A test image with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Channels (1 or 3), height and width.
    pub shape: [usize; 3],
    /// Pixels [c, h, w].
    pub pixels: Vec<u8>,
    /// True class.
    pub label: usize,
    /// Class that the network gives.
    pub predicted: usize,
    /// Executed radius; 0 where the network is wrong.
    pub radius: f64,
}

/// A layer's bound.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFact {
    /// Name.
    pub name: String,
    /// Shape of the weight, as in "32 x 64 x 2 x 2".
    pub weight: String,
    /// Rigorous upper bound of its norm.
    pub bound: f64,
}
