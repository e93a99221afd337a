//! JSON files; members that stand twice are refused.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::write_atomic;
use crate::error::{Error, Result};

/// The value in a file; `None` where there is no file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    lipconv::json::from_slice(text.as_bytes()).map(Some).map_err(|e| Error::malformed(path, e))
}

/// Writes a value with indentation and a final line end.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .expect("numbers, texts and maps with text keys have a JSON form");
    write_atomic(path, (text + "\n").as_bytes())
}
