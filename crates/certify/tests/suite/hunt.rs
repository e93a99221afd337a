//! A hunt for images that change class inside a nominal radius, and a check that none does inside an executed one.
//!
//! Definition. Around every image, for every rival class, the gradient of the difference of the two logits gives the way on
//! which it falls fastest. Points on that way at distances of (1 - d) times the nominal radius are tried, for d from 0.5 down to
//! 1e-8, rounded to f32, and some with a few units in the last place of noise on every pixel. A point counts by its true
//! distance, rounded up.

use candle_core::{DType, Device, Tensor};
use certify::is_correct;
use certify::{Arithmetic, Certifier, Classifier, nominal_radii};
use lipconv::{Activation, CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What was found on one network.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Findings {
    /// Images with a positive nominal radius.
    pub(crate) n_images: usize,
    /// Those that change class inside it.
    pub(crate) n_broken: usize,
    /// The largest 1 - distance / nominal radius of such a change.
    pub(crate) deepest: f64,
    /// Images that change class inside the executed radius: there must be none.
    pub(crate) n_unsound: usize,
    /// Mean of executed / nominal radius.
    pub(crate) kept: f64,
}

/// Hunts on `images` with the network's own predictions as labels.
pub(crate) fn hunt(network: &PlainNetwork, images: &Tensor, rng: &mut ChaCha8Rng) -> Findings {
    let logits = Classifier::logits(network, images).unwrap();
    let rows = in_f64(&logits);
    let labels: Vec<usize> = rows.iter().map(|row| certify::predicted_class(row)).collect();
    let nominal = nominal_radii(&logits, &labels, 1.0).unwrap();
    let certificates = Certifier::new(network).unwrap().certify(images, &labels).unwrap();
    let executed = &certificates.executed[&Arithmetic::of_network(network).unwrap()];
    let mut findings = Findings::default();
    for i in (0..labels.len()).filter(|&i| nominal[i] > 0.0) {
        findings.n_images += 1;
        findings.kept += executed[i] / nominal[i];
        let image = images.narrow(0, i, 1).unwrap();
        let nearest = nearest_change(network, &image, labels[i], nominal[i], rng);
        if nearest < nominal[i] {
            findings.n_broken += 1;
            findings.deepest = findings.deepest.max(1.0 - nearest / nominal[i]);
        }
        findings.n_unsound += usize::from(nearest < executed[i]);
    }
    findings.kept /= findings.n_images.max(1) as f64;
    findings
}

/// Distance, rounded up, of the nearest point tried that is not of class `label`; +∞ where all are.
fn nearest_change(
    network: &PlainNetwork,
    image: &Tensor,
    label: usize,
    radius: f64,
    rng: &mut ChaCha8Rng,
) -> f64 {
    const DEPTHS: [f64; 12] = [0.5, 0.3, 0.1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 3e-8, 1e-8];
    const TRIES: usize = 4;
    let centre = in_f64(image).concat();
    let mut points: Vec<f32> = Vec::new();
    for rival in (0..network.n_classes()).filter(|&j| j != label) {
        let direction = descent(network, image, label, rival);
        let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
        if !(length > 0.0 && length.is_finite()) {
            continue;
        }
        for (depth, attempt) in DEPTHS.iter().flat_map(|d| (0..TRIES).map(move |a| (d, a))) {
            let step = radius * (1.0 - depth) / length;
            let noise = if attempt == 0 { 0.0 } else { 4.0 * f64::from(f32::EPSILON) };
            let point = centre.iter().zip(&direction).map(|(x, d)| {
                (x + step * d + noise * rng.random_range(-1.0..=1.0) * x.abs()) as f32
            });
            points.extend(point);
        }
    }
    let n = points.len() / centre.len();
    if n == 0 {
        return f64::INFINITY;
    }
    let mut shape = image.dims().to_vec();
    shape[0] = n;
    let batch = Tensor::from_slice(&points, shape, image.device()).unwrap();
    let rows = in_f64(&Classifier::logits(network, &batch).unwrap());
    let changed = rows.iter().zip(points.chunks_exact(centre.len()));
    let changed = changed.filter(|(row, _)| !is_correct(row, label));
    changed.map(|(_, point)| distance_up(point, &centre)).fold(f64::INFINITY, f64::min)
}

/// The gradient of `y_rival - y_label`.
fn descent(network: &PlainNetwork, image: &Tensor, label: usize, rival: usize) -> Vec<f64> {
    let mut direction = vec![0f32; network.n_classes()];
    (direction[label], direction[rival]) = (-1.0, 1.0);
    let direction = Tensor::from_vec(direction, (1, network.n_classes()), &Device::Cpu).unwrap();
    let objective = |logits: &Tensor| (logits * &direction)?.sum_all();
    let (_, gradient) = network.logits_and_input_gradient(image, &objective).unwrap();
    in_f64(&gradient).concat()
}

/// At least the distance: the sum of squares of at most 1e5 exact differences, raised by more than it can lose.
fn distance_up(point: &[f32], centre: &[f64]) -> f64 {
    let square = |(a, b): (&f32, &f64)| (f64::from(*a) - b).powi(2);
    point.iter().zip(centre).map(square).sum::<f64>().sqrt() * (1.0 + 1e-10)
}

fn in_f64(tensor: &Tensor) -> Vec<Vec<f64>> {
    tensor.flatten_from(1).unwrap().to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

/// A way to make networks whose nominal radii may be wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Construction {
    /// Orthogonal layers with weights in f32 as they come.
    Plain,
    /// Their weights rounded to the nearest f16 or bf16, whose norms then exceed 1.
    StoredIn(DType),
    /// `x → (x + b) - b` in front of the last layer: rounding to the spacing of f32 numbers near b.
    HiddenBias(f32),
}

impl Construction {
    /// A network on 1 x 4 x 4 images: cyclic convolution, MaxMin, dense, MaxMin, dense with four classes.
    pub(crate) fn network(self, rng: &mut ChaCha8Rng) -> PlainNetwork {
        let stored = |weight: Tensor| match self {
            Self::StoredIn(dtype) => weight.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap(),
            _ => weight,
        };
        // downsampling by 2 makes 4 channels of 2 x 2 pixels; a kernel of one tap is orthogonal if its matrix is
        let kernel = orthogonal(4, 4, rng).reshape((4, 4, 1, 1)).unwrap();
        let conv = CyclicConv::new(stored(kernel), None, 2).unwrap();
        let mut layers = vec![
            PlainLayer::CyclicConv(conv),
            PlainLayer::Activation(Activation::MaxMin),
            PlainLayer::Flatten,
            PlainLayer::Dense(Dense::new(stored(orthogonal(16, 16, rng)), None).unwrap()),
            PlainLayer::Activation(Activation::MaxMin),
        ];
        if let Self::HiddenBias(bias) = self {
            let shift = |by: f32| {
                let identity = Tensor::eye(16, DType::F32, &Device::Cpu).unwrap();
                let bias = Tensor::full(by, 16, &Device::Cpu).unwrap();
                PlainLayer::Dense(Dense::new(identity, Some(bias)).unwrap())
            };
            layers.extend([shift(bias), PlainLayer::Activation(Activation::Relu), shift(-bias)]);
        }
        let head = Dense::new(stored(orthogonal(4, 16, rng)), None).unwrap();
        layers.push(PlainLayer::Dense(head));
        PlainNetwork::new(ImageShape::new(1, 4, 4), layers).unwrap()
    }

    /// Images with pixels uniform in [0, 1].
    pub(crate) fn images(n: usize, rng: &mut ChaCha8Rng) -> Tensor {
        let pixels: Vec<f32> = (0..n * 16).map(|_| rng.random()).collect();
        Tensor::from_vec(pixels, (n, 1, 4, 4), &Device::Cpu).unwrap()
    }
}

/// The first `n_out` rows of a random orthogonal matrix.
fn orthogonal(n_out: usize, n_in: usize, rng: &mut ChaCha8Rng) -> Tensor {
    let q = projectors::haar_orthogonal::<f32>(n_in, rng);
    let rows: Vec<f32> = q.iter().copied().take(n_out * n_in).collect();
    Tensor::from_vec(rows, (n_out, n_in), &Device::Cpu).unwrap()
}
