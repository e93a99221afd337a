//! The IDX reader: what it accepts, and every way it refuses.

use lipconv_datasets::Error;
use lipconv_datasets::idx::{read_images, read_labels};

use crate::support::{gzip, idx, idx_images, idx_labels, write};

/// Reads `bytes` as an image file and returns the error's text without the folder.
fn refusal(bytes: &[u8]) -> (Error, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "images", bytes);
    let error = read_images(&path).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    (error, text)
}

#[test]
fn raw_and_gzipped_files_read_alike() {
    let dir = tempfile::tempdir().unwrap();
    let raw = idx_images(5, 4, 3);
    // the name says nothing: the first two bytes do
    let plain = read_images(&write(dir.path(), "plain.gz", &raw)).unwrap();
    let zipped = read_images(&write(dir.path(), "zipped", &gzip(&raw))).unwrap();
    assert_eq!(plain, zipped);
    assert_eq!((plain.n, plain.height, plain.width), (5, 4, 3));
    assert_eq!(plain.pixels, raw[16..]);
    let labels = write(dir.path(), "labels", &gzip(&idx_labels(&[3, 1, 4])));
    assert_eq!(read_labels(&labels).unwrap(), [3, 1, 4]);
}

#[test]
fn a_truncated_gzip_stream_is_refused() {
    let whole = gzip(&idx_images(50, 28, 28));
    // from a cut in the middle of the data to one that misses only the last byte of the checksum
    for len in [whole.len() / 2, whole.len() - 1] {
        let (error, text) = refusal(&whole[..len]);
        assert!(matches!(error, Error::Malformed { .. }), "{text}");
        assert!(text.starts_with("images: the gzip stream is truncated after "), "{text}");
        assert!(text.ends_with("expected a complete file"), "{text}");
    }
}

#[test]
fn a_damaged_gzip_stream_is_refused() {
    let mut bytes = gzip(&idx_images(50, 28, 28));
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    let (error, text) = refusal(&bytes);
    assert!(matches!(error, Error::Malformed { .. }), "{text}");
    assert!(text.starts_with("images: the gzip stream is damaged: "), "{text}");
}

#[test]
fn a_wrong_magic_number_is_refused_with_both_numbers() {
    let (error, text) = refusal(&idx_labels(&[1, 2, 3]));
    assert!(matches!(error, Error::Malformed { .. }));
    assert_eq!(
        text,
        "images: magic number is 0x00000801, expected 0x00000803 (IDX images, unsigned bytes in 3 dimensions)"
    );
}

#[test]
fn dimensions_that_are_zero_or_absurd_are_refused_before_any_allocation() {
    let cases = [
        ([0x803, 0, 28, 28], "images: number of images is 0, expected 1 to 16777216"),
        (
            [0x803, u32::MAX, 28, 28],
            "images: number of images is 4294967295, expected 1 to 16777216",
        ),
        ([0x803, 5, 0, 28], "images: number of rows is 0, expected 1 to 4096"),
        ([0x803, 5, 28, 1 << 30], "images: number of columns is 1073741824, expected 1 to 4096"),
        ([0x803, 1 << 24, 4096, 4096], "images: number of images is 16777216, expected 1 to 255"),
    ];
    for (words, expected) in cases {
        let (error, text) = refusal(&idx(&words, &[0; 10]));
        assert!(matches!(error, Error::Malformed { .. }), "{text}");
        assert_eq!(text, expected);
    }
}

#[test]
fn a_header_that_promises_more_than_the_file_holds_is_refused() {
    // 255 images of 4096 x 4096 are 4 GiB: the promise must not be believed
    let (error, text) = refusal(&idx(&[0x803, 255, 4096, 4096], &[7; 100]));
    assert!(matches!(error, Error::Malformed { .. }));
    assert_eq!(text, "images: pixel data is 100 bytes long, expected 4278190080");
    let (_, text) = refusal(&[0, 0, 8]);
    assert_eq!(text, "images: magic number is 3 bytes long, expected 4");
    let (_, text) = refusal(&idx(&[0x803, 5], &[]));
    assert_eq!(text, "images: number of rows is 0 bytes long, expected 4");
    let (_, text) = refusal(&[]);
    assert_eq!(text, "images: magic number is 0 bytes long, expected 4");
}

#[test]
fn bytes_after_the_content_are_refused() {
    let mut bytes = idx_images(2, 3, 3);
    bytes.push(0);
    for file in [bytes.clone(), gzip(&bytes)] {
        let (error, text) = refusal(&file);
        assert!(matches!(error, Error::Malformed { .. }));
        assert_eq!(
            text,
            "images: bytes follow the content, expected the end of the file after 34 bytes"
        );
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nowhere");
    let error = read_labels(&path).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
    assert!(error.to_string().starts_with(&format!("cannot read {}: ", path.display())));
}

#[test]
fn gzip_is_read_as_gunzip_reads_it() {
    let raw = idx_images(40, 8, 8);
    let (a, b) = (gzip(&raw[..900]), gzip(&raw[900..]));
    let dir = tempfile::tempdir().unwrap();
    let read = |bytes: &[u8]| read_images(&write(dir.path(), "images", bytes));
    let expected = read(&raw).unwrap();
    let several = [
        [&a[..], &b].concat(),
        [&a[..], &b, &[0; 1024]].concat(),
        [&a[..], &[0; 3], &b, &[0]].concat(),
        [&a[..], &gzip(b""), &b, &gzip(b"")].concat(),
    ];
    for bytes in several {
        assert_eq!(read(&bytes).unwrap(), expected);
    }
    let text = read(&[&a[..], &b, b"\0more"].concat()).unwrap_err().to_string();
    assert!(text.contains("bytes follow the gzip stream that are neither"), "{text}");
    // the second member is cut off
    let text = read(&[&a[..], &b[..b.len() - 3]].concat()).unwrap_err().to_string();
    assert!(text.contains("the gzip stream is truncated after "), "{text}");
}

#[test]
fn a_gzipped_header_cannot_ask_for_a_thousand_times_the_file() {
    // 128 MiB of zeros in some 130 kB
    let mut bytes = idx(&[0x803, 32, 2048, 2048], &[]);
    bytes.resize(16 + (128 << 20), 0);
    let (_, text) = refusal(&gzip(&bytes));
    assert!(text.starts_with("images: pixel data would be 134217728 bytes long"), "{text}");
}
