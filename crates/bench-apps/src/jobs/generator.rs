//! A generator of images like those of a data set.
//!
//! Guarantee: all critics of a data set under one budget see one frozen generator, whose hash is in their results. The job that
//! needs it first trains it, and the others wait.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use certify::Distribution;
use lipconv_datasets::{data_url, png_grid, sha256_file};

use super::distance::{GeneratorJob, GeneratorResult};
use super::job::{End, Job, JobResult, Work};
use crate::error::Error;
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, lock_folder, move_aside};
use crate::interrupt;
use crate::wasserstein::ImagePool;
use crate::wasserstein::gan::{GanEnd, GanJob, generator_file, train_gan, write_grid};
use crate::wasserstein::source::Loading;

/// Seed of the images beside a generator's.
const SHOWN_SEED: u64 = 1;

/// The images of the data.
pub(super) fn images(job: &GeneratorJob, work: &Work) -> Result<(ImagePool, Vec<String>)> {
    Loading { size: Some(job.size), population: false, options: &work.data }.images(&job.dataset)
}

/// Trains the generator and writes the result.
pub(super) fn run(plan: &GeneratorJob, folder: &Path, work: &Work) -> Result<End> {
    let start = Instant::now();
    // before the images are read: a critic that waits comes here every second
    let _lock = lock_folder(folder)?;
    let (images, notes) = images(plan, work)?;
    let whole = Job::Generator(plan.clone());
    if whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let device = build::device(plan.device)?;
    let run = folder.join("run");
    let job = GanJob {
        settings: &plan.settings,
        images: &images,
        device: &device,
        folder: &run,
        grid_every: (plan.settings.steps / 10).max(1),
        checkpoint_every: work.checkpoint_every,
        display: work.display,
    };
    let generator = match begin_anew_where_other(&run, || train_gan(&job))? {
        GanEnd::Finished(generator) => generator,
        GanEnd::Interrupted { .. } => return Ok(End::Interrupted),
    };
    let samples = generator.sample(64, SHOWN_SEED, 0)?;
    let shown = images.draw(64, SHOWN_SEED)?;
    write_grid(&folder.join("samples.png"), &samples, 8)?;
    write_grid(&folder.join("images.png"), &shown, 8)?;
    JobResult::Generator(GeneratorResult {
        plan: plan.clone(),
        dataset: images.name(),
        synthetic: images.is_synthetic(),
        sha256: sha256_file(&generator_file(&run))?,
        samples: data_url(&png_grid(&samples, 8)?),
        images: data_url(&png_grid(&shown, 8)?),
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::collect(&device_name(plan.device)),
        notes,
    })
    .put(folder)?;
    Ok(End::Finished)
}

/// The generator's folder beside a critic's, once it is trained; `None` after an interruption.
pub(super) fn trained_beside(
    job: &GeneratorJob,
    folder: &Path,
    work: &Work,
) -> Result<Option<PathBuf>> {
    let whole = Job::Generator(job.clone());
    let parent = folder.parent().context("the cell's folder has no parent")?;
    let beside = parent.join(whole.id());
    loop {
        if whole.result(&beside)?.is_some() {
            return Ok(Some(beside));
        }
        match run(job, &beside, work) {
            Ok(End::Interrupted) => return Ok(None),
            Ok(End::Finished | End::FinishedBefore) => {}
            Err(error) if matches!(error.downcast_ref(), Some(Error::RunLocked { .. })) => {
                if interrupt::requested() {
                    return Ok(None);
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(error) => return Err(error.context("the generator")),
        }
    }
}

/// Runs `work` in a folder; one that was begun with other settings is moved aside first.
fn begin_anew_where_other<T>(folder: &Path, work: impl Fn() -> Result<T>) -> Result<T> {
    match work() {
        Err(error) if matches!(error.downcast_ref(), Some(Error::OtherRun { .. })) => {
            let aside = move_aside(folder)?;
            crate::stdout::errln!(
                "starting anew, the settings differ; the old run is now {}",
                aside.display()
            );
            work()
        }
        outcome => outcome,
    }
}
