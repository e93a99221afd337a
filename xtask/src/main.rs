//! `cargo xtask`: what a person types.

fn main() {}
