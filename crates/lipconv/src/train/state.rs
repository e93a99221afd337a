//! What a run keeps between two steps, beside the parameters.

use candle_core::{Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::batch::EpochReport;
use super::config::TrainConfig;
use crate::error::{Error, Result};
use crate::network::Network;

/// The place of a run between two steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: u64,
    /// Current epoch.
    pub(crate) epoch: usize,
    /// Batches done in it.
    pub(crate) batch: usize,
    /// The current epoch's seed, once it has begun.
    pub(crate) epoch_seed: Option<u64>,
    /// Sums over the current epoch so far.
    pub(crate) totals: EpochReport,
    /// State of the generator that epoch seeds are drawn from.
    pub(crate) rng: ChaCha8Rng,
}

/// No run counts further: every count below is a whole number in f64 as well.
const MOST: u64 = 1 << 53;

/// Whether the number of batches in an epoch is known.
pub(crate) fn check_told(n_batches: usize) -> Result<()> {
    match n_batches {
        0 => Err(Error::Zero { what: "number of batches in an epoch".into() }),
        _ => Ok(()),
    }
}

impl Progress {
    /// Why this cannot be the place of a run with these settings.
    pub(crate) fn fault(&self, config: &TrainConfig) -> Option<String> {
        let EpochReport { n_correct, n_samples, .. } = self.totals;
        let most = |name: &str, got: usize, most: usize, what: &str| {
            let text = format!("progress.{name} is {got}, expected at most {most}, {what}");
            (got > most).then_some(text)
        };
        let step = usize::try_from(self.step).unwrap_or(usize::MAX);
        most("step", step, MOST as usize, "the largest count")
            .or_else(|| most("epoch", self.epoch, config.epochs, "the epochs of the run"))
            .or_else(|| most("batch", self.batch, step, "the steps done"))
            .or_else(|| most("totals.n_samples", n_samples, MOST as usize, "the largest count"))
            .or_else(|| most("totals.n_correct", n_correct, n_samples, "the samples seen"))
    }

    /// Whether an epoch of `n_batches` can go on from here.
    pub(crate) fn check_batches(&self, n_batches: usize) -> Result<()> {
        check_told(n_batches)?;
        if self.batch > n_batches {
            return Err(Error::InvalidSetting {
                name: "number of batches done in the epoch",
                value: format!("{} of {n_batches}", self.batch),
                expected: "no more than the epoch has",
            });
        }
        Ok(())
    }
}

/// Numbers that training keeps, in the network's element type on the CPU, wherever the network is.
#[derive(Debug)]
pub(crate) struct RunState {
    /// The optimiser's running means of every variable (weight, bias, weight, …), and then its average; none of one that is not trained.
    pub(crate) moments: Vec<Vec<Tensor>>,
    /// For each linear layer, the inverse square root that its next orthonormalisation starts from.
    pub(crate) warm: Vec<Option<Tensor>>,
    /// For each linear layer, how patient the CUDA engine's iterations have become; empty elsewhere.
    pub(crate) levels: Vec<u8>,
}

impl RunState {
    /// The state before the first step, with `n_means` running means of every variable.
    pub(crate) fn zeros(network: &Network, n_means: usize) -> Result<Self> {
        let zeros = |shape: &[usize], trained: bool| {
            let n = if trained { n_means } else { 0 };
            let zeros = (0..n).map(|_| Tensor::zeros(shape, network.dtype(), &Device::Cpu));
            Ok(zeros.collect::<candle_core::Result<_>>()?)
        };
        let layers = network.parameters();
        let moments =
            layers.flat_map(|p| [zeros(p.weight.dims(), p.trained), zeros(p.bias.dims(), true)]);
        let moments = moments.collect::<Result<_>>()?;
        Ok(Self { moments, warm: Vec::new(), levels: Vec::new() })
    }
}
