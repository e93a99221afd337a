//! Histories: one JSON object per line.
//!
//! Guarantee: each line is flushed when it is written. Going on after an interruption first drops a line that was cut off in
//! the middle and every line that lies after the checkpoint, so that nothing appears twice.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{open_own, write_atomic};
use crate::error::{Error, Result};

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
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
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
