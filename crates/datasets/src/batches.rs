//! Shuffled mini-batches whose order any epoch can recompute, made ahead on a thread of their own.
//!
//! Definition: epoch e of a set of n samples is visited in the order of a Fisher-Yates shuffle of 0 … n - 1 driven by
//! ChaCha8 with key `seed` and stream e, cut into runs of b indices. The last run is shorter where b does not divide n. Each sample is
//! changed by its [`Augmentation`]. While a step computes, the next few batches are gathered, cropped and converted.
//!
//! Guarantee: batches are a function of images, batch size, augmentation, epoch and seed, whatever the timing; no generator
//! state needs saving. Any batch can be asked for; asking out of order starts the thread anew at that place, which is how a
//! resumed run goes on.
//!
//! Cost: O(n) for the order of an epoch; memory for a few batches, and one thread that sleeps while they are full.
//! Beginning an epoch waits for one batch, because its seed is not known before.
//!
//! Errors: [`lipconv::Error`] from the tensor, or for a batch beyond the end of the epoch.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use candle_core::{Device, Tensor};
use lipconv::{Batch, BatchSource, ResidentImages, Sample};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::augment::{Augmentation, Draw};
use crate::error::{Error, Result};
use crate::image_set::{ImageSet, PixelTable};

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
    pub fn n_batches(&self) -> usize {
        self.n.div_ceil(self.batch_size)
    }

    /// The shuffled order of epoch `epoch`, counted from 0.
    pub fn epoch(&self, epoch: u64) -> EpochOrder {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch);
        let mut indices: Vec<usize> = (0..self.n).collect();
        indices.shuffle(&mut rng);
        EpochOrder { indices, batch_size: self.batch_size }
    }

    /// The unshuffled order, for evaluation.
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
    pub fn batch(&self, index: usize) -> Option<&[usize]> {
        self.indices.chunks(self.batch_size).nth(index)
    }
}

/// Batches that wait to be used.
const AHEAD: usize = 4;

/// A source of batches in f32.
#[derive(Debug)]
pub struct BatchProducer {
    set: ImageSet,
    batch_size: usize,
    augmentation: Augmentation,
    device: Device,
    epoch: (u64, u64),
    running: Option<Running>,
    /// The order of the epoch, once a device that makes the batches has asked for it.
    order: Option<EpochOrder>,
}

/// A thread at work, and the batch it delivers next.
#[derive(Debug)]
struct Running {
    batches: Receiver<HostBatch>,
    next: usize,
}

/// A batch before it is a tensor.
#[derive(Debug)]
struct HostBatch {
    values: Vec<f32>,
    labels: Vec<u32>,
}

impl BatchProducer {
    /// Batches of `batch_size` images of `set` for a network on `device`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a batch size of 0 or settings outside their domain.
    pub fn new(
        set: ImageSet,
        batch_size: usize,
        augmentation: Augmentation,
        device: Device,
    ) -> Result<Self> {
        BatchOrder::new(set.len(), batch_size, 0)?;
        augmentation.random.map_or(Ok(()), |random| random.validate())?;
        let (epoch, running, order) = ((0, 0), None, None);
        Ok(Self { set, batch_size, augmentation, device, epoch, running, order })
    }

    /// A thread that makes the batches of the present epoch from `first` on.
    fn start(&self, first: usize) -> Running {
        let (sender, batches) = sync_channel(AHEAD);
        let (set, augmentation, (epoch, seed)) = (self.set.clone(), self.augmentation, self.epoch);
        let batch_size = self.batch_size;
        thread::spawn(move || {
            let order = BatchOrder::new(set.len(), batch_size, seed)
                .expect("neither is zero, as checked at the start")
                .epoch(epoch);
            let maker = Maker { set, augmentation, epoch, seed };
            for batch in remaining(&order, first) {
                // nobody listens any more: the epoch was left
                if sender.send(maker.make(batch)).is_err() {
                    return;
                }
            }
        });
        Running { batches, next: first }
    }
}

fn remaining(order: &EpochOrder, first: usize) -> impl Iterator<Item = &[usize]> {
    order.batches().skip(first)
}

struct Maker {
    set: ImageSet,
    augmentation: Augmentation,
    epoch: u64,
    seed: u64,
}

impl Maker {
    fn make(&self, samples: &[usize]) -> HostBatch {
        let table = PixelTable::unit();
        let value = |pixel: u8| table.value(pixel);
        let n = self.set.image_len();
        let mut values = Vec::with_capacity(samples.len() * n);
        for &sample in samples {
            let pixels = &self.set.pixels()[sample * n..][..n];
            if self.augmentation.is_none() {
                values.extend(pixels.iter().map(|&pixel| value(pixel)));
            } else {
                self.change(sample, pixels, value, &mut values);
            }
        }
        let labels = samples.iter().map(|&i| u32::from(self.set.labels()[i])).collect();
        HostBatch { values, labels }
    }

    /// Appends the values of a sample's augmented image.
    fn change(
        &self,
        sample: usize,
        pixels: &[u8],
        value: impl Fn(u8) -> f32,
        values: &mut Vec<f32>,
    ) {
        let Self { augmentation, epoch, seed, .. } = *self;
        let (draw, shape) = (augmentation.draw(seed, epoch, sample), self.set.shape());
        let operations = augmentation.random.map(|random| random.draw(seed, epoch, sample));
        let Some(operations) = operations.filter(|drawn| !drawn.is_empty()) else {
            return augmentation.apply(draw, pixels, shape, value, values);
        };
        let mut image = Vec::with_capacity(pixels.len());
        augmentation.apply(draw, pixels, shape, |pixel| pixel, &mut image);
        for (operation, level) in operations {
            image = operation.apply(level, shape, &image);
        }
        values.extend(image.into_iter().map(value));
    }
}

impl BatchSource for BatchProducer {
    fn n_batches(&self) -> usize {
        self.set.len().div_ceil(self.batch_size)
    }

    fn start_epoch(&mut self, epoch: usize, seed: u64) {
        self.epoch = (epoch as u64, seed);
        (self.running, self.order) = (None, None);
    }

    fn batch(&mut self, index: usize) -> lipconv::Result<Batch> {
        if self.running.as_ref().is_none_or(|running| running.next != index) {
            self.running = Some(self.start(index));
        }
        let running = self.running.as_mut().expect("started just now where it was not running");
        let Ok(HostBatch { values, labels }) = running.batches.recv() else {
            return Err(beyond(index, self.n_batches()));
        };
        running.next += 1;
        let [c, h, w] = self.set.shape();
        let images = Tensor::from_vec(values, (labels.len(), c, h, w), &self.device)?;
        Ok(Batch { images, labels })
    }

    fn resident(&self) -> Option<ResidentImages<'_>> {
        let (pixels, labels, batch_size) = (self.set.pixels(), self.set.labels(), self.batch_size);
        // a device crops and mirrors; operations on pixels are for the thread
        self.augmentation.random.is_none().then_some(ResidentImages { pixels, labels, batch_size })
    }

    fn samples(&mut self, index: usize) -> lipconv::Result<Vec<Sample>> {
        let ((epoch, seed), augmentation, n_batches) =
            (self.epoch, self.augmentation, self.n_batches());
        let whole = BatchOrder { n: self.set.len(), batch_size: self.batch_size, seed };
        let order = self.order.get_or_insert_with(|| whole.epoch(epoch));
        let batch = order.batch(index).ok_or_else(|| beyond(index, n_batches))?;
        let sample = |&image: &usize| {
            let draw = match augmentation.is_none() {
                true => Draw { dy: 0, dx: 0, flipped: false },
                false => augmentation.draw(seed, epoch, image),
            };
            let shift = |offset: usize| offset as i16 - augmentation.crop_padding as i16;
            let shift = (shift(draw.dy), shift(draw.dx));
            Sample { image: image as u32, shift, mirrored: draw.flipped }
        };
        Ok(batch.iter().map(sample).collect())
    }
}

fn beyond(index: usize, n_batches: usize) -> lipconv::Error {
    let text = format!("batch index is {index}, expected less than {n_batches}");
    candle_core::Error::msg(text).into()
}
