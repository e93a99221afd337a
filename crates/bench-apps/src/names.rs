//! Names: data sets, networks, methods, nonlinearities and the other choices of a configuration.
//!
//! Definition: each has a *key*, the text that files and flags use ([`std::fmt::Display`], [`FromStr`], serde), and a *title*, the
//! text that tables and reports print. Unknown keys are refused with the list of the known ones.
//!
//! Errors: [`Error::ConfigValue`].
//!
//! Not here: what a network or a method is made of (crate `lipconv`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use lipconv::{ConvMethod, Methods, ModuleKind, NetworkSpec};
use lipconv_datasets::SYNTHETIC;
use serde::de;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DatasetName {
    /// MNIST; in some commands the synthetic digits, labelled as such, take its place where it cannot be had.
    #[default]
    Mnist,
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

impl DatasetName {
    /// The name that tables print; for a folder its last part.
    pub fn title(&self) -> String {
        let last = |dir: &Path| {
            dir.file_name()
                .map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into())
        };
        match self {
            Self::Mnist => "MNIST".into(),
            Self::Cifar10 => "CIFAR-10".into(),
            Self::Stl10 => "STL-10".into(),
            Self::Synthetic => SYNTHETIC.into(),
            Self::Idx(dir) | Self::Images(dir) => last(dir),
        }
    }

    /// The key with letters and digits alone, for names of folders.
    pub fn file_name(&self) -> String {
        self.to_string().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }
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
        if let Some(dir) = folder("idx:") {
            return Ok(Self::Idx(dir.into()));
        }
        if let Some(dir) = folder("images:") {
            return Ok(Self::Images(dir.into()));
        }
        match text {
            "mnist" => Ok(Self::Mnist),
            "cifar10" => Ok(Self::Cifar10),
            "stl10" => Ok(Self::Stl10),
            "synthetic" => Ok(Self::Synthetic),
            _ => unknown(
                "data.dataset",
                text,
                "mnist, cifar10, stl10, synthetic, idx:DIR or images:DIR",
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Net {
    // 16 and 32 channels, 4 x 4, stride 2; 100 and 10 features
    /// two convolutions, two dense layers
    #[default]
    Small,
    // 32, 32, 64 and 64 channels, the second and fourth 4 x 4 with stride 2, the others 3 x 3; 512, 512 and 10 features
    /// four convolutions, three dense layers
    Large,
    // of 1024 features
    /// three hidden dense layers
    #[value(name = "fc-3")]
    Fc3,
    // the published Small network of Wong et al. 2018, which is evaluated and never trained
    #[value(skip)]
    KwSmall,
}

impl Net {
    const ALL: [Self; 4] = [Self::Small, Self::Large, Self::Fc3, Self::KwSmall];

    pub const fn key(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Fc3 => "fc-3",
            Self::KwSmall => "kw-small",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Small => "Small",
            Self::Large => "Large",
            Self::Fc3 => "FC-3",
            Self::KwSmall => "KW-Small",
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl FromStr for Net {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|net| net.key() == text);
        found.map_or_else(|| unknown("network.name", text, "small, large or fc-3"), Ok)
    }
}

/// How layers are constrained.
///
/// The keys of convolutions are those of [`ConvMethod`] and [`ModuleKind`]. Dense layers beside a constrained convolution are orthogonal by their
/// polar factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Conv(ConvMethod),
    /// Layers in place of convolutions.
    Module(ModuleKind),
    /// Dense layers alone, orthogonal by their polar factor: "bjorck".
    Bjorck,
    /// Weights that others published, taken as they are: "published".
    Published,
}

impl Default for Method {
    fn default() -> Self {
        Self::Conv(ConvMethod::Bcop)
    }
}

impl Method {
    pub fn conv(self) -> Option<ConvMethod> {
        match self {
            Self::Conv(method) => Some(method),
            _ => None,
        }
    }

    pub fn methods(self) -> Methods {
        match self {
            Self::Conv(ConvMethod::Unconstrained) | Self::Published => Methods::UNCONSTRAINED,
            Self::Conv(conv) => Methods::convolutions(conv),
            // dense layers are BCOP's, and convolutions have no part
            Self::Module(_) | Self::Bjorck => Methods::BCOP,
        }
    }

    /// A network of convolutions with its own layers in place of them, where they are not convolutions.
    pub fn placed(self, spec: NetworkSpec) -> NetworkSpec {
        match self {
            Self::Module(kind) => spec.with_modules(kind),
            _ => spec,
        }
    }

    pub fn is_unconstrained(self) -> bool {
        self == Self::Conv(ConvMethod::Unconstrained)
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Bjorck => "Björck",
            Self::Published => "published",
            Self::Conv(method) => method.title(),
            Self::Module(kind) => kind.title(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bjorck => f.write_str("bjorck"),
            Self::Published => f.write_str("published"),
            Self::Conv(method) => method.fmt(f),
            Self::Module(kind) => kind.fmt(f),
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "bjorck" => return Ok(Self::Bjorck),
            "published" => return Ok(Self::Published),
            _ => {}
        }
        let conv = ConvMethod::from_str(text).map(Self::Conv);
        conv.or_else(|_| ModuleKind::from_str(text).map(Self::Module)).or_else(|_| {
            let modules = ModuleKind::ALL.iter().map(|kind| kind.name());
            let known = ConvMethod::ALL.iter().map(|method| method.name()).chain(modules);
            let known = known.collect::<Vec<_>>().join(", ");
            let expected = format!("bjorck or a method that this version of lipconv has: {known}");
            unknown("network.layer", text, &expected)
        })
    }
}

/// Nonlinearity between layers, by the names that lipconv gives it: "maxmin", "relu", "groupsort:5".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Activation(lipconv::Activation);

impl Activation {
    /// The paper's, which preserves gradient norms.
    pub const MAXMIN: Self = Self(lipconv::Activation::MaxMin);
    pub const RELU: Self = Self(lipconv::Activation::Relu);

    pub const fn layer(self) -> lipconv::Activation {
        self.0
    }

    pub fn title(self) -> &'static str {
        self.0.title()
    }
}

impl Default for Activation {
    fn default() -> Self {
        Self::MAXMIN
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self).or_else(|_| {
            unknown("network.activation", text, "maxmin, relu or groupsort:GROUP, as groupsort:4")
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// the processor
    #[default]
    Cpu,
    /// the first CUDA device
    Cuda,
    /// the processor with candle's operations: slow, for comparison
    Portable,
    /// the CUDA engine on an emulated device: very slow, for tests
    #[cfg(feature = "cuda-emulation")]
    #[value(hide = true)]
    Emulated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// to 0, every step
    #[default]
    Linear,
    // the paper's total decay, 0.96235062639^200, in equal steps after every epoch of whatever budget is given
    /// the paper's total decay, after every epoch
    Exponential,
    /// to 0 as half a period of the cosine, every step
    Cosine,
    /// not at all
    Constant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AugmentationKind {
    /// nothing
    #[default]
    None,
    // a random crop after padding with 4 zeros on every side, and a mirror image every second time
    /// random crops and mirror images
    CropFlip,
}

/// Attacks that see the network's decisions alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionAttack {
    Boundary,
    Pointwise,
}

fn unknown<T>(key: &'static str, got: &str, expected: &str) -> Result<T, Error> {
    Err(Error::ConfigValue { key, got: got.to_owned(), expected: expected.to_owned() })
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

stored_as_text!(DatasetName, Net, Method, Activation);
