//! Set-up end to end, on made-up machines: a PATH of a few scripts that stand for the compiler and the package manager.
//!
//! The compiler of such a machine links OpenBLAS only once the package manager has "installed" it, so that the outcome
//! depends on what xtask really runs.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Writes a program where `-o` says, but only after `apt-get install` has left its mark.
const COMPILER: &str = "\
[ -e MACHINE/installed ] || { echo 'ld: cannot find -lopenblas' >&2; exit 1; }
while [ $# -gt 0 ]; do [ \"$1\" = -o ] && out=$2; shift; done
printf '#!/bin/sh\\nexit 0\\n' > \"$out\"; /bin/chmod +x \"$out\"";
/// Installs nothing unless asked to, and writes down what it was asked.
const MANAGER: &str =
    "echo \"$@\" >> MACHINE/log; [ \"$1\" = install ] && : > MACHINE/installed; exit 0";
const BROKEN_MANAGER: &str = "echo 'E: unable to locate package' >&2; exit 100";
const ROOT: &str = "echo 0";
const USER: &str = "echo 1000";

const LINE: &str = "sudo apt-get update && sudo apt-get install -y --no-install-recommends libopenblas-dev pkg-config";

/// One machine at a time: a script that another thread's child still holds open for writing cannot be started.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder of scripts that is all the PATH there is.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn new(name: &str, scripts: &[(&str, &str)]) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{name}"));
        // left over from an earlier run
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (program, script) in scripts {
            let path = folder.join(program);
            let script = script.replace("MACHINE", folder.to_str().unwrap());
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { folder }
    }

    fn set_up(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .arg("setup")
            .args(arguments)
            .env_remove("LIPCONV_NO_INSTALL")
            .env_remove("LIPCONV_DATA");
        command.env("PATH", &self.folder).envs(variables.iter().copied()).output().unwrap()
    }

    /// The requests to the package manager, one a line.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

/// Runs set-up on a machine with these scripts, and checks the last line of what it says.
#[track_caller]
fn check(
    name: &str,
    scripts: &[(&str, &str)],
    arguments: &[&str],
    last_line: &str,
    passes: bool,
) -> String {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::new(name, scripts);
    let output = machine.set_up(arguments, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().last().unwrap_or_default(), last_line);
    assert_eq!(output.status.success(), passes, "{said}");
    machine.log()
}

#[test]
fn a_machine_that_has_everything_is_left_alone() {
    let compiler = COMPILER.replace("[ -e MACHINE/installed ] ||", "true ||");
    let log =
        check("complete", &[("cc", &compiler), ("apt-get", MANAGER), ("id", ROOT)], &[], "", true);
    assert_eq!(log, "");
}

#[test]
fn root_installs_after_saying_so() {
    let said = "OpenBLAS with LAPACK not found; installing it: \
                apt-get install -y --no-install-recommends libopenblas-dev pkg-config";
    let log =
        check("root", &[("cc", COMPILER), ("apt-get", MANAGER), ("id", ROOT)], &[], said, true);
    assert!(
        log.ends_with("install -y --no-install-recommends libopenblas-dev pkg-config\n"),
        "{log}"
    );
}

#[test]
fn sudo_without_password_installs() {
    let sudo =
        "shift; [ \"$1\" = true ] && exit 0; echo \"$@\" >> MACHINE/log; : > MACHINE/installed";
    let said = "OpenBLAS with LAPACK not found; installing it: sudo \
                apt-get install -y --no-install-recommends libopenblas-dev pkg-config";
    let log = check(
        "sudo",
        &[("cc", COMPILER), ("apt-get", MANAGER), ("id", USER), ("sudo", sudo)],
        &[],
        said,
        true,
    );
    assert!(log.contains("env DEBIAN_FRONTEND=noninteractive apt-get install -y"), "{log}");
}

#[test]
fn a_user_is_told_the_line_to_type() {
    let said = format!(
        "error: OpenBLAS with LAPACK not found, and this user may not install it without a password; type: {LINE}"
    );
    let scripts = [("cc", COMPILER), ("apt-get", MANAGER), ("id", USER), ("sudo", "exit 1")];
    assert_eq!(check("user", &scripts, &[], &said, false), "");
}

#[test]
fn installing_can_be_forbidden() {
    let said = format!("error: OpenBLAS with LAPACK not found; to install it, type: {LINE}");
    let scripts = [("cc", COMPILER), ("apt-get", MANAGER), ("id", ROOT)];
    assert_eq!(check("forbidden", &scripts, &["--no-install"], &said, false), "");

    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = Machine::new("forbidden-by-variable", &scripts);
    let output = machine.set_up(&[], &[("LIPCONV_NO_INSTALL", "1")]);
    assert_eq!(String::from_utf8(output.stderr).unwrap().trim_end(), said);
}

#[test]
fn a_machine_without_compiler_gets_one() {
    let said = "error: a C compiler (cc) and OpenBLAS with LAPACK not found; to install it, type: \
                sudo apt-get update && sudo apt-get install -y --no-install-recommends build-essential libopenblas-dev pkg-config";
    check("bare", &[("apt-get", MANAGER), ("id", ROOT)], &["--no-install"], said, false);
}

#[test]
fn an_unknown_machine_is_told_what_is_missing() {
    let said = "error: OpenBLAS with LAPACK not found, nor a package manager that could install it \
                (apt-get, dnf, pacman, brew)";
    check("unknown", &[("cc", COMPILER)], &[], said, false);
}

#[test]
fn a_failed_installation_is_an_error_with_the_status_of_the_manager() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let machine =
        Machine::new("broken", &[("cc", COMPILER), ("apt-get", BROKEN_MANAGER), ("id", ROOT)]);
    let output = machine.set_up(&[], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(100), "{said}");
    assert!(
        said.lines()
            .last()
            .unwrap()
            .starts_with("error: could not install OpenBLAS with LAPACK; try: sudo apt-get")
    );
}

#[test]
fn an_installation_that_does_not_help_is_an_error() {
    let useless = "exit 0";
    let said = "error: the packages are installed, but a C program that calls dgemm_ and dgesdd_ does not build with \
                OpenBLAS: ld: cannot find -lopenblas";
    check("useless", &[("cc", COMPILER), ("apt-get", useless), ("id", ROOT)], &[], said, false);
}

#[test]
fn a_data_folder_that_is_not_there_is_said() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let compiler = COMPILER.replace("[ -e MACHINE/installed ] ||", "true ||");
    let machine = Machine::new("no-data", &[("cc", &compiler)]);
    let output = machine.set_up(&[], &[("LIPCONV_DATA", "/no/such/folder")]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.trim_end(), "note: LIPCONV_DATA is /no/such/folder, which is not a folder");
    assert!(output.status.success());
}
