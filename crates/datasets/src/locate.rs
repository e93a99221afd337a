//! Where the images are: a folder, the cache, a download, or drawn on the spot.
//!
//! Definition: the order is the folder given by flag, the folder named by `LIPCONV_DATA`, the cache (`$XDG_CACHE_HOME/lipconv`
//! or `~/.cache/lipconv`), a download into the cache, and the synthetic digits.
//!
//! Guarantee: a folder given by flag is used or the call fails; synthetic digits are used only where [`Fallback::Synthetic`]
//! allows it, with a note that says so and how to get the real data. Files that are there but damaged are an error, never a
//! reason to go on to the next place.
//!
//! Errors: [`Error::DataNotFound`], and those of the formats.

use std::env;
use std::path::{Path, PathBuf};

use crate::cifar10::Cifar10Files;
use crate::dataset::{DataSource, Dataset};
use crate::download::{DownloadOptions, DownloadProgress, download_all};
use crate::error::{Error, Result};
use crate::image_set::ImageSet;
use crate::manifest::Manifest;
use crate::mnist::MnistFiles;
use crate::stl10::Stl10Files;
use crate::synthetic::{self, SyntheticDigits};

/// What to do when the real images cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Fail.
    Refuse,
    /// Draw these.
    Synthetic(SyntheticDigits),
}

/// Where to look, in the order of the fields.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// The folder given by flag.
    pub data_dir: Option<PathBuf>,
    /// The folder named by `LIPCONV_DATA`.
    pub env_dir: Option<PathBuf>,
    /// The cache.
    pub cache_dir: Option<PathBuf>,
    /// Whether a download may be tried.
    pub offline: bool,
    /// How long to wait for servers.
    pub download: DownloadOptions,
    /// What to do when all of that fails.
    pub fallback: Fallback,
}

impl LocateOptions {
    /// Nowhere to look and no download: the fall-back, or an error.
    pub fn offline(fallback: Fallback) -> Self {
        Self {
            data_dir: None,
            env_dir: None,
            cache_dir: None,
            offline: true,
            download: DownloadOptions::default(),
            fallback,
        }
    }

    /// Everything the environment says: `LIPCONV_DATA`, `LIPCONV_OFFLINE` (any value but 0 forbids downloads), and the cache
    /// folder from `XDG_CACHE_HOME` or `HOME`.
    pub fn from_environment(data_dir: Option<PathBuf>, fallback: Fallback) -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let cache_home = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
        Self {
            data_dir,
            env_dir: set("LIPCONV_DATA").map(PathBuf::from),
            cache_dir: cache_home.map(|dir| dir.join("lipconv")),
            offline: set("LIPCONV_OFFLINE").is_some_and(|value| value != "0"),
            download: DownloadOptions::default(),
            fallback,
        }
    }
}

/// Finds MNIST, or draws its stand-in.
pub fn locate_mnist(
    options: &LocateOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<Dataset> {
    locate(&Manifest::mnist()?, options, observe)
}

/// Finds CIFAR-10; nothing stands in for it.
pub fn locate_cifar10(
    options: &LocateOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<Dataset> {
    let options = LocateOptions { fallback: Fallback::Refuse, ..options.clone() };
    locate(&Manifest::cifar10()?, &options, observe)
}

/// Finds STL-10; nothing stands in for it.
pub fn locate_stl10(
    options: &LocateOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<Dataset> {
    let options = LocateOptions { fallback: Fallback::Refuse, ..options.clone() };
    locate(&Manifest::stl10()?, &options, observe)
}

/// As [`locate_mnist`] or, for a manifest of that name, [`locate_cifar10`] or [`locate_stl10`], with a manifest of the
/// caller's.
pub fn locate(
    manifest: &Manifest,
    options: &LocateOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> Result<Dataset> {
    if let Some(dir) = &options.data_dir {
        let files =
            Files::find(manifest, dir).ok_or_else(|| not_found(manifest, &missing_in(dir)))?;
        return load(manifest, &files, DataSource::Folder(dir.clone()), Vec::new());
    }
    let mut tried = Vec::new();
    for dir in [&options.env_dir, &options.cache_dir].into_iter().flatten() {
        if let Some(files) = Files::find(manifest, dir) {
            let notes = env_note(&tried);
            return load(manifest, &files, DataSource::Folder(dir.clone()), notes);
        }
        // that the cache is empty is no news; that a folder named on purpose is, is
        if options.env_dir.as_ref() == Some(dir) {
            tried.push(format!("LIPCONV_DATA: {}", missing_in(dir)));
        }
    }
    match fetch(manifest, options, observe) {
        Ok((files, dir)) => load(manifest, &files, DataSource::Downloaded(dir), env_note(&tried)),
        Err(reason) => {
            tried.push(reason);
            fall_back(manifest, options, &tried.join("; "))
        }
    }
}

/// A data set's files in their layout.
enum Files {
    Mnist(MnistFiles),
    Cifar10(Cifar10Files),
    Stl10(Stl10Files),
}

impl Files {
    fn find(manifest: &Manifest, dir: &Path) -> Option<Self> {
        match manifest.name.as_str() {
            "cifar10" => Cifar10Files::find(dir).map(Self::Cifar10),
            "stl10" => Stl10Files::find(dir).map(Self::Stl10),
            _ => MnistFiles::find(dir).map(Self::Mnist),
        }
    }

    /// Training set, test set, and what a person should know about them.
    fn load(&self, manifest: &Manifest) -> Result<(ImageSet, ImageSet, Vec<String>)> {
        match self {
            Self::Mnist(files) => files.load(manifest),
            Self::Cifar10(files) => files.load(manifest),
            Self::Stl10(files) => files.load(manifest),
        }
    }
}

fn load(
    manifest: &Manifest,
    files: &Files,
    source: DataSource,
    mut notes: Vec<String>,
) -> Result<Dataset> {
    let (train, test, warnings) = files.load(manifest)?;
    notes.extend(warnings);
    Ok(Dataset { train, test, classes: Vec::new(), source, notes })
}

fn fetch(
    manifest: &Manifest,
    options: &LocateOptions,
    observe: &mut dyn FnMut(DownloadProgress<'_>),
) -> std::result::Result<(Files, PathBuf), String> {
    if options.offline {
        return Err("downloads are switched off".into());
    }
    let dir = options
        .cache_dir
        .as_ref()
        .ok_or("no cache folder: neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = dir.join(&manifest.name);
    download_all(manifest, &dir, &options.download, observe).map_err(|e| summary(&e))?;
    Files::find(manifest, &dir)
        .map(|files| (files, dir))
        .ok_or_else(|| "the downloaded files are gone".into())
}

fn fall_back(manifest: &Manifest, options: &LocateOptions, tried: &str) -> Result<Dataset> {
    match options.fallback {
        Fallback::Refuse => Err(not_found(manifest, tried)),
        Fallback::Synthetic(digits) => {
            let mut dataset = synthetic::dataset(&digits)?;
            dataset.notes.push(format!(
                "no {} ({tried}): synthetic digits take its place, and every result says so; for the real data, {}",
                manifest.title,
                how_to_get(manifest)
            ));
            Ok(dataset)
        }
    }
}

fn not_found(manifest: &Manifest, tried: &str) -> Error {
    Error::DataNotFound {
        dataset: manifest.title.clone(),
        reason: format!("{tried}; {}", how_to_get(manifest)),
    }
}

/// The end of a sentence that says how a person gets the data onto a machine without a network.
fn how_to_get(manifest: &Manifest) -> String {
    let files = match manifest.files.as_slice() {
        [file] => file.name.clone(),
        files => format!("the {} files", files.len()),
    };
    format!(
        "put {files} from {} into DIR/{} and give --data-dir DIR or LIPCONV_DATA=DIR",
        manifest.mirrors[0], manifest.name
    )
}

fn missing_in(dir: &Path) -> String {
    let state = match dir {
        dir if dir.is_dir() => "holds none",
        dir if dir.exists() => "is a file, expected a folder",
        _ => "does not exist",
    };
    format!("{} {state}", dir.display())
}

/// A folder that was named on purpose but holds nothing is worth a line even when the data was found elsewhere.
fn env_note(tried: &[String]) -> Vec<String> {
    tried.iter().map(|missing| format!("{missing}; looked further")).collect()
}

/// A failed download in few words: the most telling mirror, and how many others failed.
fn summary(error: &Error) -> String {
    let Error::DownloadFailed { reasons, .. } = error else { return error.to_string() };
    let telling = reasons.iter().find(|reason| reason.contains("SHA-256")).or(reasons.first());
    let others = reasons.len().saturating_sub(1);
    format!("{}, and {others} more mirrors failed", telling.map_or("", String::as_str))
}
