//! Bad input to the built command: one line, status 1, and nothing half-written.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::command::{Place, edit_safetensors};
use crate::support::{gzip, idx, idx_images, idx_labels, write, write_little_mnist};

/// Trains on the folder `data` and returns the error; the run's folder must not appear.
#[track_caller]
fn refused_data(place: &Place) -> String {
    let text = place.fail(&["train", "--data-dir", "data", "--out", "run"]);
    assert!(!place.path("run").exists(), "{text}");
    text
}

#[test]
fn damaged_data_is_refused() {
    let place = Place::new();
    let data = place.path("data");
    let cases: [(&str, Vec<u8>, &str); 3] = [
        (
            "train-images-idx3-ubyte.gz",
            gzip(&idx_images(6, 28, 28))[..200].to_vec(),
            "error: data/train-images-idx3-ubyte.gz: the gzip stream is truncated after ",
        ),
        (
            "train-images-idx3-ubyte.gz",
            gzip(&idx(&[0x0b03, 1, 2, 2], &[0; 4])),
            "error: data/train-images-idx3-ubyte.gz: magic number is 0x00000b03, expected 0x00000803 ",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            gzip(&idx_labels(&[1; 7])),
            "error: data/train-labels-idx1-ubyte.gz: 7 labels, expected 6, the number of images in ",
        ),
    ];
    for (name, bytes, start) in cases {
        write_little_mnist(&data);
        write(&data, name, &bytes);
        let text = refused_data(&place);
        assert!(text.starts_with(start), "{text}");
    }
    let text = place.fail(&["train", "--data-dir", "nowhere", "--out", "run"]);
    assert!(text.starts_with("error: no MNIST: nowhere does not exist; put "), "{text}");
}

#[test]
fn images_that_do_not_fit_the_network_are_refused() {
    let place = Place::new();
    // 4 x 3: an odd side cannot be downsampled by 2
    write_little_mnist(&place.path("data"));
    let text = refused_data(&place);
    assert!(text.contains("width") && text.contains("not divisible by the stride 2"), "{text}");
    // 4 x 4: after two downsamplings one pixel is left for a 2 x 2 kernel
    for split in ["train", "t10k"] {
        let n = if split == "train" { 6 } else { 4 };
        write(
            &place.path("data"),
            &format!("{split}-images-idx3-ubyte.gz"),
            &gzip(&idx_images(n, 4, 4)),
        );
    }
    let text = refused_data(&place);
    assert!(text.starts_with("error: conv2: a 2 x 2 kernel exceeds its 1 x 1 image"), "{text}");
}

#[test]
fn configurations_and_flags_are_checked_before_anything_is_written() {
    let place = Place::new();
    fs::write(place.path("run.toml"), "[training]\nepoch = 3\n").unwrap();
    let text = place.fail(&["train", "--config", "run.toml", "--out", "run"]);
    assert!(
        text.starts_with(
            "error: run.toml, line 2: unknown key `training.epoch`, did you mean `training.epochs`?"
        ),
        "{text}"
    );
    let cases: [(&[&str], &str); 4] = [
        (&["--epochs", "0"], "error: training.epochs is 0, expected 1 to 1000000000"),
        (
            &["--learning-rate", "nan"],
            "error: training.learning_rate is NaN, expected a positive number",
        ),
        (
            &["--checkpoint-every", "-1"],
            "error: --checkpoint-every is -1, expected 0 to 1e18 seconds, or inf",
        ),
        (
            &["--config", "none.toml"],
            "error: cannot read none.toml: No such file or directory (os error 2)",
        ),
    ];
    for (flags, expected) in cases {
        let args: Vec<&str> = ["train", "--dataset", "synthetic", "--out", "run"]
            .iter()
            .chain(flags)
            .copied()
            .collect();
        assert_eq!(place.fail(&args), expected);
    }
    assert!(!place.path("run").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_training() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let small = ["--dataset", "synthetic", "--train-limit", "64", "--test-limit", "10"];
    for command in ["train", "reproduce"] {
        let args: Vec<&str> =
            [command, "--out", "file/run"].iter().chain(&small).copied().collect();
        let text = place.fail(&args);
        assert!(text.starts_with("error: cannot write file/run"), "{text}");
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"");
}

#[test]
fn what_is_no_run_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    for args in [&["eval", "empty"][..], &["train", "--resume", "empty"], &["inspect", "empty"]] {
        assert_eq!(place.fail(args), "error: empty is not a run directory: config.toml is missing");
    }
    fs::write(place.path("noise.safetensors"), b"not a network").unwrap();
    let text = place.fail(&["eval", "noise.safetensors"]);
    assert!(text.starts_with("error: cannot load a network: noise.safetensors: "), "{text}");
    let text = place.fail(&["inspect", "absent"]);
    assert!(text.starts_with("error: cannot load a network: cannot read absent: "), "{text}");
}

/// Changes a copy of a checkpoint and returns what resuming it says.
#[track_caller]
fn refused_checkpoint(
    place: &Place,
    good: &[u8],
    edit: impl FnOnce(&mut Value, &mut [u8]),
) -> String {
    let path = place.path("run/checkpoint.safetensors");
    fs::write(&path, good).unwrap();
    edit_safetensors(&path, edit);
    let edited = fs::read(&path).unwrap();
    let text = place.fail(&["train", "--resume", "run"]);
    assert!(fs::read(&path).unwrap() == edited, "the checkpoint is left as it was");
    assert_eq!(
        place.fail(&["eval", "run/checkpoint.safetensors"]),
        text.replace("error: ", "error: cannot load a network: ")
    );
    text
}

fn rename(header: &mut Value, from: &str, to: &str) {
    let map = header.as_object_mut().unwrap();
    let tensor = map.remove(from).unwrap();
    map.insert(to.into(), tensor);
}

#[test]
fn damaged_checkpoints_are_refused() {
    let place = Place::new();
    let flags = [
        "train",
        "--dataset",
        "synthetic",
        "--train-limit",
        "64",
        "--test-limit",
        "10",
        "--epochs",
        "1",
    ];
    place.succeed(&[&flags[..], &["--out", "run", "--quiet"]].concat());
    let path = place.path("run/checkpoint.safetensors");
    let good = fs::read(&path).unwrap();
    let file = "error: run/checkpoint.safetensors";

    let text =
        refused_checkpoint(&place, &good, |header, _| rename(header, "conv1.bias", "conv9.bias"));
    assert_eq!(text, format!("{file}: tensor `conv1.bias` is missing"));
    let text = refused_checkpoint(&place, &good, |header, _| {
        let copy = header["conv1.bias"].clone();
        // an empty tensor at the end of another one's bytes: legal, and not ours
        let end = copy["data_offsets"][1].clone();
        header["conv9.bias"] =
            serde_json::json!({ "dtype": "F32", "shape": [0], "data_offsets": [end, end] });
    });
    assert!(text.starts_with(file) && text.contains("conv9.bias"), "{text}");
    let text = refused_checkpoint(&place, &good, |header, _| {
        let tensor = &mut header["conv1.bias"]["shape"];
        *tensor = serde_json::json!([4, 4]);
    });
    assert!(
        text.starts_with(file) && text.contains("conv1.bias") && text.contains("[4, 4]"),
        "{text}"
    );
    let text = refused_checkpoint(&place, &good, |header, data| {
        let start = header["linear1.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
        data[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(text.contains("linear1.weight") && text.contains("NaN"), "{text}");
    check_truncation(&place, &path, &good);
}

fn check_truncation(place: &Place, path: &Path, good: &[u8]) {
    fs::write(path, &good[..good.len() / 2]).unwrap();
    let text = place.fail(&["train", "--resume", "run"]);
    assert!(text.starts_with("error: run/checkpoint.safetensors: "), "{text}");
}
