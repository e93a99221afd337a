//! Numbers of a table: ours over several seeds, and published ones; and the quantities that they are of.

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

/// An accuracy, percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Clean accuracy after the last epoch.
    Clean,
    Certified,
    Real,
    Executed,
    Accumulated,
    Pgd,
    Fgsm,
    StrongPgd,
    /// Accuracy on the first test images under AutoAttack.
    AutoAttack,
    /// Clean accuracy on them, where they are not all.
    AutoClean,
    /// Certified accuracy on them as executed, likewise.
    AutoCertified,
    /// Clean accuracy after the epoch with the best test accuracy, which the authors report.
    BestClean,
    BestCertified,
    FirstClean,
    Boundary,
    Pointwise,
}

impl What {
    /// All, in the order of a table.
    pub const ALL: [Self; 16] = [
        Self::Clean,
        Self::Certified,
        Self::Real,
        Self::Executed,
        Self::Accumulated,
        Self::Pgd,
        Self::Fgsm,
        Self::StrongPgd,
        Self::AutoClean,
        Self::AutoCertified,
        Self::AutoAttack,
        Self::BestClean,
        Self::BestCertified,
        Self::FirstClean,
        Self::Boundary,
        Self::Pointwise,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Certified => "certified, nominal",
            Self::Real => "certified, exact arithmetic",
            Self::Executed => "certified, as executed",
            Self::Accumulated => "certified, f64 sums",
            Self::Pgd => "under PGD",
            Self::Fgsm => "under FGSM",
            Self::StrongPgd => "under strong PGD",
            Self::AutoAttack => "under AutoAttack",
            Self::AutoClean => "clean, AutoAttack's images",
            Self::AutoCertified => "certified as executed, AutoAttack's images",
            Self::BestClean => "clean, best epoch",
            Self::BestCertified => "certified, best epoch",
            Self::FirstClean => "clean, first images",
            Self::Boundary => "under boundary, first images",
            Self::Pointwise => "under pointwise, first images",
        }
    }

    /// The quantity that the paper gives for this one: its accuracies are those of the best epoch.
    pub fn published_as(self) -> Self {
        match self {
            Self::BestClean => Self::Clean,
            Self::BestCertified => Self::Certified,
            other => other,
        }
    }
}
