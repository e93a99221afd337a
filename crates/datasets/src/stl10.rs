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
//! Guarantee: pixels are row by row, classes 0 to 9 (0 for images without a label). Content that is not the published one, or cannot
//! be compared with it, is used with a note that says so.
//!
//! Cost: one pass over the archive for each part, some 20 s for 2.6 GB; memory for the images at the size asked for.

use std::io::Read;
use std::path::Path;

use crate::archive::Packed;
use crate::error::{Error, Result};
use crate::image_set::{ImageSet, ImageSetParts};
use crate::manifest::Manifest;
use crate::resize::resized_image;

const ARCHIVE: &str = "stl10_binary.tar.gz";
const FOLDERS: [&str; 3] = ["stl10/stl10_binary", "stl10", "stl10_binary"];
/// Without these it is not found; the unlabelled images may be missing.
const LABELLED: [&str; 4] = ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"];
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

    /// The published number of images.
    fn most(self) -> usize {
        match self {
            Self::Train => 5000,
            Self::Test => 8000,
            Self::Unlabeled => 100_000,
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
pub struct Stl10Files(Packed);

impl Stl10Files {
    /// Looks in the folders named in the module; `None` where none holds the archive or the labelled images.
    pub fn find(dir: &Path) -> Option<Self> {
        Packed::find(dir, &FOLDERS, ARCHIVE, &LABELLED).map(Self)
    }

    /// The labelled images, and in which respect they are not the published ones.
    pub fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        let notes = self.0.archive_note(manifest)?;
        let (train, test) = (self.read(Stl10Part::Train, SIDE)?, self.read(Stl10Part::Test, SIDE)?);
        let unpacked = matches!(self.0, Packed::Folder(_)).then(|| {
            let path = self.0.path().display();
            format!("{path}: STL-10 has published hashes for its archive alone, so the unpacked files are taken as they are")
        });
        Ok((train, test, notes.into_iter().chain(unpacked).collect()))
    }

    /// Whether there are unlabelled images; an archive is assumed to have them.
    pub fn has_unlabeled(&self) -> bool {
        match &self.0 {
            Packed::Archive(_) => true,
            Packed::Folder(folder) => folder.join(Stl10Part::Unlabeled.images()).is_file(),
        }
    }

    /// One part, every image brought to `side` x `side`, which is 1 to 4096.
    pub fn read(&self, part: Stl10Part, side: usize) -> Result<ImageSet> {
        let mut pixels = Vec::new();
        let mut labels: Option<Vec<u8>> = None;
        let (images_name, labels_name) = (part.images(), part.labels());
        let wanted: Vec<&'static str> = std::iter::once(images_name).chain(labels_name).collect();
        self.0.for_each(&wanted, false, &mut |name, reader| {
            if name == images_name {
                pixels = self.read_images(part, reader, side)?;
            } else {
                let (mut bytes, most) = (Vec::new(), part.most() as u64);
                let read = reader.take(most + 1).read_to_end(&mut bytes);
                read.map_err(|e| self.0.damaged(&e))?;
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

    fn read_images(&self, part: Stl10Part, reader: &mut dyn Read, side: usize) -> Result<Vec<u8>> {
        let (mut pixels, mut record) = (Vec::new(), Vec::with_capacity(RECORD));
        for n in 0.. {
            record.clear();
            let read = reader.take(RECORD as u64).read_to_end(&mut record);
            let last = read.map_err(|e| self.0.damaged(&e))?;
            if last == 0 && n > 0 {
                break;
            }
            let path = self.0.member(part.images());
            if last < RECORD {
                let n_bytes = n * RECORD + last;
                let what =
                    format!("{n_bytes} bytes long, expected a positive multiple of {RECORD}");
                return Err(Error::malformed(&path, what));
            }
            if n == part.most() {
                return Err(Error::malformed(
                    &path,
                    format!("more than {n} images, expected no more"),
                ));
            }
            pixels.extend_from_slice(&resized_image(&by_rows(&record), SHAPE, side, side)?);
        }
        Ok(pixels)
    }

    /// Classes from 0, one for each image.
    fn classes(&self, part: Stl10Part, bytes: &[u8], n: usize) -> Result<Vec<u8>> {
        let images = self.0.member(part.images());
        let path = part.labels().map_or_else(|| images.clone(), |name| self.0.member(name));
        if bytes.len() != n {
            let (got, images) = (bytes.len(), images.display());
            let what = format!("{got} labels, expected {n}, the number of images in {images}");
            return Err(Error::malformed(&path, what));
        }
        if let Some(i) = bytes.iter().position(|label| !(1..=10).contains(label)) {
            let what = format!("label {i} is {}, expected 1 to 10", bytes[i]);
            return Err(Error::malformed(&path, what));
        }
        Ok(bytes.iter().map(|label| label - 1).collect())
    }
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
