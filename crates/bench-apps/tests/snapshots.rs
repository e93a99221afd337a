//! What a person or a program reads, word for word.
//!
//! Each output is compared with a file in `tests/snapshots`; `UPDATE_SNAPSHOTS=1 cargo test -p bench-apps snapshots` writes
//! the files anew. Times, hashes, commits and versions are masked. The tables are written from cells that are stored in
//! `tests/data`, so that their numbers are the same on every machine; where something is trained, numbers are masked too.

use std::fs;
use std::path::Path;

use crate::command::Place;
use crate::yesterday::copy_dir;

/// Compares a text with the stored one, or stores it.
#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if let Some(line) = first_difference(&expected, text) {
        panic!(
            "{name} differs in line {line}, which should be\n{}\nand is\n{}\n(UPDATE_SNAPSHOTS=1 stores the new text)",
            expected.lines().nth(line - 1).unwrap_or("missing"),
            text.lines().nth(line - 1).unwrap_or("missing")
        );
    }
}

fn first_difference(a: &str, b: &str) -> Option<usize> {
    if a == b {
        return None;
    }
    let same = a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

/// Replaces the values of JSON keys that no two runs share.
fn mask_json(text: &str) -> String {
    const MASKED: [&str; 9] = [
        "seconds", "commit", "rustc", "started", "command", "platform", "version", "device",
        "threads",
    ];
    let mask = |line: &str| {
        let Some((key, value)) = line.split_once("\": ") else { return line.to_owned() };
        let name = key.trim_start().trim_start_matches('"');
        if !(MASKED.contains(&name) || name.ends_with("sha256")) || value.starts_with(['{', '[']) {
            return line.to_owned();
        }
        let comma = if line.ends_with(',') { "," } else { "" };
        format!("{key}\": …{comma}")
    };
    text.lines().map(|line| mask(line) + "\n").collect()
}

/// Replaces numbers with a decimal point, unless they are keys, and the runs of blanks that their widths decide.
fn mask_numbers(text: &str) -> String {
    let mut masked = String::new();
    let mut number = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() || (!number.is_empty() && ".e-".contains(c)) {
            number.push(c);
            continue;
        }
        let is_key = masked.ends_with('"') && c == '"';
        masked += if number.contains('.') && !is_key { "#" } else { &number };
        number.clear();
        masked.push(c);
    }
    masked.pop();
    masked
}

/// Replaces runs of blanks, and whole seconds such as "in 3 s".
fn squeeze(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        for i in 1..words.len() {
            if words[i].trim_end_matches([',', ':']) == "s" {
                words[i - 1] = "…";
            }
        }
        lines += &(words.join(" ") + "\n");
    }
    lines
}

/// The files under a folder, one a line, in order.
fn listing(dir: &Path) -> String {
    fn walk(dir: &Path, root: &Path, lines: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, lines);
            } else {
                lines.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut lines = Vec::new();
    walk(dir, dir, &mut lines);
    lines.sort();
    lines.join("\n") + "\n"
}

#[test]
fn snapshots_of_the_help_texts() {
    let place = Place::new();
    let commands: [&[&str]; 16] = [
        &[],
        &["train"],
        &["eval"],
        &["reproduce"],
        &["certify"],
        &["verify"],
        &["attack"],
        &["inspect"],
        &["predict"],
        &["bench"],
        &["export"],
        &["gan"],
        &["wasserstein"],
        &["experiment"],
        &["experiment", "run"],
        &["experiment", "list"],
    ];
    let mut text = String::new();
    for command in commands {
        text += &format!("$ lipconv {}\n\n", [command, &["--help"]].concat().join(" "));
        text += &place.succeed(&[command, &["--help"]].concat());
        text += "\n";
    }
    check("help.txt", &text);
}

#[test]
fn snapshots_of_tables_from_stored_cells() {
    let place = Place::new();
    copy_dir("reproduction", &place.path("out"));
    let names = ["out/tiny.toml", "out/tinyfig.toml", "out/tiny4.toml"];
    let text =
        place.succeed(&[&["reproduce"], &names[..], &["--collect", "--out", "out"]].concat());
    check("tables.txt", &text);
    let file = |name: &str| fs::read_to_string(place.path("out").join(name)).unwrap();
    check("report.md", &file("report.md"));
    check("results.json", &file("results.json"));
    check("distances.json", &file("distances.json"));
    let list = ["--budget", "quick", "--out", "out"];
    check("cells.txt", &place.succeed(&[&["experiment", "list"], &names[..], &list].concat()));
}

#[test]
fn snapshots_of_plans() {
    let place = Place::new();
    copy_dir("reproduction", &place.path("stored"));
    // a batch script is printed and nothing is run: the plans are written
    let slurm = ["--executor", "slurm", "--print", "--out", "out"];
    let names = ["stored/tiny.toml", "stored/tiny4.toml", "--quick", "--seeds", "0"];
    place.succeed(&[&["reproduce"], &names[..], &slurm].concat());
    let mut text = listing(&place.path("out"));
    for file in text.clone().lines().filter(|file| file.ends_with("cell.json")) {
        let plan = fs::read_to_string(place.path("out").join(file)).unwrap();
        text += &format!("\n{file}\n{plan}");
    }
    check("plans.txt", &text);
}

#[test]
fn snapshots_of_a_run_directory() {
    let place = Place::new();
    copy_dir("digits", &place.path("digits"));
    let run = [
        "train",
        "--dataset",
        "idx:digits",
        "--out",
        "run",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--quiet",
    ];
    // a run remembers its images by absolute path
    let folder = fs::canonicalize(place.path(".")).unwrap().display().to_string();
    let mut text = squeeze(&mask_numbers(&place.succeed(&run)));
    let eval = ["eval", "run", "--pgd-steps", "3", "--pgd-step-size", "0.3", "--quiet"];
    text += &squeeze(&mask_numbers(&place.succeed(&eval)));
    text += &squeeze(&mask_numbers(&place.succeed(&["inspect", "run"])));
    text += &listing(&place.path("run"));
    for name in ["config.toml", "versions.json", "data.json", "eval.json", "metrics.jsonl"] {
        let file = fs::read_to_string(place.path("run").join(name)).unwrap();
        text += &match name {
            "config.toml" => format!("\n{name}\n{}", file.replace(&folder, "…")),
            _ => format!("\n{name}\n{}", mask_numbers(&mask_json(&file))),
        };
    }
    check("run.txt", &text);
}

#[test]
fn snapshots_of_the_default_reproduction() {
    let place = Place::new();
    copy_dir("digits", &place.path("digits"));
    let run = [
        "reproduce",
        "--dataset",
        "idx:digits",
        "--out",
        "out",
        "--epochs",
        "2",
        "--batch-size",
        "16",
    ];
    let text = place
        .succeed(&[&run[..], &["--pgd-steps", "3", "--pgd-step-size", "0.3", "--quiet"]].concat());
    // the lines of the summary that give times and the machine
    let lines = text.lines().filter(|line| !line.contains("thread"));
    let mut text: String = lines.map(|line| line.to_owned() + "\n").collect();
    // which of two numbers is the best depends on the machine's arithmetic
    text = squeeze(&mask_numbers(&text)).replace("#*", "#");
    text += &listing(&place.path("out"));
    let json = fs::read_to_string(place.path("out/results.json")).unwrap();
    text += &format!("\nresults.json\n{}", mask_numbers(&mask_json(&json)));
    check("reproduce.txt", &text);
}

#[test]
fn completions_and_the_manual_know_every_command() {
    let place = Place::new();
    let help = place.succeed(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // longer descriptions go on below, further to the right
    let lines = lines.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let commands: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"train") && commands.contains(&"audit"), "{commands:?}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.succeed(&["completions", shell]);
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    let written = place.succeed(&["man", "made/man1"]);
    let pages = fs::read_dir(place.path("made/man1")).unwrap().count();
    assert_eq!(written.lines().count(), pages);
    for command in commands.iter().filter(|command| **command != "help") {
        let page = place.path(&format!("made/man1/lipconv-{command}.1"));
        let page = fs::read_to_string(page).unwrap();
        assert!(page.contains(&format!("lipconv\\-{command}")), "{command}");
    }
    assert_eq!(place.run(&["completions", "tcsh"]).status.code(), Some(2));
}
