//! Lists the files of `experiments/` and `experiments/recipes/`, which are compiled in: a new one is one file.
//!
//! Records the compiler's version and the commit for `versions.json`, so that no program is run to learn them later.
//!
//! The commit is `LIPCONV_COMMIT` where the environment names one, that of the repository with these sources, or that of a
//! package made by cargo; with `+changes` where the sources differ from it. Builds without optimisation record none: they
//! would be compiled anew with every commit.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What can change the program, from the workspace's folder.
const SOURCES: [&str; 3] = ["crates", "Cargo.toml", "Cargo.lock"];

fn main() {
    for variable in ["RUSTC", "LIPCONV_COMMIT"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = output(Command::new(rustc).arg("--version"));
    println!("cargo::rustc-env=LIPCONV_RUSTC={}", version.as_deref().unwrap_or("unknown"));
    println!("cargo::rustc-env=LIPCONV_COMMIT={}", commit().unwrap_or_default());
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    for (name, folder) in [("experiments", "experiments"), ("recipes", "experiments/recipes")] {
        let list = toml_files(&package.join("../..").join(folder));
        std::fs::write(out.join(name).with_extension("rs"), list).expect("OUT_DIR is a folder");
    }
}

fn variable(name: &str) -> std::ffi::OsString {
    std::env::var_os(name).expect("cargo sets it")
}

/// The TOML files of a folder as the source of an array of names and texts.
fn toml_files(folder: &Path) -> String {
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    let rows = files.iter().map(|path| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8");
        format!("({name:?}, include_str!({:?})),", path.display().to_string())
    });
    format!("&[{}]", rows.collect::<String>())
}

fn commit() -> Option<String> {
    if let Some(named) = std::env::var("LIPCONV_COMMIT").ok().filter(|named| !named.is_empty()) {
        return Some(named);
    }
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return None;
    }
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    packaged(&package).or_else(|| of_repository(&package.join("../..").canonicalize().ok()?))
}

/// The commit in the file that cargo puts into a package.
fn packaged(package: &Path) -> Option<String> {
    let text = std::fs::read_to_string(package.join(".cargo_vcs_info.json")).ok()?;
    let hash = text.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.chars().take(12).collect())
}

fn of_repository(root: &Path) -> Option<String> {
    // the sources may lie in a folder of someone else's repository
    if Path::new(&git(root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        let path = root.join(git(root, &["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let hash = git(root, &["rev-parse", "--short=12", "HEAD"])?;
    let status = ["status", "--porcelain", "--untracked-files=no", "--"];
    let changes = git(root, &[&status[..], &SOURCES].concat())?;
    Some(if changes.is_empty() { hash } else { hash + "+changes" })
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let quiet = ["--no-optional-locks", "-c", "core.fsmonitor=false"];
    output(Command::new("git").arg("-C").arg(root).args(quiet).args(args))
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
