//! Kinds of layers that stand in place of a convolution and are no weight of its kernel's size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A family of layers of [`nn`](crate::nn) in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ModuleKind {
    /// Natively strided orthogonal convolutions: [`aoc_conv2d`](crate::nn::aoc_conv2d()).
    Aoc,
    /// The Cayley transform at each frequency: [`spectral_conv2d`](crate::nn::spectral_conv2d()).
    Cayley,
    /// A block reflector at each frequency: likewise.
    Bro,
    /// The polar factor at each frequency: likewise.
    Lot,
    /// The exponential of a skew convolution: [`soc_conv2d`](crate::nn::soc_conv2d()).
    Soc,
    /// Residual, with one step for each hidden channel: [`sll`](crate::nn::sll()).
    Sll,
    /// Residual, with one step for all: likewise.
    Cpl,
    /// With ReLU between two parts of an orthogonal matrix: [`sandwich`](crate::nn::sandwich()).
    Sandwich,
}

impl ModuleKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Aoc,
        Self::Cayley,
        Self::Bro,
        Self::Lot,
        Self::Soc,
        Self::Sll,
        Self::Cpl,
        Self::Sandwich,
    ];

    /// The name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aoc => "aoc",
            Self::Cayley => "cayley",
            Self::Bro => "bro",
            Self::Lot => "lot",
            Self::Soc => "soc",
            Self::Sll => "sll",
            Self::Cpl => "cpl",
            Self::Sandwich => "sandwich",
        }
    }

    /// The name in a text.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Aoc => "AOC",
            Self::Cayley => "Cayley",
            Self::Bro => "BRO",
            Self::Lot => "LOT",
            Self::Soc => "SOC",
            Self::Sll => "SLL",
            Self::Cpl => "CPL",
            Self::Sandwich => "Sandwich",
        }
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ModuleKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.iter().map(|kind| kind.name()).collect();
            Error::UnknownName { what: "kind of layer", name: name.to_owned(), known }
        })
    }
}
