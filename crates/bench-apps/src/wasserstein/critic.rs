//! Critics: the network and its training settings.
//!
//! Definition: the paper's critic has convolutions 64, 128, 256 and 512 of kernel 4 and stride 2 and a linear layer to one output, times a
//! width; the *vector* critic is for low-dimensional exact distributions on 1 x 8 x 8. Training is RMSprop on minus the dual
//! objective, the learning rate falling by the paper's factor 0.96235^256 over the whole run, however short.
//!
//! Source: Li et al. 2019, section 5.3, and the authors' settings: 256 epochs of 100 steps of 64 + 64 images.

use anyhow::Result;
use lipconv::optim::PAPER_GAMMA;
use lipconv::{
    Activation, ImageShape, LayerSpec, Loss, Methods, NetworkSpec, Optimizer, RmsPropConfig,
    Schedule, TrainConfig,
};
use serde::{Deserialize, Serialize};

use crate::config::{self, Method};
use crate::error::Error;

/// Epochs of the paper's critics.
pub const PAPER_EPOCHS: usize = 256;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CriticNetwork {
    /// The paper's, all widths times this.
    Paper {
        /// 1 is the paper's.
        width: f64,
    },
    /// Two convolutions and two dense layers, for exact distributions.
    Vector,
}

/// How a critic is built and trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CriticConfig {
    pub network: CriticNetwork,
    /// How convolutions are constrained; dense layers are orthogonal.
    pub method: Method,
    pub activation: config::Activation,
    /// Epochs, at least 1.
    pub epochs: usize,
    /// Steps in an epoch, at least 1.
    pub epoch_steps: usize,
    /// Samples of each distribution in a step, at least 1.
    pub batch_size: usize,
    /// RMSprop's step size at the start, positive.
    pub learning_rate: f64,
    /// Seed of initialisation and samples.
    pub seed: u64,
}

impl CriticConfig {
    /// The network for samples of a shape.
    pub fn spec(&self, [c, h, w]: [usize; 3]) -> Result<NetworkSpec> {
        let input = ImageShape::new(c, h, w);
        let methods = self.methods()?;
        let spec = match self.network {
            CriticNetwork::Paper { width } => NetworkSpec::critic(input, methods, width)?,
            CriticNetwork::Vector => vector(input, methods),
        };
        Ok(spec.with_activation(self.activation.layer()))
    }

    fn methods(&self) -> Result<Methods> {
        let constrained = self.method.conv().is_some() && !self.method.is_unconstrained();
        if constrained {
            return Ok(self.method.methods());
        }
        Err(Error::ConfigValue {
            key: "critic.method",
            got: self.method.to_string(),
            expected: "a method that constrains convolutions, such as bcop, rko or ossn".into(),
        }
        .into())
    }

    /// The training settings.
    pub fn train_config(&self) -> Result<TrainConfig> {
        for (key, value) in
            [("critic.epoch_steps", self.epoch_steps), ("critic.batch_size", self.batch_size)]
        {
            if !(1..=1_000_000).contains(&value) {
                let (got, expected) = (value.to_string(), "1 to 1000000".into());
                return Err(Error::ConfigValue { key, got, expected }.into());
            }
        }
        let config = TrainConfig {
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            schedule: paper_schedule(self.epochs),
            optimizer: Optimizer::RmsProp(RmsPropConfig::default()),
            loss: Loss::Wasserstein,
            seed: self.seed,
        };
        config.validate()?;
        Ok(config)
    }

    /// Steps of the whole training.
    #[must_use]
    pub fn n_steps(&self) -> u64 {
        (self.epochs * self.epoch_steps) as u64
    }
}

/// The decay of 256 of the paper's epochs, spread over so many.
fn paper_schedule(epochs: usize) -> Schedule {
    let per_epoch = PAPER_EPOCHS as f64 / epochs.max(1) as f64;
    Schedule::Exponential { gamma: PAPER_GAMMA.powf(per_epoch) }
}

/// Isometries up to the dense layers, so that no direction of a short vector is lost.
fn vector(input: ImageShape, methods: Methods) -> NetworkSpec {
    let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method: methods.conv };
    let linear = |out_features| LayerSpec::Linear { out_features, method: methods.linear };
    let layers = vec![
        conv(16),
        LayerSpec::Activation(Activation::MaxMin),
        conv(64),
        LayerSpec::Activation(Activation::MaxMin),
        LayerSpec::Flatten,
        linear(128),
        LayerSpec::Activation(Activation::MaxMin),
        linear(64),
        LayerSpec::Activation(Activation::MaxMin),
        linear(1),
    ];
    NetworkSpec { input, layers }
}
