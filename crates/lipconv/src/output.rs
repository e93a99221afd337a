//! Files written whole or not at all, and nothing else touched.
//!
//! Definition. [`write()`] makes the folders that are missing, puts the bytes into a temporary file beside the target, flushes it to the
//! disk and renames it. A device, a pipe or a socket is written in place. A symbolic link is refused: what it leads to is not named in the command. Links in `/dev`
//! itself and in `/proc`, which the system makes, are followed and written in place.
//!
//! Guarantee: an input of the running command ([`protect`]) is never replaced, by whatever name, nor a file that a process has locked. Files are created with the
//! permissions that the umask leaves. A temporary file of a process that was killed is removed by the next write into its
//! folder; one that is in use is locked, and stays.
//!
//! Errors: `std::io::Error`, whose text goes on after "cannot write FILE: ".

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

/// A temporary file is called `.lipconv-`, 16 hexadecimal digits, `.tmp`.
const PREFIX: &str = ".lipconv-";
const SUFFIX: &str = ".tmp";
const DIGITS: usize = 16;

/// Files that the command reads, with the path by which each was named.
static PROTECTED: LazyLock<Mutex<HashMap<Identity, PathBuf>>> = LazyLock::new(Mutex::default);

/// Device and inode, or where there is no such thing the canonical path.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

/// How a target is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Replace,
    InPlace,
}

/// Writes a file; what was there before is replaced, or left as it was after an error.
///
/// # Errors
/// See the module.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if way(path)? == Way::InPlace {
        return write_in_place(path, bytes);
    }
    fs::create_dir_all(folder(path))?;
    let temporary = Temporary::create(folder(path))?;
    (&temporary.file).write_all(bytes)?;
    temporary.file.sync_all()?;
    fs::rename(&temporary.path, path)
}

/// A stream of this process is written through the descriptor that it has: a second one of the same file has its own position, and the
/// two would write over each other.
fn write_in_place(path: &Path, bytes: &[u8]) -> Result<()> {
    match descriptor(path) {
        Some(number) => {
            std::io::stdout().flush()?;
            stream(number)?.write_all(bytes)
        }
        None => OpenOptions::new().append(true).open(path)?.write_all(bytes),
    }
}

/// The stream of a descriptor that is open for writing.
#[cfg(unix)]
fn stream(number: i32) -> Result<File> {
    use std::os::fd::{BorrowedFd, OwnedFd};
    #[expect(unsafe_code, reason = "a descriptor that a path names has no owner here")]
    // SAFETY: fcntl takes any number, and the descriptor is borrowed only after fcntl found it open.
    let own: OwnedFd = unsafe {
        let flags = libc::fcntl(number, libc::F_GETFL);
        if flags == -1 {
            return Err(Error::last_os_error());
        }
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(Error::new(ErrorKind::InvalidInput, "it is not open for writing"));
        }
        BorrowedFd::borrow_raw(number).try_clone_to_owned()?
    };
    Ok(own.into())
}

#[cfg(not(unix))]
fn stream(_number: i32) -> Result<File> {
    Err(ErrorKind::Unsupported.into())
}

/// The number of this process's descriptor that a path like /dev/stdout or /proc/self/fd/1 leads to.
fn descriptor(path: &Path) -> Option<i32> {
    let own = Path::new("/proc").join(std::process::id().to_string());
    let mut path = path.to_owned();
    // as many links as the system follows
    for _ in 0..40 {
        let folder = folder(&path).canonicalize().ok()?;
        if folder.starts_with(&own) && folder.ends_with("fd") {
            return path.file_name()?.to_str()?.parse().ok();
        }
        path = folder.join(fs::read_link(&path).ok()?);
    }
    None
}

/// Whether [`write()`] may write here, found out before a long computation; folders that are missing are made later.
///
/// # Errors
/// As [`write()`] would give.
pub fn check(path: &Path) -> Result<()> {
    if way(path)? == Way::InPlace {
        return descriptor(path).map_or(Ok(()), |number| stream(number).map(drop));
    }
    let mut folder = folder(path);
    while !folder.exists() {
        let Some(above) = folder.parent() else { break };
        folder = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    }
    Temporary::create(folder).map(drop)
}

/// Declares a file an input of this process, which [`write()`] leaves alone.
pub fn protect(path: &Path) {
    if let (Ok(metadata), Ok(path)) = (fs::metadata(path), path.canonicalize())
        && metadata.is_file()
    {
        let mut protected = PROTECTED.lock().unwrap_or_else(PoisonError::into_inner);
        protected.insert(identity(&path, &metadata), path);
    }
}

/// Opens a lock or a log for reading and appending; it is made where it is missing, and neither emptied nor followed where
/// it is a link.
///
/// # Errors
/// A link, a folder or a device in its place; those of the system.
pub fn open_own(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NOFOLLOW | libc::O_NONBLOCK,
    );
    let file = options.open(path).map_err(|e| if path.is_symlink() { is_link() } else { e })?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(Error::new(ErrorKind::InvalidInput, "it is not a plain file"))
}

fn is_link() -> Error {
    Error::new(ErrorKind::InvalidInput, "it is a symbolic link, expected a file or nothing")
}

fn is_input() -> Error {
    Error::new(ErrorKind::InvalidInput, "it is an input of this command")
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn way(path: &Path) -> Result<Way> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(ErrorKind::IsADirectory.into());
    }
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Way::Replace),
        Err(e) => return Err(e),
    };
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if metadata.is_symlink() {
        let folder = folder(path).canonicalize()?;
        // anyone may write below /dev, into /dev/shm
        let of_system = folder == Path::new("/dev") || folder.starts_with("/proc");
        if !of_system {
            return Err(is_link());
        }
        if fs::metadata(path).is_ok_and(|metadata| is_protected(path, &metadata)) {
            return Err(is_input());
        }
        return Ok(Way::InPlace);
    }
    if !metadata.is_file() {
        return Ok(Way::InPlace);
    }
    if is_protected(path, &metadata) {
        return Err(is_input());
    }
    let is_locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    if File::open(path).is_ok_and(is_locked) {
        return Err(Error::new(ErrorKind::ResourceBusy, "another process holds it"));
    }
    Ok(Way::Replace)
}

fn is_protected(path: &Path, metadata: &Metadata) -> bool {
    let identity_now = identity(path, metadata);
    let protected = PROTECTED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(named) = protected.get(&identity_now) else { return false };
    // an input that is gone may have left its inode to another file
    fs::metadata(named).is_ok_and(|metadata| identity(named, &metadata) == identity_now)
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

/// A file that is removed unless it is renamed.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn create(folder: &Path) -> Result<Self> {
        sweep(folder);
        for _ in 0..100 {
            let number = RandomState::new().build_hasher().finish();
            let path = folder.join(format!("{PREFIX}{number:0DIGITS$x}{SUFFIX}"));
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            };
            // another process may take the new file for one that was left, until it is locked
            let taken = matches!(file.try_lock(), Err(TryLockError::WouldBlock));
            if !taken && path.exists() {
                return Ok(Self { file, path });
            }
        }
        Err(Error::other("no temporary file could be kept"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // after a rename there is none of this name
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes temporary files that nobody holds; what cannot be read or removed is left.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        let is_ours =
            |digits: &str| digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if digits.is_some_and(is_ours)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}
