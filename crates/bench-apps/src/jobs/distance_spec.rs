//! The `[wasserstein]` tables of experiments and budgets.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::distance::{AnchorsJob, CriticJob, GeneratorJob};
use super::job::{Choice, Job};
use crate::config::{Activation, DatasetName, Method, require};
use crate::error::{Error, Result};
use crate::statistic::Figure;
use crate::wasserstein::gan::GanSettings;

/// Which distances an experiment measures.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distances {
    pub datasets: Vec<DatasetName>,
    pub size: usize,
    /// Methods of the critics, by the names that network files give them.
    pub methods: Vec<String>,
    pub activations: Vec<Activation>,
    /// Whether the exact anchors are run as well.
    #[serde(default)]
    pub anchors: bool,
    #[serde(default)]
    pub paper: Option<PublishedDistances>,
}

/// Published estimates by nonlinearity and method, for the one data set of the table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PublishedDistances {
    /// Whose they are, as in "the paper".
    pub source: String,
    #[serde(flatten)]
    pub by_activation: HashMap<Activation, BTreeMap<String, Figure>>,
}

/// What distances may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceBudget {
    pub seeds: Vec<u64>,
    /// Width of the critics; 1 is the paper's.
    pub width: f64,
    pub epochs: usize,
    pub epoch_steps: usize,
    /// Samples of each side in a step.
    pub batch_size: usize,
    pub learning_rates: Vec<f64>,
    /// Pairs to choose on.
    pub n_select: usize,
    pub n_report: usize,
    pub generator: GanSettings,
    pub anchors: AnchorBudget,
}

/// What the anchors may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorBudget {
    pub seeds: Vec<u64>,
    /// Epochs of 25 steps.
    pub epochs: usize,
    pub learning_rates: Vec<f64>,
    /// Whether all methods and nonlinearities are run, rather than BCOP with MaxMin alone.
    pub all: bool,
}

impl Distances {
    /// The jobs under a budget: generators, anchors, then critics, those of the first seed first; none where no method is left.
    /// With them, the methods that this version does not have.
    pub fn jobs(&self, budget: &DistanceBudget, choice: Choice<'_>) -> (Vec<Job>, Vec<Error>) {
        let (mut methods, mut unknown) = (Vec::new(), Vec::new());
        for method in self.methods.iter().filter(|method| choice.takes(method)) {
            match method.parse::<Method>() {
                Ok(kind) => methods.push(kind),
                Err(error) => unknown.push(error),
            }
        }
        if methods.is_empty() {
            return (Vec::new(), unknown);
        }
        let generators: Vec<GeneratorJob> =
            self.datasets.iter().map(|dataset| self.generator(dataset, budget, choice)).collect();
        let mut jobs: Vec<Job> = generators.iter().cloned().map(Job::Generator).collect();
        if self.anchors {
            jobs.push(Job::Anchors(self.anchors(&methods, budget, choice)));
        }
        for &seed in choice.seeds.unwrap_or(&budget.seeds) {
            for generator in &generators {
                for &method in &methods {
                    for &activation in &self.activations {
                        let of = (generator, method, activation, seed);
                        jobs.push(Job::Critic(critic(budget, of)));
                    }
                }
            }
        }
        (jobs, unknown)
    }

    fn generator(
        &self,
        dataset: &DatasetName,
        budget: &DistanceBudget,
        choice: Choice<'_>,
    ) -> GeneratorJob {
        GeneratorJob {
            budget: choice.budget.to_owned(),
            dataset: dataset.clone(),
            size: self.size,
            device: choice.device,
            settings: budget.generator.clone(),
        }
    }

    fn anchors(
        &self,
        methods: &[Method],
        budget: &DistanceBudget,
        choice: Choice<'_>,
    ) -> AnchorsJob {
        let all = budget.anchors.all;
        AnchorsJob {
            budget: choice.budget.to_owned(),
            seeds: budget.anchors.seeds.clone(),
            methods: if all { methods.to_vec() } else { vec![Method::default()] },
            activations: if all { self.activations.clone() } else { vec![Activation::MAXMIN] },
            epochs: budget.anchors.epochs,
            learning_rates: budget.anchors.learning_rates.clone(),
        }
    }

    /// Where a critic stands in the tables, its seed and budget aside; `None` where it is not among them.
    pub fn position(&self, critic: &CriticJob) -> Option<[usize; 3]> {
        let name = critic.method.to_string();
        let dataset = self.datasets.iter().position(|d| *d == critic.generator.dataset)?;
        let method = self.methods.iter().position(|m| *m == name)?;
        let activation = self.activations.iter().position(|a| *a == critic.activation)?;
        (critic.generator.size == self.size).then_some([dataset, activation, method])
    }
}

impl PublishedDistances {
    pub fn figure(&self, method: &str, activation: Activation) -> Option<Figure> {
        self.by_activation.get(&activation)?.get(method).copied()
    }
}

fn critic(
    budget: &DistanceBudget,
    (generator, method, activation, seed): (&GeneratorJob, Method, Activation, u64),
) -> CriticJob {
    CriticJob {
        generator: generator.clone(),
        method,
        activation,
        seed,
        width: budget.width,
        epochs: budget.epochs,
        epoch_steps: budget.epoch_steps,
        batch_size: budget.batch_size,
        learning_rates: budget.learning_rates.clone(),
        n_select: budget.n_select,
        n_report: budget.n_report,
    }
}

impl DistanceBudget {
    /// Checks the values that the settings of critics do not check.
    pub fn validate(&self) -> Result<()> {
        for rates in [&self.learning_rates, &self.anchors.learning_rates] {
            let fits = !rates.is_empty() && rates.iter().all(|r| r.is_finite() && *r > 0.0);
            let (key, expected) = ("wasserstein.learning_rates", "at least one, all positive");
            require(fits, key, format!("{rates:?}"), expected)?;
        }
        let least = self.n_select.min(self.n_report);
        require(least >= 2, "wasserstein.n_select or n_report", least, "at least 2")
    }
}
