//! Critics on distributions whose distance is known exactly.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Device;
use certify::{Anchor, SamplePart};

use super::distance::{ANCHOR_STEPS, AnchorResult, AnchorsJob, AnchorsResult};
use super::job::{End, JobResult, Work};
use crate::config::{Activation, DeviceKind, Method};
use crate::experiment::build::device_name;
use crate::files::{Provenance, lock_folder};
use crate::progress::Progress;
use crate::wasserstein::critic::{CriticEnd, CriticJob, train_critic};
use crate::wasserstein::{CriticConfig, CriticNetwork, estimate};

/// Samples of an anchor that are measured.
const ANCHOR_SAMPLES: usize = 6400;

/// Trains the critics and writes the result.
pub(super) fn run(plan: &AnchorsJob, folder: &Path, work: &Work) -> Result<End> {
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
            let job = CriticJob {
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
