//! `export` replaces what it wrote before, and nothing else.

use std::fs;

use crate::command::Place;

/// A place with a run of two steps.
pub(crate) fn trained() -> Place {
    let place = Place::new();
    let flags = ["--dataset", "synthetic", "--train-limit", "64", "--test-limit", "16"];
    let more = ["--epochs", "1", "--quiet", "--out", "run"];
    place.succeed(&[&["train"], &flags[..], &more[..]].concat());
    place
}

/// Names of the files in the folder `ex`.
fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path("ex")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_script_of_a_person_is_kept() {
    let place = trained();
    fs::create_dir(place.path("ex")).unwrap();
    for script in ["my script\n", "", "\"\"\"A 1-Lipschitz network, by me.\"\"\"\n"] {
        fs::write(place.path("ex/train.py"), script).unwrap();
        for out in ["ex/train.safetensors", "ex/train", "ex/train.bin"] {
            let text = place.fail(&["export", "run", "--out", out]);
            assert!(
                text.starts_with("error: ex/train.py is there and was not exported, expected "),
                "{text}"
            );
            assert_eq!(fs::read_to_string(place.path("ex/train.py")).unwrap(), script);
            assert_eq!(names(&place), ["train.py"]);
        }
    }
}

#[test]
fn an_exported_module_is_replaced() {
    let place = trained();
    place.succeed(&["export", "run", "--out", "ex/net.safetensors"]);
    let before = fs::read(place.path("ex/net.py")).unwrap();
    place.succeed(&["export", "run", "--out", "ex/net.safetensors"]);
    assert!(fs::read(place.path("ex/net.py")).unwrap() == before);
    assert_eq!(names(&place), ["net.py", "net.safetensors"]);
}

#[test]
fn an_extension_counts_in_capitals_too() {
    let place = trained();
    place.succeed(&["export", "run", "--out", "ex/net.onnx"]);
    for out in ["ex/capitals.ONNX", "ex/other.Onnx"] {
        let text = place.succeed(&["export", "run", "--out", out]);
        assert_eq!(text, format!("{out}\n"));
        let read = |name: &str| fs::read(place.path(name)).unwrap();
        assert!(read(out) == read("ex/net.onnx"));
    }
    for out in ["ex/net.PY", "ex/net.Py"] {
        let text = place.fail(&["export", "run", "--out", out]);
        assert!(text.contains("expected a name that does not end in .py"), "{text}");
    }
    assert_eq!(names(&place), ["capitals.ONNX", "net.onnx", "other.Onnx"]);
}
