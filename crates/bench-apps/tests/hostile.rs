//! The built command where it is treated badly: odd names, closed streams, links, devices, signals and foreign files.

#[cfg(target_os = "linux")]
mod memory;
mod person;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Stdio;

use crate::command::Place;
use crate::exports::trained;
use crate::interruption::{HANGUP, is_ignored};

/// A very short run: two steps.
const TRAIN: [&str; 10] = [
    "train",
    "--dataset",
    "synthetic",
    "--train-limit",
    "64",
    "--test-limit",
    "16",
    "--epochs",
    "1",
    "--quiet",
];

pub(crate) fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    TRAIN.iter().chain(more).copied().collect()
}

#[test]
fn nothing_is_run_that_a_folder_brings() {
    let place = trained();
    fs::create_dir_all(place.path("crates/bench-apps")).unwrap();
    fs::write(place.path("crates/bench-apps/Cargo.toml"), "").unwrap();
    let setup =
        "git init -q . && git config core.fsmonitor 'touch PWNED #' && git config core.hooksPath .";
    assert!(place.shell(setup).status.success());
    place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "2", "--quiet"]);
    place.succeed(&train(&["--out", "again"]));
    assert!(!place.path("PWNED").exists());
}

#[test]
fn arguments_need_not_be_text() {
    let place = trained();
    let odd = |name: &[u8]| place.path(".").join(OsStr::from_bytes(name));
    let run = |args: &[&str], name: &[u8]| {
        let output = place.command(args).arg(OsStr::from_bytes(name)).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, text) =
        run(&["certify", "run", "--test-limit", "2", "--quiet", "--out"], b"c\xff.json");
    assert_eq!((status, odd(b"c\xff.json").is_file()), (Some(0), true), "{text}");
    let (status, text) = run(&train(&["--out"]), b"r\xff");
    assert_eq!((status, odd(b"r\xff/network.safetensors").is_file()), (Some(0), true), "{text}");
    let (status, text) = run(&["predict", "run"], b"\xff.png");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.starts_with("error: cannot read \u{fffd}.png"), "{text}");
    // where a name must be text, that is said
    let (status, text) = run(&["train", "--dataset"], b"images:\xff");
    assert_eq!(status, Some(2), "{text}");
}

#[test]
fn a_standard_error_that_is_closed_or_full_ends_nothing() {
    let place = trained();
    let eval = "$L eval run --pgd-steps 2 --strong-restarts 0 --test-limit 5 --json";
    for (i, to) in ["2>&-", "2>/dev/full", "2> >(exit 0)"].into_iter().enumerate() {
        let output = place.shell(&format!("{eval} e{i}.json >/dev/null {to}"));
        assert_eq!(output.status.code(), Some(0), "{to}");
        assert!(place.path(&format!("e{i}.json")).is_file(), "{to}");
    }
    let lines = "$L train --dataset synthetic --train-limit 640 --test-limit 16 --epochs 2 --out f2 2> >(head -1 >/dev/null)";
    assert_eq!(place.shell(lines).status.code(), Some(0));
    assert!(place.path("f2/network.safetensors").is_file());
    // an error keeps its status
    assert_eq!(place.shell("$L eval nowhere 2>/dev/full").status.code(), Some(1));
    // a standard output that is full is an error, and one that is closed early is none
    for (line, status) in [
        ("$L --help >/dev/full", 1),
        ("$L train --help >/dev/full", 1),
        ("$L --version >/dev/full", 1),
        ("$L train --nope 2>/dev/full", 2),
        ("set -o pipefail; $L train --help | head -c 0", 0),
    ] {
        assert_eq!(place.shell(line).status.code(), Some(status), "{line}");
    }
}

#[test]
fn an_ignored_signal_stays_ignored_and_others_save() {
    let place = Place::new();
    let train = "$L train --dataset synthetic --train-limit 3000 --test-limit 16 --epochs 2000 --quiet --out";
    let wait = "until [ -s $out/metrics.jsonl ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done";
    for (trap, ignored, signal, out) in [
        ("trap '' HUP;", "kill -HUP $pid;", "TERM", "hup"),
        ("trap '' HUP INT;", "kill -HUP $pid; kill -INT $pid;", "TERM", "int"),
        ("", "", "HUP", "plain"),
    ] {
        if signal == "HUP" && is_ignored(HANGUP) {
            continue;
        }
        // after an ignored signal the history goes on
        let goes_on = "n=$(wc -l < $out/metrics.jsonl); until [ $(wc -l < $out/metrics.jsonl) -gt $n ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done; kill -0 $pid || echo died;";
        let line = format!(
            "out={out}; ({trap} exec {train} $out 2>/dev/null) & pid=$!; {wait}; {ignored} {goes_on} kill -{signal} $pid; wait $pid; echo $?"
        );
        let output = place.shell(&line);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "130", "{trap} {signal}");
        assert!(place.path(out).join("checkpoint.safetensors").is_file());
    }
}

#[test]
fn output_destroys_nothing() {
    let place = trained();
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    let certify =
        |out: &str| place.fail(&["certify", "run", "--test-limit", "2", "--quiet", "--out", out]);
    let network = read("run/network.safetensors");
    let input = "it is an input of this command";
    let text = certify("run/network.safetensors");
    assert_eq!(text, format!("error: cannot write run/network.safetensors: {input}"));
    fs::hard_link(place.path("run/network.safetensors"), place.path("other")).unwrap();
    assert_eq!(certify("other"), format!("error: cannot write other: {input}"));
    let text = place.fail(&["export", "run", "--out", "other"]);
    assert!(text.ends_with(input), "{text}");
    assert_eq!(read("run/network.safetensors"), network);

    fs::write(place.path("kept"), "old").unwrap();
    symlink("kept", place.path("link")).unwrap();
    let eval = [
        "eval",
        "run",
        "--pgd-steps",
        "2",
        "--strong-restarts",
        "0",
        "--test-limit",
        "4",
        "--quiet",
    ];
    let text = place.fail(&[&eval[..], &["--json", "link"]].concat());
    assert!(text.starts_with("error: cannot write link: it is a symbolic link"), "{text}");
    assert!(read("kept") == b"old" && place.path("link").is_symlink());
    let text = place.fail(&["export", "run", "--out", "w.py"]);
    assert!(text.contains("expected a name that does not end in .py"), "{text}");
    let text = place.fail(&["export", "run", "--out", "torch.safetensors"]);
    assert!(text.contains("expected a name that Python can import"), "{text}");

    // devices and pipes are written to
    place.succeed(&[&eval[..], &["--json", "/dev/null"]].concat());
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    let output = place.shell(
        "mkfifo p; cat p > through & $L certify run --test-limit 2 --quiet --out p >/dev/null; wait",
    );
    assert!(output.status.success());
    assert!(read("through").starts_with(b"{\"format\":\"lipconv-certificate\""));
    let text = place.succeed(&[&eval[..], &["--json", "/dev/stdout"]].concat());
    assert!(text.contains("\"n_samples\": 4"), "{text}");
}

#[test]
fn images_are_not_overwritten_by_a_result_about_them() {
    let place = trained();
    for part in ["train", "test"] {
        let folder = place.path(&format!("img/{part}/a"));
        fs::create_dir_all(&folder).unwrap();
        image::GrayImage::from_pixel(28, 28, image::Luma([99])).save(folder.join("1.png")).unwrap();
    }
    let image = fs::read(place.path("img/test/a/1.png")).unwrap();
    let eval =
        ["eval", "run", "--dataset", "images:img", "--pgd-steps", "2", "--strong-restarts", "0"];
    let text = place.fail(&[&eval[..], &["--quiet", "--json", "img/test/a/1.png"]].concat());
    assert!(text.ends_with("it is an input of this command"), "{text}");
    assert_eq!(fs::read(place.path("img/test/a/1.png")).unwrap(), image);
}

#[test]
fn locks_and_logs_follow_no_links() {
    for name in ["run.lock", "log.txt", "checkpoint.safetensors", "metrics.jsonl", "versions.json"]
    {
        let place = Place::new();
        fs::write(place.path("victim"), "precious").unwrap();
        fs::create_dir(place.path("run")).unwrap();
        symlink("../victim", place.path("run").join(name)).unwrap();
        let text = place.fail(&train(&["--out", "run"]));
        assert_eq!(fs::read(place.path("victim")).unwrap(), b"precious", "{name}: {text}");
    }
    // of a run that is resumed, too
    for name in ["run.lock", "log.txt", "clock.json", "metrics.jsonl"] {
        let place = trained();
        fs::write(place.path("victim"), "{}\n").unwrap();
        fs::remove_file(place.path("run").join(name)).unwrap();
        symlink("../victim", place.path("run").join(name)).unwrap();
        place.run(&["train", "--resume", "run", "--quiet"]);
        assert_eq!(fs::read(place.path("victim")).unwrap(), b"{}\n", "{name}");
    }
}

#[test]
fn a_new_run_takes_no_foreign_files_and_leaves_no_folder_that_it_did_not_begin() {
    let place = trained();
    for name in ["network.safetensors", "checkpoint.safetensors", "metrics.jsonl", "data.json"] {
        let folder = place.path("new");
        fs::create_dir(&folder).unwrap();
        fs::copy(place.path("run").join(name), folder.join(name)).unwrap();
        let text = place.fail(&train(&["--out", "new"]));
        assert!(
            text.starts_with(&format!("error: new: holds {name} but no config.toml")),
            "{text}"
        );
        assert_eq!(
            fs::read(folder.join(name)).unwrap(),
            fs::read(place.path("run").join(name)).unwrap()
        );
        fs::remove_dir_all(folder).unwrap();
    }
    place.fail(&train(&["--out", "cuda", "--device", "cuda"]));
    let gan = ["gan", "--dataset", "synthetic", "--size", "32", "--steps", "1", "--out", "gan"];
    place.fail(&[&gan[..], &["--critic-width", "1e9"]].concat());
    assert!(!place.path("cuda").exists() && !place.path("gan").exists());
}

#[test]
fn a_run_has_one_network() {
    let place = trained();
    place.succeed(&train(&["--out", "other", "--seed", "5"]));
    let before = place.succeed(&["predict", "run", "--index", "1"]);
    fs::copy(place.path("other/checkpoint.safetensors"), place.path("run/checkpoint.safetensors"))
        .unwrap();
    assert_eq!(place.succeed(&["predict", "run", "--index", "1"]), before);
    fs::remove_file(place.path("run/checkpoint.safetensors")).unwrap();
    assert_eq!(place.succeed(&["predict", "run", "--index", "1"]), before);
    fs::write(place.path("run/clock.json"), r#"{"step":2,"seconds":-5}"#).unwrap();
    place.succeed(&["inspect", "run"]);
}

#[test]
fn a_clock_of_any_value_ends_no_run() {
    for seconds in ["-5", "1e300", "-1e308"] {
        let place = trained();
        let clock = format!(r#"{{"step":2,"seconds":{seconds}}}"#);
        fs::write(place.path("run/clock.json"), clock).unwrap();
        place.succeed(&["train", "--resume", "run", "--quiet"]);
    }
}

#[test]
fn a_run_knows_its_classes_and_its_images_from_anywhere() {
    let place = Place::new();
    for (part, n) in [("train", 8), ("test", 2)] {
        for (class, at) in [("left", 4), ("right", 18)] {
            for i in 0..n {
                let folder = place.path(&format!("img/{part}/{class}"));
                fs::create_dir_all(&folder).unwrap();
                let bar = |x: u32, y: u32| image::Luma([200 * u8::from(x / 6 == at / 6 && y > i)]);
                let image = image::GrayImage::from_fn(28, 28, bar);
                image.save(folder.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    let args =
        ["train", "--dataset", "images:img", "--epochs", "3", "--batch-size", "8", "--quiet"];
    place.succeed(&[&args[..], &["--out", "run"]].concat());
    fs::create_dir(place.path("elsewhere")).unwrap();
    let output = place.shell("cd elsewhere && $L predict ../run --index 0 ../img/test");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 6, "{text}");
    assert!(rows[5].starts_with("test image 0, a left "), "{text}");
    assert!(rows[1..].iter().all(|row| row.contains("left") || row.contains("right")), "{text}");
    assert!(place.shell("cd elsewhere && $L train --resume ../run -q").status.success());
    fs::create_dir(place.path("empty")).unwrap();
    let text = place.fail(&["predict", "run", "empty"]);
    assert_eq!(text, "error: empty: no image in this folder");
    // a wide picture is squeezed, and that is said
    image::GrayImage::new(84, 28).save(place.path("wide.png")).unwrap();
    let output =
        place.command(&["predict", "run", "wide.png"]).stdout(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "note: wide.png: 28 x 84 pixels are squeezed to 28 x 28\n");
}

#[test]
fn names_from_files_move_no_cursor() {
    let place = trained();
    let name = "a\u{1b}[2K\rb.png";
    image::GrayImage::new(28, 28).save(place.path(name)).unwrap();
    let text = place.succeed(&["predict", "run", name]);
    assert!(text.contains("a\\u{1b}[2K\\rb.png") && !text.contains('\u{1b}'), "{text:?}");
    fs::write(place.path("bad\u{9b}2K.png"), "x").unwrap();
    let text = place.fail(&["predict", "run", "bad\u{9b}2K.png"]);
    assert!(text.contains("bad\\u{9b}2K.png: not an image"), "{text:?}");
}

#[test]
fn permissions_follow_the_umask_in_every_file() {
    let place = Place::new();
    for (umask, mode) in [("022", "644"), ("077", "600")] {
        let line = format!(
            "umask {umask}; $L {} --out r{umask} && cd r{umask} && stat -c '%a' *.toml *.json *.safetensors *.jsonl log.txt | sort -u",
            TRAIN.join(" ")
        );
        let output = place.shell(&line);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().last(), Some(mode), "{text}");
        assert_eq!(text.lines().filter(|line| line.len() == 3).count(), 1, "{text}");
    }
}

/// A file of weights: a header of the format and the numbers.
fn weights_file(place: &Place, name: &str, input: [usize; 3], kernel: usize) {
    let layer = r#"{"type":"cyclic-conv","downsample":1,"bias":false},{"type":"flatten"}"#;
    let [channels, height, width] = input;
    let network = format!(
        r#"{{"kind":"plain-network","format":1,"dtype":"f32","input":{{"channels":{channels},"height":{height},"width":{width}}},"layers":[{layer}]}}"#
    );
    let n = 4 * kernel * kernel;
    let header = serde_json::json!({
        "__metadata__": { "lipconv": network },
        "conv1.weight": { "dtype": "F32", "shape": [1, 1, kernel, kernel], "data_offsets": [0, n] },
    });
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(place.path(name), [&length[..], header.as_bytes(), &vec![0; n]].concat()).unwrap();
}

#[test]
fn weights_of_a_few_bytes_ask_for_no_memory() {
    let place = trained();
    place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "2", "--quiet"]);
    image::GrayImage::new(28, 28).save(place.path("x.png")).unwrap();
    for (side, values) in [(8192, 67_108_864_u64), (1 << 40, u64::MAX)] {
        weights_file(&place, "big.st", [1, side, side], 5);
        for args in [
            &["inspect", "big.st"][..],
            &["predict", "big.st", "x.png"],
            &["certify", "big.st", "--out", "big.json"],
            &["eval", "big.st"],
            &["attack", "big.st", "--attack", "fgsm", "--eps", "1"],
            &["export", "big.st"],
        ] {
            let text = place.fail(args);
            let end = format!("an image has {values} values, expected at most 4194304");
            assert!(text.ends_with(&end), "{text}");
        }
        let verify = ["verify", "c.json", "--model", "big.st", "--dataset", "synthetic"];
        assert!(place.fail(&verify).contains(" is refused: "));
    }
    // more classes than there are pairs to keep
    weights_file(&place, "many.st", [1, 100, 100], 3);
    let text = place.fail(&["predict", "many.st", "x.png"]);
    assert!(text.contains("number of classes is 10000, expected at most 4096"), "{text}");
}

#[test]
fn an_honest_certificate_of_a_layer_of_zeros_is_confirmed() {
    let place = trained();
    crate::command::edit_safetensors(&place.path("run/network.safetensors"), |header, data| {
        let offsets = &header["linear2.weight"]["data_offsets"];
        let at = |i: usize| offsets[i].as_u64().unwrap() as usize;
        data[at(0)..at(1)].fill(0);
    });
    place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "4", "--quiet"]);
    let text = place.succeed(&["verify", "c.json", "--model", "run", "--quiet"]);
    assert!(text.starts_with("c.json is confirmed, in "), "{text}");
}

#[test]
fn an_experiment_stays_in_its_folder() {
    let place = Place::new();
    let experiment = |datasets: &str, networks: &str| {
        let text = format!(
            "name = \"t\"\ntitle = \"T\"\n[[cells]]\ndatasets = [{datasets}]\nnetworks = [{networks}]\nmethods = [\"bcop\"]\n\
             [budgets.quick]\nseeds = [0]\nschedule = \"linear\"\nsmall = {{ epochs = 1, train_limit = 64, test_limit = 16 }}\n"
        );
        fs::write(place.path("e.toml"), text).unwrap();
    };
    experiment("\"synthetic\"", "\"../../../outside/x\"");
    let text = place.fail(&["reproduce", "e.toml", "--quick", "--out", "deep/o"]);
    assert!(text.contains("is ../../../outside/x, expected "), "{text}");
    assert!(!place.path("deep").exists());
    // the folder of a cell has the name of its data set in it
    experiment("\"images:../../../outside\", \"idx:/outside\"", "\"small\"");
    let output = place.run(&["reproduce", "e.toml", "--quick", "--out", "deep/o", "--quiet"]);
    assert_eq!(output.status.code(), Some(1));
    let cells: Vec<_> = fs::read_dir(place.path("deep/o/cells/quick")).unwrap().collect();
    assert_eq!(cells.len(), 2);
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 2, "e.toml and deep");
}

#[test]
fn a_batch_script_holds_what_was_asked_for_and_no_more() {
    let place = Place::new();
    let print = |out: &str, more: &[&str]| {
        let args =
            ["reproduce", "table1", "--quick", "--executor", "slurm", "--print", "--out", out];
        place.run(&[&args[..], more].concat())
    };
    let text = String::from_utf8(print("my out%j", &[]).stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("#SBATCH --output=")).unwrap();
    assert!(line.ends_with("/my out%%j/slurm/1/%A_%a.log\""), "{line}");
    for (out, more) in [
        ("a\nb", &[][..]),
        ("o", &["--partition", "a\nrm -rf x"]),
        ("o", &["--time", "1 # x"]),
        ("o", &["--account", "$(x)"]),
    ] {
        let output = print(out, more);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(output.stdout.is_empty() && text.contains("expected "), "{text}");
    }
}

#[test]
fn numbers_below_0_and_radii_in_disorder_get_the_flags_own_message() {
    let place = trained();
    for (args, expected) in [
        (&["train", "--seed", "-1"][..], "invalid value '-1' for '--seed <N>'"),
        (&["train", "--epochs", "-1"], "invalid value '-1' for '--epochs <N>'"),
        (&["wasserstein", "mnist", "cifar10", "--size", "-3"], "invalid value '-3' for '--size <"),
        (&["attack", "run", "--attack", "pgd", "--eps", "-1"], "expected a positive number"),
        (&["attack", "run", "--attack", "pgd", "--eps", "-1/-2"], "expected a positive number"),
    ] {
        let output = place.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(expected), "{text}");
    }
    for args in [
        &["certify", "run", "--out", "c.json"][..],
        &["eval", "run"],
        &["verify", "run/network.safetensors", "--model", "run"],
    ] {
        for eps in ["0.5,0.25", "0.5,0.50"] {
            let text = place.fail(&[args, &["--eps", eps]].concat());
            let is_eps = text.contains(", expected at least one radius, in ascending order");
            assert!(is_eps || text.contains("is refused: certificate"), "{text}");
        }
    }
}

#[test]
fn images_are_brought_to_the_size_that_is_asked_for_and_a_run_remembers_it() {
    let place = Place::new();
    let args = train(&["--out", "run", "--size", "30"]);
    // 30 x 30 does not fit the network
    let text = place.fail(&args);
    assert!(text.contains("image height 15 is not divisible by the stride 2"), "{text}");
    place.succeed(&train(&["--out", "run", "--size", "32"]));
    let text =
        place.succeed(&["certify", "run", "--out", "c.json", "--test-limit", "4", "--quiet"]);
    assert!(text.contains("4 images, written to c.json"), "{text}");
    let text = place.succeed(&["verify", "c.json", "--model", "run", "--quiet"]);
    assert!(text.contains("synthetic digits"), "{text}");
    let certificate = fs::read_to_string(place.path("c.json")).unwrap();
    assert!(certificate.contains("\"name\":\"synthetic digits at 32 x 32\""), "{certificate}");
    assert!(place.succeed(&["inspect", "run"]).contains("images 1 x 32 x 32"));
    place.succeed(&["train", "--resume", "run", "--quiet"]);
}

#[test]
fn a_single_class_has_no_radius() {
    let place = Place::new();
    for part in ["train", "test"] {
        let folder = place.path(&format!("solo/{part}/a"));
        fs::create_dir_all(&folder).unwrap();
        image::GrayImage::from_pixel(28, 28, image::Luma([99])).save(folder.join("1.png")).unwrap();
    }
    place.succeed(&[
        "train",
        "--dataset",
        "images:solo",
        "--epochs",
        "1",
        "--quiet",
        "--out",
        "run",
    ]);
    let text = place.succeed(&["predict", "run", "solo/test"]);
    let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[1..], ["a", "any", "any", "any"], "{text}");
}
