//! Where results come from: versions, commit, command, machine.
//!
//! Guarantee: what cannot be found out is `None`, never a guess. The commit is recorded when the program is built (`build.rs`); no
//! program is run to learn it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::stdout::escaped;

/// Crates whose versions can change a result.
const DEPENDENCIES: [&str; 7] =
    ["candle-core", "candle-nn", "ndarray", "ndarray-linalg", "rand", "rand_chacha", "rayon"];

/// Everything a reader needs to run the same again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of this workspace.
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
    /// Collects what there is to know; `device` is the device in words.
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
            started: utc(SystemTime::now()),
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

/// The arguments as a person would type them; what is not UTF-8 or no letter is escaped.
fn command_line(mut args: impl Iterator<Item = OsString>) -> String {
    let program = args.next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_owned();
    let quote = |arg: OsString| {
        let arg = escaped(&arg.to_string_lossy()).into_owned();
        if arg.contains(char::is_whitespace) { format!("'{arg}'") } else { arg }
    };
    std::iter::once(program).chain(args).map(quote).collect::<Vec<_>>().join(" ")
}

/// `time` as in "2019-12-08 14:30:00 UTC".
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    // days since 0000-03-01, so that the leap day ends a year; 146,097 days are 400 years
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let month_day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + 400 * era + u64::from(month <= 2), month, month_day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_575_815_400, "2019-12-08 14:30:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

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
