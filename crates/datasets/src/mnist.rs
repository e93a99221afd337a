//! MNIST, or other images in its layout, from a folder.
//!
//! Definition: four IDX files, each gzipped or raw. Training images and labels are `train-…`, test images and labels `t10k-…`;
//! `train-images.idx3-ubyte` is as good a name as `train-images-idx3-ubyte`. MNIST is looked for in `DIR/mnist`, in
//! `DIR/MNIST/raw` (torchvision's layout) and in `DIR` itself, other images (`idx:DIR`) in `DIR` first. Files of `idx:DIR` may have
//! other names, if there is one each that holds the words `train` or `test` (`t10k`) and `image` or `label`.
//!
//! Guarantee: images and labels agree in number. A file whose uncompressed content is not MNIST's is used as MNIST with a note
//! that names both hashes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::idx::{labels_sha256, read_images, read_labels};
use crate::image_set::{ImageSet, ImageSetParts, check_labels};
use crate::manifest::Manifest;

const N_CLASSES: usize = 10;
const FOLDERS: [&str; 3] = ["mnist", "MNIST/raw", ""];
/// Training images and labels, test images and labels.
const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

/// The four files as they were found, in the order of their names above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MnistFiles([PathBuf; 4]);

/// What was read.
#[derive(Debug)]
pub struct MnistImages {
    /// The training images.
    pub train: ImageSet,
    /// The test images.
    pub test: ImageSet,
    /// SHA-256 of the four files, uncompressed.
    hashes: [String; 4],
}

impl MnistFiles {
    /// Looks for the four files of MNIST; `None` when no folder holds all of them.
    pub fn find(dir: &Path) -> Option<Self> {
        FOLDERS.iter().find_map(|folder| Self::in_folder(&dir.join(folder)))
    }

    /// As [`Self::find`], with `dir` itself before the folders below it, and last with files in `dir` by what their names tell.
    pub fn find_any(dir: &Path) -> Option<Self> {
        let found = FOLDERS.iter().rev().find_map(|folder| Self::in_folder(&dir.join(folder)));
        found.or_else(|| Self::by_words(dir))
    }

    /// The one file each whose name tells its part and its content, as in `emnist-letters-test-labels-idx1-ubyte.gz`.
    fn by_words(dir: &Path) -> Option<Self> {
        let names =
            fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        let one = |parts: &[&str], content: &str| {
            let has = |name: &&String| {
                let name = name.to_lowercase();
                parts.iter().any(|part| name.contains(part)) && name.contains(content)
            };
            let mut found = names.iter().filter(has).map(|name| dir.join(name));
            found.next().filter(|path| path.is_file() && found.next().is_none())
        };
        let (train, test) = (&["train"][..], &["test", "t10k"][..]);
        Some(Self([
            one(train, "image")?,
            one(train, "label")?,
            one(test, "image")?,
            one(test, "label")?,
        ]))
    }

    fn in_folder(dir: &Path) -> Option<Self> {
        let [a, b, c, d] = NAMES.map(|name| existing(dir, name));
        Some(Self([a?, b?, c?, d?]))
    }

    /// Reads them as MNIST, with a note for each file that is not the published one.
    pub fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        let images = self.load_with("MNIST", Some(N_CLASSES))?;
        let files = self.0.iter().zip(NAMES.iter().zip(&images.hashes));
        let note = |(path, (name, hash)): (&PathBuf, (&&str, &String))| {
            let difference = manifest.difference(name, hash)?;
            Some(format!("{} is not the published file: {difference}", path.display()))
        };
        let notes = files.filter_map(note).collect();
        Ok((images.train, images.test, notes))
    }

    /// Reads them as other images: as many classes as the largest training label asks for.
    pub fn load_any(&self, name: &str) -> Result<MnistImages> {
        self.load_with(name, None)
    }

    /// The folder of the first file.
    pub fn folder(&self) -> &Path {
        self.0[0].parent().unwrap_or(Path::new("."))
    }

    fn load_with(&self, name: &str, n_classes: Option<usize>) -> Result<MnistImages> {
        let [train_images, train_labels, test_images, test_labels] = &self.0;
        let (train, hash_0, hash_1) = load_pair(train_images, train_labels, name, n_classes)?;
        let n_classes = Some(train.n_classes());
        let (test, hash_2, hash_3) = load_pair(test_images, test_labels, name, n_classes)?;
        if train.shape() != test.shape() {
            return Err(Error::InvalidArgument {
                name: "shape of the test images",
                got: format!("{:?}", test.shape()),
                expected: format!("{:?}, the shape of the training images", train.shape()),
            });
        }
        Ok(MnistImages { train, test, hashes: [hash_0, hash_1, hash_2, hash_3] })
    }
}

impl MnistImages {
    /// Whether all four files are those of the manifest.
    pub fn are_published(&self, manifest: &Manifest) -> bool {
        NAMES.iter().zip(&self.hashes).all(|(name, hash)| manifest.difference(name, hash).is_none())
    }
}

fn existing(dir: &Path, stem: &str) -> Option<PathBuf> {
    let dotted = stem.replace("-idx", ".idx");
    [format!("{stem}.gz"), stem.to_owned(), format!("{dotted}.gz"), dotted]
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file())
}

/// The images with the hashes of both files. Without a number of classes, it is the largest label plus one.
fn load_pair(
    images_path: &Path,
    labels_path: &Path,
    name: &str,
    n_classes: Option<usize>,
) -> Result<(ImageSet, String, String)> {
    let images = read_images(images_path)?;
    let labels = read_labels(labels_path)?;
    if images.n != labels.len() {
        let (got, expected, path) = (labels.len(), images.n, images_path.display());
        let what = format!("{got} labels, expected {expected}, the number of images in {path}");
        return Err(Error::malformed(labels_path, what));
    }
    let largest = labels.iter().copied().max().map_or(0, usize::from);
    let n_classes = n_classes.unwrap_or(largest + 1);
    check_labels(labels_path, &labels, n_classes)?;
    let hashes = (images.sha256(), labels_sha256(&labels));
    let set = ImageSet::new(ImageSetParts {
        name: name.to_owned(),
        shape: [1, images.height, images.width],
        n_classes,
        pixels: images.pixels,
        labels,
        synthetic: false,
    })?;
    Ok((set, hashes.0, hashes.1))
}
