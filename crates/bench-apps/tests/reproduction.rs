//! Tables from cells: run, interrupted, resumed, submitted, written up, as a person would.

mod mistakes;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bench_apps::files::RunDir;
use bench_apps::jobs::cell::CellResult;
use bench_apps::jobs::job::JobResult;
use bench_apps::results::ResultRow;

use crate::command::Place;
use crate::interruption::timeless;
#[cfg(unix)]
use crate::interruption::{INTERRUPT, is_ignored};

/// Two methods, two seeds, two budgets, on synthetic digits.
const TINY: &str = r#"
name = "tiny"
title = "A tiny table"
note = "To try things."

[[cells]]
datasets = ["synthetic"]
networks = ["small"]
methods = ["bcop", "unconstrained"]

[budgets.quick]
seeds = [0, 1]
schedule = "linear"
pgd_steps = 3
small = { epochs = 2, train_limit = 256, test_limit = 40 }

[budgets.default]
seeds = [0]
schedule = "linear"
pgd_steps = 3
small = { epochs = 3, train_limit = 256, test_limit = 40 }
"#;

/// An experiment of one cell, under a budget.
pub(crate) fn one_cell(budget: &str, epochs: usize, train_limit: usize) -> String {
    format!(
        r#"
name = "one"
title = "One cell"

[[cells]]
datasets = ["synthetic"]
networks = ["small"]
methods = ["bcop"]

[budgets.{budget}]
seeds = [0]
schedule = "linear"
pgd_steps = 3
small = {{ epochs = {epochs}, train_limit = {train_limit}, test_limit = 40 }}
"#
    )
}

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("tiny.toml"), TINY).unwrap();
    // 160 steps, which take long enough to be interrupted
    fs::write(place.path("long.toml"), one_cell("default", 40, 512)).unwrap();
    place
}

fn cells(place: &Place, out: &str, budget: &str) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(place.path(out).join("cells").join(budget))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    folders
}

fn result(folder: &std::path::Path) -> Option<CellResult> {
    match JobResult::read(folder).unwrap()? {
        JobResult::Classifier(result) | JobResult::Published(result) => Some(*result),
        _ => None,
    }
}

fn rows(place: &Place, out: &str) -> Vec<ResultRow> {
    serde_json::from_slice(&fs::read(place.path(out).join("results.json")).unwrap()).unwrap()
}

#[test]
fn a_table_is_run_once_and_written_up_with_each_budget_in_its_own_row() {
    let place = place();
    let quick = ["reproduce", "tiny.toml", "--quick", "--jobs", "2", "--out", "out", "--quiet"];
    let text = place.succeed(&quick);
    assert!(text.contains("A tiny table") && text.contains("out/report.html"), "{text}");
    let folders = cells(&place, "out", "quick");
    let names: Vec<_> = folders.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "synthetic-small-bcop-seed0",
            "synthetic-small-bcop-seed1",
            "synthetic-small-unconstrained-seed0",
            "synthetic-small-unconstrained-seed1"
        ]
    );
    check_result(&result(&folders[0]).unwrap());
    let results = |folders: &[PathBuf]| -> Vec<Vec<u8>> {
        folders.iter().map(|folder| fs::read(folder.join("result.json")).unwrap()).collect()
    };
    let before = results(&folders);
    assert_eq!(rows(&place, "out").len(), 4);

    // again: nothing is missing, nothing is touched; a lost result alone is made again
    let output = place.run(&quick);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && notes.contains("4 cells, 4 finished before"), "{notes}");
    assert_eq!(results(&folders), before);
    fs::remove_file(folders[2].join("result.json")).unwrap();
    let notes = String::from_utf8(place.run(&quick).stderr).unwrap();
    assert!(notes.contains("4 cells, 3 finished before"), "{notes}");
    assert_eq!(results(&folders[..2]), before[..2]);
    check_mixed(&place);
}

/// Where no whole epoch fits into the time limit, the training has one epoch on as many images as fit, and one batch at least.
#[test]
fn a_time_limit_may_end_before_the_first_epoch_and_cells_need_no_attacks() {
    let place = Place::new();
    let text = r#"
name = "timed"
title = "Trained for a fraction of a second"
costs = true
quantities = ["clean", "certified", "executed"]

[[cells]]
datasets = ["synthetic"]
networks = ["small"]
methods = ["bcop"]
recipe = "short"

[recipes.short]
source = "this test"
trade_off = "Time."

[recipes.short.config]
evaluation = { eps = [0.5, 1.0], attack_eps = [] }

[budgets.quick]
seeds = [0]
schedule = "linear"
small = { epochs = 9, test_limit = 20 }
search = { learning_rates = [1e-3, 1e-2], epochs = 1, images = 128, held_out = 20, minutes = 1e-9 }
"#;
    fs::write(place.path("timed.toml"), text).unwrap();
    let command = ["reproduce", "timed.toml", "--quick", "--out", "out", "--quiet"];
    place.succeed(&command);
    let found = result(&cells(&place, "out", "quick")[0]).unwrap();
    let (data, training) = (&found.plan.config.data, &found.plan.config.training);
    assert_eq!((data.train_limit, training.epochs), (Some(training.batch_size), 1));
    assert_eq!((found.history.len(), found.history[0].step), (1, 1));
    assert!(found.row.attacks.is_empty() && found.samples.is_empty(), "{:?}", found.row);
    assert_eq!(found.eps(), "0.5");
    let notes = String::from_utf8(place.run(&command).stderr).unwrap();
    assert!(notes.contains("1 cell, 1 finished before"), "{notes}");
    // fewer images than it was trained on are another job
    let fewer = text.replace("test_limit = 20", "train_limit = 100, test_limit = 20");
    fs::write(place.path("timed.toml"), fewer).unwrap();
    place.succeed(&command);
    let found = result(&cells(&place, "out", "quick")[0]).unwrap();
    assert_eq!(found.plan.config.data.train_limit, Some(100));
}

fn check_result(result: &CellResult) {
    assert!(result.row.synthetic && result.row.paper.is_none());
    assert_eq!(result.row.budget.as_deref(), Some("quick"));
    assert_eq!((result.history.len(), result.samples.len()), (2, 16));
    let best = result.best.unwrap();
    assert!(best.clean >= result.row.clean, "{best:?}");
    let spectra = result.spectra.as_ref().unwrap();
    assert_eq!((spectra.layer.as_str(), spectra.size), ("conv2", (7, 7)));
    for histogram in [&spectra.initial, &spectra.trained] {
        assert_eq!(histogram.counts.iter().sum::<u64>(), 7 * 7 * 32);
        assert!((histogram.min - 1.0).abs() < 1e-4 && (histogram.max - 1.0).abs() < 1e-4);
    }
    let mut n_adversarial = 0;
    for sample in &result.samples {
        assert!(sample.image.starts_with("data:image/png;base64,"));
        if let Some(found) = &sample.adversarial {
            n_adversarial += 1;
            assert!(found.distance > sample.radius && found.predicted != sample.label);
        }
    }
    assert!(n_adversarial > 0);
}

/// Another budget in the same folder: its cells are other cells, and the tables keep them apart and say so.
fn check_mixed(place: &Place) {
    let only = ["reproduce", "tiny.toml", "--only", "bcop", "--out", "out", "--quiet"];
    place.succeed(&only);
    assert_eq!(cells(place, "out", "default").len(), 1);
    assert_eq!(rows(place, "out").len(), 5);
    let text = place.succeed(&["reproduce", "tiny.toml", "--collect", "--out", "out"]);
    // a block of rows for each budget, with its conditions
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("synthetic digits, Small")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].ends_with("default budget: 3 epochs on 256 images, 1 seed, 40 test images"),
        "{text}"
    );
    assert!(
        lines[1].ends_with("quick budget: 2 epochs on 256 images, 2 seeds, 40 test images"),
        "{text}"
    );
    let clean: Vec<&str> = text.lines().filter(|line| line.starts_with("  clean ")).collect();
    assert!(clean[1].contains(" ± ") && !clean[0].contains(" ± "), "{text}");
    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(page.contains("<strong>Synthetic data. </strong>"));
    for forbidden in ["src=\"http", "href=\"http", "<script", "@import", "url(", "<link"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let markdown = fs::read_to_string(place.path("out/report.md")).unwrap();
    assert!(markdown.contains("## A tiny table") && markdown.contains("SYNTHETIC DATA"));
}

#[test]
fn what_cannot_be_run_is_named_and_the_rest_is_run() {
    let place = place();
    let text =
        TINY.replace("\"unconstrained\"", "\"haar\"").replace("seeds = [0, 1]", "seeds = [0]");
    fs::write(place.path("tiny.toml"), text).unwrap();
    let output = place.run(&["reproduce", "tiny.toml", "--quick", "--out", "out", "--quiet"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{notes}");
    assert!(
        notes.contains(
            "note: left out: synthetic-small-haar-seed0: network.layer is haar, expected bjorck or"
        ),
        "{notes}"
    );
    assert_eq!(rows(&place, "out").len(), 1);
    let cases: [(&[&str], &str); 5] = [
        (&["reproduce", "table9"], "error: experiment is table9, expected "),
        (&["reproduce", "--quick"], "error: flags of tables and figures need one, as in: "),
        (
            &["reproduce", "table1", "--epochs", "3"],
            "error: cells of tables and figures take their settings ",
        ),
        (&["reproduce", "tiny.toml", "--jobs", "0"], "error: --jobs is 0, expected 1 to 1000"),
        (&["reproduce", "tiny.toml", "--partition", "x"], "error: --partition, --gpus, --time, "),
    ];
    for (args, start) in cases {
        let text = place.fail(args);
        assert!(text.starts_with(start), "{text}");
    }
}

/// Waits until the one cell of long.toml has saved a step past its first epochs.
fn wait_for_steps(place: &Place, out: &str) {
    let clock = place.path(out).join("cells/default/synthetic-small-bcop-seed0/run/clock.json");
    let start = Instant::now();
    let steps = || {
        let text = fs::read_to_string(&clock).unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(&text).ok()?["step"].as_u64()
    };
    while steps().is_none_or(|step| step < 20) {
        assert!(start.elapsed() < Duration::from_secs(120), "no checkpoint after two minutes");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until nobody holds the cell any more: the worker of a queue that was killed ends by itself.
fn wait_for_lock(place: &Place, out: &str) {
    let run = place.path(out).join("cells/default/synthetic-small-bcop-seed0/run");
    let start = Instant::now();
    while RunDir::resume(&run).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the worker goes on without its queue");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Accuracies and weights, without times and dates.
fn outcome(place: &Place, out: &str) -> (Vec<u8>, serde_json::Value) {
    let folder = place.path(out).join("cells/default/synthetic-small-bcop-seed0");
    let mut result = serde_json::to_value(result(&folder).unwrap()).unwrap();
    timeless(&mut result);
    let weights = fs::read(folder.join("run/network.safetensors")).unwrap();
    (weights, result)
}

#[cfg(unix)]
#[test]
fn a_queue_that_was_killed_or_interrupted_ends_with_the_same_results() {
    let place = place();
    let args = |out| ["reproduce", "long.toml", "--checkpoint-every", "0", "--quiet", "--out", out];
    place.succeed(&args("whole"));
    let whole = outcome(&place, "whole");

    let mut child =
        place.command(&args("killed")).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for_steps(&place, "killed");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for_lock(&place, "killed");
    assert!(
        !place.path("killed/cells/default/synthetic-small-bcop-seed0/result.json").exists(),
        "the cell ended before it could be killed"
    );
    place.succeed(&args("killed"));
    assert!(outcome(&place, "killed") == whole, "results differ after kill -9");

    if is_ignored(INTERRUPT) {
        return;
    }
    let child = place
        .command(&args("stopped"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_steps(&place, "stopped");
    assert!(
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    let output = child.wait_with_output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{notes}");
    assert!(notes.contains("interrupted; the same command goes on"), "{notes}");
    // the worker had saved before the queue returned
    assert!(
        RunDir::resume(&place.path("stopped/cells/default/synthetic-small-bcop-seed0/run")).is_ok()
    );
    place.succeed(&args("stopped"));
    assert!(outcome(&place, "stopped") == whole, "results differ after an interruption");
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_fails_the_cell_and_the_same_command_goes_on() {
    let place = place();
    let args = ["reproduce", "tiny.toml", "--quick", "--only", "bcop", "--seeds", "0", "--out"];
    place.succeed(&[&args[..], &["whole", "--quiet"]].concat());
    // no file may grow beyond 64 blocks of 512 or 1024 bytes, which a checkpoint does
    let limited = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_lipconv"),
        ])
        .args(args)
        .args(["full", "--quiet"])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    let notes = String::from_utf8(limited.stderr).unwrap();
    assert_eq!(limited.status.code(), Some(1), "{notes}");
    assert!(
        notes.contains("failed: synthetic-small-bcop-seed0: ") && notes.contains("too large"),
        "{notes}"
    );
    place.succeed(&[&args[..], &["full", "--quiet"]].concat());
    let clean = |out| rows(&place, out)[0].clean;
    assert_eq!(clean("full"), clean("whole"));
}

/// A batch system that runs each task of the array at once, but for the first submission's task 2, which is lost.
const SBATCH: &str = r#"#!/bin/sh
set -eu
[ "$1" = --parsable ]
script=$2
n=$(sed -n 's/^#SBATCH --array=1-\([0-9]*\).*/\1/p' "$script")
i=1
while [ "$i" -le "$n" ]; do
  if [ -e submitted ] || [ "$i" != 2 ]; then
    SLURM_ARRAY_TASK_ID=$i sh "$script" > "task-$i.log" 2>&1
  fi
  i=$((i + 1))
done
echo "$n" >> submitted
echo "4711;somewhere"
"#;

#[cfg(unix)]
#[test]
fn a_job_array_runs_what_is_missing_and_is_collected() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("sbatch"), SBATCH).unwrap();
    fs::set_permissions(bin.join("sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let args = [
        "reproduce",
        "tiny.toml",
        "--quick",
        "--seeds",
        "0",
        "--out",
        "out",
        "--executor",
        "slurm",
    ];
    let run = |more: &[&str]| {
        let output =
            place.command(&[&args[..], more].concat()).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let script = run(&["--print", "--partition", "main", "--time", "00:10:00", "--jobs", "1"]);
    for line in ["#SBATCH --array=1-2%1", "#SBATCH --partition=main", "#SBATCH --time=00:10:00"] {
        assert!(script.lines().any(|l| l == line), "{script}");
    }
    assert!(!place.path("submitted").exists() && !place.path("out/slurm").exists());

    let text = run(&[]);
    assert!(text.starts_with("submitted 2 cells as job array 4711; logs in "), "{text}");
    let text = place.succeed(&["reproduce", "tiny.toml", "--collect", "--out", "out"]);
    assert!(
        text.contains("Small") && text.contains("BCOP") && !text.contains("unconstrained"),
        "{text}"
    );
    let first =
        fs::read(place.path("out/cells/quick/synthetic-small-bcop-seed0/result.json")).unwrap();

    assert!(run(&[]).starts_with("submitted 1 cell as job array 4711"));
    assert_eq!(run(&[]), "nothing is missing; write it up with --collect\n");
    assert_eq!(fs::read_to_string(place.path("submitted")).unwrap(), "2\n1\n");
    assert_eq!(
        fs::read(place.path("out/cells/quick/synthetic-small-bcop-seed0/result.json")).unwrap(),
        first
    );
    place.succeed(&["reproduce", "tiny.toml", "--collect", "--out", "out"]);
    assert_eq!(rows(&place, "out").len(), 2);

    fs::write(bin.join("sbatch"), "#!/bin/sh\necho 'invalid partition' >&2\nexit 3\n").unwrap();
    fs::remove_file(place.path("out/cells/quick/synthetic-small-bcop-seed0/result.json")).unwrap();
    let output = place.command(&args).env("PATH", &path).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("error: sbatch failed: exit status: 3: invalid partition"), "{text}");
}

#[test]
fn a_cell_belongs_to_the_process_that_holds_it() {
    let place = place();
    let args = [
        "reproduce",
        "tiny.toml",
        "--quick",
        "--only",
        "bcop",
        "--seeds",
        "0",
        "--out",
        "out",
        "--quiet",
    ];
    place.succeed(&args);
    let folder = place.path("out/cells/quick/synthetic-small-bcop-seed0");
    fs::remove_file(folder.join("result.json")).unwrap();
    let held = RunDir::resume(&folder.join("run")).unwrap();
    let output = place.run(&args);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(notes.contains("left to another process: synthetic-small-bcop-seed0"), "{notes}");
    let output = place.run(&["experiment", "run", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(75));
    drop(held);
    // the training is there: the evaluation alone is made again
    let before = fs::read(folder.join("run/checkpoint.safetensors")).unwrap();
    place.succeed(&["experiment", "run", folder.to_str().unwrap()]);
    assert!(fs::read(folder.join("run/checkpoint.safetensors")).unwrap() == before);
    assert!(result(&folder).is_some());
    let text =
        place.succeed(&["experiment", "list", "tiny.toml", "--budget", "quick", "--out", "out"]);
    let states: Vec<&str> =
        text.lines().skip(1).filter_map(|l| l.split_whitespace().last()).collect();
    assert_eq!(states, ["finished", "missing", "missing", "missing"]);
}
