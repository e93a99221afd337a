//! Rules about docs/ARCHITECTURE.md: it has a section for every member, and names nothing that is gone.

use super::Finding;
use crate::code::words;
use crate::tree::{Member, Tree};

const PAGE: &str = "docs/ARCHITECTURE.md";
/// The chapter whose `###` sections are the members.
const CHAPTER: &str = "## Crates";
/// The paragraphs that each section has, in bold at the beginning of a line.
const PARAGRAPHS: [&str; 4] =
    ["**Purpose.**", "**Entry point.**", "**Main types.**", "**Must not.**"];
/// The paragraphs whose names in backticks must exist in the crate.
const CHECKED: [&str; 2] = ["**Entry point.**", "**Main types.**"];

/// A `###` section of the chapter.
struct Section<'t> {
    name: &'t str,
    /// From 1.
    line: usize,
    /// Each line of it with its number.
    lines: Vec<(usize, &'t str)>,
}

/// Every member has its section, every section its member.
pub(super) fn members_have_sections(tree: &Tree) -> Vec<Finding> {
    let (sections, members) = (sections(tree), tree.members());
    let unwritten =
        members.iter().filter(|member| !sections.iter().any(|section| section.name == member.name));
    let unwritten = unwritten
        .map(|member| Finding::new(PAGE, 0, format!("has no section `### {}`", member.name)));
    let gone =
        sections.iter().filter(|section| !members.iter().any(|member| member.name == section.name));
    let gone = gone
        .map(|section| Finding::new(PAGE, section.line, format!("{} is no member", section.name)));
    unwritten.chain(gone).collect()
}

/// Every section says what the crate is for, where it begins, what it holds, and what it must not know.
pub(super) fn sections_are_complete(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in sections(tree) {
        let missing = PARAGRAPHS
            .iter()
            .filter(|title| !section.lines.iter().any(|(_, line)| line.starts_with(**title)));
        findings.extend(missing.map(|title| {
            Finding::new(PAGE, section.line, format!("{} lacks a paragraph {title}", section.name))
        }));
    }
    findings
}

/// What a section names as entry point or type is in the sources of its crate.
pub(super) fn named_items_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for section in sections(tree) {
        let members = tree.members();
        let Some(member) = members.iter().find(|member| member.name == section.name) else {
            continue;
        };
        for (line, name) in checked_names(&section) {
            if !exists(tree, member, name) {
                findings.push(Finding::new(
                    PAGE,
                    line,
                    format!("`{name}` is nowhere in {}", member.folder),
                ));
            }
        }
    }
    findings
}

/// Every path in backticks is a file or folder of the repository.
pub(super) fn named_paths_exist(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut member = None;
    for (line_idx, line) in tree.text(PAGE).unwrap_or_default().lines().enumerate() {
        if let Some(title) = line.strip_prefix("### ") {
            member = tree.members().into_iter().find(|member| member.name == title.trim());
        } else if line.starts_with("## ") {
            member = None;
        }
        for path in line.split('`').skip(1).step_by(2).filter(|name| is_path(name)) {
            let path = path.trim_end_matches('/');
            let inside = member.as_ref().map(|member| format!("{}/{path}", member.folder));
            if !tree.has(path) && !inside.is_some_and(|inside| tree.has(&inside)) {
                findings.push(Finding::new(PAGE, line_idx + 1, format!("`{path}` does not exist")));
            }
        }
    }
    findings
}

/// Whether what stands in backticks is meant as a path of the repository: `a/b`, `a/` or `a.rs`.
fn is_path(name: &str) -> bool {
    let endings = [".rs", ".md", ".toml", ".py"];
    let is_file = endings.iter().any(|ending| name.ends_with(ending));
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c));
    is_plain && !name.starts_with('/') && (is_file || name.contains('/')) && !name.contains("...")
}

fn sections(tree: &Tree) -> Vec<Section<'_>> {
    let text = tree.text(PAGE).unwrap_or_default();
    let numbered = text.lines().enumerate().map(|(idx, line)| (idx + 1, line));
    let chapter = numbered
        .skip_while(|(_, line)| *line != CHAPTER)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("## "));
    let mut sections: Vec<Section<'_>> = Vec::new();
    for (line, text) in chapter {
        if let Some(name) = text.strip_prefix("### ") {
            sections.push(Section { name: name.trim(), line, lines: vec![] });
        } else if let Some(section) = sections.last_mut() {
            section.lines.push((line, text));
        }
    }
    sections
}

/// The names in backticks in the checked paragraphs, with their lines.
fn checked_names<'t>(section: &Section<'t>) -> Vec<(usize, &'t str)> {
    let mut names = Vec::new();
    let mut is_checked = false;
    for &(number, line) in &section.lines {
        if line.starts_with("**") {
            is_checked = CHECKED.iter().any(|title| line.starts_with(title));
        }
        if is_checked {
            names.extend(line.split('`').skip(1).step_by(2).map(|name| (number, name)));
        }
    }
    names
}

/// A path is a file of the crate; anything else is a word of its code, `a::b` and `b()` by their last word.
fn exists(tree: &Tree, member: &Member<'_>, name: &str) -> bool {
    if name.contains('/') {
        let name = name.trim_end_matches('/');
        return tree.has(&format!("{}/{name}", member.folder)) || tree.has(name);
    }
    let Some(item) = words(name).last() else { return true };
    let folder = format!("{}/", member.folder);
    let mut sources = tree.rust_files().filter(|(path, _)| path.starts_with(&folder));
    sources.any(|(_, text)| text.lines().any(|line| words(line).any(|word| word == item)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"alpha\"\n";
    const GOOD: &str = "# Architecture\n\n### other\n\n## Crates\n\nText.\n\n### alpha\n\n**Purpose.** To be.\n\n\
        **Entry point.** `src/lib.rs`.\n\n**Main types.** `a::Thing` and\n`make()`.\n\n**Must not.** Know `clap`.\n\n## Rest\n\n### beta\n";

    fn files(page: &str) -> Vec<(&str, &str)> {
        vec![
            ("crates/a/Cargo.toml", MANIFEST),
            ("crates/a/src/lib.rs", "pub struct Thing;\npub fn make() {}\n"),
            (PAGE, page),
        ]
    }

    #[test]
    fn a_good_page_passes() {
        for rule in [members_have_sections, sections_are_complete, named_items_exist] {
            check(rule, &files(GOOD), &[]);
        }
    }

    #[test]
    fn members_and_sections_must_agree() {
        let page = GOOD.replace("### alpha", "### omega");
        let expected = [
            "docs/ARCHITECTURE.md: has no section `### alpha`",
            "docs/ARCHITECTURE.md:9: omega is no member",
        ];
        check(members_have_sections, &files(&page), &expected);
        check(members_have_sections, &[("crates/a/Cargo.toml", MANIFEST)], &expected[..1]);
    }

    #[test]
    fn a_missing_paragraph_is_found() {
        let page = GOOD.replace("**Must not.**", "It must not");
        check(
            sections_are_complete,
            &files(&page),
            &["docs/ARCHITECTURE.md:9: alpha lacks a paragraph **Must not.**"],
        );
    }

    #[test]
    fn names_that_are_gone_are_found() {
        let page = GOOD.replace("`make()`", "`remake()`").replace("src/lib.rs", "src/old.rs");
        check(
            named_items_exist,
            &files(&page),
            &[
                "docs/ARCHITECTURE.md:13: `src/old.rs` is nowhere in crates/a",
                "docs/ARCHITECTURE.md:16: `remake()` is nowhere in crates/a",
            ],
        );
    }

    #[test]
    fn paths_that_are_gone_are_found() {
        let page = format!(
            "`crates/a/src/lib.rs`, `crates/a/`, `crates/b`, `none.rs`, `1 / n`, `a::b`, `f()`\n{GOOD}\n`src/lib.rs`\n"
        );
        check(
            named_paths_exist,
            &files(&page),
            &[
                "docs/ARCHITECTURE.md:1: `crates/b` does not exist",
                "docs/ARCHITECTURE.md:1: `none.rs` does not exist",
                "docs/ARCHITECTURE.md:25: `src/lib.rs` does not exist",
            ],
        );
    }
}
