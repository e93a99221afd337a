//! What crosses between host and device in a few bytes: which samples come next, and how far the run is.

use super::emit::CONTROL_BYTES;
use crate::train::batch::Sample;

/// What the device knows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Status {
    /// Steps done in this epoch.
    pub batch: u32,
    /// Sum of the mean losses of the epoch's steps.
    pub loss_sum: f64,
    /// Samples of the epoch classified correctly when they were trained on.
    pub n_correct: u64,
    /// Mean loss of the last step.
    pub loss: f64,
    /// Correct samples of the last step.
    pub correct: u32,
    pub(super) failed: u32,
}

/// Bits of the kernels' `failed`.
pub(super) const FAILED_LOGITS: u32 = 1;
pub(super) const FAILED_DEFECT: u32 = 4;
pub(super) const FAILED_RANK: u32 = 8;
pub(super) const REHEARSAL: u32 = 1 << 31;

/// Bytes of the kernels' structure `Sample`.
pub(super) const SAMPLE_BYTES: usize = 12;

/// The kernels' structure `Sample`.
pub(super) fn sample_bytes(sample: &Sample) -> [u8; SAMPLE_BYTES] {
    let mut bytes = [0; SAMPLE_BYTES];
    bytes[..4].copy_from_slice(&sample.image.to_le_bytes());
    bytes[4..6].copy_from_slice(&sample.shift.0.to_le_bytes());
    bytes[6..8].copy_from_slice(&sample.shift.1.to_le_bytes());
    bytes[8] = u8::from(sample.mirrored);
    bytes
}

/// Bytes of the kernels' structure `StepOutcome`.
pub(super) const OUTCOME_BYTES: usize = 16;

/// Mean loss and correct samples of a step, from the kernels' structure `StepOutcome`.
pub(super) fn outcome(bytes: &[u8; OUTCOME_BYTES]) -> (f64, usize) {
    let [loss @ .., a, b, c, d, _, _, _, _] = *bytes;
    (f64::from_le_bytes(loss), u32::from_le_bytes([a, b, c, d]) as usize)
}

impl Status {
    pub(super) fn of(bytes: &[u8; CONTROL_BYTES]) -> Self {
        let eight = |from: usize| -> [u8; 8] { std::array::from_fn(|n| bytes[from + n]) };
        let four = |from: usize| -> [u8; 4] { std::array::from_fn(|n| bytes[from + n]) };
        Self {
            batch: u32::from_le_bytes(four(8)),
            failed: u32::from_le_bytes(four(12)),
            loss_sum: f64::from_le_bytes(eight(16)),
            n_correct: u64::from_le_bytes(eight(24)),
            loss: f64::from_le_bytes(eight(32)),
            correct: u32::from_le_bytes(four(40)),
        }
    }

    pub(super) fn bytes(self) -> [u8; CONTROL_BYTES] {
        let mut bytes = [0; CONTROL_BYTES];
        bytes[8..12].copy_from_slice(&self.batch.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.failed.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.loss_sum.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.n_correct.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.loss.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.correct.to_le_bytes());
        bytes
    }
}
