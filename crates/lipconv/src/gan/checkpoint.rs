//! Checkpoints of GAN training: everything that a bit-exact resumption needs, in one file.
//!
//! The critic's part is that of a [training checkpoint](crate::checkpoint); the generator's tensors have the same names with
//! `generator.` before that of the parameter (`generator.linear1.weight`, `adam.first.generator.linear1.weight` …,
//! `generator.norm1.mean`).

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::descent::VariableState;
use super::{GanConfig, GanTrainer, check_fit};
use crate::checkpoint::TrainingPart;
use crate::element::{Element, to_vec};
use crate::error::Result;
use crate::generator::{Generator, GeneratorSpec};
use crate::optim::Moments;
use crate::store::{Reader, StoredType, Writer};
use crate::train::Trainer;

const KIND: &str = "gan";
/// Version of the format.
const FORMAT: u32 = 1;

/// The JSON header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    format: u32,
    dtype: StoredType,
    generator: GeneratorSpec,
    config: GanConfig,
    critic: TrainingPart,
    rng: ChaCha8Rng,
}

impl GanTrainer {
    /// Writes a checkpoint, or leaves the file that was there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when the folder cannot be written to.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = Header {
            kind: KIND.into(),
            format: FORMAT,
            dtype: StoredType::of(self.generator.dtype()),
            generator: *self.generator.spec(),
            config: self.config,
            critic: self.critic.part(),
            rng: self.rng.clone(),
        };
        let mut writer = Writer::default();
        self.critic.push_tensors(&mut writer)?;
        for (name, value) in self.generator.statistics()? {
            writer.push_tensor(stored_name(&name), &value)?;
        }
        let kinds = self.config.generator.optimizer.moment_names();
        for (n, (name, variable)) in self.generator.variables().into_iter().enumerate() {
            writer.push_tensor(stored_name(&name), variable.as_tensor())?;
            let moments = self.state.tensors(n, variable.as_tensor())?;
            for (kind, values) in kinds.iter().zip(moments) {
                writer.push_tensor(format!("{kind}.{}", stored_name(&name)), &values)?;
            }
        }
        writer.write(path, &header)
    }

    /// Continues the run that a checkpoint holds.
    ///
    /// # Errors
    /// As for [`Trainer::resume`]; as for [`GanTrainer::new`] when the two halves do not fit.
    pub fn resume(path: &Path, device: &Device) -> Result<Self> {
        let mut reader = Reader::open(path)?;
        let Header { dtype, generator, config, critic, rng, .. } =
            reader.header_of(KIND, FORMAT..=FORMAT)?;
        let dtype = dtype.dtype();
        config.validate()?;
        let supply = |name: &str, shape: &[usize]| {
            reader.take_tensor(&stored_name(name), shape, dtype, device)
        };
        let generator = Generator::from_values(&generator, dtype, device, supply)?;
        let critic = Trainer::from_part(critic, dtype, &mut reader, device)?;
        let state = VariableState::take(&config, &generator, &mut reader)?;
        reader.finish()?;
        check_fit(&generator, critic.network())?;
        Ok(Self { generator, critic, config, state, rng })
    }
}

fn stored_name(name: &str) -> String {
    format!("generator.{name}")
}

impl VariableState {
    /// The running means of variable `n`, each of its shape.
    fn tensors(&self, n: usize, variable: &Tensor) -> Result<Vec<Tensor>> {
        match self {
            Self::F32(moments) => as_tensors(&moments[n], variable),
            Self::F64(moments) => as_tensors(&moments[n], variable),
            Self::Device(moments) => Ok(moments[n].clone()),
        }
    }

    fn take(config: &GanConfig, generator: &Generator, reader: &mut Reader) -> Result<Self> {
        let kinds = config.generator.optimizer.moment_names();
        let device = generator.device();
        let variables = generator.variables().into_iter();
        let moments = variables.map(|(name, variable)| {
            let tensor = |kind: &&str| {
                let name = format!("{kind}.{}", stored_name(&name));
                reader.take_tensor(&name, variable.dims(), generator.dtype(), device)
            };
            kinds.iter().map(tensor).collect::<Result<Vec<_>>>()
        });
        let moments = moments.collect::<Result<Vec<_>>>()?;
        Ok(match generator.dtype() {
            _ if !device.is_cpu() => Self::Device(moments),
            DType::F64 => Self::F64(as_numbers(&moments)?),
            _ => Self::F32(as_numbers(&moments)?),
        })
    }
}

fn as_tensors<T: Element>(moments: &Moments<T>, variable: &Tensor) -> Result<Vec<Tensor>> {
    let tensor = |values: &Vec<T>| {
        Ok(Tensor::from_slice(values.as_slice(), variable.shape(), &Device::Cpu)?)
    };
    moments.0.iter().map(tensor).collect()
}

fn as_numbers<T: Element>(moments: &[Vec<Tensor>]) -> Result<Vec<Moments<T>>> {
    let numbers = |tensors: &Vec<Tensor>| {
        Ok(Moments(tensors.iter().map(to_vec::<T>).collect::<Result<Vec<_>>>()?))
    };
    moments.iter().map(numbers).collect()
}
