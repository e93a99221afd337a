//! Laws, reference vectors and error texts of block convolution; one binary, one module per subject.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

mod assembly;
mod bcop;
mod bounds;
mod clipping;
mod components;
mod errors;
mod factorisation;
mod golden;
mod kernels;
mod lift;
mod membership;
mod spectra;
mod support;
mod zero_padding;
