//! Plain networks evaluated with sums in f64: what certificates measure, and an inference path of its own.
//!
//! Definition: the layers of a [`PlainNetwork`], with the weights it stores converted to f64 (exactly), as
//! `z_i = W_i a_{i-1} + b_i` and `a_i = φ_i(z_i)`. A convolution is the product of its c_out x c_in·k² weight
//! with the matrix of shifted inputs; activations, downsampling and flattening move values
//! without arithmetic.
//!
//! Shapes: signals of a chunk of images are stored as features x images, the image index innermost.
//! Flattening is then free, every copy is of contiguous runs, and a dense layer is one matrix product.
//!
//! Guarantee: every dot product is a sum of the exact products in some order, each term through at most
//! n + 1 roundings with the bias counted; a leaky ReLU rounds its product and a sum of two signals once; nothing else rounds. With [`Storage::F32`] every `z_i` is rounded to f32 once: for
//! weights and images in f32 this is the arithmetic "f32 storage, f64 accumulation", in which the products are exact.
//! With [`Storage::Tf32`] both factors of every product of an affine layer are cut to 11 significant bits besides, as tensor cores do.
//! Results are the same to the bit whatever the number of threads.
//!
//! Cost: that of the matrix products in f64, plus one copy of each convolution's input per kernel tap.
//! Parallel over chunks of images, of a size that depends on the network alone.
//!
//! Errors: those of the tensor library for weights that cannot be read; [`Error::DTypeMismatch`] where f32 is needed.
//! Bounds of the rounding errors are `certify`'s.

mod conv;
mod padded;
mod storage;
mod workspace;

use candle_core::{DType, Device, Tensor};
use ndarray::linalg::{general_mat_mul, general_mat_vec_mul};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::activation::Activation;
use crate::element::to_vec;
use crate::error::{Error, Result};
use crate::plain::{Node, PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};
use conv::{Convolution, Unshuffle};
use padded::Padded;
use storage::{cut_to_tf32, store};
use workspace::Nothing;

pub use storage::Storage;
pub use workspace::{ChunkOutput, SignalObserver, WideWorkspace};

/// A matrix product, dense or of a convolution, and what it needs of the layer's geometry.
#[derive(Debug)]
pub struct Affine {
    name: String,
    weight: Array2<f64>,
    bias: Vec<f64>,
    geometry: Geometry,
    n_pixels: usize,
}

/// What the columns of an affine layer's weight are multiplied by.
#[derive(Debug)]
enum Geometry {
    Dense,
    Cyclic(Convolution),
    Padded(Box<Padded>),
}

#[derive(Debug)]
enum Layer {
    Affine(Affine),
    Unshuffle(Unshuffle),
    Activation {
        activation: Activation,
        n_pixels: usize,
    },
    Leaky {
        slope: f64,
    },
    /// Keeps the signal for later, at this position.
    Keep(usize),
    Recall(usize),
    Add(usize),
    Concat(usize),
}

/// A plain network with its weights in f64.
#[derive(Debug)]
pub struct WideNetwork {
    input: ImageShape,
    n_classes: usize,
    layers: Vec<Layer>,
    nodes: Vec<Node>,
    names: Vec<String>,
    n_outputs: Vec<usize>,
    chunk: usize,
    ends_affine: bool,
}

impl Affine {
    /// The layer's name in the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// n_out x n_in; for a convolution c_out x c_in·k².
    #[must_use]
    pub fn weight(&self) -> ArrayView2<'_, f64> {
        self.weight.view()
    }

    /// One value for each row of the weight; empty where the layer has no bias.
    #[must_use]
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// Outputs for each row of the weight: 1, or the pixels of a convolution's output.
    #[must_use]
    pub fn n_pixels(&self) -> usize {
        self.n_pixels
    }

    /// Length of its dot products, without the bias.
    #[must_use]
    pub fn dot_length(&self) -> usize {
        self.weight.ncols()
    }

    /// Taps of its kernel, the inner index of a row of the weight: k² for a convolution, 1 for a dense layer.
    #[must_use]
    pub fn n_taps(&self) -> usize {
        match &self.geometry {
            Geometry::Dense => 1,
            Geometry::Cyclic(convolution) => convolution.kernel * convolution.kernel,
            Geometry::Padded(padded) => padded.n_taps(),
        }
    }

    /// Side of the kernel and shape of the image that a stride-1 cyclic convolution acts on; None for other layers.
    #[must_use]
    pub fn convolution(&self) -> Option<(usize, ImageShape)> {
        match &self.geometry {
            Geometry::Cyclic(convolution) => Some((convolution.kernel, convolution.input)),
            Geometry::Dense | Geometry::Padded(_) => None,
        }
    }

    /// Whether it is a dense layer.
    #[must_use]
    pub fn is_dense(&self) -> bool {
        matches!(self.geometry, Geometry::Dense)
    }

    fn apply(
        &self,
        input: &[f64],
        output: &mut Vec<f64>,
        columns: &mut Vec<f64>,
        n_images: usize,
        storage: Storage,
    ) {
        if storage == Storage::Tf32 {
            let factors: Vec<f64> = input.iter().map(|&v| cut_to_tf32(v)).collect();
            let weight = self.weight.mapv(cut_to_tf32);
            self.multiply(weight.view(), &factors, output, columns, n_images);
        } else {
            self.multiply(self.weight.view(), input, output, columns, n_images);
        }
    }

    fn multiply(
        &self,
        weight: ArrayView2<'_, f64>,
        input: &[f64],
        output: &mut Vec<f64>,
        columns: &mut Vec<f64>,
        n_images: usize,
    ) {
        let row = self.n_pixels * n_images;
        output.clear();
        if self.bias.is_empty() {
            output.resize(self.weight.nrows() * row, 0.0);
        } else {
            self.bias.iter().for_each(|&b| output.extend(std::iter::repeat_n(b, row)));
        }
        let mut result = view_mut(self.weight.nrows(), row, output);
        match &self.geometry {
            Geometry::Cyclic(convolution) => {
                convolution.apply(weight, input, &mut result, columns, n_images);
            }
            Geometry::Padded(padded) => {
                padded.apply(weight, input, &mut result, columns, n_images);
            }
            Geometry::Dense => accumulate(weight, view(weight.ncols(), row, input), &mut result),
        }
    }
}

impl WideNetwork {
    /// The network's layers in f64.
    ///
    /// # Errors
    /// [`Error::Candle`] for unreadable weights, [`Error::LayerOrder`] for a layer that cannot be evaluated here.
    pub fn new(network: &PlainNetwork) -> Result<Self> {
        projectors::gemm::single_threaded_blas();
        let mut layers = Vec::new();
        let mut widest = network.input().n_values();
        let kept: Vec<usize> = network.layers().iter().filter_map(PlainLayer::earlier).collect();
        let keep = |signal: usize| kept.contains(&signal).then_some(Layer::Keep(signal));
        layers.extend(keep(0));
        let shapes = network.shapes();
        for (i, (layer, name)) in network.layers().iter().zip(network.names()).enumerate() {
            push_layer(&mut layers, layer, shapes[i], name)?;
            layers.extend(keep(i + 1));
            widest = widest.max(shapes[i + 1].n_values());
        }
        let chunk = (CHUNK_VALUES / widest.max(1)).next_power_of_two().clamp(8, 64);
        let ends_affine = matches!(layers.last(), Some(Layer::Affine(_)));
        let nodes = network.nodes().to_vec();
        Ok(Self {
            input: network.input(),
            n_classes: network.n_classes(),
            names: nodes.iter().map(|node| network.names()[node.layer].clone()).collect(),
            n_outputs: nodes.iter().map(|node| shapes[node.layer + 1].n_values()).collect(),
            layers,
            nodes,
            chunk,
            ends_affine,
        })
    }

    /// Number of logits.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Shape of an input image.
    #[must_use]
    pub fn input(&self) -> ImageShape {
        self.input
    }

    /// The layers that compute or join, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Name of a node, and the number of its outputs.
    #[must_use]
    pub fn node_size(&self, idx: usize) -> (&str, usize) {
        (&self.names[idx], self.n_outputs[idx])
    }

    /// The affine layers, in order.
    pub fn affine_layers(&self) -> impl Iterator<Item = &Affine> {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Affine(affine) => Some(affine),
            _ => None,
        })
    }

    /// The last layer, where it is dense: the rows of its weight are the logits' directions.
    #[must_use]
    pub fn head(&self) -> Option<&Affine> {
        let last = self.affine_layers().last().filter(|affine| affine.is_dense());
        if self.ends_affine { last } else { None }
    }

    /// Runs images (n x values, row-major) through the network, chunk by chunk, in order.
    #[must_use]
    pub fn run<O: SignalObserver + Send>(
        &self,
        images: &[f64],
        storage: Storage,
    ) -> Vec<ChunkOutput<O>> {
        let n_values = self.input.n_values();
        let chunks = images.par_chunks(self.chunk * n_values);
        chunks
            .map_init(WideWorkspace::default, |workspace, chunk| {
                let mut observed = O::default();
                self.run_in(chunk, storage, workspace, &mut observed);
                let n_images = chunk.len() / n_values;
                ChunkOutput { n_images, logits: workspace.logits.clone(), observed }
            })
            .collect()
    }

    /// The logits (n x n_classes) of images (n x values).
    #[must_use]
    pub fn logits(&self, images: &[f64], storage: Storage) -> Vec<f64> {
        self.run::<Nothing>(images, storage).into_iter().flat_map(|chunk| chunk.logits).collect()
    }

    /// Logits (b x classes, f32) of images in f32, of which products are summed in f64.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] or [`Error::DTypeMismatch`] when the batch does not fit.
    pub fn forward_accumulated(&self, images: &Tensor, storage: Storage) -> Result<Tensor> {
        let ImageShape { channels, height, width } = self.input;
        let dims = images.dims().to_vec();
        if dims.len() != 4 || dims[1..] != [channels, height, width] {
            let batch = dims.first().copied().unwrap_or(0);
            let (what, expected) = ("batch of images".into(), vec![batch, channels, height, width]);
            return Err(Error::ShapeMismatch { what, expected, got: dims });
        }
        check_f32("batch of images", images.dtype())?;
        let logits = self.logits(&values(images)?, storage);
        // exact where the logits were rounded to f32 already
        let logits = Tensor::from_vec(logits, (dims[0], self.n_classes), &Device::Cpu)?;
        Ok(logits.to_dtype(DType::F32)?.to_device(images.device())?)
    }

    /// Runs images (n x values, row-major) through the network on this thread, in buffers that may have served before. The logits
    /// are the workspace's.
    pub fn run_in<O: SignalObserver>(
        &self,
        images: &[f64],
        storage: Storage,
        workspace: &mut WideWorkspace,
        observed: &mut O,
    ) {
        let n_values = self.input.n_values();
        let n_images = images.len() / n_values;
        let mut idx = 0;
        transpose(images, n_images, n_values, &mut workspace.signal);
        for layer in &self.layers {
            let WideWorkspace { signal, next, columns, record, kept, .. } = &mut *workspace;
            match layer {
                Layer::Affine(affine) => {
                    observed.input(idx, signal, n_images);
                    affine.apply(signal, next, columns, n_images, storage);
                    store(next, storage);
                    observed.output(idx, next, n_images);
                    idx += 1;
                    std::mem::swap(signal, next);
                }
                Layer::Unshuffle(unshuffle) => {
                    unshuffle.apply(signal, next, n_images);
                    std::mem::swap(signal, next);
                }
                Layer::Activation { activation, n_pixels } => {
                    record.resize(activation.record_len(signal.len()), 0);
                    // the images are inner indices, like the pixels of a channel
                    activation.apply(signal, n_pixels * n_images, record);
                }
                Layer::Leaky { slope } => {
                    observed.input(idx, signal, n_images);
                    signal.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v *= slope);
                    store(signal, storage);
                    observed.output(idx, signal, n_images);
                    idx += 1;
                }
                Layer::Keep(at) => kept.entry(*at).or_default().clone_from(signal),
                Layer::Recall(at) => signal.clone_from(&kept[at]),
                Layer::Add(at) | Layer::Concat(at) => {
                    let earlier = &kept[at];
                    observed.input(idx, earlier, n_images);
                    observed.input(idx, signal, n_images);
                    if matches!(layer, Layer::Add(_)) {
                        signal.iter_mut().zip(earlier).for_each(|(v, a)| *v += a);
                        store(signal, storage);
                    } else {
                        signal.splice(0..0, earlier.iter().copied());
                    }
                    observed.output(idx, signal, n_images);
                    idx += 1;
                }
            }
        }
        transpose(&workspace.signal, self.n_classes, n_images, &mut workspace.logits);
    }
}

/// Values of the matrix of shifted inputs held at a time: 512 KiB.
const PANEL_VALUES: usize = 1 << 16;

/// Values of one signal of a chunk that should stay in a core's cache: 1 MiB of f64.
const CHUNK_VALUES: usize = 1 << 17;

fn push_layer(
    layers: &mut Vec<Layer>,
    layer: &PlainLayer,
    shape: SignalShape,
    name: &str,
) -> Result<()> {
    let n_pixels = shape.n_values() / shape.n_channels().max(1);
    match (layer, shape) {
        (PlainLayer::CyclicConv(conv), SignalShape::Image(image)) => {
            if conv.downsample() > 1 {
                layers
                    .push(Layer::Unshuffle(Unshuffle { input: image, factor: conv.downsample() }));
            }
            let image = image.downsampled(conv.downsample(), name)?;
            let geometry =
                Geometry::Cyclic(Convolution { input: image, kernel: conv.kernel_size() });
            layers.push(affine(name, layer, geometry, image.n_pixels())?);
        }
        (PlainLayer::PaddedConv(conv), SignalShape::Image(input)) => {
            let output = conv.output_image(shape, name)?;
            let (axes, groups) = (conv.axes(input), conv.window().groups);
            let geometry = Geometry::Padded(Box::new(Padded { input, output, axes, groups }));
            layers.push(affine(name, layer, geometry, output.n_pixels())?);
        }
        (PlainLayer::Dense(_), _) => layers.push(affine(name, layer, Geometry::Dense, 1)?),
        (PlainLayer::LeakyRelu { slope }, _) => layers.push(Layer::Leaky { slope: *slope }),
        (PlainLayer::Recall { from }, _) => layers.push(Layer::Recall(*from)),
        (PlainLayer::Add { from }, _) => layers.push(Layer::Add(*from)),
        (PlainLayer::Concat { from }, _) => layers.push(Layer::Concat(*from)),
        (PlainLayer::Activation(activation), _) => {
            layers.push(Layer::Activation { activation: *activation, n_pixels });
        }
        (PlainLayer::Flatten, _) => {}
        _ => return Err(no_evaluation(name)),
    }
    Ok(())
}

fn affine(name: &str, layer: &PlainLayer, geometry: Geometry, n_pixels: usize) -> Result<Layer> {
    let (weight, bias) = layer.parameters().ok_or_else(|| no_evaluation(name))?;
    let values = self::values(weight)?;
    let n_out = weight.dims()[0];
    let weight = Array2::from_shape_vec((n_out, values.len() / n_out), values)
        .expect("a weight has n_out rows of equal length");
    let bias = bias.map(self::values).transpose()?.unwrap_or_default();
    Ok(Layer::Affine(Affine { name: name.to_owned(), weight, bias, geometry, n_pixels }))
}

fn no_evaluation(layer: &str) -> Error {
    let (layer, previous) = (layer.to_owned(), "its input".to_owned());
    Error::LayerOrder { layer, previous, reason: "there is no evaluation in f64 for this case" }
}

/// The values of a tensor as f64; exact for f32 and f64.
fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    to_vec::<f64>(&tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

fn check_f32(what: &str, dtype: DType) -> Result<()> {
    if dtype == DType::F32 {
        return Ok(());
    }
    let (expected, got) = (DType::F32.as_str().to_owned(), dtype.as_str().to_owned());
    Err(Error::DTypeMismatch { what: what.to_owned(), expected, got })
}

impl PlainNetwork {
    /// Logits (b x classes) of a batch of images with f32 storage and f64 accumulation: weights, images and every layer's
    /// output in f32, sums in f64. For many calls, convert once with [`WideNetwork::new`].
    ///
    /// # Errors
    /// [`Error::DTypeMismatch`] unless weights and images are in f32, [`Error::ShapeMismatch`] as for
    /// [`PlainNetwork::forward`].
    pub fn forward_accumulated(&self, images: &Tensor) -> Result<Tensor> {
        check_f32("network", self.dtype())?;
        WideNetwork::new(self)?.forward_accumulated(images, Storage::F32)
    }
}

/// `result += a b`.
fn accumulate(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>, result: &mut ArrayViewMut2<'_, f64>) {
    match b.ncols() {
        // packing the matrix for one column would cost more than the product
        1 => general_mat_vec_mul(1.0, &a, &b.column(0), 1.0, &mut result.column_mut(0)),
        _ => general_mat_mul(1.0, &a, &b, 1.0, result),
    }
}

/// rows x columns to columns x rows.
fn transpose(values: &[f64], rows: usize, columns: usize, into: &mut Vec<f64>) {
    into.clear();
    into.resize(values.len(), 0.0);
    for (r, row) in values.chunks_exact(columns.max(1)).enumerate() {
        for (c, &v) in row.iter().enumerate() {
            into[c * rows + r] = v;
        }
    }
}

fn view(rows: usize, columns: usize, values: &[f64]) -> ArrayView2<'_, f64> {
    ArrayView2::from_shape((rows, columns), values).expect("the signal has rows·columns values")
}

fn view_mut(rows: usize, columns: usize, values: &mut [f64]) -> ArrayViewMut2<'_, f64> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("the signal has rows·columns values")
}
