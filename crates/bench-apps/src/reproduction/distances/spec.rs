//! The `[wasserstein]` tables of experiments and budgets.

use serde::{Deserialize, Serialize};

use super::plan::{AnchorsPlan, CriticPlan, DistancePlan, GeneratorPlan};
use crate::config::{ActivationKind, DatasetName, LayerKind};
use crate::error::{Error, Result};
use crate::wasserstein::gan::GanSettings;

/// Which distances an experiment measures.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distances {
    /// Data sets.
    pub datasets: Vec<DatasetName>,
    /// Height and width of the images.
    pub size: usize,
    /// Methods of the critics, by the names that network files give them.
    pub methods: Vec<String>,
    /// Their nonlinearities.
    pub activations: Vec<ActivationKind>,
    /// Whether the exact anchors are run as well.
    #[serde(default)]
    pub anchors: bool,
}

/// What distances may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceBudget {
    /// Seeds of the critics.
    pub seeds: Vec<u64>,
    /// Width of the critics; 1 is the paper's.
    pub width: f64,
    /// Epochs of a critic.
    pub epochs: usize,
    /// Steps in each.
    pub epoch_steps: usize,
    /// Samples of each side in a step.
    pub batch_size: usize,
    /// Rates to choose from.
    pub learning_rates: Vec<f64>,
    /// Pairs to choose on.
    pub n_select: usize,
    /// Pairs to report.
    pub n_report: usize,
    /// The generator.
    pub generator: GanSettings,
    /// The anchors.
    pub anchors: AnchorBudget,
}

/// What the anchors may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorBudget {
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Epochs of 25 steps.
    pub epochs: usize,
    /// Rates to choose from.
    pub learning_rates: Vec<f64>,
    /// Whether all methods and nonlinearities are run, rather than BCOP with MaxMin alone.
    pub all: bool,
}

/// Which cells, and where they compute.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Name of the budget.
    pub budget: &'a str,
    /// Other seeds than the budget's.
    pub seeds: Option<&'a [u64]>,
    /// These methods only.
    pub only: Option<&'a [String]>,
    /// Device.
    pub device: crate::config::DeviceKind,
}

impl Distances {
    /// The cells under a budget: generators, anchors, then critics, those of the first seed first. With them, the methods that
    /// this version does not have.
    #[must_use]
    pub fn cells(
        &self,
        budget: &DistanceBudget,
        choice: Choice<'_>,
    ) -> (Vec<DistancePlan>, Vec<Error>) {
        let wanted = |method: &&String| choice.only.is_none_or(|only| only.contains(method));
        let (mut methods, mut unknown) = (Vec::new(), Vec::new());
        for method in self.methods.iter().filter(wanted) {
            match method.parse::<LayerKind>() {
                Ok(kind) => methods.push(kind),
                Err(error) => unknown.push(error),
            }
        }
        let generators: Vec<GeneratorPlan> =
            self.datasets.iter().map(|dataset| self.generator(dataset, budget, choice)).collect();
        let mut cells: Vec<DistancePlan> =
            generators.iter().cloned().map(DistancePlan::Generator).collect();
        if self.anchors {
            cells.push(DistancePlan::Anchors(self.anchors(&methods, budget, choice)));
        }
        for &seed in choice.seeds.unwrap_or(&budget.seeds) {
            for generator in &generators {
                for &method in &methods {
                    for &activation in &self.activations {
                        cells.push(DistancePlan::Critic(CriticPlan {
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
                        }));
                    }
                }
            }
        }
        (cells, unknown)
    }

    fn generator(
        &self,
        dataset: &DatasetName,
        budget: &DistanceBudget,
        choice: Choice<'_>,
    ) -> GeneratorPlan {
        GeneratorPlan {
            budget: choice.budget.to_owned(),
            dataset: dataset.clone(),
            size: self.size,
            device: choice.device,
            settings: budget.generator.clone(),
        }
    }

    fn anchors(
        &self,
        methods: &[LayerKind],
        budget: &DistanceBudget,
        choice: Choice<'_>,
    ) -> AnchorsPlan {
        let all = budget.anchors.all;
        AnchorsPlan {
            budget: choice.budget.to_owned(),
            seeds: budget.anchors.seeds.clone(),
            methods: if all { methods.to_vec() } else { vec![LayerKind::default()] },
            activations: if all { self.activations.clone() } else { vec![ActivationKind::MaxMin] },
            epochs: budget.anchors.epochs,
            learning_rates: budget.anchors.learning_rates.clone(),
        }
    }

    /// Where a critic stands in the tables, its seed and budget aside; `None` where it is not among them.
    #[must_use]
    pub fn position(&self, critic: &CriticPlan) -> Option<[usize; 3]> {
        let dataset = self.datasets.iter().position(|d| *d == critic.generator.dataset)?;
        let method = self.methods.iter().position(|m| *m == critic.method.to_string())?;
        let activation = self.activations.iter().position(|a| *a == critic.activation)?;
        (critic.generator.size == self.size).then_some([dataset, activation, method])
    }
}

impl DistanceBudget {
    /// Checks what the settings of critics do not check.
    ///
    /// # Errors
    /// [`Error::ConfigValue`].
    pub fn validate(&self) -> Result<()> {
        let refuse = |key, got: String, expected: &str| {
            Err(Error::ConfigValue { key, got, expected: expected.into() })
        };
        let valid = |rate: &f64| rate.is_finite() && *rate > 0.0;
        for rates in [&self.learning_rates, &self.anchors.learning_rates] {
            if rates.is_empty() || !rates.iter().all(valid) {
                let key = "wasserstein.learning_rates";
                return refuse(key, format!("{rates:?}"), "at least one, all positive");
            }
        }
        if self.n_select < 2 || self.n_report < 2 {
            let got = self.n_select.min(self.n_report).to_string();
            return refuse("wasserstein.n_select or n_report", got, "at least 2");
        }
        Ok(())
    }
}
