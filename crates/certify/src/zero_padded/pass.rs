//! Forward and input gradient of a chunk of images, on plain slices.
//!
//! Signals are stored features x images, the image index innermost, so that a convolution is one matrix product with
//! a matrix of shifted inputs that is copied in contiguous runs, and the gradient of its input one product with the
//! transposed weight, added up in the same runs.

use lipconv::ImageShape;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::file::Tensors;
use super::{ZeroPaddedLayer, ZeroPaddedSpec};
use crate::error::{Error, Result};
use crate::tensor::Pixel;

/// The layers with their weights.
#[derive(Debug)]
pub(super) struct Program<T> {
    input: ImageShape,
    n_classes: usize,
    mean: Vec<T>,
    scale: T,
    layers: Vec<Layer<T>>,
}

#[derive(Debug)]
enum Layer<T> {
    Conv(Conv<T>),
    Dense { weight: Array2<T>, bias: Vec<T> },
    Relu,
}

#[derive(Debug)]
struct Conv<T> {
    /// c_out x c_in·k².
    weight: Array2<T>,
    bias: Vec<T>,
    kernel: usize,
    stride: usize,
    padding: usize,
    input: ImageShape,
    output: ImageShape,
}

/// What the backward pass needs of the forward pass: the outputs of the ReLUs, in order.
#[derive(Debug)]
pub(super) struct Tape<T> {
    rectified: Vec<Vec<T>>,
}

impl<T: Pixel> Program<T> {
    pub(super) fn new(spec: &ZeroPaddedSpec, tensors: &mut Tensors) -> Result<Self> {
        if spec.mean.len() != spec.input.channels {
            let (what, expected) = ("channel means", spec.input.channels.to_string());
            return Err(Error::ShapeMismatch { what, expected, got: vec![spec.mean.len()] });
        }
        if !(spec.scale > 0.0 && spec.scale.is_finite()) {
            let (name, value) = ("scale", spec.scale);
            return Err(Error::InvalidSetting { name, value, expected: "a positive number" });
        }
        let mut shape = spec.input;
        let (mut n_convs, mut n_denses) = (0, 0);
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            layers.push(match *layer {
                ZeroPaddedLayer::Conv { stride, padding } => {
                    n_convs += 1;
                    let conv =
                        Conv::take(&format!("conv{n_convs}"), stride, padding, shape, tensors)?;
                    shape = conv.output;
                    Layer::Conv(conv)
                }
                ZeroPaddedLayer::Dense => {
                    n_denses += 1;
                    let (weight, bias) =
                        take_dense(&format!("linear{n_denses}"), shape.n_values(), tensors)?;
                    shape = ImageShape::new(bias.len(), 1, 1);
                    Layer::Dense { weight, bias }
                }
                ZeroPaddedLayer::Relu => Layer::Relu,
            });
        }
        let mean = spec.mean.iter().map(|&m| T::of(m)).collect();
        let (input, n_classes) = (spec.input, shape.n_values());
        Ok(Self { input, n_classes, mean, scale: T::of(spec.scale), layers })
    }

    pub(super) fn n_classes(&self) -> usize {
        self.n_classes
    }

    pub(super) fn input(&self) -> ImageShape {
        self.input
    }

    /// Logits (images x classes) of images (images x values).
    pub(super) fn forward(&self, images: &[T], record: bool) -> (Vec<T>, Tape<T>) {
        let n_values = self.input.n_values();
        let n = images.len() / n_values;
        let mut rectified = Vec::new();
        let mut columns = Vec::new();
        let mut signal = transposed(images, n, n_values);
        for (c, channel) in signal.chunks_exact_mut(self.input.n_pixels() * n).enumerate() {
            channel.iter_mut().for_each(|v| *v = (*v - self.mean[c]) / self.scale);
        }
        for layer in &self.layers {
            match layer {
                Layer::Conv(conv) => signal = conv.forward(&signal, n, &mut columns),
                Layer::Dense { weight, bias } => {
                    let mut output = spread(bias, n);
                    let input = view(weight.ncols(), n, &signal);
                    product(weight.view(), input, &mut view_mut(bias.len(), n, &mut output));
                    signal = output;
                }
                Layer::Relu => {
                    let zero = T::zero();
                    signal.iter_mut().for_each(|v| *v = if *v < zero { zero } else { *v });
                    if record {
                        rectified.push(signal.clone());
                    }
                }
            }
        }
        (transposed(&signal, self.n_classes, n), Tape { rectified })
    }

    /// The gradient of the images, given that of the logits (images x classes).
    pub(super) fn backward(&self, d_logits: &[T], tape: &Tape<T>) -> Vec<T> {
        let n = d_logits.len() / self.n_classes;
        let mut rectified = tape.rectified.iter().rev();
        let mut columns = Vec::new();
        let mut d = transposed(d_logits, n, self.n_classes);
        for layer in self.layers.iter().rev() {
            match layer {
                Layer::Conv(conv) => d = conv.backward(&d, n, &mut columns),
                Layer::Dense { weight, bias } => {
                    let mut d_input = vec![T::zero(); weight.ncols() * n];
                    let mut into = view_mut(weight.ncols(), n, &mut d_input);
                    product(weight.t(), view(bias.len(), n, &d), &mut into);
                    d = d_input;
                }
                Layer::Relu => {
                    let outputs = rectified.next().expect("a recorded pass has every ReLU");
                    let zero = T::zero();
                    let pairs = d.iter_mut().zip(outputs);
                    pairs.for_each(|(d, &a)| *d = if a > zero { *d } else { zero });
                }
            }
        }
        d.iter_mut().for_each(|v| *v /= self.scale);
        transposed(&d, self.input.n_values(), n)
    }
}

impl<T: Pixel> Conv<T> {
    fn take(
        name: &str,
        stride: usize,
        padding: usize,
        input: ImageShape,
        tensors: &mut Tensors,
    ) -> Result<Self> {
        let weight_name = format!("{name}.weight");
        let shape = tensors.shape(&weight_name, 4)?.to_vec();
        let [c_out, c_in, kernel, _] = shape[..] else {
            return Err(tensors.shape_error(&weight_name, "4 sides".into(), &shape));
        };
        if c_in != input.channels || shape[3] != kernel {
            let expected = format!("c_out x {} x k x k", input.channels);
            return Err(tensors.shape_error(&weight_name, expected, &shape));
        }
        let reach = input.height.min(input.width) + 2 * padding;
        if stride == 0 || kernel > reach {
            let problem = format!("{name}: a kernel of {kernel} with stride {stride} does not fit");
            return Err(tensors.problem(format!("{problem} into {reach} padded pixels")));
        }
        let side = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let output = ImageShape::new(c_out, side(input.height), side(input.width));
        let values = tensors.take(&weight_name, &shape)?;
        let weight = Array2::from_shape_vec((c_out, c_in * kernel * kernel), values)
            .expect("a tensor has as many values as its shape says");
        let bias = tensors.take(&format!("{name}.bias"), &[c_out])?;
        Ok(Self { weight, bias, kernel, stride, padding, input, output })
    }

    fn forward(&self, input: &[T], n: usize, columns: &mut Vec<T>) -> Vec<T> {
        let row = self.output.n_pixels() * n;
        columns.clear();
        columns.resize(self.weight.ncols() * row, T::zero());
        for (target, source) in self.runs() {
            columns[target * n..][..n].copy_from_slice(&input[source * n..][..n]);
        }
        let mut output = spread(&self.bias, row);
        let shifted = view(self.weight.ncols(), row, columns);
        product(self.weight.view(), shifted, &mut view_mut(self.bias.len(), row, &mut output));
        output
    }

    fn backward(&self, d_output: &[T], n: usize, columns: &mut Vec<T>) -> Vec<T> {
        let row = self.output.n_pixels() * n;
        columns.clear();
        columns.resize(self.weight.ncols() * row, T::zero());
        let mut into = view_mut(self.weight.ncols(), row, columns);
        product(self.weight.t(), view(self.bias.len(), row, d_output), &mut into);
        let mut d_input = vec![T::zero(); self.input.n_values() * n];
        for (target, source) in self.runs() {
            let sum = d_input[source * n..][..n].iter_mut();
            sum.zip(&columns[target * n..][..n]).for_each(|(sum, &d)| *sum += d);
        }
        d_input
    }

    /// Where the matrix of shifted inputs (c, i, j) x (y, x) is not padding: (position in it, position in the input).
    fn runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let (k, ImageShape { height, width, .. }) = (self.kernel, self.output);
        let rows =
            (0..self.weight.ncols()).flat_map(move |term| (0..height).map(move |y| (term, y)));
        rows.filter_map(move |(term, y)| {
            let (c, i) = (term / (k * k), term / k % k);
            let y_in = (y * self.stride + i).checked_sub(self.padding)?;
            (y_in < self.input.height).then_some((term, y, c * self.input.height + y_in))
        })
        .flat_map(move |(term, y, row_in)| {
            let j = term % k;
            (0..width).filter_map(move |x| {
                let x_in = (x * self.stride + j).checked_sub(self.padding)?;
                let target = (term * height + y) * width + x;
                (x_in < self.input.width).then_some((target, row_in * self.input.width + x_in))
            })
        })
    }
}

fn take_dense<T: Pixel>(
    name: &str,
    n_in: usize,
    tensors: &mut Tensors,
) -> Result<(Array2<T>, Vec<T>)> {
    let weight_name = format!("{name}.weight");
    let n_out = tensors.shape(&weight_name, 2)?[0];
    let values = tensors.take(&weight_name, &[n_out, n_in])?;
    let weight = Array2::from_shape_vec((n_out, n_in), values)
        .expect("a tensor has as many values as its shape says");
    Ok((weight, tensors.take(&format!("{name}.bias"), &[n_out])?))
}

/// `result += a b`.
fn product<T: Pixel>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, T>,
    result: &mut ArrayViewMut2<'_, T>,
) {
    general_mat_mul(T::one(), &a, &b, T::one(), result);
}

/// Each value `n` times.
fn spread<T: Copy>(values: &[T], n: usize) -> Vec<T> {
    values.iter().flat_map(|&v| std::iter::repeat_n(v, n)).collect()
}

/// rows x columns to columns x rows.
fn transposed<T: Pixel>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut into = vec![T::zero(); values.len()];
    for (r, row) in values.chunks_exact(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(c, &v)| into[c * rows + r] = v);
    }
    into
}

fn view<T>(rows: usize, columns: usize, values: &[T]) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), values).expect("the signal has rows·columns values")
}

fn view_mut<T>(rows: usize, columns: usize, values: &mut [T]) -> ArrayViewMut2<'_, T> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("the signal has rows·columns values")
}
