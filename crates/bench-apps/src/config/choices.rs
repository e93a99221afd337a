//! The choices of a configuration that have names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use lipconv::{ConvMethod, Methods};
use serde::de::value::{Error as NameError, StrDeserializer};
use serde::de::{self, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Where the arithmetic runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor, f32.
    #[default]
    Cpu,
    /// The first CUDA device, f32; an error where there is none.
    Cuda,
    /// The processor, f32, trained in candle's operations alone, as a CUDA device does: slow, for comparison.
    Portable,
}

/// Which images.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DatasetName {
    /// MNIST, or the synthetic digits, labelled as such, where it cannot be had.
    #[default]
    Mnist,
    /// CIFAR-10.
    Cifar10,
    /// STL-10, its labelled images at 96 x 96.
    Stl10,
    /// Digits drawn by the program.
    Synthetic,
    /// IDX files in MNIST's layout, in a folder.
    Idx(PathBuf),
    /// PNG and JPEG files in class folders.
    Images(PathBuf),
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mnist => f.write_str("mnist"),
            Self::Cifar10 => f.write_str("cifar10"),
            Self::Stl10 => f.write_str("stl10"),
            Self::Synthetic => f.write_str("synthetic"),
            Self::Idx(dir) => write!(f, "idx:{}", dir.display()),
            Self::Images(dir) => write!(f, "images:{}", dir.display()),
        }
    }
}

impl FromStr for DatasetName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let folder = |prefix| text.strip_prefix(prefix).filter(|dir| !dir.is_empty());
        match text {
            "mnist" => return Ok(Self::Mnist),
            "cifar10" => return Ok(Self::Cifar10),
            "stl10" => return Ok(Self::Stl10),
            "synthetic" => return Ok(Self::Synthetic),
            _ => {}
        }
        if let Some(dir) = folder("idx:") {
            return Ok(Self::Idx(dir.into()));
        }
        if let Some(dir) = folder("images:") {
            return Ok(Self::Images(dir.into()));
        }
        Err(Error::ConfigValue {
            key: "data.dataset",
            got: text.to_owned(),
            expected: "mnist, cifar10, stl10, synthetic, idx:DIR or images:DIR".into(),
        })
    }
}

/// The paper's architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkName {
    /// Two convolutions (16 and 32 channels, 4 x 4, stride 2) and two dense layers (100 and 10).
    #[default]
    Small,
    /// Four convolutions (32, 32, 64 and 64 channels, the second and fourth 4 x 4 with stride 2, the others
    /// 3 x 3) and three dense layers (512, 512 and 10).
    Large,
    /// Three hidden dense layers of 1024.
    #[serde(rename = "fc-3")]
    Fc3,
}

/// How layers are constrained, by the name that network files give it.
///
/// The names of convolutions are those of [`ConvMethod`] as it is stored; a method that the library gains is known here at
/// once. Dense layers beside a constrained convolution are orthogonal by their polar factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A convolution's method.
    Conv(ConvMethod),
    /// Dense layers alone, orthogonal by their polar factor: "bjorck".
    Bjorck,
}

impl Default for LayerKind {
    fn default() -> Self {
        Self::Conv(ConvMethod::Bcop)
    }
}

impl LayerKind {
    /// The convolution's method, where there is a convolution.
    #[must_use]
    pub fn conv(self) -> Option<ConvMethod> {
        match self {
            Self::Conv(method) => Some(method),
            Self::Bjorck => None,
        }
    }

    /// What it means for convolutions and dense layers.
    #[must_use]
    pub fn methods(self) -> Methods {
        match self {
            Self::Conv(ConvMethod::Unconstrained) => Methods::UNCONSTRAINED,
            Self::Conv(conv) => Methods::convolutions(conv),
            // there is no convolution, and dense layers are BCOP's
            Self::Bjorck => Methods::BCOP,
        }
    }

    /// Whether nothing is constrained.
    #[must_use]
    pub fn is_unconstrained(self) -> bool {
        self == Self::Conv(ConvMethod::Unconstrained)
    }
}

impl fmt::Display for LayerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bjorck => f.write_str("bjorck"),
            Self::Conv(method) => match serde_json::to_value(method) {
                Ok(serde_json::Value::String(name)) => f.write_str(&name),
                _ => Err(fmt::Error),
            },
        }
    }
}

impl FromStr for LayerKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "bjorck" {
            return Ok(Self::Bjorck);
        }
        let name: StrDeserializer<'_, NameError> = text.into_deserializer();
        ConvMethod::deserialize(name).map(Self::Conv).map_err(|e| {
            let known = e
                .to_string()
                .split_once("expected ")
                .map_or_else(String::new, |s| s.1.replace('`', ""));
            Error::ConfigValue {
                key: "network.layer",
                got: text.to_owned(),
                expected: format!("bjorck or a method that this version of lipconv has: {known}"),
            }
        })
    }
}

/// Nonlinearity between layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationKind {
    /// Maxima and minima of channel pairs; norm-preserving.
    #[default]
    MaxMin,
    /// max(x, 0), which is 1-Lipschitz but loses gradient norm; for comparison.
    Relu,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The paper's total decay, 0.96235062639^200, in equal steps after every epoch of whatever budget is given.
    Exponential,
    /// From the initial rate to 0, every step; better for short budgets.
    #[default]
    Linear,
    /// No change.
    Constant,
}

/// What changes training images from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AugmentationKind {
    /// Nothing.
    #[default]
    None,
    /// A random crop after padding with 4 zeros on every side, and a mirror image every second time.
    CropFlip,
}

/// Stored as the text that [`fmt::Display`] writes and [`FromStr`] reads.
macro_rules! stored_as_text {
    ($($kind:ty),+) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )+};
}

stored_as_text!(DatasetName, LayerKind);
