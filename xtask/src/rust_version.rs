//! The compiler that runs here, against the oldest one that the manifest promises.

use std::env;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{process, workspace};

/// Set by CI services and by `.ci/run`.
const CI_VARIABLE: &str = "CI";

/// Fails in CI where the compiler is not of the declared version; a developer's may be newer.
pub(crate) fn check() -> anyhow::Result<()> {
    let manifest = std::fs::read_to_string(workspace::root().join("Cargo.toml"))
        .context("cannot read Cargo.toml")?;
    let compiler = process::read(Command::new("rustc").arg("--version"))?;
    println!("{}", verdict(&manifest, &compiler, env::var_os(CI_VARIABLE).is_some())?);
    Ok(())
}

fn verdict(manifest: &str, compiler: &str, is_ci: bool) -> anyhow::Result<String> {
    let declared = manifest.lines().find_map(|line| line.strip_prefix("rust-version = "));
    let declared = declared.context("Cargo.toml declares no rust-version")?.trim_matches('"');
    let version = compiler.split(' ').nth(1).context("rustc --version names no version")?;
    let is_declared = version == declared || version.starts_with(&format!("{declared}."));
    match (is_declared, is_ci) {
        (true, _) => Ok(format!("rustc {version}, rust-version {declared}")),
        (false, true) => {
            bail!("CI compiles with rustc {version}, but the declared version is {declared}")
        }
        (false, false) => {
            Ok(format!("rustc {version}; only CI compiles with the declared version {declared}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[workspace.package]\nrust-version = \"1.95\"\n";

    #[test]
    fn ci_compiles_with_the_declared_version() {
        let own = "rustc 1.95.1 (abc 2026-05-01)";
        assert_eq!(verdict(MANIFEST, own, true).unwrap(), "rustc 1.95.1, rust-version 1.95");
        let newer = "rustc 1.950.0 (abc 2026-05-01)";
        let refused = verdict(MANIFEST, newer, true).unwrap_err().to_string();
        assert_eq!(refused, "CI compiles with rustc 1.950.0, but the declared version is 1.95");
        let said = verdict(MANIFEST, newer, false).unwrap();
        assert_eq!(said, "rustc 1.950.0; only CI compiles with the declared version 1.95");
        assert!(verdict("", own, true).is_err());
    }
}
