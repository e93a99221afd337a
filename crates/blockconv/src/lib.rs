#![doc = include_str!("../README.md")]

mod application;
pub mod assembly;
mod autocorrelation;
pub mod bcop;
pub mod bounds;
mod chain;
mod check;
mod conversion;
mod error;
pub mod factorisation;
mod frequency;
mod hermitian;
mod kernel;
mod product;
pub mod spectrum;
pub mod tolerance;

pub use conversion::{from_layer_weight, layer_weight};
pub use error::{Error, Result};
pub use kernel::{Kernel1, Kernel2};
