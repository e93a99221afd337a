//! How a learning rate and a number of epochs are found.
//!
//! Definition. With each rate the network is trained on the first training images; the last ones are held out. The rate with the best
//! nominal certified accuracy on these at the radius of the tables is taken, the first of equals. The training has the whole
//! number of epochs whose time, by that of the search's steps, is nearest to the given one, at most the budget's. Where not one fits,
//! it is one epoch on the first images, as many as fit and one batch at least.
//!
//! Errors: [`Error::ConfigValue`](crate::Error::ConfigValue).
//!
//! Not here: the search itself (module `trials`).

use serde::{Deserialize, Serialize};

use crate::config::{count, positive};
use crate::error::Result;

/// A search and the time of what follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Rates to try.
    pub learning_rates: Vec<f64>,
    /// Epochs of each.
    pub epochs: usize,
    /// Images that they are trained on.
    pub images: usize,
    /// Images to choose by.
    pub held_out: usize,
    /// Time of the training that follows.
    pub minutes: f64,
}

impl Search {
    /// Checks every value against its domain.
    pub(super) fn validate(&self) -> Result<()> {
        count("number of search.learning_rates", self.learning_rates.len())?;
        count("search.epochs", self.epochs)?;
        count("search.images", self.images)?;
        count("search.held_out", self.held_out)?;
        positive("search.minutes", self.minutes)?;
        self.learning_rates.iter().try_for_each(|&rate| positive("search.learning_rates", rate))
    }
}
