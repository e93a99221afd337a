//! A network named on the command line, and the images that belong to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use lipconv::{ImageShape, PlainNetwork, output};
use lipconv_datasets::ImageSet;

use super::args::DataArgs;
use crate::config::{DatasetName, DeviceKind, RunConfig};
use crate::experiment::build;
use crate::experiment::evaluation::load_network;
use crate::files::RunFiles;
use crate::jobs;
use crate::progress::Display;
use crate::stdout::note;
use certify::Eps;

/// The network of a run directory, or of a file of weights.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) network: PlainNetwork,
    /// The run's configuration, or the defaults for a file on its own.
    pub(super) config: RunConfig,
    /// The run, where a run directory was named.
    pub(super) run: Option<RunFiles>,
    file: PathBuf,
}

/// The weights of a run directory, or the file itself; with the run.
///
/// The trained network comes before the checkpoint, which the commands that only need a network do not read where there is one.
/// What is named is an input of this process.
fn weights_file(path: &Path) -> Result<(PathBuf, Option<RunFiles>)> {
    if !path.is_dir() {
        output::protect(path);
        return Ok((path.to_owned(), None));
    }
    let run = RunFiles::open(path)?;
    run.protect();
    let file = [run.network(), run.checkpoint()].into_iter().find(|file| file.is_file());
    let dir = path.display();
    let file = file
        .with_context(|| format!("{dir} holds no checkpoint yet; train it with --resume {dir}"))?;
    Ok((file, Some(run)))
}

/// The file of a trained network, by whose hash certificates name it; with the run.
pub(super) fn trained_file(path: &Path) -> Result<(PathBuf, Option<RunFiles>)> {
    let (file, run) = weights_file(path)?;
    let dir = path.display();
    ensure!(
        run.as_ref().is_none_or(|run| run.network() == file),
        "{dir} holds no trained network yet; train it with --resume {dir}"
    );
    Ok((file, run))
}

/// The data set that images of this shape are assumed to be of, and a note that says so.
pub(super) fn assumed_config(input: ImageShape) -> RunConfig {
    let cifar10 = input == ImageShape::new(3, 32, 32);
    RunConfig::of(if cifar10 { DatasetName::Cifar10 } else { DatasetName::Mnist })
}

impl Model {
    /// Loads a network, on the device that it was trained on where none is named.
    pub(super) fn load(path: &Path, device: Option<DeviceKind>) -> Result<Self> {
        let (file, run) = weights_file(path)?;
        let config = run.as_ref().map(RunFiles::config_as_trained).transpose()?;
        let trained_on = config.as_ref().map_or_else(DeviceKind::default, |config| config.device);
        let device = device.unwrap_or(trained_on);
        let loaded = load_network(&file, &build::device(device)?)?;
        if loaded.unfinished {
            let step = loaded.step.unwrap_or_default();
            note(&format!("{} is a run that has not ended (step {step})", path.display()));
        }
        let config = config.unwrap_or_else(|| assumed_config(loaded.network.input()));
        Ok(Self { network: build::evaluated_on(loaded.network, device)?, config, run, file })
    }

    /// Loads KW-Small, a published network, from the file of its weights.
    pub(super) fn kw_small(path: &Path) -> Result<Self> {
        Ok(Self::imported(jobs::kw_small::load(path)?, path))
    }

    /// A network of another program.
    pub(super) fn imported(network: PlainNetwork, path: &Path) -> Self {
        output::protect(path);
        let config = assumed_config(network.input());
        Self { network, config, run: None, file: path.to_owned() }
    }

    /// Loads a trained network on the CPU, with the bytes that it was read from.
    pub(super) fn load_trained(path: &Path) -> Result<(Self, Vec<u8>)> {
        let (file, run) = trained_file(path)?;
        let network = PlainNetwork::load(&file, &Device::Cpu).context("cannot load a network")?;
        let bytes =
            std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let config = match &run {
            Some(run) => run.config_as_trained()?,
            None => assumed_config(network.input()),
        };
        Ok((Self { network, config, run, file }, bytes))
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
    pub(super) fn test_images(
        &self,
        data: &DataArgs,
        dataset: Option<&DatasetName>,
        limit: Option<usize>,
        display: Display,
    ) -> Result<ImageSet> {
        if self.run.is_none() && dataset.is_none() {
            note(&format!(
                "{} does not say what it was trained on; from the size of its images, {} is assumed",
                self.file.display(),
                self.config.data.dataset
            ));
        }
        test_images(self.config.clone(), data, dataset, limit, display)
    }

    /// What the classes are called; numbers where they have no names.
    pub(super) fn class_name(&self, class: usize) -> String {
        let names = self.run.as_ref().map(RunFiles::classes).unwrap_or_default();
        names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

/// Test images of a configuration, or of another data set; nothing stands in for them.
pub(super) fn test_images(
    mut config: RunConfig,
    data: &DataArgs,
    dataset: Option<&DatasetName>,
    limit: Option<usize>,
    display: Display,
) -> Result<ImageSet> {
    if let Some(dataset) = dataset {
        config.data.dataset = dataset.clone();
    }
    config.data.test_limit = limit.or(config.data.test_limit);
    config.data.train_limit = Some(1);
    config.validate()?;
    Ok(data.load(&config, false, display)?.test)
}

/// All images as a tensor, and their labels.
pub(super) fn tensors(images: &ImageSet, dtype: DType) -> Result<(Tensor, Vec<usize>)> {
    Ok((images.tensor(0..images.len(), dtype, &Device::Cpu)?, images.classes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_alone_tells_its_data_set_by_its_images() {
        let radii = |input| assumed_config(input).evaluation.attack_eps;
        assert_eq!(radii(ImageShape::new(3, 32, 32))[0].text(), "36/255");
        assert_eq!(radii(ImageShape::new(1, 28, 28))[0].text(), "1.58");
    }
}
