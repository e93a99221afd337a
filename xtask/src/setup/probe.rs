//! Trials: does a C program compile, link with OpenBLAS and LAPACK, and run here?

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};

use crate::process::find;

/// Calls one routine of BLAS and one of LAPACK: an OpenBLAS that was built without LAPACK links the first only.
/// The calls are behind a condition that is false at run time and unknown at compile time.
const PROGRAM: &str = "\
void dgemm_(void);
void dgesdd_(void);
int main(int argc, char **argv) {
    (void)argv;
    if (argc > 9) { dgemm_(); dgesdd_(); }
    return 0;
}
";

/// Whether there is a C compiler under the name that rustc links with.
pub(crate) fn c_compiler() -> bool {
    find("cc").is_some()
}

/// Tries OpenBLAS; the error is the first line of what went wrong.
pub(crate) fn openblas() -> Result<(), String> {
    let folder = Scratch::new().map_err(|error| format!("no temporary folder: {error}"))?;
    let (source, program) = (folder.path.join("probe.c"), folder.path.join("probe"));
    fs::write(&source, PROGRAM).map_err(|error| format!("{}: {error}", source.display()))?;
    complete(Command::new("cc").arg(&source).arg("-o").arg(&program).args(link_flags()))?;
    complete(&mut Command::new(&program))
}

/// What pkg-config says, as the build script of the OpenBLAS bindings asks it too; else the plain library.
fn link_flags() -> Vec<String> {
    let asked =
        Command::new("pkg-config").args(["--libs", "openblas"]).stderr(Stdio::null()).output();
    let told = asked.ok().filter(|output| output.status.success()).map(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    });
    told.filter(|flags| !flags.is_empty()).unwrap_or_else(|| {
        let mut flags: Vec<String> = homebrew_folder().into_iter().collect();
        flags.push("-lopenblas".to_owned());
        flags
    })
}

/// Homebrew keeps OpenBLAS out of the default search path; the build script of the bindings asks brew as well.
fn homebrew_folder() -> Option<String> {
    find("brew")?;
    let output = Command::new("brew").args(["--prefix", "openblas"]).output().ok()?;
    let prefix = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| format!("-L{}/lib", prefix.trim()))
}

fn complete(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(complaint
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no explanation")
        .trim()
        .to_owned())
}

/// A temporary folder, removed when dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let path = unique(&env::temp_dir());
        fs::create_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // a folder that is left behind in the temporary folder does no harm
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A path that no other process, thread or earlier call uses.
fn unique(parent: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static N_MADE: AtomicUsize = AtomicUsize::new(0);
    let serial = N_MADE.fetch_add(1, Ordering::Relaxed);
    parent.join(format!("xtask-probe-{}-{serial}", process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_gives_its_first_line() {
        let complaint = complete(Command::new("cc").arg("no-such-file.c")).unwrap_err();
        assert!(complaint.contains("no-such-file.c"), "{complaint}");
        assert_eq!(complaint.lines().count(), 1);
    }

    #[test]
    fn scratch_folders_are_distinct_and_removed() {
        let (one, two) = (Scratch::new().unwrap(), Scratch::new().unwrap());
        let path = one.path.clone();
        assert!(path.is_dir() && path != two.path);
        drop(one);
        assert!(!path.exists());
    }
}
