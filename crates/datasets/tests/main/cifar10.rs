//! CIFAR-10 in each layout, damaged and changed.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use lipconv_datasets::{
    Cifar10Files, Dataset, Error, Fallback, LocateOptions, Manifest, ManifestMember, locate_cifar10,
};

use crate::download::{self, sha256};
use crate::support::{gzip, write};

/// Two records a batch: the label is the batch's number, the pixels count on from it.
pub(crate) fn batch(number: u8) -> Vec<u8> {
    let record = |i: u8| {
        let pixels = (0..3072_u32).map(move |p| (p + u32::from(number * 10 + i)) as u8);
        std::iter::once(number).chain(pixels)
    };
    (0..2).flat_map(record).collect()
}

fn batches() -> Vec<(String, Vec<u8>)> {
    let train = (1..=5).map(|i| (format!("data_batch_{i}.bin"), batch(i)));
    train.chain([("test_batch.bin".into(), batch(9))]).collect()
}

fn archive(batches: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in batches {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let path = format!("cifar-10-batches-bin/{name}");
        builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    gzip(&builder.into_inner().unwrap())
}

fn in_dir(dir: &Path) -> lipconv_datasets::Result<Dataset> {
    let options = LocateOptions {
        data_dir: Some(dir.to_owned()),
        env_dir: None,
        cache_dir: None,
        offline: true,
        download: download::options(),
        fallback: Fallback::Refuse,
    };
    locate_cifar10(&options, &mut |_| {})
}

#[track_caller]
fn check_content(dataset: &Dataset) {
    assert_eq!((dataset.train.len(), dataset.test.len()), (10, 2));
    assert_eq!((dataset.train.shape(), dataset.train.name()), ([3, 32, 32], "CIFAR-10"));
    assert_eq!(dataset.train.labels(), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    // image 5 is record 1 of batch 3: pixel p of channel c is 1024 c + p + 31
    let image = dataset.train.image(5).unwrap();
    assert_eq!(image[..3], [31, 32, 33]);
    assert_eq!(image[2 * 1024 + 40], ((2 * 1024 + 40 + 31) % 256) as u8);
}

#[test]
fn every_layout_holds_the_same_images() {
    for layout in ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "."] {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in batches() {
            write(&dir.path().join(layout), &name, &bytes);
        }
        check_content(&in_dir(dir.path()).unwrap());
    }
    for layout in ["cifar10", "."] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join(layout), "cifar-10-binary.tar.gz", &archive(&batches()));
        check_content(&in_dir(dir.path()).unwrap());
    }
}

#[test]
fn what_is_not_the_published_data_is_used_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(&batches());
    let path = write(dir.path(), "cifar-10-binary.tar.gz", &bytes);
    let dataset = in_dir(dir.path()).unwrap();
    let start = "cifar-10-binary.tar.gz is not the published file: ";
    assert!(dataset.portable_notes()[0].starts_with(start), "{:?}", dataset.portable_notes());
    let notes = dataset.notes;
    assert_eq!(notes.len(), 1);
    let start = format!(
        "{} is not the published file: SHA-256 {}, published c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd; \
         data_batch_1.bin differs: SHA-256 {}, published cee916563c9f80d8",
        path.display(),
        sha256(&bytes),
        sha256(&batch(1))
    );
    assert!(notes[0].starts_with(&start), "{}", notes[0]);

    // an archive whose training batches are the known ones
    let mut manifest = Manifest::cifar10().unwrap();
    manifest.members = batches()
        .into_iter()
        .take(5)
        .map(|(name, bytes)| ManifestMember { name, sha256: sha256(&bytes) })
        .collect();
    let (_, _, notes) = Cifar10Files::find(dir.path()).unwrap().load(&manifest).unwrap();
    let end =
        "; its training batches are the published ones, so the test batch or the packing differs";
    assert!(notes.len() == 1 && notes[0].ends_with(end), "{notes:?}");
    manifest.files[0].sha256 = sha256(&bytes);
    let (_, _, notes) = Cifar10Files::find(dir.path()).unwrap().load(&manifest).unwrap();
    assert_eq!(notes, [""; 0]);
}

#[test]
fn damaged_data_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cifar-10-binary.tar.gz");
    let fails = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        in_dir(dir.path()).unwrap_err()
    };
    let error = fails(&archive(&batches()[..5]));
    assert_eq!(
        error.to_string(),
        format!("{}: test_batch.bin is missing from the archive", path.display())
    );
    let mut short = batches();
    short[2].1.pop();
    let error = fails(&archive(&short));
    assert_eq!(
        error.to_string(),
        format!(
            "{}: 6145 bytes long, expected a positive multiple of 3073",
            path.join("data_batch_3.bin").display()
        )
    );
    let mut wrong = batches();
    wrong[5].1[3073] = 10;
    let text = fails(&archive(&wrong)).to_string();
    assert!(text.ends_with("test_batch.bin: label 1 is 10, expected 0 to 9"), "{text}");
    let whole = archive(&batches());
    let error = fails(&whole[..whole.len() / 2]);
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    let text = in_dir(dir.path()).unwrap_err().to_string();
    assert!(
        text.ends_with(
            "holds none; put cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/ into DIR/cifar10 and give \
             --data-dir DIR or LIPCONV_DATA=DIR"
        ),
        "{text}"
    );
}

#[test]
fn the_real_data_has_its_published_statistics() {
    let Some(dir) = std::env::var_os("LIPCONV_DATA") else {
        eprintln!("skipped: LIPCONV_DATA is not set");
        return;
    };
    let Some(files) = Cifar10Files::find(Path::new(&dir)) else {
        eprintln!("skipped: no CIFAR-10 in LIPCONV_DATA");
        return;
    };
    let (train, test, notes) = files.load(&Manifest::cifar10().unwrap()).unwrap();
    assert_eq!((train.len(), test.len()), (50_000, 10_000));
    assert!(notes.iter().all(|note| !note.contains("data_batch")), "{notes:?}");
    let mut sums = [0_u64; 3];
    for (i, plane) in train.pixels().chunks_exact(1024).enumerate() {
        sums[i % 3] += plane.iter().map(|&p| u64::from(p)).sum::<u64>();
    }
    for (sum, mean) in sums.into_iter().zip([125.307, 122.950, 113.865]) {
        assert!((sum as f64 / (50_000.0 * 1024.0) - mean).abs() < 1e-3, "{sum} {mean}");
    }
    for class in 0..10 {
        assert_eq!(test.labels().iter().filter(|&&label| label == class).count(), 1000);
    }
}

#[test]
fn the_archive_may_have_several_gzip_members_and_other_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Vec::new();
    let mut others = batches();
    others.insert(2, ("readme.html".into(), b"<p>".to_vec()));
    GzDecoder::new(&archive(&others)[..]).read_to_end(&mut tar).unwrap();
    let (a, b) = tar.split_at(tar.len() / 2);
    write(dir.path(), "cifar-10-binary.tar.gz", &[gzip(a), gzip(b), vec![0; 512]].concat());
    check_content(&in_dir(dir.path()).unwrap());
    // damage after the last batch is damage
    let mut whole = archive(&batches());
    let end = whole.len() - 5;
    whole[end] ^= 1;
    write(dir.path(), "cifar-10-binary.tar.gz", &whole);
    let text = in_dir(dir.path()).unwrap_err().to_string();
    assert!(text.contains("the archive is damaged: "), "{text}");
}

/// An archive of one entry that is no plain file but bears a batch's name.
fn archive_of(kind: tar::EntryType, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("cifar-10-batches-bin/data_batch_1.bin").unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    gzip(&[header.as_bytes().as_slice(), &[0; 1024]].concat())
}

#[test]
fn entries_that_are_no_plain_files_or_too_long_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |bytes: &[u8]| {
        write(dir.path(), "cifar-10-binary.tar.gz", bytes);
        in_dir(dir.path()).unwrap_err().to_string()
    };
    for kind in [tar::EntryType::GNUSparse, tar::EntryType::Symlink, tar::EntryType::Directory] {
        let text = refused(&archive_of(kind, 0));
        assert!(text.ends_with("data_batch_1.bin is not a plain file in the archive"), "{text}");
    }
    // a promise of 2^40 bytes that does not come
    let text = refused(&archive_of(tar::EntryType::Regular, 1 << 40));
    assert!(text.contains("damaged") || text.contains("bytes long"), "{text}");
    let mut long = batches();
    long[0].1 = vec![0; 3073 * 10_001];
    let text = refused(&archive(&long));
    assert!(text.contains("data_batch_1.bin: more than 30730000 bytes"), "{text}");
    let text = refused(&gzip(&gzip(&archive(&batches()))));
    assert!(text.contains("the archive is damaged: ") && text.is_ascii(), "{text}");
}

#[test]
fn unpacked_batches_are_compared_with_the_published_ones() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in batches() {
        write(dir.path(), &name, &bytes);
    }
    let notes = in_dir(dir.path()).unwrap().notes;
    assert_eq!(notes.len(), 6, "{notes:?}");
    assert!(notes[0].contains("data_batch_1.bin differs: SHA-256 "), "{notes:?}");
    assert!(notes[5].contains("test_batch.bin has no published hash to compare with"), "{notes:?}");
}
