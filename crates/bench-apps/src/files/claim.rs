//! Whose folder it is: one process at a time, for one purpose.
//!
//! Guarantee: the lock is given back by the system when the process ends, however it ends. A folder that was begun for something
//! else is never written to: the caller refuses it or moves it aside.

use std::fmt::Debug;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{open_own, read_json, write_json};
use crate::error::{Error, Result};
use crate::stdout::errln;

const LOCK: &str = "run.lock";

/// What a folder was begun for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing was recorded; the purpose is now.
    New,
    /// This.
    Same,
    /// Something else, which is still recorded.
    Other,
}

/// Records a purpose in a file, or compares it with the recorded one.
pub fn claim<T>(file: &Path, purpose: &T) -> Result<Claim>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    match read_json::<T>(file)? {
        None => write_json(file, purpose).map(|()| Claim::New),
        Some(before) if before == *purpose => Ok(Claim::Same),
        Some(_) => Ok(Claim::Other),
    }
}

/// Makes the folder where it is missing, and holds it for this process as long as the returned file lives.
pub fn lock_folder(path: &Path) -> Result<File> {
    let write_error = Error::write(path);
    fs::create_dir_all(path).map_err(write_error)?;
    let lock = open_own(&path.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::RunLocked { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(write_error(source)),
    }
}

/// Moves a folder aside and says why: what is written there from now on is new.
pub fn begin_anew(path: &Path, why: &str) -> Result<()> {
    let aside = move_aside(path)?;
    errln!("starting anew, {why}; the old run is now {}", aside.display());
    Ok(())
}

/// Renames a folder to a free name beside it, which is returned.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let write_error = Error::write(path);
    // "." has no name of its own
    let path = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(write_error)?,
    };
    let own = path.file_name().unwrap_or_default();
    let name = |i: u32| {
        let mut name = own.to_owned();
        name.push(format!("-old-{i}"));
        path.with_file_name(name)
    };
    let free = (1..10_000).map(name).find(|path| path.symlink_metadata().is_err());
    let free = free.ok_or_else(|| write_error(ErrorKind::AlreadyExists.into()))?;
    fs::rename(&path, &free).map_err(write_error)?;
    Ok(free)
}
