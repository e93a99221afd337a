//! Laws, reference vectors and error texts of the crate.

mod golden;
mod support;
