//! Safetensors files that are written whole or not at all, and read with every name, shape and type checked.
//!
//! A file is a safetensors file that any reader opens; its metadata entry `lipconv` holds one JSON header.
//! Writing is that of [`crate::output`].

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::element::{Element, to_vec};
use crate::error::{Error, Result};
use crate::finite::check_finite;

/// Name of the metadata entry.
const HEADER: &str = "lipconv";

/// Element type as stored in headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoredType {
    F32,
    F64,
}

impl StoredType {
    pub(crate) fn of(dtype: DType) -> Self {
        if dtype == DType::F64 { Self::F64 } else { Self::F32 }
    }

    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
        }
    }
}

/// A tensor on its way to a file.
#[derive(Debug, Clone)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A file being put together.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    entries: BTreeMap<String, Entry>,
}

impl Writer {
    /// Adds a tensor by its row-major values.
    pub(crate) fn push<T: Element>(&mut self, name: String, shape: &[usize], values: &[T]) {
        let (dtype, bytes) = to_bytes(values);
        self.entries.insert(name, Entry { dtype, shape: shape.to_vec(), bytes });
    }

    /// Adds a tensor of f32 or f64.
    pub(crate) fn push_tensor(&mut self, name: String, tensor: &Tensor) -> Result<()> {
        match tensor.dtype() {
            DType::F64 => self.push(name, tensor.dims(), &to_vec::<f64>(tensor)?),
            _ => self.push(name, tensor.dims(), &to_vec::<f32>(tensor)?),
        }
        Ok(())
    }

    /// Writes the file, or leaves what was there before.
    pub(crate) fn write<H: Serialize>(self, path: &Path, header: &H) -> Result<()> {
        let header = serde_json::to_string(header)
            .map_err(|e| problem(path, format!("cannot encode the header: {e}")))?;
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        let views = self.entries.iter().map(|(name, entry)| {
            let view = TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes);
            view.map(|view| (name.as_str(), view))
                .map_err(|e| problem(path, format!("tensor `{name}`: {e}")))
        });
        let views: Vec<_> = views.collect::<Result<_>>()?;
        let bytes = serialize(views, Some(metadata))
            .map_err(|e| problem(path, format!("cannot encode: {e}")))?;
        write_atomically(path, &bytes)
    }
}

/// Writes `bytes` by [`crate::output`].
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
    crate::output::write(path, bytes).map_err(io)
}

/// A file whose tensors are taken out one by one.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    header: String,
    entries: BTreeMap<String, Entry>,
}

impl Reader {
    /// Reads and decodes the whole file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(io)?;
        let corrupt = |e| problem(path, format!("not a complete safetensors file: {e}"));
        let (length, metadata) = SafeTensors::read_metadata(&bytes).map_err(corrupt)?;
        let unreadable = |e| problem(path, format!("unreadable header: {e}"));
        // safetensors lets the last of two entries of one name count
        crate::json::check_members(&bytes[8..8 + length]).map_err(unreadable)?;
        let mut others = metadata.metadata().iter().flat_map(HashMap::keys);
        if let Some(other) = others.find(|name| *name != HEADER) {
            return Err(problem(path, format!("has an unknown metadata entry `{other}`")));
        }
        let header = metadata.metadata().as_ref().and_then(|m| m.get(HEADER)).cloned();
        let missing = || {
            problem(
                path,
                format!(
                    "has no `{HEADER}` metadata entry: no network of this program (what `export` writes is for PyTorch)"
                ),
            )
        };
        let header = header.ok_or_else(missing)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(corrupt)?;
        let entries = tensors.iter().map(|(name, view)| {
            let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), Entry { dtype, shape, bytes })
        });
        Ok(Self { path: path.to_owned(), header, entries: entries.collect() })
    }

    /// The JSON header of a file of one kind, after its version has been checked: a future one may have fields that this
    /// crate cannot know.
    pub(crate) fn header_of<H: DeserializeOwned>(
        &self,
        kind: &str,
        versions: RangeInclusive<u32>,
    ) -> Result<H> {
        let header: Value = self.header()?;
        let found = header.get("kind").and_then(Value::as_str).unwrap_or("nothing known");
        if found != kind {
            return Err(self.problem(format!("holds `{found}`, expected `{kind}`")));
        }
        match header.get("format").and_then(Value::as_u64) {
            Some(format) if u32::try_from(format).is_ok_and(|f| versions.contains(&f)) => {
                self.header()
            }
            Some(format) => {
                let version = versions.end();
                Err(self.problem(format!("has format version {format}, expected {version}")))
            }
            None => Err(self.problem("has no format version".to_owned())),
        }
    }

    fn header<H: DeserializeOwned>(&self) -> Result<H> {
        crate::json::from_slice(self.header.as_bytes())
            .map_err(|e| self.problem(format!("unreadable header: {e}")))
    }

    /// [`Reader::take`] as a tensor on a device.
    pub(crate) fn take_tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        Ok(match dtype {
            DType::F64 => Tensor::from_vec(self.take::<f64>(name, shape)?, shape, device)?,
            _ => Tensor::from_vec(self.take::<f32>(name, shape)?, shape, device)?,
        })
    }

    /// Whether a tensor of this name is left.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Takes a tensor of finite values out; a 0 in `shape` stands for any size.
    pub(crate) fn take<T: Element>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        let entry = self.entries.remove(name).ok_or_else(missing)?;
        let wrap =
            |source| Error::CheckpointTensor { path: self.path.clone(), source: Box::new(source) };
        let fits = entry.shape.len() == shape.len()
            && entry
                .shape
                .iter()
                .zip(shape)
                .all(|(got, expected)| got == expected || *expected == 0);
        if !fits {
            let (what, expected) = (format!("tensor `{name}`"), shape.to_vec());
            return Err(wrap(Error::ShapeMismatch { what, expected, got: entry.shape }));
        }
        let values = from_bytes::<T>(name, &entry).map_err(wrap)?;
        check_finite(&format!("tensor `{name}`"), &values).map_err(wrap)?;
        Ok(values)
    }

    /// Shape of a tensor that is left.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        self.entries.get(name).map(|entry| entry.shape.clone()).ok_or_else(missing)
    }

    /// Every tensor must have been taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.entries.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::UnexpectedTensor { path: self.path, name }),
        }
    }

    /// An error about this file.
    pub(crate) fn problem(&self, problem: String) -> Error {
        Error::Checkpoint { path: self.path.clone(), problem }
    }
}

fn problem(path: &Path, problem: String) -> Error {
    Error::Checkpoint { path: path.to_owned(), problem }
}

fn to_bytes<T: Element>(values: &[T]) -> (Dtype, Vec<u8>) {
    match T::DTYPE {
        DType::F64 => (Dtype::F64, values.iter().flat_map(|&v| v.as_f64().to_le_bytes()).collect()),
        // exact: the only other element type is f32 itself
        _ => (Dtype::F32, values.iter().flat_map(|&v| (v.as_f64() as f32).to_le_bytes()).collect()),
    }
}

fn from_bytes<T: Element>(name: &str, entry: &Entry) -> Result<Vec<T>> {
    let f64s = |chunk: &[u8]| chunk.try_into().map(f64::from_le_bytes).unwrap_or(f64::NAN);
    let f32s = |chunk: &[u8]| chunk.try_into().map(f32::from_le_bytes).unwrap_or(f32::NAN);
    match (T::DTYPE, entry.dtype) {
        (DType::F64, Dtype::F64) => {
            Ok(entry.bytes.chunks_exact(8).map(|c| T::of(f64s(c))).collect())
        }
        (DType::F32, Dtype::F32) => {
            Ok(entry.bytes.chunks_exact(4).map(|c| T::of(f64::from(f32s(c)))).collect())
        }
        (expected, got) => Err(Error::DTypeMismatch {
            what: format!("tensor `{name}`"),
            expected: expected.as_str().to_owned(),
            got: format!("{got:?}").to_lowercase(),
        }),
    }
}
