//! Images as distributions, and what a frozen critic says about two.
//!
//! Definition. Pixels p are values p / 127.5 - 1 in [-1, 1]. A *pool* is a distribution made of images: those of the three parts are
//! disjoint. A *population* consists of its images and nothing else; all parts are all of it.
//!
//! An estimate is `certify::DualEstimate` on a part's samples: the mean difference less its rounding error, divided by the rigorous
//! bound of the critic's Lipschitz constant and rounded down.
//!
//! Guarantee: equal seeds give equal samples; a numbered sample is always the same. Estimates have the guarantee of
//! `certify::Critic`.

use std::ops::Range;

use candle_core::{Device, Tensor};
use certify::{Critic, Distribution, SamplePart};
use lipconv::{Batch, BatchSource, PlainNetwork};
use lipconv_datasets::{ImageSet, PixelTable};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Images kept from training to choose a learning rate on, at most.
const N_SELECT: usize = 6400;
/// The fewest images that can be cut into three parts of two, without which there is no standard error.
pub const FEWEST: usize = 6;

/// Images cut into three parts, or a population.
#[derive(Debug, Clone)]
pub struct ImagePool {
    train: ImageSet,
    select: ImageSet,
    report: ImageSet,
    population: bool,
}

impl ImagePool {
    /// Training and test images: the latter are reported on, and the last training images, 6400 or an eighth, are kept to choose
    /// on.
    pub fn of_dataset(train: &ImageSet, test: &ImageSet) -> Result<Self> {
        if test.len() < 2 {
            return Err(Error::argument("number of test images", test.len(), "at least 2"));
        }
        if train.len() < 4 {
            return Err(Error::argument("number of training images", train.len(), "at least 4"));
        }
        let n_select = (train.len() / 8).clamp(2, N_SELECT);
        let n_train = train.len() - n_select;
        Ok(Self {
            select: train.subset(n_train..train.len())?,
            train: train.head(n_train),
            report: test.clone(),
            population: false,
        })
    }

    /// Images that are cut by chance, always the same way: a quarter to report on, an eighth to choose on, the rest to train on.
    pub fn cut(images: &ImageSet) -> Result<Self> {
        let n = images.len();
        if n < FEWEST {
            let expected = format!("at least {FEWEST}, or a population");
            return Err(Error::argument("number of images", n, expected));
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
        let (report, rest) = order.split_at((n / 4).max(2));
        let (select, train) = rest.split_at((n / 8).max(2));
        Ok(Self {
            train: images.subset(train.iter().copied())?,
            select: images.subset(select.iter().copied())?,
            report: images.subset(report.iter().copied())?,
            population: false,
        })
    }

    /// The images themselves as a distribution.
    pub fn population(images: &ImageSet) -> Result<Self> {
        if images.is_empty() {
            return Err(Error::argument("number of images", 0, "at least 1"));
        }
        let [train, select, report] = [images.clone(), images.clone(), images.clone()];
        Ok(Self { train, select, report, population: true })
    }

    pub fn training_images(&self) -> &ImageSet {
        &self.train
    }

    fn part(&self, part: SamplePart) -> &ImageSet {
        match part {
            SamplePart::Select => &self.select,
            SamplePart::Report => &self.report,
        }
    }
}

/// Images as a critic sees them, n x c x h x w in [-1, 1].
fn signed(set: &ImageSet, indices: impl Iterator<Item = usize>) -> candle_core::Result<Tensor> {
    set.tensor_by(indices, &PixelTable::signed(), &Device::Cpu).map_err(candle_core::Error::wrap)
}

impl Distribution for ImagePool {
    fn name(&self) -> String {
        self.train.name().to_owned()
    }

    fn shape(&self) -> [usize; 3] {
        self.train.shape()
    }

    fn draw(&self, n: usize, seed: u64) -> candle_core::Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let n_images = self.train.len();
        signed(&self.train, (0..n).map(move |_| rng.random_range(0..n_images)))
    }

    fn n_held_out(&self, part: SamplePart) -> Option<usize> {
        Some(self.part(part).len())
    }

    fn held_out(&self, part: SamplePart, range: Range<usize>) -> candle_core::Result<Tensor> {
        signed(self.part(part), range)
    }

    fn is_synthetic(&self) -> bool {
        self.train.is_synthetic()
    }

    fn is_population(&self) -> bool {
        self.population
    }
}

/// A seed for each side of each batch, from the epoch's.
pub(super) fn batch_seed(epoch_seed: u64, batch: usize, side: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(epoch_seed);
    rng.set_stream(2 * batch as u64 + side);
    rng.random()
}

/// Batches that are drawn, each by the epoch's seed and its number.
pub(super) struct Drawn<F> {
    n_batches: usize,
    epoch_seed: u64,
    draw: F,
}

impl<F: FnMut(u64, usize) -> lipconv::Result<Batch>> Drawn<F> {
    pub(super) fn new(n_batches: usize, draw: F) -> Self {
        Self { n_batches, epoch_seed: 0, draw }
    }
}

impl<F: FnMut(u64, usize) -> lipconv::Result<Batch>> BatchSource for Drawn<F> {
    fn n_batches(&self) -> usize {
        self.n_batches
    }

    fn start_epoch(&mut self, _epoch: usize, seed: u64) {
        self.epoch_seed = seed;
    }

    fn batch(&mut self, index: usize) -> lipconv::Result<Batch> {
        (self.draw)(self.epoch_seed, index)
    }
}

/// Confidence of the one-sided bound that is reported.
pub const CONFIDENCE: f64 = 0.99;

/// An estimate with its error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Lower bound of the distance of the samples at hand, and in expectation of the distributions.
    pub value: f64,
    /// Standard error of the value, of two independent samples; 0 for populations.
    pub standard_error: f64,
    /// What is below the distance with a confidence of 99 %, one-sided.
    pub confident: f64,
    /// Mean difference of the critic, not divided by anything.
    pub difference: f64,
    /// Rigorous bound of the critic's Lipschitz constant.
    pub lipschitz: f64,
    pub n_samples: [usize; 2],
}

/// Measures a critic on `n` samples of each side, or as many as there are.
pub fn estimate(
    network: &PlainNetwork,
    a: &dyn Distribution,
    b: &dyn Distribution,
    part: SamplePart,
    n: usize,
) -> anyhow::Result<Estimate> {
    let found = Critic::new(network)?.estimate_between(a, b, part, n)?;
    Ok(Estimate {
        value: found.value,
        standard_error: found.standard_error,
        confident: found.confidence_bound(CONFIDENCE)?,
        difference: found.mean_difference,
        lipschitz: found.lipschitz,
        n_samples: [found.n_a, found.n_b],
    })
}
