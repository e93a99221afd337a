//! Tests of the data sources, configurations, run directories, reports and the command.

mod batches;
mod config;
mod download;
mod eps;
mod errors;
mod idx;
mod image_set;
mod locate;
mod manifest;
mod metrics;
mod progress;
mod run_dir;
mod support;
mod synthetic;
