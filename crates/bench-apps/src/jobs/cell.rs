//! Classifiers: names, settings, results.
//!
//! Guarantee: a result fulfils a job if it was made with the same configuration, the device aside, and has all its attacks.

use serde::{Deserialize, Serialize};

use super::costs::Costs;
use super::evidence::{
    AdversarialSample, CertifiedCurve, DecisionEffort, FirstImages, LayerFact, Spectra,
};
use crate::config::{DatasetName, DecisionAttack, Method, Net, RunConfig, count, positive};
use crate::error::Result;
use crate::experiment::evaluation::headline;
use crate::files::{EpochMetrics, Provenance};
use crate::results::{Nearest, ResultRow};
use certify::{ByEps, Eps};

/// The identity of a classifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub dataset: DatasetName,
    pub network: Net,
    pub method: Method,
    /// The recipe that it is trained by; the paper's with the budget's schedule where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    pub seed: u64,
    /// Name of the budget; empty for settings of one's own.
    pub budget: String,
    /// Attacks beside PGD and FGSM.
    pub attacks: Vec<DecisionAttack>,
}

/// A cell with everything that is needed to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifierJob {
    pub cell: Cell,
    pub config: RunConfig,
    /// Images for the attacks that see decisions alone.
    pub decision_images: usize,
    pub boundary_steps: usize,
    /// How the learning rate and the epochs are found; those of a result are what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
}

/// How a learning rate and a number of epochs are found, and the time of the training that follows.
///
/// With each rate the network is trained on the first training images; the last ones are held out. The rate with the best nominal
/// certified accuracy on these at the radius of the tables is taken, the first of equals. The training has the number of epochs
/// whose time, by that of the search's steps, is nearest to the given one, at most the budget's. Where not one fits, it is one
/// epoch on the first images, as many as fit and one batch at least.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    pub learning_rates: Vec<f64>,
    /// Epochs of each.
    pub epochs: usize,
    /// Images that they are trained on.
    pub images: usize,
    /// Images to choose by.
    pub held_out: usize,
    /// Time of the training that follows.
    pub minutes: f64,
}

impl Search {
    pub(super) fn validate(&self) -> Result<()> {
        count("number of search.learning_rates", self.learning_rates.len())?;
        count("search.epochs", self.epochs)?;
        count("search.images", self.images)?;
        count("search.held_out", self.held_out)?;
        positive("search.minutes", self.minutes)?;
        self.learning_rates.iter().try_for_each(|&rate| positive("search.learning_rates", rate))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    pub plan: ClassifierJob,
    /// The row of `results.json`, without the experiment's name.
    pub row: ResultRow,
    /// The epoch with the best test accuracy, which is the one that the authors report.
    pub best: Option<BestEpoch>,
    /// Accuracy on the first test images under the attacks that see decisions alone.
    pub first_images: Option<FirstImages>,
    pub curve: CertifiedCurve,
    /// The first images with their nearest adversarial examples, where they were looked for.
    #[serde(default, skip_serializing_if = "Nearest::is_empty")]
    pub nearest: Nearest,
    pub history: Vec<EpochMetrics>,
    /// Singular values of the second convolution, where there is one.
    pub spectra: Option<Spectra>,
    /// Test images with certificates and adversarial examples beyond them.
    pub samples: Vec<AdversarialSample>,
    /// Rigorous bound of the network's norm; absent for a network that is not ours.
    pub lipschitz: Option<f64>,
    /// Rigorous bounds of its layers; files of version 0.1 have none.
    #[serde(default)]
    pub layers: Vec<LayerFact>,
    /// The images; files of version 0.1 have none.
    #[serde(default)]
    pub data: Option<DataFacts>,
    /// Certified accuracy as executed with sums in f64; files of version 0.1 have none.
    #[serde(default)]
    pub accumulated: ByEps,
    /// What it costs, where rate and epochs were searched for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<Costs>,
    pub provenance: Provenance,
    pub notes: Vec<String>,
}

/// The images of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    pub n_train: usize,
    pub n_test: usize,
    /// SHA-256 of the test images and labels.
    pub test_sha256: String,
}

/// An epoch chosen by its test accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    pub epoch: usize,
    pub clean: f64,
    /// Nominal certified accuracy at the radius of the attacks.
    pub certified: Option<f64>,
}

impl Cell {
    /// Name of a cell's folder, and the name in messages.
    pub fn name(
        dataset: &DatasetName,
        network: Net,
        method: &str,
        recipe: Option<&str>,
        seed: u64,
    ) -> String {
        let recipe = recipe.map_or_else(String::new, |name| format!("{name}-"));
        format!("{}-{network}-{method}-{recipe}seed{seed}", dataset.file_name())
    }

    pub fn id(&self) -> String {
        let recipe = self.recipe.as_deref();
        Self::name(&self.dataset, self.network, &self.method.to_string(), recipe, self.seed)
    }

    pub fn recipe_title(&self) -> String {
        self.recipe
            .as_ref()
            .map_or_else(|| "the paper's recipe".into(), |name| format!("recipe “{name}”"))
    }

    /// The method, with the recipe where it is not the paper's.
    pub fn title(&self) -> String {
        let method = self.method.title();
        match &self.recipe {
            None => method.into(),
            Some(_) => format!("{method}, {}", self.recipe_title()),
        }
    }

    pub(super) fn add_attacks(&mut self, attacks: &[DecisionAttack]) {
        self.attacks.extend(attacks);
        self.attacks.sort();
        self.attacks.dedup();
    }
}

impl ClassifierJob {
    /// How much is done for attacks that see decisions alone.
    pub(super) fn effort(&self) -> DecisionEffort<'_> {
        DecisionEffort {
            attacks: &self.cell.attacks,
            evaluation: &self.config.evaluation,
            boundary_steps: self.boundary_steps,
        }
    }

    pub(super) fn is_fulfilled_by(&self, done: &Self) -> bool {
        let mut config = RunConfig { device: self.config.device, ..done.config.clone() };
        if self.search.is_some() {
            let (training, planned) = (&mut config.training, &self.config.training);
            (training.epochs, training.warm_up) = (planned.epochs, planned.warm_up);
            training.learning_rate = planned.learning_rate;
            // one epoch on fewer images is what fits into the time
            let images = |config: &RunConfig| config.data.train_limit.unwrap_or(usize::MAX);
            if done.config.training.epochs == 1 && images(&done.config) < images(&self.config) {
                config.data.train_limit = self.config.data.train_limit;
            }
        }
        let has_attacks = self.cell.attacks.iter().all(|a| done.cell.attacks.contains(a));
        let same_effort = self.cell.attacks.is_empty()
            || (self.decision_images == done.decision_images
                && self.boundary_steps == done.boundary_steps);
        let same = self.cell.id() == done.cell.id() && self.search == done.search;
        same && config == self.config && has_attacks && same_effort
    }

    /// Work in thousands of image passes of Small.
    pub(super) fn cost(&self) -> u64 {
        let config = &self.config;
        // measured on the CPU: a step of training, and an image of an attack
        let (step, image) = match config.network.name {
            Net::Small | Net::KwSmall => (1, 1),
            Net::Fc3 => (80, 3),
            Net::Large => (16, 14),
        };
        let n_train = match config.data.dataset {
            DatasetName::Mnist => 60_000,
            DatasetName::Cifar10 => 50_000,
            DatasetName::Stl10 => 5_000,
            _ => 10_000,
        };
        let n_train = config.data.train_limit.unwrap_or(n_train).min(n_train);
        let n_test = config.data.test_limit.unwrap_or(10_000).min(10_000);
        let training = step * n_train * config.training.epochs;
        let attack = image * n_test * config.evaluation.pgd.steps / 2;
        // of an image that withstands: 1000 steps of APGD, 900 of FAB twice over, 5000 queries
        let auto = image * config.evaluation.auto_attack.images.min(n_test) * 3000;
        1 + (training + attack + auto) as u64 / 1000
    }
}

impl CellResult {
    /// Radius of the attacks, and of the certified accuracy in tables, as it is written.
    pub fn eps(&self) -> &str {
        headline(&self.plan.config.evaluation).map_or("", Eps::text)
    }

    pub(super) fn headline(&self) -> String {
        let certified = self.row.certified.nominal.get(self.eps());
        let certified = certified.map_or_else(String::new, |value| {
            format!(", certified at {} {value:.2} %", self.eps())
        });
        format!("clean {:.2} %{certified}", self.row.clean)
    }
}
