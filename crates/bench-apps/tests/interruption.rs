//! What tests of interrupted commands share.

#[cfg(unix)]
use std::fs;

use serde_json::Value;

/// SIGHUP and SIGINT.
#[cfg(unix)]
pub(crate) const HANGUP: u32 = 1;
#[cfg(unix)]
pub(crate) const INTERRUPT: u32 = 2;

/// Whether this process ignores a signal, and so every command that it starts; asked of the kernel where it says so.
///
/// That is so under nohup and in the background of a shell without job control, and no test can change it.
#[cfg(unix)]
pub(crate) fn is_ignored(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let ignored = mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    if ignored {
        eprintln!("skipped: signal {signal} is ignored here");
    }
    ignored
}

/// Removes times and command lines, which no two runs share.
pub(crate) fn timeless(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(timeless),
        Value::Object(members) => {
            let varies =
                |name: &str| name.contains("seconds") || ["command", "started"].contains(&name);
            members.retain(|name, _| !varies(name));
            members.values_mut().for_each(timeless);
        }
        _ => {}
    }
}
