#![doc = include_str!("../README.md")]
// a library returns values and calls back: it neither prints nor reads a clock
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_types)]

mod application;
pub mod assembly;
mod autocorrelation;
pub mod bcop;
pub mod bounds;
mod chain;
mod check;
pub mod clipping;
pub mod components;
mod conversion;
mod eigen;
mod error;
pub mod factorisation;
mod frequency;
mod hermitian;
mod kernel;
pub mod lift;
pub mod membership;
mod product;
mod scratch;
pub mod spectrum;
pub mod tolerance;
pub mod zero_padding;

pub use conversion::{from_layer_weight, layer_weight};
pub use error::{Error, Result};
pub use kernel::{Kernel1, Kernel2};
pub use scratch::Scratch;
