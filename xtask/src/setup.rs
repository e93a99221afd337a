//! Set-up: what must be on the machine before the crates compile, and the environment of every child.
//!
//! The crates need a C compiler (cargo links with it) and a system OpenBLAS that carries LAPACK.
//! Both are tried, not guessed: a small C program that calls `dgemm_` and `dgesdd_` is compiled, linked and run.
//! What is missing is installed with the machine's package manager, after saying so, when this process may (root, or
//! sudo that asks no password); otherwise the one line to type is the error.

mod packages;
mod probe;

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use self::packages::{Need, PackageManager, Privilege};

/// The folder of data sets.
const DATA_VARIABLE: &str = "LIPCONV_DATA";
/// Forbids installing, like `--no-install`.
const NO_INSTALL_VARIABLE: &str = "LIPCONV_NO_INSTALL";

/// The option that every command shares.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct InstallOption {
    /// Only name the system packages that are missing; install nothing
    #[arg(long, global = true)]
    no_install: bool,
}

/// What to do about a missing system package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstallPolicy {
    /// Install it where this process may.
    WhenAllowed,
    /// Print the line that installs it, and stop.
    NameOnly,
}

impl InstallOption {
    /// The policy from the option and the environment.
    pub(crate) fn policy(self) -> InstallPolicy {
        policy(self.no_install, env::var_os(NO_INSTALL_VARIABLE).as_deref())
    }

    /// The same option, set also when `--no-install` stands among arguments that are passed through; it is removed there.
    pub(crate) fn or_among(self, arguments: &mut Vec<OsString>) -> Self {
        let n_before = arguments.len();
        arguments.retain(|argument| argument != "--no-install");
        Self { no_install: self.no_install || arguments.len() < n_before }
    }
}

/// The variables that every child gets on top of ours.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: Vec<(&'static str, OsString)>,
}

impl Environment {
    /// Sets the variables for one child.
    pub(crate) fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// Makes the machine ready to compile the crates, and returns the environment of the children.
pub(crate) fn prepare(policy: InstallPolicy) -> anyhow::Result<Environment> {
    let environment = environment()?;
    let missing = missing();
    if missing.is_empty() {
        return Ok(environment);
    }
    install(&missing, policy)?;
    if let Err(complaint) = probe::openblas() {
        bail!(
            "the packages are installed, but a C program that calls dgemm_ and dgesdd_ does not build with \
             OpenBLAS: {complaint}"
        );
    }
    Ok(environment)
}

/// The needs that this machine does not meet.
fn missing() -> Vec<Need> {
    if !probe::c_compiler() {
        // nothing can be linked, so that OpenBLAS cannot be tried: ask for both, installing twice does no harm
        return vec![Need::CCompiler, Need::OpenBlas];
    }
    probe::openblas().err().map(|_| Need::OpenBlas).into_iter().collect()
}

/// Installs what is missing, or fails with the line to type.
fn install(missing: &[Need], policy: InstallPolicy) -> anyhow::Result<()> {
    let what = missing.iter().map(|need| need.description()).collect::<Vec<_>>().join(" and ");
    let Some(manager) = PackageManager::of_this_machine() else {
        bail!(
            "{what} not found, nor a package manager that could install it (apt-get, dnf, pacman, brew)"
        );
    };
    let line = manager.line_to_type(missing);
    if policy == InstallPolicy::NameOnly {
        bail!("{what} not found; to install it, type: {line}");
    }
    let privilege = manager.privilege();
    if privilege == Privilege::Denied {
        bail!(
            "{what} not found, and this user may not install it without a password; type: {line}"
        );
    }
    eprintln!("{what} not found; installing it: {}", manager.line_to_run(missing, privilege));
    manager
        .install(missing, privilege)
        .with_context(|| format!("could not install {what}; try: {line}"))
}

/// The variables for the children.
fn environment() -> anyhow::Result<Environment> {
    // all parallelism is the crates' own; a second pool of BLAS threads would fight with it for the cores
    let mut variables = vec![("OPENBLAS_NUM_THREADS", OsString::from("1"))];
    if let Some(value) = env::var_os(DATA_VARIABLE).filter(|value| !value.is_empty()) {
        let here = env::current_dir().context("the current folder cannot be read")?;
        variables.push((DATA_VARIABLE, data_folder(&here, &value).into_os_string()));
    }
    Ok(Environment { variables })
}

/// The data folder as an absolute path: test binaries run in the folder of their crate, not where the person stands.
///
/// A folder that is not there is no error, because the data are then looked for elsewhere; but it is said.
fn data_folder(here: &Path, value: &OsStr) -> PathBuf {
    let folder = here.join(value);
    if !folder.is_dir() {
        eprintln!("note: {DATA_VARIABLE} is {}, which is not a folder", folder.display());
    }
    folder.canonicalize().unwrap_or(folder)
}

fn policy(no_install: bool, variable: Option<&OsStr>) -> InstallPolicy {
    let forbidden = variable.is_some_and(|value| !value.is_empty() && value != "0");
    if no_install || forbidden { InstallPolicy::NameOnly } else { InstallPolicy::WhenAllowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_or_variable_forbids_installing() {
        assert_eq!(policy(false, None), InstallPolicy::WhenAllowed);
        assert_eq!(policy(true, None), InstallPolicy::NameOnly);
        for (value, expected) in [
            ("", InstallPolicy::WhenAllowed),
            ("0", InstallPolicy::WhenAllowed),
            ("1", InstallPolicy::NameOnly),
        ] {
            assert_eq!(
                policy(false, Some(OsStr::new(value))),
                expected,
                "{NO_INSTALL_VARIABLE}={value}"
            );
        }
    }

    #[test]
    fn the_option_is_found_among_passed_arguments() {
        let mut arguments = ["--out", "x", "--no-install"].map(OsString::from).to_vec();
        let option = InstallOption { no_install: false }.or_among(&mut arguments);
        assert!(option.no_install);
        assert_eq!(arguments, ["--out", "x"]);
    }

    #[test]
    fn a_relative_data_folder_becomes_absolute() {
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = data_folder(crate_folder, OsStr::new("src/../src/setup"));
        assert!(folder.is_absolute() && folder.ends_with("src/setup"), "{}", folder.display());
    }

    #[test]
    fn a_data_folder_that_is_not_there_is_passed_on() {
        assert_eq!(
            data_folder(Path::new("/no"), OsStr::new("such/folder")),
            Path::new("/no/such/folder")
        );
    }

    #[test]
    fn blas_runs_on_one_thread_in_the_children() {
        let environment = environment().unwrap();
        assert!(environment.variables.contains(&("OPENBLAS_NUM_THREADS", OsString::from("1"))));
    }
}
