//! Mistyped names, and results that are no results: said, and never status 0 for something else than was asked for.

use std::fs;

use bench_apps::jobs::job::{Job, State};
use bench_apps::jobs::spec::names;
use serde_json::Value;

use super::one_cell;
use crate::command::Place;
use crate::yesterday::copy_dir;

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("e.toml"), one_cell("quick", 1, 64)).unwrap();
    place
}

#[test]
fn a_name_of_only_that_no_cell_has_is_refused() {
    let place = place();
    for (args, wrong, known) in [
        (&["e.toml", "--quick", "--only", "nope"][..], "nope", "bcop"),
        (&["e.toml", "--quick", "--only", "bcop,rk0"], "rk0", "bcop"),
        (&["e.toml", "--collect", "--only", "BCOP"], "BCOP", "bcop"),
        (
            &["table1", "--quick", "--only", "bcop,rk0"],
            "rk0",
            "ossn, rko, svcm, bcop, bcop-fixed, rk-l2ne",
        ),
        (&["table4", "e.toml", "--quick", "--only", "svcm"], "svcm", "ossn, rko, bcop"),
    ] {
        let text = place.fail(&[&["reproduce"], args, &["--out", "out"]].concat());
        let expected = "expected methods of the cells that are asked for";
        assert_eq!(text, format!("error: --only has {wrong:?}, {expected}: {known}"));
    }
    assert!(!place.path("out").exists());
}

#[test]
fn experiments_of_one_name_are_refused_unless_they_are_the_same() {
    let place = place();
    fs::write(place.path("same.toml"), one_cell("quick", 1, 64)).unwrap();
    fs::write(place.path("other.toml"), one_cell("quick", 2, 64)).unwrap();
    for command in [
        &["reproduce", "--quick", "--out", "out"][..],
        &["reproduce", "--collect", "--out", "out"],
        &["experiment", "list", "--out", "out"],
    ] {
        let text = place.fail(&[command, &["e.toml", "other.toml"]].concat());
        let expected = "error: e.toml and other.toml are different experiments of one name, \"one\", expected a name for each";
        assert_eq!(text, expected);
    }
    let list = ["experiment", "list", "e.toml", "e.toml", "same.toml", "--budget", "quick"];
    let text = place.succeed(&[&list[..], &["--out", "out"]].concat());
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(!place.path("out").exists());
}

#[test]
fn cells_that_keep_their_seeds_are_named() {
    let place = place();
    let methods = "methods = [\"bcop\"]";
    let own = one_cell("quick", 1, 64).replace(methods, &format!("{methods}\nseeds = [3]"));
    fs::write(place.path("own.toml"), own).unwrap();
    let notes = |experiment: &str, seeds: &str| {
        let args = ["reproduce", experiment, "--quick", "--seeds", seeds, "--out", "out"];
        let output = place.run(&[&args[..], &["--executor", "slurm", "--print"]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let text = notes("own.toml", "7");
    let note =
        "note: one: the cells of [[cells]] 1 keep their own seeds [3]; [7] are not for them\n";
    assert!(text.contains(note), "{text}");
    assert!(place.path("out/cells/quick/synthetic-small-bcop-seed3").is_dir());
    assert!(!notes("own.toml", "3").contains("own seeds"));
    assert!(!notes("e.toml", "7").contains("own seeds"));
    assert!(place.path("out/cells/quick/synthetic-small-bcop-seed7").is_dir());
    let text = notes("table4", "7");
    assert!(text.contains("note: table4: the anchors keep their own seeds [0]; [7]"), "{text}");
}

#[test]
fn the_help_names_every_experiment_and_a_task_has_a_core() {
    let place = place();
    for command in [&["reproduce", "--help"][..], &["experiment", "list", "--help"]] {
        let text = place.succeed(command);
        let words: Vec<&str> =
            text.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        for name in names() {
            assert!(words.contains(&name), "{name}: {text}");
        }
    }
    let args = ["reproduce", "e.toml", "--quick", "--out", "out", "--executor", "slurm"];
    let output = place.run(&[&args[..], &["--print", "--cpus", "0"]].concat());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("invalid value '0' for '--cpus <N>'"), "{text}");
    assert!(!place.path("out").exists());
}

/// One job of each kind.
const JOBS: [&str; 5] = [
    "cells/quick/mnist-small-bcop-seed0",
    "cells/quick/cifar10-kw-small-published-seed0",
    "distances/quick/anchors",
    "distances/quick/images_left-32px-generator",
    "distances/quick/images_left-32px-rko-relu-seed1",
];

#[test]
fn a_damaged_result_counts_as_none_and_one_that_cannot_be_opened_does_not() {
    let dir = tempfile::tempdir().unwrap();
    copy_dir("reproduction", dir.path());
    for name in JOBS {
        let folder = dir.path().join(name);
        let job = Job::read(&folder).unwrap();
        assert!(matches!(job.state(&folder), Ok(State::Finished(_))), "{name}");
        let path = folder.join("result.json");
        let whole = fs::read(&path).unwrap();
        for bytes in
            [&whole[..whole.len() / 2], &b""[..], &b"\xff\xfe"[..], &b"{}"[..], &b"null"[..]]
        {
            fs::write(&path, bytes).unwrap();
            assert!(job.result(&folder).unwrap().is_none(), "{name}");
            match job.state(&folder).unwrap() {
                State::Damaged(error) => assert!(error.to_string().contains("result.json")),
                state => panic!("{name}: {state:?}"),
            }
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(job.state(&folder), Ok(State::Missing)), "{name}");
        fs::create_dir(&path).unwrap();
        assert!(job.result(&folder).is_err(), "{name}");
    }
}

#[test]
fn a_damaged_result_is_named_by_list_and_by_collect() {
    let place = Place::new();
    copy_dir("reproduction", &place.path("out"));
    for (experiment, cell) in [("out/tiny.toml", JOBS[0]), ("out/tiny4.toml", JOBS[4])] {
        let collect = || place.run(&["reproduce", experiment, "--collect", "--out", "out"]);
        // whatever is the matter with cells of other experiments
        let output = collect();
        assert!(output.status.success(), "{output:?}");
        let path = place.path("out").join(cell).join("result.json");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let list = ["experiment", "list", experiment, "--budget", "quick", "--out", "out"];
        let text = place.succeed(&list);
        let id = cell.rsplit('/').next().unwrap();
        let (damaged, others): (Vec<&str>, Vec<&str>) =
            text.lines().skip(1).partition(|line| line.contains(id));
        assert!(damaged.len() == 1 && damaged[0].contains("  unreadable: "), "{text}");
        assert!(others.len() > 4 && others.iter().all(|l| l.ends_with("  finished")), "{text}");
        let output = collect();
        let notes = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{notes}");
        assert!(notes.contains(&format!("note: left out: out/{cell}/result.json: ")), "{notes}");
        assert!(notes.contains("error: 1 result cannot be read; "), "{notes}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_damaged_result_is_made_again_from_its_own_training() {
    let place = place();
    let args = ["reproduce", "e.toml", "--quick", "--out", "out", "--quiet"];
    place.succeed(&args);
    let folder = place.path("out/cells/quick/synthetic-small-bcop-seed0");
    let path = folder.join("result.json");
    let checkpoint = || fs::read(folder.join("run/checkpoint.safetensors")).unwrap();
    let (whole, before) = (fs::read(&path).unwrap(), checkpoint());
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let output = place.run(&args);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(notes.contains("note: made again: out/cells/quick/"), "{notes}");
    assert!(notes.contains("1 cell, 0 finished before"), "{notes}");
    assert!(super::result(&folder).is_some() && checkpoint() == before);
    // by the worker alone
    fs::write(&path, b"\xff").unwrap();
    place.succeed(&["experiment", "run", folder.to_str().unwrap()]);
    assert!(super::result(&folder).is_some() && checkpoint() == before);
}

#[test]
fn the_spectrum_before_training_is_that_of_the_network_which_training_begins_with() {
    let place = Place::new();
    fs::write(place.path("c.toml"), "init_from = \"first/run\"\n").unwrap();
    let args = [
        "reproduce",
        "--dataset",
        "synthetic",
        "--layer",
        "unconstrained",
        "--train-limit",
        "64",
        "--test-limit",
        "20",
        "--epochs",
        "1",
        "--batch-size",
        "32",
        "--pgd-steps",
        "2",
        "--pgd-step-size",
        "0.3",
        "--quiet",
        "--out",
    ];
    let second = [&args[..], &["second", "--config", "c.toml"]].concat();
    place.succeed(&[&args[..], &["first"]].concat());
    place.succeed(&second);
    let range = |out: &str, when: &str| {
        let bytes = fs::read(place.path(out).join("result.json")).unwrap();
        let result: Value = serde_json::from_slice(&bytes).unwrap();
        let spectrum = &result["spectra"][when];
        [&spectrum["min"], &spectrum["max"]].map(|value| value.as_f64().unwrap())
    };
    assert_eq!(range("second", "initial"), range("first", "trained"));
    assert_ne!(range("second", "initial"), range("first", "initial"));
    fs::rename(place.path("first"), place.path("gone")).unwrap();
    let text = place.fail(&second);
    assert!(text.starts_with("error: init_from is ") && text.contains("first/run, "), "{text}");
    assert!(text.contains("is not a run directory: "), "{text}");
}
