//! The history of a run, and what an interruption leaves of it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use bench_apps::Error;
use bench_apps::files::{EpochMetrics, JsonLines, read_lines};

fn row(epoch: usize) -> EpochMetrics {
    EpochMetrics {
        epoch,
        step: 10 * epoch as u64,
        loss: 1.0 / epoch as f64,
        ..EpochMetrics::default()
    }
}

fn rows(path: &Path) -> Vec<EpochMetrics> {
    read_lines(path).unwrap()
}

/// For a run that stands at `step`.
fn open_at(path: &Path, step: u64) -> JsonLines<EpochMetrics> {
    JsonLines::open(path, |row: &EpochMetrics| row.step <= step).unwrap()
}

#[test]
fn rows_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    assert!(rows(&path).is_empty());
    let mut log = open_at(&path, 0);
    let mut full = row(1);
    full.test_clean = Some(96.5);
    full.test_certified = Some([("1.58".parse().unwrap(), 40.1)].into_iter().collect());
    for row in [&full, &row(2), &row(3)] {
        log.push(row).unwrap();
    }
    assert_eq!(rows(&path), [full, row(2), row(3)]);
    let second = fs::read_to_string(&path).unwrap().lines().nth(1).unwrap().to_owned();
    assert!(!second.contains("test_clean"), "what was not measured is absent: {second}");
}

#[test]
fn resuming_drops_what_lies_after_the_checkpoint_and_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut log = open_at(&path, 0);
    (1..=3).for_each(|epoch| log.push(&row(epoch)).unwrap());
    drop(log);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"epoch\":4,\"st").unwrap();
    assert_eq!(rows(&path).len(), 3);
    // the checkpoint was taken in the middle of epoch 3
    let mut log = open_at(&path, 25);
    assert_eq!(rows(&path), [row(1), row(2)]);
    log.push(&row(3)).unwrap();
    assert_eq!(rows(&path), [row(1), row(2), row(3)]);
}

#[test]
fn a_damaged_line_in_the_middle_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let good = serde_json::to_string(&row(1)).unwrap();
    fs::write(&path, format!("{good}\nnonsense\n{good}\n")).unwrap();
    let error = read_lines::<EpochMetrics>(&path).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }));
    assert!(error.to_string().starts_with(&format!("{}: line 2: ", path.display())), "{error}");
}
