//! Settings of a training run.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::optim::{Averaging, Optimizer, Schedule};

/// Settings of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Initial learning rate.
    pub learning_rate: f64,
    /// How it falls.
    pub schedule: Schedule,
    /// What changes the parameters.
    pub optimizer: Optimizer,
    /// The average of the parameters that is evaluated.
    #[serde(default, skip_serializing_if = "Averaging::is_none")]
    pub averaging: Averaging,
    /// The loss.
    pub loss: Loss,
    /// Seed of the order of the data.
    pub seed: u64,
}

impl Default for TrainConfig {
    /// Ten epochs of Adam at 1e-3 on half a cosine, the hinge with the paper's margin for CIFAR-10 (√2/2), seed 0.
    fn default() -> Self {
        Self {
            epochs: 10,
            learning_rate: 1e-3,
            schedule: Schedule::Cosine { warm_up: 0.0 },
            optimizer: Optimizer::default(),
            averaging: Averaging::default(),
            loss: Loss::MultiClassHinge { margin: std::f64::consts::FRAC_1_SQRT_2 },
            seed: 0,
        }
    }
}

impl TrainConfig {
    /// Checks every domain.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] or [`Error::Zero`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        if self.epochs == 0 {
            return Err(Error::Zero { what: "epochs".into() });
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let value = self.learning_rate.to_string();
            return Err(Error::InvalidSetting {
                name: "learning_rate",
                value,
                expected: "a positive number",
            });
        }
        self.loss.validate()?;
        self.optimizer.validate()?;
        self.averaging.validate()?;
        self.schedule.validate()
    }

    /// Names of what is kept of every parameter between steps, as checkpoints have them.
    pub(crate) fn mean_names(&self) -> Vec<&'static str> {
        let means = self.optimizer.moment_names().iter().chain(self.averaging.names());
        means.copied().collect()
    }
}
