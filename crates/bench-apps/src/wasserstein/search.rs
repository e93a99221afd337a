//! The best of several learning rates.
//!
//! Definition: a critic is trained with each rate from the same beginning. Each is measured on the samples kept for choosing and on those
//! that are reported; the one with the largest estimate on the *former* is the result.
//!
//! Guarantee: the reported samples take no part in the choice, so that the reported estimate of the chosen rate is as unbiased as
//! that of any. If training diverges at a rate, its last valid measurement is used; without one the rate is skipped.
//! Finished rates are not run again. A folder of another search is moved aside, never deleted.
//!
//! Files: `begun.json`, and for each rate `lr-RATE/` with checkpoint, curve, `critic.safetensors` and, at the end, `rate.json`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::Device;
use certify::{Distribution, SamplePart};
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};

use super::critic::{CriticConfig, CriticEnd, CriticJob, CurvePoint, train_critic};
use super::distribution::{Estimate, estimate};
use crate::files::{Claim, begin_anew, claim, read_json, write_json};
use crate::progress::{Display, Progress};

/// The result of one learning rate.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RateResult {
    pub learning_rate: f64,
    /// On the samples kept for choosing.
    pub select: Option<Estimate>,
    /// On the reported samples.
    pub report: Option<Estimate>,
    pub curve: Vec<CurvePoint>,
    pub n_steps: u64,
    /// Why training ended early or nothing could be measured, where that is so.
    pub stopped: Option<String>,
    /// Time spent by the process that finished it.
    pub seconds: f64,
}

#[derive(Debug)]
pub struct Search<'a> {
    /// Settings; the learning rate is replaced.
    pub config: &'a CriticConfig,
    pub rates: &'a [f64],
    /// The distribution with the larger critic.
    pub a: &'a dyn Distribution,
    pub b: &'a dyn Distribution,
    pub device: &'a Device,
    pub folder: &'a Path,
    /// The settings of the search as JSON: a folder with other settings is not resumed.
    pub purpose: serde_json::Value,
    /// Pairs to choose on.
    pub n_select: usize,
    pub n_report: usize,
    pub checkpoint_every: Duration,
    pub display: Display,
}

#[derive(Debug)]
pub enum SearchEnd {
    Finished(Found),
    /// A request to stop came; what was done is saved.
    Interrupted,
}

/// All rates, and which of them is the best.
#[derive(Debug)]
pub struct Found {
    /// In the order in which they were given.
    pub rates: Vec<RateResult>,
    pub best: usize,
    /// File of its critic.
    pub critic: PathBuf,
}

impl Search<'_> {
    /// Trains and measures what is missing.
    pub fn run(&self) -> Result<SearchEnd> {
        let begun = self.folder.join("begun.json");
        if claim(&begun, &self.purpose)? == Claim::Other {
            begin_anew(self.folder, "the settings differ")?;
            claim(&begun, &self.purpose)?;
        }
        let total = self.config.n_steps() * self.rates.len() as u64;
        let mut progress = Progress::new(self.display, "critic", 0, total);
        let mut results = Vec::new();
        for (i, &rate) in self.rates.iter().enumerate() {
            let before = i as u64 * self.config.n_steps();
            match self.one(rate, &mut progress, before)? {
                Some(result) => results.push(result),
                None => return Ok(SearchEnd::Interrupted),
            }
        }
        progress.finish();
        let chosen = |result: &RateResult| result.select.map(|e| e.value).filter(|v| v.is_finite());
        let scores = results.iter().map(chosen).enumerate();
        let scores = scores.filter_map(|(i, score)| Some((i, score?)));
        let Some((best, _)) = scores.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            let reasons: Vec<String> = results
                .iter()
                .filter_map(|r| Some(format!("{}: {}", r.learning_rate, r.stopped.as_ref()?)))
                .collect();
            bail!("no learning rate led to a critic ({})", reasons.join("; "));
        };
        let critic = critic_file(&self.rate_folder(self.rates[best]));
        Ok(SearchEnd::Finished(Found { rates: results, best, critic }))
    }

    fn rate_folder(&self, rate: f64) -> PathBuf {
        self.folder.join(format!("lr-{rate:e}"))
    }

    /// One rate, from the file where it is finished; `None` after an interruption.
    fn one(&self, rate: f64, progress: &mut Progress, before: u64) -> Result<Option<RateResult>> {
        let folder = self.rate_folder(rate);
        let file = folder.join("rate.json");
        if let Some(result) = read_json(&file)? {
            return Ok(Some(result));
        }
        let start = Instant::now();
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot write {}", folder.display()))?;
        let config = CriticConfig { learning_rate: rate, ..self.config.clone() };
        let job = CriticJob {
            config: &config,
            a: self.a,
            b: self.b,
            device: self.device,
            folder: Some(&folder),
            checkpoint_every: self.checkpoint_every,
        };
        let mut result = RateResult { learning_rate: rate, ..RateResult::default() };
        match train_critic(&job, progress, before, &format!("rate {rate}"))? {
            CriticEnd::Interrupted => return Ok(None),
            CriticEnd::Lost { reason, curve, n_steps } => {
                (result.curve, result.n_steps, result.stopped) = (curve, n_steps, Some(reason));
            }
            CriticEnd::Finished(critic) => {
                critic.network.save(&critic_file(&folder))?;
                self.measure(&critic.network, &mut result);
                result.stopped = critic.stopped.or(result.stopped.take());
                (result.curve, result.n_steps) = (critic.curve, critic.n_steps);
            }
        }
        result.seconds = start.elapsed().as_secs_f64();
        write_json(&file, &result)?;
        Ok(Some(result))
    }

    /// A critic that cannot be measured, as one with infinite weights, has no estimate.
    fn measure(&self, network: &PlainNetwork, result: &mut RateResult) {
        let on = |part, n| estimate(network, self.a, self.b, part, n).context("not measured");
        match (on(SamplePart::Select, self.n_select), on(SamplePart::Report, self.n_report)) {
            (Ok(select), Ok(report)) => {
                (result.select, result.report) = (Some(select), Some(report));
            }
            (Err(error), _) | (_, Err(error)) => result.stopped = Some(format!("{error:#}")),
        }
    }
}

fn critic_file(folder: &Path) -> PathBuf {
    folder.join("critic.safetensors")
}
