//! Files that version 0.1 wrote are read by the present program.
//!
//! `tests/data/v0.1` holds what the commands below wrote at that version: `digits` are images of 8 x 8 pixels in MNIST's layout;
//! `run` is a finished run on them without its checkpoint, `begun` one that was interrupted in its second epoch, and
//! `certificate.json` what `lipconv certify` wrote for `run`; `critic` is a critic of `lipconv wasserstein`; `reproduction` holds finished cells of
//! two experiments.

use std::fs;
use std::path::Path;

use bench_apps::experiment::evaluation::EvalSummary;

use crate::command::Place;

/// Copies a folder of the stored data.
pub(crate) fn copy_dir(name: &str, to: &Path) {
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v0.1").join(name), to);
}

/// Copies a folder and all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn place() -> Place {
    let place = Place::new();
    copy_dir(".", &place.path("."));
    place
}

#[test]
fn a_network_and_a_checkpoint_are_evaluated_and_used() {
    let place = place();
    let before: EvalSummary =
        serde_json::from_slice(&fs::read(place.path("run/eval.json")).unwrap()).unwrap();
    let args =
        ["eval", "run/network.safetensors", "--dataset", "idx:digits", "--json", "after.json"];
    place
        .succeed(&[&args[..], &["--pgd-steps", "3", "--pgd-step-size", "0.3", "--quiet"]].concat());
    let after: EvalSummary =
        serde_json::from_slice(&fs::read(place.path("after.json")).unwrap()).unwrap();
    assert_eq!((after.n_samples, after.clean), (before.n_samples, before.clean));
    assert_eq!(after.data_sha256, before.data_sha256);
    // a run that has not ended
    let text = place.succeed(&["eval", "begun", "--quiet", "--pgd-steps", "3"]);
    assert!(text.starts_with("40 test images of digits"), "{text}");
    assert!(place.succeed(&["inspect", "begun"]).contains("conv2"));
    let text = place.succeed(&["predict", "begun", "--index", "3"]);
    assert!(text.contains("test image 3"), "{text}");
    place.succeed(&["export", "run/network.safetensors", "--out", "exported"]);
}

#[test]
fn a_certificate_is_verified_and_made_again() {
    let place = place();
    place.succeed(&["verify", "certificate.json", "--model", "run", "--dataset", "idx:digits"]);
    place.succeed(&["certify", "run", "--out", "again.json"]);
    place.succeed(&["verify", "again.json", "--model", "run", "--dataset", "idx:digits"]);
}

#[test]
fn an_interrupted_run_goes_on() {
    let place = place();
    place.succeed(&["train", "--resume", "begun", "--quiet"]);
    let rows = fs::read_to_string(place.path("begun/metrics.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 3);
    assert!(place.path("begun/network.safetensors").is_file());
    assert!(place.succeed(&["inspect", "begun"]).contains("trained for 3 of 3 epochs"));
}

#[test]
fn a_critic_is_used_again() {
    let place = place();
    let text = place.succeed(&[
        "wasserstein",
        "images:left",
        "images:right",
        "--critic",
        "critic/critic.safetensors",
        "--out",
        "again",
    ]);
    assert!(text.starts_with("W1(left, right) is at least "), "{text}");
}

#[test]
fn finished_cells_are_not_run_again() {
    let place = place();
    let args =
        ["reproduce", "reproduction/tiny.toml", "--quick", "--out", "reproduction", "--quiet"];
    let notes = String::from_utf8(place.run(&args).stderr).unwrap();
    assert!(notes.contains("6 cells, 6 finished before"), "{notes}");
}
