//! Distributions whose distance is known.
//!
//! Definition. On vectors of d = c·h·w values: *points*, each with the same probability; a *Gaussian* with mean m and covariance s² I;
//! a *sphere*, uniform on the points of norm r in the span of some orthonormal directions.
//! * Two points: W1 = ‖x - y‖.
//! * Gaussians of one covariance: W1 = ‖m - m'‖, by f(x) = ⟨x, m - m'⟩ / ‖m - m'‖.
//! * Concentric spheres of one span: W1 = |r - r'|, by f(x) = ‖x‖; moving along rays costs as much.
//! * Sets of n points each: the smallest mean cost of a matching (Birkhoff), see [`super::transport`].
//!
//! Values need not lie in [-1, 1]: a critic does not mind.
//!
//! Guarantee: samples are a function of the distribution, the part and the number, or of the seed.

use std::ops::Range;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

use super::distribution::{Distribution, Part};
use crate::error::{Error, Result};

/// Kinds of distributions, on vectors of as many values as the shape has.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Points of equal probability, one after another.
    Points(Vec<f32>),
    /// Mean and standard deviation of every coordinate.
    Gaussian(Vec<f32>, f32),
    /// Radius and orthonormal directions, one after another.
    Sphere(f32, Vec<f32>),
}

/// A distribution that is known exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    name: String,
    shape: [usize; 3],
    kind: Kind,
    /// Tells the samples of two distributions of one kind apart.
    salt: u64,
}

impl Exact {
    /// Checks the number of values against the shape.
    pub fn new(name: &str, shape: [usize; 3], kind: Kind, salt: u64) -> Result<Self> {
        let d = shape.iter().product::<usize>();
        let n = match &kind {
            Kind::Points(values) | Kind::Gaussian(values, _) | Kind::Sphere(_, values) => {
                values.len()
            }
        };
        let single = matches!(kind, Kind::Gaussian(..));
        if n == 0 || !n.is_multiple_of(d.max(1)) || (single && n != d) {
            return Err(Error::InvalidArgument {
                name: "number of values",
                got: n.to_string(),
                expected: format!("{}{d}", if single { "" } else { "a positive multiple of " }),
            });
        }
        Ok(Self { name: name.to_owned(), shape, kind, salt })
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Adds one sample to `out`; `index` is that of the point where there are points.
    fn sample(&self, rng: &mut ChaCha8Rng, index: Option<usize>, out: &mut Vec<f32>) {
        let d = self.len();
        match &self.kind {
            Kind::Points(points) => {
                let i = index.unwrap_or_else(|| rng.random_range(0..points.len() / d));
                out.extend_from_slice(&points[i * d..][..d]);
            }
            Kind::Gaussian(mean, sd) => out.extend(mean.iter().map(|m| m + sd * normal(rng))),
            Kind::Sphere(radius, directions) => {
                let mut coordinates: Vec<f32> = directions.chunks(d).map(|_| normal(rng)).collect();
                let norm = coordinates.iter().map(|x| x * x).sum::<f32>().sqrt();
                coordinates.iter_mut().for_each(|x| *x *= radius / norm);
                let start = out.len();
                out.resize(start + d, 0.0);
                for (direction, coordinate) in directions.chunks(d).zip(coordinates) {
                    let target = out[start..].iter_mut();
                    target.zip(direction).for_each(|(x, e)| *x += coordinate * e);
                }
            }
        }
    }

    fn tensor(&self, n: usize, values: Vec<f32>) -> Result<Tensor> {
        let [c, h, w] = self.shape;
        Ok(Tensor::from_vec(values, (n, c, h, w), &Device::Cpu)?)
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

impl Distribution for Exact {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn draw(&self, n: usize, seed: u64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(n * self.len());
        (0..n).for_each(|_| self.sample(&mut rng, None, &mut values));
        self.tensor(n, values)
    }

    fn n_held_out(&self, _part: Part) -> Option<usize> {
        match &self.kind {
            Kind::Points(points) => Some(points.len() / self.len()),
            _ => None,
        }
    }

    fn held_out(&self, part: Part, range: Range<usize>) -> Result<Tensor> {
        if let Some(n) = self.n_held_out(part).filter(|n| range.end > *n) {
            let expected = format!("less than {n}, the size of {}", self.name);
            return Err(Error::argument("sample index", range.end - 1, expected));
        }
        let seed = 2 * self.salt + u64::from(part == Part::Report);
        let mut values = Vec::with_capacity(range.len() * self.len());
        for i in range.clone() {
            // stream 2⁶³ + i of a key of its own: no training batch reads it
            let mut rng = ChaCha8Rng::seed_from_u64(0x5eed_0000_0000_0000 | seed);
            rng.set_stream(1 << 63 | i as u64);
            self.sample(&mut rng, Some(i), &mut values);
        }
        self.tensor(range.len(), values)
    }

    fn is_population(&self) -> bool {
        matches!(self.kind, Kind::Points(_))
    }
}
