//! `cargo xtask verify`: the checks of the theorems, an example of blockconv, built for release.

use std::ffi::OsString;

use crate::setup::InstallOption;
use crate::{process, release};

/// Check the paper's theorems numerically
///
/// Prints one line per statement: the number of cases, the worst defect, the tolerance, and whether the statement holds.
/// Exits with a non-zero status if one fails.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask verify
  cargo xtask verify --json theorems.json")]
pub(crate) struct Options {
    /// Passed on to the checker, such as --json FILE
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options, install: InstallOption) -> anyhow::Result<()> {
    let target = ["--package", "blockconv", "--example", "verify", "--"];
    process::hand_over(release::command(&target, options.arguments, install)?)
}
