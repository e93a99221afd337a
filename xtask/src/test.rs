//! `cargo xtask test`: every test, lint and doc check that CI runs, cheap ones first.
//!
//! Dependencies are compiled once for the tests and checked once for clippy and rustdoc together. A step that set
//! RUSTFLAGS, its own profile or other features would compile them again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;

use crate::setup::{Environment, InstallOption};
use crate::{check_layers, cuda, process, rust_version, tidy, workspace};

/// Run every test, lint and doc check that CI runs
///
/// Steps run in order, cheap ones first, and stop at the first failure. Tests that need MNIST look for it in the folder
/// LIPCONV_DATA; without it they are skipped, each with one line.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --only fmt --only clippy
  LIPCONV_DATA=../datasets cargo xtask test --skip doc")]
pub(crate) struct Options {
    /// Run only this step (may be repeated)
    #[arg(long, value_name = "STEP")]
    only: Vec<StepName>,
    /// Leave this step out (may be repeated)
    #[arg(long, value_name = "STEP")]
    skip: Vec<StepName>,
}

/// The CUDA engine on its emulated device, in the same build as everything else.
const FEATURES: &str = "bench-apps/cuda-emulation";

/// The steps, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StepName {
    RustVersion,
    Fmt,
    Tidy,
    CheckLayers,
    Clippy,
    Test,
    Doc,
    Cuda,
}

/// What one step does, why it exists, and what to do when it fails.
struct Step {
    name: StepName,
    why: &'static str,
    on_failure: &'static str,
    action: Action,
}

enum Action {
    /// A command of ours, in this process.
    Own(fn(&Environment) -> anyhow::Result<()>),
    /// A cargo subcommand, its arguments, and variables for it alone.
    Cargo(&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]),
}

const STEPS: [Step; 8] = [
    Step {
        name: StepName::RustVersion,
        why: "CI compiles with the oldest Rust that the manifest promises",
        on_failure: "install that version in CI, or change rust-version in Cargo.toml",
        action: Action::Own(|_| rust_version::check()),
    },
    Step {
        name: StepName::Fmt,
        why: "one layout, so that changes show only what they change",
        on_failure: "type: cargo fmt --all",
        action: Action::Cargo("fmt", &["--all", "--check"], &[]),
    },
    Step {
        name: StepName::Tidy,
        why: "module docs, sizes, manifests, documents: what no compiler looks at",
        on_failure: "mend what is named above; the rules are in xtask/src/tidy",
        action: Action::Own(|_| tidy::run()),
    },
    Step {
        name: StepName::CheckLayers,
        why: "crates, modules and files depend on what lies below them",
        on_failure: "take the dependency out, or argue for it in xtask/src/check_layers/table.rs",
        action: Action::Own(|_| check_layers::run()),
    },
    Step {
        name: StepName::Clippy,
        why: "lints of code, tests, examples and benches; a warning is an error here, but not while writing",
        on_failure: "mend the warnings; an allowed one says #[expect(…, reason = \"…\")]",
        action: Action::Cargo(
            "clippy",
            &["--workspace", "--all-targets", "--features", FEATURES, "--", "-D", "warnings"],
            &[],
        ),
    },
    Step {
        name: StepName::Test,
        why: "unit, law, golden and end-to-end tests, the CUDA engine on an emulated device, and the examples in the docs",
        on_failure: "one test alone: cargo test -p CRATE NAME",
        action: Action::Cargo(
            "test",
            &["--workspace", "--features", FEATURES, "--no-fail-fast"],
            &[],
        ),
    },
    Step {
        name: StepName::Doc,
        why: "broken links and missing docs",
        on_failure: "mend the warnings; to look at the pages: cargo doc --no-deps --open",
        action: Action::Cargo(
            "doc",
            &["--workspace", "--no-deps", "--features", FEATURES],
            &[("RUSTDOCFLAGS", "-D warnings")],
        ),
    },
    Step {
        name: StepName::Cuda,
        why: "the code for GPUs compiles, where there is a CUDA toolkit",
        on_failure: "mend the errors; cargo xtask cuda builds the binary",
        action: Action::Own(cuda::check),
    },
];

/// A step that was run: its name, how long it took, whether it passed.
type Outcome = (&'static str, Duration, bool);

pub(crate) fn run(options: &Options, install: InstallOption) -> anyhow::Result<()> {
    let environment = crate::setup::prepare(install.policy())?;
    let mut outcomes = Vec::new();
    for step in STEPS.iter().filter(|step| options.selects(step.name)) {
        println!("\n== {}: {}", step.name.text(), step.why);
        let start = Instant::now();
        let result = step.action.run(&environment);
        outcomes.push((step.name.text(), start.elapsed(), result.is_ok()));
        if let Err(error) = result {
            println!("\n{}", summary(&outcomes));
            return Err(error).with_context(|| {
                format!("step {} failed ({})", step.name.text(), step.on_failure)
            });
        }
    }
    println!("\n{}", summary(&outcomes));
    Ok(())
}

impl Options {
    fn selects(&self, name: StepName) -> bool {
        (self.only.is_empty() || self.only.contains(&name)) && !self.skip.contains(&name)
    }
}

impl StepName {
    fn text(self) -> &'static str {
        match self {
            Self::RustVersion => "rust-version",
            Self::Fmt => "fmt",
            Self::Tidy => "tidy",
            Self::CheckLayers => "check-layers",
            Self::Clippy => "clippy",
            Self::Test => "test",
            Self::Doc => "doc",
            Self::Cuda => "cuda",
        }
    }
}

impl Action {
    fn run(&self, environment: &Environment) -> anyhow::Result<()> {
        match self {
            Self::Own(command) => command(environment),
            Self::Cargo(subcommand, arguments, variables) => {
                let mut command = workspace::cargo(subcommand);
                command.args(*arguments).envs(variables.iter().copied());
                process::run(environment.apply(&mut command))
            }
        }
    }
}

/// One aligned line per step that was run.
fn summary(outcomes: &[Outcome]) -> String {
    let line = |(name, time, passed): &Outcome| {
        let outcome = if *passed { "passed" } else { "FAILED" };
        format!("{name:<13} {outcome}  {:>7.1} s", time.as_secs_f64())
    };
    let total: Duration = outcomes.iter().map(|(_, time, _)| *time).sum();
    let lines = outcomes.iter().map(line).collect::<Vec<_>>().join("\n");
    format!("{lines}\n{:<13} {:6}  {:>7.1} s", "all steps", "", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_complete_and_named_as_on_the_command_line() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names, StepName::value_variants());
        for name in names {
            assert_eq!(name.to_possible_value().unwrap().get_name(), name.text());
        }
    }

    #[test]
    fn only_and_skip_select() {
        let options = |only: &[StepName], skip: &[StepName]| Options {
            only: only.to_vec(),
            skip: skip.to_vec(),
        };
        assert!(options(&[], &[]).selects(StepName::Doc));
        assert!(!options(&[], &[StepName::Doc]).selects(StepName::Doc));
        assert!(!options(&[StepName::Fmt], &[]).selects(StepName::Doc));
        assert!(!options(&[StepName::Doc], &[StepName::Doc]).selects(StepName::Doc));
    }

    #[test]
    fn the_summary_is_aligned() {
        let outcomes = [
            ("fmt", Duration::from_millis(800), true),
            ("check-layers", Duration::from_secs(120), false),
        ];
        assert_eq!(
            summary(&outcomes),
            "fmt           passed      0.8 s\n\
             check-layers  FAILED    120.0 s\n\
             all steps               120.8 s"
        );
    }
}
