//! Finished critics, sorted into the rows of a table.
//!
//! Definition. Critics that differ in method and seed alone, and saw the same generator, share a *row*; each method has a cell in it:
//! mean and standard deviation (n - 1) over the seeds of the estimates with the chosen learning rate. The second table has
//! every learning rate.
//!
//! Guarantee: a number that no finished critic has is absent. Critics of different generators never share a row.

use serde::Serialize;

use super::distance::{AnchorsResult, CriticJob, CriticResult, GeneratorResult};
use super::distance_spec::{Distances, PublishedDistances};
use super::job::JobResult;
use super::spec::Experiment;
use crate::config::{Activation, DatasetName, Method};
use crate::statistic::{Figure, Statistic};
use crate::words::once;

#[derive(Debug, Clone)]
pub struct DistanceSection {
    pub distances: Distances,
    /// Published estimates, for the data set of each row that has some.
    pub paper: Vec<(DatasetName, PublishedDistances)>,
    pub rows: Vec<DistanceRow>,
    /// Finished critics, in the order of the rows.
    pub critics: Vec<CriticResult>,
    pub generators: Vec<GeneratorResult>,
    /// Anchors, one for each budget.
    pub anchors: Vec<AnchorsResult>,
}

/// Critics that differ in method and seed alone.
#[derive(Debug, Clone, PartialEq)]
pub struct DistanceRow {
    /// One of them; the others have its generator and its plan but for method, seed and device.
    pub first: CriticResult,
    pub seeds: Vec<u64>,
    pub devices: Vec<String>,
    pub commits: Vec<String>,
    /// Time of one critic with all its rates, seconds, mean.
    pub seconds: f64,
    /// One for each method of the experiment.
    pub cells: Vec<DistanceCell>,
}

/// A method's place in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct DistanceCell {
    pub method: String,
    /// Reported estimates of the chosen rates.
    pub ours: Option<Statistic>,
    /// Standard error of one estimate, mean over the seeds.
    pub standard_error: Option<f64>,
    pub published: Option<Figure>,
    /// Every rate: the rate, the estimates, how often it was chosen, the largest bound, and how often training ended early.
    pub rates: Vec<RateCell>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RateCell {
    pub learning_rate: f64,
    pub ours: Option<Statistic>,
    /// Seeds for which it was the best on the samples kept for choosing.
    pub n_chosen: usize,
    /// Largest rigorous bound of a critic's Lipschitz constant.
    pub lipschitz: Option<f64>,
    /// Seeds whose training ended early.
    pub n_stopped: usize,
}

/// An order that the paper found, and whether it is ours too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// In words, as in "BCOP > RKO with MaxMin".
    pub statement: String,
    /// Whether the means are so.
    pub holds: bool,
}

/// A critic in `distances.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DistanceJson {
    experiment: String,
    dataset: String,
    synthetic: bool,
    size: usize,
    layer: Method,
    activation: Activation,
    seed: u64,
    budget: String,
    width: f64,
    steps: usize,
    batch_size: usize,
    device: String,
    commit: Option<String>,
    seconds: f64,
    learning_rate: f64,
    estimate: Option<f64>,
    standard_error: Option<f64>,
    confident: Option<f64>,
    lipschitz: Option<f64>,
    pairs: Option<[usize; 2]>,
    rates: Vec<RateJson>,
    paper: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct RateJson {
    learning_rate: f64,
    estimate: Option<f64>,
    standard_error: Option<f64>,
    lipschitz: Option<f64>,
    stopped: Option<String>,
}

impl DistanceRow {
    /// Whether a result belongs to the row.
    fn takes(&self, result: &CriticResult) -> bool {
        is_alike(&self.first, result, false)
    }

    /// What tells the row's images and budget from those of other rows, where there are others.
    fn prefix(&self, rows: &[Self]) -> String {
        let own = &self.first.plan.generator;
        let is_alike = |row: &Self| {
            let generator = &row.first.plan.generator;
            generator.dataset == own.dataset && generator.budget == own.budget
        };
        if rows.iter().all(is_alike) {
            return String::new();
        }
        format!("{}, {}: ", self.first.dataset, own.budget)
    }
}

/// Whether two critics of one generator differ in method, seed and device alone, or in the nonlinearity as well.
fn is_alike(a: &CriticResult, b: &CriticResult, any_activation: bool) -> bool {
    let mut plan = CriticJob { method: a.plan.method, seed: a.plan.seed, ..b.plan.clone() };
    plan.generator.device = a.plan.generator.device;
    if any_activation {
        plan.activation = a.plan.activation;
    }
    plan == a.plan && a.generator_sha256 == b.generator_sha256
}

impl DistanceSection {
    /// Sorts the finished jobs that belong to an experiment; `None` for one without distances.
    pub fn new(experiment: &Experiment, results: &[JobResult]) -> Option<Self> {
        let distances = experiment.wasserstein.as_ref()?;
        let mut critics: Vec<CriticResult> = Vec::new();
        let (mut generators, mut anchors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                JobResult::Critic(r) if distances.position(&r.plan).is_some() => {
                    critics.push(r.clone());
                }
                JobResult::Generator(r) => generators.push(r.clone()),
                JobResult::Anchors(r) if distances.anchors => anchors.push(r.clone()),
                _ => {}
            }
        }
        critics.sort_by_key(|r| {
            let [dataset, activation, method] = distances.position(&r.plan).unwrap_or_default();
            let budget = r.plan.generator.budget.clone();
            (dataset, budget, r.generator_sha256.clone(), activation, method, r.plan.seed)
        });
        generators.retain(|g: &GeneratorResult| {
            distances.datasets.contains(&g.plan.dataset) && g.plan.size == distances.size
        });
        let mut firsts: Vec<&CriticResult> = Vec::new();
        for critic in &critics {
            if !firsts.iter().any(|first| is_alike(first, critic, false)) {
                firsts.push(critic);
            }
        }
        let firsts: Vec<CriticResult> = firsts.into_iter().cloned().collect();
        let paper = |dataset: &DatasetName| {
            Some((dataset.clone(), experiment.paper_distances(dataset)?.clone()))
        };
        let paper = distances.datasets.iter().filter_map(paper).collect();
        let (distances, rows) = (distances.clone(), Vec::new());
        let mut section = Self { distances, paper, rows, critics, generators, anchors };
        section.rows = firsts.into_iter().map(|first| section.row(first)).collect();
        Some(section)
    }

    pub fn published(&self, dataset: &DatasetName) -> Option<&PublishedDistances> {
        self.paper.iter().find_map(|(of, paper)| (of == dataset).then_some(paper))
    }

    /// The first seed's critic of a method in a row.
    pub fn critic(&self, row: &DistanceRow, method: &str) -> Option<&CriticResult> {
        let mut of_row = self.critics.iter().filter(|critic| row.takes(critic));
        of_row.find(|critic| critic.plan.method.to_string() == method)
    }

    /// The paper's orders, for every row and pair of rows that has both numbers.
    pub fn orders(&self) -> Vec<Order> {
        let mut orders = Vec::new();
        for row in &self.rows {
            let name = row.first.plan.activation.title();
            for pair in row.cells.windows(2) {
                if let (Some(less), Some(more)) = (&pair[0].ours, &pair[1].ours) {
                    let (a, b) = (pair[1].method.to_uppercase(), pair[0].method.to_uppercase());
                    let statement = format!("{}{a} > {b} with {name}", row.prefix(&self.rows));
                    orders.push(Order { statement, holds: more.mean > less.mean });
                }
            }
        }
        let alike = |pair: &&[DistanceRow]| is_alike(&pair[0].first, &pair[1].first, true);
        for pair in self.rows.windows(2).filter(alike) {
            for (maxmin, relu) in pair[0].cells.iter().zip(&pair[1].cells) {
                if let (Some(more), Some(less)) = (&maxmin.ours, &relu.ours) {
                    let prefix = pair[0].prefix(&self.rows);
                    let method = maxmin.method.to_uppercase();
                    let [a, b] = [0, 1].map(|i| pair[i].first.plan.activation.title());
                    let statement = format!("{prefix}{a} > {b} with {method}");
                    orders.push(Order { statement, holds: more.mean > less.mean });
                }
            }
        }
        orders
    }

    pub fn json(&self, experiment: &str) -> Vec<DistanceJson> {
        self.critics.iter().map(|critic| self.critic_json(experiment, critic)).collect()
    }

    fn row(&self, first: CriticResult) -> DistanceRow {
        let mine = self.critics.iter().filter(|critic| is_alike(&first, critic, false));
        let mine: Vec<&CriticResult> = mine.collect();
        let mut seeds: Vec<u64> = mine.iter().map(|critic| critic.plan.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let seconds = mine.iter().map(|c| c.seconds).sum::<f64>() / mine.len().max(1) as f64;
        let methods = self.distances.methods.iter();
        DistanceRow {
            seeds,
            devices: once(mine.iter().map(|c| c.provenance.device.clone())),
            commits: once(mine.iter().filter_map(|c| c.provenance.commit.clone())),
            seconds,
            cells: methods.map(|method| self.cell(&first.plan, method, &mine)).collect(),
            first,
        }
    }

    fn cell(&self, plan: &CriticJob, method: &str, row: &[&CriticResult]) -> DistanceCell {
        let mine: Vec<&CriticResult> =
            row.iter().copied().filter(|critic| critic.plan.method.to_string() == method).collect();
        let found: Vec<_> = mine.iter().filter_map(|critic| critic.estimate()).collect();
        let values: Vec<f64> = found.iter().map(|e| e.value).collect();
        let errors: Vec<f64> = found.iter().map(|e| e.standard_error).collect();
        let rates = plan.learning_rates.iter().enumerate();
        let paper = self.published(&plan.generator.dataset);
        let is_synthetic = row.iter().any(|critic| critic.synthetic);
        DistanceCell {
            method: method.to_owned(),
            ours: Statistic::of(&values),
            standard_error: Statistic::of(&errors).map(|s| s.mean),
            published: paper
                .and_then(|paper| paper.figure(method, plan.activation))
                .filter(|_| !is_synthetic),
            rates: rates.map(|(i, &rate)| rate_cell(i, rate, &mine)).collect(),
        }
    }

    fn critic_json(&self, experiment: &str, critic: &CriticResult) -> DistanceJson {
        let plan = &critic.plan;
        let found = critic.estimate();
        let rates = critic.rates.iter().map(|rate| RateJson {
            learning_rate: rate.learning_rate,
            estimate: rate.report.map(|e| e.value),
            standard_error: rate.report.map(|e| e.standard_error),
            lipschitz: rate.report.map(|e| e.lipschitz),
            stopped: rate.stopped.clone(),
        });
        let paper = self
            .published(&plan.generator.dataset)
            .and_then(|paper| paper.figure(&plan.method.to_string(), plan.activation));
        DistanceJson {
            experiment: experiment.to_owned(),
            dataset: critic.dataset.clone(),
            synthetic: critic.synthetic,
            size: plan.generator.size,
            layer: plan.method,
            activation: plan.activation,
            seed: plan.seed,
            budget: plan.generator.budget.clone(),
            width: plan.width,
            steps: plan.epochs * plan.epoch_steps,
            batch_size: plan.batch_size,
            device: critic.provenance.device.clone(),
            commit: critic.provenance.commit.clone(),
            seconds: critic.seconds,
            learning_rate: critic
                .rates
                .get(critic.best)
                .map_or(f64::NAN, |rate| rate.learning_rate),
            estimate: found.map(|e| e.value),
            standard_error: found.map(|e| e.standard_error),
            confident: found.map(|e| e.confident),
            lipschitz: found.map(|e| e.lipschitz),
            pairs: found.map(|e| e.n_samples),
            rates: rates.collect(),
            paper: paper.filter(|_| !critic.synthetic).map(|figure| figure.mean()),
        }
    }
}

fn rate_cell(index: usize, learning_rate: f64, critics: &[&CriticResult]) -> RateCell {
    let results = || critics.iter().filter_map(|critic| critic.rates.get(index));
    let found: Vec<_> = results().filter_map(|rate| rate.report).collect();
    let values: Vec<f64> = found.iter().map(|e| e.value).collect();
    RateCell {
        learning_rate,
        ours: Statistic::of(&values),
        n_chosen: critics.iter().filter(|critic| critic.best == index).count(),
        lipschitz: found.iter().map(|e| e.lipschitz).reduce(f64::max),
        n_stopped: results().filter(|rate| rate.stopped.is_some()).count(),
    }
}
