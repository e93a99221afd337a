//! `cargo xtask`: what a person types.
//!
//! One file per command; this one only parses and dispatches. Errors are one readable line on standard error and a
//! non-zero exit status, which is the child's own where a child process failed.
//! Nothing here depends on the crates of the workspace: xtask knows cargo, the system's package manager and the text
//! of the repository.

mod bench;
mod check_layers;
mod code;
mod cuda;
mod fuzz;
mod process;
mod release;
mod reproduce;
mod rust_version;
mod setup;
mod test;
mod tidy;
mod tree;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test, measure and reproduce lipconv.
///
/// A fresh machine needs Rust and a C compiler. Every command looks for a system OpenBLAS and, where it is missing and
/// the user has the rights, installs it with the machine's package manager.
#[derive(Debug, Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", version, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    install: setup::InstallOption,
}

const ENVIRONMENT: &str = "\
Environment:
  LIPCONV_DATA        folder of the data sets (mnist/, cifar10/), relative to the current folder
  LIPCONV_NO_INSTALL  any value but 0: same as --no-install

Two to start with:
  cargo xtask reproduce   train, certify and attack a network on MNIST, and write a report
  cargo xtask test        every test, lint and doc check that CI runs";

#[derive(Debug, Subcommand)]
enum Command {
    Reproduce(reproduce::Options),
    Test(test::Options),
    Bench(bench::Options),
    Verify(verify::Options),
    Cuda(cuda::Options),
    Fuzz(fuzz::Options),
    /// Look for OpenBLAS and a C compiler, and install what is missing
    ///
    /// Every command that compiles the crates does this first. On its own it prepares a machine or a container image.
    Setup,
    /// Check that crates, modules and files depend only on what lies below them
    ///
    /// The tables are in xtask/src/check_layers/table.rs. Checked are the dependencies of every crate, what the
    /// mathematical crates pull in through others, the order of the modules of bench-apps, and circles of files.
    CheckLayers,
    /// Check the text of the repository: module docs, file sizes, manifests, Markdown, the architecture page
    Tidy,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let install = cli.install;
    match cli.command {
        Command::Reproduce(options) => reproduce::run(options, install),
        Command::Test(options) => test::run(&options, install),
        Command::Bench(options) => bench::run(options, install),
        Command::Verify(options) => verify::run(options, install),
        Command::Cuda(options) => cuda::run(&options, install),
        Command::Fuzz(options) => fuzz::run(options, install),
        Command::Setup => setup::prepare(install.policy()).map(|_| ()),
        Command::CheckLayers => check_layers::run(),
        Command::Tidy => tidy::run(),
    }
}

/// The error and its causes on one line.
fn one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The failed child's exit status, 1 for errors of our own.
fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<process::ChildFailed>().map_or(1, process::ChildFailed::exit_code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        }
    }

    #[test]
    fn errors_are_one_line_with_the_exit_status_of_the_child() {
        let child = process::ChildFailed::new("cargo test", Some(101));
        let error = Err::<(), _>(child).context("step test failed:\n  see above").unwrap_err();
        assert_eq!(
            one_line(&error),
            "step test failed: see above: cargo test ended with exit status 101"
        );
        assert_eq!(exit_code(&error), 101);
        assert_eq!(exit_code(&anyhow::anyhow!("plain")), 1);
    }
}
