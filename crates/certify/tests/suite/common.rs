//! Networks and images shared by the tests.

use candle_core::{DType, Device, Tensor};
use certify::Classifier;
use certify::predicted_class;
use lipconv::{Activation, CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Values uniform in [-scale, scale].
pub(crate) fn uniform(shape: &[usize], scale: f64, dtype: DType, rng: &mut ChaCha8Rng) -> Tensor {
    let n = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|_| rng.random_range(-scale..=scale)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Images with pixels uniform in [0, 1], representable in f32.
pub(crate) fn images(n: usize, input: ImageShape, dtype: DType, rng: &mut ChaCha8Rng) -> Tensor {
    let values: Vec<f32> = (0..n * input.n_values()).map(|_| rng.random()).collect();
    let shape = (n, input.channels, input.height, input.width);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

pub(crate) fn dense(
    n_out: usize,
    n_in: usize,
    scale: f64,
    dtype: DType,
    rng: &mut ChaCha8Rng,
) -> PlainLayer {
    let weight = uniform(&[n_out, n_in], scale / (n_in as f64).sqrt(), dtype, rng);
    let bias = uniform(&[n_out], 0.1 * scale, dtype, rng);
    PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap())
}

pub(crate) fn conv(
    c_out: usize,
    c_in: usize,
    kernel: usize,
    downsample: usize,
    scale: f64,
    dtype: DType,
    rng: &mut ChaCha8Rng,
) -> PlainLayer {
    let c_in = c_in * downsample * downsample;
    let scale = scale / ((c_in * kernel * kernel) as f64).sqrt();
    let weight = uniform(&[c_out, c_in, kernel, kernel], scale, dtype, rng);
    let bias = uniform(&[c_out], 0.1, dtype, rng);
    PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), downsample).unwrap())
}

/// Every kind of layer, non-square images, odd and even kernels; `scales` of the four layers with weights.
pub(crate) fn mixed_network(scales: [f64; 4], dtype: DType, seed: u64) -> PlainNetwork {
    let rng = &mut rng(seed);
    let layers = vec![
        conv(6, 2, 2, 2, scales[0], dtype, rng),
        PlainLayer::Activation(Activation::MaxMin),
        conv(4, 6, 3, 1, scales[1], dtype, rng),
        PlainLayer::Activation(Activation::GroupSort { group: 2 }),
        PlainLayer::Flatten,
        dense(16, 4 * 3 * 4, scales[2], dtype, rng),
        PlainLayer::Activation(Activation::Relu),
        dense(5, 16, scales[3], dtype, rng),
    ];
    PlainNetwork::new(ImageShape::new(2, 6, 8), layers).unwrap()
}

/// The network's own predictions.
pub(crate) fn predictions(network: &dyn Classifier, images: &Tensor) -> Vec<usize> {
    rows(&network.logits(images).unwrap()).iter().map(|row| predicted_class(row)).collect()
}

pub(crate) fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    tensor.flatten_from(1).unwrap().to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

/// Largest absolute difference of two tensors of equal shape.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let pairs = rows(a).concat().into_iter().zip(rows(b).concat());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
