//! Gzip as `gunzip` reads it, and data sets that are published as one archive of a few files: the archive, or a folder with the
//! files.
//!
//! Definition: a gzipped file is one member after another; zeros may follow the last one. Anything else after a member is an error,
//! as is a member that is cut off or whose checksum is wrong.
//!
//! Guarantee: an archive is read as a stream, and each of its files only as far as the caller reads it. Files that are no
//! plain ones (links, sparse files) are refused under the names that are looked for, and skipped under others.
//!
//! Errors: [`Error::Read`], [`Error::Malformed`].

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;

use crate::error::{Error, Result};
use crate::manifest::{Manifest, sha256_file};

/// A data set as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Packed {
    Archive(PathBuf),
    Folder(PathBuf),
}

impl Packed {
    /// Looks in `dir` and in the named folders below it: first for a folder with all `members`, which needs no
    /// decompression, then for the archive.
    pub(crate) fn find(
        dir: &Path,
        below: &[&str],
        archive: &str,
        members: &[&str],
    ) -> Option<Self> {
        let folders: Vec<PathBuf> =
            below.iter().map(|name| dir.join(name)).chain([dir.to_owned()]).collect();
        let unpacked = |folder: &&PathBuf| members.iter().all(|name| folder.join(name).is_file());
        if let Some(folder) = folders.iter().find(unpacked) {
            return Some(Self::Folder(folder.clone()));
        }
        let archives = folders.iter().map(|folder| folder.join(archive));
        archives.into_iter().find(|path| path.is_file()).map(Self::Archive)
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Archive(path) | Self::Folder(path) => path,
        }
    }

    /// A line for an archive that is not the published one; a folder has no hash of its own.
    pub(crate) fn archive_note(&self, manifest: &Manifest) -> Result<Option<String>> {
        let Self::Archive(path) = self else { return Ok(None) };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(published) = manifest.file(&name).map(|file| &file.sha256) else {
            return Ok(None);
        };
        let got = sha256_file(path)?;
        let path = path.display();
        Ok((got != *published).then(|| {
            format!("{path} is not the published file: SHA-256 {got}, published {published}")
        }))
    }

    /// Hands over each of the named files, in the order in which they stand.
    ///
    /// With `to_the_end`, an archive is read to its end afterwards, which checks its checksum.
    pub(crate) fn for_each(
        &self,
        names: &[&'static str],
        to_the_end: bool,
        take: &mut dyn FnMut(&'static str, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let path = match self {
            Self::Archive(path) => path,
            Self::Folder(folder) => {
                for name in names {
                    let path = folder.join(name);
                    lipconv::output::protect(&path);
                    let file = File::open(&path).map_err(Error::read(&path))?;
                    take(name, &mut BufReader::with_capacity(1 << 20, file))?;
                }
                return Ok(());
            }
        };
        let mut archive = tar::Archive::new(Content::open(path).map_err(Error::read(path))?);
        let mut missing = names.to_vec();
        // raw: extensions of the format, which can ask for any amount of memory, are entries like others
        for entry in archive.entries().map_err(|e| self.damaged(&e))?.raw(true) {
            let mut entry = entry.map_err(|e| self.damaged(&e))?;
            let path = entry.path_bytes().into_owned();
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let Some(i) = missing.iter().position(|known| known.as_bytes() == name) else {
                continue;
            };
            if !entry.header().entry_type().is_file() {
                let what = format!("{} is not a plain file in the archive", missing[i]);
                return Err(Error::malformed(self.path(), what));
            }
            take(missing.remove(i), &mut entry)?;
            if missing.is_empty() && !to_the_end {
                // what follows may be gigabytes that nobody asked for
                return Ok(());
            }
        }
        if let Some(name) = missing.first() {
            return Err(Error::malformed(path, format!("{name} is missing from the archive")));
        }
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map(drop).map_err(|e| self.damaged(&e))
    }

    /// A failure to read what is packed, on one line.
    pub(crate) fn damaged(&self, error: &io::Error) -> Error {
        let reason = error.to_string();
        // what is no archive is quoted by the reader as if it were text
        let reason = if reason.is_ascii() { reason.as_str() } else { "not an archive" };
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        match self {
            Self::Archive(path) => {
                Error::malformed(path, format!("the archive is damaged: {reason}"))
            }
            Self::Folder(path) => Error::malformed(path, reason),
        }
    }

    /// The path of one of the files, which in an archive names the archive as well.
    pub(crate) fn member(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path().join(name.as_ref())
    }
}

/// The content of a file: decompressed where it begins as gzip does, whatever the file is called.
#[derive(Debug)]
pub(crate) enum Content {
    Raw(BufReader<File>),
    Gzipped(Box<Gunzip<BufReader<File>>>),
}

impl Content {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        lipconv::output::protect(path);
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        // gzip's first two bytes; no format that is read here begins with them
        let gzipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        Ok(if gzipped { Self::Gzipped(Box::new(Gunzip::new(file))) } else { Self::Raw(file) })
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Raw(file) => file.read(buffer),
            Self::Gzipped(file) => file.read(buffer),
        }
    }
}

/// Decompresses all members.
#[derive(Debug)]
pub(crate) struct Gunzip<R> {
    /// The member that is being read; none after the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(compressed: R) -> Self {
        Self { member: Some(GzDecoder::new(compressed)) }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let Some(member) = self.member.take() else { break };
            let mut rest = member.into_inner();
            match skip_zeros(&mut rest)? {
                None => {}
                Some(0x1f) => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let text = "bytes follow the gzip stream that are neither gzip nor zero";
                    return Err(io::Error::new(ErrorKind::InvalidData, text));
                }
            }
        }
        Ok(0)
    }
}

/// The first byte that is not zero, which is left in place.
fn skip_zeros(rest: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = rest.fill_buf()?;
        if buffer.is_empty() {
            return Ok(None);
        }
        match buffer.iter().position(|&byte| byte != 0) {
            Some(n) => {
                let byte = buffer[n];
                rest.consume(n);
                return Ok(Some(byte));
            }
            None => {
                let n = buffer.len();
                rest.consume(n);
            }
        }
    }
}
