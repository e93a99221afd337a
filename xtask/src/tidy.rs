//! `cargo xtask tidy`: what no compiler looks at.
//!
//! Each rule is a function from the text of the repository to findings; the table [`RULES`] names them all.
//! The same rules run as a test of this crate, so that a plain `cargo test` holds them too.

mod architecture;
mod documents;
mod manifests;
mod sources;

use std::fmt;

use anyhow::bail;

use crate::tree::Tree;
use crate::workspace;

/// A place that a rule objects to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// A rule looks at the whole repository.
type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[Rule] = &[
    sources::module_docs_come_first,
    sources::files_are_short,
    sources::modules_have_named_files,
    sources::nothing_is_left_behind,
    sources::paths_are_relative,
    manifests::crates_have_a_readme,
    manifests::workspace_lints_apply,
    manifests::workspace_versions_apply,
    manifests::dependencies_are_used,
    documents::links_resolve,
    documents::sentences_have_their_line,
    documents::changelog_has_an_unreleased_section,
    architecture::members_have_sections,
    architecture::sections_are_complete,
    architecture::named_items_exist,
    architecture::named_paths_exist,
];

pub(crate) fn run() -> anyhow::Result<()> {
    let tree = Tree::read(&workspace::root())?;
    let findings = findings(&tree);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} places are not tidy", findings.len());
    }
    println!("{} files keep {} rules", tree.n_files(), RULES.len());
    Ok(())
}

fn findings(tree: &Tree) -> Vec<Finding> {
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(tree)).collect();
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = findings(&Tree::read(&workspace::root()).unwrap());
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn a_finding_reads_like_a_compiler_message() {
        assert_eq!(Finding::new("a/b.rs", 3, "why").to_string(), "a/b.rs:3: why");
        assert_eq!(Finding::new("a/b.rs", 0, "why").to_string(), "a/b.rs: why");
    }
}

/// What the tests of the rules share.
#[cfg(test)]
mod testing {
    use super::*;

    /// Runs one rule on made-up files and compares what it finds, as text.
    #[track_caller]
    pub(super) fn check(rule: Rule, files: &[(&str, &str)], expected: &[&str]) {
        let mut findings = rule(&Tree::of(files));
        findings.sort();
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(lines, expected);
    }
}
