//! A network named on the command line, and the images that belong to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use lipconv::{ImageShape, PlainNetwork, output};
use lipconv_datasets::ImageSet;

use super::args::DataArgs;
use crate::config::{DatasetName, DeviceKind, RunConfig};
use crate::experiment::build;
use crate::experiment::evaluation::load_network;
use crate::files::{RunFiles, read};
use crate::progress::Display;
use crate::stdout::note;
use crate::words::shell_quoted;
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

/// The present weights of a run directory, or the file itself; with the run. The files are protected: no output replaces them.
fn weights_file(path: &Path) -> Result<(PathBuf, Option<RunFiles>)> {
    if !path.is_dir() {
        output::protect(path);
        if let Some(Ok(run)) = path.parent().map(RunFiles::open) {
            run.protect();
        }
        return Ok((path.to_owned(), None));
    }
    let run = RunFiles::open(path)?;
    run.protect();
    let file = run.weights().with_context(|| {
        let quoted = shell_quoted(path);
        format!("{} holds no checkpoint yet; train it with --resume {quoted}", path.display())
    })?;
    Ok((file, Some(run)))
}

/// The file of a trained network, by whose hash certificates name it; with the run.
pub(super) fn trained_file(path: &Path) -> Result<(PathBuf, Option<RunFiles>)> {
    let (file, run) = weights_file(path)?;
    if let Some(run) = &run
        && run.network() != file
    {
        let older = run.earlier_networks().pop().map_or(String::new(), |network| {
            format!(", or name the network of its earlier end: {}", shell_quoted(&network))
        });
        let (dir, quoted) = (path.display(), shell_quoted(path));
        bail!("{dir} is a run that has not ended; train it with --resume {quoted}{older}");
    }
    Ok((file, run))
}

/// The configuration that is assumed for a network that says nothing but the shape of its images.
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
        let (network, unfinished) = load_network(&file, &build::device(device)?)?;
        if let Some(step) = unfinished {
            note(&format!("{} is a run that has not ended (step {step})", path.display()));
        }
        let config = config.unwrap_or_else(|| assumed_config(network.input()));
        Ok(Self { network: build::evaluated_on(network, device)?, config, run, file })
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
        let bytes = read(&file)?;
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

    /// Test images: those of the run, or of another data set; nothing stands in for them.
    pub(super) fn test_images(
        &self,
        data: &DataArgs,
        dataset: Option<&DatasetName>,
        limit: Option<usize>,
        display: Display,
    ) -> Result<ImageSet> {
        if self.run.is_none() && dataset.is_none() {
            let (file, input) = (self.file.display(), self.network.input());
            let known = [ImageShape::new(1, 28, 28), ImageShape::new(3, 32, 32)];
            ensure!(
                known.contains(&input),
                "{file} does not say what it was trained on, and no known data set has images of {}; name one with --dataset",
                shape_text(input)
            );
            note(&format!(
                "{file} does not say what it was trained on; from the size of its images, {} is assumed",
                self.config.data.dataset
            ));
        }
        let mut config = self.config.clone();
        if let Some(dataset) = dataset {
            config.data.dataset = dataset.clone();
        }
        config.data.test_limit = limit.or(config.data.test_limit);
        config.data.train_limit = Some(1);
        config.validate()?;
        let images = data.load(&config, false, display)?.test;
        let ([c, h, w], expected) = (images.shape(), self.network.input());
        ensure!(
            ImageShape::new(c, h, w) == expected,
            "{} has images of {c} x {h} x {w}, expected {}, as {} takes them",
            config.data.dataset,
            shape_text(expected),
            self.file.display()
        );
        Ok(images)
    }

    /// What the classes are called; numbers where they have no names.
    pub(super) fn class_name(&self, class: usize) -> String {
        let names = self.run.as_ref().and_then(|run| run.classes().ok()).unwrap_or_default();
        names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

fn shape_text(shape: ImageShape) -> String {
    format!("{} x {} x {}", shape.channels, shape.height, shape.width)
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
