//! Flags that several commands share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Result, ensure};
use clap::builder::PossibleValuesParser;
use lipconv_datasets::Dataset;

use crate::config::{
    Activation, AugmentationKind, DatasetName, DeviceKind, Method, Net, Recipe, RunConfig,
    ScheduleKind,
};
use crate::experiment::build::{self, DataOptions};
use crate::files::open_own;
use crate::progress::Display;
use crate::stdout::{Log, note};
use certify::Eps;

/// Where images may come from.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Data")]
pub(super) struct DataArgs {
    /// Folder with mnist/train-images-idx3-ubyte.gz and so on, and cifar10/cifar-10-binary.tar.gz
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Download nothing (as LIPCONV_OFFLINE=1)
    #[arg(long)]
    offline: bool,
}

impl DataArgs {
    pub(super) fn options(&self, may_be_synthetic: bool, display: Display) -> DataOptions {
        DataOptions {
            data_dir: self.data_dir.clone(),
            offline: self.offline,
            may_be_synthetic,
            display,
        }
    }

    /// The same flags for a worker, which may stand in another folder.
    pub(super) fn as_arguments(&self) -> Result<Vec<OsString>> {
        let mut arguments = Vec::new();
        if let Some(dir) = &self.data_dir {
            arguments.extend(["--data-dir".into(), std::path::absolute(dir)?.into_os_string()]);
        }
        if self.offline {
            arguments.push("--offline".into());
        }
        Ok(arguments)
    }

    /// Finds the images and says what a person should know about them.
    pub(super) fn load(
        &self,
        config: &RunConfig,
        may_be_synthetic: bool,
        display: Display,
    ) -> Result<Dataset> {
        let dataset = build::dataset(config, &self.options(may_be_synthetic, display))?;
        for line in &dataset.notes {
            note(line);
        }
        Ok(dataset)
    }
}

/// What to train; each flag overrides the configuration file.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Training")]
pub(super) struct TrainFlags {
    /// Configuration file (TOML); see examples/configs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Recipe that ships with the program, in place of a file
    #[arg(long, value_name = "NAME", conflicts_with = "config", value_parser = PossibleValuesParser::new(Recipe::names()))]
    recipe: Option<String>,
    /// Radius that the loss aims at, as in 1.58 or 36/255: sets the margin of the hinge or the offset of the cross-entropy
    #[arg(long, value_name = "EPS", conflicts_with = "margin")]
    target_eps: Option<Eps>,
    /// Where to compute
    #[arg(long, value_enum)]
    device: Option<DeviceKind>,
    /// Images: mnist, cifar10, stl10, synthetic, idx:DIR or images:DIR (train/CLASS/*.png, test/CLASS/*.png)
    #[arg(long, value_name = "NAME")]
    dataset: Option<DatasetName>,
    /// Bring every image to N x N pixels
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// Train on the first N images only
    #[arg(long, value_name = "N")]
    train_limit: Option<usize>,
    /// Evaluate on the first N test images only
    #[arg(long, value_name = "N")]
    test_limit: Option<usize>,
    /// Architecture
    #[arg(long, value_enum)]
    network: Option<Net>,
    /// How convolutions are constrained: bcop, unconstrained and so on; bjorck for fc-3, which has none
    #[arg(long, value_name = "METHOD")]
    layer: Option<Method>,
    /// Nonlinearity: maxmin, relu or groupsort:GROUP
    #[arg(long, value_name = "NAME")]
    activation: Option<Activation>,
    /// Passes over the training set
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images in a step
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Initial step size of the optimiser
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    learning_rate: Option<f64>,
    /// Decay of the step size
    #[arg(long, value_enum)]
    schedule: Option<ScheduleKind>,
    /// Margin of the hinge loss
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    margin: Option<f64>,
    /// Random changes of the training images
    #[arg(long, value_enum)]
    augmentation: Option<AugmentationKind>,
    /// Seed of initialisation, batch order and augmentation
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Evaluate on the test images after every N epochs, and after the last one
    #[arg(long, value_name = "N")]
    eval_every: Option<usize>,
}

impl TrainFlags {
    /// Whether the way of training is chosen: by a file, a recipe or one of its settings.
    pub(super) fn choose_recipe(&self) -> bool {
        let schedule = self.schedule.is_some() || self.learning_rate.is_some();
        let loss = self.margin.is_some() || self.target_eps.is_some();
        self.config.is_some() || self.recipe.is_some() || schedule || loss
    }

    pub(super) fn recipe(&self) -> Option<&str> {
        self.recipe.as_deref()
    }

    /// Where to compute, and whether nothing else is said.
    pub(super) fn device_alone(&self) -> Option<Option<DeviceKind>> {
        let alone = Self { device: self.device, ..Self::default() };
        (*self == alone).then_some(self.device)
    }

    /// The number of epochs, where nothing else is said.
    pub(super) fn epochs_alone(&self) -> Option<Option<usize>> {
        let alone = Self { epochs: self.epochs, ..Self::default() };
        (*self == alone).then_some(self.epochs)
    }

    /// The configuration file, or the data set's defaults, with the flags over it.
    pub(super) fn config(&self) -> Result<RunConfig> {
        let dataset = || self.dataset.clone().unwrap_or_default();
        let mut config = match (&self.config, &self.recipe) {
            (Some(path), _) => RunConfig::read_for(path, self.dataset.clone())?,
            (None, Some(name)) => Recipe::named(name)?.config(dataset())?,
            (None, None) => RunConfig::of(dataset()),
        };
        set(&mut config.device, self.device);
        // a run is found again from wherever it is resumed
        if let DatasetName::Idx(dir) | DatasetName::Images(dir) = &mut config.data.dataset {
            *dir = std::path::absolute(&*dir)?;
        }
        config.data.size = self.size.or(config.data.size);
        config.data.train_limit = self.train_limit.or(config.data.train_limit);
        config.data.test_limit = self.test_limit.or(config.data.test_limit);
        set(&mut config.network.name, self.network);
        // the one network without convolutions has another method by default
        let bjorck = self.network == Some(Net::Fc3) && !config.network.layer.is_unconstrained();
        set(&mut config.network.layer, self.layer.or(bjorck.then_some(Method::Bjorck)));
        set(&mut config.network.activation, self.activation);
        let training = &mut config.training;
        match self.epochs {
            Some(epochs) if self.recipe.is_some() => training.in_epochs(epochs),
            epochs => set(&mut training.epochs, epochs),
        }
        set(&mut training.batch_size, self.batch_size);
        set(&mut training.learning_rate, self.learning_rate);
        set(&mut training.schedule, self.schedule);
        set(&mut training.margin, self.margin);
        set(&mut training.augmentation, self.augmentation);
        set(&mut training.seed, self.seed);
        set(&mut config.evaluation.every, self.eval_every);
        if let Some(eps) = &self.target_eps {
            config.aim_at(eps);
        }
        config.validate()?;
        config.training.check_effective()?;
        ensure!(
            self.margin.is_none() || config.training.cross_entropy.is_none(),
            "--margin belongs to the hinge loss, and this recipe trains with a cross-entropy: --target-eps sets its offset"
        );
        Ok(config)
    }
}

/// What to measure; each flag overrides the configuration.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct EvalFlags {
    /// Radii of certified accuracy, as in 0.5,1.58 or 36/255
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    eps: Option<Vec<Eps>>,
    /// Radii of the attacks
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    attack_eps: Option<Vec<Eps>>,
    /// Steps of PGD
    #[arg(long, value_name = "N")]
    pgd_steps: Option<usize>,
    /// Length of a PGD step
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pgd_step_size: Option<f64>,
    /// Random starts of the stronger PGD; 0 leaves it out
    #[arg(long, value_name = "N")]
    strong_restarts: Option<usize>,
    /// AutoAttack, and the nearest adversarial examples, on the first N test images; on all where no number is given
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = ALL_IMAGES)]
    auto_attack: Option<usize>,
}

/// `AutoAttackConfig::ALL`, as an argument.
const ALL_IMAGES: &str = "1000000000";

impl EvalFlags {
    pub(super) fn apply(&self, config: &mut RunConfig) -> Result<()> {
        let evaluation = &mut config.evaluation;
        set(&mut evaluation.eps, self.eps.clone());
        set(&mut evaluation.attack_eps, self.attack_eps.clone());
        set(&mut evaluation.pgd.steps, self.pgd_steps);
        set(&mut evaluation.pgd.step_size, self.pgd_step_size);
        set(&mut evaluation.strong_pgd.restarts, self.strong_restarts);
        set(&mut evaluation.auto_attack.images, self.auto_attack);
        Ok(config.validate()?)
    }
}

fn set<T>(value: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *value = flag;
    }
}

/// Appends what is traced to a file, from now on.
pub(super) fn log_to(path: &Path) -> Result<()> {
    let file = open_own(path)?;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Mutex::new(Log(file)))
        .with_ansi(false)
        .with_target(false);
    // a second run in one process keeps the first one's log
    let _ = subscriber.try_init();
    Ok(())
}
