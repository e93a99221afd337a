//! `lipconv gan`, `lipconv wasserstein` and Table 4, as a person would run them.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::command::Place;

/// n grey images of `side` x `side`, bright in one half or the other.
fn draw(dir: &Path, n: usize, side: u32, bright_left: bool) {
    fs::create_dir_all(dir).unwrap();
    for i in 0..n {
        let image = GrayImage::from_fn(side, side, |x, y| {
            let left = x < side / 2;
            let base = if left == bright_left { 180 } else { 60 };
            Luma([base + ((u32::try_from(i).unwrap() * 37 + x * 5 + y * 3) % 40) as u8])
        });
        image.save(dir.join(format!("{i:03}.png"))).unwrap();
    }
}

fn place() -> Place {
    let place = Place::new();
    draw(&place.path("left"), 24, 32, true);
    draw(&place.path("right/deeper"), 24, 32, false);
    place
}

const SHORT: [&str; 12] = [
    "wasserstein",
    "images:left",
    "images:right",
    "--width",
    "0.125",
    "--epochs",
    "4",
    "--epoch-steps",
    "5",
    "--batch-size",
    "8",
    "--quiet",
];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(more).copied().collect()
}

fn json(place: &Place, file: &str) -> Value {
    serde_json::from_slice(&fs::read(place.path(file)).unwrap()).unwrap()
}

#[test]
fn two_folders_are_compared_and_the_critic_can_be_used_again() {
    let place = place();
    let rates = ["--learning-rate", "0.01,0.001", "--out", "out"];
    let text = place.succeed(&short(&rates));
    assert!(text.starts_with("W1(left, right) is at least "), "{text}");
    assert!(text.contains("6 and 6 images, none of which the critic was trained on"), "{text}");
    let result = json(&place, "out/wasserstein.json");
    let value = result["estimate"]["value"].as_f64().unwrap();
    assert!(value > 5.0 && result["estimate"]["standard_error"].as_f64().unwrap() > 0.0, "{value}");
    assert_eq!(result["rates"].as_array().unwrap().len(), 2);
    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    assert!(page.contains("left and right") && page.contains("data:image/png;base64,"));
    for forbidden in ["src=\"http", "href=\"http", "<script", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let svg = fs::read_to_string(place.path("out/estimate.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("<style>") && svg.contains("polyline"));

    // again: nothing is trained, nothing differs
    let before = fs::read(place.path("out/critic.safetensors")).unwrap();
    fs::remove_file(place.path("out/critic.safetensors")).unwrap();
    place.succeed(&short(&rates));
    assert!(fs::read(place.path("out/critic.safetensors")).unwrap() == before);

    let text = place.succeed(&[
        "wasserstein",
        "images:left",
        "images:right",
        "--critic",
        "out/critic.safetensors",
        "--out",
        "again",
    ]);
    assert!(text.starts_with("W1(left, right) is at least "), "{text}");
    let again = json(&place, "again/wasserstein.json");
    assert_eq!(again["estimate"], result["estimate"]);
}

#[test]
fn populations_have_an_exact_distance_above_the_estimate() {
    let place = place();
    let text = place.succeed(&short(&["--population", "--out", "out"]));
    assert!(text.contains("24 and 24 images, all there are"), "{text}");
    assert!(text.contains("the exact distance, by the best matching: "), "{text}");
    let result = json(&place, "out/wasserstein.json");
    let value = result["estimate"]["value"].as_f64().unwrap();
    let exact = result["exact"].as_f64().unwrap();
    assert!(0.5 * exact < value && value <= exact * (1.0 + 1e-6), "{value} {exact}");
    assert_eq!(result["estimate"]["standard_error"].as_f64(), Some(0.0));
}

#[test]
fn stl10_is_reported_on_its_test_images_at_the_size_that_is_asked_for() {
    let place = Place::new();
    let dir = place.path("data/stl10_binary");
    let images = |n: usize| -> Vec<u8> { (0..n * 3 * 96 * 96).map(|i| (i % 251) as u8).collect() };
    for (name, n) in [("train", 4_usize), ("test", 3)] {
        crate::support::write(&dir, &format!("{name}_X.bin"), &images(n));
        crate::support::write(&dir, &format!("{name}_y.bin"), &vec![1; n]);
    }
    crate::support::write(&dir, "unlabeled_X.bin", &images(9));
    let args = ["wasserstein", "stl10", "stl10", "--data-dir", "data", "--size", "32", "--quiet"];
    let small = ["--width", "0.125", "--epochs", "1", "--epoch-steps", "1", "--batch-size", "4"];
    let text = place.succeed(&[&args[..], &small, &["--out", "out"]].concat());
    assert!(text.starts_with("W1(STL-10, STL-10) is at least "), "{text}");
    assert!(text.contains("3 and 3 images"), "{text}");
    assert_eq!(json(&place, "out/wasserstein.json")["a"]["shape"], serde_json::json!([3, 32, 32]));
}

#[test]
fn images_that_cannot_be_compared_are_named() {
    let place = place();
    draw(&place.path("large"), 8, 48, true);
    fs::create_dir(place.path("empty")).unwrap();
    draw(&place.path("one"), 1, 32, true);
    draw(&place.path("mixed"), 8, 32, true);
    draw(&place.path("mixed/z"), 1, 40, true);
    draw(&place.path("corrupt"), 8, 32, true);
    fs::write(place.path("corrupt/005.png"), b"\x89PNG\r\n\x1a\nnot really").unwrap();
    draw(&place.path("odd"), 8, 20, true);
    let with = |a: &str, more: &[&str]| {
        let a = format!("images:{a}");
        let mut args = vec!["wasserstein", &a, "images:right", "--out", "out"];
        args.extend(more);
        place.fail(&args)
    };
    let cases = [
        (
            "large",
            "error: images of large are 1 x 48 x 48, those of right are 1 x 32 x 32; give both one size with --size",
        ),
        ("empty", "error: empty: 0 images, expected at least 6"),
        ("one", "error: one: 1 image, expected at least 6"),
        (
            "mixed",
            "error: mixed/z/000.png: 1 x 40 x 40, expected 1 x 32 x 32, the shape of mixed/000.png",
        ),
        ("corrupt", "error: corrupt/005.png: "),
        ("absent", "error: cannot read absent: No such file or directory"),
    ];
    for (folder, expected) in cases {
        let text = with(folder, &[]);
        assert!(text.starts_with(expected), "{text}");
    }
    let text = place.fail(&["wasserstein", "images:odd", "images:odd", "--out", "out"]);
    assert!(
        text.starts_with("error: the critic takes images with sides that are multiples of 16, from 32 on (--size): "),
        "{text}"
    );
    let text = with("one", &["--population"]);
    assert_eq!(text, "error: one: 1 image, expected at least 2");
    assert_eq!(with("left", &["--pairs", "1"]), "error: --pairs is 1, expected at least 2");
    assert_eq!(
        with("left", &["--learning-rate", "0.1,-1"]),
        "error: --learning-rate is -1, expected positive numbers"
    );
    assert!(!place.path("out").exists());
}

#[test]
fn a_critic_or_a_generator_that_does_not_fit_is_refused() {
    let place = place();
    draw(&place.path("large"), 8, 48, true);
    draw(&place.path("grand"), 8, 48, false);
    place.succeed(&short(&["--out", "out"]));
    let critic = ["--critic", "out/critic.safetensors"];
    let compare = |a: &str, b: &str, more: &[&str]| {
        let args = [&["wasserstein", a, b], more].concat();
        place.fail(&args)
    };
    assert_eq!(
        compare("images:large", "images:grand", &critic),
        "error: the critic out/critic.safetensors is for images of 1 x 32 x 32, those of large are 1 x 48 x 48"
    );
    fs::write(place.path("noise.safetensors"), b"nothing").unwrap();
    let text = compare("images:left", "images:right", &["--critic", "noise.safetensors"]);
    assert!(text.starts_with("error: cannot load a critic: noise.safetensors: "), "{text}");
    let text = compare("images:left", "generator:noise.safetensors", &[]);
    assert!(text.starts_with("error: cannot load a generator: noise.safetensors: "), "{text}");
    let text = compare("images:left", "generator:out/critic.safetensors", &[]);
    assert!(text.starts_with("error: cannot load a generator: out/critic.safetensors: "), "{text}");
}

const GAN: [&str; 13] = [
    "gan",
    "--dataset",
    "images:left",
    "--steps",
    "6",
    "--batch-size",
    "4",
    "--critic-width",
    "0.125",
    "--samples-every",
    "3",
    "--quiet",
    "--out",
];

#[test]
fn a_generator_is_trained_and_compared() {
    let place = place();
    let gan = |more: &[&'static str]| [&GAN[..], more].concat();
    let text = place.succeed(&gan(&["gan", "--checkpoint-every", "0"]));
    assert!(text.contains("gan/generator.safetensors\n"), "{text}");
    let samples = ["step-000000.png", "step-000003.png", "step-000006.png"];
    for name in samples {
        let grid = image::open(place.path("gan/samples").join(name)).unwrap();
        assert_eq!((grid.width(), grid.height()), (8 * 34 + 2, 8 * 34 + 2));
    }
    assert!(place.path("gan/versions.json").is_file());
    let lines = fs::read_to_string(place.path("gan/history.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 2);
    // the checkpoint leads to the same generator
    let file = place.path("gan/generator.safetensors");
    let before = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    place.succeed(&gan(&["gan"]));
    assert!(fs::read(&file).unwrap() == before);
    let text = place.fail(&gan(&["gan", "--seed", "1"]));
    let expected = "was begun with other settings or other images; choose another folder";
    assert_eq!(text, format!("error: gan {expected}"));
    let text = place.succeed(&[
        "wasserstein",
        "images:left",
        "generator:gan/generator.safetensors",
        "--width",
        "0.125",
        "--epochs",
        "1",
        "--epoch-steps",
        "2",
        "--pairs",
        "10",
        "--quiet",
        "--out",
        "out",
    ]);
    assert!(text.contains("6 and 10 images"), "{text}");
    let generator = "generator:gan/generator.safetensors";
    let text = place.fail(&["wasserstein", "images:left", generator, "--population"]);
    assert!(text.starts_with("error: --population is for images at hand, "), "{text}");
    let text = place.fail(&[
        "wasserstein",
        "images:left",
        "generator:gan/generator.safetensors",
        "--size",
        "48",
    ]);
    assert_eq!(text, "error: size of generated images is 48, expected a multiple of 32 x 32");
}

#[test]
fn settings_of_a_generator_are_checked() {
    let place = place();
    let cases: [(&[&str], &str); 3] = [
        (&["--steps", "0"], "error: --steps is 0, expected 1 to 100000000"),
        (&["--batch-size", "1"], "error: --batch-size is 1, expected 2 to 65536"),
        (&["--n-critic", "0"], "error: --n-critic is 0, expected 1 to 100000000"),
    ];
    for (flags, expected) in cases {
        let args = [&["gan", "--dataset", "images:left", "--out", "gan"], flags].concat();
        assert_eq!(place.fail(&args), expected);
    }
    assert!(!place.path("gan").exists());
}

const TINY: &str = r#"
name = "tiny4"
title = "A tiny Table 4"

[wasserstein]
datasets = ["images:left"]
size = 32
methods = ["rko", "bcop"]
activations = ["maxmin", "relu"]
anchors = true

[budgets.default]
seeds = [0]
schedule = "linear"

[budgets.default.wasserstein]
seeds = [0, 1]
width = 0.125
epochs = 2
epoch_steps = 3
batch_size = 4
learning_rates = [1e-2, 1e-3]
n_select = 8
n_report = 8
generator = { steps = 4, batch_size = 4, critic_width = 0.125 }
anchors = { seeds = [0], epochs = 2, learning_rates = [1e-3], all = false }
"#;

#[test]
fn table_4_is_run_once_and_written_up() {
    let place = place();
    fs::write(place.path("tiny4.toml"), TINY).unwrap();
    let args = ["reproduce", "tiny4.toml", "--jobs", "2", "--out", "out", "--quiet"];
    let output = place.run(&args);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{notes}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("A tiny Table 4") && text.contains("W1 is at least"), "{text}");
    assert!(text.contains("Default budget: width 0.125, 6 steps, 2 seeds, 8 pairs"), "{text}");
    assert!(text.contains("two points"), "{text}");
    let rows = json(&place, "out/distances.json");
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        assert_eq!(row["rates"].as_array().unwrap().len(), 2);
        assert!(row["estimate"].is_f64() && row["lipschitz"].as_f64().unwrap() < 1.1, "{row}");
        assert_eq!(row["pairs"], serde_json::json!([6, 8]));
    }
    let page = fs::read_to_string(place.path("out/report.html")).unwrap();
    for expected in [
        "Every learning rate",
        "Distributions with a known distance",
        "64 generated images",
        "BCOP &gt; RKO with MaxMin",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    let markdown = fs::read_to_string(place.path("out/report.md")).unwrap();
    assert!(markdown.contains("| W1 is at least | RKO | BCOP |"), "{markdown}");

    let again = place.run(&args);
    let notes = String::from_utf8_lossy(&again.stderr);
    assert!(notes.contains("10 cells, 10 finished before"), "{notes}");
    // results that were cut off are made again, without training
    for name in ["images_left-32px-generator", "images_left-32px-rko-relu-seed0"] {
        let path = place.path("out/distances/default").join(name).join("result.json");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    }
    let again = place.run(&args);
    let notes = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && notes.contains("10 cells, 8 finished before"), "{notes}");
    assert_eq!(json(&place, "out/distances.json").as_array().unwrap().len(), 8);
    // another generator is another table: its critics are trained anew, the old run is kept
    fs::write(place.path("tiny4.toml"), TINY.replace("steps = 4", "steps = 5")).unwrap();
    place.succeed(&["reproduce", "tiny4.toml", "--out", "out", "--quiet", "--seeds", "0"]);
    let folder = place.path("out/distances/default");
    assert!(folder.join("images_left-32px-generator/run-old-1").is_dir());
    assert!(folder.join("images_left-32px-bcop-relu-seed0/run-old-1").is_dir());
    let states = place.succeed(&["experiment", "list", "tiny4.toml", "--out", "out"]);
    assert!(states.lines().any(|l| l.contains("rko-relu-seed0") && l.ends_with("finished")));
    assert!(states.lines().any(|l| l.contains("rko-relu-seed1") && l.ends_with("missing")));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_nothing() {
    let place = Place::new();
    let mut child = place
        .command(&["experiment", "list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
