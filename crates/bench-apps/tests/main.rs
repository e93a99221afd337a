//! Tests of configurations, run directories, reports and the command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod bad_input;
mod book;
mod certificates;
mod command;
mod config;
mod distances;
#[cfg(feature = "cuda-emulation")]
mod emulated;
mod errors;
mod exports;
mod generators;
#[cfg(unix)]
mod hostile;
mod interruption;
mod manual;
mod metrics;
#[cfg(unix)]
mod moments;
mod nearest;
mod predictions;
mod progress;
mod reproduction;
mod reproduction_spec;
mod run_dir;
#[cfg(unix)]
mod settings;
mod slurm;
mod snapshots;
#[path = "../../datasets/tests/main/support.rs"]
mod support;
mod tables;
mod wasserstein;
mod words;
mod yesterday;
