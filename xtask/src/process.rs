//! Child processes: how they are named, run and handed over to, and what their failure looks like.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::Context as _;

/// A child process that ended badly; its exit status becomes ours.
#[derive(Debug)]
pub(crate) struct ChildFailed {
    program: String,
    code: Option<i32>,
}

impl ChildFailed {
    /// `code` is `None` when a signal ended the child.
    pub(crate) fn new(program: impl Into<String>, code: Option<i32>) -> Self {
        Self { program: program.into(), code }
    }

    /// The child's exit status where it fits one, 1 otherwise; never 0.
    pub(crate) fn exit_code(&self) -> u8 {
        self.code.and_then(|code| u8::try_from(code).ok()).filter(|&code| code != 0).unwrap_or(1)
    }
}

impl fmt::Display for ChildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} ended with exit status {code}", self.program),
            None => write!(f, "{} was ended by a signal", self.program),
        }
    }
}

impl std::error::Error for ChildFailed {}

/// The cargo that runs us, so that children use the same toolchain.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// Runs the command to its end, with our standard streams.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status =
        command.status().with_context(|| format!("could not start {}", spelled(command)))?;
    expect_success(command, status)
}

/// Runs the command to its end and returns what it wrote on standard output.
pub(crate) fn read(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.output().with_context(|| format!("could not start {}", spelled(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        return expect_success(command, output.status).map(|()| String::new()).context(complaint);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", spelled(command)))
}

/// Becomes the command: the last thing that a command of ours does.
///
/// On Unix the process is replaced, so that the child receives Ctrl-C alone and saves before the prompt returns, and
/// its exit status is the one that the shell sees. Elsewhere it is run to its end.
pub(crate) fn hand_over(mut command: Command) -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        let error = std::os::unix::process::CommandExt::exec(&mut command);
        Err(error).with_context(|| format!("could not start {}", spelled(&command)))
    }
    #[cfg(not(unix))]
    run(&mut command)
}

/// Where `program` is on the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| is_program(path))
}

/// The command as a person would type it, the program without its folder.
pub(crate) fn spelled(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn expect_success(command: &Command, status: ExitStatus) -> anyhow::Result<()> {
    if status.success() {
        return Ok(());
    }
    Err(ChildFailed::new(spelled(command), status.code()).into())
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file() || path.with_extension("exe").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_child_reports_its_command_and_status() {
        let mut command = cargo();
        command.arg("no-such-subcommand").stderr(std::process::Stdio::null());
        let error = run(&mut command).unwrap_err();
        let failed = error.downcast_ref::<ChildFailed>().unwrap();
        assert_eq!(failed.to_string(), "cargo no-such-subcommand ended with exit status 101");
        assert_eq!(failed.exit_code(), 101);
    }

    #[test]
    fn an_exit_status_is_never_lost_to_zero() {
        assert_eq!(ChildFailed::new("x", None).exit_code(), 1);
        assert_eq!(ChildFailed::new("x", Some(256)).exit_code(), 1);
        assert_eq!(ChildFailed::new("x", Some(2)).exit_code(), 2);
        assert_eq!(ChildFailed::new("x", None).to_string(), "x was ended by a signal");
    }

    #[test]
    fn a_missing_program_is_named() {
        assert_eq!(find("a-program-that-nobody-has"), None);
        let error = run(&mut Command::new("a-program-that-nobody-has")).unwrap_err();
        assert_eq!(error.to_string(), "could not start a-program-that-nobody-has");
    }
}
