//! The order in which places are looked at, and MNIST in each of them.

use std::path::Path;

use lipconv_datasets::synthetic::SyntheticDigits;
use lipconv_datasets::{
    DataSource, Dataset, Error, Fallback, LocateOptions, Manifest, ManifestFile, locate,
    locate_mnist,
};

use crate::download::{self, sha256};
use crate::support::{gzip, idx_images, idx_labels, write, write_little_mnist};

/// Nowhere to look, no network, no fall-back.
fn nowhere() -> LocateOptions {
    LocateOptions {
        data_dir: None,
        env_dir: None,
        cache_dir: None,
        offline: true,
        download: download::options(),
        fallback: Fallback::Refuse,
    }
}

fn found(options: &LocateOptions) -> lipconv_datasets::Result<Dataset> {
    locate_mnist(options, &mut |_| {})
}

fn in_dir(dir: &Path) -> lipconv_datasets::Result<Dataset> {
    found(&LocateOptions { data_dir: Some(dir.to_owned()), ..nowhere() })
}

#[test]
fn mnist_is_found_in_each_layout() {
    for layout in ["mnist", "MNIST/raw", "."] {
        let dir = tempfile::tempdir().unwrap();
        write_little_mnist(&dir.path().join(layout));
        let dataset = in_dir(dir.path()).unwrap();
        assert_eq!(dataset.source, DataSource::Folder(dir.path().to_owned()));
        assert_eq!((dataset.train.len(), dataset.test.len()), (6, 4));
        assert_eq!((dataset.train.shape(), dataset.train.name()), ([1, 4, 3], "MNIST"));
        assert_eq!(dataset.test.labels(), [9, 8, 7, 6]);
        assert!(!dataset.is_synthetic());
    }
}

#[test]
fn raw_files_are_found_under_both_their_names() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "train-images-idx3-ubyte", &idx_images(3, 2, 2));
    write(dir.path(), "train-labels-idx1-ubyte", &idx_labels(&[1, 2, 3]));
    write(dir.path(), "t10k-images.idx3-ubyte", &idx_images(2, 2, 2));
    write(dir.path(), "t10k-labels.idx1-ubyte", &idx_labels(&[1, 2]));
    let dataset = in_dir(dir.path()).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len()), (3, 2));
    let raw = |i: usize| dataset.notes[i].contains("is not the published file");
    assert!((0..4).all(raw), "{:?}", dataset.notes);
}

#[test]
fn files_other_than_the_published_ones_are_used_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    write_little_mnist(dir.path());
    let dataset = in_dir(dir.path()).unwrap();
    assert_eq!(dataset.notes.len(), 4);
    let path = dir.path().join("train-images-idx3-ubyte.gz");
    let expected = format!(
        "{} is not the published file: train-images-idx3-ubyte differs: SHA-256 {}, \
         published ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        path.display(),
        sha256(&idx_images(6, 4, 3))
    );
    assert_eq!(dataset.notes[0], expected);
}

#[test]
fn places_are_looked_at_in_order() {
    let dirs = [0; 3].map(|_| tempfile::tempdir().unwrap());
    for dir in &dirs {
        write_little_mnist(dir.path());
    }
    let path = |i: usize| Some(dirs[i].path().to_owned());
    let mut options =
        LocateOptions { data_dir: path(0), env_dir: path(1), cache_dir: path(2), ..nowhere() };
    for (i, forget) in [
        (|o: &mut LocateOptions| o.data_dir = None) as fn(&mut LocateOptions),
        |o| o.env_dir = None,
        |o| o.cache_dir = None,
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(found(&options).unwrap().source, DataSource::Folder(path(i).unwrap()));
        forget(&mut options);
    }
    assert!(matches!(found(&options).unwrap_err(), Error::DataNotFound { .. }));
}

#[test]
fn a_folder_given_by_flag_is_used_or_the_call_fails() {
    let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_little_mnist(full.path());
    let options = LocateOptions {
        data_dir: Some(empty.path().to_owned()),
        env_dir: Some(full.path().to_owned()),
        fallback: Fallback::Synthetic(SyntheticDigits::default()),
        ..nowhere()
    };
    let text = found(&options).unwrap_err().to_string();
    let start =
        format!("no MNIST: {} holds none; put the 4 files from https://", empty.path().display());
    assert!(text.starts_with(&start), "{text}");
    assert!(
        text.ends_with("/mnist/ into DIR/mnist and give --data-dir DIR or LIPCONV_DATA=DIR"),
        "{text}"
    );
}

#[test]
fn an_environment_folder_without_data_is_named_when_data_is_found_further_on() {
    let (empty, full) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_little_mnist(&full.path().join("mnist"));
    let options = LocateOptions {
        env_dir: Some(empty.path().join("gone")),
        cache_dir: Some(full.path().to_owned()),
        ..nowhere()
    };
    let dataset = found(&options).unwrap();
    let expected =
        format!("LIPCONV_DATA: {}/gone does not exist; looked further", empty.path().display());
    assert_eq!(dataset.notes[0], expected);
}

#[test]
fn damaged_files_are_an_error_and_never_a_reason_to_look_further() {
    let (bad, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_little_mnist(bad.path());
    write_little_mnist(good.path());
    write(bad.path(), "train-images-idx3-ubyte.gz", &gzip(&idx_images(6, 4, 3))[..30]);
    let options = LocateOptions {
        env_dir: Some(bad.path().to_owned()),
        cache_dir: Some(good.path().to_owned()),
        fallback: Fallback::Synthetic(SyntheticDigits::default()),
        ..nowhere()
    };
    assert!(matches!(found(&options).unwrap_err(), Error::Malformed { .. }));
}

#[test]
fn pairs_that_disagree_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |name: &str, bytes: &[u8]| {
        write_little_mnist(dir.path());
        write(dir.path(), name, bytes);
        in_dir(dir.path()).unwrap_err()
    };
    let shown = dir.path().display();
    let error = refusal("train-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1, 2, 3, 4, 5])));
    assert!(matches!(error, Error::Malformed { .. }));
    let expected = format!(
        "{shown}/train-labels-idx1-ubyte.gz: 5 labels, expected 6, \
         the number of images in {shown}/train-images-idx3-ubyte.gz"
    );
    assert_eq!(error.to_string(), expected);
    let error = refusal("t10k-labels-idx1-ubyte.gz", &gzip(&idx_labels(&[1, 10, 3, 4])));
    assert_eq!(
        error.to_string(),
        format!("{shown}/t10k-labels-idx1-ubyte.gz: label 1 is 10, expected 0 to 9")
    );
    write_little_mnist(dir.path());
    let error = refusal("t10k-images-idx3-ubyte.gz", &gzip(&idx_images(4, 3, 4)));
    let expected = "shape of the test images is [1, 3, 4], expected [1, 4, 3], the shape of the training images";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn without_data_the_synthetic_digits_step_in_and_say_so() {
    let digits = SyntheticDigits { seed: 3, n_train: 20, n_test: 10 };
    let dataset =
        found(&LocateOptions { fallback: Fallback::Synthetic(digits), ..nowhere() }).unwrap();
    assert!(dataset.is_synthetic());
    assert_eq!((dataset.train.len(), dataset.test.len()), (20, 10));
    let note = &dataset.notes[0];
    assert!(
        note.starts_with(
            "no MNIST (downloads are switched off): synthetic digits take its place, "
        ),
        "{note}"
    );
    assert!(note.contains("--data-dir DIR or LIPCONV_DATA=DIR") && !note.contains('\n'), "{note}");
    let error = found(&nowhere()).unwrap_err().to_string();
    assert!(error.starts_with("no MNIST: downloads are switched off; put "), "{error}");
}

#[test]
fn mnist_is_downloaded_into_the_cache_and_found_there_the_next_time() {
    // one content under every path: the four files differ only in name, so a label file serves nowhere but as labels
    let cache = tempfile::tempdir().unwrap();
    let mut manifest = Manifest::mnist().unwrap();
    let labels = gzip(&idx_labels(&[1, 2, 3]));
    let server = download::proper_server(labels.clone());
    manifest.mirrors = vec![server.mirror.clone()];
    manifest.files.retain(|file| file.name.contains("labels"));
    for file in &mut manifest.files {
        *file = ManifestFile { size: labels.len() as u64, sha256: sha256(&labels), ..file.clone() };
    }
    for split in ["train", "t10k"] {
        write(
            &cache.path().join("mnist"),
            &format!("{split}-images-idx3-ubyte"),
            &idx_images(3, 5, 5),
        );
    }
    let options =
        LocateOptions { cache_dir: Some(cache.path().to_owned()), offline: false, ..nowhere() };
    let mut n_reports = 0;
    let dataset = locate(&manifest, &options, &mut |_| n_reports += 1).unwrap();
    assert_eq!(dataset.source, DataSource::Downloaded(cache.path().join("mnist")));
    assert_eq!((dataset.test.labels(), n_reports), (&[1, 2, 3][..], 2));
    let again =
        locate(&manifest, &LocateOptions { offline: true, ..options }, &mut |_| {}).unwrap();
    assert_eq!(again.source, DataSource::Folder(cache.path().to_owned()));
}

/// The canonical files, where the machine has them.
#[test]
fn the_published_mnist_loads_with_its_known_statistics() {
    let Some(dir) = std::env::var_os("LIPCONV_DATA") else {
        println!("skipped: LIPCONV_DATA is not set");
        return;
    };
    let options = LocateOptions { env_dir: Some(dir.into()), ..nowhere() };
    let dataset = match found(&options) {
        Err(Error::DataNotFound { .. }) => {
            println!("skipped: LIPCONV_DATA holds no MNIST");
            return;
        }
        outcome => outcome.unwrap(),
    };
    assert!(dataset.notes.is_empty(), "{:?}", dataset.notes);
    assert_eq!((dataset.train.len(), dataset.test.len()), (60_000, 10_000));
    assert_eq!(dataset.train.shape(), [1, 28, 28]);
    let sum: u64 = dataset.train.pixels().iter().map(|&p| u64::from(p)).sum();
    let mean = sum as f64 / dataset.train.pixels().len() as f64;
    assert!((mean - 33.3184).abs() < 5e-5, "mean pixel {mean}");
    assert_eq!(dataset.test.labels()[..5], [7, 2, 1, 0, 4]);
    let n_ones = dataset.train.labels().iter().filter(|&&label| label == 1).count();
    assert_eq!(n_ones, 6742);
}

#[test]
fn a_download_that_fails_everywhere_is_summed_up_in_one_line() {
    let cache = tempfile::tempdir().unwrap();
    let mut manifest = Manifest::mnist().unwrap();
    // answers, but with another file than the published one
    let server = download::proper_server(vec![0; manifest.files[0].size as usize]);
    let silent = format!("http://127.0.0.1:{}/", closed_port());
    manifest.mirrors = vec![silent.clone(), server.mirror.clone(), silent];
    let digits = SyntheticDigits { seed: 0, n_train: 10, n_test: 10 };
    let options = LocateOptions {
        cache_dir: Some(cache.path().to_owned()),
        offline: false,
        fallback: Fallback::Synthetic(digits),
        ..nowhere()
    };
    let dataset = locate(&manifest, &options, &mut |_| {}).unwrap();
    assert!(dataset.is_synthetic());
    let note = &dataset.notes[0];
    assert!(note.starts_with("no MNIST (train-images-idx3-ubyte.gz: SHA-256 is "), "{note}");
    assert!(
        note.contains(", and 2 more mirrors failed): synthetic digits take its place"),
        "{note}"
    );
    assert_eq!(
        std::fs::read_dir(cache.path().join("mnist")).unwrap().count(),
        1,
        "only the lock is left"
    );
}

fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
