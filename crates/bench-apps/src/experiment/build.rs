//! Devices, networks, training settings and data of a configuration.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use lipconv::{
    ImageShape, Loss, Network, NetworkSpec, PlainNetwork, Schedule, TrainConfig, Trainer,
};
use lipconv_datasets::synthetic::{self, SyntheticDigits};
use lipconv_datasets::{
    Augmentation, Dataset, Fallback, ImageSet, LocateOptions, Manifest, idx_folder,
    image_folder_at, locate, resized,
};

use crate::config::{
    AugmentationKind, DatasetName, DeviceKind, Net, NetworkConfig, RunConfig, ScheduleKind,
    TrainingConfig,
};
use crate::progress::{Display, Stages};
use crate::words::counted;

/// The device of a configuration; never another one in its place.
pub fn device(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu | DeviceKind::Portable => Ok(Device::Cpu),
        DeviceKind::Cuda => Device::new_cuda(0).context("no CUDA device"),
        // its network lives on the processor
        #[cfg(feature = "cuda-emulation")]
        DeviceKind::Emulated => Ok(Device::Cpu),
    }
}

/// The device of a generator or a critic, which have one engine for each.
pub fn distance_device(kind: DeviceKind) -> Result<Device> {
    match kind {
        DeviceKind::Cpu | DeviceKind::Cuda => device(kind),
        other => {
            bail!("the device is {}; generators and critics take cpu or cuda", device_name(other))
        }
    }
}

/// The trainer with the engine of a configuration's device.
pub fn on_device(trainer: Trainer, kind: DeviceKind) -> Result<Trainer> {
    Ok(match kind {
        DeviceKind::Portable => trainer.into_portable()?,
        DeviceKind::Cpu | DeviceKind::Cuda => trainer,
        #[cfg(feature = "cuda-emulation")]
        DeviceKind::Emulated => {
            trainer.on_cuda(lipconv::cuda::Place::Emulated(Default::default()))?
        }
    })
}

/// The network where a configuration's device evaluates it.
pub fn evaluated_on(network: PlainNetwork, kind: DeviceKind) -> Result<PlainNetwork> {
    match kind {
        DeviceKind::Cpu | DeviceKind::Cuda | DeviceKind::Portable => Ok(network),
        #[cfg(feature = "cuda-emulation")]
        DeviceKind::Emulated => {
            Ok(network.on_cuda(lipconv::cuda::Place::Emulated(Default::default()))?)
        }
    }
}

/// The device in words, as in "CPU, 2 threads".
pub fn device_name(kind: DeviceKind) -> String {
    let cpu = format!("CPU, {}", counted(rayon::current_num_threads(), "thread"));
    match kind {
        DeviceKind::Cpu => cpu,
        DeviceKind::Portable => format!("{cpu}, candle's operations"),
        DeviceKind::Cuda => "CUDA device 0".into(),
        #[cfg(feature = "cuda-emulation")]
        DeviceKind::Emulated => "emulated CUDA device".into(),
    }
}

/// The network of a configuration for images of one kind.
pub fn network_spec(config: &NetworkConfig, images: &ImageSet) -> Result<NetworkSpec> {
    let [channels, height, width] = images.shape();
    let input = ImageShape::new(channels, height, width);
    let methods = config.layer.methods();
    let spec = match config.name {
        Net::Small => NetworkSpec::small(input, images.n_classes(), methods),
        Net::Large => {
            let width = config.width.unwrap_or(1.0);
            NetworkSpec::large(input, images.n_classes(), methods, width)?
        }
        Net::Fc3 => NetworkSpec::fc3(input, images.n_classes(), methods),
        Net::KwSmall => bail!("network.name is kw-small, expected a network that is trained here"),
    };
    let spec = config.layer.placed(spec.with_more_convolutions(config.more_convolutions));
    let spec = spec.with_activation(config.activation.layer());
    Ok(match config.head {
        Some(head) => spec.with_head(head)?,
        None => spec,
    })
}

/// What a configuration's augmentation draws.
pub fn augmentation(config: &TrainingConfig) -> Augmentation {
    let drawn = match config.augmentation {
        AugmentationKind::None => Augmentation::default(),
        AugmentationKind::CropFlip => Augmentation::CROP_FLIP,
    };
    Augmentation { random: config.rand_augment, ..drawn }
}

/// Checks that the configured network fits the images, which takes building it once.
pub fn check_network(config: &NetworkConfig, images: &ImageSet) -> Result<()> {
    let spec = network_spec(config, images)?;
    Network::new(&spec, DType::F32, &Device::Cpu, 0)?;
    Ok(())
}

pub fn train_config(config: &TrainingConfig) -> TrainConfig {
    TrainConfig {
        epochs: config.epochs,
        learning_rate: config.learning_rate,
        schedule: match config.schedule {
            ScheduleKind::Exponential => Schedule::paper_over(config.epochs),
            ScheduleKind::Linear => Schedule::Linear,
            ScheduleKind::Cosine => {
                Schedule::Cosine { warm_up: config.warm_up / config.epochs as f64 }
            }
            ScheduleKind::Constant => Schedule::Constant,
        },
        optimizer: config.optimizer.unwrap_or_default(),
        averaging: config.averaging.unwrap_or_default(),
        loss: Loss::from(config),
        seed: config.seed,
    }
}

/// Where a command may look for images, and what it says meanwhile.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// The folder given by flag.
    pub data_dir: Option<std::path::PathBuf>,
    pub offline: bool,
    /// Whether synthetic digits may stand in for MNIST; nothing stands in for other images.
    pub may_be_synthetic: bool,
    pub display: Display,
}

/// The images of a configuration, cut to its limits.
pub fn dataset(config: &RunConfig, options: &DataOptions) -> Result<Dataset> {
    let digits = digits(config);
    let fallback =
        if options.may_be_synthetic { Fallback::Synthetic(digits) } else { Fallback::Refuse };
    let mut dataset = match &config.data.dataset {
        DatasetName::Synthetic => synthetic::dataset(&digits)?,
        DatasetName::Mnist => located(&Manifest::mnist()?, fallback, options)?,
        DatasetName::Cifar10 => located(&Manifest::cifar10()?, Fallback::Refuse, options)?,
        DatasetName::Stl10 => located(&Manifest::stl10()?, Fallback::Refuse, options)?,
        DatasetName::Idx(dir) => idx_folder(dir)?,
        DatasetName::Images(dir) => image_folder_at(dir, config.data.size)?,
    };
    if let Some(n) = config.data.train_limit {
        dataset.train = dataset.train.head(n);
    }
    if let Some(n) = config.data.test_limit {
        dataset.test = dataset.test.head(n);
    }
    if let Some(side) = config.data.size {
        let sized = |set: &ImageSet| -> crate::error::Result<ImageSet> {
            Ok(resized(set, side, side)?.named(&format!("{} at {side} x {side}", set.name())))
        };
        (dataset.train, dataset.test) = (sized(&dataset.train)?, sized(&dataset.test)?);
    }
    Ok(dataset)
}

/// As many synthetic digits as the limits leave: the first n do not depend on how many are drawn.
fn digits(config: &RunConfig) -> SyntheticDigits {
    let all = SyntheticDigits::default();
    let at_most = |limit: Option<usize>, n: usize| limit.unwrap_or(n).min(n);
    SyntheticDigits {
        seed: config.data.synthetic_seed,
        n_train: at_most(config.data.train_limit, all.n_train),
        n_test: at_most(config.data.test_limit, all.n_test),
    }
}

fn located(manifest: &Manifest, fallback: Fallback, options: &DataOptions) -> Result<Dataset> {
    let mut places = LocateOptions::from_environment(options.data_dir.clone(), fallback);
    places.offline |= options.offline;
    let mut bars = Stages::new(options.display);
    let found = locate(manifest, &places, &mut |report| {
        bars.show(report.file, report.received, report.total, "bytes");
    });
    bars.finish();
    Ok(found?)
}
