//! Rules about source text.

use super::Finding;
use crate::code::words;
use crate::tree::Tree;

/// A file longer than this usually hides two.
const MAX_LINES: usize = 500;
/// Modules that still have the other form.
const OLD_FORM: &[&str] = &["crates/lipconv/src/engine/cuda/mod.rs"];
/// The kinds of file that people write.
const TEXT: &[&str] = &[".rs", ".md", ".toml", ".py", ".sh", ".yml", ".ci/run"];

/// Every `.rs` opens with `//!`, or with a page that it includes: what the file is about.
pub(super) fn module_docs_come_first(tree: &Tree) -> Vec<Finding> {
    let has_doc =
        |text: &str| text.starts_with("//! ") || text.starts_with("#![doc = include_str!(");
    let bare = tree.rust_files().filter(|(_, text)| !has_doc(text));
    bare.map(|(path, _)| Finding::new(path, 1, "opens without a //! sentence on what it is"))
        .collect()
}

/// No file is long, whether it ships or tests.
pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let sized = tree.rust_files().map(|(path, text)| (path, text.lines().count()));
    let long = sized.filter(|&(_, n_lines)| n_lines > MAX_LINES);
    long.map(|(path, n_lines)| {
        Finding::new(path, 0, format!("{n_lines} lines, at most {MAX_LINES}"))
    })
    .collect()
}

/// One form of modules: `a.rs` beside the folder `a`, so that no two files have one name.
pub(super) fn modules_have_named_files(tree: &Tree) -> Vec<Finding> {
    let others = |path: &&str| path.ends_with("/mod.rs") && !OLD_FORM.contains(path);
    let found = tree.rust_files().map(|(path, _)| path).filter(others);
    found.map(|path| Finding::new(path, 0, "expected a file with its module's name")).collect()
}

/// No reminders: what is to be done is an issue or done.
pub(super) fn nothing_is_left_behind(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust_files() {
        for (line_idx, line) in text.lines().enumerate() {
            // spelled in two parts, because this file is looked at too
            for reminder in [concat!("FIX", "ME"), concat!("XX", "X")] {
                if words(line).any(|word| word == reminder) {
                    findings.push(Finding::new(
                        path,
                        line_idx + 1,
                        format!("{reminder} is left behind"),
                    ));
                }
            }
        }
    }
    findings
}

/// Nothing names a folder of somebody's machine.
pub(super) fn paths_are_relative(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(TEXT) {
        for (line_idx, line) in text.lines().enumerate() {
            let named = ["home", "root", "work", "Users"]
                .into_iter()
                .find(|folder| names_absolute(line, folder));
            let message = |folder| format!("names a folder of one machine (/{folder})");
            findings.extend(named.map(|folder| Finding::new(path, line_idx + 1, message(folder))));
        }
    }
    findings
}

/// Whether the line has `/folder` as the beginning of a path, not as a part of one or of an address.
fn names_absolute(line: &str, folder: &str) -> bool {
    let beginning = format!("/{folder}");
    line.match_indices(&beginning).any(|(at, _)| {
        let part_of_path = |c: char| is_word_char(c) || "./-~})".contains(c);
        let after = &line[at + beginning.len()..];
        !line[..at].ends_with(part_of_path) && !after.starts_with(|c| is_word_char(c) || c == '-')
    })
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_missing_module_doc_is_found() {
        let files = [
            ("a.rs", "//! What it is.\n"),
            ("b.rs", "use x;\n//! late\n"),
            ("c.rs", "//!\n"),
            ("d.rs", ""),
        ];
        let why = "opens without a //! sentence on what it is";
        check(
            module_docs_come_first,
            &files,
            &[&format!("b.rs:1: {why}"), &format!("c.rs:1: {why}"), &format!("d.rs:1: {why}")],
        );
    }

    #[test]
    fn a_long_file_is_found() {
        let long = "x\n".repeat(MAX_LINES + 1);
        let files = [
            ("a.rs", long.as_str()),
            ("b/tests/c.rs", &long),
            ("c.rs", &long[2..]),
            ("d.md", &long),
        ];
        let why = "501 lines, at most 500";
        check(files_are_short, &files, &[&format!("a.rs: {why}"), &format!("b/tests/c.rs: {why}")]);
    }

    #[test]
    fn a_module_without_a_name_is_found() {
        let files = [("a/src/b.rs", ""), ("a/src/b/mod.rs", ""), ("a/src/b/c.rs", "")];
        let expected = "a/src/b/mod.rs: expected a file with its module's name";
        check(modules_have_named_files, &files, &[expected]);
    }

    #[test]
    fn what_is_left_behind_is_found() {
        let reminder = format!("// {}: later\n", concat!("FIX", "ME"));
        check(
            nothing_is_left_behind,
            &[("xtask/src/d.rs", &reminder), ("a.rs", "fn fixme() {}\n")],
            &[&format!("xtask/src/d.rs:1: {} is left behind", concat!("FIX", "ME"))],
        );
    }

    #[test]
    fn folders_of_one_machine_are_found() {
        let text = |folder: &str| format!("see `/{folder}/me/x`\n");
        let (home, root) = (text("home"), text("root"));
        let fine =
            "https://example.org/home/x, a/work/b, ../work, /workspace, {x}/root, /working\n";
        let found = |path: &str, folder: &str| {
            format!("{path}:1: names a folder of one machine ({}{folder})", '/')
        };
        check(
            paths_are_relative,
            &[("a.md", &home), ("b.rs", &root), ("c.md", fine)],
            &[&found("a.md", "home"), &found("b.rs", "root")],
        );
    }
}
