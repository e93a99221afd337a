//! Quantities of a table of accuracies.

use serde::{Deserialize, Serialize};

/// An accuracy, percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Clean accuracy after the last epoch.
    Clean,
    Certified,
    /// Certified accuracy in exact arithmetic.
    Real,
    /// Certified accuracy as executed.
    Executed,
    /// Certified accuracy as executed with sums in f64.
    Accumulated,
    Pgd,
    Fgsm,
    /// Accuracy under the stronger PGD.
    StrongPgd,
    /// Accuracy on the first test images under AutoAttack.
    AutoAttack,
    /// Clean accuracy on them, where they are not all.
    AutoClean,
    /// Certified accuracy on them as executed, likewise.
    AutoCertified,
    /// Clean accuracy after the epoch with the best test accuracy, which the authors report.
    BestClean,
    /// Certified accuracy after that epoch.
    BestCertified,
    /// Clean accuracy on the first test images.
    FirstClean,
    /// Accuracy on them under the boundary attack.
    Boundary,
    /// Accuracy on them under the pointwise attack.
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

    /// The name that tables print.
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
