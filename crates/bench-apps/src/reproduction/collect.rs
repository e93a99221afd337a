//! Finished cells as tables.
//!
//! Definition. Cells that differ in their seed alone share a row: mean and standard deviation (n - 1) over the seeds. Cells of
//! another budget, with other epochs or on other images are another row, and every row names all of these.
//!
//! Guarantee: a number that no finished cell has is an empty cell of the table. A cell whose result cannot be read is named
//! and left out, never guessed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cell::{CellResult, Plan};
use super::distances::rows::{DistanceJson, read_distances};
use super::distances::{DistanceResult, DistanceSection};
use super::evidence::Spectra;
use super::spec::{Experiment, NAMES};
use crate::eps::Eps;
use crate::error::{Error, Result};
use crate::report::paper::{self, Figure, Quoted};
use crate::results::ResultRow;

/// Everything that is written up.
#[derive(Debug, Clone)]
pub struct Reproduction {
    /// A section for each experiment.
    pub sections: Vec<Section>,
    /// Lines that a reader should see.
    pub notes: Vec<String>,
}

/// One table or figure.
#[derive(Debug, Clone)]
pub struct Section {
    /// What was to be run.
    pub experiment: Experiment,
    /// Its finished cells.
    pub results: Vec<CellResult>,
    /// Their rows, in the experiment's order.
    pub rows: Vec<Row>,
    /// Figures of other work that the paper quotes.
    pub quoted: Vec<&'static Quoted>,
    /// Distances, where the experiment measures any.
    pub distances: Option<DistanceSection>,
}

/// Cells that differ in their seed alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What the cells have in common.
    pub key: Key,
    /// Radius of the certified accuracy and of the attacks.
    pub eps: String,
    /// Seeds, ascending.
    pub seeds: Vec<u64>,
    /// Devices in words, each once.
    pub devices: Vec<String>,
    /// Commits, each once.
    pub commits: Vec<String>,
    /// Time of training and evaluation, seconds, mean over the seeds.
    pub seconds: f64,
    /// What was measured.
    pub columns: Vec<Column>,
}

/// What cells of a row have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Images.
    pub dataset: String,
    /// Whether they were drawn by a program.
    pub synthetic: bool,
    /// Architecture.
    pub network: String,
    /// Method.
    pub layer: String,
    /// Name of the budget.
    pub budget: String,
    /// Epochs trained.
    pub epochs: usize,
    /// Training images, where not all.
    pub train_limit: Option<usize>,
    /// Test images, where not all.
    pub test_limit: Option<usize>,
    /// Test images under the attacks that see decisions alone.
    pub first_images: Option<usize>,
}

/// A measured quantity beside the paper's.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// What was measured.
    pub what: What,
    /// Over the seeds.
    pub ours: Option<Statistic>,
    /// The paper's.
    pub paper: Option<Figure>,
}

/// Quantities of a table, percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Clean accuracy after the last epoch.
    Clean,
    /// Nominal certified accuracy.
    Certified,
    /// Certified accuracy as executed.
    Executed,
    /// Accuracy under PGD.
    Pgd,
    /// Accuracy under FGSM.
    Fgsm,
    /// Accuracy under the stronger PGD.
    StrongPgd,
    /// Clean accuracy after the epoch that is best on the test set, which the authors report.
    BestClean,
    /// Certified accuracy after that epoch.
    BestCertified,
    /// Clean accuracy on the first test images.
    FirstClean,
    /// Accuracy on them under the boundary attack.
    Boundary,
    /// Accuracy on them under the pointwise attack.
    Pointwise,
}

impl What {
    /// All, in the order of the columns.
    pub const ALL: [Self; 11] = [
        Self::Clean,
        Self::Certified,
        Self::Executed,
        Self::Pgd,
        Self::Fgsm,
        Self::StrongPgd,
        Self::BestClean,
        Self::BestCertified,
        Self::FirstClean,
        Self::Boundary,
        Self::Pointwise,
    ];

    /// Heading of the column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Certified => "certified",
            Self::Executed => "certified as executed",
            Self::Pgd => "PGD",
            Self::Fgsm => "FGSM",
            Self::StrongPgd => "strong PGD",
            Self::BestClean => "clean, best epoch",
            Self::BestCertified => "certified, best epoch",
            Self::FirstClean => "clean, first images",
            Self::Boundary => "boundary, first images",
            Self::Pointwise => "pointwise, first images",
        }
    }

    fn of(self, result: &CellResult, eps: &str) -> Option<f64> {
        let row = &result.row;
        let attacked = |name: &str| row.attacks.get(name)?.get(eps);
        let first = |name: &str| result.first_images.as_ref()?.attacked.get(name).copied();
        match self {
            Self::Clean => Some(row.clean),
            Self::Certified => row.certified.nominal.get(eps),
            Self::Executed => row.certified.executed.get(eps),
            Self::Pgd => attacked("pgd"),
            Self::Fgsm => attacked("fgsm"),
            Self::StrongPgd => attacked("strong_pgd"),
            Self::BestClean => result.best.map(|best| best.clean),
            Self::BestCertified => result.best.and_then(|best| best.certified),
            Self::FirstClean => result.first_images.as_ref().map(|first| first.clean),
            Self::Boundary => first("boundary"),
            Self::Pointwise => first("pointwise"),
        }
    }

    /// The paper's figure; what the paper calls its result is the best epoch's.
    fn paper(self, key: &Key) -> Option<Figure> {
        if key.synthetic {
            return None;
        }
        let reference = paper::reference(&key.dataset, &key.network, &key.layer);
        let first = paper::first_images(&key.dataset, &key.network, &key.layer);
        match self {
            Self::Clean | Self::BestClean => reference.map(|r| r.clean),
            Self::Certified | Self::BestCertified => reference.and_then(|r| r.certified),
            Self::Pgd => reference.and_then(|r| r.pgd).map(Figure::alone),
            Self::Fgsm => reference.and_then(|r| r.fgsm).map(Figure::alone),
            Self::FirstClean => first.map(|f| f[0]),
            Self::Boundary => first.map(|f| f[1]),
            Self::Pointwise => first.map(|f| f[2]),
            Self::Executed | Self::StrongPgd => None,
        }
    }
}

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistic {
    /// Number of values.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); `None` for one value.
    pub sd: Option<f64>,
}

impl Statistic {
    /// Of some values; `None` without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let sd = (n > 1).then(|| (squares / (n as f64 - 1.0)).sqrt());
        Some(Self { n, mean, sd })
    }
}

/// Reads every finished cell under `dir` and sorts them into the experiments.
///
/// # Errors
/// [`Error::Read`] when a folder cannot be listed.
pub fn collect(dir: &Path, experiments: &[Experiment]) -> Result<Reproduction> {
    let (results, mut notes) = read_results(dir)?;
    let (distances, unreadable) = read_distances(dir)?;
    notes.extend(unreadable);
    for note in results.iter().flat_map(|result| &result.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    let sections =
        experiments.iter().map(|experiment| section(experiment, &results, &distances)).collect();
    Ok(Reproduction { sections, notes })
}

/// The compiled-in experiments.
///
/// # Errors
/// [`Error::ConfigSyntax`] when a compiled-in file is invalid.
pub fn all_experiments() -> Result<Vec<Experiment>> {
    NAMES.iter().map(|name| Experiment::find(name)).collect()
}

impl Section {
    /// Whether the section shows spectra rather than accuracies.
    #[must_use]
    pub fn is_figure(&self) -> bool {
        self.experiment.spectra
    }

    /// The spectra of a row's first seed.
    #[must_use]
    pub fn spectra(&self, row: &Row) -> Option<&Spectra> {
        let result = self.results.iter().find(|result| key(result) == row.key)?;
        result.spectra.as_ref()
    }
}

impl Reproduction {
    /// The rows of `results.json`: one for each experiment and finished cell.
    #[must_use]
    pub fn result_rows(&self) -> Vec<ResultRow> {
        let rows = self.sections.iter().flat_map(|section| {
            let name = &section.experiment.name;
            section
                .results
                .iter()
                .map(|result| ResultRow { experiment: name.clone(), ..result.row.clone() })
        });
        rows.collect()
    }

    /// The rows of `wasserstein.json`: one for each experiment and finished critic.
    #[must_use]
    pub fn distance_rows(&self) -> Vec<DistanceJson> {
        let of = |section: &Section| {
            let name = &section.experiment.name;
            section.distances.as_ref().map_or_else(Vec::new, |distances| distances.json(name))
        };
        self.sections.iter().flat_map(of).collect()
    }
}

fn read_results(dir: &Path) -> Result<(Vec<CellResult>, Vec<String>)> {
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    for budget in folders(&dir.join("cells"))? {
        for folder in folders(&budget)? {
            match CellResult::read(&folder) {
                Ok(Some(result)) => results.push(result),
                Ok(None) => {}
                Err(error) => notes.push(format!("left out: {error}")),
            }
        }
    }
    Ok((results, notes))
}

pub(super) fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let read_error = |source| Error::Read { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(read_error(source)),
    };
    let mut paths =
        entries.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>().map_err(read_error)?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

fn section(
    experiment: &Experiment,
    results: &[CellResult],
    distances: &[DistanceResult],
) -> Section {
    let position = |plan: &Plan| experiment.position(&plan.cell);
    let mut mine: Vec<&CellResult> =
        results.iter().filter(|result| position(&result.plan).is_some()).collect();
    mine.sort_by_key(|result| {
        let cell = &result.plan.cell;
        (position(&result.plan), cell.budget.clone(), cell.seed)
    });
    let mut rows: Vec<Row> = Vec::new();
    for group in mine.chunk_by(|a, b| key(a) == key(b)) {
        rows.push(row(group));
    }
    drop_columns(&mut rows, experiment.columns.as_deref());
    Section {
        experiment: experiment.clone(),
        rows,
        quoted: paper::QUOTED.iter().filter(|q| q.experiment == experiment.name).collect(),
        results: mine.into_iter().cloned().collect(),
        distances: experiment.wasserstein.as_ref().map(|d| DistanceSection::new(d, distances)),
    }
}

fn key(result: &CellResult) -> Key {
    let data = &result.plan.config.data;
    Key {
        dataset: result.row.dataset.clone(),
        synthetic: result.row.synthetic,
        network: result.row.network.clone(),
        layer: result.row.layer.clone(),
        budget: result.plan.cell.budget.clone(),
        epochs: result.row.epochs,
        train_limit: data.train_limit,
        test_limit: data.test_limit,
        first_images: result.first_images.as_ref().map(|first| first.n),
    }
}

fn row(group: &[&CellResult]) -> Row {
    let key = key(group[0]);
    let eps = group[0].plan.config.evaluation.attack_eps.first().map_or("", Eps::text).to_owned();
    let column = |what: What| {
        let values: Vec<f64> = group.iter().filter_map(|result| what.of(result, &eps)).collect();
        Column { what, ours: Statistic::of(&values), paper: what.paper(&key) }
    };
    let columns = What::ALL.into_iter().map(column).collect();
    let once = |texts: &mut dyn Iterator<Item = String>| {
        let mut texts: Vec<String> = texts.collect();
        texts.sort();
        texts.dedup();
        texts
    };
    let seconds = group.iter().map(|r| r.row.seconds).sum::<f64>() / group.len() as f64;
    Row {
        eps,
        seeds: group.iter().map(|r| r.row.seed).collect(),
        devices: once(&mut group.iter().map(|r| r.row.device.clone())),
        commits: once(&mut group.iter().filter_map(|r| r.row.commit.clone())),
        seconds,
        columns,
        key,
    }
}

/// Keeps the columns that are wanted and that some row has a figure of ours for; others say nothing.
fn drop_columns(rows: &mut [Row], wanted: Option<&[What]>) {
    let used: Vec<What> = What::ALL
        .into_iter()
        .filter(|what| wanted.is_none_or(|wanted| wanted.contains(what)))
        .filter(|what| {
            rows.iter().flat_map(|row| &row.columns).any(|c| c.what == *what && c.ours.is_some())
        })
        .collect();
    for row in rows {
        row.columns.retain(|column| used.contains(&column.what));
    }
}
