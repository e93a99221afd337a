//! The manifests in datasets/.

use lipconv_datasets::Manifest;

const VALID: &str = r#"
name = "toy"
title = "Toy"
description = "a toy"
source = "http://127.0.0.1/"
licence = "none"
citation = "nobody"
mirrors = ["http://127.0.0.1/"]
[[files]]
role = "archive"
name = "toy.gz"
size = 3
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"#;

#[test]
fn the_compiled_in_manifests_are_valid_and_complete() {
    let mnist = Manifest::mnist().unwrap();
    assert_eq!(mnist.files.len(), 4);
    assert_eq!(mnist.total_size(), 11_594_722);
    assert!(mnist.mirrors.len() >= 2);
    assert_eq!(mnist.file("t10k-labels-idx1-ubyte.gz").unwrap().size, 4542);
    assert!(mnist.file("t10k-labels-idx1-ubyte").is_none());
    let cifar10 = Manifest::cifar10().unwrap();
    assert_eq!(cifar10.total_size(), 170_052_171);
}

#[test]
fn manifests_that_cannot_be_right_are_refused() {
    assert!(Manifest::parse("toy.toml", VALID).is_ok());
    let cases = [
        ("size = 3", "size = 3\ncolour = 1", "toy.toml: unknown field `colour`"),
        ("0123456789abcdef0123456789abcdef\"", "\"", "expected 64 lower-case hexadecimal digits"),
        ("\"0123456789abcdef", "\"0123456789ABCDEF", "expected 64 lower-case hexadecimal digits"),
        (
            "mirrors = [\"http://127.0.0.1/\"]",
            "mirrors = []",
            "expected at least one mirror and one file",
        ),
        ("mirrors = [\"http://127.0.0.1/\"]", "mirrors = [\"http://a\"]", "expected a final slash"),
        ("\"toy.gz\"", "\"../toy.gz\"", "expected a name without a folder"),
    ];
    for (from, to, expected) in cases {
        let text = VALID.replace(from, to);
        assert_ne!(text, VALID, "{from}");
        let error = Manifest::parse("toy.toml", &text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn sizes_beyond_every_disk_do_not_overflow() {
    let file =
        VALID[VALID.find("[[files]]").unwrap()..].replace("size = 3", "size = 9223372036854775807");
    let text = format!(
        "{VALID}{file}{}{}",
        file.replace("toy.gz", "b.gz"),
        file.replace("toy.gz", "c.gz")
    );
    assert_eq!(Manifest::parse("toy.toml", &text).unwrap().total_size(), u64::MAX);
}
