//! Sums and concatenations of 1-Lipschitz branches.
//!
//! Definition. All branches f_i see the same input and have weights w_i.
//! * [`Combination::Sum`]: y = Σ w_i f_i(x), with Σ |w_i| <= 1. With [`Identity`](super::Identity) a residual layer.
//! * [`Combination::Concat`]: y = (w_1 f_1(x), w_2 f_2(x), …) along the channels, with Σ w_i² <= 1.
//!
//! Guarantee. 1-Lipschitz where every branch is: by the triangle inequality, and by Pythagoras. The condition is checked for the
//! stored weights. For n equal weights 1/n and 1/√n are the largest.
//!
//! Plain form. None: plain networks have no parallel branches.

use candle_core::{DType, Module, Tensor};

use super::materialize::{Materialize, no_plain_form};
use crate::error::{Error, Result};
use crate::plain::PlainLayer;
use crate::shape::SignalShape;

/// How branches are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combination {
    /// Weighted sum.
    Sum,
    /// Weighted concatenation of the channels.
    Concat,
}

/// Branches with their weights.
#[derive(Debug)]
pub struct Branches {
    combination: Combination,
    branches: Vec<(f64, Box<dyn Materialize>)>,
}

impl Branches {
    /// No branch yet.
    #[must_use]
    pub fn new(combination: Combination) -> Self {
        Self { combination, branches: Vec::new() }
    }

    /// One more branch.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] when the weights of all branches exceed the condition of the [combination](Combination).
    pub fn add(mut self, weight: f64, branch: impl Materialize + 'static) -> Result<Self> {
        self.branches.push((weight, Box::new(branch)));
        let weights = self.branches.iter().map(|(weight, _)| *weight);
        let (total, expected) = match self.combination {
            Combination::Sum => {
                (weights.map(f64::abs).sum::<f64>(), "absolute values of sum at most 1")
            }
            Combination::Concat => (weights.map(|w| w * w).sum(), "squares of sum at most 1"),
        };
        // a rounding of the sum is allowed: 1/√n has one
        if total.is_nan() || total > 1.0 + self.branches.len() as f64 * f64::EPSILON {
            let weights = self.branches.iter().map(|(weight, _)| weight.to_string());
            let value = weights.collect::<Vec<_>>().join(", ");
            return Err(Error::InvalidSetting { name: "weights of branches", value, expected });
        }
        Ok(self)
    }
}

impl Module for Branches {
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let outputs = self.branches.iter().map(|(weight, branch)| branch.forward(x)? * *weight);
        let outputs = outputs.collect::<candle_core::Result<Vec<_>>>()?;
        let Some((first, rest)) = outputs.split_first() else {
            return Err(Error::Zero { what: "number of branches".into() }.into());
        };
        match self.combination {
            Combination::Sum => rest.iter().try_fold(first.clone(), |sum, y| sum + y),
            Combination::Concat => Tensor::cat(&outputs, 1),
        }
    }
}

impl Materialize for Branches {
    fn materialize(&self, _: SignalShape, _: DType) -> Result<Vec<PlainLayer>> {
        no_plain_form("branches", "plain networks have no parallel branches")
    }
}
