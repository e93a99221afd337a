//! One cell of Table 4, from its plan to its result.
//!
//! Guarantee: as for other cells: an interrupted cell goes on from its last checkpoints, and two workers never run the same one. A
//! critic whose generator is being trained by another process waits for it; where nobody trains it, it does so itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;

use super::super::run::{End, Work};
use super::plan::{AnchorsPlan, CriticPlan, DistancePlan, GeneratorPlan, activation_key};
use super::result::{AnchorsResult, CriticResult, DistanceResult, GeneratorResult};
use crate::config::{ActivationKind, LayerKind};
use crate::data::hash::sha256_file;
use crate::error::Error;
use crate::experiment::build::{self, device_name};
use crate::files::Provenance;
use crate::files::{lock_folder, move_aside};
use crate::interrupt;
use crate::progress::Progress;
use crate::report::png_data_url;
use crate::wasserstein::anchors::{Anchor, AnchorResult};
use crate::wasserstein::gan::{GanEnd, GanJob, generator_file, train_gan};
use crate::wasserstein::grid::{grid_png, write_grid};
use crate::wasserstein::search::{Search, SearchEnd};
use crate::wasserstein::source::Loading;
use crate::wasserstein::training::{CriticEnd, CriticJob, train_critic};
use crate::wasserstein::{
    CriticConfig, CriticNetwork, Distribution, Generated, ImagePool, Part, estimate,
};

/// Steps in an epoch of an anchor's critic.
const ANCHOR_STEPS: usize = 25;
/// Samples of an anchor that are measured.
const ANCHOR_SAMPLES: usize = 6400;
/// Seed of the images beside a generator's.
const SHOWN_SEED: u64 = 1;

/// Runs the cell in `folder`, or what is missing of it.
///
/// # Errors
/// [`Error::RunLocked`] where another process runs it; images that cannot be had, and those of training.
pub fn run_distance(folder: &Path, plan: &DistancePlan, work: &Work) -> Result<End> {
    if plan.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    match plan {
        DistancePlan::Generator(generator) => run_generator(folder, generator, work),
        DistancePlan::Anchors(anchors) => run_anchors(folder, anchors, work),
        DistancePlan::Critic(critic) => run_critic(folder, critic, work),
    }
}

fn images(plan: &GeneratorPlan, work: &Work) -> Result<(ImagePool, Vec<String>)> {
    Loading { size: Some(plan.size), population: false, options: &work.data }.images(&plan.dataset)
}

fn run_generator(folder: &Path, plan: &GeneratorPlan, work: &Work) -> Result<End> {
    let start = Instant::now();
    // before the images are read: a critic that waits comes here every second
    let _lock = lock_folder(folder)?;
    let (images, notes) = images(plan, work)?;
    let whole = DistancePlan::Generator(plan.clone());
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
    DistanceResult::Generator(GeneratorResult {
        plan: plan.clone(),
        dataset: images.name(),
        synthetic: images.is_synthetic(),
        sha256: sha256_file(&generator_file(&run))?,
        samples: png_data_url(&grid_png(&samples, 8)?),
        images: png_data_url(&grid_png(&shown, 8)?),
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::collect(&device_name(plan.device)),
        notes,
    })
    .put(folder)?;
    Ok(End::Finished)
}

/// Runs `work` in a folder; one that was begun with other settings is moved aside first.
fn begin_anew_where_other<T>(folder: &Path, work: impl Fn() -> Result<T>) -> Result<T> {
    match work() {
        Err(error) if matches!(error.downcast_ref(), Some(Error::OtherRun { .. })) => {
            let aside = move_aside(folder)?;
            eprintln!("starting anew, the settings differ; the old run is now {}", aside.display());
            work()
        }
        outcome => outcome,
    }
}

/// The folder of a critic's generator, which lies beside its own, once it is trained; `None` after an interruption.
fn generator_folder(folder: &Path, plan: &GeneratorPlan, work: &Work) -> Result<Option<PathBuf>> {
    let whole = DistancePlan::Generator(plan.clone());
    let parent = folder.parent().context("the cell's folder has no parent")?;
    let beside = parent.join(whole.id());
    loop {
        if whole.result(&beside)?.is_some() {
            return Ok(Some(beside));
        }
        match run_generator(&beside, plan, work) {
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

fn run_critic(folder: &Path, plan: &CriticPlan, work: &Work) -> Result<End> {
    let _lock = lock_folder(folder)?;
    let whole = DistancePlan::Critic(plan.clone());
    if whole.result(folder)?.is_some() {
        return Ok(End::FinishedBefore);
    }
    let Some(beside) = generator_folder(folder, &plan.generator, work)? else {
        return Ok(End::Interrupted);
    };
    let (images, _) = images(&plan.generator, work)?;
    let device = build::device(plan.generator.device)?;
    let file = generator_file(&beside.join("run"));
    let generated = Generated::load(&file, Some(plan.generator.size), &device)?;
    let generator_sha256 = sha256_file(&file)?;
    let config = critic_config(plan);
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
    DistanceResult::Critic(CriticResult {
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

fn critic_config(plan: &CriticPlan) -> CriticConfig {
    CriticConfig {
        network: CriticNetwork::Paper { width: plan.width },
        method: plan.method,
        activation: plan.activation,
        epochs: plan.epochs,
        epoch_steps: plan.epoch_steps,
        batch_size: plan.batch_size,
        // one of the plan's takes its place
        learning_rate: plan.learning_rates[0],
        seed: plan.seed,
    }
}

fn run_anchors(folder: &Path, plan: &AnchorsPlan, work: &Work) -> Result<End> {
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
            let critic = AnchorCritic { plan, seed, method, activation };
            match critic.best(&anchor, &mut progress, done)? {
                Some(row) => rows.push(row),
                None => return Ok(End::Interrupted),
            }
        }
    }
    progress.finish();
    DistanceResult::Anchors(AnchorsResult {
        plan: plan.clone(),
        rows,
        seconds: start.elapsed().as_secs_f64(),
        provenance: Provenance::collect(&device_name(crate::config::DeviceKind::Cpu)),
    })
    .put(folder)?;
    Ok(End::Finished)
}

/// One kind of critic for the anchors.
struct AnchorCritic<'a> {
    plan: &'a AnchorsPlan,
    seed: u64,
    method: LayerKind,
    activation: ActivationKind,
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
        for (i, &learning_rate) in self.plan.learning_rates.iter().enumerate() {
            let config = self.config(learning_rate);
            let job = CriticJob {
                config: &config,
                a: &anchor.a,
                b: &anchor.b,
                device: &Device::Cpu,
                folder: None,
                checkpoint_every: Duration::MAX,
            };
            let before = done + i as u64 * config.n_steps();
            let label =
                format!("{}, {} {}", anchor.name, self.method, activation_key(self.activation));
            let critic = match train_critic(&job, progress, before, &label)? {
                CriticEnd::Finished(critic) => critic,
                CriticEnd::Lost { .. } => continue,
                CriticEnd::Interrupted => return Ok(None),
            };
            let on = |part| estimate(&critic.network, &anchor.a, &anchor.b, part, ANCHOR_SAMPLES);
            let (chosen_by, found) = (on(Part::Select)?, on(Part::Report)?);
            anchor.check(&found)?;
            if best.as_ref().is_none_or(|(value, _)| chosen_by.value > *value) {
                let row = AnchorResult {
                    name: anchor.name.into(),
                    method: self.method.to_string(),
                    activation: activation_key(self.activation).into(),
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
            epochs: self.plan.epochs,
            epoch_steps: ANCHOR_STEPS,
            batch_size: 64,
            learning_rate,
            seed: self.seed,
        }
    }
}
