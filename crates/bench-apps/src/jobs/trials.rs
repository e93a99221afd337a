//! The runs of a classifier: opened, or tried with several learning rates first.
//!
//! Guarantee: no test image takes part in a choice. The runs of a search are run directories: an interrupted search goes on, a
//! finished one has the same outcome again. A rate at which training fails is not chosen.

use std::path::Path;

use anyhow::{Result, bail};
use lipconv_datasets::Dataset;

use super::cell::{ClassifierJob, Search};
use super::job::{Reuse, Work};
use crate::config::require;
use crate::experiment::evaluation::headline;
use crate::experiment::training::{Trained, train};
use crate::files::{Provenance, RunDir, RunFiles, begin_anew};

/// The run, continued where it may be, else new; an old one is moved aside.
pub(super) fn open_run(
    job: &ClassifierJob,
    path: &Path,
    reuse: Reuse,
    provenance: &Provenance,
) -> Result<RunDir> {
    let Ok(old) = RunFiles::open(path) else {
        return Ok(RunDir::create(path, &job.config, provenance)?);
    };
    // held until the folder is moved: nobody else may be writing in it
    let lock = RunDir::resume(path)?;
    let same_commit = || old.provenance().is_ok_and(|p| p.commit == provenance.commit);
    let why = match old.config() {
        _ if reuse == Reuse::Nothing => "as asked for",
        Ok(before) if !before.trains_as(&job.config) => "its settings differ",
        Ok(_) if reuse == Reuse::Training && !same_commit() => {
            "it was made by another version of the source"
        }
        Ok(_) => {
            crate::stdout::errln!("going on with the run in {}", path.display());
            return Ok(lock);
        }
        Err(_) => "its configuration cannot be read",
    };
    begin_anew(path, why)?;
    drop(lock);
    Ok(RunDir::create(path, &job.config, provenance)?)
}

/// The job with its rate and epochs; none where the search was interrupted.
pub(super) fn settled(
    job: &ClassifierJob,
    search: &Search,
    dataset: &Dataset,
    (folder, work, provenance): (&Path, &Work, &Provenance),
) -> Result<Option<ClassifierJob>> {
    let n = dataset.train.len();
    let (held_out, expected) = (search.held_out, format!("fewer than {n} training images"));
    require(held_out < n, "search.held_out", held_out, &expected)?;
    let rest = n - held_out;
    let (fit, choose) =
        (dataset.train.head(rest.min(search.images)), dataset.train.subset(rest..n)?);
    let split = Dataset { train: fit, test: choose, ..dataset.clone() };
    let (mut best, mut seconds, mut steps) = (None, 0.0, 0);
    for &rate in &search.learning_rates {
        let mut trial = job.clone();
        trial.config.training.learning_rate = rate;
        trial.config.training.in_epochs(search.epochs);
        trial.config.evaluation.every = search.epochs;
        let path = folder.join("search").join(rate.to_string());
        let run = open_run(&trial, &path, work.reuse, provenance)?;
        run.bind_data(&split)?;
        match train(&work.training("search", &trial.config, &split, &run)) {
            Ok(Trained::Interrupted { .. }) => return Ok(None),
            Err(error) if error.is::<lipconv::Error>() => {
                tracing::warn!(rate, "left out: {error:#}");
                continue;
            }
            done => done?,
        };
        let Some(last) = run.files().metrics()?.pop() else { continue };
        (seconds, steps) = (seconds + last.seconds, steps + last.step);
        let eps = headline(&trial.config.evaluation);
        let certified = last.test_certified.zip(eps).and_then(|(all, eps)| all.get(eps.text()));
        if best.is_none_or(|(score, _)| certified > score) {
            best = Some((certified, rate));
        }
    }
    let Some((_, rate)) = best else { bail!("training failed at every rate of the search") };
    let mut job = job.clone();
    let training = &mut job.config.training;
    let epoch = seconds / steps.max(1) as f64 * n.div_ceil(training.batch_size) as f64;
    let (most, fitting) = (training.epochs as f64, 60.0 * search.minutes / epoch);
    training.learning_rate = rate;
    training.in_epochs(fitting.round().clamp(1.0, most) as usize);
    if fitting < 1.0 {
        let images = ((fitting * n as f64).round() as usize).max(training.batch_size).min(n);
        job.config.data.train_limit = Some(images);
    }
    Ok(Some(job))
}
