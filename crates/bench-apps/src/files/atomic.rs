//! Files that are either the old one or the new one, never half of either ([`lipconv::output`]).

use std::fs::{self, File};
use std::path::Path;

use lipconv::output;

use crate::error::{Error, Result};

/// Writes a file; its folder is made where it is missing.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        output::write(path, bytes)
    };
    write().map_err(Error::write(path))
}

/// Refuses, before a long computation, a file that could not be written at its end.
pub fn check_output(path: &Path) -> Result<()> {
    output::check(path).map_err(Error::write(path))
}

/// Opens a lock or a log, never through a link, and without emptying it.
pub fn open_own(path: &Path) -> Result<File> {
    output::open_own(path).map_err(Error::write(path))
}
