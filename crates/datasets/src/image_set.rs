//! The set of labelled images itself, and its conversion to tensors.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, by};
use crate::manifest::hex;

/// What images that a program drew are called, wherever results on them appear.
pub const SYNTHETIC: &str = "synthetic digits";

/// What an [`ImageSet`] is made of.
#[derive(Debug, Clone)]
pub struct ImageSetParts {
    /// As in "MNIST" or "synthetic digits".
    pub name: String,
    /// Channels, height and width, each at least 1.
    pub shape: [usize; 3],
    /// 1 to 256.
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

/// What each of the 256 pixels becomes, rounded once.
#[derive(Debug, Clone)]
pub struct PixelTable<T>([T; 256]);

impl<T: Copy> PixelTable<T> {
    /// The table of a function.
    pub fn new(value: impl Fn(u8) -> T) -> Self {
        Self(std::array::from_fn(|p| value(p as u8)))
    }

    /// What one pixel becomes.
    pub fn value(&self, pixel: u8) -> T {
        self.0[usize::from(pixel)]
    }
}

impl PixelTable<f32> {
    /// p / 255, what a network sees.
    pub fn unit() -> Self {
        Self::new(|p| f32::from(p) / 255.0)
    }

    /// p / 127.5 - 1, what a critic sees.
    pub fn signed() -> Self {
        Self::new(|p| f32::from(p) / 127.5 - 1.0)
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
    /// A shape or a number of classes outside its domain, another number of pixels, a label that is no class.
    pub fn new(parts: ImageSetParts) -> Result<Self> {
        let [c, h, w] = parts.shape;
        if c == 0 || h == 0 || w == 0 {
            return Err(Error::argument(
                "image shape",
                by(&parts.shape),
                "each dimension at least 1",
            ));
        }
        if !(1..=256).contains(&parts.n_classes) {
            return Err(Error::argument("n_classes", parts.n_classes, "1 to 256"));
        }
        let expected = parts.labels.len() * c * h * w;
        if parts.pixels.len() != expected {
            return Err(Error::argument("number of pixels", parts.pixels.len(), expected));
        }
        check_labels(parts.name.as_ref(), &parts.labels, parts.n_classes)?;
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.parts.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.parts.labels.is_empty()
    }

    /// As in "MNIST".
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The name, or for images that were drawn by the program what they are.
    pub fn label(&self) -> &str {
        if self.is_synthetic() { SYNTHETIC } else { self.name() }
    }

    /// Channels, height and width.
    pub fn shape(&self) -> [usize; 3] {
        self.parts.shape
    }

    /// Number of classes, of which some may have no image.
    pub fn n_classes(&self) -> usize {
        self.parts.n_classes
    }

    /// Whether the images were drawn by a program.
    pub fn is_synthetic(&self) -> bool {
        self.parts.synthetic
    }

    /// One label for each image.
    pub fn labels(&self) -> &[u8] {
        &self.parts.labels
    }

    /// The labels as the libraries below count classes.
    pub fn classes(&self) -> Vec<usize> {
        self.parts.labels.iter().map(|&label| usize::from(label)).collect()
    }

    /// All pixels [n, c, h, w].
    pub fn pixels(&self) -> &[u8] {
        &self.parts.pixels
    }

    /// Number of values of one image, c x h x w.
    pub fn image_len(&self) -> usize {
        self.parts.shape.iter().product()
    }

    /// Pixels [c, h, w] of one image.
    ///
    /// # Errors
    /// An index beyond the last image.
    pub fn image(&self, index: usize) -> Result<&[u8]> {
        if index >= self.len() {
            let expected = format!("less than {}, the size of {}", self.len(), self.parts.name);
            return Err(Error::argument("sample index", index, expected));
        }
        let n = self.image_len();
        Ok(&self.parts.pixels[index * n..(index + 1) * n])
    }

    /// The same images under another name.
    pub fn named(&self, name: &str) -> Self {
        let parts = &self.parts;
        let (pixels, labels) = (parts.pixels.clone(), parts.labels.clone());
        let parts = ImageSetParts { name: name.to_owned(), pixels, labels, ..**parts };
        Self { parts: Arc::new(parts) }
    }

    /// The first `n` images, or all where there are fewer.
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

    /// The images at `indices`, which may be a range, as a set.
    ///
    /// # Errors
    /// An index beyond the last image.
    pub fn subset(&self, indices: impl IntoIterator<Item = usize>) -> Result<Self> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for index in indices {
            pixels.extend_from_slice(self.image(index)?);
            labels.push(self.parts.labels[index]);
        }
        let name = self.parts.name.clone();
        Self::new(ImageSetParts { name, pixels, labels, ..*self.parts })
    }

    /// The images at `indices`, which may be a range, as a tensor (b, c, h, w) of p / 255.
    ///
    /// The quotient is rounded once, in the requested type, which is f32 or f64.
    ///
    /// # Errors
    /// Another type, an index beyond the last image, a device without memory for them.
    pub fn tensor(
        &self,
        indices: impl IntoIterator<Item = usize>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        match dtype {
            DType::F32 => self.tensor_by(indices, &PixelTable::unit(), device),
            DType::F64 => {
                self.tensor_by(indices, &PixelTable::new(|p| f64::from(p) / 255.0), device)
            }
            other => Err(Error::argument("element type", other.as_str(), "f32 or f64")),
        }
    }

    /// As [`Self::tensor`], with any table.
    ///
    /// # Errors
    /// As there, but for the type.
    pub fn tensor_by<T: candle_core::WithDType>(
        &self,
        indices: impl IntoIterator<Item = usize>,
        table: &PixelTable<T>,
        device: &Device,
    ) -> Result<Tensor> {
        let indices = indices.into_iter();
        let n = indices.size_hint().0.min(self.len());
        let mut values = Vec::with_capacity(n * self.image_len());
        for index in indices {
            values.extend(self.image(index)?.iter().map(|&p| table.value(p)));
        }
        let ([c, h, w], n) = (self.parts.shape, values.len() / self.image_len());
        Ok(Tensor::from_vec(values, (n, c, h, w), device)?)
    }

    /// SHA-256 over the shape, the labels and the pixels: the identity of the data, whatever file it came from.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for dimension in [self.len()].iter().chain(&self.parts.shape).chain([&self.parts.n_classes])
        {
            hasher.update((*dimension as u64).to_le_bytes());
        }
        hasher.update(&self.parts.labels);
        hasher.update(&self.parts.pixels);
        hex(&hasher.finalize())
    }
}

/// Checks that every label is a class; `origin` names the set or file in the error.
pub(crate) fn check_labels(origin: &Path, labels: &[u8], n_classes: usize) -> Result<()> {
    match labels.iter().position(|&label| usize::from(label) >= n_classes) {
        None => Ok(()),
        Some(i) => {
            let what = format!("label {i} is {}, expected 0 to {}", labels[i], n_classes - 1);
            Err(Error::malformed(origin, what))
        }
    }
}
