//! Plain networks on the CPU engine: forward, and back to the images.

use candle_core::Tensor;

use super::dense::{self, DenseBuffers};
use super::program::{DenseWeight, Program};
use super::spatial::{self, SpatialBuffers};
use crate::element::{Element, slice_of, to_vec};
use crate::error::Result;
use crate::kernels::conv::ConvGeometry;
use crate::plain::{PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};

/// A forward pass and what its adjoint needs: the values of no layer, one byte for each activation decision.
#[derive(Debug, Default)]
pub(crate) struct CpuTape<T> {
    spatial: SpatialBuffers<T>,
    dense: DenseBuffers<T>,
}

impl<T: Element> CpuTape<T> {
    /// Runs the network; also returns the logits, b x classes.
    pub(crate) fn record(network: &PlainNetwork, images: &Tensor) -> Result<(Self, Tensor)> {
        let batch = images.dims()[0];
        let images = images.contiguous()?;
        let (storage, layout) = images.storage_and_layout();
        let images = slice_of::<T>(&storage, layout)?;
        let mut tape = Self { spatial: Default::default(), dense: Default::default() };
        let logits = with_program(network, |program| {
            spatial::forward(program, images, batch, false, &mut tape.spatial);
            dense::forward(program, &tape.spatial.features, batch, &mut tape.dense);
            tape.dense.logits(&tape.spatial.features).to_vec()
        })?;
        let logits = Tensor::from_vec(logits, (batch, network.n_classes()), network.device())?;
        Ok((tape, logits))
    }

    /// The gradient of `Σ d_logits · logits` in the images.
    pub(crate) fn input_gradient(
        mut self,
        network: &PlainNetwork,
        d_logits: &Tensor,
    ) -> Result<Tensor> {
        let batch = d_logits.dims()[0];
        let mut d_logits = to_vec::<T>(d_logits)?;
        let gradient = with_program(network, |program| {
            let Self { spatial, dense } = &mut self;
            dense::backward(program, &[], batch, false, &mut d_logits, dense);
            let d_features = dense.d_inputs.first_mut().unwrap_or(&mut d_logits);
            spatial::backward(program, None, batch, true, d_features, spatial, &mut Vec::new());
            std::mem::take(&mut spatial.image_gradient)
        })?;
        let ImageShape { channels, height, width } = network.input();
        Ok(Tensor::from_vec(gradient, (batch, channels, height, width), network.device())?)
    }
}

/// Hands the network's program to `f`; dense weights are borrowed from their tensors.
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
    let mut program = Program::new(network.input().n_values());
    program.in_blocks = network.sums_in_blocks();
    let mut shape = SignalShape::Image(network.input());
    for (layer, name) in network.layers().iter().zip(network.names()) {
        match (layer, shape) {
            (PlainLayer::CyclicConv(conv), SignalShape::Image(input)) => {
                let (downsample, kernel) = (conv.downsample(), conv.kernel_size());
                let c_out = conv.weight().dims()[0];
                let weight = to_vec::<T>(conv.weight())?;
                let bias = conv.bias().map(to_vec::<T>).transpose()?;
                let geometry = ConvGeometry { input, downsample, kernel, c_out };
                program.push_conv(geometry, &weight, bias.as_deref());
            }
            (PlainLayer::Dense(dense), _) => {
                let ((weight, layout), bias) =
                    dense_guards.next().expect("every dense layer has its guards");
                let weight = DenseWeight::Plain(slice_of::<T>(weight, layout)?);
                let bias = bias.as_ref().map(|(s, l)| slice_of::<T>(s, l)).transpose()?;
                program.push_dense(dense.weight().dims2()?, weight, bias);
            }
            _ => program.push(layer.step()),
        }
        shape = layer.output_shape(shape, name)?;
    }
    Ok(f(&program))
}
