//! The command on the CUDA engine, its device emulated: trained, evaluated and measured.

use crate::command::Place;

const TRAIN: [&str; 14] = [
    "train",
    "--dataset",
    "synthetic",
    "--train-limit",
    "20",
    "--test-limit",
    "20",
    "--epochs",
    "2",
    "--batch-size",
    "8",
    "--quiet",
    "--device",
    "emulated",
];

#[test]
fn a_run_on_the_engine_is_trained_evaluated_and_repeated_to_the_bit() {
    let place = Place::new();
    let train =
        |out: &'static str| TRAIN.iter().chain(&["--out", out]).copied().collect::<Vec<_>>();
    let text = place.succeed(&train("one"));
    assert!(text.contains("test accuracy"), "{text}");
    let log = std::fs::read_to_string(place.path("one/log.txt")).unwrap();
    assert!(log.contains("CUDA engine"), "{log}");
    place.succeed(&train("other"));
    let network = |run: &str| std::fs::read(place.path(run).join("network.safetensors")).unwrap();
    assert!(network("one") == network("other"), "two runs of the same settings differ");
    // evaluated and attacked on the engine, as it was trained
    let text = place.succeed(&["eval", "one", "--pgd-steps", "2", "--quiet"]);
    assert!(text.contains("20 test images of synthetic digits"), "{text}");
}

#[test]
fn steps_and_forward_passes_are_measured() {
    let place = Place::new();
    for what in ["step", "infer"] {
        let args =
            ["bench", what, "--device", "emulated", "--batch", "2", "--repeat", "3", "--quiet"];
        let text = place.succeed(&args);
        assert!(text.contains(&format!("{what} small-mnist")), "{text}");
    }
}
