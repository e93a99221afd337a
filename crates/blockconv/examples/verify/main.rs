//! The theorems, checked numerically over a sweep of sizes, labels and random draws.
//!
//! `cargo run --release -p blockconv --example verify [-- --json FILE]` prints a table: statement, cases tried, worst
//! defect, tolerance, verdict. The exit status is 1 if a statement fails, 2 for bad arguments. Draws are seeded: every
//! run tries the same kernels. docs/theory.md says what the statements mean.

mod one_dimension;
mod report;
mod two_dimensions;
mod unit_ball;

use std::path::PathBuf;
use std::process::ExitCode;

use report::Finding;

fn main() -> ExitCode {
    let json = match json_path(std::env::args().skip(1)) {
        Ok(json) => json,
        Err(message) => {
            eprintln!("{message}\nusage: verify [--json FILE]");
            return ExitCode::from(2);
        }
    };
    let checks: [fn() -> Vec<Finding>; 3] =
        [one_dimension::check, two_dimensions::check, unit_ball::check];
    println!("{}", report::header());
    let findings: Vec<_> = checks
        .iter()
        .flat_map(|check| check())
        .inspect(|finding| println!("{}", finding.line()))
        .collect();
    if let Some(path) = json
        && let Err(error) = std::fs::write(&path, report::json(&findings))
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    let failed = findings.iter().filter(|finding| !finding.holds()).count();
    println!("{} statements, {failed} failed", findings.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn json_path(mut arguments: impl Iterator<Item = String>) -> Result<Option<PathBuf>, String> {
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => Ok(None),
        (Some("--json"), Some(path), None) => Ok(Some(path.into())),
        (Some(first), ..) => Err(format!("unexpected arguments from {first:?} on")),
    }
}
