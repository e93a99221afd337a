//! `cargo xtask fuzz`: changed files for every reader, an example of bench-apps.
//!
//! It has a profile of its own: as fast as a release, while overflows of arithmetic and broken assertions end a case.

use std::ffi::OsString;

use crate::setup::InstallOption;
use crate::{process, workspace};

/// Read changed files of every kind, looking for a crash, a hang or too much memory
///
/// Each case is a small file that its reader accepts, changed in a few places: bits, lengths, numbers of headers, JSON members, TOML keys,
/// chunks, archive entries. Checksums around the change are made to fit. A case may take 5 seconds and 512 MiB. What ends its
/// process is reported with the seed and the number of the case, and its input is kept in target/fuzz. `cargo test` reads 256 cases
/// of each target.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Targets: idx, cifar10, stl10, images, onnx, description, weights, checkpoint, gan, certificate, config, experiment, manifest, records

Examples:
  cargo xtask fuzz                         one minute for each target
  cargo xtask fuzz certificate --minutes 30
  cargo xtask fuzz --seed 7 --cases 1000000 --minutes 60
  cargo xtask fuzz images --seed 7 --case 123456    one case again, as the report names it

Exit status 1 says that something was found.")]
pub(crate) struct Options {
    /// Targets [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Minutes for each target
    #[arg(long, value_name = "N", default_value = "1")]
    minutes: String,
    /// Stop each target after N cases
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Another seed, other changes
    #[arg(long, value_name = "N", default_value = "0")]
    seed: u64,
    /// Read this case alone
    #[arg(long, value_name = "N")]
    case: Option<u64>,
}

pub(crate) fn run(options: Options, install: InstallOption) -> anyhow::Result<()> {
    let environment = crate::setup::prepare(install.policy())?;
    let mut command = workspace::cargo("run");
    command.args(["--profile", "fuzz", "--package", "bench-apps", "--example", "fuzz", "--"]);
    command.args(options.arguments());
    command.arg("--keep").arg(workspace::root().join("target").join("fuzz"));
    process::hand_over({
        environment.apply(&mut command);
        command
    })
}

impl Options {
    /// The same for the fuzzer.
    fn arguments(&self) -> Vec<OsString> {
        let numbers = [("--cases", self.cases), ("--seed", Some(self.seed)), ("--case", self.case)];
        let numbers = numbers.into_iter().filter_map(|(flag, n)| Some((flag, n?.to_string())));
        let flags = [("--minutes", self.minutes.clone())].into_iter().chain(numbers);
        let flags = flags.flat_map(|(flag, value)| [flag.into(), value.into()]);
        self.targets.iter().map(OsString::from).chain(flags).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn everything_is_handed_on() {
        let arguments = |args: &[&str]| {
            let cli = Cli::parse_from(["fuzz"].iter().chain(args));
            cli.options
                .arguments()
                .iter()
                .map(|a| a.to_string_lossy().into_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(arguments(&[]), "--minutes 1 --seed 0");
        assert_eq!(
            arguments(&["idx", "weights", "--minutes", "0.5", "--seed", "7", "--case", "9"]),
            "idx weights --minutes 0.5 --seed 7 --case 9"
        );
    }
}
