//! Programs of the workspace, built for release and run with arguments that are passed on.

use std::ffi::OsString;
use std::process::Command;

use crate::setup::InstallOption;
use crate::workspace;

/// The command that builds and runs `target` (cargo's options that name it, and the program's own first arguments), after set-up.
///
/// Set-up's own options may stand among `arguments`, behind which clap no longer sees them.
pub(crate) fn command(
    target: &[&str],
    mut arguments: Vec<OsString>,
    install: InstallOption,
) -> anyhow::Result<Command> {
    let environment = crate::setup::prepare(install.or_among(&mut arguments).policy())?;
    let mut command = workspace::cargo("run");
    command.arg("--release").args(target).args(arguments);
    environment.apply(&mut command);
    Ok(command)
}
