//! Images that a person brings.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma, Rgb, RgbImage};
use lipconv_datasets::{Error, idx_folder, image_folder, image_folder_at};

use crate::support::{idx_images, idx_labels, write};

fn grey(path: &Path, value: u8, size: (u32, u32)) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    GrayImage::from_pixel(size.0, size.1, Luma([value])).save(path).unwrap();
}

fn colour(path: &Path, value: [u8; 3], size: (u32, u32)) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(size.0, size.1, Rgb(value)).save(path).unwrap();
}

#[test]
fn class_folders_become_classes_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    colour(&at("train/dog/b.png"), [40, 50, 60], (5, 4));
    colour(&at("train/cat/z.png"), [10, 20, 30], (5, 4));
    colour(&at("train/cat/a.PNG"), [1, 2, 3], (5, 4));
    fs::write(at("train/cat/notes.txt"), "not an image").unwrap();
    colour(&at("test/dog/x.jpg"), [128, 128, 128], (5, 4));
    let dataset = image_folder(dir.path()).unwrap();
    assert_eq!((dataset.train.shape(), dataset.train.n_classes()), ([3, 4, 5], 2));
    assert_eq!((dataset.train.labels(), dataset.test.labels()), (&[0, 0, 1][..], &[1][..]));
    let planes = |i: usize| {
        let image = dataset.train.image(i).unwrap();
        image.chunks(20).map(|plane| plane[7]).collect::<Vec<_>>()
    };
    assert_eq!(
        (planes(0), planes(1), planes(2)),
        (vec![1, 2, 3], vec![10, 20, 30], vec![40, 50, 60])
    );
    assert!(dataset.notes[0].ends_with(": cat, dog"), "{:?}", dataset.notes);
}

#[test]
fn grey_images_have_one_channel() {
    let dir = tempfile::tempdir().unwrap();
    grey(&dir.path().join("train/0/a.png"), 9, (3, 2));
    grey(&dir.path().join("test/0/a.png"), 8, (3, 2));
    let dataset = image_folder(dir.path()).unwrap();
    assert_eq!((dataset.train.shape(), dataset.test.pixels()), ([1, 2, 3], &[8; 6][..]));
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    colour(&at("train/a/1.png"), [1, 2, 3], (5, 4));
    colour(&at("test/a/1.png"), [1, 2, 3], (5, 4));
    colour(&at("test/a/2.png"), [1, 2, 3], (4, 4));
    let error = image_folder(dir.path()).unwrap_err();
    let expected = format!(
        "{}: 3 x 4 x 4, expected 3 x 4 x 5, the shape of {}; --size brings all to one",
        at("test/a/2.png").display(),
        at("train/a/1.png").display()
    );
    assert_eq!(error.to_string(), expected);
    grey(&at("test/a/2.png"), 1, (5, 4));
    let text = image_folder(dir.path()).unwrap_err().to_string();
    assert!(text.contains(": 1 x 4 x 5, expected 3 x 4 x 5"), "{text}");
    fs::write(at("test/a/2.png"), "no").unwrap();
    let text = image_folder(dir.path()).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("{}: not an image, expected PNG", at("test/a/2.png").display())),
        "{text}"
    );
    fs::remove_file(at("test/a/2.png")).unwrap();
    colour(&at("test/b/1.png"), [1, 2, 3], (5, 4));
    let text = image_folder(dir.path()).unwrap_err().to_string();
    assert_eq!(text, "class of the test images is b, expected one of a");
    let empty = tempfile::tempdir().unwrap();
    let text = image_folder(empty.path()).unwrap_err().to_string();
    assert!(text.ends_with("expected DIR/train/CLASS/*.png and DIR/test/CLASS/*.png"), "{text}");
    assert!(matches!(image_folder(&at("none")).unwrap_err(), Error::Read { .. }));
    fs::create_dir_all(empty.path().join("train/a")).unwrap();
    fs::create_dir_all(empty.path().join("test/a")).unwrap();
    let text = image_folder(empty.path()).unwrap_err().to_string();
    assert!(text.starts_with("no image in ") && text.ends_with("class folders"), "{text}");
    fs::remove_dir(empty.path().join("test/a")).unwrap();
    let text = image_folder(empty.path()).unwrap_err().to_string();
    assert!(text.starts_with("no class folder in "), "{text}");
}

#[test]
fn idx_files_of_any_kind_have_as_many_classes_as_their_labels_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "train-images-idx3-ubyte", &idx_images(3, 2, 5));
    write(dir.path(), "train-labels-idx1-ubyte", &idx_labels(&[1, 25, 3]));
    write(dir.path(), "t10k-images-idx3-ubyte", &idx_images(2, 2, 5));
    write(dir.path(), "t10k-labels-idx1-ubyte", &idx_labels(&[1, 2]));
    let dataset = idx_folder(dir.path()).unwrap();
    assert_eq!((dataset.train.n_classes(), dataset.test.n_classes()), (26, 26));
    assert_eq!(dataset.train.shape(), [1, 2, 5]);
    assert!(dataset.notes.is_empty());
    write(dir.path(), "t10k-labels-idx1-ubyte", &idx_labels(&[1, 26]));
    let text = idx_folder(dir.path()).unwrap_err().to_string();
    assert!(text.ends_with("label 1 is 26, expected 0 to 25"), "{text}");
    let text = idx_folder(&dir.path().join("none")).unwrap_err().to_string();
    assert!(text.starts_with("no IDX files in "), "{text}");
}

#[test]
fn idx_files_in_the_folder_itself_come_before_those_below_it() {
    let dir = tempfile::tempdir().unwrap();
    let place = |dir: &Path, label: u8| {
        write(dir, "train-images-idx3-ubyte", &idx_images(1, 2, 2));
        write(dir, "train-labels-idx1-ubyte", &idx_labels(&[label]));
        write(dir, "t10k-images-idx3-ubyte", &idx_images(1, 2, 2));
        write(dir, "t10k-labels-idx1-ubyte", &idx_labels(&[label]));
    };
    place(&dir.path().join("mnist"), 5);
    let below = idx_folder(dir.path()).unwrap();
    assert_eq!(below.test.labels(), [5]);
    assert!(below.notes[0].starts_with("the IDX files are those in "), "{:?}", below.notes);
    place(dir.path(), 7);
    let own = idx_folder(dir.path()).unwrap();
    assert_eq!((own.test.labels(), own.notes.len()), (&[7][..], 0));
}

#[test]
fn idx_files_are_found_by_the_words_in_their_names_where_there_is_one_of_each() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "emnist-letters-train-images-idx3-ubyte.gz", &idx_images(2, 2, 2));
    write(dir.path(), "emnist-letters-train-labels-idx1-ubyte.gz", &idx_labels(&[1, 2]));
    write(dir.path(), "emnist-letters-test-images-idx3-ubyte.gz", &idx_images(1, 2, 2));
    write(dir.path(), "emnist-letters-test-labels-idx1-ubyte.gz", &idx_labels(&[1]));
    write(dir.path(), "emnist-letters-mapping.txt", b"1 65 97");
    let dataset = idx_folder(dir.path()).unwrap();
    assert_eq!((dataset.train.len(), dataset.test.len(), dataset.train.n_classes()), (2, 1, 3));
    // two of a kind are a choice that nobody made
    write(dir.path(), "emnist-digits-test-labels-idx1-ubyte.gz", &idx_labels(&[1]));
    let text = idx_folder(dir.path()).unwrap_err().to_string();
    assert!(text.starts_with("no IDX files in "), "{text}");
}

#[test]
fn images_of_any_size_are_brought_to_one() {
    let dir = tempfile::tempdir().unwrap();
    grey(&dir.path().join("train/a/1.png"), 9, (8, 4));
    colour(&dir.path().join("train/b/1.png"), [10, 20, 30], (3, 7));
    grey(&dir.path().join("test/a/1.png"), 5, (2, 2));
    assert!(image_folder(dir.path()).is_err());
    let dataset = image_folder_at(dir.path(), Some(6)).unwrap();
    assert_eq!((dataset.train.shape(), dataset.test.shape()), ([3, 6, 6], [3, 6, 6]));
    assert_eq!(dataset.train.image(1).unwrap(), [[10; 36], [20; 36], [30; 36]].as_flattened());
    assert_eq!(dataset.test.pixels(), [5; 108]);
}

/// A folder with classes a and b, one image each in train and test.
fn two_classes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in ["train/a", "train/b", "test/a", "test/b"].iter().enumerate() {
        grey(&dir.path().join(name).join("1.png"), 10 * i as u8, (3, 2));
    }
    dir
}

fn notes(dir: &Path) -> Vec<String> {
    let notes = image_folder(dir).unwrap().notes;
    let start = format!("left out of {} as ", dir.display());
    notes.iter().filter_map(|note| note.strip_prefix(&start)).map(str::to_owned).collect()
}

#[test]
fn what_is_left_out_of_a_folder_of_classes_is_counted() {
    let dir = two_classes();
    let at = |name: &str| dir.path().join(name);
    assert!(notes(dir.path()).is_empty());
    fs::write(at("README.txt"), "").unwrap();
    fs::write(at("train/labels.csv"), "").unwrap();
    fs::write(at("train/a/notes.txt"), "x").unwrap();
    fs::write(at("test/b/more.txt"), "").unwrap();
    grey(&at("train/.ipynb_checkpoints/1.png"), 1, (3, 2));
    grey(&at("train/a/.hidden.png"), 1, (3, 2));
    assert_eq!(
        notes(dir.path()),
        [
            "hidden: 2 (first train/.ipynb_checkpoints)",
            "neither train nor test: 1 (first README.txt)",
            "not an image: 2 (first train/a/notes.txt)",
            "not in the folder of a class: 1 (first train/labels.csv)",
        ]
    );
    let dataset = image_folder(dir.path()).unwrap();
    assert_eq!((dataset.train.len(), dataset.train.n_classes()), (2, 2));
}

#[test]
fn classes_that_are_nested_or_empty_are_refused_and_untested_ones_are_named() {
    let dir = two_classes();
    let at = |name: &str| dir.path().join(name);
    let refusal = || image_folder(dir.path()).unwrap_err().to_string();
    grey(&at("train/a/part1/1.png"), 1, (3, 2));
    let expected = "train/a: holds the folder part1, expected images alone";
    assert!(refusal().ends_with(expected), "{}", refusal());
    fs::remove_dir_all(at("train/a/part1")).unwrap();
    fs::create_dir(at("train/c")).unwrap();
    assert!(refusal().starts_with(&format!("no image in {}: ", at("train/c").display())));
    grey(&at("train/c/1.png"), 1, (3, 2));
    let dataset = image_folder(dir.path()).unwrap();
    assert_eq!(dataset.notes[1], "no test images of c");
}

#[test]
fn an_image_is_one_by_its_content() {
    let dir = two_classes();
    let at = |name: &str| dir.path().join(name);
    // a PNG under another kind's name and under none
    fs::rename(at("train/a/1.png"), at("train/a/1.jpg")).unwrap();
    fs::copy(at("train/a/1.jpg"), at("train/a/2")).unwrap();
    let dataset = image_folder(dir.path()).unwrap();
    assert_eq!(dataset.train.labels(), [0, 0, 1]);
    // what is called an image must be one
    fs::write(at("train/a/3.webp"), "").unwrap();
    assert!(image_folder(dir.path()).unwrap_err().to_string().contains("3.webp: not an image"));
}

#[cfg(unix)]
mod links {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use lipconv_datasets::flat_folder;

    use super::*;

    #[test]
    fn links_are_followed_once_and_in_no_circle() {
        let dir = two_classes();
        let at = |name: &str| dir.path().join(name);
        let count = || {
            let (images, notes) = flat_folder(dir.path(), None, 1).unwrap();
            (images.len(), notes.len())
        };
        assert_eq!(count(), (4, 0));
        for name in ["x", "y", "train/z"] {
            symlink(dir.path(), at(name)).unwrap();
        }
        symlink("1.png", at("train/a/again.png")).unwrap();
        fs::hard_link(at("train/b/1.png"), at("train/b/hard.png")).unwrap();
        symlink("nowhere", at("train/a/lost.png")).unwrap();
        symlink("self", at("train/a/self")).unwrap();
        assert_eq!(count(), (4, 2));
        let (_, notes) = flat_folder(dir.path(), None, 1).unwrap();
        assert!(
            notes[0].contains(" as a link to nowhere: 2 (first train/a/lost.png)"),
            "{notes:?}"
        );
        assert!(notes[1].contains(" as read before under another name: 5 "), "{notes:?}");
        // a link to images outside is followed
        let outside = two_classes();
        symlink(outside.path(), at("outside")).unwrap();
        assert_eq!(count(), (8, 2));
    }

    #[test]
    fn what_is_no_file_is_counted_and_not_waited_for() {
        let dir = two_classes();
        let socket = dir.path().join("train/a/z.png");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = dir.path().join("train/a/pipe.png");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(notes(dir.path()), ["neither file nor folder: 2 (first train/a/pipe.png)"]);
    }

    #[test]
    fn a_class_whose_name_is_not_utf_8_is_a_class() {
        let dir = two_classes();
        for part in ["train", "test"] {
            let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
            grey(&dir.path().join(part).join(name).join("1.png"), 50, (3, 2));
        }
        let dataset = image_folder(dir.path()).unwrap();
        assert_eq!((dataset.train.labels(), dataset.train.n_classes()), (&[0, 1, 2][..], 3));
        assert!(dataset.notes[0].ends_with(": a, b, caf\u{fffd}"), "{:?}", dataset.notes);
    }
}
