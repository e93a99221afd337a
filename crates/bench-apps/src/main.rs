//! The `lipconv` command.

fn main() {}
