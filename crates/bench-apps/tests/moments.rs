//! Kill -9, TERM, HUP, a terminal that goes away, a full disk, a limit of sizes and a folder that becomes read-only at random moments:
//! the same command goes on and ends with the same bits, and nothing is left that an undisturbed run does not leave.
//!
//!     cargo test --workspace --test main moments -- --ignored --nocapture
//!
//! 100 moments, some ten minutes. They follow from one seed and from the time that each command takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::command::Place;
use crate::interruption::timeless;
use crate::reproduction::one_cell;

const N_MOMENTS: usize = 100;
/// The network of the one cell.
const CELL: &str = "cells/quick/images_d-small-bcop-seed0/run/network.safetensors";

/// A command that writes into `$out`, how the same person goes on with it, and the files that must be the same.
struct Work {
    name: &'static str,
    begin: &'static str,
    again: &'static str,
    results: &'static [&'static str],
}

const WORKS: [Work; 5] = [
    Work {
        name: "train",
        begin: "$L train --dataset images:d --epochs 3 --batch-size 16 --checkpoint-every 0 --out $out",
        again: "if [ -e $out/config.toml ]; then $L train --resume $out; else $L train --dataset images:d --epochs 3 --batch-size 16 --out $out; fi",
        results: &["network.safetensors", "metrics.jsonl"],
    },
    Work {
        name: "reproduce",
        begin: "$L reproduce e.toml --quick --checkpoint-every 0 --out $out",
        again: "$L reproduce e.toml --quick --checkpoint-every 0 --out $out",
        results: &["results.json", CELL],
    },
    Work {
        name: "gan",
        begin: "$L gan --dataset images:d --size 32 --steps 8 --batch-size 8 --critic-width 0.125 --checkpoint-every 0 --out $out",
        again: "$L gan --dataset images:d --size 32 --steps 8 --batch-size 8 --critic-width 0.125 --checkpoint-every 0 --out $out",
        results: &["generator.safetensors", "samples/step-000008.png"],
    },
    Work {
        name: "wasserstein",
        begin: "$L wasserstein images:b images:c --width 0.125 --epochs 3 --epoch-steps 4 --pairs 10 --checkpoint-every 0 --out $out",
        again: "$L wasserstein images:b images:c --width 0.125 --epochs 3 --epoch-steps 4 --pairs 10 --checkpoint-every 0 --out $out",
        results: &["critic.safetensors"],
    },
    Work {
        name: "certify",
        begin: "mkdir -p $out && $L certify run --out $out/c.json",
        again: "mkdir -p $out && $L certify run --out $out/c.json",
        results: &["c.json"],
    },
];

const FAULTS: [&str; 7] = ["KILL", "TERM", "HUP", "terminal", "full", "limit", "read-only"];

/// What bash makes of a line in which `$L` is the command and `$out` the folder.
fn shell(place: &Place, out: &str, line: &str) -> std::process::Output {
    place.shell(&format!("out={out}; L=\"$L --threads 2 --quiet\"; {line}"))
}

/// Small images, which make small networks: two classes of 8 x 8 pixels, and two heaps of 32 x 32.
fn place() -> Place {
    let place = Place::new();
    let experiment = one_cell("quick", 3, 64).replace("\"synthetic\"", "\"images:d\"");
    fs::write(place.path("e.toml"), experiment).unwrap();
    let draw = |folder: &str, n: u8, side: u32, shift: u8| {
        let folder = place.path(folder);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..n {
            let pixel = |x, y| image::Luma([((x * y) as u8 ^ i).saturating_add(shift)]);
            let image = image::GrayImage::from_fn(side, side, pixel);
            image.save(folder.join(format!("{i}.png"))).unwrap();
        }
    };
    for (class, shift) in [("d/train/a", 0), ("d/train/b", 60), ("d/test/a", 5), ("d/test/b", 70)] {
        draw(class, 80, 8, shift);
    }
    draw("b", 24, 32, 0);
    draw("c", 24, 32, 60);
    let train = "$L train --dataset images:d --epochs 1 --out $out";
    assert!(shell(&place, "run", train).status.success());
    place
}

/// The names of all files below a folder.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                names.push(path.strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    names.sort();
    names
}

/// JSON without times, or the bytes.
fn content(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let values: Result<Vec<Value>, _> = match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => lines.map(serde_json::from_slice).collect(),
        Some("json") => serde_json::from_slice(&bytes).map(|value| vec![value]),
        _ => return bytes,
    };
    let mut values = Value::from(values.unwrap());
    timeless(&mut values);
    values.to_string().into_bytes()
}

/// What an undisturbed run leaves.
struct Whole {
    time: Duration,
    names: Vec<PathBuf>,
    results: Vec<Vec<u8>>,
    /// KiB of the largest file and of all.
    size: (u64, u64),
}

impl Whole {
    fn new(place: &Place, work: &Work) -> Self {
        let (out, start) = (format!("whole-{}", work.name), Instant::now());
        let output = shell(place, &out, work.begin);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {text}", work.name);
        let (time, dir) = (start.elapsed(), place.path(&out));
        let names = names(&dir);
        let sizes = names.iter().map(|name| fs::metadata(dir.join(name)).unwrap().len() / 1024);
        let size = (sizes.clone().max().unwrap_or(0), sizes.sum());
        let results = work.results.iter().map(|name| content(&dir.join(name))).collect();
        Self { time, names, results, size }
    }
}

/// The line that disturbs the command, after a share of its time, or of its files.
fn disturbed(fault: &str, begin: &str, whole: &Whole, share: f64) -> String {
    let delay = whole.time.mul_f64(share).as_secs_f64().max(0.001);
    let kib = |size: u64| (1.1 * share * size as f64) as u64 + 1;
    let alone = begin.replace("$L", "exec $L");
    match fault {
        // a disk of its own, which is enlarged afterwards
        "full" => format!(
            "mkdir -p $out; mount -t tmpfs -o size={}k none $out; ({begin}); status=$?; mount -o remount,size=1g $out; exit $status",
            kib(whole.size.1)
        ),
        "limit" => format!("trap '' XFSZ; ulimit -f {}; {begin}", kib(whole.size.0)),
        "read-only" => format!(
            "mkdir -p $out; ({begin}) & pid=$!; sleep {delay:.3}; chattr +i $out; wait $pid; status=$?; chattr -i $out; exit $status"
        ),
        // its terminal goes away, to which it writes; it is no child of this shell then, and is waited for otherwise
        "terminal" => format!(
            "export out L=${{L% --quiet}}; rm -f pid; script -qec 'echo $$ >pid; {alone}' /dev/null >/dev/null & script=$!; \
             until [ -s pid ]; do sleep 0.01; done; sleep {delay:.3}; kill -KILL $script; wait $script; status=$?; \
             while grep -qs '^State:.[^Z]' /proc/$(cat pid)/status; do sleep 0.02; done; exit $status"
        ),
        signal => {
            format!("({alone}) & pid=$!; sleep {delay:.3}; kill -{signal} $pid; wait $pid")
        }
    }
}

/// What is wrong after the same command went on.
fn fault_after(place: &Place, work: &Work, out: &str, whole: &Whole) -> Option<String> {
    let output = shell(place, out, work.again);
    if !output.status.success() {
        return Some(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    for (name, expected) in work.results.iter().zip(&whole.results) {
        if content(&place.path(out).join(name)) != *expected {
            return Some(format!("{name} differs"));
        }
    }
    let mut found = names(&place.path(out));
    found.retain(|name| !whole.names.contains(name));
    (!found.is_empty()).then(|| format!("{found:?} is left"))
}

#[test]
#[ignore = "takes some ten minutes; `mount` and `chattr` need root, and disturb nothing without"]
fn the_same_bits_after_a_fault_at_any_moment() {
    let place = place();
    let wholes = WORKS.each_ref().map(|work| Whole::new(&place, work));
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let (mut hit, mut faults) = (BTreeMap::<_, usize>::new(), Vec::new());
    for moment in 0..N_MOMENTS {
        let (work, whole) = (&WORKS[moment % 5], &wholes[moment % 5]);
        let fault = FAULTS[moment / 5 % FAULTS.len()];
        let (share, out) = (rng.random_range(0.0..1.0), format!("out-{moment}"));
        let line = disturbed(fault, work.begin, whole, share);
        let ended = shell(&place, &out, &line).status;
        *hit.entry((fault, ended.success())).or_default() += 1;
        let said = format!("{moment}: {} {fault} at {share:.3} ({ended})", work.name);
        println!("{said}");
        if let Some(fault) = fault_after(&place, work, &out, whole) {
            println!("  {fault}");
            faults.push(format!("{said}: {fault}"));
        }
        shell(&place, &out, "mountpoint -q $out && umount $out");
        fs::remove_dir_all(place.path(&out)).unwrap();
    }
    println!("ended by itself or not: {hit:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}
