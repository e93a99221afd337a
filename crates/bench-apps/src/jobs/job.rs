//! A job and its result: names, folders, files; how a worker works, and how a job ends.
//!
//! Guarantee: files are replaced whole. A result counts for a job if it was made with the same settings, on any device.
//!
//! Errors: [`Error::Read`], [`Error::Malformed`], [`Error::Write`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lipconv_datasets::Dataset;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cell::{CellResult, ClassifierJob};
use super::distance::{
    AnchorsJob, AnchorsResult, CriticJob, CriticResult, GeneratorJob, GeneratorResult,
};
use crate::config::{DeviceKind, Net, RunConfig};
use crate::error::{Error, Result};
use crate::experiment::build::DataOptions;
use crate::experiment::training::TrainJob;
use crate::files::{RunDir, read_json, write_json};
use crate::progress::{Display, Report};

const PLAN: &str = "cell.json";
const RESULT: &str = "result.json";

/// A job with everything that is needed to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Job {
    Classifier(Box<ClassifierJob>),
    /// Evaluate a published classifier.
    Published(Box<ClassifierJob>),
    Generator(GeneratorJob),
    /// Train critics on distributions whose distance is known.
    Anchors(AnchorsJob),
    /// Train critics between data and generator, with several learning rates.
    Critic(CriticJob),
}

/// How far a job is, by the result in its folder.
#[derive(Debug)]
pub enum State {
    Finished(Box<JobResult>),
    /// There is no result, or that of a job with other settings.
    Missing,
    /// The file is there and holds no result, as when it was cut off; with the reason.
    Damaged(Error),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobResult {
    Classifier(Box<CellResult>),
    Published(Box<CellResult>),
    Generator(GeneratorResult),
    Anchors(AnchorsResult),
    Critic(CriticResult),
}

impl Job {
    pub fn of(job: ClassifierJob) -> Self {
        match job.cell.network {
            Net::KwSmall => Self::Published(Box::new(job)),
            _ => Self::Classifier(Box::new(job)),
        }
    }

    /// Name of the folder, and the name in messages.
    pub fn id(&self) -> String {
        match self {
            Self::Classifier(job) | Self::Published(job) => job.cell.id(),
            Self::Generator(job) => job.id(),
            Self::Anchors(_) => "anchors".into(),
            Self::Critic(job) => job.id(),
        }
    }

    /// The folder under `dir`.
    pub fn folder(&self, dir: &Path) -> PathBuf {
        let (kind, budget) = match self {
            Self::Classifier(job) | Self::Published(job) => ("cells", &job.cell.budget),
            Self::Generator(job) => ("distances", &job.budget),
            Self::Anchors(job) => ("distances", &job.budget),
            Self::Critic(job) => ("distances", &job.generator.budget),
        };
        dir.join(kind).join(budget).join(self.id())
    }

    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(PLAN);
        read_kind(&path)?.ok_or_else(|| Error::Read { path, source: ErrorKind::NotFound.into() })
    }

    /// Writes the job into its folder under `dir`. Attacks that the job there has are added to this one's.
    pub fn put(&mut self, dir: &Path) -> Result<PathBuf> {
        let folder = self.folder(dir);
        self.put_in(&folder)?;
        Ok(folder)
    }

    /// As [`Job::put`], into a folder of any name.
    pub fn put_in(&mut self, folder: &Path) -> Result<()> {
        // a job that cannot be read is replaced: nothing is lost by it
        let before = Self::read(folder).ok();
        if let (
            Self::Classifier(job) | Self::Published(job),
            Some(Self::Classifier(other) | Self::Published(other)),
        ) = (&mut *self, &before)
        {
            job.cell.add_attacks(&other.cell.attacks);
        }
        if before.as_ref() != Some(self) {
            write_json(&folder.join(PLAN), self)?;
        }
        Ok(())
    }

    /// The result in a folder, if it was made by this job, on any device. A damaged one counts as none: it is made again.
    pub fn result(&self, folder: &Path) -> Result<Option<JobResult>> {
        match self.state(folder)? {
            State::Finished(result) => Ok(Some(*result)),
            State::Missing | State::Damaged(_) => Ok(None),
        }
    }

    /// How far the job in a folder is.
    pub fn state(&self, folder: &Path) -> Result<State> {
        let found = match JobResult::read(folder) {
            Err(error) if is_damage(&error) => return Ok(State::Damaged(error)),
            found => found?,
        };
        let own = found.filter(|result| self.is_fulfilled_by(&result.job()));
        Ok(own.map_or(State::Missing, |result| State::Finished(Box::new(result))))
    }

    fn is_fulfilled_by(&self, done: &Self) -> bool {
        match (self, done) {
            (
                Self::Classifier(job) | Self::Published(job),
                Self::Classifier(done) | Self::Published(done),
            ) => job.is_fulfilled_by(done),
            _ => self.on(DeviceKind::Cpu) == done.on(DeviceKind::Cpu),
        }
    }

    pub fn on(&self, device: DeviceKind) -> Self {
        let mut job = self.clone();
        match &mut job {
            Self::Classifier(job) | Self::Published(job) => job.config.device = device,
            Self::Generator(job) => job.device = device,
            Self::Anchors(_) => {}
            Self::Critic(job) => job.generator.device = device,
        }
        job
    }

    /// Where the job stands in the queue: jobs that others wait for come first, then one seed after another.
    pub fn order(&self) -> (bool, u64) {
        match self {
            Self::Classifier(job) | Self::Published(job) => (true, job.cell.seed),
            Self::Critic(job) => (true, job.seed),
            Self::Generator(_) | Self::Anchors(_) => (false, 0),
        }
    }

    /// Work, in thousands of image passes of Small; for the remaining time alone.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Classifier(job) | Self::Published(job) => job.cost(),
            // a thousand images of Small take about as long as three steps of a critic
            Self::Generator(job) => 1 + job.cost() / 3,
            Self::Anchors(job) => 1 + job.cost() / 3,
            Self::Critic(job) => 1 + job.cost() / 3,
        }
    }

    /// The share of the job that is done, from the share of a part of it.
    pub fn fraction(&self, report: &Report) -> f64 {
        let part = report.done as f64 / report.total.max(1) as f64;
        match self {
            // the trainings of a search are short, and begin anew
            Self::Classifier(_) if report.label == "search" => 0.0,
            // about a quarter of the time goes into evaluation
            Self::Classifier(_) | Self::Published(_) if report.label == "training" => 0.75 * part,
            Self::Classifier(_) | Self::Published(_) => 0.75 + 0.2 * part,
            // a critic that trains the generator first has not begun its own work
            Self::Critic(_) if report.label == "generator" => 0.0,
            _ => part,
        }
    }
}

impl JobResult {
    /// Reads the result in a folder, if there is one.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        read_kind(&folder.join(RESULT))
    }

    /// Writes the result into its job's folder; this is the last step of a job.
    pub fn put(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(RESULT), self)
    }

    pub fn job(&self) -> Job {
        match self {
            Self::Classifier(result) => Job::Classifier(Box::new(result.plan.clone())),
            Self::Published(result) => Job::Published(Box::new(result.plan.clone())),
            Self::Generator(result) => Job::Generator(result.plan.clone()),
            Self::Anchors(result) => Job::Anchors(result.plan.clone()),
            Self::Critic(result) => Job::Critic(result.plan.clone()),
        }
    }

    /// The result in a few words.
    pub fn headline(&self) -> String {
        match self {
            Self::Classifier(result) | Self::Published(result) => result.headline(),
            Self::Generator(result) => format!("trained on {}", result.dataset),
            Self::Anchors(result) => result.headline(),
            Self::Critic(result) => result.headline(),
        }
    }
}

/// Whether a file was read and holds nothing of the kind, rather than that the system refused to read it.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Malformed { .. } => true,
        // bytes that are no text
        Error::Read { source, .. } => source.kind() == ErrorKind::InvalidData,
        _ => false,
    }
}

/// Reads a job or a result. Files of version 0.1 give no kind where it is a classifier.
fn read_kind<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(mut value) = read_json::<serde_json::Value>(path)? else { return Ok(None) };
    if let Some(object) = value.as_object_mut().filter(|object| !object.contains_key("kind")) {
        let cell =
            object.get("plan").and_then(|plan| plan.get("cell")).or_else(|| object.get("cell"));
        let published = cell.and_then(|cell| cell.get("method")).is_some_and(|m| m == "published");
        object.insert("kind".into(), if published { "published" } else { "classifier" }.into());
    }
    serde_json::from_value(value).map(Some).map_err(|e| Error::malformed(path, e))
}

/// Which jobs of an experiment, and where they compute.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    pub budget: &'a str,
    /// Other seeds than the budget's, for cells that have no seeds of their own.
    pub seeds: Option<&'a [u64]>,
    pub only: Option<&'a [String]>,
    pub device: DeviceKind,
}

impl Choice<'_> {
    pub(super) fn takes(&self, method: &str) -> bool {
        self.only.is_none_or(|only| only.iter().any(|name| name == method))
    }
}

#[derive(Debug, Clone)]
pub struct Work {
    pub data: DataOptions,
    pub checkpoint_every: Duration,
    pub display: Display,
    /// Which earlier work is used.
    pub reuse: Reuse,
    /// Opens the log of a run.
    pub log: fn(&Path) -> anyhow::Result<()>,
}

impl Work {
    /// The training of a run, shown under a label.
    pub(super) fn training<'a>(
        &self,
        label: &'static str,
        config: &'a RunConfig,
        dataset: &'a Dataset,
        run: &'a RunDir,
    ) -> TrainJob<'a> {
        let (display, checkpoint_every) = (self.display, self.checkpoint_every);
        TrainJob { config, dataset, label, run, display, checkpoint_every }
    }
}

/// Which earlier work of a job is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Its result, or its training with the same settings.
    Results,
    /// Its training with the same settings, by the same commit of the source.
    Training,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The result is written.
    Finished,
    FinishedBefore,
    /// A request to stop came; training is saved.
    Interrupted,
}
