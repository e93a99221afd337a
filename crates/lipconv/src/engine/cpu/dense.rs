//! The dense layers of a whole batch: one matrix product each, activations in place.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis};
use projectors::Real;
use projectors::gemm::{add_in_blocks, matmul, matmul_into};
use rayon::prelude::*;

use super::program::{DenseBlock, DenseWeight, Program};

/// Buffers of the dense part for one batch.
#[derive(Debug, Default)]
pub(crate) struct DenseBuffers<T> {
    /// Output of every dense block: batch x n_out; the last one is the logits.
    outputs: Vec<Vec<T>>,
    /// For every dense block with a factored weight, its inputs' coordinates: what the pullback needs.
    coordinates: Vec<Option<Array2<T>>>,
    /// Activation records of every dense block: batch x records.
    records: Vec<Vec<u8>>,
    /// Gradient of the input of every dense block; that of the first is the features' gradient.
    pub(crate) d_inputs: Vec<Vec<T>>,
}

/// Gradient of one dense layer: of its weight, or of the parameter where the weight is a factored function of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DenseGradient<T> {
    /// n_out x n_in.
    pub(crate) weight: Array2<T>,
    pub(crate) bias: Vec<T>,
}

/// Runs all dense layers on `features` (batch x n) and leaves the logits in the last output.
pub(crate) fn forward<T: Real>(
    program: &Program<'_, T>,
    features: &[T],
    batch: usize,
    buffers: &mut DenseBuffers<T>,
) {
    buffers.outputs.resize_with(program.denses.len(), Vec::new);
    buffers.records.resize_with(program.denses.len(), Vec::new);
    buffers.coordinates.clear();
    for (n, dense) in program.denses.iter().enumerate() {
        let (before, rest) = buffers.outputs.split_at_mut(n);
        let input = before.last().map_or(features, Vec::as_slice);
        let output = &mut rest[0];
        output.resize(batch * dense.n_out, T::zero());
        for row in output.chunks_exact_mut(dense.n_out) {
            match dense.bias {
                Some(bias) => row.copy_from_slice(bias),
                None => row.fill(T::zero()),
            }
        }
        let input = view(batch, dense.n_in, input);
        let result = view_mut(batch, dense.n_out, output);
        buffers.coordinates.push(add_product(dense, input, result, program.in_blocks));
        let record = &mut buffers.records[n];
        record.resize(batch * dense.record_len(), 0);
        activate(dense, output, record);
    }
}

/// Adds `input W^T` to the output; returns the coordinates that a factored weight passes through.
fn add_product<T: Real>(
    dense: &DenseBlock<'_, T>,
    input: ArrayView2<'_, T>,
    output: ArrayViewMut2<'_, T>,
    in_blocks: bool,
) -> Option<Array2<T>> {
    match dense.weight {
        DenseWeight::Plain(weight) => {
            let weight = view(dense.n_out, dense.n_in, weight);
            if in_blocks {
                add_in_blocks(input, weight.t(), output);
            } else {
                matmul_into(T::one(), input, weight.t(), T::one(), output);
            }
            None
        }
        DenseWeight::Polar(polar, parameter) => {
            let coordinates = polar.coordinates(parameter, input);
            polar.add_output(coordinates.view(), output);
            Some(coordinates)
        }
    }
}

impl<T: Real> DenseBuffers<T> {
    /// The logits of the last forward pass, `features` where there is no dense layer.
    pub(crate) fn logits<'a>(&'a self, features: &'a [T]) -> &'a [T] {
        self.outputs.last().map_or(features, Vec::as_slice)
    }
}

fn activate<T: Real>(dense: &DenseBlock<'_, T>, output: &mut [T], records: &mut [u8]) {
    let n_records = dense.record_len();
    if n_records == 0 {
        return;
    }
    let rows =
        output.par_chunks_exact_mut(dense.n_out).zip(records.par_chunks_exact_mut(n_records));
    rows.with_min_len(16).for_each(|(row, records)| {
        let mut start = 0;
        for activation in &dense.activations {
            let length = activation.record_len(row.len());
            activation.apply(row, 1, &mut records[start..start + length]);
            start += length;
        }
    });
}

fn activate_backward<T: Real>(dense: &DenseBlock<'_, T>, gradient: &mut [T], records: &[u8]) {
    let n_records = dense.record_len();
    if n_records == 0 {
        return;
    }
    let rows = gradient.par_chunks_exact_mut(dense.n_out).zip(records.par_chunks_exact(n_records));
    rows.with_min_len(16).for_each(|(row, records)| {
        let mut end = n_records;
        for activation in dense.activations.iter().rev() {
            let start = end - activation.record_len(row.len());
            activation.pull_back(row, 1, &records[start..end]);
            end = start;
        }
    });
}

/// The adjoint: takes the logits' gradient (used up), leaves the features' gradient in `d_inputs[0]` and
/// returns the weight gradients when they are wanted.
pub(crate) fn backward<T: Real>(
    program: &Program<'_, T>,
    features: &[T],
    batch: usize,
    want_weights: bool,
    d_logits: &mut [T],
    buffers: &mut DenseBuffers<T>,
) -> Vec<DenseGradient<T>> {
    let n_blocks = program.denses.len();
    buffers.d_inputs.resize_with(n_blocks, Vec::new);
    let mut gradients = Vec::with_capacity(n_blocks);
    for (n, dense) in program.denses.iter().enumerate().rev() {
        let (inner, outer) = buffers.d_inputs.split_at_mut(n + 1);
        let d_output = outer.first_mut().map_or(&mut *d_logits, Vec::as_mut_slice);
        activate_backward(dense, d_output, &buffers.records[n]);
        let d_output = view(batch, dense.n_out, d_output);
        if want_weights {
            let input = if n == 0 { features } else { &buffers.outputs[n - 1] };
            let input = view(batch, dense.n_in, input);
            let weight = match (dense.weight, &buffers.coordinates[n]) {
                (DenseWeight::Polar(polar, parameter), Some(coordinates)) => {
                    polar.pullback(parameter, d_output, input, coordinates.view())
                }
                _ => matmul(d_output.t(), input),
            };
            let bias = d_output.sum_axis(Axis(0)).to_vec();
            gradients.push(DenseGradient { weight, bias });
        }
        let d_input = &mut inner[n];
        d_input.resize(batch * dense.n_in, T::zero());
        let d_input = view_mut(batch, dense.n_in, d_input);
        match dense.weight {
            DenseWeight::Plain(weight) => {
                let weight = view(dense.n_out, dense.n_in, weight);
                matmul_into(T::one(), d_output, weight, T::zero(), d_input);
            }
            DenseWeight::Polar(polar, parameter) => {
                polar.input_gradient(parameter, d_output, d_input);
            }
        }
    }
    gradients.reverse();
    gradients
}

pub(super) fn view<T>(rows: usize, columns: usize, values: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), values).expect("the buffer has rows·columns values")
}

pub(super) fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("the buffer has rows·columns values")
}
