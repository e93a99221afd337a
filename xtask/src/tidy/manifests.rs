//! Rules about the manifests of members: what the root manifest decides is decided there alone.

use std::collections::BTreeSet;

use super::Finding;
use crate::code::{code_only, words};
use crate::tree::{Member, Tree};

/// A library is useful alone, so its page explains it alone.
pub(super) fn crates_have_a_readme(tree: &Tree) -> Vec<Finding> {
    let missing = |member: &Member<'_>| {
        let readme = format!("{}/README.md", member.folder);
        (member.folder.starts_with("crates/")
            && tree.text(&readme).is_none_or(|text| text.trim().is_empty()))
        .then(|| Finding::new(&readme, 0, format!("{} has no README", member.name)))
    };
    tree.members().iter().filter_map(missing).collect()
}

/// Every member takes the lints of the workspace.
pub(super) fn workspace_lints_apply(tree: &Tree) -> Vec<Finding> {
    let without = |member: &Member<'_>| {
        let applied = section(member.manifest, "lints").any(|(_, line)| line == "workspace = true");
        (!applied).then(|| Finding::new(&path(member), 0, "lacks `[lints] workspace = true`"))
    };
    tree.members().iter().filter_map(without).collect()
}

/// Versions, edition and dependencies come from the root manifest.
pub(super) fn workspace_versions_apply(tree: &Tree) -> Vec<Finding> {
    tree.members()
        .iter()
        .flat_map(|member| own_package_keys(member).into_iter().chain(own_dependencies(member)))
        .collect()
}

/// A member names each of its dependencies in its code, and each dependency of the workspace has a member that wants it.
pub(super) fn dependencies_are_used(tree: &Tree) -> Vec<Finding> {
    let (mut findings, mut wanted) = (Vec::new(), BTreeSet::new());
    for member in tree.members() {
        let folder = format!("{}/", member.folder);
        let sources = tree.rust_files().filter(|(path, _)| path.starts_with(&folder));
        let code: Vec<String> = sources.map(|(_, text)| code_only(text)).collect();
        let said: BTreeSet<&str> = code.iter().flat_map(|code| words(code)).collect();
        for (line, name) in dependencies(member.manifest) {
            wanted.insert(name);
            if !said.contains(name.replace('-', "_").as_str()) {
                let why = format!("{name} is nowhere in the code of {}", member.name);
                findings.push(Finding::new(&path(&member), line, why));
            }
        }
    }
    let root = dependencies(tree.text("Cargo.toml").unwrap_or_default());
    let unwanted = root.into_iter().filter(|(_, name)| !wanted.contains(name));
    findings.extend(unwanted.map(|(line, name)| {
        Finding::new("Cargo.toml", line, format!("{name} is a dependency of no member"))
    }));
    findings
}

/// The entries under headers that end with `dependencies]`, with their lines from 1.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut is_listed = false;
    for (line_idx, line) in manifest.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            is_listed = line.ends_with("dependencies]");
        } else if is_listed && line.contains('=') && !line.starts_with('#') {
            found.push((line_idx + 1, line.split(['=', '.', ' ']).next().unwrap_or(line)));
        }
    }
    found
}

fn own_package_keys(member: &Member<'_>) -> Vec<Finding> {
    let inherited = |key: &&str| {
        let wanted = format!("{key}.workspace = true");
        section(member.manifest, "package").any(|(_, line)| line == wanted)
    };
    let missing =
        ["version", "edition", "rust-version", "license"].into_iter().filter(|key| !inherited(key));
    missing
        .map(|key| Finding::new(&path(member), 0, format!("lacks `{key}.workspace = true`")))
        .collect()
}

fn own_dependencies(member: &Member<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut header = "";
    for (line_idx, line) in member.manifest.lines().map(str::trim).enumerate() {
        if line.starts_with('[') {
            header = line.trim_matches(['[', ']']);
            if let Some((_, name)) = header.split_once("dependencies.") {
                findings.push(Finding::new(
                    &path(member),
                    line_idx + 1,
                    format!("write {name} in one line"),
                ));
            }
            continue;
        }
        let is_entry =
            header.ends_with("dependencies") && line.contains('=') && !line.starts_with('#');
        if is_entry && !line.contains("workspace = true") {
            let name = line.split(['=', '.']).next().unwrap_or(line).trim();
            findings.push(Finding::new(
                &path(member),
                line_idx + 1,
                format!("{name} has a version of its own: put it under [workspace.dependencies]"),
            ));
        }
    }
    findings
}

/// The lines under `[name]`, trimmed, with their indices.
fn section<'m>(manifest: &'m str, name: &str) -> impl Iterator<Item = (usize, &'m str)> {
    let header = format!("[{name}]");
    let lines = manifest.lines().map(str::trim).enumerate();
    lines
        .skip_while(move |(_, line)| *line != header)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
}

fn path(member: &Member<'_>) -> String {
    format!("{}/Cargo.toml", member.folder)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\nedition.workspace = true\n\
        rust-version.workspace = true\nlicense.workspace = true\n\n[lints]\nworkspace = true\n\n\
        [dependencies]\n# why\nrand.workspace = true\nrayon = { workspace = true, optional = true }\n\n[features]\nx = []\n";

    #[test]
    fn a_good_manifest_passes() {
        for rule in [workspace_lints_apply, workspace_versions_apply] {
            check(rule, &[("crates/a/Cargo.toml", GOOD)], &[]);
        }
    }

    #[test]
    fn a_crate_without_readme_is_found() {
        let files = [
            ("crates/a/Cargo.toml", GOOD),
            ("crates/b/Cargo.toml", GOOD),
            ("crates/b/README.md", "# b\n"),
        ];
        check(crates_have_a_readme, &files, &["crates/a/README.md: a has no README"]);
        check(crates_have_a_readme, &[("xtask/Cargo.toml", GOOD)], &[]);
    }

    #[test]
    fn missing_lints_are_found() {
        let bad = GOOD.replace("[lints]\nworkspace = true\n", "");
        check(
            workspace_lints_apply,
            &[("a/Cargo.toml", &bad)],
            &["a/Cargo.toml: lacks `[lints] workspace = true`"],
        );
    }

    #[test]
    fn unused_dependencies_are_found() {
        let manifest = "[package]\nname = \"a\"\n\n[dependencies]\nb-c.workspace = true\nd = { workspace = true }\n\n\
            [dev-dependencies]\ne.workspace = true\n";
        let root = "[workspace.dependencies]\nb-c = \"1\"\nd = \"1\"\ne = \"1\"\n# why\nf = \"1\"\n[profile.dev]\nx = 1\n";
        let files = [
            ("Cargo.toml", root),
            ("a/Cargo.toml", manifest),
            ("a/src/lib.rs", "use b_c::X; // d\n"),
            ("a/tests/main.rs", "use e::f;"),
        ];
        check(
            dependencies_are_used,
            &files,
            &[
                "Cargo.toml:6: f is a dependency of no member",
                "a/Cargo.toml:6: d is nowhere in the code of a",
            ],
        );
    }

    #[test]
    fn versions_of_its_own_are_found() {
        let bad = GOOD.replace("edition.workspace = true", "edition = \"2021\"").replace(
            "rand.workspace = true",
            "rand = \"0.9\"\n[dev-dependencies.tar]\nversion = \"1\"",
        );
        check(
            workspace_versions_apply,
            &[("a/Cargo.toml", &bad)],
            &[
                "a/Cargo.toml: lacks `edition.workspace = true`",
                "a/Cargo.toml:13: rand has a version of its own: put it under [workspace.dependencies]",
                "a/Cargo.toml:14: write tar in one line",
            ],
        );
    }
}
