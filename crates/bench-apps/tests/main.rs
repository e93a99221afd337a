//! Tests of the data sources, configurations, run directories, reports and the command.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod augment;
mod bad_input;
mod batches;
mod certificates;
mod cifar10;
mod command;
mod config;
mod decode;
mod distances;
mod download;
#[cfg(feature = "cuda-emulation")]
mod emulated;
mod eps;
mod errors;
mod export;
mod folders;
#[cfg(unix)]
mod hostile;
mod idx;
mod image_set;
mod locate;
mod manifest;
mod metrics;
#[cfg(unix)]
mod moments;
mod nearest;
mod progress;
mod reproduction;
mod reproduction_spec;
mod resize;
mod run_dir;
mod snapshots;
mod stl10;
mod support;
mod synthetic;
mod wasserstein;
mod yesterday;
