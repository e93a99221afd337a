//! Images that a person brings.

use std::fs;
use std::path::Path;

use bench_apps::Error;
use bench_apps::data::folders::{idx_folder, image_folder};
use image::{GrayImage, Luma, Rgb, RgbImage};

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
        "{} is 3 x 4 x 4, expected 3 x 4 x 5, the shape of {}",
        at("test/a/2.png").display(),
        at("train/a/1.png").display()
    );
    assert_eq!(error.to_string(), expected);
    grey(&at("test/a/2.png"), 1, (5, 4));
    assert!(matches!(
        image_folder(dir.path()).unwrap_err(),
        Error::ImageShape { got: [1, 4, 5], .. }
    ));
    fs::write(at("test/a/2.png"), "no").unwrap();
    let text = image_folder(dir.path()).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("cannot read the image {}: ", at("test/a/2.png").display())),
        "{text}"
    );
    fs::remove_file(at("test/a/2.png")).unwrap();
    colour(&at("test/b/1.png"), [1, 2, 3], (5, 4));
    let text = image_folder(dir.path()).unwrap_err().to_string();
    assert_eq!(text, "class of the test images is b, expected one of a");
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(image_folder(empty.path()).unwrap_err(), Error::Read { .. }));
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
