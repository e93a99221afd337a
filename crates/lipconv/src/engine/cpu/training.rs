//! Loss and parameter gradients of one batch on the CPU: assemble all weights, run the program forward and
//! back, pull the weight gradients back to the parameters.
//!
//! Everything that outlives a step is in [`TrainBuffers`]: the activation buffers, reused from step to step, and the
//! inverse square roots from which the next orthonormalisation starts.

use blockconv::Scratch;
use candle_core::Tensor;
use ndarray::{Array2, Array4, ArrayD, ArrayViewD};
use projectors::Real;
use rayon::prelude::*;

use super::dense::{self, DenseBuffers, DenseGradient};
use super::program::{ConvBlock, DenseWeight, Program};
use super::spatial::{self, SpatialBuffers};
use crate::element::{Element, slice_of, to_vec};
use crate::error::Result;
use crate::kernels::conv::ConvGeometry;
use crate::kernels::lanes::Lanes;
use crate::loss::{Loss, LossValue, PairNorms};
use crate::methods::{Assembled, Start};
use crate::network::{LayerKind, Network, Parameters};

/// What a training run keeps between steps.
#[derive(Debug, Default)]
pub(crate) struct TrainBuffers<T> {
    spatial: SpatialBuffers<T>,
    dense: DenseBuffers<T>,
    conv_gradients: Vec<Lanes<T>>,
    /// For each linear layer, where its next orthonormalisation starts.
    pub(crate) warm: Vec<Option<Array2<T>>>,
    /// Memory of the kernel assemblies.
    scratch: Scratch<T>,
}

/// What a step has found out for one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParameterGradient<T> {
    /// Gradient of the weight parameter; `None` where it is not trained.
    pub(crate) weight: Option<Vec<T>>,
    /// Gradient of the bias.
    pub(crate) bias: Vec<T>,
    /// The vector that OSSN's next power iteration starts from.
    pub(crate) vector: Option<Vec<T>>,
    /// Where the next orthonormalisation starts.
    pub(crate) warm: Option<Array2<T>>,
}

/// Loss and gradients of a batch: `images` row-major b x c x h x w.
pub(crate) fn loss_and_gradients<T: Element>(
    network: &Network,
    loss: &Loss,
    images: &Tensor,
    labels: &[u32],
    buffers: &mut TrainBuffers<T>,
) -> Result<(LossValue<T>, Vec<ParameterGradient<T>>)> {
    let images = images.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let images = slice_of::<T>(&storage, layout)?;
    with_parameters(network, |parameters| {
        let explicit = if loss.needs_pairs() { parameters.len().checked_sub(1) } else { None };
        let assembled = assemble(parameters, &buffers.warm, &buffers.scratch, explicit)?;
        let weights = weights_of(&assembled, parameters);
        let program = program(network, &assembled, &weights, parameters);
        let (value, gradients) = run(&program, loss, images, labels, buffers)?;
        Ok((value, pull_back(parameters, &assembled, gradients)?))
    })
}

/// Logits of a batch, and the gradient of `Σ d_logits · logits` with respect to the images, the parameters being constants.
pub(crate) fn logits_and_image_gradient<T: Element>(
    network: &Network,
    images: &Tensor,
    d_logits: &Tensor,
    buffers: &mut TrainBuffers<T>,
) -> Result<(Vec<T>, Vec<T>)> {
    let batch = images.dims()[0];
    let images = images.contiguous()?;
    let (storage, layout) = images.storage_and_layout();
    let images = slice_of::<T>(&storage, layout)?;
    let mut d_logits = to_vec::<T>(d_logits)?;
    with_parameters(network, |parameters| {
        let assembled = assemble(parameters, &buffers.warm, &buffers.scratch, None)?;
        let weights = weights_of(&assembled, parameters);
        let program = program(network, &assembled, &weights, parameters);
        let TrainBuffers { spatial, dense, .. } = buffers;
        spatial::forward(&program, images, batch, false, spatial);
        dense::forward(&program, &spatial.features, batch, dense);
        let logits = dense.logits(&spatial.features).to_vec();
        dense::backward(&program, &spatial.features, batch, false, &mut d_logits, dense);
        let d_features = dense.d_inputs.first_mut().unwrap_or(&mut d_logits);
        spatial::backward(&program, None, batch, true, d_features, spatial, &mut Vec::new());
        Ok((logits, std::mem::take(&mut spatial.image_gradient)))
    })
}

/// A linear layer's parameters, borrowed from their variables.
struct Borrowed<'a, T> {
    layer: &'a Parameters,
    weight: ArrayViewD<'a, T>,
    bias: &'a [T],
    vector: Option<&'a [T]>,
}

fn with_parameters<T: Element, R>(
    network: &Network,
    f: impl FnOnce(&[Borrowed<'_, T>]) -> Result<R>,
) -> Result<R> {
    let guards = network.parameters().map(|p| {
        let vector = p.vector.as_ref().map(|v| v.storage_and_layout());
        (p, p.weight.storage_and_layout(), p.bias.storage_and_layout(), vector)
    });
    let guards: Vec<_> = guards.collect();
    let mut parameters = Vec::with_capacity(guards.len());
    for (layer, weight, bias, vector) in &guards {
        let values = slice_of::<T>(&weight.0, weight.1)?;
        let weight = ArrayViewD::from_shape(layer.weight.dims(), values)
            .expect("a contiguous tensor has as many values as its shape says");
        let bias = slice_of::<T>(&bias.0, bias.1)?;
        let vector = vector.as_ref().map(|(s, l)| slice_of::<T>(s, l)).transpose()?;
        parameters.push(Borrowed { layer, weight, bias, vector });
    }
    f(&parameters)
}

/// All weights at once; the layers are independent. That of the layer `explicit` is formed even where it costs less to apply
/// its factors.
fn assemble<T: Element>(
    parameters: &[Borrowed<'_, T>],
    warm: &[Option<Array2<T>>],
    scratch: &Scratch<T>,
    explicit: Option<usize>,
) -> Result<Vec<Box<dyn Assembled<T>>>> {
    let layers = parameters.par_iter().enumerate().map(|(n, p)| {
        let warm = warm.get(n).and_then(Option::as_ref).map(|warm| warm.view());
        let start = Start { warm, vector: p.vector, scratch: Some(scratch) };
        let method = p.layer.method.on_cpu();
        if explicit == Some(n) {
            return method.assemble(p.layer.layer(), p.weight.view(), start);
        }
        method.assemble_to_apply(p.layer.layer(), p.weight.view(), start)
    });
    layers.collect()
}

/// The weights that are matrices of their own; `None` for those that stay factored.
fn weights_of<T: Element>(
    assembled: &[Box<dyn Assembled<T>>],
    parameters: &[Borrowed<'_, T>],
) -> Vec<Option<ArrayD<T>>> {
    let weights = assembled.iter().zip(parameters).map(|(assembled, p)| {
        let explicit = assembled.factored().is_none();
        explicit.then(|| assembled.weight(p.weight.view()).as_standard_layout().into_owned())
    });
    weights.collect()
}

fn program<'a, T: Element>(
    network: &Network,
    assembled: &'a [Box<dyn Assembled<T>>],
    weights: &'a [Option<ArrayD<T>>],
    parameters: &'a [Borrowed<'_, T>],
) -> Program<'a, T> {
    let mut program = Program::new(network.spec().input.n_values());
    let mut linear = assembled.iter().zip(weights).zip(parameters);
    for layer in network.layers() {
        if layer.parameters.is_none() {
            program.push(layer.kind.step());
            continue;
        }
        let ((assembled, weight), p) = linear.next().expect("one weight for each linear layer");
        let weight = weight.as_ref();
        match layer.kind {
            LayerKind::Conv { input, downsample } => {
                let weight = weight.expect("only dense layers are factored");
                let (c_out, kernel) = (weight.shape()[0], weight.shape()[2]);
                let geometry = ConvGeometry { input, downsample, kernel, c_out };
                let weight = weight.as_slice().expect("in standard layout");
                program.push_conv(geometry, weight, Some(p.bias));
            }
            _ => {
                let sizes = (p.layer.sizes.n_out, p.layer.sizes.n_in);
                let weight = dense_weight(assembled.as_ref(), weight, &p.weight);
                program.push_dense(sizes, weight, Some(p.bias));
            }
        }
    }
    program
}

fn dense_weight<'a, T: Element>(
    assembled: &'a dyn Assembled<T>,
    weight: Option<&'a ArrayD<T>>,
    parameter: &'a ArrayViewD<'_, T>,
) -> DenseWeight<'a, T> {
    match (assembled.factored(), weight) {
        (Some(polar), _) => {
            let parameter = parameter.view().into_dimensionality();
            DenseWeight::Polar(polar, parameter.expect("dense layers have matrices"))
        }
        (None, Some(weight)) => DenseWeight::Plain(weight.as_slice().expect("in standard layout")),
        (None, None) => unreachable!("a weight that is not factored was formed"),
    }
}

/// Weight gradients as the layers have their weights: OIHW or n_out x n_in, with the bias gradients.
type WeightGradients<T> = Vec<(ArrayD<T>, Vec<T>)>;

fn run<T: Element>(
    program: &Program<'_, T>,
    loss: &Loss,
    images: &[T],
    labels: &[u32],
    buffers: &mut TrainBuffers<T>,
) -> Result<(LossValue<T>, WeightGradients<T>)> {
    let batch = labels.len();
    let TrainBuffers { spatial, dense, conv_gradients, .. } = buffers;
    spatial::forward(program, images, batch, true, spatial);
    dense::forward(program, &spatial.features, batch, dense);
    let rows = program.last_weight().filter(|_| loss.needs_pairs());
    let pairs = rows.map(PairNorms::of_rows);
    let logits = dense.logits(&spatial.features);
    let mut value = loss.evaluate_with_pairs(logits, labels, program.n_logits(), pairs.as_ref())?;
    let mut denses =
        dense::backward(program, &spatial.features, batch, true, &mut value.d_logits, dense);
    if let (Some(pairs), Some(rows), Some(last)) = (pairs, rows, denses.last_mut()) {
        last.weight += &pairs.pull_back(rows, &value.d_pairs);
    }
    let mut gradients = Vec::with_capacity(program.convs.len() + denses.len());
    if !program.convs.is_empty() {
        let d_features = dense.d_inputs.first_mut().unwrap_or(&mut value.d_logits);
        spatial::backward(program, Some(images), batch, false, d_features, spatial, conv_gradients);
        gradients.extend(conv_weight_gradients(program, conv_gradients));
    }
    let denses = denses.into_iter().map(|DenseGradient { weight, bias }| (weight.into_dyn(), bias));
    gradients.extend(denses);
    Ok((value, gradients))
}

fn conv_weight_gradients<T: Element>(
    program: &Program<'_, T>,
    gradients: &[Lanes<T>],
) -> WeightGradients<T> {
    let blocks = program.convs.iter().zip(program.places());
    let gradients = blocks.map(|(ConvBlock { conv, .. }, place)| {
        let ConvGeometry { kernel, c_out, .. } = conv.geometry;
        let (weight, bias) = conv.gradients(&gradients[place.gradient..]);
        let shape = (c_out, conv.geometry.c_in(), kernel, kernel);
        let weight = Array4::from_shape_vec(shape, weight).expect("c_out·c_in·k·k weights");
        (weight.into_dyn(), bias)
    });
    gradients.collect()
}

fn pull_back<T: Element>(
    parameters: &[Borrowed<'_, T>],
    assembled: &[Box<dyn Assembled<T>>],
    gradients: WeightGradients<T>,
) -> Result<Vec<ParameterGradient<T>>> {
    let layers = parameters.par_iter().zip(assembled).zip(gradients);
    let pulled = layers.map(|((p, assembled), (d_weight, bias))| {
        let pull = || assembled.pullback(p.layer.layer(), p.weight.view(), d_weight);
        let weight = p.layer.trained.then(pull).transpose()?.map(into_row_major);
        let (vector, warm) = (assembled.next_vector(), assembled.warm_start());
        Ok(ParameterGradient { weight, bias, vector, warm })
    });
    pulled.collect()
}

fn into_row_major<T: Real>(array: ArrayD<T>) -> Vec<T> {
    if array.is_standard_layout() {
        return array.into_raw_vec_and_offset().0;
    }
    array.iter().copied().collect()
}
