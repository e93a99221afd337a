//! Experiments and budgets as TOML.
//!
//! The files of the repository's `experiments/` folder are compiled in, with the paper's figures for their cells: the build
//! script lists them. A file of one's own has the same form and may bring its own budgets.
//!
//! Errors: [`Error::Read`], [`Error::ConfigSyntax`] with the line or the table, [`Error::ConfigValue`].

mod checks;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::cell::{Cell, ClassifierJob, Search};
use super::distance_spec::{DistanceBudget, Distances, PublishedDistances};
use super::job::{Choice, Job};
use crate::config::{
    DatasetName, DecisionAttack, Method, Net, PgdConfig, Recipe, RunConfig, ScheduleKind,
};
use crate::error::{Error, Result};
use crate::statistic::{Figure, What};
use certify::Eps;

/// Names and texts of the folder's files.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/experiments.rs"));
/// The file that holds no experiment.
const BUDGETS: &str = "budgets";

pub type Figures = BTreeMap<What, Figure>;

/// A table or a figure.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Short name, as on the command line.
    pub name: String,
    pub title: String,
    /// Explanation for the reader.
    #[serde(default)]
    pub note: String,
    /// Its place among the experiments that `all` stands for; it is not one of them where absent.
    #[serde(default)]
    pub place: Option<u32>,
    /// Whether it shows singular values rather than accuracies.
    #[serde(default)]
    pub spectra: bool,
    /// Whether its table has a row for each method, with what that costs.
    #[serde(default)]
    pub costs: bool,
    /// What stands side by side in its table.
    #[serde(default)]
    pub side_by_side: SideBySide,
    /// Whether certified accuracy is shown at every radius of the evaluation.
    #[serde(default)]
    pub curves: bool,
    /// The quantities of its table; everything that was measured where absent. Earlier files call them `columns`.
    #[serde(default, alias = "columns")]
    pub quantities: Option<Vec<What>>,
    /// Its cells, as products of lists.
    #[serde(default)]
    pub cells: Vec<CellBlock>,
    /// The paper's figures, by data set, network and method.
    #[serde(default)]
    pub paper: BTreeMap<String, BTreeMap<String, BTreeMap<String, Figures>>>,
    /// Figures of networks that are not run here, by data set and name.
    #[serde(default)]
    pub quoted: BTreeMap<String, BTreeMap<String, Figures>>,
    /// Recipes of its own, which its cells may name like those that ship with the program.
    #[serde(default)]
    pub recipes: BTreeMap<String, Recipe>,
    #[serde(default)]
    pub wasserstein: Option<Distances>,
    /// Budgets that replace the compiled-in ones of the same name.
    #[serde(default)]
    pub budgets: BTreeMap<String, Budget>,
}

/// The columns of a table of accuracies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SideBySide {
    /// Methods; data sets and networks are rows.
    #[default]
    Methods,
    /// Networks with their methods; data sets are rows.
    Networks,
    /// Recipes; data sets, networks and methods are rows.
    Recipes,
}

/// All combinations of some lists.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellBlock {
    pub datasets: Vec<DatasetName>,
    /// Networks; "kw-small" is a published one.
    pub networks: Vec<Net>,
    /// Methods, by the names that network files give them. Unknown ones are left out with a note.
    pub methods: Vec<String>,
    /// The recipe; the paper's with the budget's schedule where absent.
    #[serde(default)]
    pub recipe: Option<String>,
    /// Seeds, where they are not the budget's.
    #[serde(default)]
    pub seeds: Option<Vec<u64>>,
    /// Attacks beside PGD and FGSM.
    #[serde(default)]
    pub attacks: Vec<DecisionAttack>,
}

/// The cost of a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Budget {
    pub seeds: Vec<u64>,
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
    #[serde(default = "foolbox_steps")]
    pub boundary_steps: usize,
    #[serde(default)]
    pub small: Extent,
    #[serde(default)]
    pub large: Extent,
    #[serde(default, rename = "fc-3")]
    pub fc3: Extent,
    #[serde(default)]
    pub wasserstein: Option<DistanceBudget>,
    /// The search of learning rates, and the time limit of training. The number of epochs is then an upper limit.
    #[serde(default)]
    pub search: Option<Search>,
}

fn hundred() -> usize {
    100
}

/// The reference implementation's.
fn foolbox_steps() -> usize {
    5000
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Passes over the training images; the most, where a search sets their time.
    pub epochs: usize,
    /// Train on this many images, the first ones; all where absent.
    #[serde(default)]
    pub train_limit: Option<usize>,
    /// Evaluate on this many test images, the first ones; all where absent.
    #[serde(default)]
    pub test_limit: Option<usize>,
    /// Run AutoAttack on this many test images, the first ones; 0 leaves it out.
    #[serde(default)]
    pub auto_images: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self { epochs: 1, train_limit: None, test_limit: None, auto_images: 0 }
    }
}

/// Jobs, and those that this version cannot run, with the reason.
#[derive(Debug, Default)]
pub struct Jobs {
    /// To run: those of the first seed first.
    pub jobs: Vec<Job>,
    pub impossible: Vec<String>,
    /// What the choice does not reach.
    pub notes: Vec<String>,
}

impl Experiment {
    /// The compiled-in experiment `name`, or the file of that path.
    pub fn find(name: &str) -> Result<Self> {
        if let Some((_, text)) = experiments().find(|(known, _)| *known == name) {
            return Self::parse(&format!("{name}.toml"), text);
        }
        let path = Path::new(name);
        if path.extension().is_some_and(|e| e == "toml") {
            let text = fs::read_to_string(path).map_err(Error::read(path))?;
            return Self::parse(name, &text);
        }
        let expected = format!("{}, all or a file that ends in .toml", names().join(", "));
        Err(Error::argument("experiment", name, expected))
    }

    /// The experiments that `all` stands for, in their order.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> =
            compiled_in().iter().filter(|e| e.place.is_some()).cloned().collect();
        all.sort_by_key(|experiment| experiment.place);
        all
    }

    fn parse(origin: &str, text: &str) -> Result<Self> {
        let experiment: Self = parse(origin, text)?;
        for (dataset, networks) in &experiment.paper {
            dataset.parse::<DatasetName>()?;
            for network in networks.keys() {
                network.parse::<Net>()?;
            }
        }
        for dataset in experiment.quoted.keys() {
            dataset.parse::<DatasetName>()?;
        }
        for block in &experiment.cells {
            if let Some(name) = &block.recipe {
                let recipe = experiment.recipe(name)?;
                block.datasets.iter().try_for_each(|d| recipe.config(d.clone()).map(drop))?;
            }
        }
        match experiment.fault() {
            Some(reason) => Err(Error::ConfigSyntax { origin: origin.to_owned(), reason }),
            None => Ok(experiment),
        }
    }

    /// The methods of its cells, each as often as a list has it.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        let cells = self.cells.iter().flat_map(|block| &block.methods);
        cells.chain(self.wasserstein.iter().flat_map(|of| &of.methods)).map(String::as_str)
    }

    /// Whether a result of the job has a place in its tables, whatever seed and budget.
    pub fn shows(&self, job: &Job) -> bool {
        let measured = self.wasserstein.as_ref();
        match job {
            Job::Classifier(job) | Job::Published(job) => self.position(&job.cell).is_some(),
            Job::Generator(job) => {
                measured.is_some_and(|of| of.size == job.size && of.datasets.contains(&job.dataset))
            }
            Job::Anchors(_) => measured.is_some_and(|of| of.anchors),
            Job::Critic(job) => measured.is_some_and(|of| of.position(job).is_some()),
        }
    }

    /// The recipe of a name: its own, or one that ships with the program.
    fn recipe(&self, name: &str) -> Result<Recipe> {
        match self.recipes.get(name) {
            Some(own) => Ok(own.clone().called(name)),
            None => Recipe::named(name),
        }
    }

    /// Where a cell stands in the tables, its seed and budget aside; `None` where it is not among them.
    pub fn position(&self, cell: &Cell) -> Option<[usize; 4]> {
        let name = cell.method.to_string();
        self.cells.iter().enumerate().find_map(|(n, block)| {
            let dataset = block.datasets.iter().position(|d| *d == cell.dataset)?;
            let network = block.networks.iter().position(|n| *n == cell.network)?;
            let method = block.methods.iter().position(|m| *m == name)?;
            if block.recipe != cell.recipe {
                return None;
            }
            // rows of one data set and network stand together, whatever block they come from
            Some([dataset, network, n, method])
        })
    }

    /// The paper's figure for a cell: this experiment's, or that of another compiled-in one.
    pub fn paper(&self, cell: &Cell, what: What) -> Option<Figure> {
        self.own_figure(cell, what).or_else(|| published_figure(cell, what))
    }

    /// The published estimates for a data set: this experiment's, or those of a compiled-in one with images of the same size.
    pub fn paper_distances(&self, dataset: &DatasetName) -> Option<&PublishedDistances> {
        let wanted = self.wasserstein.as_ref()?;
        let all = std::iter::once(wanted)
            .chain(compiled_in().iter().filter_map(|e| e.wasserstein.as_ref()));
        let same =
            |other: &&Distances| other.datasets.contains(dataset) && other.size == wanted.size;
        all.filter(same).find_map(|other| other.paper.as_ref())
    }

    fn own_figure(&self, cell: &Cell, what: What) -> Option<Figure> {
        let networks = self.paper.get(&cell.dataset.to_string())?;
        let methods = networks.get(cell.network.key())?;
        methods.get(&cell.method.to_string())?.get(&what.published_as()).copied()
    }

    /// The budget `name`: the experiment's own, or the compiled-in one.
    pub fn budget(&self, name: &str) -> Result<Budget> {
        if let Some(own) = self.budgets.get(name) {
            return Ok(own.clone());
        }
        let shipped = shipped_budgets().get(name).cloned();
        shipped.ok_or_else(|| Error::argument("budget", name, budget_names()))
    }

    /// The jobs under a budget.
    pub fn jobs(&self, choice: Choice<'_>) -> Result<Jobs> {
        let budget = self.budget(choice.budget)?;
        self.check_number(&budget, choice)?;
        budget.search.iter().try_for_each(Search::validate)?;
        let mut found = Jobs { notes: self.unreached(&budget, choice), ..Jobs::default() };
        for block in &self.cells {
            let recipe = block.recipe.as_deref().map(|name| self.recipe(name)).transpose()?;
            block.jobs((&budget, recipe.as_ref()), choice, &mut found);
        }
        found.jobs.sort_by_key(Job::order);
        if let Some(distances) = &self.wasserstein {
            let budget = budget.wasserstein.ok_or_else(|| Error::ConfigValue {
                key: "budgets.NAME.wasserstein",
                got: "absent".into(),
                expected: "a table: the experiment measures distances".into(),
            })?;
            budget.validate()?;
            let (jobs, unknown) = distances.jobs(&budget, choice);
            found.jobs.extend(jobs);
            found.impossible.extend(unknown.iter().map(|e| format!("{}: {e}", self.name)));
        }
        Ok(found)
    }
}

impl CellBlock {
    fn jobs(&self, by: (&Budget, Option<&Recipe>), choice: Choice<'_>, found: &mut Jobs) {
        let (budget, _) = by;
        // a block with its own seeds has no others to choose from
        let seeds = self.seeds.as_deref().or(choice.seeds).unwrap_or(&budget.seeds);
        for dataset in &self.datasets {
            for &network in &self.networks {
                for method in self.methods.iter().filter(|method| choice.takes(method)) {
                    for &seed in seeds {
                        match self.job(by, choice, (dataset, network, method, seed)) {
                            Ok(job) => found.jobs.push(job),
                            Err(error) => {
                                let recipe = self.recipe.as_deref();
                                let id = Cell::name(dataset, network, method, recipe, seed);
                                found.impossible.push(format!("{id}: {error}"));
                            }
                        }
                    }
                }
            }
        }
    }

    fn job(
        &self,
        (budget, recipe): (&Budget, Option<&Recipe>),
        choice: Choice<'_>,
        (dataset, network, method, seed): (&DatasetName, Net, &str, u64),
    ) -> Result<Job> {
        let cell = Cell {
            dataset: dataset.clone(),
            network,
            method: method.parse()?,
            recipe: self.recipe.clone(),
            seed,
            budget: choice.budget.to_owned(),
            attacks: self.attacks.clone(),
        };
        let config = RunConfig { device: choice.device, ..budget.config(&cell, recipe)? };
        Ok(Job::of(ClassifierJob {
            cell,
            config,
            decision_images: budget.decision_images,
            boundary_steps: budget.boundary_steps,
            search: budget.search.clone(),
        }))
    }
}

impl Budget {
    /// The configuration of a cell that is trained by a recipe, or by the paper's.
    pub fn config(&self, cell: &Cell, recipe: Option<&Recipe>) -> Result<RunConfig> {
        let mut config = match recipe {
            Some(recipe) => recipe.config(cell.dataset.clone())?,
            None => RunConfig::of(cell.dataset.clone()),
        };
        let extent = match cell.network {
            Net::Small => self.small,
            Net::Large => self.large,
            Net::Fc3 => self.fc3,
            Net::KwSmall => Extent { epochs: 1, train_limit: None, ..self.small },
        };
        if cell.network != Net::KwSmall || cell.method != Method::Published {
            config.network.name = cell.network;
            config.network.layer = cell.method;
        }
        config.data.train_limit = extent.train_limit;
        config.data.test_limit = extent.test_limit;
        config.training.in_epochs(extent.epochs);
        if cell.recipe.is_none() {
            config.training.schedule = self.schedule;
        }
        config.training.seed = cell.seed;
        let evaluation = &mut config.evaluation;
        evaluation.strong_pgd.restarts = self.strong_restarts;
        evaluation.auto_attack.images = extent.auto_images;
        if let Some(steps) = self.pgd_steps {
            let eps = evaluation.attack_eps.first().map_or(1.0, Eps::value);
            evaluation.pgd =
                PgdConfig { steps, step_size: 2.5 * eps / steps as f64, ..evaluation.pgd };
        }
        config.validate()?;
        Ok(config)
    }
}

/// The paper's figure for a cell, from the compiled-in experiments.
pub fn published_figure(cell: &Cell, what: What) -> Option<Figure> {
    compiled_in().iter().find_map(|experiment| experiment.own_figure(cell, what))
}

/// The compiled-in experiments; a test reads every one of them.
fn compiled_in() -> &'static [Experiment] {
    static ALL: OnceLock<Vec<Experiment>> = OnceLock::new();
    ALL.get_or_init(|| {
        experiments()
            .map(|(name, _)| Experiment::find(name).expect("a compiled-in experiment is valid"))
            .collect()
    })
}

fn shipped_budgets() -> &'static BTreeMap<String, Budget> {
    static ALL: OnceLock<BTreeMap<String, Budget>> = OnceLock::new();
    ALL.get_or_init(|| {
        let (_, text) = FILES.iter().find(|(name, _)| *name == BUDGETS).expect("a file of budgets");
        parse("budgets.toml", text).expect("the compiled-in budgets are valid")
    })
}

fn budget_names() -> String {
    shipped_budgets().keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn experiments() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().copied().filter(|(name, _)| *name != BUDGETS)
}

pub fn names() -> Vec<&'static str> {
    experiments().map(|(name, _)| name).collect()
}

fn parse<T: for<'a> Deserialize<'a>>(origin: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| crate::config::syntax_error(origin, text, &e))
}
