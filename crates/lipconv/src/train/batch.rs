//! What goes into a training run and what comes out of it step by step.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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

    /// The images that all batches are cut from, for a device that keeps them and makes the batches itself; `None` where
    /// there is no such set.
    fn resident(&self) -> Option<ResidentImages<'_>> {
        None
    }

    /// What [`BatchSource::batch`] is made of, as samples of [`BatchSource::resident`]; asked for only where there are such images.
    ///
    /// # Errors
    /// As for [`BatchSource::batch`].
    fn samples(&mut self, _index: usize) -> Result<Vec<Sample>> {
        Err(Error::Zero { what: "number of images that a device could keep".into() })
    }
}

/// Images that a device can keep.
#[derive(Debug, Clone, Copy)]
pub struct ResidentImages<'a> {
    /// n x c x h x w bytes; byte p is the value p/255.
    pub pixels: &'a [u8],
    /// One class for each image.
    pub labels: &'a [u8],
    /// Most samples of a batch.
    pub batch_size: usize,
}

/// One sample of a batch: which image, where its cut begins, and whether left and right are exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Index of the image.
    pub image: u32,
    /// Row and column of the image that come first; what lies outside is 0.
    pub shift: (i16, i16),
    /// Whether left and right are exchanged, after the cut.
    pub mirrored: bool,
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
