//! Recipes that ship with the program, by name: `lipconv train --recipe NAME`.
//!
//! The files of the repository's `experiments/recipes/` folder are compiled in. A file holds the `source` of the recipe, its
//! `trade_off`, a configuration (`[config.training]` …, the keys of [`RunConfig`]) and, for a loss that aims at a radius, the
//! target of each kind of data.
//!
//! A target radius ε sets the offset of the cross-entropy to 2√2 ε (Prach and Lampert 2022), or the margin of the hinge loss to √2 ε.
//!
//! Errors: [`Error::ConfigSyntax`] with the nearest name; those of [`RunConfig::parse`].

use std::f64::consts::SQRT_2;

use serde::Deserialize;

use super::keys::nearest_or_all;
use super::{DatasetName, RunConfig, TrainingConfig, like_mnist, syntax_error};
use crate::error::{Error, Result};
use certify::Eps;

/// Names and texts, listed by the build script.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// A recipe that ships with the program.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    #[serde(skip)]
    name: String,
    /// Where it comes from.
    pub source: String,
    /// What it improves, and what it costs.
    pub trade_off: String,
    #[serde(default)]
    target_eps: Option<Targets>,
    config: toml::Table,
}

/// Target radii where none is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Targets {
    digits: Eps,
    images: Eps,
}

impl Recipe {
    /// The names of all recipes.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        FILES.iter().map(|(name, _)| *name).collect()
    }

    /// The recipe of a name.
    pub fn named(name: &str) -> Result<Self> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            let reason = format!("unknown recipe, {}", nearest_or_all(name, &Self::names()));
            return Err(Error::ConfigSyntax { origin: name.to_owned(), reason });
        };
        let recipe: Self = toml::from_str(text).map_err(|e| syntax_error(name, text, &e))?;
        Ok(recipe.called(name))
    }

    /// The recipe under a name, for messages.
    pub(crate) fn called(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The configuration for a data set; keys that the recipe does not have take that one's defaults.
    pub fn config(&self, dataset: DatasetName) -> Result<RunConfig> {
        let targets = self.target_eps.as_ref();
        let target = targets.map(|t| if like_mnist(&dataset) { &t.digits } else { &t.images });
        let mut config = RunConfig::parse_for(&self.name, &self.config.to_string(), Some(dataset))?;
        if let Some(target) = target {
            config.aim_at(target);
        }
        config.validate()?;
        Ok(config)
    }
}

impl TrainingConfig {
    /// The recipe in another number of epochs: a short run warms up over a sixth of them at most.
    pub fn in_epochs(&mut self, epochs: usize) {
        self.epochs = epochs;
        self.warm_up = self.warm_up.min(epochs as f64 / 6.0);
    }
}

impl RunConfig {
    /// The same network on the same images, for as many epochs and evaluated in the same way, trained by a recipe.
    pub fn trained_by(&self, recipe: &Recipe) -> Result<Self> {
        let by = recipe.config(self.data.dataset.clone())?;
        let mut config = self.clone();
        (config.network.head, config.network.gain) = (by.network.head, by.network.gain);
        config.training = TrainingConfig {
            batch_size: self.training.batch_size,
            augmentation: self.training.augmentation,
            seed: self.training.seed,
            ..by.training
        };
        config.training.in_epochs(self.training.epochs);
        config.validate()?;
        Ok(config)
    }

    /// Sets the loss for a target radius: the offset 2√2 ε of a cross-entropy, or the margin √2 ε of the hinge.
    pub fn aim_at(&mut self, eps: &Eps) {
        match &mut self.training.cross_entropy {
            Some(loss) => loss.offset = 2.0 * SQRT_2 * eps.value(),
            None => self.training.margin = SQRT_2 * eps.value(),
        }
    }
}
