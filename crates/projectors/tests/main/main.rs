//! Laws, reference vectors and error texts of the crate.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod golden;
mod support;
