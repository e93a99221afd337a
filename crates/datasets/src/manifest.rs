//! Manifests: where a data set is published, and how to recognise its files by their SHA-256.
//!
//! The TOML files in the repository's `datasets/` folder are compiled in, so that the command needs none of them.
//!
//! Errors: [`Error::Malformed`] for a manifest that cannot be parsed, has an unknown key, no mirror, no file, or a hash that
//! is not 64 lower-case hexadecimal digits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Where a data set is published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Short name, also the name of the folder that holds the files.
    pub name: String,
    /// The data set's title.
    pub title: String,
    /// One line on what it holds.
    pub description: String,
    /// The page that describes it.
    pub source: String,
    /// Licence, as far as it is stated.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// Address prefixes, to be tried in this order; each ends with a slash.
    pub mirrors: Vec<String>,
    /// The files as they are published.
    pub files: Vec<ManifestFile>,
    /// The uncompressed content of the files, as far as its hashes are known.
    #[serde(default)]
    pub members: Vec<ManifestMember>,
}

/// One file, uncompressed and out of its archive.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestMember {
    /// File name, without its folder.
    pub name: String,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// One published file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// What the file is for, as in `train-images`.
    pub role: String,
    /// File name, appended to a mirror.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of MNIST.
    pub fn mnist() -> Result<Self> {
        Self::parse("mnist.toml", include_str!("../manifests/mnist.toml"))
    }

    /// The manifest of CIFAR-10 (binary version).
    pub fn cifar10() -> Result<Self> {
        Self::parse("cifar10.toml", include_str!("../manifests/cifar10.toml"))
    }

    /// The manifest of STL-10 (binary version).
    pub fn stl10() -> Result<Self> {
        Self::parse("stl10.toml", include_str!("../manifests/stl10.toml"))
    }

    /// Parses and checks a manifest; `name` names it in errors.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let invalid = |what: String| Error::malformed(name.as_ref(), what);
        let manifest: Self = toml::from_str(text).map_err(|e| invalid(e.message().to_owned()))?;
        if manifest.mirrors.is_empty() || manifest.files.is_empty() {
            return Err(invalid("expected at least one mirror and one file".into()));
        }
        if let Some(mirror) = manifest.mirrors.iter().find(|m| !m.ends_with('/')) {
            return Err(invalid(format!("mirror is {mirror}, expected a final slash")));
        }
        let members = manifest.members.iter().map(|member| (&member.name, &member.sha256));
        let hashes = manifest.files.iter().map(|file| (&file.name, &file.sha256)).chain(members);
        for (name, sha256) in hashes {
            let is_hex = sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if sha256.len() != 64 || !is_hex {
                return Err(invalid(format!(
                    "sha256 of {name} is {sha256:?}, expected 64 lower-case hexadecimal digits"
                )));
            }
        }
        for file in &manifest.files {
            if file.name.is_empty() || file.name.contains(['/', '\\']) {
                return Err(invalid(format!(
                    "file name is {:?}, expected a name without a folder",
                    file.name
                )));
            }
        }
        Ok(manifest)
    }

    /// The file called `name`.
    pub fn file(&self, name: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The uncompressed file called `name`.
    pub fn member(&self, name: &str) -> Option<&ManifestMember> {
        self.members.iter().find(|member| member.name == name)
    }

    /// A clause for a file whose uncompressed content, with the hash `got`, is not the published one or cannot be compared with it.
    pub fn difference(&self, name: &str, got: &str) -> Option<String> {
        match self.member(name).map(|member| &member.sha256) {
            Some(published) if got == published => None,
            Some(published) => {
                Some(format!("{name} differs: SHA-256 {got}, published {published}"))
            }
            None => Some(format!("{name} has no published hash to compare with: SHA-256 {got}")),
        }
    }

    /// Length of all files together, in bytes.
    pub fn total_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// SHA-256 of a file, read once in blocks.
pub fn sha256_file(path: &Path) -> Result<String> {
    let read_error = |source| Error::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(read_error)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block).map_err(read_error)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&block[..n]),
        }
    }
}
