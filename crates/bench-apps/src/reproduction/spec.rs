//! Experiments and budgets as TOML.
//!
//! The files of the repository's `experiments/` folder are compiled in; a person's own file has the same form and may bring
//! its own budgets.
//!
//! Errors: [`Error::Read`], [`Error::ConfigSyntax`] with the line, [`Error::ConfigValue`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cell::Cell;
use super::collect::What;
use super::distances::spec::Choice;
use super::distances::{DistanceBudget, DistancePlan, Distances};
use crate::config::{DatasetName, NetworkName, PgdConfig, RunConfig, ScheduleKind};
use crate::eps::Eps;
use crate::error::{Error, Result};

/// The experiments that are compiled in, in their order.
pub const NAMES: [&str; 5] = ["table1", "table2", "table3", "table4", "figure2"];
/// Those that are compiled in as well, but need data or machines that not everyone has.
pub const FURTHER: [&str; 1] = ["table4-stl10"];

/// A table or a figure.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Short name, as on the command line.
    pub name: String,
    /// Heading.
    pub title: String,
    /// What a reader should know.
    #[serde(default)]
    pub note: String,
    /// Whether it shows singular values rather than accuracies.
    #[serde(default)]
    pub spectra: bool,
    /// What its table shows; everything that was measured where absent.
    #[serde(default)]
    pub columns: Option<Vec<What>>,
    /// Its cells, as products of lists.
    #[serde(default)]
    pub cells: Vec<CellBlock>,
    /// Distances that it measures.
    #[serde(default)]
    pub wasserstein: Option<Distances>,
    /// Budgets that replace those of the same name.
    #[serde(default)]
    pub budgets: BTreeMap<String, Budget>,
}

/// All combinations of some lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellBlock {
    /// Data sets.
    pub datasets: Vec<DatasetName>,
    /// Networks; "kw-small" is a published one.
    pub networks: Vec<String>,
    /// Methods, by the names that network files give them.
    pub methods: Vec<String>,
    /// Seeds, where they are not the budget's.
    #[serde(default)]
    pub seeds: Option<Vec<u64>>,
    /// Attacks beside PGD and FGSM: "boundary", "pointwise".
    #[serde(default)]
    pub attacks: Vec<String>,
}

/// What a cell may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Budget {
    /// Seeds of each cell.
    pub seeds: Vec<u64>,
    /// How the learning rate falls.
    pub schedule: ScheduleKind,
    /// Steps of PGD, each of 2.5 ε / steps; the paper's 200 steps of 0.01 where absent.
    #[serde(default)]
    pub pgd_steps: Option<usize>,
    /// Starts of the stronger PGD; 0 leaves it out.
    #[serde(default)]
    pub strong_restarts: usize,
    /// Images for the attacks that see decisions alone.
    #[serde(default = "hundred")]
    pub decision_images: usize,
    /// Steps of the boundary attack.
    #[serde(default = "foolbox_steps")]
    pub boundary_steps: usize,
    /// What Small costs.
    #[serde(default)]
    pub small: Extent,
    /// What Large costs.
    #[serde(default)]
    pub large: Extent,
    /// What FC-3 costs.
    #[serde(default, rename = "fc-3")]
    pub fc3: Extent,
    /// What distances cost.
    #[serde(default)]
    pub wasserstein: Option<DistanceBudget>,
}

fn hundred() -> usize {
    100
}

/// The reference implementation's.
fn foolbox_steps() -> usize {
    5000
}

/// Epochs and images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Passes over the training images.
    pub epochs: usize,
    /// Train on the first so many images only.
    #[serde(default)]
    pub train_limit: Option<usize>,
    /// Evaluate on the first so many test images only.
    #[serde(default)]
    pub test_limit: Option<usize>,
}

impl Default for Extent {
    fn default() -> Self {
        Self { epochs: 1, train_limit: None, test_limit: None }
    }
}

impl Experiment {
    /// The compiled-in experiment `name`, or the file of that path.
    ///
    /// # Errors
    /// See the module; [`Error::InvalidArgument`] for a name that is neither.
    pub fn find(name: &str) -> Result<Self> {
        let text = match name {
            "table1" => include_str!("../../../../experiments/table1.toml"),
            "table2" => include_str!("../../../../experiments/table2.toml"),
            "table3" => include_str!("../../../../experiments/table3.toml"),
            "table4" => include_str!("../../../../experiments/table4.toml"),
            "table4-stl10" => include_str!("../../../../experiments/table4-stl10.toml"),
            "figure2" => include_str!("../../../../experiments/figure2.toml"),
            file if Path::new(file).extension().is_some_and(|e| e == "toml") => {
                let path = Path::new(file);
                let text = fs::read_to_string(path)
                    .map_err(|source| Error::Read { path: path.to_owned(), source })?;
                return parse(file, &text);
            }
            other => {
                return Err(Error::InvalidArgument {
                    name: "experiment",
                    got: other.to_owned(),
                    expected: format!(
                        "{}, {}, all or a file that ends in .toml",
                        NAMES.join(", "),
                        FURTHER.join(", ")
                    ),
                });
            }
        };
        parse(&format!("{name}.toml"), text)
    }

    /// Where a cell stands in the tables, its seed and budget aside; `None` where it is not among them.
    #[must_use]
    pub fn position(&self, cell: &Cell) -> Option<[usize; 4]> {
        self.cells.iter().enumerate().find_map(|(n, block)| {
            let dataset = block.datasets.iter().position(|d| *d == cell.dataset)?;
            let network = block.networks.iter().position(|n| *n == cell.network)?;
            let method = block.methods.iter().position(|m| *m == cell.method)?;
            // rows of one data set and network stand together, whatever block they come from
            Some([dataset, network, n, method])
        })
    }

    /// The budget `name`: the experiment's own, or the compiled-in one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where neither exists.
    pub fn budget(&self, name: &str) -> Result<Budget> {
        if let Some(own) = self.budgets.get(name) {
            return Ok(own.clone());
        }
        let text = include_str!("../../../../experiments/budgets.toml");
        let budgets: BTreeMap<String, Budget> = parse("budgets.toml", text)?;
        budgets.get(name).cloned().ok_or_else(|| Error::InvalidArgument {
            name: "budget",
            got: name.to_owned(),
            expected: budgets.into_keys().collect::<Vec<_>>().join(", "),
        })
    }

    /// The cells that measure distances under a budget, and the methods among them that this version does not have.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown budget; [`Error::ConfigValue`] for one that says nothing about distances.
    pub fn distance_cells(&self, choice: Choice<'_>) -> Result<(Vec<DistancePlan>, Vec<Error>)> {
        let Some(distances) = &self.wasserstein else {
            return Ok((Vec::new(), Vec::new()));
        };
        let budget = self.budget(choice.budget)?.wasserstein.ok_or_else(|| Error::ConfigValue {
            key: "budgets.NAME.wasserstein",
            got: "absent".into(),
            expected: "a table: the experiment measures distances".into(),
        })?;
        budget.validate()?;
        Ok(distances.cells(&budget, choice))
    }

    /// The cells under a budget, those of the first seed first; `seeds` and `only` (methods) choose among them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an unknown budget.
    pub fn cells(
        &self,
        budget: &str,
        seeds: Option<&[u64]>,
        only: Option<&[String]>,
    ) -> Result<Vec<Cell>> {
        let known = self.budget(budget)?;
        let mut cells: Vec<Cell> = Vec::new();
        for block in &self.cells {
            // a block with its own seeds has no others to choose from
            let seeds = block.seeds.as_deref().or(seeds).unwrap_or(&known.seeds);
            for dataset in &block.datasets {
                for network in &block.networks {
                    let wanted = |method: &&String| only.is_none_or(|only| only.contains(method));
                    for method in block.methods.iter().filter(wanted) {
                        cells.extend(seeds.iter().map(|&seed| Cell {
                            dataset: dataset.clone(),
                            network: network.clone(),
                            method: method.clone(),
                            seed,
                            budget: budget.to_owned(),
                            attacks: block.attacks.clone(),
                        }));
                    }
                }
            }
        }
        cells.sort_by_key(|cell| cell.seed);
        Ok(cells)
    }
}

impl Budget {
    /// What a network costs.
    fn extent(&self, network: NetworkName) -> Extent {
        match network {
            NetworkName::Small => self.small,
            NetworkName::Large => self.large,
            NetworkName::Fc3 => self.fc3,
        }
    }

    /// The configuration of a cell.
    ///
    /// # Errors
    /// [`Error::ConfigValue`] for a method or a network that this version does not have.
    pub fn config(&self, cell: &Cell) -> Result<RunConfig> {
        let mut config = RunConfig::of(cell.dataset.clone());
        let extent = if cell.is_published() {
            Extent { epochs: 1, train_limit: None, ..self.small }
        } else {
            config.network.name = cell.network_name()?;
            config.network.layer = cell.method.parse()?;
            self.extent(config.network.name)
        };
        config.data.train_limit = extent.train_limit;
        config.data.test_limit = extent.test_limit;
        config.training.epochs = extent.epochs;
        config.training.schedule = self.schedule;
        config.training.seed = cell.seed;
        let evaluation = &mut config.evaluation;
        evaluation.strong_pgd.restarts = self.strong_restarts;
        if let Some(steps) = self.pgd_steps {
            let eps = evaluation.attack_eps.first().map_or(1.0, Eps::value);
            evaluation.pgd =
                PgdConfig { steps, step_size: 2.5 * eps / steps as f64, ..evaluation.pgd };
        }
        config.validate()?;
        Ok(config)
    }
}

fn parse<T: for<'a> Deserialize<'a>>(origin: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| crate::config::syntax_error(origin, text, &e))
}
