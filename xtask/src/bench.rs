//! `cargo xtask bench`: our timings, and PyTorch's beside them where a python3 with torch is found.
//!
//! `lipconv bench` measures both in the same minute; this file builds it for release and passes on where the peers'
//! script and interpreter are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::setup::InstallOption;
use crate::{process, release, workspace};

/// Names an interpreter, for example that of a virtual environment.
const PYTHON_VARIABLE: &str = "LIPCONV_PYTHON";

/// Measure our speed, and PyTorch's where python3 with torch is found
///
/// Measures one of step (training steps), kernels, spectrum and infer, or all. Times are medians in milliseconds. The
/// peers are the same network without a constraint, the paper's algorithm in PyTorch, and the fastest published
/// library; bench/peer_torch.py runs them in the same minute.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench step
  cargo xtask bench all --json bench.json
  cargo xtask bench -- --help            all options of lipconv bench

Peers: pip install torch orthogonium numpy. LIPCONV_PYTHON names another interpreter than python3.")]
pub(crate) struct Options {
    /// Passed on to lipconv bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: Options, install: InstallOption) -> anyhow::Result<()> {
    let target = ["--package", "bench-apps", "--bin", "lipconv", "--", "bench"];
    let mut command = release::command(&target, options.arguments, install)?;
    match python_with_torch() {
        Some(python) => command.args(peer_arguments(&workspace::root(), python)),
        None => {
            eprintln!(
                "no python3 with torch found: our numbers only (pip install torch orthogonium numpy)"
            );
            &mut command
        }
    };
    process::hand_over(command)
}

fn peer_arguments(root: &Path, python: OsString) -> [OsString; 4] {
    let script = root.join("bench").join("peer_torch.py");
    ["--peer-script".into(), script.into_os_string(), "--python".into(), python]
}

/// The interpreter of the environment variable, or else python3, if it imports torch.
fn python_with_torch() -> Option<OsString> {
    let python = std::env::var_os(PYTHON_VARIABLE)
        .or_else(|| process::find("python3").map(PathBuf::into_os_string))?;
    imports_torch(&python).then_some(python)
}

fn imports_torch(python: &OsString) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import torch"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_the_peers_is_in_the_repository() {
        let arguments = peer_arguments(&workspace::root(), "python3".into());
        assert!(Path::new(&arguments[1]).is_file(), "{}", arguments[1].display());
        assert_eq!(arguments[3], "python3");
    }

    #[test]
    fn an_interpreter_that_cannot_import_torch_is_none() {
        assert!(!imports_torch(&"a-program-that-nobody-has".into()));
        assert!(!imports_torch(&"false".into()));
    }
}
