//! A data set: images to train on, images to report on, and where they came from.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::image_set::ImageSet;

/// A training set and a test set of the same images.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The images to train on.
    pub train: ImageSet,
    /// The images to report on.
    pub test: ImageSet,
    /// What the classes are called; empty where they are numbers.
    pub classes: Vec<String>,
    /// Where they came from.
    pub source: DataSource,
    /// Lines that a person should read: a hash that differs, a fall-back, how to get the real data.
    pub notes: Vec<String>,
}

/// Where images came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// Files in a folder.
    Folder(PathBuf),
    /// Files fetched into the cache by this call.
    Downloaded(PathBuf),
    /// Drawn by the program from a seed.
    Synthetic {
        /// Decides every image.
        seed: u64,
    },
}

impl DataSource {
    /// The folder of the files; drawn images have none.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(dir) | Self::Downloaded(dir) => Some(dir),
            Self::Synthetic { .. } => None,
        }
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => write!(f, "files in {}", dir.display()),
            Self::Downloaded(dir) => write!(f, "downloaded to {}", dir.display()),
            Self::Synthetic { seed } => {
                write!(f, "synthetic digits drawn by the program, seed {seed}")
            }
        }
    }
}

impl Dataset {
    /// The notes without the folder that the images lie in, for files that go to other machines.
    pub fn portable_notes(&self) -> Vec<String> {
        let Some(dir) = self.source.folder() else { return self.notes.clone() };
        let folder = format!("{}/", dir.display().to_string().trim_end_matches('/'));
        self.notes.iter().map(|note| note.replace(&folder, "")).collect()
    }

    /// Whether the images were drawn by a program; results on them are labelled so everywhere.
    pub fn is_synthetic(&self) -> bool {
        self.test.is_synthetic()
    }
}
