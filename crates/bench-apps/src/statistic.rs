//! Numbers of a table: ours over several seeds, and published ones.

use serde::{Deserialize, Serialize};

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistic {
    pub n: usize,
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); `None` for one value.
    pub sd: Option<f64>,
}

impl Statistic {
    /// Of some values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        let sd = (n > 1).then(|| (squares / (n as f64 - 1.0)).sqrt());
        Some(Self { n, mean, sd })
    }

    /// "97.12 ± 0.05", without the deviation of a single value.
    pub fn text(&self) -> String {
        with_sd(self.mean, self.sd)
    }
}

/// A published figure: a mean with its standard deviation over the runs, or a single number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Figure {
    /// Mean and standard deviation.
    Mean([f64; 2]),
    Single(f64),
}

impl Figure {
    /// The mean, or the single number.
    pub fn mean(self) -> f64 {
        match self {
            Self::Mean([mean, _]) | Self::Single(mean) => mean,
        }
    }

    /// "97.54 ± 0.06", or the single number.
    pub fn text(self) -> String {
        match self {
            Self::Mean([mean, sd]) => with_sd(mean, Some(sd)),
            Self::Single(value) => with_sd(value, None),
        }
    }
}

fn with_sd(mean: f64, sd: Option<f64>) -> String {
    sd.map_or_else(|| format!("{mean:.2}"), |sd| format!("{mean:.2} ± {sd:.2}"))
}
