//! Shuffled mini-batches whose order any epoch can recompute.
//!
//! Definition: epoch e of a set of n samples is visited in the order of a Fisher-Yates shuffle of 0 … n - 1 driven by
//! ChaCha8 with key `seed` and stream e, cut into runs of b indices. The last run is shorter where b does not divide n.
//!
//! Guarantee: the order is a function of (seed, n, e) alone. A run that was interrupted in batch i of epoch e goes on with
//! exactly the batches it would have seen; no generator state needs saving.
//!
//! Cost: O(n) time and memory for each epoch.
//!
//! Not here: augmentation.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The order of every epoch, as three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOrder {
    n: usize,
    batch_size: usize,
    seed: u64,
}

/// The order of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOrder {
    indices: Vec<usize>,
    batch_size: usize,
}

impl BatchOrder {
    /// The order of `n` samples in batches of `batch_size`.
    pub fn new(n: usize, batch_size: usize, seed: u64) -> Result<Self> {
        for (name, value) in [("number of samples", n), ("batch size", batch_size)] {
            if value == 0 {
                return Err(Error::InvalidArgument {
                    name,
                    got: "0".into(),
                    expected: "at least 1".into(),
                });
            }
        }
        Ok(Self { n, batch_size, seed })
    }

    /// Batches of one epoch, the last shorter one included.
    #[must_use]
    pub fn n_batches(&self) -> usize {
        self.n.div_ceil(self.batch_size)
    }

    /// The shuffled order of epoch `epoch`, counted from 0.
    #[must_use]
    pub fn epoch(&self, epoch: u64) -> EpochOrder {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch);
        let mut indices: Vec<usize> = (0..self.n).collect();
        indices.shuffle(&mut rng);
        EpochOrder { indices, batch_size: self.batch_size }
    }

    /// The unshuffled order, for evaluation.
    #[must_use]
    pub fn in_order(&self) -> EpochOrder {
        EpochOrder { indices: (0..self.n).collect(), batch_size: self.batch_size }
    }
}

impl EpochOrder {
    /// The batches in turn.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = &[usize]> {
        self.indices.chunks(self.batch_size)
    }

    /// Batch `index`, or `None` past the end of the epoch.
    #[must_use]
    pub fn batch(&self, index: usize) -> Option<&[usize]> {
        self.indices.chunks(self.batch_size).nth(index)
    }
}
