//! Files that are either the old one or the new one ([`lipconv::output`]), JSON, and histories: one JSON object per line.
//!
//! Guarantee: members of JSON that stand twice are refused. Each line of a history is flushed when it is written. Going on after
//! an interruption first drops a line that was cut off in the middle and every line that lies after the checkpoint, so that
//! nothing appears twice.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use lipconv::output;
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// Reads a file that must be there.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::read(path))
}

fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The value in a file; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let value = |text: String| lipconv::json::from_slice(text.as_bytes());
    read_text(path)?.map(value).transpose().map_err(|e| Error::malformed(path, e))
}

/// Writes a value with indentation and a final line end.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .expect("numbers, texts and maps with text keys have a JSON form");
    write_atomic(path, (text + "\n").as_bytes())
}

/// An open history.
#[derive(Debug)]
pub struct JsonLines<T> {
    path: PathBuf,
    file: File,
    rows: PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned> JsonLines<T> {
    /// Opens a history, dropping the lines that are not to be kept.
    pub fn open(path: &Path, keep: impl Fn(&T) -> bool) -> Result<Self> {
        let rows = read_lines(path)?;
        let text: String = rows.iter().filter(|row| keep(row)).map(line).collect();
        write_atomic(path, text.as_bytes())?;
        let file = open_own(path)?;
        Ok(Self { path: path.to_owned(), file, rows: PhantomData })
    }

    pub fn push(&mut self, row: &T) -> Result<()> {
        let written = self.file.write_all(line(row).as_bytes()).and_then(|()| self.file.flush());
        written.map_err(Error::write(&self.path))
    }
}

/// Reads a history; a missing file is an empty one, and a last line without an end is dropped.
pub fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = read_text(path)?.unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line): (usize, &str)| {
        lipconv::json::from_slice(line.as_bytes())
            .map_err(|e| Error::malformed(path, format!("line {}: {e}", i + 1)))
    };
    complete.lines().enumerate().map(parse).collect()
}

fn line(row: &impl Serialize) -> String {
    serde_json::to_string(row).expect("numbers and texts have a JSON form") + "\n"
}
