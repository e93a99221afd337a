//! The IDX format of MNIST, gzipped or raw.
//!
//! Definition: big-endian u32 words. Images: 0x00000803, n, h, w, then n x h x w bytes; labels: 0x00000801, n, then n
//! bytes. Gzip is recognised by its first two bytes, 1f 8b, whatever the file is called.
//!
//! Guarantee: the content has exactly the length that the header promises; memory grows with the bytes that were read,
//! never with the header's word alone.
//!
//! Errors: [`Error::Read`], [`Error::TruncatedGzip`], [`Error::CorruptGzip`], [`Error::WrongMagic`],
//! [`Error::BadDimension`], [`Error::TruncatedData`], [`Error::TrailingBytes`].
//!
//! Source: Y. LeCun's description of the format on the MNIST page.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
const MAX_COUNT: u32 = 1 << 24;
const MAX_SIDE: u32 = 1 << 12;
const MAX_CONTENT: u32 = u32::MAX;

/// Images of an IDX file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxImages {
    /// Number of images.
    pub n: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Pixels [n, height, width].
    pub pixels: Vec<u8>,
}

/// Reads an image file.
///
/// # Errors
/// See the module.
pub fn read_images(path: &Path) -> Result<IdxImages> {
    let mut reader = IdxReader::open(path)?;
    reader.magic(IMAGES_MAGIC, "IDX images, unsigned bytes in 3 dimensions")?;
    let n = reader.dimension("number of images", MAX_COUNT)?;
    let height = reader.dimension("number of rows", MAX_SIDE)?;
    let width = reader.dimension("number of columns", MAX_SIDE)?;
    let max_n = MAX_CONTENT / (height * width);
    if n > max_n {
        return Err(Error::BadDimension {
            path: reader.path,
            field: "number of images",
            got: n,
            max: max_n,
        });
    }
    let len = u64::from(n) * u64::from(height * width);
    let pixels = reader.content("pixel data", len)?;
    Ok(IdxImages { n: n as usize, height: height as usize, width: width as usize, pixels })
}

/// Reads a label file.
///
/// # Errors
/// See the module.
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut reader = IdxReader::open(path)?;
    reader.magic(LABELS_MAGIC, "IDX labels, unsigned bytes in 1 dimension")?;
    let n = reader.dimension("number of labels", MAX_COUNT)?;
    reader.content("label data", u64::from(n))
}

/// A file, decompressed where it is gzipped, with the number of content bytes read so far.
struct IdxReader {
    path: PathBuf,
    inner: Box<dyn Read>,
    n_read: u64,
    gzipped: bool,
}

impl IdxReader {
    fn open(path: &Path) -> Result<Self> {
        let read_error = |source| Error::Read { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(read_error)?);
        let mut start = Vec::with_capacity(2);
        file.by_ref().take(2).read_to_end(&mut start).map_err(read_error)?;
        let gzipped = start == [0x1f, 0x8b];
        let whole = std::io::Cursor::new(start).chain(file);
        let inner: Box<dyn Read> =
            if gzipped { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        Ok(Self { path: path.to_owned(), inner, n_read: 0, gzipped })
    }

    fn magic(&mut self, expected: u32, content: &'static str) -> Result<()> {
        let got = self.word("magic number")?;
        if got == expected {
            return Ok(());
        }
        Err(Error::WrongMagic { path: self.path.clone(), got, expected, content })
    }

    fn dimension(&mut self, field: &'static str, max: u32) -> Result<u32> {
        let got = self.word(field)?;
        if (1..=max).contains(&got) {
            return Ok(got);
        }
        Err(Error::BadDimension { path: self.path.clone(), field, got, max })
    }

    fn word(&mut self, field: &'static str) -> Result<u32> {
        let bytes = self.at_most(4)?;
        let word: [u8; 4] =
            bytes.as_slice().try_into().map_err(|_| self.too_short(field, 4, bytes.len()))?;
        Ok(u32::from_be_bytes(word))
    }

    /// The remaining `len` bytes, which must be all that is left.
    fn content(mut self, field: &'static str, len: u64) -> Result<Vec<u8>> {
        let header = self.n_read;
        let bytes = self.at_most(len)?;
        if bytes.len() as u64 != len {
            return Err(self.too_short(field, len, bytes.len()));
        }
        if self.at_most(1)?.is_empty() {
            return Ok(bytes);
        }
        Err(Error::TrailingBytes { path: self.path, expected: header + len })
    }

    /// Up to `len` bytes; `read_to_end` grows its buffer only as bytes arrive.
    fn at_most(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let outcome = self.inner.by_ref().take(len).read_to_end(&mut bytes);
        self.n_read += bytes.len() as u64;
        outcome.map_err(|source| self.read_error(source))?;
        Ok(bytes)
    }

    fn read_error(&self, source: std::io::Error) -> Error {
        let path = self.path.clone();
        match source.kind() {
            ErrorKind::UnexpectedEof if self.gzipped => {
                Error::TruncatedGzip { path, got: self.n_read }
            }
            ErrorKind::InvalidInput | ErrorKind::InvalidData if self.gzipped => {
                Error::CorruptGzip { path, reason: source.to_string() }
            }
            _ => Error::Read { path, source },
        }
    }

    fn too_short(&self, field: &'static str, expected: u64, got: usize) -> Error {
        Error::TruncatedData { path: self.path.clone(), field, expected, got: got as u64 }
    }
}
