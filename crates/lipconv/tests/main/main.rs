//! Tests of the public interface: reference vectors, laws, training, files and refused input.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod aoc;
mod bad_input;
mod cases;
mod checkpoints;
mod critic;
#[cfg(feature = "gan")]
mod gan;
#[cfg(feature = "gan")]
mod generator;
#[cfg(feature = "gan")]
mod generator_ops;
mod golden;
mod golden_modules;
mod graph;
mod heads;
mod laws;
mod losses;
mod module_layers;
mod networks;
mod nn;
mod output;
mod portable;
mod spectral;
mod support;
mod training;
mod wide;
