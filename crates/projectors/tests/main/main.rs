//! Laws, reference vectors and error texts of the crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod errors;
mod factored;
mod golden;
mod orthonormal;
mod projector;
mod support;
