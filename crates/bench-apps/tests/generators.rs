//! `gan` and `wasserstein` where settings, devices and folders do not fit, and where training diverges.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use image::{GrayImage, Luma};

use crate::command::Place;

/// Sixteen grey images of 32 x 32.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("images")).unwrap();
    for i in 0..16 {
        let value = |x: u32, y: u32| ((x * 7 + y * 3 + i * 31) % 256) as u8;
        let image = GrayImage::from_fn(32, 32, |x, y| Luma([value(x, y)]));
        image.save(place.path("images").join(format!("{i:02}.png"))).unwrap();
    }
    place
}

fn gan<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let small =
        ["gan", "--dataset", "images:images", "--batch-size", "4", "--quiet", "--out", "out"];
    [&small[..], more].concat()
}

#[test]
fn bad_numbers_are_refused_by_their_flag_before_the_folder_is_made() {
    let place = place();
    let numbers = [
        ("nan", "NaN"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("-1", "-1"),
        ("0", "0"),
        ("-1e300", "-1e300"),
    ];
    for flag in ["--learning-rate", "--critic-learning-rate"] {
        for (given, shown) in numbers {
            let text = place.fail(&gan(&[&format!("{flag}={given}")]));
            assert_eq!(text, format!("error: {flag} is {shown}, expected a positive number"));
        }
    }
    for (given, shown) in numbers.into_iter().chain([("0.01", "0.01"), ("1e9", "1000000000")]) {
        let text = place.fail(&gan(&[&format!("--critic-width={given}")]));
        let start = format!("error: --critic-width is {shown}, expected a positive factor ");
        assert!(text.starts_with(&start), "{text}");
    }
    for given in ["nan", "-1", "1e300"] {
        let text = place.fail(&gan(&[&format!("--checkpoint-every={given}")]));
        assert!(text.starts_with("error: --checkpoint-every is ") && text.len() < 100, "{text}");
    }
    for given in ["0", "200000000"] {
        let text = place.fail(&gan(&["--samples-every", given]));
        assert!(text.starts_with(&format!("error: --samples-every is {given}, ")), "{text}");
    }
    let text = place.fail(&[
        "wasserstein",
        "images:images",
        "images:images",
        "--learning-rate=0.1,-1e300",
        "--out",
        "out",
    ]);
    assert_eq!(text, "error: --learning-rate is -1e300, expected positive numbers");
    assert!(!place.path("out").exists());
}

#[test]
fn devices_that_train_no_generator_are_refused() {
    let place = place();
    let wasserstein = ["wasserstein", "images:images", "images:images", "--out", "out"];
    for command in [gan(&[]), wasserstein.to_vec()] {
        for device in ["portable", "emulated"] {
            let output = place.run(&[&command[..], &["--device", device]].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(&format!("'{device}'")), "{text}");
            assert!(text.contains("cpu, cuda]"), "{text}");
        }
    }
    assert!(!place.path("out").exists());
}

/// Every entry of a folder with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    entries.map(|path| (named(&path), fs::read(&path).ok())).collect()
}

#[test]
fn the_folder_of_something_else_is_left_as_it_is() {
    let place = place();
    let out = place.path("out");
    let begin = |files: &[&str]| {
        fs::create_dir(&out).unwrap();
        for name in files {
            fs::write(out.join(name), "of another").unwrap();
        }
    };
    let classifier = ["config.toml", "versions.json", "log.txt", "checkpoint.safetensors"];
    let cases: [(&[&str], &str); 5] = [
        (&classifier, "config.toml"),
        (&["checkpoint.safetensors"], "checkpoint.safetensors"),
        (&["log.txt"], "log.txt"),
        (&["samples"], "samples"),
        (&["cell.json"], "cell.json"),
    ];
    for (files, named) in cases {
        begin(files);
        let before = contents(&out);
        let text = place.fail(&gan(&[]));
        let start =
            format!("error: out: holds {named} but no gan.json, expected a generator's run ");
        assert!(text.starts_with(&start), "{text}");
        assert_eq!(contents(&out), before);
        fs::remove_dir_all(&out).unwrap();
    }
    let wasserstein = ["wasserstein", "images:images", "images:images", "--width", "0.125"];
    for (files, named) in
        [(&classifier[..], "config.toml"), (&["gan.json", "log.txt"][..], "gan.json")]
    {
        begin(files);
        let before = contents(&out);
        let text = place.fail(&[&wasserstein[..], &["--out", "out", "--quiet"]].concat());
        let start = format!("error: out: holds {named} but no training/begun.json, expected ");
        assert!(text.starts_with(&start), "{text}");
        assert_eq!(contents(&out), before);
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn the_run_of_other_settings_gets_no_line() {
    let place = place();
    let short = ["--steps", "1", "--critic-width", "0.125"];
    place.succeed(&gan(&short));
    let before = contents(&place.path("out"));
    let text = place.fail(&gan(&[&short[..], &["--learning-rate", "0.001"]].concat()));
    assert!(text.starts_with("error: out was begun with other settings"), "{text}");
    assert_eq!(contents(&place.path("out")), before);
}

#[test]
fn a_training_that_diverges_says_so() {
    let place = place();
    let cases: [(&[&str], u32); 4] = [
        (&["--learning-rate", "1e308", "--steps", "4"], 3),
        (&["--critic-learning-rate", "1e308", "--steps", "4"], 2),
        // after the last step
        (&["--learning-rate", "1e308", "--steps", "2"], 2),
        (&["--learning-rate", "1e308", "--steps", "1", "--n-critic", "1"], 1),
    ];
    for (flags, step) in cases {
        let text = place.fail(&gan(&[flags, &["--critic-width", "0.125"]].concat()));
        let start = format!(
            "error: training has diverged at step {step}; try smaller learning rates, in another folder: "
        );
        assert!(text.starts_with(&start) && text.len() > start.len() + 20, "{text}");
        assert!(!place.path("out/generator.safetensors").exists());
        fs::remove_dir_all(place.path("out")).unwrap();
    }
}
