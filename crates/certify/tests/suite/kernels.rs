//! Weights that are hard on bounds, and the norm that they really have.
//!
//! The truth is the largest singular value of the dense operator from LAPACK in f64, less the error that the
//! algorithm may have made.

use candle_core::{DType, Device, Tensor};
use lipconv::{CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork};
use ndarray::Array2;
use ndarray_linalg::SVD;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// A family of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    AllEqual,
    Alternating,
    Huge,
    Small,
    Subnormal,
    MixedScales,
    NearlyOrthogonal,
    OneChannel,
    RankOne,
    OneTap,
    Random,
}

pub(crate) const FAMILIES: [Family; 11] = [
    Family::AllEqual,
    Family::Alternating,
    Family::Huge,
    Family::Small,
    Family::Subnormal,
    Family::MixedScales,
    Family::NearlyOrthogonal,
    Family::OneChannel,
    Family::RankOne,
    Family::OneTap,
    Family::Random,
];

/// A layer on its own, with an image that it fits.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) layer: PlainLayer,
    pub(crate) input: ImageShape,
}

impl Case {
    /// A convolution or, every third time, a dense layer.
    pub(crate) fn draw(family: Family, rng: &mut ChaCha8Rng) -> Self {
        let channels = |rng: &mut ChaCha8Rng| match family {
            Family::OneChannel => 1,
            _ => rng.random_range(1..=4),
        };
        let (c_out, c_in) = (channels(rng), channels(rng));
        if rng.random_range(0..3) == 0 {
            let (n_out, n_in) = (c_out * rng.random_range(1..=6), c_in * rng.random_range(1..=6));
            let weight = tensor(values(family, [n_out, n_in, 1, 1], rng), &[n_out, n_in]);
            let layer = PlainLayer::Dense(Dense::new(weight, None).unwrap());
            return Self { layer, input: ImageShape::new(n_in, 1, 1) };
        }
        let kernel = rng.random_range(1..=3);
        let shape = [c_out, c_in, kernel, kernel];
        let layer = CyclicConv::new(tensor(values(family, shape, rng), &shape), None, 1).unwrap();
        let (height, width) = (rng.random_range(3..=4), rng.random_range(3..=5));
        Self { layer: PlainLayer::CyclicConv(layer), input: ImageShape::new(c_in, height, width) }
    }

    pub(crate) fn network(&self) -> PlainNetwork {
        let layers = match self.layer {
            PlainLayer::Dense(_) => vec![PlainLayer::Flatten, self.layer.clone()],
            _ => vec![self.layer.clone(), PlainLayer::Flatten],
        };
        PlainNetwork::new(self.input, layers).unwrap()
    }

    /// At most the norm of the layer on its image, and of its absolute values.
    pub(crate) fn truth(&self) -> (f64, f64) {
        let operator = dense_operator(&self.network());
        (norm_from_below(&operator), norm_from_below(&operator.mapv(f64::abs)))
    }
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Values of a weight c_out x c_in x k x k.
fn values(family: Family, shape: [usize; 4], rng: &mut ChaCha8Rng) -> Vec<f32> {
    let [c_out, c_in, k, _] = shape;
    let n = c_out * c_in * k * k;
    let scale = 10f64.powf(rng.random_range(-2.0..2.0));
    let mut random =
        |scale: f64| (0..n).map(|_| (scale * rng.random_range(-1.0..=1.0)) as f32).collect();
    match family {
        Family::AllEqual => vec![scale as f32; n],
        Family::Alternating => {
            let sign = |i: usize| if i.is_multiple_of(2) { scale } else { -scale };
            (0..n).map(|i| sign(i) as f32).collect()
        }
        Family::Huge => random(1e30),
        Family::Small => random(1e-30),
        Family::Subnormal => random(1e-40),
        Family::Random | Family::OneChannel => random(scale),
        Family::MixedScales => {
            let exponent = |rng: &mut ChaCha8Rng| 10f64.powf(rng.random_range(-20.0..15.0));
            (0..n).map(|_| (exponent(rng) * rng.random_range(-1.0..=1.0)) as f32).collect()
        }
        Family::NearlyOrthogonal => nearly_orthogonal(shape, rng),
        Family::RankOne => {
            let mut factor =
                |n: usize| (0..n).map(|_| rng.random_range(-1.0..=1.0)).collect::<Vec<f64>>();
            let (left, right) = (factor(c_out), factor(c_in * k * k));
            let outer = left.iter().flat_map(|a| right.iter().map(move |b| (scale * a * b) as f32));
            outer.collect()
        }
        Family::OneTap => {
            let mut values = vec![0.0; n];
            values[rng.random_range(0..n)] = scale as f32;
            values
        }
    }
}

/// An orthogonal matrix at one tap, and noise of the size of f32 rounding everywhere.
fn nearly_orthogonal([c_out, c_in, k, _]: [usize; 4], rng: &mut ChaCha8Rng) -> Vec<f32> {
    let orthogonal = projectors::haar_orthogonal::<f64>(c_out.max(c_in), rng);
    let tap = rng.random_range(0..k * k);
    let noise = 10f64.powf(rng.random_range(-8.0..-5.0));
    let mut values = Vec::with_capacity(c_out * c_in * k * k);
    for (o, c) in (0..c_out).flat_map(|o| (0..c_in).map(move |c| (o, c))) {
        for at in 0..k * k {
            let value = if at == tap { orthogonal[[o, c]] } else { 0.0 };
            values.push((value + noise * rng.random_range(-1.0..=1.0)) as f32);
        }
    }
    values
}

/// The matrix of a network of one layer: its products with the unit images.
fn dense_operator(network: &PlainNetwork) -> Array2<f64> {
    let input = network.input();
    let n = input.n_values();
    let units = Tensor::eye(n, DType::F64, &Device::Cpu).unwrap();
    let units = units.reshape((n, input.channels, input.height, input.width)).unwrap();
    let network = network.to_dtype(DType::F64).unwrap();
    let columns: Vec<Vec<f64>> = network.forward(&units).unwrap().to_vec2().unwrap();
    Array2::from_shape_fn((columns[0].len(), n), |(o, i)| columns[i][o])
}

/// The largest singular value less what LAPACK may err by: a modest multiple of n u (LAPACK Users' Guide, section 4.9).
pub(crate) fn norm_from_below(matrix: &Array2<f64>) -> f64 {
    let (_, singular, _) = matrix.svd(false, false).unwrap();
    let n = matrix.nrows().max(matrix.ncols()) as f64;
    singular[0] * (1.0 - 4.0 * n * f64::EPSILON)
}
