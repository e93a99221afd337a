//! A network by the file of its weights, which certificates name by its hash.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use lipconv::{ImageShape, PlainNetwork};

use super::args::DataArgs;
use crate::config::{DatasetName, RunConfig};
use crate::data::ImageSet;
use crate::eps::Eps;
use crate::files::RunFiles;
use crate::progress::Display;

/// A plain network on the CPU, with the bytes it was read from.
#[derive(Debug)]
pub(super) struct PlainModel {
    pub(super) network: PlainNetwork,
    pub(super) bytes: Vec<u8>,
    /// The run's configuration, or the defaults for a file on its own.
    pub(super) config: RunConfig,
    was_synthetic: bool,
}

/// The weights file of a run directory, or the file itself; with the run.
pub(super) fn weights_file(path: &Path) -> Result<(PathBuf, Option<RunFiles>)> {
    if !path.is_dir() {
        return Ok((path.to_owned(), None));
    }
    let run = RunFiles::open(path)?;
    let file = run.network();
    let dir = path.display();
    anyhow::ensure!(
        file.is_file(),
        "{dir} holds no trained network yet; train it with --resume {dir}"
    );
    Ok((file, Some(run)))
}

/// What a network without a run was trained on, as far as its input tells.
pub(super) fn likely_dataset(input: ImageShape) -> DatasetName {
    let cifar10 = input == ImageShape::new(3, 32, 32);
    if cifar10 { DatasetName::Cifar10 } else { DatasetName::Mnist }
}

impl PlainModel {
    pub(super) fn load(path: &Path) -> Result<Self> {
        let (file, run) = weights_file(path)?;
        let network = PlainNetwork::load(&file, &Device::Cpu).context("cannot load a network")?;
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let was_synthetic = run.as_ref().and_then(RunFiles::is_synthetic) == Some(true);
        let config = match run {
            Some(run) => run.config()?,
            None => RunConfig::of(likely_dataset(network.input())),
        };
        Ok(Self { network, bytes, config, was_synthetic })
    }

    /// Radii of certified accuracy: those of the run, or those of another data set.
    pub(super) fn radii(&self, dataset: Option<&DatasetName>) -> Vec<Eps> {
        let own = &self.config;
        match dataset.filter(|name| **name != own.data.dataset) {
            Some(other) => RunConfig::of(other.clone()).evaluation.eps,
            None => own.evaluation.eps.clone(),
        }
    }

    /// Test images: those of the run, or of another data set.
    pub(super) fn images(
        &self,
        data: &DataArgs,
        dataset: Option<DatasetName>,
        limit: Option<usize>,
        display: Display,
    ) -> Result<ImageSet> {
        test_images(self.config.clone(), self.was_synthetic, data, dataset, limit, display)
    }
}

/// Test images of a configuration, or of another data set.
pub(super) fn test_images(
    mut config: RunConfig,
    may_be_synthetic: bool,
    data: &DataArgs,
    dataset: Option<DatasetName>,
    limit: Option<usize>,
    display: Display,
) -> Result<ImageSet> {
    config.data.dataset = dataset.unwrap_or(config.data.dataset);
    config.data.test_limit = limit.or(config.data.test_limit);
    config.data.train_limit = Some(1);
    config.validate()?;
    Ok(data.load(&config, may_be_synthetic, display)?.test)
}

/// All images as a tensor, and their labels.
pub(super) fn tensors(
    images: &ImageSet,
    dtype: candle_core::DType,
) -> Result<(Tensor, Vec<usize>)> {
    let pixels = images.tensor(0..images.len(), dtype, &Device::Cpu)?;
    Ok((pixels, images.classes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_alone_tells_its_data_set_by_its_images() {
        let radii = |input| RunConfig::of(likely_dataset(input)).evaluation.attack_eps;
        assert_eq!(radii(ImageShape::new(3, 32, 32))[0].text(), "36/255");
        assert_eq!(radii(ImageShape::new(1, 28, 28))[0].text(), "1.58");
    }
}
