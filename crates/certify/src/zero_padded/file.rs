//! The tensors of a safetensors file, taken out one by one with their shapes checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::DType;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};
use crate::tensor::Pixel;

/// What is left of a file.
#[derive(Debug)]
pub(super) struct Tensors {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensors {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| {
            let problem = format!("not a complete safetensors file: {e}");
            Error::ModelFile { path: path.to_owned(), problem }
        })?;
        let entries = tensors.iter().map(|(name, view)| {
            let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), Entry { dtype, shape, bytes })
        });
        Ok(Self { path: path.to_owned(), entries: entries.collect() })
    }

    /// The element type, which must be one for all tensors: f32 or f64.
    pub(super) fn dtype(&self) -> Result<DType> {
        let mut dtypes = self.entries.values().map(|entry| entry.dtype);
        let first = dtypes.next().ok_or_else(|| self.problem("holds no tensor".into()))?;
        match first {
            Dtype::F32 | Dtype::F64 if dtypes.all(|dtype| dtype == first) => {
                Ok(if first == Dtype::F32 { DType::F32 } else { DType::F64 })
            }
            _ => Err(self.problem("expected all tensors in f32 or all in f64".into())),
        }
    }

    /// Shape of a tensor that is left; it must have `rank` sides, none of them 0.
    pub(super) fn shape(&self, name: &str, rank: usize) -> Result<&[usize]> {
        let shape = self.entry(name)?.shape.as_slice();
        if shape.len() != rank || shape.contains(&0) {
            let expected = format!("{rank} sides, none of them 0");
            return Err(self.shape_error(name, expected, shape));
        }
        Ok(shape)
    }

    /// Takes a tensor of exactly this shape and of finite values out.
    pub(super) fn take<T: Pixel>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>> {
        let entry = self.entry(name)?;
        if entry.shape != shape {
            return Err(self.shape_error(name, format!("{shape:?}"), &entry.shape));
        }
        let values: Vec<T> = match entry.dtype {
            Dtype::F32 => numbers(&entry.bytes, |b| f64::from(f32::from_le_bytes(b))),
            _ => numbers(&entry.bytes, f64::from_le_bytes),
        };
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let problem = format!("tensor `{name}` holds {} at flat index {at}", values[at]);
            return Err(self.problem(format!("{problem}, expected finite numbers")));
        }
        self.entries.remove(name);
        Ok(values)
    }

    /// Every tensor must have been taken.
    pub(super) fn finish(self) -> Result<()> {
        match self.entries.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::UnexpectedTensor { path: self.path, name }),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::MissingTensor { path: self.path.clone(), name: name.to_owned() };
        self.entries.get(name).ok_or_else(missing)
    }

    pub(super) fn problem(&self, problem: String) -> Error {
        Error::ModelFile { path: self.path.clone(), problem }
    }

    pub(super) fn shape_error(&self, name: &str, expected: String, got: &[usize]) -> Error {
        let (path, name) = (self.path.clone(), name.to_owned());
        Error::TensorShape { path, name, expected, got: got.to_vec() }
    }
}

fn numbers<T: Pixel, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| T::of(read(chunk))).collect()
}
