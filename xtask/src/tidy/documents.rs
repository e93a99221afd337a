//! Rules about Markdown: links lead somewhere, each sentence has its line, the changelog has a place for the next change.

use super::Finding;
use crate::tree::Tree;

/// Links to files of the repository resolve, and so do their `#sections`.
pub(super) fn links_resolve(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(&[".md"]) {
        for (line_idx, line) in prose(text) {
            let dead = links(&line)
                .into_iter()
                .filter_map(|target| Some((target, dead(tree, path, target)?)));
            findings.extend(dead.map(|(target, why)| {
                Finding::new(path, line_idx + 1, format!("link {target}: {why}"))
            }));
        }
    }
    findings
}

/// CHANGELOG.md has an Unreleased section.
pub(super) fn changelog_has_an_unreleased_section(tree: &Tree) -> Vec<Finding> {
    let is_there = tree
        .text("CHANGELOG.md")
        .is_some_and(|text| text.lines().any(|line| line == "## [Unreleased]"));
    (!is_there)
        .then(|| Finding::new("CHANGELOG.md", 0, "has no section `## [Unreleased]`"))
        .into_iter()
        .collect()
}

/// A sentence is one line: a change shows the sentence that changed, and a line that is too long is a sentence to split.
///
/// Looked at are paragraphs and the items of lists; headings, tables, quotes, code and the outputs among the tests are free.
pub(super) fn sentences_have_their_line(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(&[".md"]).filter(|(path, _)| !path.contains("/tests/")) {
        let lines: Vec<_> = prose(text);
        for (at, (line_idx, line)) in lines.iter().enumerate().filter(|(_, (_, l))| is_sentence(l))
        {
            let next = lines.get(at + 1).filter(|(next, line)| {
                *next == line_idx + 1 && is_sentence(line) && !begins_item(line)
            });
            if next.is_some() && !ends_sentence(line) {
                findings.push(Finding::new(
                    path,
                    line_idx + 1,
                    "a sentence goes on in the next line",
                ));
            }
            if let Some(second) = second_sentence(line) {
                let why = format!("a second sentence begins at \"{second}\"");
                findings.push(Finding::new(path, line_idx + 1, why));
            }
        }
    }
    findings
}

/// Whether the line is of a paragraph or list item.
fn is_sentence(line: &str) -> bool {
    let text = line.trim_start();
    let is_code = line.starts_with("    ") && !text.starts_with(['-', '*']);
    !text.is_empty()
        && !is_code
        && !text.starts_with(['#', '|', '>', '<', '='])
        && !text.starts_with("[")
        || text.starts_with('[') && text.contains("](")
}

fn begins_item(line: &str) -> bool {
    let text = line.trim_start();
    let number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    text.starts_with("- ") || text.starts_with("* ") || (number != text && number.starts_with(". "))
}

fn ends_sentence(line: &str) -> bool {
    let text = line.trim_end().trim_end_matches([')', '*', '_', '"', '`', '”', '’']);
    text.ends_with(['.', ':', ';', '?', '!', ','].as_slice()) && !text.ends_with(',')
}

/// The words with which a second sentence begins.
fn second_sentence(line: &str) -> Option<&str> {
    let text = line.trim_start();
    let text = if begins_item(text) { text.split_once(' ')?.1 } else { text };
    for (at, mark) in text.match_indices(['.', '?', '!']) {
        let rest = text[at + 1..].trim_start_matches([')', '*', '_', '"', '’', '”']);
        let Some(next) = rest.strip_prefix(' ') else { continue };
        let begins = next.starts_with(|c: char| c.is_uppercase() || c == '`' || c == '[');
        let word = text[..at].rsplit([' ', '(']).next().unwrap_or_default();
        let is_short = mark == "." && (ABBREVIATIONS.contains(&word) || is_bold_title(text, at));
        if begins && !is_short {
            return Some(next.get(..next.find(' ').unwrap_or(next.len())).unwrap_or(next));
        }
    }
    None
}

/// Words that end with a full stop inside a sentence.
const ABBREVIATIONS: [&str; 8] = ["al", "e.g", "i.e", "vs", "Fig", "No", "St", "cf"];

/// `**Title.** Text` at the beginning of a paragraph.
fn is_bold_title(text: &str, at: usize) -> bool {
    text.starts_with("**") && text[at + 1..].starts_with("**") && !text[2..at].contains("**")
}

/// The lines outside code blocks, without what stands between backticks; with their indices.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (line_idx, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push((line_idx, line.split('`').step_by(2).collect::<Vec<_>>().join("`")));
        }
    }
    lines
}

/// The targets of `[text](target)` and `[text]: target` that are not addresses of the web.
fn links(line: &str) -> Vec<&str> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let reference = line
        .starts_with('[')
        .then(|| line.split_once("]: "))
        .flatten()
        .map(|(_, target)| target.trim());
    let is_local = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
    inline.chain(reference).filter(is_local).collect()
}

/// Why the link leads nowhere.
fn dead(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let (file, anchor) =
        target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let Some(path) = path.filter(|path| tree.has(path)) else {
        return Some("no such file".to_owned());
    };
    let (anchor, text) = (anchor?, tree.text(&path)?);
    let known = !path.ends_with(".md") || headings(text).any(|heading| slug(heading) == anchor);
    (!known).then(|| format!("no heading gives #{anchor}"))
}

/// The path of `target` as seen from the file `from`; `None` outside the repository.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => _ = parts.pop()?,
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
}

/// What the usual renderers make of a heading.
fn slug(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn dead_links_are_found() {
        let text = "[a](b.md) [c](../d.rs) [e](https://x.org/y) [f](b.md#two-words) [g](#own)\n# Own\n\
            `[h](none)`\n```\n[i](none)\n```\n[j](none.md)\n[k](b.md#none)\n[l]: ../docs\n[m]: n\n[o](../../p)\n";
        let files = [("docs/a.md", text), ("docs/b.md", "## Two words!\n"), ("d.rs", "")];
        check(
            links_resolve,
            &files,
            &[
                "docs/a.md:7: link none.md: no such file",
                "docs/a.md:8: link b.md#none: no heading gives #none",
                "docs/a.md:10: link n: no such file",
                "docs/a.md:11: link ../../p: no such file",
            ],
        );
    }

    #[test]
    fn sentences_are_told_apart() {
        let text = "# Two words. One heading.\n\nOne sentence, by Li et al. 2019 (`a. B`), ends here.\nAnother one:\n\n\
            * **Title.** An item.\n  Its second sentence.\n1. A step.\n2. Another\n\n    code. In a block\n    goes on\n\n\
            | a. B | c |\n\n```\nCode. In a fence\ngoes on\n```\n";
        check(sentences_have_their_line, &[("a.md", text)], &[]);
        let text = "First. Second one.\n\nA sentence that\ngoes on.\n- An item. Two of them\n";
        check(
            sentences_have_their_line,
            &[("a.md", text)],
            &[
                "a.md:1: a second sentence begins at \"Second\"",
                "a.md:3: a sentence goes on in the next line",
                "a.md:5: a second sentence begins at \"Two\"",
            ],
        );
    }

    #[test]
    fn a_changelog_without_unreleased_is_found() {
        let why = "CHANGELOG.md: has no section `## [Unreleased]`";
        check(
            changelog_has_an_unreleased_section,
            &[("CHANGELOG.md", "# Changelog\n\n## 0.1.0\n")],
            &[why],
        );
        check(changelog_has_an_unreleased_section, &[], &[why]);
        check(changelog_has_an_unreleased_section, &[("CHANGELOG.md", "## [Unreleased]\n")], &[]);
    }
}
