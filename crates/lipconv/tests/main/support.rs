//! What several test modules share: draws, comparisons and tolerances.

use candle_core::{DType, Device, Tensor};
use lipconv::{Batch, BatchSource, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Unit roundoff of an element type.
pub(crate) fn eps(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// Allowed error of sums of `n` products of numbers of size `scale`: a few units in the last place for each
/// of √n independent roundings, with a safety factor of 16.
pub(crate) fn sum_tolerance(dtype: DType, n: usize, scale: f64) -> f64 {
    16.0 * eps(dtype) * (n as f64).sqrt() * scale.max(1.0)
}

/// The tolerance of reference vectors: 1e-10 in f64, the same number of units in the last place in f32.
pub(crate) fn golden_tolerance(dtype: DType, n: usize) -> f64 {
    if dtype == DType::F64 { 1e-10 } else { sum_tolerance(dtype, n, 1.0) }
}

/// Values uniform in [low, high).
pub(crate) fn uniform(shape: &[usize], low: f64, high: f64, dtype: DType, seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| rng.random_range(low..high)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference of two tensors.
pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = values(a).into_iter().zip(values(b));
    pairs
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d.is_nan() { f64::INFINITY } else { m.max(d) })
}

#[track_caller]
pub(crate) fn check_close(what: &str, a: &Tensor, b: &Tensor, tolerance: f64) {
    let error = distance(a, b);
    assert!(error <= tolerance, "{what}: off by {error:e}, allowed {tolerance:e}");
}

/// Random images whose class can be learnt: class c brightens its own stripe.
#[derive(Debug)]
pub(crate) struct Stripes {
    pub(crate) shape: [usize; 3],
    pub(crate) n_classes: usize,
    pub(crate) batch: usize,
    pub(crate) n_batches: usize,
    pub(crate) dtype: DType,
    seed: u64,
}

impl Stripes {
    pub(crate) fn new(shape: [usize; 3], n_classes: usize, batch: usize, dtype: DType) -> Self {
        Self { shape, n_classes, batch, n_batches: 5, dtype, seed: 0 }
    }
}

impl BatchSource for Stripes {
    fn n_batches(&self) -> usize {
        self.n_batches
    }

    fn start_epoch(&mut self, _epoch: usize, seed: u64) {
        self.seed = seed;
    }

    fn batch(&mut self, index: usize) -> Result<Batch> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(index as u64));
        let [c, h, w] = self.shape;
        let mut images = Vec::with_capacity(self.batch * c * h * w);
        let mut labels = Vec::with_capacity(self.batch);
        for _ in 0..self.batch {
            let class = rng.random_range(0..self.n_classes);
            labels.push(class as u32);
            for pixel in 0..c * h * w {
                let bright = pixel % self.n_classes == class;
                images.push(rng.random_range(0.0..0.5) + if bright { 0.5 } else { 0.0 });
            }
        }
        let images = Tensor::from_vec(images, (self.batch, c, h, w), &Device::Cpu)?;
        Ok(Batch { images: images.to_dtype(self.dtype)?, labels })
    }
}
