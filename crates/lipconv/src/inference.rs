//! How a plain network is evaluated: the only place that chooses between the engine and the tensor operations.

use candle_core::{DType, Device, Tensor, Var};
use projectors::gemm::BLOCK_TERMS;

use crate::element::engine_runs;
use crate::engine::cpu::graph::{GraphTape, runs_as_graph};
use crate::engine::cpu::plain::CpuTape;
#[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
use crate::engine::cuda::{Place, plain as device};
use crate::engine::has_block_form;
use crate::error::{Error, Result};
use crate::ops;
use crate::plain::{PlainLayer, PlainNetwork};

impl PlainNetwork {
    /// Logits (b x classes) of a batch of images (b x c x h x w, or b x c where h = w = 1), in the network's element type.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::DTypeMismatch`] or [`Error::DeviceMismatch`] when the batch does
    /// not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let images = &self.input().batch(images)?;
        self.check_batch(images)?;
        forward(self, images)
    }

    /// Whether [`PlainNetwork::forward`] adds up dot products in blocks, for images that nobody differentiates through.
    ///
    /// It does for weights in f32 on the CPU, unless an activation forces the tensor operations.
    /// [`roundings_in_blocks`] says what that promises.
    #[must_use]
    pub fn sums_in_blocks(&self) -> bool {
        #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
        if device::place_of(self).is_some() {
            return false;
        }
        self.dtype() == DType::F32 && cpu_form(self).is_some()
    }
}

/// Most roundings that a product passes through in a blocked dot product of `n_terms` products and a bias: min(n, 128 + ⌈n / 128⌉) + 1.
///
/// A block has at most 128 products, and its sum, in whatever order, rounds each of them at most 128 times.
/// The ⌈n / 128⌉ blocks are added to the bias one after another.
/// A sum in any order promises n + 1.
#[must_use]
pub const fn roundings_in_blocks(n_terms: usize) -> usize {
    let blocked = BLOCK_TERMS + n_terms.div_ceil(BLOCK_TERMS);
    (if n_terms < blocked { n_terms } else { blocked }) + 1
}

/// Logits of a batch that [`PlainNetwork`] has checked.
pub(crate) fn forward(network: &PlainNetwork, images: &Tensor) -> Result<Tensor> {
    if images.track_op() {
        // somebody wants to differentiate through this call: keep the graph
        return ops::forward(network, images);
    }
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    if let Some(place) = device::place_of(network) {
        return device::forward(network, images, place);
    }
    match (cpu_form(network), network.dtype()) {
        (Some(Form::Blocks), DType::F32) => Ok(CpuTape::<f32>::record(network, images)?.1),
        (Some(Form::Blocks), _) => Ok(CpuTape::<f64>::record(network, images)?.1),
        (Some(Form::Graph), DType::F32) => Ok(GraphTape::record::<f32>(network, images)?.1),
        (Some(Form::Graph), _) => Ok(GraphTape::record::<f64>(network, images)?.1),
        (None, _) => ops::forward(network, images),
    }
}

/// How the CPU engine runs a network.
enum Form {
    Blocks,
    Graph,
}

/// None where it cannot.
fn cpu_form(network: &PlainNetwork) -> Option<Form> {
    if !matches!(network.device(), Device::Cpu) || !engine_runs(network.dtype()) {
        return None;
    }
    let blocks = has_block_form(network.layers().iter().map(PlainLayer::step));
    let graph = || runs_as_graph(network).then_some(Form::Graph);
    blocks.then_some(Form::Blocks).or_else(graph)
}

/// A forward pass that remembers what the gradient of the images needs: the values of no layer, one byte for
/// each activation decision.
#[derive(Debug)]
pub struct Recording<'a> {
    network: &'a PlainNetwork,
    logits: Tensor,
    tape: Tape,
}

#[derive(Debug)]
enum Tape {
    F32(CpuTape<f32>),
    F64(CpuTape<f64>),
    Graph(GraphTape),
    /// In candle's operations.
    Operations(Var),
    /// On the CUDA engine, which goes forward again.
    #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
    Device(Tensor, Place),
}

impl PlainNetwork {
    /// A forward pass whose input gradient can be asked for: what attacks need. Weight gradients are not
    /// computed.
    ///
    /// # Errors
    /// As for [`PlainNetwork::forward`].
    pub fn record(&self, images: &Tensor) -> Result<Recording<'_>> {
        let images = &self.input().batch(images)?;
        self.check_batch(images)?;
        #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
        if let Some(place) = device::place_of(self) {
            let images = images.detach();
            let logits = device::forward(self, &images, place)?;
            return Ok(Recording { network: self, logits, tape: Tape::Device(images, place) });
        }
        let (tape, logits) = match (cpu_form(self), self.dtype()) {
            (Some(Form::Blocks), DType::F32) => {
                let (tape, logits) = CpuTape::record(self, images)?;
                (Tape::F32(tape), logits)
            }
            (Some(Form::Blocks), _) => {
                let (tape, logits) = CpuTape::record(self, images)?;
                (Tape::F64(tape), logits)
            }
            (Some(Form::Graph), dtype) => {
                let (tape, logits) = match dtype {
                    DType::F32 => GraphTape::record::<f32>(self, images)?,
                    _ => GraphTape::record::<f64>(self, images)?,
                };
                (Tape::Graph(tape), logits)
            }
            (None, _) => {
                let input = Var::from_tensor(images)?;
                let logits = ops::forward(self, input.as_tensor())?;
                (Tape::Operations(input), logits)
            }
        };
        Ok(Recording { network: self, logits, tape })
    }
}

impl Recording<'_> {
    /// The logits, b x classes.
    #[must_use]
    pub fn logits(&self) -> &Tensor {
        &self.logits
    }

    /// The gradient of `Σ d_logits · logits` with respect to the images, b x c x h x w.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `d_logits` has not the logits' shape, [`Error::Candle`] when it has
    /// another element type or device.
    pub fn input_gradient(self, d_logits: &Tensor) -> Result<Tensor> {
        if d_logits.dims() != self.logits.dims() {
            return Err(Error::ShapeMismatch {
                what: "gradient of the logits".into(),
                expected: self.logits.dims().to_vec(),
                got: d_logits.dims().to_vec(),
            });
        }
        match self.tape {
            Tape::F32(tape) => tape.input_gradient(self.network, d_logits),
            Tape::F64(tape) => tape.input_gradient(self.network, d_logits),
            #[cfg(any(feature = "cuda-engine", feature = "cuda-emulation"))]
            Tape::Device(images, place) => {
                device::input_gradient(self.network, &images, d_logits, place)
            }
            Tape::Graph(tape) => match self.network.dtype() {
                DType::F32 => tape.input_gradient::<f32>(self.network, d_logits),
                _ => tape.input_gradient::<f64>(self.network, d_logits),
            },
            Tape::Operations(input) => {
                let objective = (self.logits * d_logits.detach())?.sum_all()?;
                let gradient = objective.backward()?.remove(input.as_tensor());
                Ok(gradient.map_or_else(|| input.zeros_like(), Ok)?)
            }
        }
    }
}
