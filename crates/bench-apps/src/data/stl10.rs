//! STL-10, binary version, from the archive or from its unpacked folder.
//!
//! Definition: `train_X.bin`, `test_X.bin` and `unlabeled_X.bin` are runs of images of 27,648 bytes: the red, green and blue plane of
//! 96 x 96 pixels each, *column by column*, so that byte c·96² + x·96 + y is channel c of the pixel in row y and column x.
//! `train_y.bin` and `test_y.bin` hold one byte for each image, the class from 1 to 10. They are read from
//! `stl10_binary.tar.gz` or from the files themselves, in `DIR/stl10`, `DIR/stl10/stl10_binary`, `DIR/stl10_binary` or `DIR`; unpacked
//! files come first, because they need no decompression.
//!
//! Shapes: image sets [n, 3, 96, 96], or another size that every image is brought to as it is read.
//!
//! Guarantee: pixels are row by row, classes 0 to 9 (0 for images without a label). An archive whose SHA-256 differs from the
//! manifest's is used, with a warning that names both.
//!
//! Cost: one pass over the archive for each part, some 20 s for 2.6 GB; memory for the images at the size asked for.
//!
//! Errors: [`Error::Read`], [`Error::CorruptGzip`], [`Error::MissingMember`], [`Error::BadRecords`],
//! [`Error::CountMismatch`], [`Error::BadStl10Label`].

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::hash::sha256_file;
use super::image_set::{ImageSet, ImageSetParts};
use super::manifest::Manifest;
use super::resize::resized_image;
use crate::error::{Error, Result};

const ARCHIVE: &str = "stl10_binary.tar.gz";
const SIDE: usize = 96;
const SHAPE: [usize; 3] = [3, SIDE, SIDE];
const N_CLASSES: usize = 10;
const RECORD: usize = 3 * SIDE * SIDE;

/// Which images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stl10Part {
    /// 5,000 with labels.
    Train,
    /// 8,000 with labels.
    Test,
    /// 100,000 without.
    Unlabeled,
}

impl Stl10Part {
    fn images(self) -> &'static str {
        match self {
            Self::Train => "train_X.bin",
            Self::Test => "test_X.bin",
            Self::Unlabeled => "unlabeled_X.bin",
        }
    }

    fn labels(self) -> Option<&'static str> {
        match self {
            Self::Train => Some("train_y.bin"),
            Self::Test => Some("test_y.bin"),
            Self::Unlabeled => None,
        }
    }
}

/// STL-10 as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stl10Files {
    /// The published archive.
    Archive(PathBuf),
    /// The folder that holds the files.
    Folder(PathBuf),
}

impl Stl10Files {
    /// Looks in the folders named in the module; `None` where none holds the archive or the labelled images. (The unlabelled
    /// ones may be missing.)
    #[must_use]
    pub fn find(dir: &Path) -> Option<Self> {
        let folders = [
            dir.join("stl10").join("stl10_binary"),
            dir.join("stl10"),
            dir.join("stl10_binary"),
            dir.to_owned(),
        ];
        let unpacked = |folder: &&PathBuf| {
            let labelled = [Stl10Part::Train, Stl10Part::Test].into_iter();
            let mut names = labelled.flat_map(|part| [Some(part.images()), part.labels()]);
            names.all(|name| name.is_some_and(|name| folder.join(name).is_file()))
        };
        if let Some(folder) = folders.iter().find(unpacked) {
            return Some(Self::Folder(folder.clone()));
        }
        let archive = folders.iter().map(|folder| folder.join(ARCHIVE)).find(|p| p.is_file());
        archive.map(Self::Archive)
    }

    /// Reads the labelled images, and says in which respect they are not the published files.
    ///
    /// # Errors
    /// See the module.
    pub fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        let warnings = self.warnings(manifest)?;
        Ok((self.read(Stl10Part::Train, SIDE)?, self.read(Stl10Part::Test, SIDE)?, warnings))
    }

    /// Whether there are unlabelled images; an archive is believed to have them.
    #[must_use]
    pub fn has_unlabeled(&self) -> bool {
        match self {
            Self::Archive(_) => true,
            Self::Folder(folder) => folder.join(Stl10Part::Unlabeled.images()).is_file(),
        }
    }

    /// One part, every image brought to `side` x `side`.
    ///
    /// # Errors
    /// See the module; [`Error::InvalidArgument`] for a side outside 1 to 4096.
    pub fn read(&self, part: Stl10Part, side: usize) -> Result<ImageSet> {
        let mut pixels = Vec::new();
        let mut labels: Option<Vec<u8>> = None;
        let (images_name, labels_name) = (part.images(), part.labels());
        let wanted: Vec<&'static str> = std::iter::once(images_name).chain(labels_name).collect();
        self.for_each(&wanted, &mut |name, reader| {
            if name == images_name {
                pixels = self.read_images(name, reader, side)?;
            } else {
                let mut bytes = Vec::new();
                reader.read_to_end(&mut bytes).map_err(|e| self.damaged(&e))?;
                labels = Some(bytes);
            }
            Ok(())
        })?;
        let n = pixels.len() / (3 * side * side);
        let labels = match labels {
            Some(bytes) => self.classes(part, &bytes, n)?,
            None => vec![0; n],
        };
        ImageSet::new(ImageSetParts {
            name: "STL-10".into(),
            shape: [3, side, side],
            n_classes: N_CLASSES,
            pixels,
            labels,
            synthetic: false,
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Archive(path) | Self::Folder(path) => path,
        }
    }

    fn damaged(&self, e: &io::Error) -> Error {
        Error::CorruptGzip {
            path: self.path().to_owned(),
            reason: e.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    fn warnings(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let (Self::Archive(path), Some(file)) = (self, manifest.file(ARCHIVE)) else {
            return Ok(Vec::new());
        };
        let (got, published) = (sha256_file(path)?, &file.sha256);
        if got == *published {
            return Ok(Vec::new());
        }
        let path = path.display();
        let text =
            format!("{path} is not the published file: SHA-256 {got}, published {published}");
        Ok(vec![text])
    }

    /// Hands over each of the named files, in the order in which they stand.
    fn for_each(
        &self,
        names: &[&'static str],
        take: &mut dyn FnMut(&'static str, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let path = match self {
            Self::Archive(path) => path,
            Self::Folder(folder) => {
                for name in names {
                    let path = folder.join(name);
                    let file = File::open(&path).map_err(|source| Error::Read { path, source })?;
                    take(name, &mut BufReader::with_capacity(1 << 20, file))?;
                }
                return Ok(());
            }
        };
        let read_error = |source| Error::Read { path: path.clone(), source };
        let file = File::open(path).map_err(read_error)?;
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(file)));
        let mut missing = names.to_vec();
        for entry in archive.entries().map_err(|e| self.damaged(&e))? {
            let mut entry = entry.map_err(|e| self.damaged(&e))?;
            let name = entry.path().map_err(|e| self.damaged(&e))?;
            let name = name.file_name().map(std::ffi::OsStr::to_owned);
            let known = missing.iter().position(|known| name.as_deref() == Some((*known).as_ref()));
            let Some(known) = known else { continue };
            take(missing.remove(known), &mut entry)?;
            if missing.is_empty() {
                // what follows may be gigabytes that nobody asked for
                return Ok(());
            }
        }
        Err(Error::MissingMember { path: path.clone(), member: missing[0] })
    }

    fn read_images(
        &self,
        name: &'static str,
        reader: &mut dyn Read,
        side: usize,
    ) -> Result<Vec<u8>> {
        let (mut pixels, mut record) = (Vec::new(), vec![0; RECORD]);
        let mut n_bytes = 0;
        loop {
            let n = read_up_to(reader, &mut record).map_err(|e| self.damaged(&e))?;
            n_bytes += n as u64;
            if n < RECORD {
                break;
            }
            pixels.extend_from_slice(&resized_image(&by_rows(&record), SHAPE, side, side)?);
        }
        if n_bytes == 0 || !n_bytes.is_multiple_of(RECORD as u64) {
            let path = self.path().join(name);
            return Err(Error::BadRecords { path, got: n_bytes, record: RECORD as u64 });
        }
        Ok(pixels)
    }

    /// Classes from 0, one for each image.
    fn classes(&self, part: Stl10Part, bytes: &[u8], n: usize) -> Result<Vec<u8>> {
        let file = |name: &str| self.path().join(name);
        let labels_path = part.labels().map_or_else(|| file(part.images()), file);
        if bytes.len() != n {
            return Err(Error::CountMismatch {
                images_path: file(part.images()),
                images: n,
                labels_path,
                labels: bytes.len(),
            });
        }
        if let Some(index) = bytes.iter().position(|label| !(1..=10).contains(label)) {
            return Err(Error::BadStl10Label { path: labels_path, index, got: bytes[index] });
        }
        Ok(bytes.iter().map(|label| label - 1).collect())
    }
}

/// Fills `buffer`, or what the rest of the file fills.
fn read_up_to(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match reader.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

/// One image, its columns turned into rows.
fn by_rows(record: &[u8]) -> Vec<u8> {
    let mut image = vec![0; RECORD];
    let planes = record.chunks_exact(SIDE * SIDE).zip(image.chunks_exact_mut(SIDE * SIDE));
    for (columns, rows) in planes {
        for (x, column) in columns.chunks_exact(SIDE).enumerate() {
            for (y, &pixel) in column.iter().enumerate() {
                rows[y * SIDE + x] = pixel;
            }
        }
    }
    image
}
