#![doc = include_str!("../README.md")]
#![allow(missing_docs, reason = "an application: what is public is so for its tests and examples")]

pub mod cli;
pub mod config;
mod error;
/// A network, trained on images and evaluated.
pub mod experiment {
    pub mod build;
    pub mod evaluation;
    pub mod training;
}
pub mod files;
pub mod interrupt;
pub mod jobs;
mod names;
pub mod progress;
pub mod report;
pub mod results;
pub mod statistic;
mod stdout;
pub mod wasserstein;
pub mod words;

pub use certify::{ByEps, Eps};
pub use error::{Error, Result};
