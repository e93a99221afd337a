//! Certificate files: the claims about a network and a list of images, for someone who does not trust the program that
//! made them.
//!
//! Definition. A file is one JSON object, version 1, with exactly these members:
//!
//! | member | content |
//! |---|---|
//! | `format`, `version` | `"lipconv-certificate"`, 1 |
//! | `producer`, `code` | program with its version; commit or other mark of its source, as given by the caller |
//! | `model` | `sha256` of the safetensors file of the plain network, `n_classes` |
//! | `data` | `name`, `n_samples`, and `sha256` as [`data_sha256`] defines it |
//! | `layers` | for each affine layer a [`LayerBound`]: `name`, `lipschitz` K, `absolute_norm` A, `bias_norm` B, `dot_length` n, `n_outputs` m |
//! | `samples` | for each image its `label`, `prediction`, `margin`, `real` and `executed`, an object from the names of arithmetics to radii |
//!
//! Numbers are written with the fewest digits that read back to the same f64. The claims are:
//! * K ≥ ‖W‖₂, A ≥ ‖|W|‖₂, B ≥ ‖b‖₂ for the weights in the file with that hash;
//! * `prediction` is the class of the largest logit, up to ties within rounding;
//! * if `margin` > 0: the logit of `label` exceeds every other logit of the exact real function by at least that;
//! * if a radius r > 0: no perturbation of Euclidean norm less than r gives the image another class than `label`, for the
//!   exact real function (`real`) and for the function as executed in the named arithmetic, for images that its storage
//!   format holds; and r follows from K, A, B and the weights by the formulas of [`Certifier`](crate::Certifier).
//!
//! Guarantee: what is written holds ([`Certifier`]), with layer bounds raised by [`ROOM`] so that a proof by another method
//! has room to succeed. [`verify`](crate::verify) checks every claim.
//!
//! Errors: [`Error::Write`]; those of [`Certifier`]. Files are written whole or not at all.
//!
//! Not here: nominal radii, which claim nothing that could be checked.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use lipconv::PlainNetwork;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::arithmetic::Arithmetic;
use crate::bounds::LayerBound;
use crate::certifier::{Certificates, Certifier};
use crate::error::{Error, Result};

/// The value of `format`.
pub const CERTIFICATE_FORMAT: &str = "lipconv-certificate";
/// The version that this crate writes and reads.
pub const CERTIFICATE_VERSION: u64 = 1;
/// By how much the layer bounds of a file exceed the tightest that were found, relatively: 2^-30.
pub const ROOM: f64 = 1.0 / (1u64 << 30) as f64;

/// A certificate file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFile {
    /// [`CERTIFICATE_FORMAT`].
    pub format: String,
    /// [`CERTIFICATE_VERSION`].
    pub version: u64,
    /// The program that made it.
    pub producer: String,
    /// Its source.
    pub code: String,
    /// The network.
    pub model: ModelRecord,
    /// The images.
    pub data: DataRecord,
    /// Bounds of the affine layers, first to last.
    pub layers: Vec<LayerBound>,
    /// Claims about the images, in their order.
    pub samples: Vec<SampleRecord>,
}

/// The network of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// SHA-256 of the safetensors file, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Number of classes.
    pub n_classes: usize,
}

/// The images of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// What people call them.
    pub name: String,
    /// See [`data_sha256`].
    pub sha256: String,
    /// Number of images.
    pub n_samples: usize,
}

/// The claims about one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    /// Its true class.
    pub label: usize,
    /// What the network takes it for.
    pub prediction: usize,
    /// Lower bound of the margin of the exact function; 0 claims nothing.
    pub margin: f64,
    /// Real-arithmetic radius; 0 claims nothing.
    pub real: f64,
    /// Executed radii; 0 claims nothing.
    pub executed: BTreeMap<Arithmetic, f64>,
}

/// What the caller knows of a certificate's origin.
#[derive(Debug, Clone, Copy)]
pub struct CertificateOrigin<'a> {
    /// The bytes of the safetensors file that the network was read from.
    pub model: &'a [u8],
    /// Name of the images.
    pub data: &'a str,
    /// Mark of the source of the program: a commit.
    pub code: &'a str,
}

/// Images certified at a time, between two reports of progress.
const BATCH: usize = 256;

impl CertificateFile {
    /// Certifies `images` (n x c x h x w, in the network's element type) with their labels; `progress` gets the number
    /// of images done so far.
    ///
    /// # Errors
    /// Those of [`Certifier::new`] and [`Certifier::certify`].
    pub fn new(
        network: &PlainNetwork,
        images: &Tensor,
        labels: &[usize],
        origin: CertificateOrigin<'_>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let certifier = Certifier::new(network)?.with_raised_bounds(ROOM)?;
        let (n, _) = crate::tensor::batch_size(images)?;
        crate::classifier::check_labels(labels, n, network.n_classes())?;
        let mut samples = Vec::with_capacity(n);
        for start in (0..n).step_by(BATCH) {
            let n = BATCH.min(n - start);
            let labels = &labels[start..start + n];
            let certificates = certifier.certify(&images.narrow(0, start, n)?, labels)?;
            samples.extend((0..n).map(|i| sample(&certificates, i, labels[i])));
            progress(start + n);
        }
        let sha256 = images_sha256(images, labels)?;
        Ok(Self {
            format: CERTIFICATE_FORMAT.into(),
            version: CERTIFICATE_VERSION,
            producer: concat!("certify ", env!("CARGO_PKG_VERSION")).into(),
            code: origin.code.into(),
            model: ModelRecord {
                sha256: hex(&Sha256::digest(origin.model)),
                n_classes: network.n_classes(),
            },
            data: DataRecord { name: origin.data.into(), sha256, n_samples: labels.len() },
            layers: certifier.bounds().layers().to_vec(),
            samples,
        })
    }

    /// The file's content.
    ///
    /// # Panics
    /// Never: numbers, texts and maps with text keys can be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, texts and maps of texts are JSON") + "\n"
    }

    /// Writes the file, or leaves the one that was there.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        lipconv::output::write(path, self.to_json().as_bytes()).map_err(failed)
    }
}

fn sample(certificates: &Certificates, i: usize, label: usize) -> SampleRecord {
    SampleRecord {
        label,
        prediction: certificates.predictions[i],
        margin: certificates.margins[i],
        real: certificates.real[i],
        executed: certificates.executed.iter().map(|(&a, radii)| (a, radii[i])).collect(),
    }
}

/// Pixels of images, one after the other, each row-major.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// In f32.
    F32(&'a [f32]),
    /// In f64.
    F64(&'a [f64]),
}

/// SHA-256, in lower-case hexadecimal digits, of images and labels: of the line `f32 N V` (or `f64 N V`) for N images of
/// V values, ended by a line feed, then all pixels and then all labels as 8-byte integers, little-endian.
#[must_use]
pub fn data_sha256(pixels: Pixels<'_>, labels: &[usize]) -> String {
    let (name, n_values) = match pixels {
        Pixels::F32(values) => ("f32", values.len()),
        Pixels::F64(values) => ("f64", values.len()),
    };
    let mut hasher = Sha256::new();
    hasher.update(format!("{name} {} {}\n", labels.len(), n_values / labels.len().max(1)));
    match pixels {
        Pixels::F32(values) => values.iter().for_each(|v| hasher.update(v.to_le_bytes())),
        Pixels::F64(values) => values.iter().for_each(|v| hasher.update(v.to_le_bytes())),
    }
    labels.iter().for_each(|&label| hasher.update((label as u64).to_le_bytes()));
    hex(&hasher.finalize())
}

fn images_sha256(images: &Tensor, labels: &[usize]) -> Result<String> {
    let images = images.to_device(&candle_core::Device::Cpu)?.flatten_all()?;
    Ok(match images.dtype() {
        DType::F32 => data_sha256(Pixels::F32(&images.to_vec1()?), labels),
        _ => data_sha256(Pixels::F64(&images.to_dtype(DType::F64)?.to_vec1()?), labels),
    })
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
