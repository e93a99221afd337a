//! RandAugment: a few random operations on some of the images.
//!
//! Definition. From epoch `after` on, counted from 0, an image is changed with probability p. A changed image undergoes N
//! [operations](PixelOperation) in turn, each drawn uniformly from the fourteen, with replacement, at level ±M/30 with a random sign.
//!
//! Guarantee: the draw reads blocks 2 i and 2 i + 1 of the ChaCha8 stream 2⁶² + e with key `seed` for sample i of epoch e. It
//! depends on neither the order of the samples nor the thread that asks, and shares no word with crops and the order of batches.
//!
//! Errors: [`Error::InvalidArgument`] from [`RandAugment::validate`].

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::pixel_operation::PixelOperation;
use crate::error::{Error, Result};

/// Highest magnitude: level 1.
const MOST: u32 = 30;

/// Settings of RandAugment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandAugment {
    /// Operations on an image, N, 1 to 8.
    pub operations: u32,
    /// Their magnitude, M, at most 30.
    pub magnitude: u32,
    /// Probability that an image is changed, p.
    pub probability: f64,
    /// Epochs without.
    pub after: u64,
}

impl Default for RandAugment {
    /// Two operations of magnitude 9 on every image, torchvision's defaults.
    fn default() -> Self {
        Self { operations: 2, magnitude: 9, probability: 1.0, after: 0 }
    }
}

impl RandAugment {
    /// Checks every value against its domain.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for the first value outside its domain.
    pub fn validate(&self) -> Result<()> {
        let Self { operations, magnitude, probability, .. } = *self;
        if !(1..=8).contains(&operations) {
            return Err(Error::argument("operations", operations, "1 to 8"));
        }
        if magnitude > MOST {
            return Err(Error::argument("magnitude", magnitude, "0 to 30"));
        }
        if !(0.0..=1.0).contains(&probability) {
            return Err(Error::argument("probability", probability, "a number in [0, 1]"));
        }
        Ok(())
    }

    /// What sample `sample` of epoch `epoch` undergoes: operations with their levels.
    #[must_use]
    pub fn draw(&self, seed: u64, epoch: u64, sample: usize) -> Vec<(PixelOperation, f64)> {
        /// Words in two blocks of ChaCha, more than a draw needs.
        const BLOCKS: u128 = 32;
        if epoch < self.after {
            return Vec::new();
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 << 62 | epoch);
        rng.set_word_pos(BLOCKS * sample as u128);
        if rng.random::<f64>() >= self.probability {
            return Vec::new();
        }
        let level = f64::from(self.magnitude) / f64::from(MOST);
        let one = |_| {
            let operation = PixelOperation::ALL[rng.random_range(0..PixelOperation::ALL.len())];
            (operation, if rng.random() { level } else { -level })
        };
        (0..self.operations).map(one).collect()
    }
}
