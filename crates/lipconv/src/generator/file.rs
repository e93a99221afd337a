//! Frozen generators as files: a spec and the weights that follow from it.
//!
//! A safetensors file with the tensors `linear1.weight`, `linear1.bias`, … `deconv2.bias`; its `lipconv` metadata entry
//! is JSON: format version, element type, spec. Loading checks every name, shape, element type and value.

use std::path::Path;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{FrozenGenerator, GeneratorSpec};
use crate::error::Result;
use crate::store::{Reader, StoredType, Writer};

const KIND: &str = "generator";
/// Version of the format of frozen generators.
const FORMAT: u32 = 1;

/// The JSON header of a frozen generator.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    format: u32,
    dtype: StoredType,
    spec: GeneratorSpec,
}

impl FrozenGenerator {
    /// Writes the generator, or leaves the file that was there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        let dtype = StoredType::of(self.dtype());
        let header = Header { kind: KIND.into(), format: FORMAT, dtype, spec: *self.spec() };
        let mut writer = Writer::default();
        for (name, weight, bias) in self.layers() {
            for (part, tensor) in [("weight", weight), ("bias", bias)] {
                writer.push_tensor(format!("{name}.{part}"), tensor)?;
            }
        }
        writer.write(path, &header)
    }

    /// Reads a generator that [`FrozenGenerator::save`] wrote.
    ///
    /// # Errors
    /// As for [`Trainer::resume`](crate::Trainer::resume); those of [`GeneratorSpec::validate`].
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let Header { dtype, spec, .. } = reader.header_of(KIND, FORMAT..=FORMAT)?;
        spec.validate()?;
        let dtype = dtype.dtype();
        let mut layers = Vec::new();
        for plan in spec.plan() {
            let mut part = |part: &str, shape: &[usize]| {
                reader.take_tensor(&format!("{}.{part}", plan.name), shape, dtype, device)
            };
            layers.push((part("weight", &plan.weight)?, part("bias", &[plan.n_out])?));
        }
        reader.finish()?;
        Self::new(spec, layers, dtype, device)
    }
}
