#![doc = include_str!("../README.md")]
#![allow(missing_docs, reason = "an application: what is public is so for its tests and examples")]

pub mod cli;
pub mod config;
pub mod data;
mod eps;
mod error;
pub mod experiment;
pub mod export;
pub mod files;
pub mod interrupt;
pub mod progress;
pub mod report;
pub mod reproduction;
pub mod results;
mod stdout;
pub mod text_table;
pub mod wasserstein;

pub use eps::{ByEps, Eps};
pub use error::{Error, Result};
