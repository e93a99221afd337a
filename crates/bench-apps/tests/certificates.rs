//! `certify`, `verify` and `attack` on a run of synthetic digits.

use std::fs;

use serde_json::Value;

use crate::command::Place;

/// What is printed, as JSON.
fn check_json(place: &Place) {
    let json = |args: &[&str]| -> Value {
        place.succeed(&[args, &["--json", "found.json"]].concat());
        let text = fs::read_to_string(place.path("found.json")).unwrap();
        fs::remove_file(place.path("found.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let number = |value: &Value| value.as_f64().unwrap();
    let found = json(&["inspect", "run"]);
    assert_eq!(
        (&found["input"], number(&found["n_classes"])),
        (&serde_json::json!([1, 28, 28]), 10.0)
    );
    let bounded: Vec<&Value> =
        found["layers"].as_array().unwrap().iter().filter(|l| !l["weight"].is_null()).collect();
    assert_eq!(bounded.len(), 4);
    for layer in &bounded {
        let [min, max] = [0, 1].map(|i| number(&layer["singular_values"][i]));
        assert!(min <= max && max <= number(&layer["bound"]), "{layer}");
    }
    let product: f64 = bounded.iter().map(|layer| number(&layer["bound"])).product();
    assert!((number(&found["lipschitz_bound"]) / product - 1.0).abs() < 1e-9, "{found}");

    let found = json(&["predict", "run", "--index", "3", "--index", "8"]);
    assert_eq!(found["arithmetic"], "f32_blocked");
    let table = place.succeed(&["predict", "run", "--index", "3", "--index", "8"]);
    for (row, found) in table.lines().skip(1).zip(found["predictions"].as_array().unwrap()) {
        assert!(row.starts_with(found["image"].as_str().unwrap()), "{row} {found}");
        let radius = number(&found["radius"]);
        assert!(row.contains(&format!("{:.4}", (radius * 1e4).floor() / 1e4)), "{row} {found}");
        assert!(radius <= number(&found["nominal"]) * 1.001 && found["runner_up"].is_string());
    }

    let verify = ["verify", "certificate.json", "--model", "run", "--quiet"];
    let found =
        json(&[&verify[..], &["--samples", "5", "--seed", "4", "--eps", "0.1,1.58"]].concat());
    assert_eq!(
        [&found["n_checked"], &found["n_samples"], &found["seed"]].map(number),
        [5.0, 200.0, 4.0]
    );
    let [wide, narrow] = [0, 1].map(|i| &found["certified"][i]);
    assert!(number(&wide["real"]) >= number(&narrow["executed"]["f32_blocked"]), "{found}");
    assert!(number(&wide["executed"]["f64"]) >= number(&wide["executed"]["f32"]), "{found}");
    check_inputs_are_kept(place);
}

/// No result replaces the certificate or a file of the run.
fn check_inputs_are_kept(place: &Place) {
    let verify = ["verify", "certificate.json", "--model", "run", "--quiet"];
    for input in ["certificate.json", "run/network.safetensors"] {
        let before = fs::read(place.path(input)).unwrap();
        let text = place.fail(&[&verify[..], &["--samples", "1", "--json", input]].concat());
        assert!(text.ends_with("it is an input of this command"), "{text}");
        assert_eq!(fs::read(place.path(input)).unwrap(), before);
    }
    let commands = [
        &["inspect", "run", "--json"][..],
        &["predict", "run", "--index", "3", "--json"],
        &["certify", "run", "--test-limit", "1", "--quiet", "--out"],
        &[
            "attack",
            "run",
            "--attack",
            "fgsm",
            "--eps",
            "1",
            "--test-limit",
            "1",
            "--quiet",
            "--json",
        ],
    ];
    for input in
        ["network.safetensors", "config.toml", "metrics.jsonl", "versions.json", "data.json"]
    {
        let input = format!("run/{input}");
        let before = fs::read(place.path(&input)).unwrap();
        for command in commands {
            let text = place.fail(&[command, &[&input]].concat());
            assert!(text.ends_with("it is an input of this command"), "{command:?}: {text}");
            assert_eq!(fs::read(place.path(&input)).unwrap(), before, "{command:?}");
        }
    }
    fs::write(place.path("other.json"), "{}").unwrap();
    place.fail(&["verify", "other.json", "--model", "run", "--json", "found.json"]);
    assert!(!place.path("found.json").exists());
    fs::remove_file(place.path("other.json")).unwrap();
}

/// Writes a certificate of the run, checks it, and spoils it in several ways.
pub(crate) fn check_certificates(place: &Place) {
    let text = place.succeed(&["certify", "run", "--out", "certificate.json", "--quiet"]);
    assert!(text.contains("  f32_accumulate_f64  "), "{text}");
    assert!(text.ends_with("200 images, written to certificate.json\n"), "{text}");
    // the radii of the data set
    for eps in ["0.25 ", "1.58 ", "2.5 "] {
        assert!(text.lines().any(|line| line.starts_with(eps)), "{eps}: {text}");
    }
    let verify = ["verify", "certificate.json", "--model", "run", "--quiet"];
    let text = place.succeed(&verify);
    assert!(text.starts_with("certificate.json is confirmed, in "), "{text}");
    for part in [
        "\nimages   all 200 images of the synthetic digits, which this program draws; synthetic digits drawn by the program, seed ",
        "\nweights  4 layers with proven norms; SHA-256 ",
        "\nchecked  the claims about 200 of 200 images\n",
        "\ncertified at  ",
        "\n1.58 ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    check_choice(place);
    check_json(place);

    let path = place.path("certificate.json");
    let good = fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        place.fail(&verify)
    };
    let raised = |pointer: &str, factor: f64| {
        let mut value: Value = serde_json::from_str(&good).unwrap();
        let number = value.pointer_mut(pointer).unwrap();
        *number = (number.as_f64().unwrap() * factor).into();
        value.to_string()
    };
    let value: Value = serde_json::from_str(&good).unwrap();
    let samples = value["samples"].as_array().unwrap();
    let i = samples.iter().position(|s| s["real"].as_f64().unwrap() > 0.1).unwrap();
    let text = refused(&raised(&format!("/samples/{i}/real"), 1.0 + 1e-6));
    let start = "error: certificate.json is refused: ";
    assert!(text.starts_with(&format!("{start}samples[{i}].real: is ")), "{text}");
    let text = refused(&raised("/layers/1/lipschitz", 1.0 - 1e-5));
    assert!(text.starts_with(&format!("{start}layers[1].lipschitz: ")), "{text}");
    let text = refused(&good[..good.len() / 2]);
    assert_eq!(
        text,
        format!("{start}certificate: ends too early, expected a complete JSON object")
    );
    let text = refused(&good.replace("\"version\":1", "\"version\":2"));
    assert_eq!(text, format!("{start}version: is 2, expected 1: a later program wrote it"));
    fs::write(&path, &good).unwrap();
    check_choice_of_images(place);
    check_other_weights(place, start);
}

/// Part of the claims, chosen anew each time unless a seed is given.
fn check_choice(place: &Place) {
    let some = ["verify", "certificate.json", "--model", "run/network.safetensors"];
    let some = [&some[..], &["--dataset", "synthetic", "--samples", "20", "--quiet"]].concat();
    let seed = || {
        let text = place.succeed(&some);
        let (_, rest) = text.split_once("20 of 200 images, chosen at random (--seed ").unwrap();
        rest.split(' ').next().unwrap().to_owned()
    };
    let (first, second) = (seed(), seed());
    assert_ne!(first, second);
    let text = place.succeed(&[&some[..], &["--seed", &first]].concat());
    assert!(text.contains(&format!("chosen by seed {first}: not at random")), "{text}");
    let none = ["verify", "certificate.json", "--model", "run", "--samples", "0"];
    let output = place.run(&none);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("0 is not in 1.."), "{text}");
}

/// A run whose configuration names the images, and a name that is not theirs.
fn check_choice_of_images(place: &Place) {
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("dataset = \"synthetic\""), "{config}");
    let own = config.replace("dataset = \"synthetic\"", "dataset = \"idx:easy\"");
    fs::write(place.path("run/config.toml"), own).unwrap();
    let verify = ["verify", "certificate.json", "--model", "run", "--quiet"];
    let text = place.fail(&verify);
    assert!(text.ends_with("if you trust these images, name them: --dataset idx:easy"), "{text}");
    let named = [&verify[..], &["--dataset", "synthetic"]].concat();
    place.succeed(&named);
    fs::write(place.path("run/config.toml"), config).unwrap();
    let path = place.path("certificate.json");
    let good = fs::read_to_string(&path).unwrap();
    let value: Value = serde_json::from_str(&good).unwrap();
    let name = value["data"]["name"].as_str().unwrap();
    for lie in ["MNIST", "mnist", "CIFAR-10"] {
        let from = format!("\"name\":\"{name}\",\"sha256\"");
        assert!(good.contains(&from), "{from}");
        fs::write(&path, good.replace(&from, &format!("\"name\":\"{lie}\",\"sha256\""))).unwrap();
        let text = place.fail(&verify);
        assert!(
            text.contains(" is refused: data.name: is ") && text.ends_with(" test set"),
            "{text}"
        );
    }
    fs::write(&path, good).unwrap();
}

fn check_other_weights(place: &Place, start: &str) {
    let mut weights = fs::read(place.path("run/network.safetensors")).unwrap();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    fs::write(place.path("flipped.safetensors"), weights).unwrap();
    let verify = ["verify", "certificate.json", "--model", "flipped.safetensors", "--quiet"];
    let text = place.fail(&[&verify[..], &["--dataset", "synthetic"]].concat());
    assert!(text.starts_with(&format!("{start}model.sha256: is ")), "{text}");
    let text = place.fail(&["certify", "nothing.safetensors", "--out", "x.json"]);
    assert!(
        text.starts_with("error: cannot load a network: cannot read nothing.safetensors"),
        "{text}"
    );
    assert!(!place.path("x.json").exists());
}

/// Every attack on a few images, with its table and its file.
pub(crate) fn check_attacks(place: &Place) {
    let attacks = ["fgsm", "pgd", "boundary", "pointwise", "auto", "apgd", "fab", "square"];
    for attack in attacks {
        let args = ["attack", "run", "--attack", attack, "--eps", "1.58", "--test-limit", "12"];
        let args = [&args[..], &["--json", "attack.json", "--quiet"]].concat();
        let budget: &[&str] = match attack {
            "auto" => &["--steps", "20", "--max-queries", "30", "--attack-certified"],
            "square" => &["--max-queries", "30"],
            "fgsm" | "pointwise" => &[],
            _ => &["--steps", "20"],
        };
        let args = [&args[..], budget].concat();
        let text = place.succeed(&args);
        assert!(text.starts_with("12 test images of synthetic digits"), "{text}");
        let name = match attack {
            "apgd" => "apgd-t",
            "fab" => "fab-t",
            name => name,
        };
        assert!(text.contains(&format!("under {name} at 1.58")), "{text}");
        let end = "no image was broken inside its certified radius (f32_blocked)\n";
        assert!(text.ends_with(end), "{text}");
        let json = fs::read_to_string(place.path("attack.json")).unwrap();
        let value: Value = serde_json::from_str(&json).unwrap();
        let distances = value["distances"].as_array().unwrap();
        let broken = value["broken"].as_array().unwrap();
        assert_eq!((distances.len(), broken.len()), (12, 12));
        for (distance, broken) in distances.iter().zip(broken) {
            let near = distance.as_f64().is_some_and(|d| d <= 1.58 * (1.0 + 1e-6));
            assert!(near || broken == &Value::Bool(false), "{attack}");
        }
        let (clean, accuracy) = (value["clean"].as_f64().unwrap(), value["accuracy"].as_f64());
        assert!(accuracy.unwrap() <= clean);
        assert_eq!(value["radii"].as_array().map(Vec::len), Some(12));
        let parts = value["parts"].as_array().map(Vec::len);
        assert_eq!(parts, (attack == "auto").then_some(4));
    }
    for (attack, loss, others) in
        [("pgd", "dlr-t", "fgsm and pgd"), ("apgd", "cw", "--attack apgd")]
    {
        let text = place.fail(&["attack", "run", "--attack", attack, "--eps", "1", "--loss", loss]);
        let start = format!("error: --loss {loss} belongs to ");
        assert!(text.starts_with(&start) && text.contains(&format!("{others} take")), "{text}");
    }
    let args = ["attack", "run", "--attack", "pgd", "--eps", "1", "--architecture", "kw-small"];
    let text = place.fail(&args);
    assert!(text.starts_with("error: cannot read run: "), "{text}");
    let text = place.fail(&[
        "attack",
        "run",
        "--attack",
        "pgd",
        "--eps",
        "1",
        "--restarts",
        "0",
        "--quiet",
    ]);
    assert_eq!(text, "error: restarts is 0, expected 1 to 65536");
}

/// Claims about the run's network: some that hold, some that do not, some that nobody can read.
pub(crate) fn check_audit(place: &Place) {
    let audit = |more: &[&str]| {
        let args = ["audit", "run", "--test-limit", "20", "--quiet"];
        let output = place.command(&[&args[..], more].concat()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (status, text) = audit(&["--claimed-constant", "1.01", "--json", "audit.json"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("\nclaimed: at most 1.01, proved\n"), "{text}");
    assert!(text.contains("\n20 test images of synthetic digits, "), "{text}");
    let report = fs::read_to_string(place.path("audit.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let exact: Vec<f64> = serde_json::from_value(report["radii"]["exact"].clone()).unwrap();
    assert_eq!(exact.len(), 20);
    assert!(report["constant"]["at_least"].as_f64().unwrap() > 0.1);
    let (status, text) = audit(&["--claimed-constant", "0.01"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("\nclaimed: at most 0.01, refuted\n"), "{text}");
    let claim = |radii: &[f64]| {
        let radii = serde_json::to_string(radii).unwrap();
        fs::write(place.path("radii.json"), radii).unwrap();
        audit(&["--claimed-radii", "radii.json"])
    };
    let (status, text) = claim(&exact);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("claimed radii: 20 proved, 0 refuted, 0 open\n"), "{text}");
    let far: Vec<f64> = exact.iter().map(|radius| 20.0 + radius).collect();
    let (status, text) = claim(&far);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("claimed radii: 0 proved, 20 refuted, 0 open\n"), "{text}");
    for (radii, expected) in [
        (&exact[1..], "error: radii.json holds 19 radii, expected 20, one for each image"),
        (&[-1.0; 20][..], "error: radii.json: radius 0 is -1, expected a number not below 0"),
    ] {
        let (status, text) = claim(radii);
        assert_eq!((status, text.trim_end()), (Some(1), expected));
    }
    let (_, text) = audit(&["--claimed-constant", "-1"]);
    assert_eq!(text.trim_end(), "error: --claimed-constant is -1, expected a positive number");
    let (_, text) = audit(&["--claimed-radii", "none.json"]);
    assert_eq!(text.trim_end(), "error: cannot read none.json: there is no such file");
}
