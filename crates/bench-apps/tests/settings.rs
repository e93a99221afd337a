//! Settings that would not count, or would make another run of the one that was begun, are refused; what is extended says where it stands.

use std::fs;

use crate::command::Place;
use crate::exports::trained;
use crate::hostile::train;

fn config(place: &Place) -> String {
    fs::read_to_string(place.path("run/config.toml")).unwrap()
}

#[test]
fn an_evaluation_of_a_run_that_had_not_ended_is_forgotten_at_its_end() {
    let place = trained();
    extend(&place);
    let eval = ["eval", "run", "--quiet", "--pgd-steps", "1", "--strong-restarts", "0"];
    place.succeed(&eval);
    let done = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap().lines().count() + 2;
    assert!(place.path("run/eval.json").exists());
    place.succeed(&["train", "--resume", "run", "--epochs", &done.to_string(), "--quiet"]);
    assert!(!place.path("run/eval.json").exists());
    // without its checkpoint a finished run is not begun anew
    fs::remove_file(place.path("run/checkpoint.safetensors")).unwrap();
    let text = place.fail(&["train", "--resume", "run", "--epochs", "5000", "--quiet"]);
    assert!(text.starts_with("error: run/checkpoint.safetensors is missing"), "{text}");
}

/// Settings that are refused for a new run were taken by earlier versions, whose runs stay readable.
#[test]
fn a_run_with_a_setting_that_does_not_count_is_read() {
    let place = trained();
    let before = config(&place);
    let warm = before.replace("schedule = \"linear\"", "schedule = \"linear\"\nwarm_up = 0.5");
    assert_ne!(warm, before);
    fs::write(place.path("run/config.toml"), warm).unwrap();
    place.succeed(&["inspect", "run"]);
    // the flags have the last word
    fs::write(place.path("c.toml"), "[training]\nrand_augment = { after = 20 }\n").unwrap();
    let print = ["train", "--config", "c.toml", "--epochs", "30", "--print-config"];
    assert!(place.succeed(&print).contains("after = 20"));
}

/// Goes on with the run for many more epochs, and stops it after some of them.
fn extend(place: &Place) {
    let line = "$L train --resume run --epochs 5000 --quiet 2>/dev/null & pid=$!; \
                until [ $(wc -l < run/metrics.jsonl) -gt 2 ] || ! kill -0 $pid; do sleep 0.05; done; \
                kill -TERM $pid; wait $pid; echo $?";
    assert_eq!(String::from_utf8_lossy(&place.shell(line).stdout).trim(), "130");
}

#[test]
fn an_extended_run_is_evaluated_where_it_stands() {
    let place = trained();
    let eval = ["eval", "run", "--quiet", "--pgd-steps", "1", "--strong-restarts", "0"];
    extend(&place);
    let output = place.run(&eval);
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(note.contains("run is a run that has not ended (step "), "{note}");
    let text = place.fail(&["certify", "run", "--out", "c.json", "--quiet"]);
    let expected = "error: run is a run that has not ended; train it with --resume run, or name the \
                    network of its earlier end: run/network-epoch-1.safetensors";
    assert_eq!(text, expected);
    place.succeed(&[
        "certify",
        "run/network-epoch-1.safetensors",
        "--out",
        "c.json",
        "--quiet",
        "--test-limit",
        "2",
        "--dataset",
        "synthetic",
    ]);
    // a plan that was too long is taken back, but not to before what is done
    let text = place.fail(&["train", "--resume", "run", "--epochs", "1", "--quiet"]);
    assert!(text.contains("training.epochs is 1, expected at least "), "{text}");
    let begun = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap().lines().count() + 2;
    place.succeed(&["train", "--resume", "run", "--epochs", &begun.to_string(), "--quiet"]);
    let output = place.run(&eval);
    assert!(
        output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("not ended")
    );
}

#[test]
fn an_extension_that_is_refused_changes_nothing() {
    let place = Place::new();
    for part in ["train", "test"] {
        for class in ["a", "b"] {
            let folder = place.path(&format!("img/{part}/{class}"));
            fs::create_dir_all(&folder).unwrap();
            let value = if class == "a" { 40 } else { 200 };
            let image = image::GrayImage::from_pixel(8, 8, image::Luma([value]));
            image.save(folder.join("1.png")).unwrap();
        }
    }
    place.succeed(&[
        "train",
        "--dataset",
        "images:img",
        "--epochs",
        "1",
        "--quiet",
        "--out",
        "run",
    ]);
    let before = config(&place);
    let longer = ["train", "--resume", "run", "--epochs", "3", "--quiet"];
    fs::rename(place.path("img"), place.path("away")).unwrap();
    place.fail(&longer);
    assert_eq!(config(&place), before);
    fs::rename(place.path("away"), place.path("img")).unwrap();
    let checkpoint = fs::read(place.path("run/checkpoint.safetensors")).unwrap();
    fs::write(place.path("run/checkpoint.safetensors"), &checkpoint[..checkpoint.len() / 2])
        .unwrap();
    place.fail(&longer);
    assert_eq!(config(&place), before);
    fs::write(place.path("run/checkpoint.safetensors"), &checkpoint).unwrap();
    place.succeed(&longer);
    assert_eq!(config(&place), before.replace("epochs = 1\n", "epochs = 3\n"));
}

#[test]
fn a_configuration_that_was_changed_is_refused_by_its_key() {
    let place = trained();
    extend(&place);
    let before = config(&place);
    let resume = ["train", "--resume", "run", "--epochs", "4000", "--quiet"];
    for (from, to, expected) in [
        ("batch_size = 128", "batch_size = 16", "training.batch_size is 16, expected 128"),
        ("batch_size = 128", "batch_size = 4000", "training.batch_size is 4000, expected 128"),
        (
            "learning_rate = 0.001",
            "learning_rate = 0.01",
            "training.learning_rate is 0.01, expected 0.001",
        ),
        (
            r#"augmentation = "none""#,
            r#"augmentation = "crop-flip""#,
            r#"training.augmentation is "crop-flip", expected "none""#,
        ),
        ("[network]", "[network]\ngain = 0.5", "network.gain is 0.5, expected nothing"),
        ("[data]", "init_from = \"/nope\"\n[data]", "init_from is \"/nope\", expected nothing"),
        (
            "[evaluation]",
            "[training.rand_augment]\noperations = 1\n[evaluation]",
            "training.rand_augment.",
        ),
    ] {
        assert!(before.contains(from), "{from} is not in {before}");
        fs::write(place.path("run/config.toml"), before.replacen(from, to, 1)).unwrap();
        let text = place.fail(&resume);
        assert!(text.contains(&format!("run/config.toml: {expected}")), "{text}");
        assert!(text.contains("with which the run began"), "{text}");
    }
    // how it is evaluated may change
    fs::write(place.path("run/config.toml"), before.replacen("every = 1", "every = 2", 1)).unwrap();
    let done = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap().lines().count() + 2;
    place.succeed(&["train", "--resume", "run", "--epochs", &done.to_string(), "--quiet"]);
}

#[test]
fn a_broken_record_of_the_images_is_not_passed_over() {
    let place = trained();
    let eval = ["eval", "run", "--quiet", "--pgd-steps", "1", "--strong-restarts", "0"];
    let path = place.path("run/data.json");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..50]).unwrap();
    let text = place.fail(&eval);
    assert!(text.contains("run/data.json"), "{text}");
    fs::remove_file(&path).unwrap();
    // the configuration names the digits itself, so that nothing is unknown
    place.succeed(&eval);
}

#[test]
fn settings_that_would_not_count_are_refused() {
    let place = trained();
    let margin = ["train", "--recipe", "certified", "--margin", "0.1", "--out", "new"];
    let text = place.fail(&margin);
    assert!(text.starts_with("error: --margin belongs to the hinge loss"), "{text}");
    assert!(!place.path("new").exists());
    for (config, expected) in [
        (
            "warm_up = 0.9",
            "training.warm_up is 0.9, expected 0, as only the schedule cosine warms up",
        ),
        (
            "epochs = 3\nrand_augment = { after = 3 }",
            "training.rand_augment.after is 3, expected fewer than the epochs",
        ),
    ] {
        fs::write(place.path("c.toml"), format!("[training]\n{config}\n")).unwrap();
        let text = place.fail(&["train", "--config", "c.toml", "--out", "new"]);
        assert!(text.contains(expected), "{text}");
    }
    for (attack, flags, expected) in [
        (
            "square",
            &["--steps", "9"][..],
            "--steps belongs to pgd, auto, apgd, fab, boundary, not to --attack square",
        ),
        ("square", &["--step-size", "9"], "--step-size belongs to pgd, not to --attack square"),
        ("square", &["--kappa", "3"], "--kappa belongs to fgsm, pgd, not to --attack square"),
        ("fgsm", &["--to-the-end"], "--to-the-end belongs to pgd, "),
        (
            "boundary",
            &["--restarts", "3"],
            "--restarts belongs to pgd, apgd, fab, square, not to --attack boundary",
        ),
        ("auto", &["--loss", "ce"], "--loss belongs to fgsm, pgd, apgd, not to --attack auto"),
        (
            "pgd",
            &["--max-queries", "3"],
            "--max-queries belongs to auto, square, boundary, pointwise, not to --attack pgd",
        ),
        ("pgd", &["--loss", "ce", "--kappa", "3"], "--kappa belongs to --loss cw"),
    ] {
        let named = ["attack", "run", "--attack", attack, "--eps", "1"];
        let text = place.fail(&[&named[..], flags].concat());
        assert!(text.starts_with(&format!("error: {expected}")), "{text}");
    }
}

#[test]
fn radii_beyond_all_images_are_attacked_like_others() {
    let place = trained();
    for attack in ["fgsm", "pgd", "auto", "boundary"] {
        let named = [
            "attack",
            "run",
            "--attack",
            attack,
            "--eps",
            "1.7e308",
            "--test-limit",
            "2",
            "--quiet",
        ];
        let short = if attack == "fgsm" { &[][..] } else { &["--steps", "2"] };
        place.succeed(&[&named[..], short].concat());
    }
}

/// A network takes images of its own size alone, and a rate that is too large is named as the reason.
#[test]
fn reasons_are_given_in_the_words_of_the_command() {
    let place = Place::new();
    place.succeed(&train(&["--size", "16", "--out", "run"]));
    let certify = ["certify", "run/network.safetensors", "--out", "c.json", "--quiet"];
    let text = place.fail(&certify);
    assert!(
        text.contains("no known data set has images of 1 x 16 x 16; name one with --dataset"),
        "{text}"
    );
    let text = place.fail(&[&certify[..], &["--dataset", "synthetic"]].concat());
    let expected = "synthetic has images of 1 x 28 x 28, expected 1 x 16 x 16, as run/network.safetensors takes them";
    assert!(text.contains(expected), "{text}");
    let text = place.fail(&train(&["--learning-rate", "1e308", "--out", "far"]));
    assert!(
        text.contains("training has diverged after step 1; try a smaller learning rate"),
        "{text}"
    );
    let text = place.fail(&train(&["--checkpoint-every", "1e300", "--out", "far2"]));
    assert_eq!(text, "error: --checkpoint-every is 1e300, expected 0 to 1e18 seconds, or inf");
}

/// A stream of the command and a result in it have one position.
#[cfg(target_os = "linux")]
#[test]
fn a_result_in_a_stream_and_the_lines_around_it_are_all_there() {
    let place = trained();
    for stream in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let line = format!("$L certify run --out {stream} --test-limit 2 --quiet > all.txt");
        assert!(place.shell(&line).status.success());
        let text = fs::read_to_string(place.path("all.txt")).unwrap();
        assert!(text.contains("{\"format\":\"lipconv-certificate\""), "{stream}: {text}");
        assert!(text.contains(&format!("written to {stream}")), "{stream}: {text}");
    }
    let line = "($L inspect run --json /dev/fd/3 >/dev/null; echo the end >&3) 3> all.txt";
    assert!(place.shell(line).status.success());
    let text = fs::read_to_string(place.path("all.txt")).unwrap();
    assert!(text.starts_with('{') && text.ends_with("the end\n"), "{text}");
    // a descriptor that is open for reading is no output, whatever it reads
    let network = fs::read(place.path("run/network.safetensors")).unwrap();
    for line in [
        "$L inspect run/network.safetensors --json /dev/fd/5 5< run/network.safetensors",
        "$L inspect run --json /dev/stdin < run/network.safetensors",
        "$L inspect run --json /proc/self/fd/4 4<> run/network.safetensors",
    ] {
        assert_eq!(place.shell(line).status.code(), Some(1), "{line}");
        assert!(fs::read(place.path("run/network.safetensors")).unwrap() == network, "{line}");
    }
    let line = "$L certify run --out /dev/stderr --test-limit 2 --quiet >/dev/null 2> all.txt";
    assert!(place.shell(line).status.success());
    let text = fs::read_to_string(place.path("all.txt")).unwrap();
    assert!(text.contains("{\"format\":\"lipconv-certificate\""), "{text}");
    // folders are made, and a folder is no file
    place.succeed(&["certify", "run", "--out", "new/er/c.json", "--test-limit", "2", "--quiet"]);
    assert!(place.path("new/er/c.json").is_file());
    let text = place.fail(&["certify", "run", "--out", "new2/", "--test-limit", "2", "--quiet"]);
    assert!(text.starts_with("error: cannot write new2/"), "{text}");
}
