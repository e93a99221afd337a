//! Rules about source text.

use super::code::{code_only, lines_outside_tests, words};
use super::tree::{LIBRARIES, Tree, is_test_file};
use super::{Finding, spelling};

/// A file longer than this usually hides two.
const MAX_LINES: usize = 600;
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

/// No file but those of tests is long.
pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let sized = tree.rust_files().map(|(path, text)| (path, text.lines().count()));
    let long = sized.filter(|&(path, n_lines)| n_lines > MAX_LINES && !is_test_file(path));
    long.map(|(path, n_lines)| {
        Finding::new(path, 0, format!("{n_lines} lines, at most {MAX_LINES}"))
    })
    .collect()
}

/// No blanks at line ends, no tabs in Rust, one line break at the end of a file.
pub(super) fn whitespace_is_clean(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts(TEXT) {
        for (line_idx, line) in text.split('\n').enumerate() {
            if line != line.trim_end() {
                findings.push(Finding::new(path, line_idx + 1, "blanks at the end of the line"));
            }
            if path.ends_with(".rs") && line.contains('\t') {
                findings.push(Finding::new(path, line_idx + 1, "a tab"));
            }
        }
        let ends_well = text.is_empty() || (text.ends_with('\n') && !text.ends_with("\n\n"));
        if !ends_well {
            findings.push(Finding::new(path, 0, "does not end with exactly one line break"));
        }
    }
    findings
}

/// No reminders, no switched-off tests, and in libraries nothing unwritten.
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
        let code = code_only(text);
        for (line_idx, line) in code.lines().enumerate() {
            if line.contains("#[ignore") {
                findings.push(Finding::new(path, line_idx + 1, "a test that is switched off"));
            }
            let unwritten = ["todo", "unimplemented", "dbg"]
                .into_iter()
                .filter(|name| is_library(path) && calls(line, name));
            findings.extend(
                unwritten
                    .map(|name| Finding::new(path, line_idx + 1, format!("{name}! in a library"))),
            );
        }
    }
    findings
}

/// Libraries return values and call back; only tests of theirs may print, why they skip.
pub(super) fn libraries_do_not_print(tree: &Tree) -> Vec<Finding> {
    library_code(tree, |line| {
        let printing = ["println", "print", "eprintln", "eprint"]
            .into_iter()
            .find(|name| calls(line, name))?;
        Some(format!("{printing}! in a library"))
    })
}

/// What libraries compute depends on arguments and seeds alone.
pub(super) fn libraries_have_no_clock(tree: &Tree) -> Vec<Finding> {
    library_code(tree, |line| {
        let clock = words(line).find(|word| ["Instant", "SystemTime"].contains(word))?;
        Some(format!("{clock} in a library: only bench-apps and xtask have clocks"))
    })
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

fn is_library(path: &str) -> bool {
    LIBRARIES.iter().any(|folder| path.starts_with(folder))
}

/// One finding for each line of library code, tests and examples left out, that the rule objects to.
fn library_code(tree: &Tree, rule: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust_files() {
        let shipped = is_library(path) && path.contains("/src/") && !is_test_file(path);
        if !shipped {
            continue;
        }
        for (line, code) in lines_outside_tests(&code_only(text)) {
            findings.extend(rule(code).map(|message| Finding::new(path, line, message)));
        }
    }
    findings
}

/// Whether the line of code uses the macro.
fn calls(line: &str, macro_name: &str) -> bool {
    let call = format!("{macro_name}!");
    line.match_indices(&call).any(|(at, _)| !line[..at].ends_with(spelling::is_word_char))
}

/// Whether the line has `/folder` as the beginning of a path, not as a part of one or of an address.
fn names_absolute(line: &str, folder: &str) -> bool {
    let beginning = format!("/{folder}");
    line.match_indices(&beginning).any(|(at, _)| {
        let part_of_path = |c: char| spelling::is_word_char(c) || "./-~})".contains(c);
        let after = &line[at + beginning.len()..];
        !line[..at].ends_with(part_of_path)
            && !after.starts_with(|c| spelling::is_word_char(c) || c == '-')
    })
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
    fn a_long_file_is_found_unless_it_is_tests() {
        let long = "x\n".repeat(MAX_LINES + 1);
        let files =
            [("a.rs", long.as_str()), ("b/tests.rs", &long), ("c.rs", &long[2..]), ("d.md", &long)];
        check(files_are_short, &files, &["a.rs: 601 lines, at most 600"]);
    }

    #[test]
    fn stray_whitespace_is_found() {
        let files = [
            ("a.rs", "x \n\ty\n"),
            ("b.md", "x\n\n"),
            ("c.toml", "x"),
            ("d.rs", "x\ny\n"),
            ("e.md", "x\r\n"),
        ];
        check(
            whitespace_is_clean,
            &files,
            &[
                "a.rs:1: blanks at the end of the line",
                "a.rs:2: a tab",
                "b.md: does not end with exactly one line break",
                "c.toml: does not end with exactly one line break",
                "e.md:1: blanks at the end of the line",
            ],
        );
    }

    #[test]
    fn what_is_left_behind_is_found() {
        let reminder = format!("// {}: later\n", concat!("FIX", "ME"));
        let files = [
            (
                "crates/lipconv/src/a.rs",
                "fn f() { todo!() }\nfn g() { \"todo!()\"; }\n// todo!()\n",
            ),
            ("crates/lipconv/tests/b.rs", "fn f() { dbg!(1); }\n"),
            ("xtask/src/c.rs", "fn f() { todo!() }\n"),
            ("xtask/src/d.rs", &reminder),
            ("xtask/src/e.rs", "#[test]\n#[ignore]\nfn f() {}\n"),
        ];
        check(
            nothing_is_left_behind,
            &files,
            &[
                "crates/lipconv/src/a.rs:1: todo! in a library",
                "crates/lipconv/tests/b.rs:1: dbg! in a library",
                &format!("xtask/src/d.rs:1: {} is left behind", concat!("FIX", "ME")),
                "xtask/src/e.rs:2: a test that is switched off",
            ],
        );
    }

    #[test]
    fn printing_is_found_in_libraries_alone() {
        let text = "fn f() { println!(\"x\"); }\n/// println!(\"doc\")\n#[cfg(test)]\nmod tests {\n    fn g() { eprintln!() }\n}\n";
        let files = [
            ("crates/certify/src/a.rs", text),
            ("crates/certify/examples/b.rs", text),
            ("crates/certify/src/tests.rs", text),
            ("crates/bench-apps/src/c.rs", text),
        ];
        check(
            libraries_do_not_print,
            &files,
            &["crates/certify/src/a.rs:1: println! in a library"],
        );
        let own = [("crates/certify/src/a.rs", "fn f() { my_print!(1); eprint!(2); }\n")];
        check(libraries_do_not_print, &own, &["crates/certify/src/a.rs:1: eprint! in a library"]);
    }

    #[test]
    fn clocks_are_found_in_libraries_alone() {
        let text = "use std::time::Instant;\n";
        let files = [("crates/lipconv/src/a.rs", text), ("crates/bench-apps/src/a.rs", text)];
        let why = "Instant in a library: only bench-apps and xtask have clocks";
        check(libraries_have_no_clock, &files, &[&format!("crates/lipconv/src/a.rs:1: {why}")]);
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
