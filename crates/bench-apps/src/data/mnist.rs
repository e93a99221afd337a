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
        let train = load_pair(&self.train_images, &self.train_labels)?;
        let test = load_pair(&self.test_images, &self.test_labels)?;
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

fn load_pair(images_path: &Path, labels_path: &Path) -> Result<ImageSet> {
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
    check_labels(&labels_path.display().to_string(), &labels, N_CLASSES)?;
    ImageSet::new(ImageSetParts {
        name: "MNIST".into(),
        shape: [1, images.height, images.width],
        n_classes: N_CLASSES,
        pixels: images.pixels,
        labels,
        synthetic: false,
    })
}
