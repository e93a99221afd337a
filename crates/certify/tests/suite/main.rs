//! End-to-end tests of certificates, attacks and evaluation.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap, like tests")]

mod attack_traces;
mod attacks;
mod audit;
mod auto_attack;
mod bounds;
mod certificate_files;
mod certificates;
mod common;
mod counterexamples;
mod decision_attacks;
mod eps;
mod errors;
mod evaluation;
mod foreign;
mod golden;
mod hunt;
mod kernels;
mod mutations;
mod nominal;
mod predictor;
mod wasserstein;
mod weights_files;
