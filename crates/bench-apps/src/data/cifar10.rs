//! CIFAR-10, binary version, from the archive or from its unpacked folder.
//!
//! Definition: `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin`, each a run of records of 1 label byte and 3072
//! pixel bytes (red, green, blue planes of 32 x 32, row-major). They are read from `cifar-10-binary.tar.gz` or from the files
//! themselves, in `DIR/cifar10`, `DIR/cifar10/cifar-10-batches-bin`, `DIR/cifar-10-batches-bin` or `DIR`; unpacked files come
//! first, because they need no decompression.
//!
//! Guarantee: an archive or a batch whose SHA-256 differs from the manifest's is used, with a warning that names what differs.
//!
//! Cost: the archive is decompressed once, about 2 s; it is hashed once, and its batches only where its own hash differs.
//!
//! Errors: [`Error::Read`], [`Error::CorruptGzip`], [`Error::MissingMember`], [`Error::BadRecords`],
//! [`Error::LabelOutOfRange`].

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::hash::{hex, sha256_file};
use super::image_set::{ImageSet, ImageSetParts, check_labels};
use super::manifest::Manifest;
use crate::error::{Error, Result};

const ARCHIVE: &str = "cifar-10-binary.tar.gz";
const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: &str = "test_batch.bin";
const SHAPE: [usize; 3] = [3, 32, 32];
const N_CLASSES: usize = 10;
const IMAGE: usize = SHAPE[0] * SHAPE[1] * SHAPE[2];
/// Label and pixels.
const RECORD: usize = 1 + IMAGE;

/// CIFAR-10 as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cifar10Files {
    /// The published archive.
    Archive(PathBuf),
    /// The folder that holds the six batches.
    Folder(PathBuf),
}

/// One batch, as it stands in its file.
struct RawBatch {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Cifar10Files {
    /// Looks in the folders named in the module; `None` where none holds the archive or all six batches.
    #[must_use]
    pub fn find(dir: &Path) -> Option<Self> {
        let folders = [
            dir.join("cifar10").join("cifar-10-batches-bin"),
            dir.join("cifar10"),
            dir.join("cifar-10-batches-bin"),
            dir.to_owned(),
        ];
        let unpacked = |folder: &&PathBuf| batch_names().all(|name| folder.join(name).is_file());
        if let Some(folder) = folders.iter().find(unpacked) {
            return Some(Self::Folder(folder.clone()));
        }
        let archive = folders.iter().map(|folder| folder.join(ARCHIVE)).find(|p| p.is_file());
        archive.map(Self::Archive)
    }

    /// Reads the training set and the test set, and says in which respect they are not the published files.
    ///
    /// # Errors
    /// See the module.
    pub fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        let batches = match self {
            Self::Archive(path) => read_archive(path)?,
            Self::Folder(path) => read_folder(path)?,
        };
        let warnings = self.warnings(manifest, &batches)?;
        let of = |names: &[&str]| -> Vec<&RawBatch> {
            names.iter().filter_map(|name| batches.iter().find(|b| b.name == *name)).collect()
        };
        let (train, test) = (self.image_set(&of(&TRAIN))?, self.image_set(&of(&[TEST]))?);
        Ok((train, test, warnings))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Archive(path) | Self::Folder(path) => path,
        }
    }

    fn warnings(&self, manifest: &Manifest, batches: &[RawBatch]) -> Result<Vec<String>> {
        let batch_warnings = different_batches(manifest, batches);
        let Self::Archive(path) = self else {
            let place = |text| format!("{}: {text}", self.path().display());
            return Ok(batch_warnings.into_iter().map(place).collect());
        };
        let Some(published) = manifest.file(ARCHIVE).map(|file| &file.sha256) else {
            return Ok(Vec::new());
        };
        let got = sha256_file(path)?;
        if got == *published {
            return Ok(Vec::new());
        }
        let what = if batch_warnings.is_empty() {
            "its training batches are the published ones, so the test batch or the packing differs"
                .to_owned()
        } else {
            batch_warnings.join("; ")
        };
        let path = path.display();
        Ok(vec![format!(
            "{path} is not the published file: SHA-256 {got}, published {published}; {what}"
        )])
    }

    fn image_set(&self, batches: &[&RawBatch]) -> Result<ImageSet> {
        let n_bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let (mut pixels, mut labels) = (Vec::with_capacity(n_bytes), Vec::new());
        for batch in batches {
            let file = self.path().join(batch.name);
            if batch.bytes.is_empty() || batch.bytes.len() % RECORD != 0 {
                let got = batch.bytes.len() as u64;
                return Err(Error::BadRecords { path: file, got, record: RECORD as u64 });
            }
            let first = labels.len();
            for record in batch.bytes.chunks_exact(RECORD) {
                labels.push(record[0]);
                pixels.extend_from_slice(&record[1..]);
            }
            check_labels(&file.display().to_string(), &labels[first..], N_CLASSES)?;
        }
        ImageSet::new(ImageSetParts {
            name: "CIFAR-10".into(),
            shape: SHAPE,
            n_classes: N_CLASSES,
            pixels,
            labels,
            synthetic: false,
        })
    }
}

fn batch_names() -> impl Iterator<Item = &'static str> {
    TRAIN.into_iter().chain([TEST])
}

fn read_folder(folder: &Path) -> Result<Vec<RawBatch>> {
    let read = |name| {
        let path = folder.join(name);
        let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        Ok(RawBatch { name, bytes })
    };
    batch_names().map(read).collect()
}

fn read_archive(path: &Path) -> Result<Vec<RawBatch>> {
    let damaged = |e: std::io::Error| Error::CorruptGzip {
        path: path.to_owned(),
        reason: e.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
    let mut batches: Vec<RawBatch> = Vec::new();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.file_name().map(std::ffi::OsStr::to_owned);
        let known = batch_names().find(|known| name.as_deref() == Some((*known).as_ref()));
        let Some(name) = known.filter(|name| batches.iter().all(|b| b.name != *name)) else {
            continue;
        };
        // grows with what is really there, not with what the header says
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(damaged)?;
        batches.push(RawBatch { name, bytes });
    }
    match batch_names().find(|name| batches.iter().all(|b| b.name != *name)) {
        None => Ok(batches),
        Some(member) => Err(Error::MissingMember { path: path.to_owned(), member }),
    }
}

/// The batches whose hash is known and another, as clauses of a sentence.
fn different_batches(manifest: &Manifest, batches: &[RawBatch]) -> Vec<String> {
    let compare = |batch: &RawBatch| {
        let published = &manifest.member(batch.name)?.sha256;
        let got = hex(&Sha256::digest(&batch.bytes));
        let name = batch.name;
        (got != *published).then(|| format!("{name} differs: SHA-256 {got}, published {published}"))
    };
    batches.iter().filter_map(compare).collect()
}
