//! The engine for CUDA devices: a training step as one recorded graph on buffers that are allocated once.
//!
//! A step assembles all weights, each layer on streams of its own, while the main stream makes the batch from images that live on the
//! device as bytes; every convolution waits for its own weight alone. The way back is the same in reverse. Orthogonal factors
//! come from iterations on Gram matrices and are differentiated in closed form: see [`polar`] and [`bcop`].
//!
//! Nothing is copied to the host within a call of [`Engine::run`] but a few bytes at its end. Every step measures the defects of its orthogonal factors
//! and looks for numbers that are not finite, before the update; a step that fails changes nothing, and so do all that follow
//! it until the host has read why.
//!
//! [`emulation`] runs the same kernels on the CPU, for tests.

mod backend;
mod bcop;
mod blueprint;
mod emit;
#[cfg(feature = "cuda-emulation")]
mod emulation;
#[cfg(feature = "cuda-engine")]
mod hardware;
mod layer;
mod memory;
mod network;
mod polar;
mod recording;
mod status;
#[cfg(all(test, feature = "cuda-emulation"))]
mod tests;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::loss::check_labels;
use crate::optim::Optimizer;
use backend::{Address, Backend};
use blueprint::Blueprint;
use emit::CONTROL_BYTES;
use layer::Linear;
use memory::{Memory, layers};
use status::{FAILED_DEFECT, FAILED_LOGITS, FAILED_RANK, SAMPLE_BYTES};
pub use status::{Sample, Status};

/// A loss as the kernels know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum DeviceLoss {
    Hinge { margin: f64 },
    OffsetCrossEntropy { offset: f64, temperature: f64 },
}

impl DeviceLoss {
    fn arguments(self) -> (u32, f32, f32) {
        match self {
            Self::Hinge { margin } => (0, margin as f32, 0.0),
            Self::OffsetCrossEntropy { offset, temperature } => {
                (1, offset as f32, temperature as f32)
            }
        }
    }
}

/// What a recorded graph does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Graph {
    /// A training step on images that the device has.
    Resident(usize),
    /// A training step on images that the host has copied.
    Copied(usize),
    /// Logits of images that the host has copied.
    Logits(usize),
}

/// A network and its training state on a device.
#[derive(Debug)]
pub struct Engine {
    device: Box<dyn Backend>,
    blueprint: Blueprint,
    layers: Vec<Linear>,
    /// Whether a layer takes its input with channels first, while the one before gives them last: pixels and channels.
    turns: Vec<Option<[usize; 2]>>,
    loss: DeviceLoss,
    optimizer: Optimizer,
    batch: usize,
    memory: Memory,
    graphs: HashMap<Graph, usize>,
    resident: Option<Resident>,
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

/// Streams that an engine of so many layers needs.
#[cfg(feature = "cuda-engine")]
fn n_streams(blueprint: &Blueprint) -> usize {
    1 + 2 * blueprint.layers.len()
}

fn streams(layer: usize) -> [usize; 2] {
    [1 + 2 * layer, 2 + 2 * layer]
}

impl Engine {
    /// An engine on the CUDA device of this number, its parameters all 0.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such device, its driver is too old or its memory too small.
    #[cfg(feature = "cuda-engine")]
    fn on_device(
        ordinal: usize,
        blueprint: Blueprint,
        loss: DeviceLoss,
        optimizer: Optimizer,
        batch: usize,
    ) -> Result<Self> {
        let device = Box::new(hardware::Hardware::new(ordinal, n_streams(&blueprint))?);
        Self::new(device, blueprint, loss, optimizer, batch)
    }

    /// An engine on an emulated device, its parameters all 0.
    #[cfg(feature = "cuda-emulation")]
    fn emulated(
        blueprint: Blueprint,
        loss: DeviceLoss,
        optimizer: Optimizer,
        batch: usize,
    ) -> Result<Self> {
        let device = Box::new(emulation::Emulation::default());
        Self::new(device, blueprint, loss, optimizer, batch)
    }

    fn new(
        mut device: Box<dyn Backend>,
        blueprint: Blueprint,
        loss: DeviceLoss,
        optimizer: Optimizer,
        batch: usize,
    ) -> Result<Self> {
        let memory = Memory::new(&mut *device, &blueprint, &optimizer, batch)?;
        let (layers, turns, d_patches) = layers(&mut *device, &blueprint, &memory, batch)?;
        let memory = Memory { d_patches, ..memory };
        Ok(Self {
            device,
            blueprint,
            layers,
            turns,
            loss,
            optimizer,
            batch,
            memory,
            graphs: HashMap::new(),
            resident: None,
        })
    }

    /// Most samples of a batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
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

    /// The optimiser's running means, each for all parameters in order.
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

    fn read(&mut self, from: Address, n: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * n];
        self.device.read(from, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Puts a data set on the device: `images` n x c x h x w bytes, one label each; epochs have at most `max_steps` steps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::LabelOutOfRange`], [`Error::Device`].
    pub fn set_images(&mut self, images: &[u8], labels: &[u8], max_steps: usize) -> Result<()> {
        let n_values = self.blueprint.input.n_values();
        if images.len() != labels.len() * n_values {
            let (what, expected) = ("images".into(), vec![labels.len(), n_values]);
            return Err(Error::ShapeMismatch { what, expected, got: vec![images.len()] });
        }
        let labels_wide: Vec<u32> = labels.iter().copied().map(u32::from).collect();
        check_labels(&labels_wide, self.blueprint.n_classes())?;
        let device = &mut *self.device;
        let place = |device: &mut dyn Backend, bytes: &[u8]| -> Result<Address> {
            let address = device.allocate(bytes.len())?;
            device.write(address, bytes)?;
            Ok(address)
        };
        let values: Vec<f32> = (0..=255_u8).map(|byte| f32::from(byte) / 255.0).collect();
        self.resident = Some(Resident {
            images: place(device, images)?,
            labels: place(device, labels)?,
            values: place(device, &bytes_of(&values))?,
            samples: device.allocate(SAMPLE_BYTES * max_steps * self.batch)?,
            n_images: labels.len(),
            max_steps,
            n_samples: 0,
        });
        self.reserve_rates(max_steps)?;
        self.graphs.clear();
        Ok(())
    }

    fn reserve_rates(&mut self, n: usize) -> Result<()> {
        if n > self.memory.n_rates {
            self.memory.rates = self.device.allocate(8 * n)?;
            self.memory.n_rates = n;
            self.graphs.clear();
        }
        Ok(())
    }

    /// Begins an epoch: its samples in order, and the learning rate and number (from 1) of each step. The last batch is smaller
    /// where the samples are not whole batches.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when there are not as many rates as batches, or more than the device has room for; [`Error::InvalidSetting`] for an
    /// image that the device does not have.
    pub fn begin_epoch(&mut self, samples: &[Sample], rates: &[(f64, u64)]) -> Result<()> {
        let resident = self.resident.as_mut().ok_or_else(no_images)?;
        let n_steps = samples.len().div_ceil(self.batch);
        if n_steps != rates.len() || n_steps > resident.max_steps {
            let what = "batches of an epoch".into();
            let expected = vec![n_steps.min(resident.max_steps)];
            return Err(Error::ShapeMismatch { what, expected, got: vec![rates.len()] });
        }
        if let Some(sample) = samples.iter().find(|s| s.image as usize >= resident.n_images) {
            let value = sample.image.to_string();
            return Err(Error::InvalidSetting {
                name: "image",
                value,
                expected: "an index of the data set",
            });
        }
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.bytes()).collect();
        resident.n_samples = samples.len();
        self.device.write(resident.samples, &bytes)?;
        self.write_rates(rates)?;
        self.write_status(Status::default())
    }

    fn write_rates(&mut self, rates: &[(f64, u64)]) -> Result<()> {
        let optimizer = self.optimizer;
        let rate = |&(learning_rate, step): &(f64, u64)| match optimizer {
            Optimizer::Adam(config) => {
                let t = step as f64;
                let step_size = learning_rate / (1.0 - config.beta1.powf(t));
                [step_size as f32, (1.0 / (1.0 - config.beta2.powf(t)).sqrt()) as f32]
            }
            _ => [learning_rate as f32, 0.0],
        };
        let rates: Vec<f32> = rates.iter().flat_map(rate).collect();
        self.device.write(self.memory.rates, &bytes_of(&rates))
    }

    /// Runs the next `n` steps of the epoch and waits for them.
    ///
    /// # Panics
    /// If the epoch has fewer.
    ///
    /// # Errors
    /// Why a step has failed, if one has: [`Error::NonFiniteSomewhere`], [`Error::Orthonormalisation`] or [`Error::Device`]. The steps before
    /// it are done, it and the others are not.
    pub fn run(&mut self, n: usize) -> Result<Status> {
        let mut done = self.status()?.batch as usize;
        let end = done + n;
        loop {
            for step in done..end {
                let left = self.resident.as_ref().map_or(0, |r| r.n_samples) - step * self.batch;
                let graph = self.graph(Graph::Resident(left.min(self.batch)))?;
                self.device.replay(graph)?;
            }
            let status = self.status()?;
            done = status.batch as usize;
            // short of it when a step has asked for more steps of a polar factor, which it has now
            if done == end {
                return Ok(status);
            }
        }
    }

    /// What the device has done; waits for it. A step that failed for want of steps of a polar factor has not been done, and will be
    /// done with more.
    ///
    /// # Errors
    /// Why a step has failed otherwise.
    fn status(&mut self) -> Result<Status> {
        let mut bytes = [0; CONTROL_BYTES];
        self.device.read(self.memory.control, &mut bytes)?;
        let status = Status::of(&bytes);
        if status.failed == 0 {
            return Ok(status);
        }
        let error = self.failure(status.failed)?;
        let status = Status { failed: 0, ..status };
        self.write_status(status)?;
        self.device.write(self.memory.defects, &vec![0; 4 * self.layers.len()])?;
        error.map_or(Ok(status), Err)
    }

    fn write_status(&mut self, status: Status) -> Result<()> {
        self.device.write(self.memory.control, &status.bytes())
    }

    /// Why a step has failed; `None` if it can be done in another way, for which everything is prepared.
    fn failure(&mut self, failed: u32) -> Result<Option<Error>> {
        let defects = self.read(self.memory.defects, self.layers.len())?;
        if failed & (FAILED_DEFECT | FAILED_RANK) != 0 {
            let mut prepared = failed & FAILED_RANK == 0;
            for (layer, _) in self.layers.iter_mut().zip(&defects).filter(|(_, d)| **d > 1.0) {
                prepared &= layer.raise_level();
            }
            if prepared {
                self.graphs.clear();
                return Ok(None);
            }
            let at_fault = defects.iter().position(|&defect| defect > 1.0).unwrap_or(0);
            let source = projectors::Error::NotConverged {
                method: "polar express",
                iterations: polar::MAX_STEPS,
                residual: f64::from(defects[at_fault]),
                tolerance: 1.0,
            };
            let layer = self.blueprint.layers[at_fault].name.clone();
            return Ok(Some(Error::Orthonormalisation { layer, source }));
        }
        Ok(Some(self.not_finite(failed)?))
    }

    fn not_finite(&mut self, failed: u32) -> Result<Error> {
        if failed & FAILED_LOGITS != 0 {
            return Ok(Error::NonFiniteSomewhere { what: "logits".into() });
        }
        let gradients = self.read(self.memory.gradients, self.memory.n_parameters)?;
        let mut rest = gradients.as_slice();
        for layer in &self.blueprint.layers {
            for (kind, n) in [("weight", layer.n_weights), ("bias", layer.n_out)] {
                let (own, others) = rest.split_at(n);
                rest = others;
                if own.iter().any(|x| !x.is_finite()) {
                    let what = format!("gradient of {}.{kind}", layer.name);
                    return Ok(Error::NonFiniteSomewhere { what });
                }
            }
        }
        Ok(Error::NonFiniteSomewhere { what: "a gradient".into() })
    }

    /// One step on a batch that the host has; waits for it.
    ///
    /// # Errors
    /// As for [`Engine::run`].
    pub fn step(
        &mut self,
        images: &[f32],
        labels: &[u32],
        learning_rate: f64,
        step: u64,
    ) -> Result<(f64, usize)> {
        self.copy_images(images)?;
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.device.write(self.memory.labels, &bytes)?;
        self.write_rates(&[(learning_rate, step)])?;
        self.write_status(Status::default())?;
        loop {
            let graph = self.graph(Graph::Copied(labels.len()))?;
            self.device.replay(graph)?;
            let status = self.status()?;
            if status.batch > 0 {
                return Ok((status.loss, status.correct as usize));
            }
        }
    }

    /// Logits of at most a batch of images, row-major; waits for them.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>> {
        let n = images.len() / self.blueprint.input.n_values();
        self.copy_images(images)?;
        // once more where a polar factor asks for more steps
        loop {
            let graph = self.graph(Graph::Logits(n))?;
            self.device.replay(graph)?;
            self.status()?;
            if self.graphs.contains_key(&Graph::Logits(n)) {
                break;
            }
        }
        let logits = self.layers.last().map_or(0, |layer| layer.y);
        self.read(logits, n * self.blueprint.n_classes())
    }

    fn copy_images(&mut self, images: &[f32]) -> Result<()> {
        if images.len() > self.batch * self.blueprint.input.n_values() {
            let (what, expected) = ("batch of images".into(), vec![self.batch]);
            return Err(Error::ShapeMismatch { what, expected, got: vec![images.len()] });
        }
        self.device.write(self.memory.copied, &bytes_of(images))
    }
}

fn no_images() -> Error {
    Error::Zero { what: "number of images on the device".into() }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
