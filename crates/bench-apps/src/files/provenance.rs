//! Where results come from: versions, commit, command, machine.
//!
//! Guarantee: what cannot be found out is `None`, never a guess. The commit is recorded when the program is built (`build.rs`); no
//! program is run to learn it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::stdout::escaped;

/// Crates whose versions can change a result.
const DEPENDENCIES: [&str; 7] =
    ["candle-core", "candle-nn", "ndarray", "ndarray-linalg", "rand", "rand_chacha", "rayon"];

/// Everything a reader needs to run the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    pub version: String,
    /// Commit of the source tree, where it is known.
    pub commit: Option<String>,
    pub rustc: String,
    /// Versions of the dependencies that can change a result; several where several are compiled in.
    pub dependencies: BTreeMap<String, Vec<String>>,
    /// Device in words.
    pub device: String,
    pub threads: usize,
    /// Operating system and processor family.
    pub platform: String,
    /// Command line, without the program's folder.
    pub command: String,
    /// When the program was started, UTC.
    pub started: String,
}

impl Provenance {
    /// Collects all of it; `device` is the device in words.
    pub fn collect(device: &str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: Some(env!("LIPCONV_COMMIT").to_owned()).filter(|commit| !commit.is_empty()),
            rustc: env!("LIPCONV_RUSTC").into(),
            dependencies: dependency_versions(include_str!("../../../../Cargo.lock")),
            device: device.into(),
            threads: rayon::current_num_threads(),
            platform: format!("{} {}", env::consts::OS, env::consts::ARCH),
            command: command_line(env::args_os()),
            started: now(),
        }
    }
}

/// Versions of [`DEPENDENCIES`] in a Cargo.lock.
fn dependency_versions(lock: &str) -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        let quoted = |prefix| line.strip_prefix(prefix)?.strip_suffix('"');
        if let Some(found) = quoted("name = \"") {
            name = found;
        } else if let Some(version) = quoted("version = \"")
            && DEPENDENCIES.contains(&name)
        {
            versions.entry(name.into()).or_default().push(version.into());
        }
    }
    versions
}

/// The arguments as a person would type them; invalid UTF-8 and control characters are escaped.
fn command_line(mut args: impl Iterator<Item = OsString>) -> String {
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_owned();
    let quote = |arg: OsString| {
        let arg = escaped(&arg.to_string_lossy()).into_owned();
        if arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg }
    };
    std::iter::once(program).chain(args).map(quote).collect::<Vec<_>>().join(" ")
}

/// The present time as in "2019-12-08 14:30:00 UTC".
fn now() -> String {
    let mut text = String::new();
    // as the log has it: 2019-12-08T14:30:00.123456Z
    SystemTime.format_time(&mut Writer::new(&mut text)).expect("a String takes every text");
    text.truncate(19);
    text.replace('T', " ") + " UTC"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"rand\"\nversion = \"0.8.5\"\n\n[[package]]\nname = \"rand\"\nversion = \"0.9.2\"\n\n\
                    [[package]]\nname = \"other\"\nversion = \"1.0.0\"\n";
        let versions = dependency_versions(lock);
        assert_eq!(versions.len(), 1);
        assert_eq!(versions["rand"], ["0.8.5", "0.9.2"]);
        let ours = dependency_versions(include_str!("../../../../Cargo.lock"));
        assert!(ours.contains_key("candle-core") && ours.contains_key("ndarray"));
    }

    #[test]
    fn the_command_hides_the_programs_folder() {
        let line = |args: &[&str]| command_line(args.iter().map(OsString::from));
        let args = ["some/where/lipconv", "train", "--out", "my run"];
        assert_eq!(line(&args), "lipconv train --out 'my run'");
        assert_eq!(line(&["lipconv", "a\u{1b}[2Kb"]), "lipconv a\\u{1b}[2Kb");
        assert_eq!(line(&[]), "");
    }
}
