//! Tests of the public interface: reference vectors, laws, training, files and refused input.

mod bad_input;
mod checkpoints;
mod golden;
mod laws;
mod support;
mod training;
