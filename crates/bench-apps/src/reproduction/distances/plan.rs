//! What is done in a cell of Table 4.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::cell::PLAN;
use super::result::DistanceResult;
use crate::config::{ActivationKind, DatasetName, DeviceKind, LayerKind};
use crate::error::{Error, Result};
use crate::files::{read_json, write_json};
use crate::wasserstein::gan::GanSettings;

/// A cell with all that it takes to run it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DistancePlan {
    /// A generator.
    Generator(GeneratorPlan),
    /// Critics on distributions whose distance is known.
    Anchors(AnchorsPlan),
    /// A critic between data and generator, for several learning rates.
    Critic(CriticPlan),
}

/// A generator of images like those of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorPlan {
    /// Name of the budget.
    pub budget: String,
    /// Images.
    pub dataset: DatasetName,
    /// Their height and width.
    pub size: usize,
    /// Where to compute.
    pub device: DeviceKind,
    /// Settings.
    pub settings: GanSettings,
}

/// Critics on known distances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorsPlan {
    /// Name of the budget.
    pub budget: String,
    /// Seeds.
    pub seeds: Vec<u64>,
    /// Methods.
    pub methods: Vec<LayerKind>,
    /// Nonlinearities.
    pub activations: Vec<ActivationKind>,
    /// Epochs of 25 steps.
    pub epochs: usize,
    /// Rates to choose from.
    pub learning_rates: Vec<f64>,
}

/// A critic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticPlan {
    /// The generator, which also names data set, size, budget and device.
    pub generator: GeneratorPlan,
    /// Method.
    pub method: LayerKind,
    /// Nonlinearity.
    pub activation: ActivationKind,
    /// Seed.
    pub seed: u64,
    /// Width; 1 is the paper's.
    pub width: f64,
    /// Epochs.
    pub epochs: usize,
    /// Steps in each.
    pub epoch_steps: usize,
    /// Samples of each side in a step.
    pub batch_size: usize,
    /// Rates to choose from.
    pub learning_rates: Vec<f64>,
    /// Pairs to choose on.
    pub n_select: usize,
    /// Pairs to report.
    pub n_report: usize,
}

impl GeneratorPlan {
    /// What the names of cells on these images begin with.
    fn stem(&self) -> String {
        let name = self.dataset.to_string();
        let safe = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
        format!("{}-{}px", safe.collect::<String>(), self.size)
    }
}

/// A nonlinearity's name in files.
#[must_use]
pub fn activation_key(activation: ActivationKind) -> &'static str {
    match activation {
        ActivationKind::MaxMin => "maxmin",
        ActivationKind::Relu => "relu",
    }
}

impl DistancePlan {
    /// Name of the folder, and the name that people see.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Generator(plan) => format!("{}-generator", plan.stem()),
            Self::Anchors(_) => "anchors".into(),
            Self::Critic(plan) => format!(
                "{}-{}-{}-seed{}",
                plan.generator.stem(),
                plan.method,
                activation_key(plan.activation),
                plan.seed
            ),
        }
    }

    /// Name of the budget.
    #[must_use]
    pub fn budget(&self) -> &str {
        match self {
            Self::Generator(plan) => &plan.budget,
            Self::Anchors(plan) => &plan.budget,
            Self::Critic(plan) => &plan.generator.budget,
        }
    }

    /// The folder under `dir`.
    #[must_use]
    pub fn folder(&self, dir: &Path) -> PathBuf {
        dir.join("distances").join(self.budget()).join(self.id())
    }

    /// Reads the plan in a cell's folder; `None` where the folder is that of another kind of cell.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PLAN);
        let value: Option<serde_json::Value> = read_json(&path)?;
        let Some(value) = value.filter(|value| value.get("kind").is_some()) else {
            return Ok(None);
        };
        let plan = serde_json::from_value(value);
        plan.map(Some).map_err(|e| Error::malformed(&path, e))
    }

    /// Puts the plan into its folder under `dir`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn put(&self, dir: &Path) -> Result<PathBuf> {
        let folder = self.folder(dir);
        // one that cannot be read is replaced: nothing is lost by it
        let before = Self::read(&folder).ok().flatten();
        if before.as_ref() != Some(self) {
            write_json(&folder.join(PLAN), self)?;
        }
        Ok(folder)
    }

    /// The result in a cell's folder, where there is one that was made by this plan, on whatever device.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Malformed`].
    pub fn result(&self, folder: &Path) -> Result<Option<DistanceResult>> {
        let result = DistanceResult::read(folder)?;
        Ok(result.filter(|result| result.plan().on(DeviceKind::Cpu) == self.on(DeviceKind::Cpu)))
    }

    /// The same plan for another device.
    #[must_use]
    pub fn on(&self, device: DeviceKind) -> Self {
        let mut plan = self.clone();
        match &mut plan {
            Self::Generator(plan) => plan.device = device,
            Self::Anchors(_) => {}
            Self::Critic(plan) => plan.generator.device = device,
        }
        plan
    }

    /// Steps of training, in units of a critic's step at a quarter of the paper's width.
    #[must_use]
    pub fn cost(&self) -> u64 {
        // rough, and for the remaining time alone: wider critics cost more
        let at_width = |steps: usize, width: f64| (steps as f64 * (4.0 * width).max(1.0)) as u64;
        match self {
            // measured: a step of both players is some three of the critic alone
            Self::Generator(plan) => at_width(3 * plan.settings.steps, plan.settings.critic_width),
            Self::Anchors(plan) => {
                let critics = plan.seeds.len() * plan.methods.len() * plan.activations.len();
                (critics * plan.learning_rates.len() * plan.epochs * 25 * 4) as u64
            }
            Self::Critic(plan) => {
                // a sample that is measured costs about a sixth of one that is trained on
                let pairs = (plan.n_select + plan.n_report) / (6 * plan.batch_size.max(1));
                let steps = plan.epochs * plan.epoch_steps + pairs;
                at_width(plan.learning_rates.len() * steps, plan.width)
            }
        }
    }
}
