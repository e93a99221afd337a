//! The book of `docs/book`: every command in it runs, chapter by chapter, in the order of the table of contents.
//!
//! A block marked `sh` holds commands of lipconv, one a line, without anything that only a shell understands. They run one after the other in a folder
//! that begins as a copy of `docs/book/files`. A line ends with `# exit status N` where it must fail; an error that the next block of output
//! shows is compared, and `…` in it stands for anything. What a test cannot run is marked `sh,not-run`: its flags are read, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::Place;
use crate::yesterday::copy;

/// What only a shell understands.
const SHELL: [char; 11] = ['\'', '"', '$', '>', '<', '|', '&', ';', '*', '\\', '#'];

/// A line of a block of commands.
struct Line<'t> {
    /// Chapter and line, for messages.
    at: String,
    words: Vec<&'t str>,
    /// How it must end.
    status: i32,
    is_run: bool,
    /// The error that the book shows.
    error: Option<&'t str>,
}

impl<'t> Line<'t> {
    fn new(at: String, text: &'t str, is_run: bool) -> Self {
        let (command, status) = text.split_once(" # exit status ").unwrap_or((text, "0"));
        let words = command.split_whitespace().collect();
        Self { at, words, status: status.parse().unwrap(), is_run, error: None }
    }
}

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/book")
}

/// The chapters of the table of contents, in its order.
fn chapters() -> Vec<String> {
    let summary = fs::read_to_string(book().join("src/SUMMARY.md")).unwrap();
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    links.map(str::to_owned).collect()
}

/// The lines of a chapter's blocks of commands.
fn commands<'t>(chapter: &str, text: &'t str) -> Vec<Line<'t>> {
    let mut lines: Vec<Line<'t>> = Vec::new();
    let mut block = None;
    for (line_idx, line) in text.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            block = block.is_none().then_some(kind);
            continue;
        }
        match block {
            Some(kind @ ("sh" | "sh,not-run")) => {
                let at = format!("{chapter}:{}", line_idx + 1);
                lines.push(Line::new(at, line, kind == "sh"));
            }
            Some("text") if line.starts_with("error: ") => {
                if let Some(last) = lines.last_mut() {
                    last.error.get_or_insert(line);
                }
            }
            _ => {}
        }
    }
    lines
}

/// Runs a line, or has its flags read; what is wrong with it, if anything.
fn problem(place: &Place, line: &Line<'_>) -> Option<String> {
    let ["lipconv", args @ ..] = &line.words[..] else {
        return line.is_run.then(|| "expected a command of lipconv".to_owned());
    };
    if let Some(word) = args.iter().find(|word| word.contains(SHELL)) {
        return Some(format!("only a shell understands {word}"));
    }
    let (output, expected) = if line.is_run {
        (place.run(args), line.status)
    } else {
        (place.run(&[args, &["--help"]].concat()), 0)
    };
    let folder = fs::canonicalize(place.path(".")).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.replace(&format!("{}/", folder.display()), "");
    if output.status.code() != Some(expected) {
        return Some(format!("{}, expected exit status {expected}: {text}", output.status));
    }
    let shown = line.error.filter(|_| line.is_run)?;
    let said = text.lines().find(|line| line.starts_with("error: ")).unwrap_or("no error");
    (!fits(said, shown)).then(|| format!("says\n{said}\nwhere the book has\n{shown}"))
}

/// Whether a text is the pattern, in which `…` stands for anything.
fn fits(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.is_empty() || pattern.ends_with('…')
}

/// A folder with the files that the book's commands take.
fn place() -> Place {
    let place = Place::new();
    copy(&book().join("files"), &place.path("."));
    place
}

#[test]
fn every_command_of_the_book_runs() {
    let mut problems = Vec::new();
    let mut n_run = 0;
    for chapter in chapters() {
        let text = fs::read_to_string(book().join("src").join(&chapter)).unwrap();
        let place = place();
        for line in commands(&chapter, &text) {
            n_run += usize::from(line.is_run);
            let found = problem(&place, &line);
            problems.extend(found.map(|problem| format!("{}: {problem}", line.at)));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    assert!(n_run > 40, "{n_run} commands were found: are the blocks still marked sh?");
}

#[test]
fn every_chapter_is_in_the_table_of_contents() {
    let files = fs::read_dir(book().join("src")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut written: Vec<String> =
        names.filter(|name| name.ends_with(".md") && name != "SUMMARY.md").collect();
    let mut listed = chapters();
    written.sort();
    listed.sort();
    assert_eq!(listed, written);
}

#[test]
fn a_line_of_the_book_that_does_not_hold_is_reported() {
    let text = "```sh\nlipconv import softplus.onnx\n\
        lipconv import softplus.onnx # exit status 1\n```\n```text\nerror: cannot import …: Tanh\n```\n\
        ```sh\nlipconv import softplus.onnx > log\nls\n```\n\
        ```sh,not-run\nlipconv train --device abacus\nlipconv train --device cuda\nls\n```\n";
    let place = place();
    let found = commands("a.md", text);
    let found: Vec<_> =
        found.iter().map(|line| (line.at.as_str(), problem(&place, line))).collect();
    let parts = [
        ("a.md:2", "exit status: 1, expected exit status 0: error: cannot import softplus.onnx"),
        ("a.md:3", "where the book has\nerror: cannot import …: Tanh"),
        ("a.md:9", "only a shell understands >"),
        ("a.md:10", "expected a command of lipconv"),
        ("a.md:13", "exit status: 2, expected exit status 0: error: invalid value 'abacus'"),
    ];
    let mut problems = found.iter().filter_map(|(at, problem)| Some((*at, problem.as_deref()?)));
    for (at, part) in parts {
        let (found_at, problem) = problems.next().unwrap();
        assert!(found_at == at && problem.contains(part), "{found_at}: {problem}");
    }
    assert_eq!((problems.next(), found.len()), (None, 7));
}
