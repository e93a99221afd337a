//! Kill -9, TERM, HUP, a full disk and a folder that becomes read-only at random moments: the same command goes on and ends with the
//! same bits, and nothing is left that an undisturbed run does not leave.
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
        begin: "$L train --dataset synthetic --train-limit 960 --test-limit 16 --epochs 3 --batch-size 32 --checkpoint-every 0 --out $out",
        again: "if [ -e $out/config.toml ]; then $L train --resume $out; else $L train --dataset synthetic --train-limit 960 --test-limit 16 --epochs 3 --batch-size 32 --out $out; fi",
        results: &["network.safetensors", "metrics.jsonl"],
    },
    Work {
        name: "reproduce",
        begin: "$L reproduce e.toml --quick --checkpoint-every 0 --out $out",
        again: "$L reproduce e.toml --quick --checkpoint-every 0 --out $out",
        results: &[
            "results.json",
            "cells/quick/synthetic-small-bcop-seed0/run/network.safetensors",
        ],
    },
    Work {
        name: "gan",
        begin: "$L gan --dataset synthetic --size 32 --steps 8 --batch-size 8 --critic-width 0.125 --checkpoint-every 0 --out $out",
        again: "$L gan --dataset synthetic --size 32 --steps 8 --batch-size 8 --critic-width 0.125 --checkpoint-every 0 --out $out",
        results: &["generator.safetensors", "samples/step-000008.png"],
    },
    Work {
        name: "wasserstein",
        begin: "$L wasserstein images:b images:c --size 32 --width 0.125 --epochs 3 --epoch-steps 4 --pairs 10 --checkpoint-every 0 --out $out",
        again: "$L wasserstein images:b images:c --size 32 --width 0.125 --epochs 3 --epoch-steps 4 --pairs 10 --checkpoint-every 0 --out $out",
        results: &["critic.safetensors"],
    },
    Work {
        name: "certify",
        begin: "mkdir -p $out && $L certify run --test-limit 300 --out $out/c.json",
        again: "mkdir -p $out && $L certify run --test-limit 300 --out $out/c.json",
        results: &["c.json"],
    },
];

const FAULTS: [&str; 5] = ["KILL", "TERM", "HUP", "full", "read-only"];

/// What bash makes of a line in which `$L` is the command and `$out` the folder.
fn shell(place: &Place, out: &str, line: &str) -> std::process::Output {
    place.shell(&format!("out={out}; L=\"$L --threads 2 --quiet\"; {line}"))
}

fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("e.toml"), one_cell("quick", 3, 640)).unwrap();
    for (folder, shift) in [("b", 0), ("c", 60)] {
        fs::create_dir(place.path(folder)).unwrap();
        for i in 0..24_u8 {
            let pixel = |x, y| image::Luma([((x * y) as u8 ^ i).saturating_add(shift)]);
            let image = image::GrayImage::from_fn(32, 32, pixel);
            image.save(place.path(folder).join(format!("{i}.png"))).unwrap();
        }
    }
    let train =
        "$L train --dataset synthetic --train-limit 64 --test-limit 300 --epochs 1 --out $out";
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

/// The line that disturbs the command, after so many seconds.
fn disturbed(fault: &str, begin: &str, delay: f64, blocks: u32) -> String {
    match fault {
        "full" => format!("trap '' XFSZ; ulimit -f {blocks}; {begin}"),
        "read-only" => format!(
            "mkdir -p $out; ({begin}) & pid=$!; sleep {delay:.3}; chattr +i $out; wait $pid; status=$?; chattr -i $out; exit $status"
        ),
        signal => format!(
            "({}) & pid=$!; sleep {delay:.3}; kill -{signal} $pid; wait $pid",
            begin.replace("$L", "exec $L")
        ),
    }
}

#[test]
#[ignore = "takes some ten minutes; `chattr` must work for the folder that becomes read-only"]
fn the_same_bits_after_a_fault_at_any_moment() {
    let place = place();
    let mut whole = BTreeMap::new();
    for work in &WORKS {
        let (out, start) = (format!("whole-{}", work.name), Instant::now());
        let output = shell(&place, &out, work.begin);
        assert!(
            output.status.success(),
            "{}: {}",
            work.name,
            String::from_utf8_lossy(&output.stderr)
        );
        let dir = place.path(&out);
        let results: Vec<Vec<u8>> =
            work.results.iter().map(|name| content(&dir.join(name))).collect();
        whole.insert(work.name, (start.elapsed(), names(&dir), results));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut hit = BTreeMap::<_, usize>::new();
    for moment in 0..N_MOMENTS {
        let (work, fault) = (&WORKS[moment % 5], FAULTS[moment / 5 % 5]);
        let (time, expected, results) = &whole[work.name];
        let delay = time.mul_f64(rng.random_range(0.0..1.0)).max(Duration::from_millis(1));
        let blocks = rng.random_range(0..2500);
        let out = format!("out-{moment}");
        let line = disturbed(fault, work.begin, delay.as_secs_f64(), blocks);
        let ended = shell(&place, &out, &line).status;
        *hit.entry((fault, ended.success())).or_default() += 1;
        let said =
            format!("{moment}: {} {fault} after {delay:?} or {blocks} KiB ({ended})", work.name);
        let output = shell(&place, &out, work.again);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}: {text}");
        for (name, expected) in work.results.iter().zip(results) {
            assert!(content(&place.path(&out).join(name)) == *expected, "{said}: {name} differs");
        }
        let mut found = names(&place.path(&out));
        found.retain(|name| !expected.contains(name));
        assert!(found.is_empty(), "{said}: {found:?} is left");
        println!("{said}");
        fs::remove_dir_all(place.path(&out)).unwrap();
    }
    println!("ended by itself or not: {hit:?}");
}
