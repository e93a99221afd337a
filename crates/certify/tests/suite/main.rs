//! End-to-end tests of certificates, attacks and evaluation.

mod attacks;
mod certificates;
mod common;
mod errors;
mod evaluation;
mod golden;
