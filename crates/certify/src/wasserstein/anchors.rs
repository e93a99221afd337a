//! Exact anchors: pairs of distributions whose distance is known, to test critics on.
//!
//! Definition. On vectors of d = c·h·w values: *points*, each with the same probability; a *Gaussian* with mean m and covariance s² I;
//! a *sphere*, uniform on the points of norm r in the span of some orthonormal directions.
//! * Two points: W1 = ‖x - y‖.
//! * Gaussians of one covariance: W1 = ‖m - m'‖, by f(x) = ⟨x, m - m'⟩ / ‖m - m'‖.
//! * Concentric spheres of one span: W1 = |r - r'|, by f(x) = ‖x‖; moving along rays costs as much.
//! * Sets of n points each: the smallest mean cost of a matching (Birkhoff), see [`matching_distance`].
//!
//! The anchors are, for d = 64 (images 1 x 8 x 8) and by a seed: *two points* at distance 2; *shifted Gaussians* of standard
//! deviation 1/2, shifted by 3/2; *spheres*, circles of radius 1 and 5/2 around 0 in one plane; *matched points*, two sets of 8.
//!
//! Guarantee: samples are a function of the distribution, the part and the number, or of the seed. An estimate above the exact
//! value by more than its sampling error is an error of the estimator, and [`Anchor::check`] says so.

use std::ops::Range;

use candle_core::{Device, Tensor};
use projectors::haar_orthogonal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

use super::distribution::{Distribution, SamplePart};
use super::matching::{euclidean_distance, matching_distance};
use crate::error::{Error, Result};

/// Shape of all samples.
const SHAPE: [usize; 3] = [1, 8, 8];
/// Values of a sample.
const D: usize = 64;
/// Points of a matched set.
const N_POINTS: usize = 8;
/// Standard errors that an estimate may lie above the exact value.
const N_SIGMA: f64 = 4.0;

/// A pair of distributions with its distance.
#[derive(Debug)]
pub struct Anchor {
    /// For people.
    pub name: &'static str,
    /// The distribution with the larger optimal critic.
    pub a: ExactDistribution,
    /// The other.
    pub b: ExactDistribution,
    /// Their distance.
    pub exact: f64,
}

impl Anchor {
    /// All anchors, drawn by a seed.
    ///
    /// # Errors
    /// None in practice: those of [`ExactDistribution::new`] and of [`matching_distance`].
    pub fn all(seed: u64) -> Result<Vec<Self>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let basis = directions(&mut rng);
        Ok(vec![
            points_apart(&basis, &mut rng)?,
            gaussians(&basis)?,
            spheres(&basis)?,
            matched(&mut rng)?,
        ])
    }

    /// Refuses an estimate that no lower bound could give.
    ///
    /// # Errors
    /// [`Error::AboveExact`].
    pub fn check(&self, value: f64, standard_error: f64) -> Result<()> {
        let most = self.exact * (1.0 + 1e-6) + N_SIGMA * standard_error;
        if value <= most {
            return Ok(());
        }
        let (anchor, exact, n_sigma) = (self.name, self.exact, N_SIGMA);
        Err(Error::AboveExact { anchor, value, exact, n_sigma, standard_error })
    }
}

/// Rows of a random orthogonal matrix.
fn directions(rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let matrix = haar_orthogonal::<f64>(D, rng);
    matrix.rows().into_iter().map(|row| row.iter().map(|&x| x as f32).collect()).collect()
}

fn exact(name: &str, kind: ExactKind, salt: u64) -> Result<ExactDistribution> {
    ExactDistribution::new(name, SHAPE, kind, salt)
}

fn scaled(direction: &[f32], factor: f32) -> Vec<f32> {
    direction.iter().map(|x| factor * x).collect()
}

fn points_apart(basis: &[Vec<f32>], rng: &mut ChaCha8Rng) -> Result<Anchor> {
    let x: Vec<f32> = (0..D).map(|_| rng.random_range(-0.5..0.5)).collect();
    let y: Vec<f32> = x.iter().zip(&basis[0]).map(|(x, e)| x + 2.0 * e).collect();
    // of the stored numbers, not of what they were meant to be
    let apart = euclidean_distance(&x, &y);
    // each point twice: the estimator asks for two samples of everything
    let twice = |point: Vec<f32>| ExactKind::Points(point.repeat(2));
    let (a, b) = (exact("x", twice(x), 0)?, exact("y", twice(y), 1)?);
    Ok(Anchor { name: "two points", a, b, exact: apart })
}

fn gaussians(basis: &[Vec<f32>]) -> Result<Anchor> {
    let shift = scaled(&basis[1], 1.5);
    let apart = euclidean_distance(&shift, &[0.0; D]);
    let a = exact("N(0, 1/4)", ExactKind::Gaussian(vec![0.0; D], 0.5), 2)?;
    let b = exact("N(m, 1/4)", ExactKind::Gaussian(shift, 0.5), 3)?;
    Ok(Anchor { name: "shifted Gaussians", a, b, exact: apart })
}

fn spheres(basis: &[Vec<f32>]) -> Result<Anchor> {
    let plane = basis[2..4].concat();
    let a = exact("circle of radius 1", ExactKind::Sphere(1.0, plane.clone()), 4)?;
    let b = exact("circle of radius 5/2", ExactKind::Sphere(2.5, plane), 5)?;
    Ok(Anchor { name: "concentric circles", a, b, exact: 1.5 })
}

fn matched(rng: &mut ChaCha8Rng) -> Result<Anchor> {
    let mut set = |from: f32, to: f32| -> Vec<f32> {
        (0..N_POINTS * D).map(|_| rng.random_range(from..to)).collect()
    };
    let (x, y) = (set(-0.5, 0.5), set(-0.3, 0.7));
    let apart = matching_distance(&x, &y, D)?;
    let (a, b) =
        (exact("8 points", ExactKind::Points(x), 6)?, exact("8 others", ExactKind::Points(y), 7)?);
    Ok(Anchor { name: "matched points", a, b, exact: apart })
}

/// Kinds of distributions, on vectors of as many values as the shape has.
#[derive(Debug, Clone, PartialEq)]
pub enum ExactKind {
    /// Points of equal probability, one after another.
    Points(Vec<f32>),
    /// Mean and standard deviation of every coordinate.
    Gaussian(Vec<f32>, f32),
    /// Radius and orthonormal directions, one after another.
    Sphere(f32, Vec<f32>),
}

/// A distribution that is known exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactDistribution {
    name: String,
    shape: [usize; 3],
    kind: ExactKind,
    /// Tells the samples of two distributions of one kind apart.
    salt: u64,
}

impl ExactDistribution {
    /// A distribution on images of `shape` (channels, height, width); `salt` tells its samples from those of another of its kind.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for values that are not finite or do not fill the shape, and for a negative deviation or radius.
    pub fn new(name: &str, shape: [usize; 3], kind: ExactKind, salt: u64) -> Result<Self> {
        let d = shape.iter().product::<usize>();
        let (values, size) = match &kind {
            ExactKind::Points(values) => (values, 0.0),
            ExactKind::Gaussian(mean, sd) => (mean, *sd),
            ExactKind::Sphere(radius, directions) => (directions, *radius),
        };
        let n = values.len();
        let refused = |name, value, expected| Err(Error::InvalidSetting { name, value, expected });
        let single = matches!(kind, ExactKind::Gaussian(..));
        if n == 0 || !n.is_multiple_of(d.max(1)) || (single && n != d) {
            let expected = if single { "those of one sample" } else { "those of whole samples" };
            return refused("number of values", n as f64, expected);
        }
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return refused("a value", f64::from(value), "a finite number");
        }
        if !(size.is_finite() && size >= 0.0) {
            return refused(
                "deviation or radius",
                f64::from(size),
                "a finite number of at least 0",
            );
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
            ExactKind::Points(points) => {
                let i = index.unwrap_or_else(|| rng.random_range(0..points.len() / d));
                out.extend_from_slice(&points[i * d..][..d]);
            }
            ExactKind::Gaussian(mean, sd) => out.extend(mean.iter().map(|m| m + sd * normal(rng))),
            ExactKind::Sphere(radius, directions) => {
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

    fn tensor(&self, n: usize, values: Vec<f32>) -> candle_core::Result<Tensor> {
        let [c, h, w] = self.shape;
        Tensor::from_vec(values, (n, c, h, w), &Device::Cpu)
    }
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    StandardNormal.sample(rng)
}

impl Distribution for ExactDistribution {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn draw(&self, n: usize, seed: u64) -> candle_core::Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut values = Vec::with_capacity(n * self.len());
        (0..n).for_each(|_| self.sample(&mut rng, None, &mut values));
        self.tensor(n, values)
    }

    fn n_held_out(&self, _part: SamplePart) -> Option<usize> {
        match &self.kind {
            ExactKind::Points(points) => Some(points.len() / self.len()),
            _ => None,
        }
    }

    fn held_out(&self, part: SamplePart, range: Range<usize>) -> candle_core::Result<Tensor> {
        if let Some(n) = self.n_held_out(part).filter(|n| range.end > *n) {
            candle_core::bail!(
                "sample index is {}, expected less than {n}, the size of {}",
                range.end - 1,
                self.name
            );
        }
        let seed = 2 * self.salt + u64::from(part == SamplePart::Report);
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
        matches!(self.kind, ExactKind::Points(_))
    }
}
