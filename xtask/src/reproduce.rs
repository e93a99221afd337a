//! `cargo xtask reproduce`: set-up, then the experiment runner of the `lipconv` command, built for release.

use std::ffi::OsString;

use crate::setup::InstallOption;
use crate::{process, release};

/// Train, certify and attack a network, or reproduce the paper's tables and figures, and write a report
///
/// With table1 to table4, figure2 or all: every cell that is missing, with --quick, the default or --full budget; the
/// report goes to target/reproduction. Without arguments: the paper's BCOP-Small network on MNIST. It is trained on the 60,000 training images and
/// evaluated on the 10,000 test images: clean accuracy, accuracy certified at L2 radius 1.58, accuracy under PGD and
/// FGSM. A table beside the paper's numbers is printed, and report.html and results.json are written to
/// target/reproduce, or to the folder of --out.
///
/// MNIST is looked for in --data-dir, in LIPCONV_DATA, in the cache, and is then downloaded. With no data and no network,
/// digits drawn by the program take its place, and everything written says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask reproduce
  LIPCONV_DATA=../datasets cargo xtask reproduce
  cargo xtask reproduce --out target/mine
  cargo xtask reproduce all --quick
  cargo xtask reproduce table1 --full --seeds 0,1,2 --only bcop,rko
  cargo xtask reproduce -- --help        all options of the runner itself")]
pub(crate) struct Options {
    /// Passed to the runner as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options, install: InstallOption) -> anyhow::Result<()> {
    let target = ["--package", "bench-apps", "--bin", "lipconv", "--", "reproduce"];
    process::hand_over(release::command(&target, options.arguments, install)?)
}
