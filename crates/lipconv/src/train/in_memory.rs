//! Batches of data that are in memory.

use candle_core::Tensor;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::batch::{Batch, BatchSource};
use crate::error::{Error, Result};

/// Images or points with their labels, in another order in every epoch.
///
/// The last batch holds what is left, if the number of images is no multiple of the batch size.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lipconv::{ImageShape, InMemory, Methods, Network, NetworkSpec, TrainConfig, Trainer};
///
/// # fn main() -> lipconv::Result<()> {
/// // points of the plane, whose first coordinate decides
/// let points = Tensor::new(&[[-1f32, 0.5], [1.0, 0.25], [-0.5, -1.0], [0.75, 0.0]], &Device::Cpu)?;
/// let mut data = InMemory::new(points.clone(), vec![0, 1, 0, 1], 2)?;
/// let spec = NetworkSpec::fc3(ImageShape::vector(2), 2, Methods::BCOP);
/// let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?;
/// let mut trainer = Trainer::new(network, TrainConfig { epochs: 2, ..Default::default() })?;
/// trainer.fit(&mut data, &mut ())?;
/// assert_eq!(trainer.network().materialize()?.forward(&points)?.dims(), [4, 2]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InMemory {
    images: Tensor,
    labels: Vec<u32>,
    batch_size: usize,
    order: Vec<u32>,
}

impl InMemory {
    /// A source of batches of `batch_size`; the first axis of `images` counts them.
    ///
    /// # Errors
    /// [`Error::Zero`] without images or for a batch size of 0, [`Error::ShapeMismatch`] when there are not as many labels.
    pub fn new(images: Tensor, labels: Vec<u32>, batch_size: usize) -> Result<Self> {
        let n = images.dims().first().copied().unwrap_or(0);
        for (what, count) in [("number of images", n), ("batch size", batch_size)] {
            if count == 0 {
                return Err(Error::Zero { what: what.into() });
            }
        }
        if labels.len() != n {
            let (what, got) = ("labels".into(), vec![labels.len()]);
            return Err(Error::ShapeMismatch { what, expected: vec![n], got });
        }
        let order = (0..labels.len() as u32).collect();
        Ok(Self { images, labels, batch_size, order })
    }
}

impl BatchSource for InMemory {
    fn n_batches(&self) -> usize {
        self.labels.len().div_ceil(self.batch_size)
    }

    fn start_epoch(&mut self, _: usize, seed: u64) {
        // from the same order each time, so that an epoch depends on its seed alone
        self.order = (0..self.labels.len() as u32).collect();
        self.order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    }

    fn batch(&mut self, index: usize) -> Result<Batch> {
        let start = index * self.batch_size;
        let Some(rest) = self.order.get(start..).filter(|rest| !rest.is_empty()) else {
            let (name, value) = ("index of a batch", index.to_string());
            let expected = "less than the number of batches";
            return Err(Error::InvalidSetting { name, value, expected });
        };
        let chosen = &rest[..rest.len().min(self.batch_size)];
        let labels = chosen.iter().map(|&place| self.labels[place as usize]).collect();
        let places = Tensor::new(chosen, self.images.device())?;
        Ok(Batch { images: self.images.index_select(&places, 0)?, labels })
    }
}
