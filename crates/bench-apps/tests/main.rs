//! Tests of the data sources, configurations, run directories, reports and the command.

mod batches;
mod download;
mod errors;
mod idx;
mod image_set;
mod locate;
mod manifest;
mod support;
mod synthetic;
