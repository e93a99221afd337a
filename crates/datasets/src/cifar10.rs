//! CIFAR-10, binary version, from the archive or from its unpacked folder.
//!
//! Definition: `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin`, each a run of records of 1 label byte and 3072
//! pixel bytes (red, green, blue planes of 32 x 32, row-major). They are read from `cifar-10-binary.tar.gz` or from the files
//! themselves, in `DIR/cifar10`, `DIR/cifar10/cifar-10-batches-bin`, `DIR/cifar-10-batches-bin` or `DIR`; unpacked files come
//! first, because they need no decompression.
//!
//! Guarantee: content that is not the published one, or cannot be compared with it, is used with a note that says so.
//!
//! Cost: the archive is decompressed once, about 2 s; it is hashed once, and its batches only where its own hash differs.

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::archive::Packed;
use crate::error::{Error, Result};
use crate::image_set::{ImageSet, ImageSetParts, check_labels};
use crate::manifest::{Manifest, hex};

const ARCHIVE: &str = "cifar-10-binary.tar.gz";
const FOLDERS: [&str; 3] = ["cifar10/cifar-10-batches-bin", "cifar10", "cifar-10-batches-bin"];
const BATCHES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
const SHAPE: [usize; 3] = [3, 32, 32];
const N_CLASSES: usize = 10;
/// Label and pixels.
const RECORD: usize = 1 + SHAPE[0] * SHAPE[1] * SHAPE[2];
/// The published number.
const MOST_RECORDS: usize = 10_000;

/// CIFAR-10 as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cifar10Files(Packed);

/// One batch, as it stands in its file.
struct RawBatch {
    name: &'static str,
    bytes: Vec<u8>,
}

impl Cifar10Files {
    /// Looks in the folders named in the module; `None` where none holds the archive or all six batches.
    pub fn find(dir: &Path) -> Option<Self> {
        Packed::find(dir, &FOLDERS, ARCHIVE, &BATCHES).map(Self)
    }

    /// Training set, test set, and in which respect they are not the published ones.
    pub fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        let mut batches = Vec::new();
        self.0.for_each(&BATCHES, true, &mut |name, reader| {
            batches.push(RawBatch { name, bytes: self.read_batch(name, reader)? });
            Ok(())
        })?;
        batches.sort_by_key(|batch| BATCHES.iter().position(|name| *name == batch.name));
        let notes = self.notes(manifest, &batches)?;
        let (train, test) = batches.split_at(BATCHES.len() - 1);
        Ok((self.image_set(train)?, self.image_set(test)?, notes))
    }

    fn read_batch(&self, name: &str, reader: &mut dyn Read) -> Result<Vec<u8>> {
        let (mut bytes, most) = (Vec::new(), MOST_RECORDS * RECORD);
        let read = reader.take(most as u64 + 1).read_to_end(&mut bytes);
        let n = read.map_err(|e| self.0.damaged(&e))?;
        let path = self.0.member(name);
        if n > most {
            return Err(Error::malformed(
                &path,
                format!("more than {most} bytes, expected no more"),
            ));
        }
        if n == 0 || n % RECORD != 0 {
            let what = format!("{n} bytes long, expected a positive multiple of {RECORD}");
            return Err(Error::malformed(&path, what));
        }
        Ok(bytes)
    }

    fn notes(&self, manifest: &Manifest, batches: &[RawBatch]) -> Result<Vec<String>> {
        let differs =
            |batch: &RawBatch| manifest.difference(batch.name, &hex(&Sha256::digest(&batch.bytes)));
        if let Packed::Folder(path) = &self.0 {
            let place = |text| format!("{}: {text}", path.display());
            return Ok(batches.iter().filter_map(differs).map(place).collect());
        }
        let Some(note) = self.0.archive_note(manifest)? else { return Ok(Vec::new()) };
        let known = batches.iter().filter(|batch| manifest.member(batch.name).is_some());
        let different: Vec<String> = known.filter_map(differs).collect();
        let what = if different.is_empty() {
            "its training batches are the published ones, so the test batch or the packing differs"
                .to_owned()
        } else {
            different.join("; ")
        };
        Ok(vec![format!("{note}; {what}")])
    }

    fn image_set(&self, batches: &[RawBatch]) -> Result<ImageSet> {
        let n_bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
        let (mut pixels, mut labels) = (Vec::with_capacity(n_bytes), Vec::new());
        for batch in batches {
            let first = labels.len();
            for record in batch.bytes.chunks_exact(RECORD) {
                labels.push(record[0]);
                pixels.extend_from_slice(&record[1..]);
            }
            check_labels(&self.0.member(batch.name), &labels[first..], N_CLASSES)?;
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
