//! Where the images of a distance come from, by name; and a frozen generator as a distribution.
//!
//! Definition: `cifar10`, `stl10`, `mnist`, `synthetic` and `idx:DIR` are data sets, whose test images are reported on; `images:DIR` is every
//! image file in a folder and below it; `generator:FILE` is a frozen generator. Images are brought to a size where one is
//! given; without it, data sets take one that a critic accepts (32 for MNIST and CIFAR-10, 64 for STL-10) and folders their own.
//! STL-10 trains on its unlabelled images where they are at hand. Of a generator, training batches are the first images of the seed
//! that is asked for; numbered samples are those of one seed for each part. Where the critic wants images of another size, a whole
//! factor larger, every pixel becomes a square.
//!
//! Guarantee: equal numbers give the same generated image, on one device and with one binary.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use certify::{Distribution, SamplePart};
use lipconv::generator::FrozenGenerator;
use lipconv_datasets::{Dataset, ImageSet, Stl10Files, Stl10Part, flat_folder, resized};

use super::distribution::{FEWEST, ImagePool};
use crate::config::{DatasetName, RunConfig, require};
use crate::error::Error;
use crate::experiment::build::{self, DataOptions};
use crate::words::shape_text;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceName {
    /// A data set; `images:DIR` here is a folder without classes.
    Data(DatasetName),
    Generator(PathBuf),
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(name) => name.fmt(f),
            Self::Generator(file) => write!(f, "generator:{}", file.display()),
        }
    }
}

impl FromStr for SourceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(file) = text.strip_prefix("generator:").filter(|file| !file.is_empty()) {
            return Ok(Self::Generator(file.into()));
        }
        text.parse().map(Self::Data).map_err(|_| Error::ConfigValue {
            key: "images",
            got: text.to_owned(),
            expected: "cifar10, stl10, mnist, synthetic, idx:DIR, images:DIR or generator:FILE"
                .into(),
        })
    }
}

/// How a source is loaded.
#[derive(Debug)]
pub struct Loading<'a> {
    /// Height and width; the source's own where absent.
    pub size: Option<usize>,
    /// Whether the images are the distribution itself.
    pub population: bool,
    pub options: &'a DataOptions,
}

impl Loading<'_> {
    /// The images of a data set or a folder, with what a person should know about them.
    pub fn images(&self, name: &DatasetName) -> Result<(ImagePool, Vec<String>)> {
        if let DatasetName::Images(dir) = name {
            let at_least = if self.population { 2 } else { FEWEST };
            let (images, notes) = flat_folder(dir, self.size.map(|side| (side, side)), at_least)?;
            let pool = if self.population { ImagePool::population } else { ImagePool::cut };
            return Ok((pool(&images)?, notes));
        }
        let dataset = build::dataset(&RunConfig::of(name.clone()), self.options)?;
        let [_, height, width] = dataset.train.shape();
        // sides that the paper's critic accepts: multiples of 16 from 32 on
        let side = self.size.unwrap_or(if height.max(width) <= 48 { 32 } else { 64 });
        let test = resized(&dataset.test, side, side)?;
        let unlabeled = match name {
            DatasetName::Stl10 => unlabeled(&dataset, side)?,
            _ => None,
        };
        let train = match unlabeled {
            Some(images) => images,
            None => resized(&dataset.train, side, side)?,
        };
        let pool = if self.population {
            ImagePool::population(&train)?
        } else {
            ImagePool::of_dataset(&train, &test)?
        };
        Ok((pool, dataset.notes))
    }
}

/// The unlabelled images of STL-10, where they lie beside the others.
fn unlabeled(dataset: &Dataset, side: usize) -> Result<Option<ImageSet>> {
    match dataset.source.folder().and_then(Stl10Files::find).filter(Stl10Files::has_unlabeled) {
        Some(files) => Ok(Some(files.read(Stl10Part::Unlabeled, side)?)),
        None => Ok(None),
    }
}

/// Checks that two sides can be compared.
pub fn check_shapes(a: &dyn Distribution, b: &dyn Distribution) -> Result<()> {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    if a_shape == b_shape {
        return Ok(());
    }
    let cure = if a_shape[0] == b_shape[0] {
        "give both one size with --size"
    } else {
        "grey and colour images cannot be compared"
    };
    bail!(
        "images of {} are {}, those of {} are {}; {cure}",
        a.name(),
        shape_text(&a_shape),
        b.name(),
        shape_text(&b_shape)
    )
}

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
        let fits = factor > 0 && (factor * output.height, factor * output.width) == (side, side);
        let expected = format!("a multiple of {} x {}", output.height, output.width);
        require(fits, "size of generated images", side, &expected)?;
        let factor = if size.is_none() { 1 } else { factor };
        Ok(Self { name: name.to_owned(), generator, factor })
    }

    pub fn load(path: &Path, size: Option<usize>, device: &Device) -> Result<Self> {
        let generator = FrozenGenerator::load(path, device).context("cannot load a generator")?;
        let name = path.file_stem().map_or_else(|| "generator".into(), |s| s.to_string_lossy());
        Self::new(&format!("generator {name}"), generator, size)
    }

    fn sample(&self, n: usize, seed: u64, offset: u64) -> candle_core::Result<Tensor> {
        let images = self.generator.sample(n, seed, offset);
        let images = images.map_err(candle_core::Error::wrap)?;
        if self.factor == 1 {
            return Ok(images);
        }
        let (_, _, h, w) = images.dims4()?;
        images.upsample_nearest2d(h * self.factor, w * self.factor)
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

    fn draw(&self, n: usize, seed: u64) -> candle_core::Result<Tensor> {
        self.sample(n, seed, 0)
    }

    fn n_held_out(&self, _part: SamplePart) -> Option<usize> {
        None
    }

    fn held_out(&self, part: SamplePart, range: Range<usize>) -> candle_core::Result<Tensor> {
        let seed = SEEDS[usize::from(part == SamplePart::Report)];
        self.sample(range.len(), seed, range.start as u64)
    }
}
