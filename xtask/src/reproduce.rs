//! `cargo xtask reproduce`: set-up, then the experiment runner of the `lipconv` command, built for release.

use std::ffi::OsString;

use crate::setup::InstallOption;
use crate::{process, release};

/// Train, certify and attack a network, or reproduce the paper's tables and figures, and write a report
///
/// Without a name: the paper's BCOP-Small network on MNIST with a short schedule, in minutes on a laptop. With table1 to
/// table4, figure2 or all: every result that is still missing. All options: cargo xtask reproduce -- --help
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask reproduce
  LIPCONV_DATA=../datasets cargo xtask reproduce
  cargo xtask reproduce all --quick
  cargo xtask reproduce table1 --full --seeds 0,1,2 --only bcop,rko
  cargo xtask reproduce -- --help        all options of lipconv reproduce")]
pub(crate) struct Options {
    /// Passed on to lipconv reproduce
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options, install: InstallOption) -> anyhow::Result<()> {
    let target = ["--package", "bench-apps", "--bin", "lipconv", "--", "reproduce"];
    process::hand_over(release::command(&target, options.arguments, install)?)
}
