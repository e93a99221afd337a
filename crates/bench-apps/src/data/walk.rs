//! Folders of images: every file below them is taken, or counted in a note.
//!
//! Definition. An image is a file that begins as one ([`super::decode`]) or is called like one. Links are followed. A folder or a
//! file that was reached before, by whatever name, is not read again, so that no circle of links is walked twice.
//!
//! Guarantee: what is left out (hidden entries, files that are not images, what is neither file nor folder, links that lead
//! nowhere, what was reached before) is counted, with an example. Paths come in the order of their bytes.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use super::decode::is_image;
use crate::error::{Error, Result};

/// What may be found below a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nested {
    /// Folders, to any depth.
    Allowed,
    /// A folder is an error.
    Refused,
}

/// What was left out so far: how many of each kind, and the first.
#[derive(Debug, Default)]
pub(super) struct LeftOut(BTreeMap<&'static str, (usize, PathBuf)>);

impl LeftOut {
    pub(super) fn add(&mut self, kind: &'static str, path: &Path) {
        self.0.entry(kind).or_insert_with(|| (0, path.to_owned())).0 += 1;
    }

    /// One line for each kind.
    pub(super) fn notes(&self, dir: &Path) -> Vec<String> {
        let note = |(kind, (n, first)): (&&str, &(usize, PathBuf))| {
            let first = first.strip_prefix(dir).unwrap_or(first).display();
            format!("left out of {} as {kind}: {n} (first {first})", dir.display())
        };
        self.0.iter().map(note).collect()
    }
}

/// Folders and files that were reached.
#[derive(Debug, Default)]
pub(super) struct Reached(HashSet<Identity>);

#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

impl Reached {
    /// Whether this is the first time.
    fn insert(&mut self, path: &Path, metadata: &Metadata) -> bool {
        self.0.insert(identity(path, metadata))
    }
}

#[cfg(unix)]
fn identity(_path: &Path, metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(path: &Path, _metadata: &Metadata) -> Identity {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// One entry of a folder, its links followed.
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

impl Entry {
    pub(super) fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// The entries of a folder that are neither hidden nor links to nowhere.
pub(super) fn entries(dir: &Path, left_out: &mut LeftOut) -> Result<Vec<Entry>> {
    let read_error = Error::read(dir);
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(read_error)? {
        paths.push(entry.map_err(read_error)?.path());
    }
    paths.sort();
    let mut entries = Vec::new();
    for path in paths {
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            left_out.add("hidden", &path);
            continue;
        }
        match fs::metadata(&path) {
            Ok(metadata) => entries.push(Entry { path, metadata }),
            Err(_) if path.is_symlink() => left_out.add("a link to nowhere", &path),
            Err(source) => return Err(Error::Read { path, source }),
        }
    }
    Ok(entries)
}

/// The images in `dir`, and below it where that is allowed.
pub(super) fn images(
    dir: &Path,
    nested: Nested,
    reached: &mut Reached,
    left_out: &mut LeftOut,
) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(dir).map_err(Error::read(dir))?;
    reached.insert(dir, &metadata);
    let mut found = Vec::new();
    for Entry { path, metadata } in entries(dir, left_out)? {
        if metadata.is_dir() && nested == Nested::Refused {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::malformed(
                dir,
                format!("holds the folder {name}, expected images alone"),
            ));
        }
        let is_plain = metadata.is_dir() || metadata.is_file();
        if !is_plain {
            left_out.add("neither file nor folder", &path);
        } else if !reached.insert(&path, &metadata) {
            left_out.add("read before under another name", &path);
        } else if metadata.is_dir() {
            found.extend(images(&path, nested, reached, left_out)?);
        } else if is_called_image(&path) || is_image(&path)? {
            found.push(path);
        } else {
            left_out.add("not an image", &path);
        }
    }
    Ok(found)
}

fn is_called_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let known = ["png", "jpg", "jpeg", "gif", "webp", "bmp", "tif", "tiff"];
    known.iter().any(|known| extension.eq_ignore_ascii_case(known))
}
