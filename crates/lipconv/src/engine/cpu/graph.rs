//! Any plain network on the CPU: its values, and the gradient of the images.
//!
//! Networks without [block form](crate::engine::has_block_form) run here: padding by zeros, dilation, groups, sums, concatenations.
//!
//! Images go in chunks, each a task of its own. A chunk's signals are stored features x images with the image innermost, so that dense
//! layers and [convolutions](super::shifts) are products of matrices, flattening is nothing, and channels follow one another. The
//! pass keeps one byte for each decision of an activation; the values of a signal live until the last layer that takes it.
//!
//! Guarantee: results do not depend on the number of threads.

use candle_core::Tensor;
use ndarray::ArrayView2;
use projectors::Real;
use projectors::gemm::{add_in_blocks, matmul_into};
use rayon::prelude::*;

use super::dense::{view, view_mut};
use super::shifts::Shifts;
use crate::activation::Activation;
use crate::element::{Element, slice_of, to_vec};
use crate::error::Result;
use crate::plain::{PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};

/// Most images in a chunk.
const MOST_IMAGES: usize = 32;
/// Values of the largest signal of a chunk, or those of one image.
const MOST_VALUES: usize = 1 << 20;

/// Decisions of the layers, for each a list; empty for layers that take none.
type Record = Vec<Vec<u8>>;

/// A forward pass and what its adjoint needs.
#[derive(Debug)]
pub(crate) struct GraphTape {
    /// Of every chunk of images.
    records: Vec<Record>,
}

/// Whether bytes can record all decisions.
pub(crate) fn runs_as_graph(network: &PlainNetwork) -> bool {
    network.layers().iter().all(|layer| match layer {
        PlainLayer::Activation(activation) => activation.has_record(),
        _ => true,
    })
}

impl GraphTape {
    /// Runs the network; also returns the logits, b x classes.
    pub(crate) fn record<T: Element>(
        network: &PlainNetwork,
        images: &Tensor,
    ) -> Result<(Self, Tensor)> {
        let shape = (images.dims()[0], network.n_classes());
        let images = to_vec::<T>(images)?;
        let chunk = images_in_chunk(network) * network.input().n_values();
        let passes: Vec<(Vec<T>, Record)> = with_program(network, |program| {
            images.par_chunks(chunk).map(|images| program.forward(images)).collect()
        })?;
        let (logits, records): (Vec<Vec<T>>, Vec<Record>) = passes.into_iter().unzip();
        let logits = Tensor::from_vec(logits.concat(), shape, network.device())?;
        Ok((Self { records }, logits))
    }

    /// The gradient of `Σ d_logits · logits` in the images.
    pub(crate) fn input_gradient<T: Element>(
        &self,
        network: &PlainNetwork,
        d_logits: &Tensor,
    ) -> Result<Tensor> {
        let ImageShape { channels, height, width } = network.input();
        let shape = (d_logits.dims()[0], channels, height, width);
        let d_logits = to_vec::<T>(d_logits)?;
        let chunk = images_in_chunk(network) * network.n_classes();
        let gradients: Vec<Vec<T>> = with_program(network, |program| {
            let chunks = d_logits.par_chunks(chunk).zip(&self.records);
            chunks.map(|(d_logits, record)| program.backward(d_logits, record)).collect()
        })?;
        Ok(Tensor::from_vec(gradients.concat(), shape, network.device())?)
    }
}

fn images_in_chunk(network: &PlainNetwork) -> usize {
    let largest = network.shapes().iter().map(|shape| shape.n_values()).max().unwrap_or(1);
    (MOST_VALUES / largest).clamp(1, MOST_IMAGES)
}

/// A network's layers with their numbers, borrowed from its tensors.
struct Program<'a, T> {
    /// Values of an image.
    n_values: usize,
    n_classes: usize,
    steps: Vec<Step<'a, T>>,
}

/// Shape and values of a weight, and its bias.
type Numbers<'a, T> = (&'a [usize], &'a [T], Option<&'a [T]>);

enum Step<'a, T> {
    Conv {
        shifts: Shifts,
        weight: &'a [T],
        bias: Option<&'a [T]>,
        n_out: usize,
    },
    Dense {
        weight: ArrayView2<'a, T>,
        bias: Option<&'a [T]>,
    },
    Activation {
        activation: Activation,
        n_pixels: usize,
    },
    LeakyRelu(T),
    Flatten,
    Recall(usize),
    Add(usize),
    /// Behind `n_earlier` values of an image.
    Concat {
        from: usize,
        n_earlier: usize,
    },
}

fn with_program<T: Element, R>(
    network: &PlainNetwork,
    f: impl FnOnce(&Program<'_, T>) -> R,
) -> Result<R> {
    let parameters = network.layers().iter().filter_map(PlainLayer::parameters);
    let guards: Vec<_> = parameters
        .map(|(weight, bias)| (weight.storage_and_layout(), bias.map(Tensor::storage_and_layout)))
        .collect();
    let mut guards = guards.iter();
    let mut steps = Vec::with_capacity(network.layers().len());
    for (layer, shapes) in network.layers().iter().zip(network.shapes().windows(2)) {
        let numbers = match layer.parameters() {
            None => None,
            Some((weight, _)) => {
                let ((storage, layout), bias) = guards.next().expect("all weights are held");
                let bias = bias.as_ref().map(|(s, l)| slice_of::<T>(s, l)).transpose()?;
                Some((weight.dims(), slice_of::<T>(storage, layout)?, bias))
            }
        };
        steps.push(Step::new(layer, (shapes[0], shapes[1]), numbers));
    }
    let (n_values, n_classes) = (network.input().n_values(), network.n_classes());
    Ok(f(&Program { n_values, n_classes, steps }))
}

impl<'a, T: Element> Step<'a, T> {
    fn new(
        layer: &PlainLayer,
        shapes: (SignalShape, SignalShape),
        numbers: Option<Numbers<'a, T>>,
    ) -> Self {
        match (layer, shapes, numbers) {
            (
                PlainLayer::PaddedConv(conv),
                (SignalShape::Image(input), SignalShape::Image(output)),
                Some((_, weight, bias)),
            ) => Self::conv(Shifts::padded(conv, input, output), weight, bias, output),
            (
                PlainLayer::CyclicConv(conv),
                (SignalShape::Image(input), SignalShape::Image(output)),
                Some((_, weight, bias)),
            ) => Self::conv(Shifts::cyclic(conv, input, output), weight, bias, output),
            (PlainLayer::Dense(_), _, Some((dims, weight, bias))) => {
                Self::Dense { weight: view(dims[0], dims[1], weight), bias }
            }
            (PlainLayer::Activation(activation), (input, _), _) => Self::Activation {
                activation: *activation,
                n_pixels: input.n_values() / input.n_channels(),
            },
            (PlainLayer::LeakyRelu { slope }, ..) => Self::LeakyRelu(T::of(*slope)),
            (PlainLayer::Recall { from }, ..) => Self::Recall(*from),
            (PlainLayer::Add { from }, ..) => Self::Add(*from),
            (PlainLayer::Concat { from }, (current, joined), _) => {
                Self::Concat { from: *from, n_earlier: joined.n_values() - current.n_values() }
            }
            _ => Self::Flatten,
        }
    }

    fn conv(shifts: Shifts, weight: &'a [T], bias: Option<&'a [T]>, output: ImageShape) -> Self {
        Self::Conv { shifts, weight, bias, n_out: output.n_values() }
    }
}

impl<T: Element> Program<'_, T> {
    /// Logits (images x classes) of images (images x values), and the decisions.
    fn forward(&self, images: &[T]) -> (Vec<T>, Record) {
        let n = images.len() / self.n_values;
        let last_uses = self.last_uses();
        let mut signals = vec![transposed(images, n, self.n_values)];
        let mut record = Vec::with_capacity(self.steps.len());
        let mut buffer = Vec::new();
        for (idx, step) in self.steps.iter().enumerate() {
            let mut decisions = Vec::new();
            let mut current = || match last_uses[idx] == idx {
                true => std::mem::take(&mut signals[idx]),
                false => signals[idx].clone(),
            };
            let output = match step {
                Step::Conv { shifts, weight, bias, n_out } => {
                    let mut output = spread(*bias, n_out * n);
                    shifts.forward(weight, (&signals[idx], &mut output), n, &mut buffer);
                    output
                }
                Step::Dense { weight, bias } => {
                    let mut output = spread(*bias, weight.nrows() * n);
                    let into = view_mut(weight.nrows(), n, &mut output);
                    let input = view(weight.ncols(), n, &signals[idx]);
                    add_in_blocks(*weight, input, into);
                    output
                }
                Step::Activation { activation, n_pixels } => {
                    let mut values = current();
                    decisions.resize(activation.record_len(values.len()), 0);
                    activation.apply(&mut values, n_pixels * n, &mut decisions);
                    values
                }
                Step::LeakyRelu(slope) => {
                    let mut values = current();
                    decisions.extend(values.iter().map(|v| u8::from(*v > T::zero())));
                    scale_where_0(&mut values, &decisions, *slope);
                    values
                }
                Step::Flatten => current(),
                Step::Recall(from) => signals[*from].clone(),
                Step::Add(from) => {
                    let pairs = signals[*from].iter().zip(&signals[idx]);
                    pairs.map(|(&a, &b)| a + b).collect()
                }
                Step::Concat { from, .. } => [&signals[*from][..], &signals[idx]].concat(),
            };
            record.push(decisions);
            signals.push(output);
            for (signal, _) in signals.iter_mut().zip(&last_uses).filter(|(_, last)| **last == idx)
            {
                *signal = Vec::new();
            }
        }
        (transposed(&signals[self.steps.len()], self.n_classes, n), record)
    }

    /// For every signal the last layer that takes it; that behind the last one takes the logits.
    fn last_uses(&self) -> Vec<usize> {
        let n_layers = self.steps.len();
        let mut last_uses = vec![n_layers; n_layers + 1];
        for (idx, step) in self.steps.iter().enumerate() {
            if let Step::Recall(from) | Step::Add(from) | Step::Concat { from, .. } = step {
                last_uses[*from] = idx;
            }
            last_uses[idx] = idx;
        }
        last_uses
    }

    /// The gradient of the images (images x values), given that of the logits (images x classes).
    fn backward(&self, d_logits: &[T], record: &Record) -> Vec<T> {
        let n = d_logits.len() / self.n_classes;
        let n_layers = self.steps.len();
        let mut buffer = Vec::new();
        // an empty list stands for zeros
        let mut gradients = vec![Vec::new(); n_layers + 1];
        gradients[n_layers] = transposed(d_logits, n, self.n_classes);
        for (idx, step) in self.steps.iter().enumerate().rev() {
            let mut gradient = std::mem::take(&mut gradients[idx + 1]);
            if gradient.is_empty() {
                continue;
            }
            let decisions = &record[idx];
            let d_input = match step {
                Step::Conv { shifts, weight, .. } => {
                    shifts.backward(weight, &gradient, n, &mut buffer)
                }
                Step::Dense { weight, .. } => {
                    let mut d_input = vec![T::zero(); weight.ncols() * n];
                    let into = view_mut(weight.ncols(), n, &mut d_input);
                    let d_output = view(weight.nrows(), n, &gradient);
                    matmul_into(T::one(), weight.t(), d_output, T::zero(), into);
                    d_input
                }
                Step::Activation { activation, n_pixels } => {
                    activation.pull_back(&mut gradient, n_pixels * n, decisions);
                    gradient
                }
                Step::LeakyRelu(slope) => {
                    scale_where_0(&mut gradient, decisions, *slope);
                    gradient
                }
                Step::Flatten => gradient,
                Step::Recall(from) => {
                    add(&mut gradients[*from], gradient);
                    continue;
                }
                Step::Add(from) => {
                    add(&mut gradients[*from], gradient.clone());
                    gradient
                }
                Step::Concat { from, n_earlier } => {
                    let current = gradient.split_off(n_earlier * n);
                    add(&mut gradients[*from], gradient);
                    current
                }
            };
            add(&mut gradients[idx], d_input);
        }
        let mut d_images = std::mem::take(&mut gradients[0]);
        d_images.resize(self.n_values * n, T::zero());
        transposed(&d_images, self.n_values, n)
    }
}

/// Multiplies the values whose decision is 0.
fn scale_where_0<T: Real>(values: &mut [T], decisions: &[u8], factor: T) {
    for (value, &decision) in values.iter_mut().zip(decisions) {
        *value = if decision == 0 { *value * factor } else { *value };
    }
}

/// Adds to a list of which an empty one stands for zeros.
fn add<T: Real>(sum: &mut Vec<T>, term: Vec<T>) {
    if sum.is_empty() {
        *sum = term;
    } else {
        sum.iter_mut().zip(&term).for_each(|(sum, &term)| *sum += term);
    }
}

/// Each bias for all pixels and images, `len` values in all.
fn spread<T: Real>(bias: Option<&[T]>, len: usize) -> Vec<T> {
    match bias {
        None => vec![T::zero(); len],
        Some(bias) => {
            let n = len / bias.len();
            bias.iter().flat_map(|&b| std::iter::repeat_n(b, n)).collect()
        }
    }
}

/// rows x columns to columns x rows.
fn transposed<T: Real>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut into = vec![T::zero(); values.len()];
    for (r, row) in values.chunks_exact(columns).enumerate() {
        row.iter().enumerate().for_each(|(c, &v)| into[c * rows + r] = v);
    }
    into
}
