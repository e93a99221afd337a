//! MNIST from a folder.
//!
//! Definition: four IDX files, each gzipped or raw, in `DIR/mnist`, in `DIR/MNIST/raw` (torchvision's layout) or in `DIR`
//! itself. Training images and labels are `train-…`, test images and labels `t10k-…`.
//!
//! Guarantee: images and labels agree in number; a file whose SHA-256 differs from the manifest's is used, with a warning
//! that names both hashes.
//!
//! Errors: those of [`super::idx`], [`Error::CountMismatch`], [`Error::LabelOutOfRange`], [`Error::InvalidArgument`] when
//! the two image files have different sizes.

use std::path::{Path, PathBuf};

use super::hash::sha256_file;
use super::idx;
use super::image_set::{ImageSet, ImageSetParts, check_labels};
use super::manifest::{Manifest, ManifestFile};
use crate::error::{Error, Result};

const N_CLASSES: usize = 10;

/// The four files of MNIST as they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MnistFiles {
    /// Training images.
    pub train_images: PathBuf,
    /// Training labels.
    pub train_labels: PathBuf,
    /// Test images.
    pub test_images: PathBuf,
    /// Test labels.
    pub test_labels: PathBuf,
}

impl MnistFiles {
    /// Looks for the four files in the folders named in the module; `None` when no folder holds all of them.
    #[must_use]
    pub fn find(dir: &Path) -> Option<Self> {
        [dir.join("mnist"), dir.join("MNIST").join("raw"), dir.to_owned()]
            .iter()
            .find_map(|d| Self::in_folder(d))
    }

    fn in_folder(dir: &Path) -> Option<Self> {
        Some(Self {
            train_images: existing(dir, "train-images-idx3-ubyte")?,
            train_labels: existing(dir, "train-labels-idx1-ubyte")?,
            test_images: existing(dir, "t10k-images-idx3-ubyte")?,
            test_labels: existing(dir, "t10k-labels-idx1-ubyte")?,
        })
    }

    /// Reads the training set and the test set.
    ///
    /// # Errors
    /// See the module.
    pub fn load(&self) -> Result<(ImageSet, ImageSet)> {
        self.load_with("MNIST", Some(N_CLASSES))
    }

    /// As [`MnistFiles::load`] for other images in the same layout: as many classes as the largest training label asks for.
    ///
    /// # Errors
    /// See the module.
    pub fn load_any(&self, name: &str) -> Result<(ImageSet, ImageSet)> {
        self.load_with(name, None)
    }

    fn load_with(&self, name: &str, n_classes: Option<usize>) -> Result<(ImageSet, ImageSet)> {
        let train = load_pair(&self.train_images, &self.train_labels, name, n_classes)?;
        let n_classes = train.n_classes();
        let test = load_pair(&self.test_images, &self.test_labels, name, Some(n_classes))?;
        if train.shape() != test.shape() {
            return Err(Error::InvalidArgument {
                name: "shape of the test images",
                got: format!("{:?}", test.shape()),
                expected: format!("{:?}, the shape of the training images", train.shape()),
            });
        }
        Ok((train, test))
    }

    /// One line for each gzipped file whose SHA-256 is not the manifest's. Raw files have no published hash.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn hash_warnings(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for path in [&self.train_images, &self.train_labels, &self.test_images, &self.test_labels] {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(file) = manifest.file(&name) {
                warnings.extend(hash_warning(path, file)?);
            }
        }
        Ok(warnings)
    }
}

fn hash_warning(path: &Path, file: &ManifestFile) -> Result<Option<String>> {
    let got = sha256_file(path)?;
    Ok((got != file.sha256).then(|| {
        format!(
            "{} is not the published file: SHA-256 {got}, published {}",
            path.display(),
            file.sha256
        )
    }))
}

fn existing(dir: &Path, stem: &str) -> Option<PathBuf> {
    [format!("{stem}.gz"), stem.to_owned(), stem.replace("-idx", ".idx")]
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file())
}

/// Without a number of classes, it is the largest label plus one.
fn load_pair(
    images_path: &Path,
    labels_path: &Path,
    name: &str,
    n_classes: Option<usize>,
) -> Result<ImageSet> {
    let images = idx::read_images(images_path)?;
    let labels = idx::read_labels(labels_path)?;
    if images.n != labels.len() {
        return Err(Error::CountMismatch {
            images_path: images_path.to_owned(),
            images: images.n,
            labels_path: labels_path.to_owned(),
            labels: labels.len(),
        });
    }
    let largest = labels.iter().copied().max().map_or(0, usize::from);
    let n_classes = n_classes.unwrap_or(largest + 1);
    check_labels(&labels_path.display().to_string(), &labels, n_classes)?;
    ImageSet::new(ImageSetParts {
        name: name.to_owned(),
        shape: [1, images.height, images.width],
        n_classes,
        pixels: images.pixels,
        labels,
        synthetic: false,
    })
}
