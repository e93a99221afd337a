//! Files that are either the old one or the new one, never half of either.

use std::fs;
use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Writes `bytes` to a temporary file beside `path`, flushes it to the disk and renames it; the folder is made where it is
/// missing.
///
/// # Errors
/// [`Error::Write`]; what was at `path` before is still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || {
        fs::create_dir_all(folder)?;
        let mut file = NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        // a temporary file is private by default; results are meant to be shared
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        }
        file.persist(path).map_err(|e| e.error)
    };
    write().map(drop).map_err(|source| Error::Write { path: path.to_owned(), source })
}
