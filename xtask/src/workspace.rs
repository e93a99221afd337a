//! The workspace: where its root is, and what cargo says about it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use crate::process;

/// The folder of the root manifest.
pub(crate) fn root() -> PathBuf {
    // set at run time by `cargo run` and `cargo test`; the value at compile time is for a binary started by hand
    let own = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// A cargo command on this workspace, whatever folder the person stands in.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = process::cargo();
    command.arg(subcommand).arg("--manifest-path").arg(root().join("Cargo.toml"));
    command
}

/// `cargo metadata`: the members and all their dependencies for this machine's platform.
pub(crate) fn metadata() -> anyhow::Result<Value> {
    let mut command = cargo("metadata");
    command.args(["--format-version", "1", "--filter-platform", &host()?]);
    let text = process::read(&mut command)?;
    serde_json::from_str(&text).context("cargo metadata wrote no JSON")
}

/// The platform that rustc compiles for by default, such as `x86_64-unknown-linux-gnu`.
fn host() -> anyhow::Result<String> {
    let text = process::read(Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.starts_with("[workspace]"));
    }

    #[test]
    fn cargo_knows_this_crate() {
        let metadata = metadata().unwrap();
        let packages = metadata["packages"].as_array().unwrap();
        assert!(packages.iter().any(|package| package["name"] == env!("CARGO_PKG_NAME")));
    }
}
