//! The methods: the ways to constrain the weight of a linear layer, one file each.
//!
//! A method has free parameters and makes a weight of them. Its file holds the definition and its source, the shape of the
//! parameters and where they start, the weight and its pullback on the CPU, the same in candle's operations for every
//! device, what is frozen when training ends and why its bound holds, and what is kept between training steps.
//!
//! To add one: write its file, an implementation of [`Parametrisation`] and [`CpuParametrisation`]; name it in the list
//! below; give it a row in the table of cases of the tests. Configurations, files and the command line know it then.

mod aol;
mod arrays;
mod bcop;
mod bro;
mod draw;
mod method;
mod operation;
mod ossn;
mod polar;
mod rk_l2ne;
mod rko;
mod svcm;
mod unconstrained;
mod unit_rows;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::element::Element;
use crate::error::{Error, Result};
pub(crate) use aol::channel_sums;
pub(crate) use draw::{inverse_root, uniform, unit_vector};
pub(crate) use method::{Assembled, CpuParametrisation, Layer, Parametrisation, Start};
pub use method::{Sizes, Weight};
pub(crate) use operation::{frozen_weight, weight_of};
pub(crate) use ossn::estimated_norm;
pub use svcm::{SVCM_PERIOD, SVCM_ROUNDS};

/// An enumeration of methods, with their names in files and on the command line.
macro_rules! registry {
    ($(#[$doc:meta])* $kind:ident: $what:literal; $($variant:ident = $method:expr, $text:literal;)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $kind {
            $(#[doc = $text] $variant,)+
        }

        impl $kind {
            /// Every method, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in files and on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                Method::from(self).definition().name()
            }

            /// The name in a text.
            #[must_use]
            pub fn title(self) -> &'static str {
                Method::from(self).definition().title()
            }

            fn on_cpu<T: Element>(self) -> &'static dyn CpuParametrisation<T> {
                match self {
                    $(Self::$variant => &$method,)+
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $kind {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|method| method.name() == name).ok_or_else(|| {
                    let known = Self::ALL.iter().map(|method| method.name()).collect();
                    Error::UnknownName { what: $what, name: name.to_owned(), known }
                })
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

registry! {
    /// How a convolution's weight is constrained.
    ConvMethod: "method of a convolution";
    Bcop = bcop::Bcop { fixed: false }, "Block convolution orthogonal parametrisation: equation (5) of the paper, orthogonal at every step.";
    BcopFixed = bcop::Bcop { fixed: true }, "BCOP with the random orthogonal kernel that it starts from: only its bias is trained.";
    Rko = rko::Rko, "Reshaped kernel orthonormalisation: the polar factor of the c_out x c_in·k² reshape, divided by k.";
    Ossn = ossn::Ossn, "One-sided spectral normalisation: divided by an estimate of the operator norm where that exceeds 1.";
    Svcm = svcm::Svcm, "Singular value clipping: free between projections that clip the spectrum at 1.";
    RkL2ne = rk_l2ne::RkL2ne, "Divided by a bound of the norm: k √min(‖F Fᵗ‖_∞, ‖Fᵗ F‖_∞) for the reshape F.";
    Aol = aol::Aol, "Almost orthogonal: every channel divided by a bound from the correlation of the kernel with itself.";
    Unconstrained = unconstrained::Unconstrained, "The weight itself, with no constraint.";
}

registry! {
    /// How a dense layer's weight is constrained.
    LinearMethod: "method of a dense layer";
    Bjorck = polar::Polar, "The orthogonal polar factor of a free matrix: what Björck orthonormalisation converges to.";
    Lln = unit_rows::UnitRows, "Last-layer normalisation: every row divided by its norm. The norm of the whole weight may exceed 1.";
    Bro = bro::Bro, "Block reflector: a reflection in the range of a free matrix of half the width.";
    Unconstrained = unconstrained::Unconstrained, "The weight itself, with no constraint.";
}

/// A method of a convolution or of a dense layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Of a convolution.
    Conv(ConvMethod),
    /// Of a dense layer.
    Linear(LinearMethod),
}

impl Method {
    /// Shape of the parameter that stands for the weight of a layer.
    #[must_use]
    pub fn parameter_shape(self, sizes: &Sizes) -> Vec<usize> {
        self.definition().parameter_shape(sizes)
    }

    /// Shape of the vector that the method keeps between steps, if it keeps one.
    #[must_use]
    pub fn vector_shape(self, sizes: &Sizes) -> Option<Vec<usize>> {
        self.definition().vector_shape(sizes)
    }

    pub(crate) fn on_cpu<T: Element>(self) -> &'static dyn CpuParametrisation<T> {
        match self {
            Self::Conv(method) => method.on_cpu(),
            Self::Linear(method) => method.on_cpu(),
        }
    }

    /// What does not depend on element type and device.
    pub(crate) fn definition(self) -> &'static dyn Parametrisation {
        self.on_cpu::<f32>()
    }
}

impl From<ConvMethod> for Method {
    fn from(method: ConvMethod) -> Self {
        Self::Conv(method)
    }
}

impl From<LinearMethod> for Method {
    fn from(method: LinearMethod) -> Self {
        Self::Linear(method)
    }
}
