//! A frozen generator as a distribution.
//!
//! Definition: training batches are the first images of the seed that is asked for; numbered samples are those of one seed for each
//! part. Where the critic wants images of another size, a whole factor larger, every pixel becomes a square.
//!
//! Guarantee: equal numbers give the same image, on one device and with one binary.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use lipconv::generator::FrozenGenerator;

use super::distribution::{Distribution, Part};
use crate::error::Error;

/// Seeds of the parts, which no training batch is likely to have.
const SEEDS: [u64; 2] = [0x5e1e_c700_0000_0001, 0x4e90_4700_0000_0002];

/// Images of a generator.
#[derive(Debug, Clone)]
pub struct Generated {
    name: String,
    generator: FrozenGenerator,
    factor: usize,
}

impl Generated {
    /// The generator's images at `size` x `size`, or at its own size.
    pub fn new(name: &str, generator: FrozenGenerator, size: Option<usize>) -> Result<Self> {
        let output = generator.spec().output;
        let side = size.unwrap_or(output.height);
        let factor = side / output.height;
        if factor == 0 || (factor * output.height, factor * output.width) != (side, side) {
            let expected = format!("a multiple of {} x {}", output.height, output.width);
            let got = side.to_string();
            return Err(
                Error::ConfigValue { key: "size of generated images", got, expected }.into()
            );
        }
        let factor = if size.is_none() { 1 } else { factor };
        Ok(Self { name: name.to_owned(), generator, factor })
    }

    /// Loads a generator's file.
    pub fn load(path: &Path, size: Option<usize>, device: &Device) -> Result<Self> {
        let generator = FrozenGenerator::load(path, device).context("cannot load a generator")?;
        let name = path.file_stem().map_or_else(|| "generator".into(), |s| s.to_string_lossy());
        Self::new(&format!("generator {name}"), generator, size)
    }

    fn sample(&self, n: usize, seed: u64, offset: u64) -> crate::Result<Tensor> {
        let images = self.generator.sample(n, seed, offset);
        let images = images.map_err(|e| candle_core::Error::msg(e.to_string()))?;
        if self.factor == 1 {
            return Ok(images);
        }
        let (_, _, h, w) = images.dims4()?;
        Ok(images.upsample_nearest2d(h * self.factor, w * self.factor)?)
    }
}

impl Distribution for Generated {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn shape(&self) -> [usize; 3] {
        let output = self.generator.spec().output;
        [output.channels, output.height * self.factor, output.width * self.factor]
    }

    fn draw(&self, n: usize, seed: u64) -> crate::Result<Tensor> {
        self.sample(n, seed, 0)
    }

    fn n_held_out(&self, _part: Part) -> Option<usize> {
        None
    }

    fn held_out(&self, part: Part, range: Range<usize>) -> crate::Result<Tensor> {
        let seed = SEEDS[usize::from(part == Part::Report)];
        self.sample(range.len(), seed, range.start as u64)
    }
}
