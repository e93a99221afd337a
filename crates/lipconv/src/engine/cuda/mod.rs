//! The engine for CUDA devices: a training step as one recorded graph on buffers that are allocated once.
//!
//! A step assembles all weights, each layer on streams of its own, while the main stream makes the batch from images that live on the
//! device as bytes; every convolution waits for its own weight alone. The way back is the same in reverse. Orthogonal factors
//! come from iterations on Gram matrices and are differentiated in closed form: see the modules `polar` and `bcop`.
//!
//! Nothing is copied to the host within a call of [`Engine::run`] but a few bytes at its end. Every step measures the defects of its orthogonal factors
//! and looks for numbers that are not finite, before the update; a step that fails changes nothing, and so do all that follow
//! it until the host has read why.
//!
//! A training run steps through the module `stepper`, whose device is a [`Place`]. `emulation` runs the same kernels on the CPU, for tests.

mod backend;
mod bcop;
mod blueprint;
pub(crate) mod cache;
mod constraint;
mod emit;
#[cfg(feature = "cuda-emulation")]
mod emulation;
mod geometry;
#[cfg(feature = "cuda-engine")]
mod hardware;
mod layer;
mod memory;
mod network;
#[cfg(feature = "cuda")]
pub(crate) mod on_tensors;
mod place;
pub(crate) mod plain;
mod polar;
mod quotient;
mod recording;
mod running;
mod settings;
#[cfg_attr(
    not(any(feature = "cuda", all(test, feature = "cuda-emulation"))),
    expect(dead_code, reason = "tensors are on a CUDA device with the feature cuda alone")
)]
mod single;
mod status;
pub(crate) mod stepper;
#[cfg(feature = "cuda")]
pub(crate) mod tensor_kernels;
#[cfg(all(test, feature = "cuda-emulation"))]
mod tests;
mod weight;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::optim::{Averaging, Optimizer};
use backend::{Address, Backend};
use blueprint::Blueprint;
#[cfg(feature = "cuda-emulation")]
pub use emulation::Emulated;
use geometry::max_batch;
use layer::Linear;
use memory::{Memory, layers};
pub use place::Place;
pub use status::Status;

pub use crate::train::batch::Sample;

/// What a recorded graph does, with the samples of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Graph {
    /// A training step on images that the device has.
    Resident(usize),
    /// A training step on images that the host has copied.
    Copied(usize),
    /// Logits of images that the host has copied.
    Logits(usize),
    /// Logits, and the gradient of the images.
    InputGradient(usize),
    /// The weight of the one layer.
    Weight,
    /// The gradient of its parameter.
    WeightGradient,
    /// The same from the weight that was made last, once.
    Pullback,
}

impl Graph {
    fn batch(self) -> usize {
        match self {
            Self::Resident(n) | Self::Copied(n) | Self::Logits(n) | Self::InputGradient(n) => n,
            Self::Weight | Self::WeightGradient | Self::Pullback => 0,
        }
    }
}

/// A network and its training state on a device.
#[derive(Debug)]
pub struct Engine {
    device: Box<dyn Backend>,
    blueprint: Blueprint,
    layers: Vec<Linear>,
    /// Whether a layer takes its input with channels first, while the one before gives them last: pixels and channels.
    turns: Vec<Option<[usize; 2]>>,
    method: Descent,
    batch: usize,
    memory: Memory,
    graphs: HashMap<Graph, usize>,
    /// Whether recording a graph has failed, so that every step is given operation by operation.
    takes_no_graphs: bool,
    resident: Option<Resident>,
}

/// What a step minimises and how it changes the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Descent {
    loss: Loss,
    optimizer: Optimizer,
    averaging: Averaging,
}

/// A data set on the device.
#[derive(Debug)]
struct Resident {
    images: Address,
    labels: Address,
    samples: Address,
    /// Values of the 256 bytes.
    values: Address,
    n_images: usize,
    max_steps: usize,
    /// Samples of the present epoch.
    n_samples: usize,
}

/// The number of streams of an engine.
fn n_streams(blueprint: &Blueprint) -> usize {
    1 + 2 * blueprint.layers.len()
}

fn streams(layer: usize) -> [usize; 2] {
    [1 + 2 * layer, 2 + 2 * layer]
}

impl Engine {
    /// An engine on a device, its parameters all 0.
    fn new(
        mut device: Box<dyn Backend>,
        blueprint: Blueprint,
        method: Descent,
        batch: usize,
    ) -> Result<Self> {
        let most = max_batch(&blueprint);
        if batch > most {
            let what = format!("batches of {batch} images of this network, but of {most}");
            return Err(not_on_engine(what));
        }
        let n_means = method.optimizer.moment_names().len() + method.averaging.names().len();
        let pairs = method.loss.needs_pairs();
        let memory = Memory::new(&mut *device, &blueprint, n_means, pairs, batch)?;
        let (layers, turns, d_patches) = layers(&mut *device, &blueprint, &memory, batch)?;
        let memory = Memory { d_patches, ..memory };
        Ok(Self {
            device,
            blueprint,
            layers,
            turns,
            method,
            batch,
            memory,
            graphs: HashMap::new(),
            takes_no_graphs: false,
            resident: None,
        })
    }

    /// Most samples of a batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// For each linear layer, how often its polar factor has asked for more steps.
    fn levels(&self) -> Vec<u8> {
        self.layers.iter().map(|layer| layer.weight.level() as u8).collect()
    }

    /// As they were in another engine of the same network.
    fn set_levels(&mut self, levels: &[u8]) {
        for (layer, &level) in self.layers.iter_mut().zip(levels) {
            while layer.weight.level() < usize::from(level) && layer.weight.raise_level() {}
        }
        self.graphs.clear();
    }

    /// Sets all parameters: weight, bias, weight, …, each in row-major order.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied.
    ///
    /// # Panics
    /// If there are not as many as the network has.
    pub fn set_parameters(&mut self, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.memory.n_parameters, "all parameters of the network");
        self.device.write(self.memory.parameters, &bytes_of(values))
    }

    /// All parameters, as [`Engine::set_parameters`] takes them.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied.
    pub fn parameters(&mut self) -> Result<Vec<f32>> {
        self.read(self.memory.parameters, self.memory.n_parameters)
    }

    /// The gradients of the last step.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied.
    pub fn gradients(&mut self) -> Result<Vec<f32>> {
        self.read(self.memory.gradients, self.memory.n_parameters)
    }

    /// The optimiser's running means, each for all parameters in order, and then the average where there is one.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied.
    pub fn read_moments(&mut self) -> Result<Vec<Vec<f32>>> {
        let (places, n) = (self.memory.moments.clone(), self.memory.n_parameters);
        places.into_iter().map(|place| self.read(place, n)).collect()
    }

    /// Sets the running means, as [`Engine::read_moments`] gives them.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be copied.
    pub fn write_moments(&mut self, moments: &[Vec<f32>]) -> Result<()> {
        let places = self.memory.moments.iter().zip(moments);
        for (&place, values) in places {
            self.device.write(place, &bytes_of(values))?;
        }
        Ok(())
    }

    /// The vectors that methods keep between steps, one after the other, each as its layer has its input: channels last.
    fn vectors(&mut self) -> Result<Vec<f32>> {
        let n = self.blueprint.n_vectors();
        self.read(self.memory.vectors, n)
    }

    fn set_vectors(&mut self, values: &[f32]) -> Result<()> {
        self.device.write(self.memory.vectors, &bytes_of(values))
    }

    fn read(&mut self, from: Address, n: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * n];
        self.device.read(from, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

fn no_images() -> Error {
    Error::Zero { what: "number of images on the device".into() }
}

fn not_on_engine(what: String) -> Error {
    Error::NotOnEngine { what }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
