//! How networks run on the CPU: a fixed program on reused buffers, no graph.
//!
//! A [`Program`] is a list of blocks, each one linear map and its activations; convolutions run
//! [sample by sample](spatial), dense layers on [whole batches](dense). The backward pass is the reverse sweep of the same
//! list. The tensor path of [`ops`](crate::ops) computes the same functions on any device and is what the
//! engine is tested against; it also takes the networks that do not fit the block form.

pub(crate) mod dense;
pub(crate) mod program;
pub(crate) mod spatial;
pub(crate) mod training;

use candle_core::{DType, Device, Tensor};

use crate::element::{Element, engine_runs, slice_of, to_vec};
use crate::error::{Error, Result};
use crate::kernels::activation::{Activation, MAX_GROUP};
use crate::kernels::conv::ConvGeometry;
use crate::ops;
use crate::plain::{CyclicConv, PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};
use program::{ConvBlock, DenseBlock, DenseWeight, Program};

/// Logits of a batch that [`PlainNetwork`] has checked.
pub(crate) fn forward(network: &PlainNetwork, images: &Tensor) -> Result<Tensor> {
    match cpu_dtype(network) {
        // somebody wants to differentiate through this call: keep the graph
        _ if images.track_op() => ops::forward(network, images),
        Some(DType::F32) => forward_on_cpu::<f32>(network, images),
        Some(DType::F64) => forward_on_cpu::<f64>(network, images),
        _ => ops::forward(network, images),
    }
}

/// The element type, when the CPU engine can run this network.
fn cpu_dtype(network: &PlainNetwork) -> Option<DType> {
    let on_cpu = matches!(network.device(), Device::Cpu) && engine_runs(network.dtype());
    (on_cpu && has_block_form(network.layers().iter().map(step))).then(|| network.dtype())
}

/// What the block form distinguishes in a list of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Linear,
    Activation(Activation),
    Flatten,
}

/// Whether every activation directly follows a linear map or another activation, and can be recorded in bytes.
pub(crate) fn has_block_form(steps: impl IntoIterator<Item = Step>) -> bool {
    let mut after_linear = false;
    steps.into_iter().all(|step| {
        let fits = match step {
            Step::Activation(Activation::GroupSort(group)) => after_linear && group < MAX_GROUP,
            Step::Activation(_) => after_linear,
            Step::Linear | Step::Flatten => true,
        };
        after_linear = step != Step::Flatten;
        fits
    })
}

fn step(layer: &PlainLayer) -> Step {
    match layer {
        PlainLayer::Flatten => Step::Flatten,
        layer => activation(layer).map_or(Step::Linear, Step::Activation),
    }
}

fn activation(layer: &PlainLayer) -> Option<Activation> {
    match layer {
        PlainLayer::MaxMin => Some(Activation::MaxMin),
        PlainLayer::GroupSort { group } => Some(Activation::GroupSort(*group)),
        PlainLayer::Relu => Some(Activation::Relu),
        PlainLayer::CyclicConv(_) | PlainLayer::Dense(_) | PlainLayer::Flatten => None,
    }
}

fn forward_on_cpu<T: Element>(network: &PlainNetwork, images: &Tensor) -> Result<Tensor> {
    let batch = images.dims()[0];
    let images = images.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let images = slice_of::<T>(&storage, layout)?;
    let logits = with_program(network, |program| {
        let mut spatial = spatial::SpatialBuffers::default();
        let mut dense = dense::DenseBuffers::default();
        spatial::forward(program, images, batch, false, &mut spatial);
        dense::forward(program, &spatial.features, batch, &mut dense);
        dense.logits(&spatial.features).to_vec()
    })?;
    Ok(Tensor::from_vec(logits, (batch, network.n_classes()), network.device())?)
}

/// A forward pass that remembers what the gradient of the images needs: the values of no layer, one byte for
/// each activation decision.
#[derive(Debug)]
pub struct Recording<'a> {
    network: &'a PlainNetwork,
    batch: usize,
    logits: Tensor,
    tape: Tape,
}

#[derive(Debug)]
enum Tape {
    F32(CpuTape<f32>),
    F64(CpuTape<f64>),
    Graph(candle_core::Var),
}

#[derive(Debug, Default)]
struct CpuTape<T> {
    spatial: spatial::SpatialBuffers<T>,
    dense: dense::DenseBuffers<T>,
}

impl PlainNetwork {
    /// A forward pass whose input gradient can be asked for: what attacks need. Weight gradients are not
    /// computed.
    ///
    /// # Errors
    /// As for [`PlainNetwork::forward`].
    pub fn record(&self, images: &Tensor) -> Result<Recording<'_>> {
        let batch = self.check_batch(images)?;
        let (tape, logits) = match cpu_dtype(self) {
            Some(DType::F32) => {
                let (tape, logits) = record_on_cpu::<f32>(self, images)?;
                (Tape::F32(tape), logits)
            }
            Some(DType::F64) => {
                let (tape, logits) = record_on_cpu::<f64>(self, images)?;
                (Tape::F64(tape), logits)
            }
            _ => {
                let input = candle_core::Var::from_tensor(images)?;
                let logits = ops::forward(self, input.as_tensor())?;
                (Tape::Graph(input), logits)
            }
        };
        Ok(Recording { network: self, batch, logits, tape })
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
            Tape::F32(tape) => input_gradient_on_cpu(self.network, self.batch, tape, d_logits),
            Tape::F64(tape) => input_gradient_on_cpu(self.network, self.batch, tape, d_logits),
            Tape::Graph(input) => {
                let objective = (self.logits * d_logits.detach())?.sum_all()?;
                let gradient = objective.backward()?.remove(input.as_tensor());
                Ok(gradient.map_or_else(|| input.zeros_like(), Ok)?)
            }
        }
    }
}

fn record_on_cpu<T: Element>(
    network: &PlainNetwork,
    images: &Tensor,
) -> Result<(CpuTape<T>, Tensor)> {
    let batch = images.dims()[0];
    let images = images.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let images = slice_of::<T>(&storage, layout)?;
    let mut tape = CpuTape { spatial: Default::default(), dense: Default::default() };
    let logits = with_program(network, |program| {
        spatial::forward(program, images, batch, false, &mut tape.spatial);
        dense::forward(program, &tape.spatial.features, batch, &mut tape.dense);
        tape.dense.logits(&tape.spatial.features).to_vec()
    })?;
    let logits = Tensor::from_vec(logits, (batch, network.n_classes()), network.device())?;
    Ok((tape, logits))
}

fn input_gradient_on_cpu<T: Element>(
    network: &PlainNetwork,
    batch: usize,
    mut tape: CpuTape<T>,
    d_logits: &Tensor,
) -> Result<Tensor> {
    let mut d_logits = to_vec::<T>(d_logits)?;
    let gradient = with_program(network, |program| {
        let CpuTape { spatial, dense } = &mut tape;
        dense::backward(program, &[], batch, false, &mut d_logits, dense);
        let d_features = dense.d_inputs.first_mut().unwrap_or(&mut d_logits);
        spatial::backward(program, None, batch, true, d_features, spatial, &mut Vec::new());
        std::mem::take(&mut spatial.image_gradient)
    })?;
    let ImageShape { channels, height, width } = network.input();
    Ok(Tensor::from_vec(gradient, (batch, channels, height, width), network.device())?)
}

/// Hands the network's CPU program to `f`; dense weights are borrowed from their tensors.
fn with_program<T: Element, R>(
    network: &PlainNetwork,
    f: impl FnOnce(&Program<'_, T>) -> R,
) -> Result<R> {
    let mut guards = Vec::new();
    for layer in network.layers() {
        if let PlainLayer::Dense(dense) = layer {
            let weight = dense.weight().storage_and_layout();
            guards.push((weight, dense.bias().map(Tensor::storage_and_layout)));
        }
    }
    let mut dense_guards = guards.iter();
    let mut program =
        Program { n_image: network.input().n_values(), convs: vec![], denses: vec![] };
    let mut shape = SignalShape::Image(network.input());
    for (layer, name) in network.layers().iter().zip(network.names()) {
        match (layer, shape) {
            (PlainLayer::CyclicConv(conv), SignalShape::Image(input)) => {
                program.convs.push(conv_block(conv, input)?);
            }
            (PlainLayer::Dense(dense), _) => {
                let ((weight, layout), bias) =
                    dense_guards.next().expect("every dense layer has its guards");
                program.denses.push(DenseBlock {
                    n_in: dense.weight().dims()[1],
                    n_out: dense.weight().dims()[0],
                    weight: DenseWeight::Plain(slice_of::<T>(weight, layout)?),
                    bias: bias.as_ref().map(|(s, l)| slice_of::<T>(s, l)).transpose()?,
                    activations: Vec::new(),
                });
            }
            _ => {
                if let Some(activation) = activation(layer) {
                    program.push_activation(activation);
                }
            }
        }
        shape = layer.output_shape(shape, name)?;
    }
    Ok(f(&program))
}

fn conv_block<T: Element>(conv: &CyclicConv, input: ImageShape) -> Result<ConvBlock<T>> {
    let dims = conv.weight().dims();
    let geometry =
        ConvGeometry { input, downsample: conv.downsample(), kernel: dims[2], c_out: dims[0] };
    let taps = to_vec::<T>(&conv.weight().permute((2, 3, 0, 1))?)?;
    let bias = conv.bias().map(to_vec::<T>).transpose()?;
    Ok(ConvBlock::new(geometry, &taps, bias.as_deref(), Vec::new()))
}
