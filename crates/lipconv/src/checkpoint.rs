//! Checkpoints of training runs: everything that a bit-exact resumption needs, in one file.
//!
//! A checkpoint is a safetensors file. Its tensors are the parameters (`conv1.weight` …), the vectors of OSSN
//! (`conv1.vector` …), the running means of the optimiser (`adam.first.conv1.weight`, `adam.second.conv1.weight` … or
//! `rmsprop.square.conv1.weight` …) of what is trained and, for each orthonormalised layer, the inverse square root that the next
//! step starts from (`warm.conv1`). Its `lipconv` metadata entry is JSON: format version, network spec,
//! element type, training settings, place in the run, and the state of the random generator.
//!
//! Loading checks every name, shape, element type and value; a tensor too many is an error like one too few.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::element::{Element, to_vec};
use crate::error::Result;
use crate::network::Network;
use crate::optim::Moments;
use crate::portable_step::PortableState;
use crate::spec::NetworkSpec;
use crate::store::{Reader, Writer};
use crate::train::{Progress, State, TrainConfig, Trainer, TypedState};

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
}

/// What a header says of a run, beside its element type.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrainingPart {
    spec: NetworkSpec,
    config: TrainConfig,
    progress: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Training,
}

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

impl Trainer {
    /// Writes a checkpoint, or leaves the file that was there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        let TrainingPart { spec, config, progress } = self.part();
        let dtype = StoredType::of(self.network().dtype());
        let header = Header { kind: Kind::Training, format: FORMAT, dtype, spec, config, progress };
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
        let header: Header = check_format(&reader)?;
        let Header { dtype, spec, config, progress, .. } = header;
        let part = TrainingPart { spec, config, progress };
        let trainer = Self::from_part(part, dtype.dtype(), &mut reader, device)?;
        reader.finish()?;
        Ok(trainer)
    }

    /// What a header says of the run.
    pub(crate) fn part(&self) -> TrainingPart {
        let (spec, progress) = (self.network().spec().clone(), self.progress.clone());
        TrainingPart { spec, config: *self.config(), progress }
    }

    /// Adds all parameters, vectors and running means to a file.
    pub(crate) fn push_tensors(&self, writer: &mut Writer) -> Result<()> {
        let (network, config) = (self.network(), self.config());
        match &self.state {
            State::F32(state) => push_state(network, config, state, writer),
            State::F64(state) => push_state(network, config, state, writer),
            State::Portable(state) => match network.dtype() {
                DType::F64 => push_state::<f64>(network, config, &on_host(state)?, writer),
                _ => push_state::<f32>(network, config, &on_host(state)?, writer),
            },
        }
    }

    /// The run of a header, with its tensors taken out of a file.
    pub(crate) fn from_part(
        part: TrainingPart,
        dtype: DType,
        reader: &mut Reader,
        device: &Device,
    ) -> Result<Self> {
        let TrainingPart { spec, config, progress } = part;
        let supply = |name: &str, shape: &[usize]| take(reader, name, shape, dtype, device);
        let network = Network::from_tensors(&spec, dtype, device, supply)?;
        let state = match dtype {
            DType::F64 if !device.is_cpu() => {
                let state = take_state::<f64>(&network, &config, reader)?;
                State::Portable(on_device(&network, state)?)
            }
            _ if !device.is_cpu() => {
                let state = take_state::<f32>(&network, &config, reader)?;
                State::Portable(on_device(&network, state)?)
            }
            DType::F64 => State::F64(take_state(&network, &config, reader)?),
            _ => State::F32(take_state(&network, &config, reader)?),
        };
        let mut trainer = Self::new(network, config)?;
        trainer.state = state;
        trainer.progress = progress;
        Ok(trainer)
    }
}

/// The header, after its version has been checked: a future one may have fields that this crate cannot know.
fn check_format(reader: &Reader) -> Result<Header> {
    let value: serde_json::Value = reader.header()?;
    check_version(reader, &value, "training", FORMAT)?;
    reader.header()
}

/// `kind` and `format` of any header of this crate.
pub(crate) fn check_version(
    reader: &Reader,
    header: &serde_json::Value,
    kind: &str,
    version: u32,
) -> Result<()> {
    let found = header.get("kind").and_then(serde_json::Value::as_str).unwrap_or("nothing known");
    if found != kind {
        return Err(reader.problem(format!("holds `{found}`, expected `{kind}`")));
    }
    match header.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format == u64::from(version) => Ok(()),
        Some(format) => {
            Err(reader.problem(format!("has format version {format}, expected {version}")))
        }
        None => Err(reader.problem("has no format version".to_owned())),
    }
}

pub(crate) fn take(
    reader: &mut Reader,
    name: &str,
    shape: &[usize],
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    Ok(match dtype {
        DType::F64 => Tensor::from_vec(reader.take::<f64>(name, shape)?, shape, device)?,
        _ => Tensor::from_vec(reader.take::<f32>(name, shape)?, shape, device)?,
    })
}

fn push_state<T: Element>(
    network: &Network,
    config: &TrainConfig,
    state: &TypedState<T>,
    writer: &mut Writer,
) -> Result<()> {
    for ((name, variable), moments) in network.variables().into_iter().zip(&state.moments) {
        let shape = variable.dims();
        for (kind, values) in config.optimizer.moment_names().iter().zip(&moments.0) {
            writer.push(format!("{kind}.{name}"), shape, values);
        }
        writer.push(name, shape, &to_vec::<T>(variable.as_tensor())?);
    }
    for (name, vector) in network.vectors() {
        writer.push(name, vector.dims(), &to_vec::<T>(&vector)?);
    }
    for (parameters, warm) in network.parameters().zip(&state.buffers.warm) {
        if let Some(warm) = warm {
            let values: Vec<T> = warm.iter().copied().collect();
            writer.push(warm_name(&parameters.name), warm.shape(), &values);
        }
    }
    Ok(())
}

/// The running means of a network on another device.
fn on_host<T: Element>(state: &PortableState) -> Result<TypedState<T>> {
    let moments = state
        .moments
        .iter()
        .map(|moments| Ok(Moments(moments.iter().map(to_vec::<T>).collect::<Result<Vec<_>>>()?)));
    Ok(TypedState { moments: moments.collect::<Result<_>>()?, buffers: Default::default() })
}

/// And back.
pub(crate) fn on_device<T: Element>(
    network: &Network,
    state: TypedState<T>,
) -> Result<PortableState> {
    let variables = network.variables().into_iter().zip(state.moments);
    let moments = variables.map(|((_, variable), Moments(moments))| {
        let tensor = |values| Ok(Tensor::from_vec(values, variable.shape(), network.device())?);
        moments.into_iter().map(tensor).collect::<Result<Vec<_>>>()
    });
    Ok(PortableState { moments: moments.collect::<Result<_>>()? })
}

fn warm_name(layer: &str) -> String {
    format!("warm.{layer}")
}

fn take_state<T: Element>(
    network: &Network,
    config: &TrainConfig,
    reader: &mut Reader,
) -> Result<TypedState<T>> {
    let trained = network.parameters().flat_map(|p| [p.trained, true]);
    let mut moments = Vec::new();
    for ((name, variable), trained) in network.variables().into_iter().zip(trained) {
        let kinds = config.optimizer.moment_names().iter().filter(|_| trained);
        let values = kinds.map(|kind| reader.take(&format!("{kind}.{name}"), variable.dims()));
        moments.push(Moments(values.collect::<Result<_>>()?));
    }
    let mut warm = Vec::new();
    for parameters in network.parameters() {
        let name = warm_name(&parameters.name);
        warm.push(if reader.contains(&name) { Some(take_square(reader, &name)?) } else { None });
    }
    let mut state = TypedState { moments, buffers: Default::default() };
    state.buffers.warm = warm;
    Ok(state)
}

fn take_square<T: Element>(reader: &mut Reader, name: &str) -> Result<Array2<T>> {
    let n = reader.shape(name)?.first().copied().unwrap_or(0);
    let values = reader.take(name, &[n, n])?;
    Ok(Array2::from_shape_vec((n, n), values).expect("as many values as the checked shape says"))
}
