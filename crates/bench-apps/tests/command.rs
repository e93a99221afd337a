//! The built command, run as a person would run it, on a small set of synthetic digits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bench_apps::config::{Method, Net};
use bench_apps::files::RunDir;
use bench_apps::results::ResultRow;
use certify::LogitBound;
use serde_json::Value;
use tempfile::TempDir;

use crate::interruption::timeless;
#[cfg(unix)]
use crate::interruption::{INTERRUPT, is_ignored};

/// A folder for one test, and the command with nothing of the machine's environment that matters.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lipconv"));
        command
            .current_dir(self.dir.path())
            .args(["--threads", "2"])
            .args(args)
            .env_remove("LIPCONV_DATA")
            .env("LIPCONV_OFFLINE", "1")
            .env("XDG_CACHE_HOME", self.path("cache"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn succeed(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line of a command that must fail with status 1, without the folder's name.
    #[track_caller]
    pub(crate) fn fail(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        let errors: Vec<&str> = text.lines().filter(|line| !line.starts_with("note: ")).collect();
        assert_eq!(errors.len(), 1, "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
        errors[0].replace(&format!("{}/", self.dir.path().display()), "")
    }

    /// What bash makes of a line in which `$L` is the command.
    #[cfg(unix)]
    pub(crate) fn shell(&self, line: &str) -> Output {
        let program = self.command(&[]).get_program().to_owned();
        let mut command = Command::new("bash");
        command.arg("-c").arg(line).current_dir(self.path(".")).env("L", program);
        command.env_remove("LIPCONV_DATA").env("LIPCONV_OFFLINE", "1").output().unwrap()
    }
}

/// A short run: 600 images, 3 epochs, 57 steps.
const SHORT: [&str; 12] = [
    "train",
    "--dataset",
    "synthetic",
    "--train-limit",
    "600",
    "--test-limit",
    "200",
    "--epochs",
    "3",
    "--batch-size",
    "32",
    "--quiet",
];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(more).copied().collect()
}

#[test]
fn a_run_is_trained_evaluated_inspected_and_used() {
    let place = Place::new();
    let text = place.succeed(&short(&["--out", "run"]));
    assert!(
        text.contains("(synthetic digits)")
            && text.ends_with("evaluate it with: lipconv eval run\n"),
        "{text}"
    );
    for file in [
        "config.toml",
        "versions.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "network.safetensors",
        "log.txt",
    ] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    assert_eq!(fs::read_to_string(place.path("run/metrics.jsonl")).unwrap().lines().count(), 3);
    check_eval(&place);
    crate::nearest::check_auto_attack(&place);
    check_inspect(&place);
    check_predict(&place);
    crate::certificates::check_certificates(&place);
    crate::certificates::check_audit(&place);
    crate::certificates::check_attacks(&place);
    let text = place.fail(&short(&["--out", "run"]));
    assert_eq!(
        text,
        "error: run already holds a run; resume it (--resume) or choose another folder"
    );
}

fn check_eval(place: &Place) {
    let args = ["eval", "run", "--pgd-steps", "5", "--pgd-step-size", "0.3", "--quiet"];
    let text = place.succeed(&args);
    assert!(text.starts_with("200 test images of synthetic digits"), "{text}");
    assert!(text.contains("under PGD at 1.58") && text.contains("executed, f64 sums"), "{text}");
    let json = fs::read_to_string(place.path("run/eval.json")).unwrap();
    let eval: bench_apps::experiment::evaluation::EvalSummary =
        serde_json::from_str(&json).unwrap();
    assert!(eval.synthetic && eval.n_samples == 200);
    let at = |by_eps: &bench_apps::ByEps| by_eps.get("1.58").unwrap();
    let executed = at(&eval.certified.executed);
    for (lower, upper) in [
        (executed, at(&eval.certified.real)),
        (executed, at(&eval.attacks["pgd"])),
        (executed, at(&eval.attacks["fgsm"])),
        (at(&eval.attacks["pgd"]), eval.clean),
        (at(&eval.attacks["fgsm"]), eval.clean),
    ] {
        assert!(lower <= upper, "{lower} {upper}");
    }
    assert!(eval.lipschitz >= 1.0 - 1e-4 && eval.lipschitz < 1.0 + 1e-3, "{}", eval.lipschitz);
    // the network on its own says the same as the checkpoint
    let same = place.succeed(&[
        "eval",
        "run/network.safetensors",
        "--dataset",
        "synthetic",
        "--test-limit",
        "200",
        "--json",
        "again.json",
        "--pgd-steps",
        "5",
        "--pgd-step-size",
        "0.3",
        "--quiet",
    ]);
    assert!(same.contains("written to again.json"));
    let again: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("again.json")).unwrap()).unwrap();
    assert_eq!(again["clean"].as_f64(), Some(eval.clean));
    assert_eq!(again["attacks"]["pgd"]["1.58"].as_f64(), Some(at(&eval.attacks["pgd"])));
}

fn check_inspect(place: &Place) {
    let text = place.succeed(&["inspect", "run"]);
    assert!(text.contains("trained for 3 of 3 epochs"), "{text}");
    let row = text.lines().find(|line| line.starts_with("conv2")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[1..13].concat(), "32x7x732x64x2x2");
    let sigmas: Vec<f64> = cells[14..16].iter().map(|cell| cell.parse().unwrap()).collect();
    assert!(sigmas.iter().all(|s| (s - 1.0).abs() < 1e-4), "{row}");
}

fn check_predict(place: &Place) {
    let image = image::GrayImage::from_fn(56, 56, |x, y| {
        image::Luma([if (20..36).contains(&x) && y > 4 { 0 } else { 255 }])
    });
    image.save(place.path("one.png")).unwrap();
    let text = place.succeed(&["predict", "run", "one.png", "--invert", "--index", "3"]);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 3, "{text}");
    assert!(rows[1].starts_with("one.png ") && rows[2].starts_with("test image 3, a 3 "), "{text}");
    let cells: Vec<&str> = rows[1].split_whitespace().collect();
    let (radius, nominal): (f64, f64) = (cells[2].parse().unwrap(), cells[3].parse().unwrap());
    assert!(radius <= nominal && nominal > 0.0, "{text}");
    let text = place.fail(&["predict", "run", "run/config.toml"]);
    assert!(text.starts_with("error: run/config.toml: not an image, expected PNG"), "{text}");
    // the run was evaluated on 200 of them
    let text = place.succeed(&["predict", "run", "--index", "250"]);
    assert!(text.lines().nth(1).unwrap().starts_with("test image 250, a "), "{text}");
    let text = place.fail(&["predict", "run", "--index", "10000"]);
    assert_eq!(
        text,
        "error: --index is 10000, expected less than 10000, the number of test images of synthetic digits"
    );
}

/// Starts a run that writes a checkpoint after every step.
fn start(place: &Place, out: &str) -> Child {
    let args = short(&["--out", out, "--checkpoint-every", "0"]);
    place.command(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until the run has saved a step past the first epoch.
fn wait_for_second_epoch(place: &Place, out: &str) {
    let (metrics, clock) =
        (place.path(out).join("metrics.jsonl"), place.path(out).join("clock.json"));
    let start = Instant::now();
    let begun = || {
        let text = fs::read_to_string(&clock).unwrap_or_default();
        let step = serde_json::from_str::<Value>(&text).ok()?["step"].as_u64()?;
        (step > 22 && metrics.is_file()).then_some(())
    };
    while begun().is_none() {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint after two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn weights(place: &Place, out: &str) -> Vec<u8> {
    fs::read(place.path(out).join("network.safetensors")).unwrap()
}

/// History without the times.
fn history(place: &Place, out: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
    let row = |line: &str| {
        let mut row = serde_json::from_str(line).unwrap();
        timeless(&mut row);
        row
    };
    text.lines().map(row).collect()
}

#[cfg(unix)]
#[test]
fn a_run_that_was_killed_or_interrupted_ends_with_the_same_weights_to_the_bit() {
    let place = Place::new();
    place.succeed(&short(&["--out", "whole"]));

    let mut child = start(&place, "killed");
    wait_for_second_epoch(&place, "killed");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !place.path("killed/network.safetensors").exists(),
        "the run ended before it could be killed"
    );
    place.succeed(&["train", "--resume", "killed", "--quiet"]);
    assert!(weights(&place, "killed") == weights(&place, "whole"), "weights differ after kill -9");
    assert_eq!(history(&place, "killed"), history(&place, "whole"));

    if is_ignored(INTERRUPT) {
        return;
    }
    let child = start(&place, "stopped");
    wait_for_second_epoch(&place, "stopped");
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(
        text.trim_end().ends_with("which is saved; go on with: lipconv train --resume stopped"),
        "{text}"
    );
    place.succeed(&["train", "--resume", "stopped", "--quiet"]);
    assert!(
        weights(&place, "stopped") == weights(&place, "whole"),
        "weights differ after an interruption"
    );
    assert_eq!(history(&place, "stopped"), history(&place, "whole"));
}

#[test]
fn a_run_is_resumed_by_one_process_on_the_same_images() {
    let place = Place::new();
    place.succeed(&short(&["--out", "run"]));
    let held = RunDir::resume(&place.path("run")).unwrap();
    assert_eq!(
        place.fail(&["train", "--resume", "run"]),
        "error: run is in use by another process"
    );
    drop(held);
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    fs::write(
        place.path("run/config.toml"),
        config.replace("synthetic_seed = 0", "synthetic_seed = 1"),
    )
    .unwrap();
    let text = place.fail(&["train", "--resume", "run"]);
    assert!(
        text.starts_with("error: run was begun on other images than those found now ("),
        "{text}"
    );
    let other = config.replace("learning_rate = 0.001", "learning_rate = 0.002");
    assert_ne!(other, config);
    fs::write(place.path("run/config.toml"), other).unwrap();
    let text = place.fail(&["train", "--resume", "run"]);
    let expected = "error: run/config.toml: training.learning_rate is 0.002, expected 0.001, with which the run began";
    assert_eq!(text, expected);
    let text = place.fail(&["train", "--resume", "run", "--epochs", "5", "--seed", "1"]);
    assert!(text.ends_with("of the flags of training only --epochs goes with --resume"), "{text}");
}

#[test]
fn a_run_goes_on_for_more_epochs() {
    let place = Place::new();
    place.succeed(&short(&["--out", "run"]));
    place.succeed(&["eval", "run", "--pgd-steps", "2", "--strong-restarts", "0", "--quiet"]);
    let before = weights(&place, "run");
    let text = place.fail(&["train", "--resume", "run", "--epochs", "2", "--quiet"]);
    assert_eq!(text, "error: training.epochs is 2, expected at least 3, which are begun");
    place.succeed(&["train", "--resume", "run", "--epochs", "3", "--quiet"]);
    assert!(weights(&place, "run") == before && place.path("run/eval.json").exists());

    let output = place.run(&["train", "--resume", "run", "--epochs", "5", "--quiet"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(notes.contains("note: 5 epochs in place of 3: further steps take "), "{notes}");
    assert!(weights(&place, "run") != before);
    assert!(!place.path("run/eval.json").exists(), "it was about the network before");
    assert_eq!(history(&place, "run").len(), 5);
    assert!(place.succeed(&["inspect", "run"]).contains("trained for 5 of 5 epochs"));
    // further steps have the rates of a run of five epochs
    let longer = SHORT.map(|word| if word == "3" { "5" } else { word });
    place.succeed(&[&longer[..], &["--out", "whole"]].concat());
    let rates = |out| -> Vec<serde_json::Value> {
        history(&place, out)[3..].iter().map(|row| row["learning_rate"].clone()).collect()
    };
    assert_eq!(rates("run"), rates("whole"));
}

#[test]
fn reproduce_writes_results_and_a_report_that_says_synthetic_everywhere() {
    let place = Place::new();
    let args = [
        "reproduce",
        "--out",
        "out",
        "--train-limit",
        "600",
        "--test-limit",
        "100",
        "--epochs",
        "2",
        "--pgd-steps",
        "4",
        "--pgd-step-size",
        "0.3",
        "--quiet",
    ];
    let output = place.run(&args);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(
        notes.contains("note: no MNIST ") && notes.contains("--data-dir DIR or LIPCONV_DATA=DIR"),
        "{notes}"
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.contains("synthetic digits, BCOP-Small, ε = 1.58")
            && table.contains("the paper's recipe")
            && table.contains("recipe “certified”")
            && table.contains("SYNTHETIC DATA")
            && table.contains("under PGD"),
        "{table}"
    );
    assert!(table.contains("report:  out/report.html"), "{table}");

    let rows: Vec<ResultRow> =
        serde_json::from_slice(&fs::read(place.path("out/results.json")).unwrap()).unwrap();
    let recipes: Vec<Option<&str>> = rows.iter().map(|row| row.recipe.as_deref()).collect();
    assert_eq!(recipes, [None, Some("certified")]);
    for row in &rows {
        check_row(row);
    }
    let bounds = rows.iter().map(|row| row.certified.nominal_bound).collect::<Vec<_>>();
    assert_eq!(bounds, [LogitBound::Global, LogitBound::Pairwise]);

    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(page.contains("<strong>Synthetic data. </strong>"));
    assert!(page.matches("synthetic").count() > 5);
    check_self_contained(&page);
    check_second_reproduce(&place, &args);
}

fn check_row(row: &ResultRow) {
    assert_eq!((row.synthetic, row.dataset.as_str()), (true, "synthetic digits"));
    assert_eq!(
        (row.paper, row.epochs, row.network, row.layer),
        (None, 2, Net::Small, Method::default())
    );
    let executed = row.certified.executed.get("1.58").unwrap();
    let (pgd, fgsm) =
        (row.attacks["pgd"].get("1.58").unwrap(), row.attacks["fgsm"].get("1.58").unwrap());
    assert!(
        executed <= pgd && executed <= fgsm && pgd <= row.clean && fgsm <= row.clean,
        "{row:?}"
    );
}

/// Nothing is fetched: no address but that of the SVG name space, no script, no import.
fn check_self_contained(page: &str) {
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["src=\"http", "href=\"http", "<script", "@import", "url(", "<link"] {
        assert!(!outside.contains(forbidden), "{forbidden}");
    }
    assert_eq!(page.matches("<svg ").count(), 8, "four figures, each wide and narrow");
}

/// The same command again trains nothing; other settings begin a run of their own and keep the old one.
fn check_second_reproduce(place: &Place, args: &[&str]) {
    let before = fs::read(place.path("out/run/checkpoint.safetensors")).unwrap();
    let output = place.run(args);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && notes.contains("going on with the run in out/run"),
        "{notes}"
    );
    assert!(fs::read(place.path("out/run/checkpoint.safetensors")).unwrap() == before);
    let other: Vec<&str> = args.iter().chain(&["--seed", "9"]).copied().collect();
    let output = place.run(&other);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        notes.contains("starting anew, its settings differ; the old run is now out/run-old-1"),
        "{notes}"
    );
    assert!(fs::read(place.path("out/run-old-1/checkpoint.safetensors")).unwrap() == before);
}

#[test]
fn bench_measures_a_step_and_leaves_out_peers_that_do_not_run() {
    let place = Place::new();
    let output = place.run(&[
        "bench",
        "step",
        "--repeat",
        "3",
        "--batch",
        "8",
        "--peer-script",
        "nothing.py",
        "--python",
        "no-such-program",
        "--json",
        "bench.json",
    ]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(notes.contains("torch_plain left out: cannot run no-such-program"), "{notes}");
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path("bench.json")).unwrap()).unwrap();
    let row = &json[0];
    assert_eq!(
        (row["name"].as_str(), row["threads"].as_u64()),
        (Some("step small-mnist"), Some(2))
    );
    assert!(row["ours_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(row["peers"], serde_json::json!({}));
}

/// Leaves `path` as it is but for one tensor's name or bytes; a safetensors file is a length, a JSON header, data.
pub(crate) fn edit_safetensors(path: &Path, edit: impl FnOnce(&mut serde_json::Value, &mut [u8])) {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let mut data = bytes[8 + len..].to_vec();
    edit(&mut header, &mut data);
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).unwrap();
}
