//! STL-10: files that the tests draw, column by column.

use std::fs;
use std::path::Path;

use lipconv_datasets::{
    DataSource, DownloadOptions, Error, Fallback, LocateOptions, Manifest, Stl10Files, Stl10Part,
    locate,
};

use crate::support::{gzip, write};

const SIDE: usize = 96;

/// The value that image i is drawn with in channel c, row y and column x.
fn pixel(i: usize, c: usize, y: usize, x: usize) -> u8 {
    ((i * 31 + c * 80 + y * 2 + x * 3) % 251) as u8
}

/// n images as their file has them: planes, and in them columns.
fn drawn(n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..n {
        for c in 0..3 {
            for x in 0..SIDE {
                bytes.extend((0..SIDE).map(|y| pixel(i, c, y, x)));
            }
        }
    }
    bytes
}

fn write_folder(dir: &Path) {
    write(dir, "train_X.bin", &drawn(2));
    write(dir, "train_y.bin", &[1, 10]);
    write(dir, "test_X.bin", &drawn(1));
    write(dir, "test_y.bin", &[3]);
}

fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("stl10_binary/{name}"), &bytes[..]).unwrap();
    }
    gzip(&builder.into_inner().unwrap())
}

fn check_pixels(pixels: &[u8], i: usize) {
    for (c, y, x) in [(0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 5, 90), (2, 95, 94)] {
        assert_eq!(pixels[(c * SIDE + y) * SIDE + x], pixel(i, c, y, x), "{i} {c} {y} {x}");
    }
}

#[test]
fn columns_become_rows_and_classes_start_at_0() {
    let dir = tempfile::tempdir().unwrap();
    write_folder(&dir.path().join("stl10/stl10_binary"));
    let files = Stl10Files::find(dir.path()).unwrap();
    assert!(!files.has_unlabeled());
    let (train, test, warnings) = files.load(&Manifest::stl10().unwrap()).unwrap();
    assert_eq!(
        (train.shape(), train.labels(), test.labels()),
        ([3, 96, 96], &[0, 9][..], &[2][..])
    );
    assert!(warnings[0].ends_with("so the unpacked files are taken as they are"), "{warnings:?}");
    check_pixels(train.image(0).unwrap(), 0);
    check_pixels(train.image(1).unwrap(), 1);
    assert!(matches!(
        files.read(Stl10Part::Unlabeled, 96).unwrap_err(),
        Error::Read { path, .. } if path.ends_with("unlabeled_X.bin")
    ));
    write(&dir.path().join("stl10/stl10_binary"), "unlabeled_X.bin", &drawn(3));
    let small = Stl10Files::find(dir.path()).unwrap().read(Stl10Part::Unlabeled, 64).unwrap();
    assert_eq!((small.len(), small.shape(), small.labels()), (3, [3, 64, 64], &[0; 3][..]));
}

#[test]
fn the_archive_is_read_where_nothing_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    // the order of the published archive
    let members = [
        ("test_X.bin", drawn(1)),
        ("test_y.bin", vec![3]),
        ("train_X.bin", drawn(2)),
        ("train_y.bin", vec![1, 10]),
        ("unlabeled_X.bin", drawn(2)),
    ];
    write(dir.path(), "stl10_binary.tar.gz", &archive(&members));
    let options = LocateOptions {
        data_dir: Some(dir.path().to_owned()),
        env_dir: None,
        cache_dir: None,
        offline: true,
        download: DownloadOptions::default(),
        fallback: Fallback::Refuse,
    };
    let found = locate(&Manifest::stl10().unwrap(), &options, &mut |_| {}).unwrap();
    assert_eq!(found.source, DataSource::Folder(dir.path().to_owned()));
    check_pixels(found.train.image(1).unwrap(), 1);
    assert!(found.notes[0].contains("stl10_binary.tar.gz is not the published file: SHA-256 "));
    let files = Stl10Files::find(dir.path()).unwrap();
    assert!(files.has_unlabeled());
    check_pixels(files.read(Stl10Part::Unlabeled, 96).unwrap().image(1).unwrap(), 1);
    write(dir.path(), "stl10_binary.tar.gz", &archive(&members[..3]));
    let text = Stl10Files::find(dir.path()).unwrap().read(Stl10Part::Train, 96).unwrap_err();
    assert!(text.to_string().ends_with("train_y.bin is missing from the archive"), "{text}");
}

#[test]
fn damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |name: &str, bytes: &[u8]| {
        write_folder(dir.path());
        write(dir.path(), name, bytes);
        let error = Stl10Files::find(dir.path()).unwrap().read(Stl10Part::Train, 96).unwrap_err();
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        refused("train_X.bin", &drawn(2)[..30_000]),
        "train_X.bin: 30000 bytes long, expected a positive multiple of 27648"
    );
    assert_eq!(
        refused("train_X.bin", &[]),
        "train_X.bin: 0 bytes long, expected a positive multiple of 27648"
    );
    assert_eq!(
        refused("train_y.bin", &[1]),
        "train_y.bin: 1 labels, expected 2, the number of images in train_X.bin"
    );
    assert_eq!(refused("train_y.bin", &[1, 0]), "train_y.bin: label 1 is 0, expected 1 to 10");
    fs::remove_file(dir.path().join("test_y.bin")).unwrap();
    assert_eq!(Stl10Files::find(dir.path()), None);
}
