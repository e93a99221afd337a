//! Checkpoints of training runs: everything that a bit-exact resumption needs, in one file.
//!
//! A checkpoint is a safetensors file. Its tensors are the parameters (`conv1.weight` …), the vectors of OSSN
//! (`conv1.vector` …), the running means of the optimiser (`adam.first.conv1.weight`, `adam.second.conv1.weight` … or
//! `rmsprop.square.conv1.weight` …) and the average (`average.conv1.weight` …) of what is trained and, for each orthonormalised layer, the inverse square root that the next
//! step starts from (`warm.conv1`). Its `lipconv` metadata entry is JSON: format version, network spec,
//! element type, training settings, place in the run, and the state of the random generator.
//!
//! Loading checks every name, shape, element type and value; a tensor too many is an error like one too few.

use std::path::Path;

use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::network::Network;
use crate::spec::NetworkSpec;
use crate::store::{Reader, StoredType, Writer};
use crate::train::state::{Progress, RunState};
use crate::train::{TrainConfig, Trainer};

/// Version of the format of training checkpoints that this crate writes and reads.
pub const FORMAT: u32 = 2;

/// The JSON header of a training checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: Kind,
    format: u32,
    dtype: StoredType,
    spec: NetworkSpec,
    config: TrainConfig,
    progress: Progress,
    /// For each linear layer, how patient the CUDA engine's iterations have become; absent for other runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    levels: Vec<u8>,
}

/// What a header says of a run, beside its element type.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingPart {
    spec: NetworkSpec,
    config: TrainConfig,
    progress: Progress,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    levels: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Training,
}

impl Trainer {
    /// Writes a checkpoint, or leaves the file that was there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.settle()?;
        let TrainingPart { spec, config, progress, levels } = self.part();
        let dtype = StoredType::of(self.network().dtype());
        let (kind, format) = (Kind::Training, FORMAT);
        let header = Header { kind, format, dtype, spec, config, progress, levels };
        let mut writer = Writer::default();
        self.push_tensors(&mut writer)?;
        writer.write(path, &header)
    }

    /// Continues the run that a checkpoint holds.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the file cannot be read, and one of the checkpoint errors
    /// ([`Checkpoint`](crate::Error::Checkpoint), [`MissingTensor`](crate::Error::MissingTensor),
    /// [`UnexpectedTensor`](crate::Error::UnexpectedTensor), [`CheckpointTensor`](crate::Error::CheckpointTensor))
    /// when it does not fit.
    pub fn resume(path: &Path, device: &Device) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let header: Header = reader.header_of("training", FORMAT..=FORMAT)?;
        let Header { dtype, spec, config, progress, levels, .. } = header;
        let part = TrainingPart { spec, config, progress, levels };
        let trainer = Self::from_part(part, dtype.dtype(), &mut reader, device)?;
        reader.finish()?;
        Ok(trainer)
    }

    /// What a header says of the run.
    pub(crate) fn part(&self) -> TrainingPart {
        let (spec, progress) = (self.network().spec().clone(), self.progress.clone());
        TrainingPart { spec, config: *self.config(), progress, levels: self.levels() }
    }

    /// Adds all parameters, vectors and running means to a file.
    pub(crate) fn push_tensors(&self, writer: &mut Writer) -> Result<()> {
        self.settle()?;
        let (network, RunState { moments, warm, .. }) = (self.network(), self.state()?);
        let kinds = self.config().mean_names();
        for ((name, variable), moments) in network.variables().into_iter().zip(&moments) {
            for (kind, mean) in kinds.iter().zip(moments) {
                writer.push_tensor(format!("{kind}.{name}"), mean)?;
            }
            writer.push_tensor(name, variable.as_tensor())?;
        }
        for (name, vector) in network.vectors() {
            writer.push_tensor(name, &vector)?;
        }
        for (parameters, warm) in network.parameters().zip(warm) {
            if let Some(warm) = warm {
                writer.push_tensor(warm_name(&parameters.name), &warm)?;
            }
        }
        Ok(())
    }

    /// The run of a header, with its tensors taken out of a file.
    pub(crate) fn from_part(
        part: TrainingPart,
        dtype: DType,
        reader: &mut Reader,
        device: &Device,
    ) -> Result<Self> {
        let TrainingPart { spec, config, progress, levels } = part;
        if let Some(fault) = progress.fault(&config) {
            return Err(reader.problem(fault));
        }
        let supply = |name: &str, shape: &[usize]| reader.take_tensor(name, shape, dtype, device);
        let network = Network::from_tensors(&spec, dtype, device, supply)?;
        let state = RunState { levels, ..take_state(&network, &config, reader)? };
        Self::at(network, config, progress, state)
    }
}

fn warm_name(layer: &str) -> String {
    format!("warm.{layer}")
}

fn take_state(network: &Network, config: &TrainConfig, reader: &mut Reader) -> Result<RunState> {
    let (dtype, host) = (network.dtype(), &Device::Cpu);
    let trained = network.parameters().flat_map(|p| [p.trained, true]);
    let mut moments = Vec::new();
    for ((name, variable), trained) in network.variables().into_iter().zip(trained) {
        let kinds = if trained { config.mean_names() } else { Vec::new() };
        let means = kinds.iter().map(|kind| {
            reader.take_tensor(&format!("{kind}.{name}"), variable.dims(), dtype, host)
        });
        moments.push(means.collect::<Result<_>>()?);
    }
    let mut warm = Vec::new();
    for parameters in network.parameters() {
        let name = warm_name(&parameters.name);
        let square = |reader: &mut Reader| {
            let n = reader.shape(&name)?.first().copied().unwrap_or(0);
            reader.take_tensor(&name, &[n, n], dtype, host)
        };
        warm.push(if reader.contains(&name) { Some(square(reader)?) } else { None });
    }
    Ok(RunState { moments, warm, levels: Vec::new() })
}
