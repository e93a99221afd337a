//! The set of labelled images itself, and its conversion to tensors.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use super::locate::DataSource;
use crate::error::{Error, Result};

/// What an [`ImageSet`] is made of.
#[derive(Debug, Clone)]
pub struct ImageSetParts {
    /// Name for people, as in "MNIST" or "synthetic digits".
    pub name: String,
    /// Channels, height and width, each at least 1.
    pub shape: [usize; 3],
    /// Number of classes, 1 to 256.
    pub n_classes: usize,
    /// Pixels [n, c, h, w], row-major.
    pub pixels: Vec<u8>,
    /// One label per image, each less than `n_classes`.
    pub labels: Vec<u8>,
    /// Whether the images were drawn by a program.
    pub synthetic: bool,
}

/// Labelled 8-bit images of one shape; a clone shares them.
#[derive(Clone)]
pub struct ImageSet {
    parts: Arc<ImageSetParts>,
}

/// A training set and a test set of the same images, and where they came from.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Images to train on.
    pub train: ImageSet,
    /// Images to report on.
    pub test: ImageSet,
    /// Where the images came from.
    pub source: DataSource,
    /// Lines that a person should read: a hash that differs, a fall-back, how to get the real data.
    pub notes: Vec<String>,
}

impl Dataset {
    /// The notes without the folder that the images lie in, for files that go to other machines.
    #[must_use]
    pub fn portable_notes(&self) -> Vec<String> {
        let folder = match &self.source {
            DataSource::Folder(dir) | DataSource::Downloaded(dir) => dir.display().to_string(),
            DataSource::Synthetic { .. } => return self.notes.clone(),
        };
        let folder = format!("{}/", folder.trim_end_matches('/'));
        self.notes.iter().map(|note| note.replace(&folder, "")).collect()
    }

    /// Whether the images were drawn by a program; results on them are labelled so everywhere.
    #[must_use]
    pub fn is_synthetic(&self) -> bool {
        self.test.is_synthetic()
    }
}

impl fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageSet")
            .field("name", &self.parts.name)
            .field("len", &self.len())
            .field("shape", &self.parts.shape)
            .field("n_classes", &self.parts.n_classes)
            .field("synthetic", &self.parts.synthetic)
            .finish()
    }
}

impl ImageSet {
    /// Checks the parts against each other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a dimension is zero, the number of classes is outside 1 to 256 or the number of
    /// pixels is not labels x c x h x w; [`Error::LabelOutOfRange`] when a label is not a class.
    pub fn new(parts: ImageSetParts) -> Result<Self> {
        let invalid = |name, got: String, expected: String| {
            Err(Error::InvalidArgument { name, got, expected })
        };
        let [c, h, w] = parts.shape;
        if c == 0 || h == 0 || w == 0 {
            return invalid(
                "image shape",
                format!("{c} x {h} x {w}"),
                "each dimension at least 1".into(),
            );
        }
        if !(1..=256).contains(&parts.n_classes) {
            return invalid("n_classes", parts.n_classes.to_string(), "1 to 256".into());
        }
        let expected = parts.labels.len() * c * h * w;
        if parts.pixels.len() != expected {
            return invalid(
                "number of pixels",
                parts.pixels.len().to_string(),
                expected.to_string(),
            );
        }
        check_labels(&parts.name, &parts.labels, parts.n_classes)?;
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.labels.len()
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.labels.is_empty()
    }

    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Channels, height and width.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        self.parts.shape
    }

    /// Number of classes.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.parts.n_classes
    }

    /// Whether the images were drawn by a program.
    #[must_use]
    pub fn is_synthetic(&self) -> bool {
        self.parts.synthetic
    }

    /// All labels.
    #[must_use]
    pub fn labels(&self) -> &[u8] {
        &self.parts.labels
    }

    /// All pixels [n, c, h, w].
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.parts.pixels
    }

    /// Number of values of one image, c x h x w.
    #[must_use]
    pub fn image_len(&self) -> usize {
        self.parts.shape.iter().product()
    }

    /// Pixels [c, h, w] of one image.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`].
    pub fn image(&self, index: usize) -> Result<&[u8]> {
        self.check_index(index)?;
        let n = self.image_len();
        Ok(&self.parts.pixels[index * n..(index + 1) * n])
    }

    /// The first `n` images, or all where there are fewer.
    #[must_use]
    pub fn head(&self, n: usize) -> Self {
        if n >= self.len() {
            return self.clone();
        }
        Self {
            parts: Arc::new(ImageSetParts {
                name: self.parts.name.clone(),
                pixels: self.parts.pixels[..n * self.image_len()].to_vec(),
                labels: self.parts.labels[..n].to_vec(),
                ..*self.parts
            }),
        }
    }

    /// The images at `indices` as a tensor (b, c, h, w) of p / 255, and their labels as a tensor (b) of u32.
    ///
    /// The quotient is rounded once, in the requested type.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`], [`Error::InvalidArgument`] for a type other than f32 and f64, [`Error::Tensor`].
    pub fn batch(
        &self,
        indices: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        for &index in indices {
            self.check_index(index)?;
        }
        let [c, h, w] = self.parts.shape;
        let shape = (indices.len(), c, h, w);
        let images = match dtype {
            DType::F32 => {
                Tensor::from_vec(self.gather(indices, |p| f32::from(p) / 255.0), shape, device)?
            }
            DType::F64 => {
                Tensor::from_vec(self.gather(indices, |p| f64::from(p) / 255.0), shape, device)?
            }
            other => {
                return Err(Error::InvalidArgument {
                    name: "batch type",
                    got: other.as_str().into(),
                    expected: "f32 or f64".into(),
                });
            }
        };
        let labels: Vec<u32> = indices.iter().map(|&i| u32::from(self.parts.labels[i])).collect();
        Ok((images, Tensor::from_vec(labels, indices.len(), device)?))
    }

    /// SHA-256 over the shape, the labels and the pixels: the identity of the data, whatever file it came from.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for dimension in [self.len()].iter().chain(&self.parts.shape).chain([&self.parts.n_classes])
        {
            hasher.update((*dimension as u64).to_le_bytes());
        }
        hasher.update(&self.parts.labels);
        hasher.update(&self.parts.pixels);
        super::hash::hex(&hasher.finalize())
    }

    fn gather<T: Copy>(&self, indices: &[usize], scale: impl Fn(u8) -> T) -> Vec<T> {
        let table: Vec<T> = (0..=u8::MAX).map(scale).collect();
        let n = self.image_len();
        let mut values = Vec::with_capacity(indices.len() * n);
        for &i in indices {
            values.extend(
                self.parts.pixels[i * n..(i + 1) * n].iter().map(|&p| table[usize::from(p)]),
            );
        }
        values
    }

    fn check_index(&self, index: usize) -> Result<()> {
        if index < self.len() {
            return Ok(());
        }
        Err(Error::IndexOutOfRange { index, len: self.len(), set: self.parts.name.clone() })
    }
}

/// Checks that every label is a class; `origin` names the set or file in the error.
pub(super) fn check_labels(origin: &str, labels: &[u8], n_classes: usize) -> Result<()> {
    match labels.iter().position(|&label| usize::from(label) >= n_classes) {
        None => Ok(()),
        Some(index) => Err(Error::LabelOutOfRange {
            origin: origin.to_owned(),
            index,
            label: labels[index],
            n_classes,
        }),
    }
}
