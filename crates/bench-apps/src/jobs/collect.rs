//! Finished jobs, sorted into their experiments.
//!
//! Definition. Cells that differ in their seed alone share a [`Group`]: mean and standard deviation (n - 1) over the seeds. Cells
//! of another budget, with other epochs or on other images are another group.
//!
//! Guarantee: a number that no finished cell has is absent. A result that cannot be read is named and left out, never
//! guessed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use certify::LogitBound;

use super::cell::{Cell, CellResult};
use super::collect_distances::{DistanceJson, DistanceSection};
use super::evidence::Spectra;
use super::job::{Job, JobResult};
use super::spec::Experiment;
use crate::config::{DatasetName, DecisionAttack};
use crate::error::{Error, Result};
use crate::results::ResultRow;
use crate::statistic::{Figure, Statistic, What};
use crate::words::{distinct, once};

/// Everything that is written up.
#[derive(Debug, Clone)]
pub struct Reproduction {
    pub sections: Vec<Section>,
    pub notes: Vec<String>,
}

/// One table or figure.
#[derive(Debug, Clone)]
pub struct Section {
    pub experiment: Experiment,
    pub results: Vec<CellResult>,
    /// The same in groups, in the experiment's order.
    pub groups: Vec<Group>,
    pub distances: Option<DistanceSection>,
}

/// Cells that differ in their seed alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The first seed's cell.
    pub cell: Cell,
    pub synthetic: bool,
    pub extent: Extent,
    /// Radius of the certified accuracy and of the attacks.
    pub eps: String,
    pub seeds: Vec<u64>,
    pub devices: Vec<String>,
    pub commits: Vec<String>,
    /// Time of training and evaluation, seconds, mean over the seeds.
    pub seconds: f64,
    /// Quantities over the seeds beside the paper's, in the order of [`What::ALL`].
    pub values: Vec<(What, Option<Statistic>, Option<Figure>)>,
    /// All radii of the evaluation, as they are written.
    pub radii: Vec<String>,
    /// Quantities at each of those radii.
    pub curves: Vec<(What, String, Statistic)>,
    /// Whether the nominal radius uses the distances of the last weight's rows.
    pub pairwise: bool,
}

/// Epochs and numbers of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Epochs trained; 0 for a network that was not trained here.
    pub epochs: usize,
    /// Training images, where not all.
    pub train_limit: Option<usize>,
    /// Test images, where not all.
    pub test_limit: Option<usize>,
    /// Test images under the attacks that see decisions alone.
    pub first_images: Option<usize>,
    /// Test images under AutoAttack, where not all.
    pub auto_images: Option<usize>,
}

impl Group {
    /// A quantity: ours and the paper's.
    pub fn value(&self, what: What) -> (Option<Statistic>, Option<Figure>) {
        let found = self.values.iter().find(|(other, ..)| *other == what);
        found.map_or((None, None), |(_, ours, paper)| (*ours, *paper))
    }

    /// A quantity at any radius of the evaluation.
    pub fn value_at(&self, what: What, eps: &str) -> Option<Statistic> {
        let mut curves = self.curves.iter();
        curves.find(|(w, e, _)| *w == what && e == eps).map(|(.., value)| *value)
    }

    /// The data set's name; synthetic digits may stand in for MNIST.
    pub fn dataset(&self) -> String {
        dataset_title(&self.cell.dataset, self.synthetic)
    }
}

/// Whether two results differ in their seed alone, whatever other attacks there were.
fn are_alike(a: &CellResult, b: &CellResult) -> bool {
    let own = &a.plan.cell;
    let cell = Cell { seed: own.seed, attacks: own.attacks.clone(), ..b.plan.cell.clone() };
    cell == *own && a.row.synthetic == b.row.synthetic && extent(a) == extent(b)
}

/// The name of a data set in tables.
pub fn dataset_title(dataset: &DatasetName, synthetic: bool) -> String {
    if synthetic { DatasetName::Synthetic.title() } else { dataset.title() }
}

impl Section {
    /// The spectra of a group's first seed.
    pub fn spectra(&self, group: &Group) -> Option<&Spectra> {
        let is_first = |result: &&CellResult| {
            let (plan, row) = (&result.plan, &result.row);
            let same = plan.cell == group.cell && row.synthetic == group.synthetic;
            same && extent(result) == group.extent
        };
        self.results.iter().find(is_first)?.spectra.as_ref()
    }

    /// The quantities to show: those that are wanted and that some group has.
    pub fn quantities(&self) -> Vec<What> {
        let wanted = self.experiment.quantities.as_deref();
        let measured = |what: &What| self.groups.iter().any(|group| group.value(*what).0.is_some());
        What::ALL
            .into_iter()
            .filter(|what| wanted.is_none_or(|wanted| wanted.contains(what)))
            .filter(measured)
            .collect()
    }
}

impl Reproduction {
    /// The rows of `results.json`: one for each experiment and finished cell.
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

    /// The rows of `distances.json`: one for each experiment and finished critic.
    pub fn distance_rows(&self) -> Vec<DistanceJson> {
        let of = |section: &Section| {
            let name = &section.experiment.name;
            section.distances.as_ref().map_or_else(Vec::new, |distances| distances.json(name))
        };
        self.sections.iter().flat_map(of).collect()
    }
}

/// Reads every finished job under `dir` and sorts them into the experiments. With them, why results that belong there, or may
/// do so, cannot be read.
pub fn collect(dir: &Path, experiments: &[Experiment]) -> Result<(Reproduction, Vec<Error>)> {
    let (mut results, mut notes, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    // what the result is of, the job beside it says
    let belongs = |folder: &Path| {
        let job = Job::read(folder).ok();
        job.is_none_or(|job| experiments.iter().any(|experiment| experiment.shows(&job)))
    };
    for kind in ["cells", "distances"] {
        for budget in folders(&dir.join(kind))? {
            for folder in folders(&budget)? {
                match JobResult::read(&folder) {
                    Ok(found) => results.extend(found),
                    Err(error) => {
                        notes.push(format!("left out: {error}"));
                        unreadable.extend(belongs(&folder).then_some(error));
                    }
                }
            }
        }
    }
    Ok((sorted(results, notes, experiments), unreadable))
}

/// The folders in a folder, in order; none where it is missing.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::read(dir)(source)),
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(Error::read(dir))?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

pub fn sorted(
    results: Vec<JobResult>,
    mut notes: Vec<String>,
    experiments: &[Experiment],
) -> Reproduction {
    let (mut cells, mut distances) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            JobResult::Classifier(cell) | JobResult::Published(cell) => cells.push(*cell),
            other => distances.push(other),
        }
    }
    notes.extend(cells.iter().flat_map(|result| result.notes.clone()));
    let notes = distinct(notes);
    let section = |experiment: &Experiment| {
        let distances = DistanceSection::new(experiment, &distances);
        Section { distances, ..section(experiment, &cells) }
    };
    Reproduction { sections: experiments.iter().map(section).collect(), notes }
}

fn section(experiment: &Experiment, results: &[CellResult]) -> Section {
    let position = |result: &CellResult| experiment.position(&result.plan.cell);
    let mut mine: Vec<CellResult> =
        results.iter().filter(|result| position(result).is_some()).cloned().collect();
    mine.sort_by_key(|result| {
        let cell = &result.plan.cell;
        (position(result), cell.budget.clone(), cell.seed)
    });
    let mut groups: Vec<Vec<&CellResult>> = Vec::new();
    for result in &mine {
        match groups.iter_mut().find(|members| are_alike(members[0], result)) {
            Some(members) => members.push(result),
            None => groups.push(vec![result]),
        }
    }
    let groups = groups.iter().map(|members| group(experiment, members)).collect();
    Section { experiment: experiment.clone(), groups, results: mine, distances: None }
}

fn group(experiment: &Experiment, members: &[&CellResult]) -> Group {
    let (first, cell) = (members[0], &members[0].plan.cell);
    let certified = &first.row.certified;
    let radii: Vec<String> = certified.nominal.iter().map(|(eps, _)| eps.to_string()).collect();
    let ours = |what: What, eps: &str| {
        let values: Vec<f64> =
            members.iter().filter_map(|result| measured(result, what, eps)).collect();
        Statistic::of(&values)
    };
    let at = |what: What| {
        radii.iter().filter_map(move |eps| Some((what, eps.clone(), ours(what, eps)?)))
    };
    let value = |what: What| {
        let paper = experiment.paper(cell, what).filter(|_| !first.row.synthetic);
        (what, ours(what, first.eps()), paper)
    };
    Group {
        curves: [What::Certified, What::Real, What::Executed].into_iter().flat_map(at).collect(),
        values: What::ALL.into_iter().map(value).collect(),
        seeds: members.iter().map(|r| r.row.seed).collect(),
        devices: once(members.iter().map(|r| r.row.device.clone())),
        commits: once(members.iter().filter_map(|r| r.row.commit.clone())),
        seconds: members.iter().map(|r| r.row.seconds).sum::<f64>() / members.len() as f64,
        cell: cell.clone(),
        synthetic: first.row.synthetic,
        extent: extent(first),
        eps: first.eps().to_owned(),
        pairwise: certified.nominal_bound == LogitBound::Pairwise,
        radii,
    }
}

fn extent(result: &CellResult) -> Extent {
    let data = &result.plan.config.data;
    let auto = result.row.auto_attack.first();
    Extent {
        epochs: result.row.epochs,
        train_limit: data.train_limit,
        test_limit: data.test_limit,
        first_images: result.first_images.as_ref().map(|first| first.n),
        auto_images: auto.map(|auto| auto.n_images).filter(|&n| n < n_test(result)),
    }
}

/// Test images, as far as the result knows.
fn n_test(result: &CellResult) -> usize {
    result.data.as_ref().map_or(usize::MAX, |data| data.n_test)
}

fn measured(result: &CellResult, what: What, eps: &str) -> Option<f64> {
    let row = &result.row;
    let attacked = |name: &str| row.attacks.get(name)?.get(eps);
    let auto = || row.auto_attack.iter().find(|auto| auto.eps == eps);
    // where AutoAttack had all images, these figures stand in rows of their own
    let auto_part = || auto().filter(|auto| auto.n_images < n_test(result));
    let first = |attack| result.first_images.as_ref()?.attacked.get(&attack).copied();
    match what {
        What::Clean => Some(row.clean),
        What::Certified => row.certified.nominal.get(eps),
        What::Real => row.certified.real.get(eps),
        What::Executed => row.certified.executed.get(eps),
        What::Accumulated => result.accumulated.get(eps),
        What::Pgd => attacked("pgd"),
        What::Fgsm => attacked("fgsm"),
        What::StrongPgd => attacked("strong_pgd"),
        What::AutoAttack => auto().map(|auto| auto.accuracy),
        What::AutoClean => auto_part().map(|auto| auto.clean),
        What::AutoCertified => auto_part().and_then(|auto| auto.certified),
        What::BestClean => result.best.map(|best| best.clean),
        What::BestCertified => result.best.and_then(|best| best.certified),
        What::FirstClean => result.first_images.as_ref().map(|first| first.clean),
        What::Boundary => first(DecisionAttack::Boundary),
        What::Pointwise => first(DecisionAttack::Pointwise),
    }
}
