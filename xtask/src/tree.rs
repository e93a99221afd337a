//! The repository as rules see it: the paths of all files, the text of those that are text, the members.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::process;

/// The folder of the architecture page, changelog and so on is the root, so paths are relative to it and use `/`.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Text of each file, `None` for what is not text.
    files: BTreeMap<String, Option<String>>,
}

/// A member of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member<'t> {
    pub(crate) name: &'t str,
    /// Its folder, such as `crates/projectors`.
    pub(crate) folder: &'t str,
    pub(crate) manifest: &'t str,
}

impl Tree {
    /// Reads what git tracks or would track; without git, everything but hidden folders and `target`.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let paths = git_files(root).map_or_else(|| walk(root), Ok)?;
        let mut files = BTreeMap::new();
        for path in paths {
            // git still lists a file that was just deleted
            if let Ok(bytes) = fs::read(root.join(&path)) {
                files.insert(
                    path,
                    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')),
                );
            }
        }
        Ok(Self { files })
    }

    pub(crate) fn n_files(&self) -> usize {
        self.files.len()
    }

    /// The text files whose names end so.
    pub(crate) fn texts<'t>(
        &'t self,
        endings: &'t [&str],
    ) -> impl Iterator<Item = (&'t str, &'t str)> {
        let wanted = |path: &str| endings.iter().any(|ending| path.ends_with(ending));
        self.files.iter().filter_map(move |(path, text)| {
            Some((path.as_str(), text.as_deref()?)).filter(|_| wanted(path))
        })
    }

    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts(&[".rs"])
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.as_deref()
    }

    /// Whether there is such a file, or a folder with files in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let inside = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&inside))
    }

    /// The sources of the member in this folder, test files left out, with paths below `src/`.
    pub(crate) fn sources_of<'t>(&'t self, folder: &str) -> Vec<(&'t str, &'t str)> {
        let folder = format!("{folder}/src/");
        let shipped = self.rust_files().filter(|(path, _)| !is_test_file(path));
        shipped.filter_map(|(path, text)| Some((path.strip_prefix(&folder)?, text))).collect()
    }

    /// Every manifest with a `[package]`, by folder.
    pub(crate) fn members(&self) -> Vec<Member<'_>> {
        let manifests = self.texts(&["/Cargo.toml"]).filter(|(_, text)| text.contains("[package]"));
        manifests
            .filter_map(|(path, manifest)| {
                let name = manifest
                    .lines()
                    .find_map(|line| line.strip_prefix("name = \""))?
                    .strip_suffix('"')?;
                Some(Member { name, folder: path.strip_suffix("/Cargo.toml")?, manifest })
            })
            .collect()
    }
}

/// Whether the file holds tests only, or helpers of tests.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.ends_with("_tests.rs")
        || path.contains("/tests/")
        || path.contains("/benches/")
}

fn git_files(root: &Path) -> Option<Vec<String>> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let listed = process::read(&mut command).ok()?;
    let paths: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    (!paths.is_empty()).then_some(paths)
}

fn walk(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let here = root.join(&folder);
        for entry in
            fs::read_dir(&here).with_context(|| format!("cannot read {}", here.display()))?
        {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let is_folder = entry.file_type()?.is_dir();
            if !is_folder {
                paths.push(path);
            } else if name != "target"
                && (!name.starts_with('.') || name == ".cargo" || name == ".ci")
            {
                folders.push(path);
            }
        }
    }
    Ok(paths)
}

#[cfg(test)]
impl Tree {
    /// A tree of made-up text files.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let own = |(path, text): &(&str, &str)| ((*path).to_owned(), Some((*text).to_owned()));
        Self { files: files.iter().map(own).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn members_are_the_manifests_with_a_package() {
        let tree = Tree::of(&[
            ("Cargo.toml", "[workspace]\n"),
            ("crates/a/Cargo.toml", "[package]\nname = \"alpha\"\n"),
            ("crates/a/src/lib.rs", ""),
        ]);
        let members: Vec<_> =
            tree.members().iter().map(|member| (member.name, member.folder)).collect();
        assert_eq!(members, [("alpha", "crates/a")]);
    }

    #[test]
    fn files_and_folders_are_there_or_not() {
        let tree = Tree::of(&[("docs/a.md", "")]);
        assert!(tree.has("docs") && tree.has("docs/a.md") && tree.has(""));
        assert!(!tree.has("doc") && !tree.has("docs/a"));
    }

    #[test]
    fn git_and_walk_agree_on_the_sources() {
        let root = workspace::root();
        let Some(listed) = git_files(&root) else {
            eprintln!("skipped: not a git checkout");
            return;
        };
        let walked = walk(&root).unwrap();
        for path in listed.iter().filter(|path| path.ends_with(".rs") && root.join(path).is_file())
        {
            assert!(walked.contains(path), "{path} is tracked, but the walk misses it");
        }
    }

    #[test]
    fn test_files_are_told_apart() {
        for path in
            ["a/src/tests.rs", "a/src/law_tests.rs", "a/tests/golden.rs", "a/benches/step.rs"]
        {
            assert!(is_test_file(path), "{path}");
        }
        for path in ["a/src/lib.rs", "a/src/contests.rs", "xtask/src/test.rs"] {
            assert!(!is_test_file(path), "{path}");
        }
    }
}
