//! The convolutions of one sample after another: every activation stays in the cache of one core.
//!
//! A sample runs through all convolutions before the next one starts, so that between two layers nothing
//! travels to memory except what the backward pass needs: each convolution's input (only when weight
//! gradients are wanted) and one byte for each activation decision.
//!
//! Samples are split into a fixed number of chunks; each chunk adds up its own weight gradient and the chunks
//! are added in order, so results do not depend on how threads were scheduled.

use rayon::prelude::*;

use super::program::{ConvBlock, ConvPlace, Program};
use crate::kernels::conv::{self, ConvScratch, grow};
use crate::kernels::lanes::Lanes;
use crate::kernels::registers::Packed;

/// Number of partial weight gradients: fixed, so that the order of summation is.
pub(crate) const N_CHUNKS: usize = 8;

/// Scratch memory of one chunk of samples.
#[derive(Debug, Default)]
pub(crate) struct Scratch<T> {
    conv: ConvScratch<T>,
    gradient: [Vec<T>; 2],
    /// One sample's values and records, where nobody keeps them.
    values: Vec<T>,
    /// The chunk's partial weight gradient.
    partial: Vec<Lanes<T>>,
}

/// Buffers of the convolutional part for one batch.
#[derive(Debug, Default)]
pub(crate) struct SpatialBuffers<T> {
    /// Inputs of the convolutions but the first: batch x values.
    values: Vec<T>,
    /// Activation records: batch x records.
    records: Vec<u8>,
    /// Input of the dense layers: batch x features. After the backward pass: nothing of use.
    pub(crate) features: Vec<T>,
    /// Gradient of the images, when wanted.
    pub(crate) image_gradient: Vec<T>,
    scratch: Vec<Scratch<T>>,
}

impl<T: Packed> Scratch<T> {
    fn reserve(&mut self, program: &Program<'_, T>) {
        let mut largest = 0;
        for block in &program.convs {
            self.conv.reserve(&block.conv);
            largest = largest.max(block.n_out()).max(block.conv.geometry.input.n_values());
        }
        self.gradient.iter_mut().for_each(|g| grow(g, largest, T::zero()));
        grow(&mut self.values, program.values_len(), T::zero());
    }
}

/// Runs all convolutions; `keep` says whether their inputs are needed for weight gradients.
pub(crate) fn forward<T: Packed>(
    program: &Program<'_, T>,
    images: &[T],
    batch: usize,
    keep: bool,
    buffers: &mut SpatialBuffers<T>,
) {
    let (n_image, n_features) = (program.n_image, program.n_features());
    buffers.features.resize(batch * n_features, T::zero());
    if program.convs.is_empty() {
        buffers.features.copy_from_slice(images);
        return;
    }
    let (n_values, n_records) = (program.values_len(), program.records_len());
    buffers.records.resize(batch * n_records, 0);
    if keep {
        grow(&mut buffers.values, batch * n_values, T::zero());
    }
    let places = program.places();
    let chunk = batch.div_ceil(N_CHUNKS).max(1);
    buffers.scratch.resize_with(N_CHUNKS, Scratch::default);
    let values = chunks_or_empty(&mut buffers.values, if keep { chunk * n_values } else { 0 });
    let records = chunks_or_empty(&mut buffers.records, chunk * n_records);
    let features: Vec<_> = buffers.features.chunks_mut(chunk * n_features).collect();
    let inputs: Vec<_> = images.chunks(chunk * n_image).collect();
    let work =
        features.into_par_iter().zip(inputs).zip(values).zip(records).zip(&mut buffers.scratch);
    work.for_each(|((((features, images), values), records), scratch)| {
        scratch.reserve(program);
        let samples = features.chunks_exact_mut(n_features).zip(images.chunks_exact(n_image));
        for (n, (features, image)) in samples.enumerate() {
            let records = &mut records[n * n_records..][..n_records];
            if keep {
                let values = &mut values[n * n_values..][..n_values];
                forward_sample(program, &places, image, values, records, features, scratch);
            } else {
                let mut values = std::mem::take(&mut scratch.values);
                forward_sample(program, &places, image, &mut values, records, features, scratch);
                scratch.values = values;
            }
        }
    });
}

/// `N_CHUNKS` consecutive pieces of `size` values; empty ones where the buffer ends.
fn chunks_or_empty<T>(buffer: &mut [T], size: usize) -> Vec<&mut [T]> {
    let mut rest = buffer;
    let mut pieces = Vec::with_capacity(N_CHUNKS);
    for _ in 0..N_CHUNKS {
        let (piece, tail) = rest.split_at_mut(size.min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces
}

fn forward_sample<T: Packed>(
    program: &Program<'_, T>,
    places: &[ConvPlace],
    image: &[T],
    values: &mut [T],
    records: &mut [u8],
    features: &mut [T],
    scratch: &mut Scratch<T>,
) {
    let last = program.convs.len() - 1;
    for (n, (block, place)) in program.convs.iter().zip(places).enumerate() {
        let geometry = &block.conv.geometry;
        let n_in = geometry.input.n_values();
        let (before, after) = values.split_at_mut(place.value.min(values.len()));
        let input = if n == 0 { image } else { &before[place.value - n_in..] };
        let output = if n == last { &mut *features } else { &mut after[..block.n_out()] };
        block.conv.forward(input, output, &mut scratch.conv);
        let mut record = place.record;
        for activation in &block.activations {
            let length = activation.record_len(output.len());
            activation.apply(
                output,
                geometry.output().n_pixels(),
                &mut records[record..record + length],
            );
            record += length;
        }
    }
}

/// Runs the adjoint of all convolutions on `d_features` (batch x features, used up).
///
/// With `images`, the batch of a forward pass that kept its values, the weight gradients are written to
/// `gradients`, laid out as [`Program::places`] says. With `want_images` the gradient of the images is left in
/// the buffers.
pub(crate) fn backward<T: Packed>(
    program: &Program<'_, T>,
    images: Option<&[T]>,
    batch: usize,
    want_images: bool,
    d_features: &mut [T],
    buffers: &mut SpatialBuffers<T>,
    gradients: &mut Vec<Lanes<T>>,
) {
    let (n_image, n_features) = (program.n_image, program.n_features());
    let n_gradients = if images.is_some() { program.conv_gradients_len() } else { 0 };
    buffers.image_gradient.resize(if want_images { batch * n_image } else { 0 }, T::zero());
    gradients.clear();
    gradients.resize(n_gradients, Lanes::zero());
    if program.convs.is_empty() {
        if want_images {
            buffers.image_gradient.copy_from_slice(d_features);
        }
        return;
    }
    let (n_values, n_records) = (program.values_len(), program.records_len());
    let adjoint = Adjoint::new(program, want_images);
    let chunk = batch.div_ceil(N_CHUNKS).max(1);
    buffers.scratch.resize_with(N_CHUNKS, Scratch::default);
    let records = chunks_or_empty(&mut buffers.records, chunk * n_records);
    let d_images =
        chunks_or_empty(&mut buffers.image_gradient, if want_images { chunk * n_image } else { 0 });
    let values = &buffers.values;
    let d_features: Vec<_> = d_features.chunks_mut(chunk * n_features).collect();
    let work = d_features.into_par_iter().zip(records).zip(d_images).zip(&mut buffers.scratch);
    work.enumerate().for_each(|(piece, (((d_features, records), d_images), scratch))| {
        scratch.reserve(program);
        scratch.partial.clear();
        scratch.partial.resize(n_gradients, Lanes::zero());
        for (n, d_features) in d_features.chunks_exact_mut(n_features).enumerate() {
            let sample = piece * chunk + n;
            let inputs = images.map(|images| Inputs {
                image: &images[sample * n_image..][..n_image],
                values: &values[sample * n_values..][..n_values],
            });
            let records = &records[n * n_records..][..n_records];
            let d_image = want_images.then(|| &mut d_images[n * n_image..][..n_image]);
            backward_sample(&adjoint, records, inputs, d_features, d_image, scratch);
        }
    });
    // an idle chunk may hold what an earlier, larger batch left in it
    for scratch in &buffers.scratch[..batch.div_ceil(chunk)] {
        conv::add_assign(gradients, &scratch.partial);
    }
}

/// The inputs of one sample's convolutions.
#[derive(Clone, Copy)]
struct Inputs<'a, T> {
    image: &'a [T],
    values: &'a [T],
}

/// The convolutions, with what the gradients of every sample need of them.
struct Adjoint<'a, T> {
    blocks: &'a [ConvBlock<T>],
    places: Vec<ConvPlace>,
    /// The factors of the input gradients; of the first only where the gradients of images are wanted.
    factors: Vec<Vec<Lanes<T>>>,
}

impl<'a, T: Packed> Adjoint<'a, T> {
    fn new(program: &'a Program<'_, T>, want_images: bool) -> Self {
        let factors = |(n, block): (usize, &ConvBlock<T>)| {
            if n > 0 || want_images { block.conv.adjoint_factors() } else { Vec::new() }
        };
        let blocks = &program.convs;
        let factors = blocks.par_iter().enumerate().map(factors).collect();
        Self { blocks, places: program.places(), factors }
    }
}

fn backward_sample<T: Packed>(
    adjoint: &Adjoint<'_, T>,
    records: &[u8],
    inputs: Option<Inputs<'_, T>>,
    d_features: &mut [T],
    mut d_image: Option<&mut [T]>,
    scratch: &mut Scratch<T>,
) {
    let Adjoint { blocks, places, factors } = adjoint;
    let last = blocks.len() - 1;
    let [mut d_outputs, mut d_inputs] = std::mem::take(&mut scratch.gradient);
    for (n, (block, place)) in blocks.iter().zip(places).enumerate().rev() {
        let n_in = block.conv.geometry.input.n_values();
        let d_output = if n == last { &mut *d_features } else { &mut d_outputs[..block.n_out()] };
        backward_activations(block, &records[place.record..], d_output);
        if let Some(Inputs { image, values }) = inputs {
            let input = if n == 0 { image } else { &values[place.value - n_in..place.value] };
            let partial = &mut scratch.partial[place.gradient..][..block.conv.gradient_len()];
            block.conv.add_gradients(input, d_output, partial, &mut scratch.conv);
        }
        let target = match (n, d_image.as_deref_mut()) {
            (0, None) => break,
            (0, Some(d_image)) => d_image,
            _ => &mut d_inputs[..n_in],
        };
        block.conv.input_gradient(&factors[n], d_output, target, &mut scratch.conv);
        std::mem::swap(&mut d_outputs, &mut d_inputs);
    }
    scratch.gradient = [d_outputs, d_inputs];
}

fn backward_activations<T: Packed>(block: &ConvBlock<T>, records: &[u8], gradient: &mut [T]) {
    let mut end = block.record_len();
    for activation in block.activations.iter().rev() {
        let start = end - activation.record_len(gradient.len());
        activation.pull_back(
            gradient,
            block.conv.geometry.output().n_pixels(),
            &records[start..end],
        );
        end = start;
    }
}
