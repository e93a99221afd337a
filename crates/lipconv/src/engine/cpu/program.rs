//! A network as the CPU executes it: blocks of one linear map and the activations that follow it.

use ndarray::ArrayView2;
use projectors::Real;
use projectors::polar::FactoredPolar;

use crate::activation::Activation;
use crate::engine::Step;
use crate::kernels::conv::{Conv, ConvGeometry};
use crate::kernels::registers::Packed;

/// A cyclic convolution and its activations.
#[derive(Debug)]
pub(crate) struct ConvBlock<T> {
    pub(crate) conv: Conv<T>,
    pub(crate) activations: Vec<Activation>,
}

/// A dense layer and its activations.
#[derive(Debug)]
pub(crate) struct DenseBlock<'a, T> {
    pub(crate) n_in: usize,
    pub(crate) n_out: usize,
    pub(crate) weight: DenseWeight<'a, T>,
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) activations: Vec<Activation>,
}

/// The matrix of a dense layer, n_out x n_in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DenseWeight<'a, T> {
    /// Its entries, row-major.
    Plain(&'a [T]),
    /// The polar factor of the layer's parameter, never formed, and the parameter.
    Polar(&'a FactoredPolar<T>, ArrayView2<'a, T>),
}

/// Convolutions on images, then dense layers on vectors.
#[derive(Debug)]
pub(crate) struct Program<'a, T> {
    pub(crate) n_image: usize,
    pub(crate) convs: Vec<ConvBlock<T>>,
    pub(crate) denses: Vec<DenseBlock<'a, T>>,
    /// Whether the forward pass adds up the dot products of dense layers in blocks, as it always does those of convolutions: see
    /// [`PlainNetwork::sums_in_blocks`](crate::PlainNetwork::sums_in_blocks).
    pub(crate) in_blocks: bool,
}

/// Places of a convolution's data in the buffers of one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConvPlace {
    /// Start of the block's output in the sample's values; the last block writes features instead.
    pub(crate) value: usize,
    /// Start of the block's activation records.
    pub(crate) record: usize,
    /// Start of the block's weight gradient in lanes; its bias gradient follows.
    pub(crate) gradient: usize,
}

impl<T: Real> ConvBlock<T> {
    pub(crate) fn n_out(&self) -> usize {
        self.conv.geometry.output().n_values()
    }

    pub(crate) fn record_len(&self) -> usize {
        self.activations.iter().map(|a| a.record_len(self.n_out())).sum()
    }
}

impl<T: Real> DenseBlock<'_, T> {
    pub(crate) fn record_len(&self) -> usize {
        self.activations.iter().map(|a| a.record_len(self.n_out)).sum()
    }
}

impl<T: Packed> Program<'_, T> {
    /// Appends a convolution with its weight, c_out x c_in x k x k.
    pub(crate) fn push_conv(&mut self, geometry: ConvGeometry, weight: &[T], bias: Option<&[T]>) {
        let conv = Conv::new(geometry, weight, bias);
        self.convs.push(ConvBlock { conv, activations: Vec::new() });
    }
}

impl<'a, T: Real> Program<'a, T> {
    /// A program without blocks, for images of `n_image` values.
    pub(crate) fn new(n_image: usize) -> Self {
        Self { n_image, convs: Vec::new(), denses: Vec::new(), in_blocks: false }
    }

    /// Appends a dense layer.
    pub(crate) fn push_dense(
        &mut self,
        (n_out, n_in): (usize, usize),
        weight: DenseWeight<'a, T>,
        bias: Option<&'a [T]>,
    ) {
        self.denses.push(DenseBlock { n_in, n_out, weight, bias, activations: Vec::new() });
    }

    /// Appends what is not a linear map to the last block.
    pub(crate) fn push(&mut self, step: Step) {
        let Step::Activation(activation) = step else { return };
        if let Some(dense) = self.denses.last_mut() {
            dense.activations.push(activation);
        } else if let Some(conv) = self.convs.last_mut() {
            conv.activations.push(activation);
        }
    }

    /// Values entering the dense layers, for one sample.
    pub(crate) fn n_features(&self) -> usize {
        self.convs.last().map_or(self.n_image, ConvBlock::n_out)
    }

    /// The last dense weight, n_out x n_in, unless it stays in its factors.
    pub(crate) fn last_weight(&self) -> Option<ArrayView2<'_, T>> {
        let last = self.denses.last()?;
        let DenseWeight::Plain(weight) = last.weight else { return None };
        ArrayView2::from_shape((last.n_out, last.n_in), weight).ok()
    }

    pub(crate) fn n_logits(&self) -> usize {
        self.denses.last().map_or_else(|| self.n_features(), |dense| dense.n_out)
    }

    /// Values kept for one sample: the inputs of all convolutions but the first.
    pub(crate) fn values_len(&self) -> usize {
        let n = self.convs.len().saturating_sub(1);
        self.convs[..n].iter().map(ConvBlock::n_out).sum()
    }

    /// Bytes of activation records of the convolutions, for one sample.
    pub(crate) fn records_len(&self) -> usize {
        self.convs.iter().map(ConvBlock::record_len).sum()
    }

    /// Lanes of all convolutions' weight and bias gradients.
    pub(crate) fn conv_gradients_len(&self) -> usize {
        self.convs.iter().map(|block| block.conv.gradient_len()).sum()
    }

    /// Where each convolution's data starts.
    pub(crate) fn places(&self) -> Vec<ConvPlace> {
        let mut next = ConvPlace { value: 0, record: 0, gradient: 0 };
        let place = |block: &ConvBlock<T>| {
            let place = next;
            next.value += block.n_out();
            next.record += block.record_len();
            next.gradient += block.conv.gradient_len();
            place
        };
        self.convs.iter().map(place).collect()
    }
}
