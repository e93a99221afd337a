//! What goes into a training run and what comes out of it step by step.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Where batches come from.
pub trait BatchSource {
    /// Batches in an epoch; the same for all epochs.
    fn n_batches(&self) -> usize;

    /// Begins epoch `epoch`, whose random choices (order, augmentation) follow from `seed` alone.
    fn start_epoch(&mut self, epoch: usize, seed: u64);

    /// Batch `index` of the current epoch: images b x c x h x w in the network's element type and b labels.
    ///
    /// # Errors
    /// Whatever prevents the batch from being made.
    fn batch(&mut self, index: usize) -> Result<Batch>;
}

/// Images and their labels.
#[derive(Debug, Clone)]
pub struct Batch {
    /// b x c x h x w.
    pub images: Tensor,
    /// One class for each image.
    pub labels: Vec<u32>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Steps done in the whole run, this one included.
    pub step: u64,
    /// 0-based epoch.
    pub epoch: usize,
    /// 0-based index of the batch in its epoch.
    pub batch: usize,
    /// Mean loss of the batch before the update.
    pub loss: f64,
    /// Samples of the batch classified correctly before the update.
    pub n_correct: usize,
    /// Samples in the batch.
    pub n_samples: usize,
    /// The learning rate used.
    pub learning_rate: f64,
}

/// Sums over the steps of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochReport {
    /// 0-based epoch.
    pub epoch: usize,
    /// Mean loss over the samples.
    pub loss: f64,
    /// Samples classified correctly when they were trained on.
    pub n_correct: usize,
    /// Samples seen.
    pub n_samples: usize,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// The observer stopped it.
    Stopped,
}
