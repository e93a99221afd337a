#![doc = include_str!("../README.md")]

pub mod atomic;
pub mod cli;
pub mod config;
pub mod data;
mod eps;
mod error;
pub mod experiment;
pub mod export;
pub mod interrupt;
pub mod metrics;
pub mod progress;
pub mod provenance;
pub mod report;
pub mod reproduction;
pub mod results;
pub mod run_dir;
mod stdout;
pub mod text_table;
pub mod wasserstein;

pub use eps::{ByEps, Eps};
pub use error::{Error, Result};
