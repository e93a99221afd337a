//! Generators of images like those of a data set, critics between the two, and critics on distributions whose distance is known: run.
//!
//! Guarantee: all critics of a data set under one budget see one frozen generator, whose hash is in their results. The job that
//! needs it first trains it, and the others wait.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use certify::{Anchor, Distribution, SamplePart};
use lipconv_datasets::{data_url, png_grid, sha256_file};

use super::distance::{
    ANCHOR_STEPS, AnchorResult, AnchorsJob, AnchorsResult, CriticJob, CriticResult, GeneratorJob,
    GeneratorResult,
};
use super::job::{End, Job, JobResult, Work};
use crate::config::{Activation, DeviceKind, Method};
use crate::error::Error;
use crate::experiment::build::{self, device_name};
use crate::files::{Provenance, begin_anew, lock_folder};
use crate::interrupt;
use crate::progress::Progress;
use crate::wasserstein::critic::{CriticEnd, CriticJob as CriticTraining, train_critic};
use crate::wasserstein::gan::{GanEnd, GanJob, generator_file, train_gan, write_grid};
use crate::wasserstein::search::{Search, SearchEnd};
use crate::wasserstein::source::Loading;
use crate::wasserstein::{CriticConfig, CriticNetwork, Generated, ImagePool, estimate};

/// Seed of the images beside a generator's.
const SHOWN_SEED: u64 = 1;

fn images(job: &GeneratorJob, work: &Work) -> Result<(ImagePool, Vec<String>)> {
    Loading { size: Some(job.size), population: false, options: &work.data }.images(&job.dataset)
}

pub(super) fn generator(plan: &GeneratorJob, folder: &Path, work: &Work) -> Result<End> {
    let start = Instant::now();
    // before the images are read: a critic that waits comes here every second
    let _lock = lock_folder(folder)?;
    let (images, notes) = images(plan, work)?;
    let whole = Job::Generator(plan.clone());
    if whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let device = build::distance_device(plan.device)?;
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
    let trained = match train_gan(&job) {
        Err(error) if matches!(error.downcast_ref(), Some(Error::OtherRun { .. })) => {
            begin_anew(&run, "the settings differ")?;
            train_gan(&job)
        }
        trained => trained,
    };
    let frozen = match trained? {
        GanEnd::Finished(frozen) => frozen,
        GanEnd::Interrupted { .. } => return Ok(End::Interrupted),
    };
    let samples = frozen.sample(64, SHOWN_SEED, 0)?;
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
fn trained_beside(job: &GeneratorJob, folder: &Path, work: &Work) -> Result<Option<PathBuf>> {
    let whole = Job::Generator(job.clone());
    let parent = folder.parent().context("the cell's folder has no parent")?;
    let beside = parent.join(whole.id());
    loop {
        if whole.result(&beside)?.is_some() {
            return Ok(Some(beside));
        }
        match generator(job, &beside, work) {
            Ok(End::Interrupted) => return Ok(None),
            Ok(End::Finished | End::FinishedBefore) => return Ok(Some(beside)),
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

pub(super) fn critic(plan: &CriticJob, folder: &Path, work: &Work) -> Result<End> {
    let _lock = lock_folder(folder)?;
    let whole = Job::Critic(plan.clone());
    if whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let Some(beside) = trained_beside(&plan.generator, folder, work)? else {
        return Ok(End::Interrupted);
    };
    let (images, _) = images(&plan.generator, work)?;
    let device = build::distance_device(plan.generator.device)?;
    let file = generator_file(&beside.join("run"));
    let generated = Generated::load(&file, Some(plan.generator.size), &device)?;
    let generator_sha256 = sha256_file(&file)?;
    let config = config(plan);
    let search = Search {
        config: &config,
        rates: &plan.learning_rates,
        a: &images,
        b: &generated,
        device: &device,
        folder: &folder.join("run"),
        purpose: serde_json::json!({ "plan": whole, "generator": generator_sha256 }),
        n_select: plan.n_select,
        n_report: plan.n_report,
        checkpoint_every: work.checkpoint_every,
        display: work.display,
    };
    let found = match search.run()? {
        SearchEnd::Finished(found) => found,
        SearchEnd::Interrupted => return Ok(End::Interrupted),
    };
    let seconds = found.rates.iter().map(|rate| rate.seconds).sum();
    JobResult::Critic(CriticResult {
        plan: plan.clone(),
        dataset: images.name(),
        synthetic: images.is_synthetic(),
        generator_sha256,
        rates: found.rates,
        best: found.best,
        seconds,
        provenance: Provenance::collect(&device_name(plan.generator.device)),
    })
    .put(folder)?;
    Ok(End::Finished)
}

fn config(plan: &CriticJob) -> CriticConfig {
    CriticConfig {
        network: CriticNetwork::Paper { width: plan.width },
        method: plan.method,
        activation: plan.activation,
        epochs: plan.epochs,
        epoch_steps: plan.epoch_steps,
        batch_size: plan.batch_size,
        // one of the job's takes its place
        learning_rate: plan.learning_rates[0],
        seed: plan.seed,
    }
}

/// Samples of an anchor that are measured.
const ANCHOR_SAMPLES: usize = 6400;

pub(super) fn anchors(plan: &AnchorsJob, folder: &Path, work: &Work) -> Result<End> {
    let start = Instant::now();
    let _lock = lock_folder(folder)?;
    let mut critics = Vec::new();
    for &seed in &plan.seeds {
        for &method in &plan.methods {
            critics.extend(plan.activations.iter().map(|&activation| (seed, method, activation)));
        }
    }
    let each = (plan.epochs * ANCHOR_STEPS * plan.learning_rates.len()) as u64;
    let n_anchors = Anchor::all(0)?.len() as u64;
    let total = each * n_anchors * critics.len() as u64;
    let mut progress = Progress::new(work.display, "anchors", 0, total);
    let mut rows = Vec::new();
    for (seed, method, activation) in critics {
        for anchor in Anchor::all(seed)? {
            let done = rows.len() as u64 * each;
            let critic = AnchorCritic { job: plan, seed, method, activation };
            match critic.best(&anchor, &mut progress, done)? {
                Some(row) => rows.push(row),
                None => return Ok(End::Interrupted),
            }
        }
    }
    progress.finish();
    JobResult::Anchors(AnchorsResult {
        plan: plan.clone(),
        rows,
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::collect(&device_name(DeviceKind::Cpu)),
    })
    .put(folder)?;
    Ok(End::Finished)
}

/// One kind of critic for the anchors.
struct AnchorCritic<'a> {
    job: &'a AnchorsJob,
    seed: u64,
    method: Method,
    activation: Activation,
}

impl AnchorCritic<'_> {
    /// The best learning rate's row, each estimate checked against the exact distance; `None` after an interruption.
    fn best(
        &self,
        anchor: &Anchor,
        progress: &mut Progress,
        done: u64,
    ) -> Result<Option<AnchorResult>> {
        let mut best: Option<(f64, AnchorResult)> = None;
        for (i, &learning_rate) in self.job.learning_rates.iter().enumerate() {
            let config = self.config(learning_rate);
            let job = CriticTraining {
                config: &config,
                a: &anchor.a,
                b: &anchor.b,
                device: &Device::Cpu,
                folder: None,
                checkpoint_every: Duration::MAX,
            };
            let before = done + i as u64 * config.n_steps();
            let label = format!("{}, {} {}", anchor.name, self.method, self.activation);
            let critic = match train_critic(&job, progress, before, &label)? {
                CriticEnd::Finished(critic) => critic,
                CriticEnd::Lost { .. } => continue,
                CriticEnd::Interrupted => return Ok(None),
            };
            let on = |part| estimate(&critic.network, &anchor.a, &anchor.b, part, ANCHOR_SAMPLES);
            let (chosen_by, found) = (on(SamplePart::Select)?, on(SamplePart::Report)?);
            anchor.check(found.value, found.standard_error)?;
            if best.as_ref().is_none_or(|(value, _)| chosen_by.value > *value) {
                let row = AnchorResult {
                    name: anchor.name.into(),
                    method: self.method,
                    activation: self.activation,
                    exact: anchor.exact,
                    estimate: found,
                    seed: self.seed,
                };
                best = Some((chosen_by.value, row));
            }
        }
        let (_, row) =
            best.with_context(|| format!("{}: no critic could be frozen", anchor.name))?;
        Ok(Some(row))
    }

    fn config(&self, learning_rate: f64) -> CriticConfig {
        CriticConfig {
            network: CriticNetwork::Vector,
            method: self.method,
            activation: self.activation,
            epochs: self.job.epochs,
            epoch_steps: ANCHOR_STEPS,
            batch_size: 64,
            learning_rate,
            seed: self.seed,
        }
    }
}
