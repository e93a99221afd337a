//! The IDX format of MNIST, gzipped or raw.
//!
//! Definition: big-endian u32 words. Images: 0x00000803, n, h, w, then n x h x w bytes; labels: 0x00000801, n, then n
//! bytes. Gzip is recognised by its first two bytes, whatever the file is called.
//!
//! Guarantee: the content has exactly the length that the header promises. That length is compared with the file's before
//! anything is allocated: a raw file must have it, and a gzipped one may hold at most `EXPANSION` times its own length
//! once the content exceeds `SMALL`.
//!
//! Source: Y. LeCun's description of the format on the MNIST page.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::archive::Content;
use crate::error::{Error, Result};
use crate::manifest::hex;

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
const MAX_COUNT: u32 = 1 << 24;
const MAX_SIDE: u32 = 1 << 12;
const MAX_CONTENT: u32 = u32::MAX;
/// Content of any gzipped file, in bytes, that is not held against its length.
const SMALL: u64 = 64 << 20;
/// Images compress to a fifth or so; what grows a hundredfold is no set of images.
const EXPANSION: u64 = 100;

/// The content of an image file.
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

impl IdxImages {
    /// SHA-256 of the uncompressed file.
    pub fn sha256(&self) -> String {
        let header = [IMAGES_MAGIC, self.n as u32, self.height as u32, self.width as u32];
        content_sha256(&header, &self.pixels)
    }
}

/// SHA-256 of the uncompressed label file.
pub fn labels_sha256(labels: &[u8]) -> String {
    content_sha256(&[LABELS_MAGIC, labels.len() as u32], labels)
}

fn content_sha256(header: &[u32], content: &[u8]) -> String {
    let mut hasher = Sha256::new();
    header.iter().for_each(|word| hasher.update(word.to_be_bytes()));
    hasher.update(content);
    hex(&hasher.finalize())
}

/// Reads a file of images.
///
/// # Errors
/// A file that cannot be read, is damaged, or is not as long as its header says.
pub fn read_images(path: &Path) -> Result<IdxImages> {
    let mut reader = IdxReader::open(path)?;
    reader.magic(IMAGES_MAGIC, "IDX images, unsigned bytes in 3 dimensions")?;
    let n = reader.dimension("number of images", MAX_COUNT)?;
    let height = reader.dimension("number of rows", MAX_SIDE)?;
    let width = reader.dimension("number of columns", MAX_SIDE)?;
    let max_n = MAX_CONTENT / (height * width);
    if n > max_n {
        return Err(reader.fault(format!("number of images is {n}, expected 1 to {max_n}")));
    }
    let len = u64::from(n) * u64::from(height * width);
    let pixels = reader.content("pixel data", len)?;
    Ok(IdxImages { n: n as usize, height: height as usize, width: width as usize, pixels })
}

/// Reads a file of labels.
///
/// # Errors
/// As [`read_images`].
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut reader = IdxReader::open(path)?;
    reader.magic(LABELS_MAGIC, "IDX labels, unsigned bytes in 1 dimension")?;
    let n = reader.dimension("number of labels", MAX_COUNT)?;
    reader.content("label data", u64::from(n))
}

/// A file, decompressed where it is gzipped, with the number of content bytes read so far.
struct IdxReader {
    path: PathBuf,
    inner: Content,
    file_len: u64,
    n_read: u64,
}

impl IdxReader {
    fn open(path: &Path) -> Result<Self> {
        let read_error = Error::read(path);
        let inner = Content::open(path).map_err(read_error)?;
        let file_len = path.metadata().map_err(read_error)?.len();
        Ok(Self { path: path.to_owned(), inner, file_len, n_read: 0 })
    }

    fn magic(&mut self, expected: u32, content: &'static str) -> Result<()> {
        let got = self.word("magic number")?;
        if got == expected {
            return Ok(());
        }
        let what = format!("magic number is {got:#010x}, expected {expected:#010x} ({content})");
        Err(self.fault(what))
    }

    fn dimension(&mut self, field: &'static str, max: u32) -> Result<u32> {
        let got = self.word(field)?;
        if (1..=max).contains(&got) {
            return Ok(got);
        }
        Err(self.fault(format!("{field} is {got}, expected 1 to {max}")))
    }

    fn word(&mut self, field: &'static str) -> Result<u32> {
        let bytes = self.at_most(4)?;
        let word: [u8; 4] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| self.too_short(field, 4, bytes.len() as u64))?;
        Ok(u32::from_be_bytes(word))
    }

    /// The remaining `len` bytes, which must be all that is left.
    fn content(mut self, field: &'static str, len: u64) -> Result<Vec<u8>> {
        let expected = self.n_read + len;
        match self.inner {
            Content::Raw(_) if self.file_len < expected => {
                return Err(self.too_short(field, len, self.file_len.saturating_sub(self.n_read)));
            }
            Content::Gzipped(_) if len > SMALL.max(EXPANSION * self.file_len) => {
                let what = format!(
                    "{field} would be {len} bytes long, more than {EXPANSION} times the file's {}",
                    self.file_len
                );
                return Err(self.fault(what));
            }
            _ => {}
        }
        let bytes = self.at_most(len)?;
        if bytes.len() as u64 != len {
            return Err(self.too_short(field, len, bytes.len() as u64));
        }
        if self.at_most(1)?.is_empty() {
            return Ok(bytes);
        }
        let what = format!(
            "bytes follow the content, expected the end of the file after {expected} bytes"
        );
        Err(self.fault(what))
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
        let gzipped = matches!(self.inner, Content::Gzipped(_));
        match source.kind() {
            ErrorKind::UnexpectedEof if gzipped => self.fault(format!(
                "the gzip stream is truncated after {} bytes of content, expected a complete file",
                self.n_read
            )),
            ErrorKind::InvalidInput | ErrorKind::InvalidData if gzipped => {
                self.fault(format!("the gzip stream is damaged: {source}"))
            }
            _ => Error::Read { path: self.path.clone(), source },
        }
    }

    fn too_short(&self, field: &'static str, expected: u64, got: u64) -> Error {
        self.fault(format!("{field} is {got} bytes long, expected {expected}"))
    }

    fn fault(&self, what: String) -> Error {
        Error::malformed(&self.path, what)
    }
}
