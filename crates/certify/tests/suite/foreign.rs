//! Networks of other programs: padded convolutions, leaky ReLUs, sums and concatenations. Bounds against dense operators, radii against
//! attacks, certificates against the verifier.

use candle_core::{DType, Device, Tensor};
use certify::{Arithmetic, Certifier, Classifier, NetworkBounds};
use lipconv::{
    Activation, Boundary, ImageShape, PaddedConv, PlainLayer, PlainNetwork, SignalShape,
    WideNetwork, Window, wide::Storage,
};
use ndarray::Array2;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::certificate_files::Case;
use crate::certificates::check_radius_survives;
use crate::common::{conv, dense, images, largest_difference, predictions, rng, rows, uniform};
use crate::kernels::norm_from_below;

/// A padded convolution and the image that it is for.
struct Layer {
    weight: Tensor,
    window: Window,
    input: ImageShape,
}

impl Layer {
    /// Of every kind: paddings on each side, strides, dilations, groups, both boundaries; None where it does not fit.
    fn draw(rng: &mut ChaCha8Rng) -> Option<Self> {
        let groups = [1, 1, 2, 3][rng.random_range(0..4)];
        let (c_in, rows) = (rng.random_range(1..=2), rng.random_range(1..=2));
        let kernel = [rng.random_range(1..=4), rng.random_range(1..=4)];
        let mut pair = |least: usize, most: usize| [(); 2].map(|()| rng.random_range(least..=most));
        let (stride, before, after, dilation) = (pair(1, 3), pair(0, 3), pair(0, 3), pair(1, 2));
        let [height, width] = pair(3, 7);
        let boundary = if rng.random_bool(0.4) { Boundary::Cyclic } else { Boundary::Zeros };
        let window = Window { stride, before, after, dilation, groups, boundary };
        let input = ImageShape::new(groups * c_in, height, width);
        let weight = uniform(&[groups * rows, c_in, kernel[0], kernel[1]], 1.0, DType::F64, rng);
        let conv = PaddedConv::new(weight.clone(), None, window).unwrap();
        let layer = PlainLayer::PaddedConv(conv);
        let fits = layer.output_shape(SignalShape::Image(input), "conv1").is_ok();
        fits.then_some(Self { weight, window, input })
    }

    fn network(&self) -> PlainNetwork {
        let conv = PaddedConv::new(self.weight.clone(), None, self.window).unwrap();
        let layers = vec![PlainLayer::PaddedConv(conv), PlainLayer::Flatten];
        PlainNetwork::new(self.input, layers).unwrap()
    }

    /// The matrix, entry by entry from the definition.
    fn operator(&self) -> Array2<f64> {
        let Window { stride, before, after, dilation, groups, boundary } = self.window;
        let &[c_out, c_in, kh, kw] = self.weight.dims() else { panic!("OIHW") };
        let weights: Vec<f64> = self.weight.flatten_all().unwrap().to_vec1().unwrap();
        let size = [self.input.height, self.input.width];
        let kernel = [kh, kw];
        let n = [0, 1].map(|a| {
            (size[a] + before[a] + after[a] - (kernel[a] - 1) * dilation[a] - 1) / stride[a] + 1
        });
        let read = |a: usize, output: usize, tap: usize| {
            let at = (output * stride[a] + tap * dilation[a]) as i64 - before[a] as i64;
            match boundary {
                Boundary::Cyclic => Some(at.rem_euclid(size[a] as i64) as usize),
                Boundary::Zeros => usize::try_from(at).ok().filter(|at| *at < size[a]),
            }
        };
        let mut operator = Array2::zeros((c_out * n[0] * n[1], self.input.n_values()));
        for (flat, &w) in weights.iter().enumerate() {
            let (o, c) = (flat / (c_in * kh * kw), flat / (kh * kw) % c_in);
            let (i, j) = (flat / kw % kh, flat % kw);
            let channel = o / (c_out / groups) * c_in + c;
            for (y, x) in (0..n[0]).flat_map(|y| (0..n[1]).map(move |x| (y, x))) {
                if let (Some(row), Some(column)) = (read(0, y, i), read(1, x, j)) {
                    let from = (channel * size[0] + row) * size[1] + column;
                    operator[((o * n[0] + y) * n[1] + x, from)] += w;
                }
            }
        }
        operator
    }
}

/// The matrix of a linear network: its products with the unit images.
fn operator_of(network: &PlainNetwork) -> Array2<f64> {
    let (n, input) = (network.input().n_values(), network.input());
    let eye = Tensor::eye(n, DType::F64, &Device::Cpu).unwrap();
    let units = eye.reshape((n, input.channels, input.height, input.width)).unwrap();
    let columns = rows(&network.forward(&units).unwrap());
    Array2::from_shape_fn((columns[0].len(), n), |(o, i)| columns[i][o])
}

/// The worst and the mean of bound / norm over `n` random layers; panics where a bound is below the norm.
fn excesses(n: usize, seed: u64) -> (f64, f64) {
    let rng = &mut rng(seed);
    let (mut worst, mut sum, mut done) = (1.0f64, 0.0, 0);
    while done < n {
        let Some(layer) = Layer::draw(rng) else { continue };
        let (network, operator) = (layer.network(), layer.operator());
        let executed = operator_of(&network);
        let differs = (&executed - &operator).iter().fold(0.0f64, |m, d| d.abs().max(m));
        assert!(differs < 1e-12, "{:?}: differs by {differs}", layer.window);
        let bounds = NetworkBounds::new(&network).unwrap();
        let bound = &bounds.layers()[0];
        let norm = norm_from_below(&operator);
        let absolute = norm_from_below(&operator.mapv(f64::abs));
        assert!(bound.lipschitz >= norm, "{:?} on {:?}", layer.window, layer.input);
        assert!(bound.absolute_norm >= absolute, "{:?} on {:?}", layer.window, layer.input);
        if norm > 0.0 {
            worst = worst.max(bound.lipschitz / norm);
            sum += bound.lipschitz / norm;
            done += 1;
        }
    }
    (worst, sum / n as f64)
}

#[test]
fn bounds_of_padded_convolutions_are_above_those_of_dense_operators() {
    // LIPCONV_FOREIGN_CASES=5000 for the long run
    let n = std::env::var("LIPCONV_FOREIGN_CASES").map_or(400, |n| n.parse().unwrap());
    let (worst, mean) = excesses(n, 11);
    println!("{n} layers: bound / norm is {mean:.4} in the mean and {worst:.3} at most");
    // what the border cuts off: an image of 3 pixels in a torus of 6 has little inside, and a kernel may touch it with one tap alone
    assert!(mean < 1.3, "{mean}");
}

#[test]
fn a_patch_embedding_and_an_average_have_their_norms() {
    let rng = &mut rng(3);
    let patch = Window { stride: [2; 2], ..Window::default() };
    let weight = uniform(&[5, 3, 2, 2], 1.0, DType::F64, rng);
    let layer = Layer { weight, window: patch, input: ImageShape::new(3, 6, 4) };
    let pooling = Window { stride: [2; 2], groups: 3, ..Window::default() };
    let weight = Tensor::full(0.25, (3, 1, 2, 2), &Device::Cpu).unwrap();
    let pool = Layer { weight, window: pooling, input: ImageShape::new(3, 6, 4) };
    for layer in [layer, pool] {
        let norm = norm_from_below(&layer.operator());
        let bound = NetworkBounds::new(&layer.network()).unwrap().layers()[0].lipschitz;
        assert!(bound >= norm && bound <= norm * (1.0 + 1e-4), "{bound} {norm}");
    }
}

fn padded(
    (c_out, c_in, k): (usize, usize, usize),
    window: Window,
    dtype: DType,
    rng: &mut ChaCha8Rng,
) -> PlainLayer {
    let scale = 1.5 / ((c_in * k * k) as f64).sqrt();
    let weight = uniform(&[c_out, c_in, k, k], scale, dtype, rng);
    let bias = uniform(&[c_out], 0.1, dtype, rng);
    PlainLayer::PaddedConv(PaddedConv::new(weight, Some(bias), window).unwrap())
}

/// Two residual blocks, the second with a strided shortcut, a concatenation, average pooling, and every activation.
fn residual_network(dtype: DType, seed: u64) -> PlainNetwork {
    let rng = &mut rng(seed);
    let relu = PlainLayer::Activation(Activation::Relu);
    let same = Window { before: [1; 2], after: [1; 2], ..Window::default() };
    let strided = Window { stride: [2; 2], ..same };
    let half = Window { stride: [2; 2], ..Window::default() };
    let cyclic = Window { boundary: Boundary::Cyclic, ..same };
    let grouped = Window { groups: 2, dilation: [2; 2], before: [2; 2], after: [2; 2], ..same };
    let pool = Window { stride: [2, 3], groups: 10, ..Window::default() };
    let average = Tensor::full(1f32 / 6.0, (10, 1, 2, 3), &Device::Cpu).unwrap();
    let average = PaddedConv::new(average.to_dtype(dtype).unwrap(), None, pool).unwrap();
    let layers = vec![
        padded((4, 2, 3), same, dtype, rng),        // 1
        PlainLayer::LeakyRelu { slope: 0.125 },     // 2: the block's input
        padded((4, 4, 3), cyclic, dtype, rng),      // 3
        relu.clone(),                               // 4
        padded((4, 2, 3), grouped, dtype, rng),     // 5
        PlainLayer::Add { from: 2 },                // 6
        PlainLayer::Activation(Activation::MaxMin), // 7
        padded((6, 4, 3), strided, dtype, rng),     // 8
        PlainLayer::LeakyRelu { slope: -1.0 },      // 9: the block
        PlainLayer::Recall { from: 7 },             // 10
        padded((4, 4, 1), half, dtype, rng),        // 11: the shortcut
        PlainLayer::Concat { from: 9 },             // 12
        conv(10, 10, 3, 1, 1.0, dtype, rng),        // 13
        PlainLayer::Add { from: 12 },               // 14
        PlainLayer::PaddedConv(average),            // 15
        PlainLayer::Flatten,
        dense(5, 20, 1.5, dtype, rng),
    ];
    PlainNetwork::new(ImageShape::new(2, 8, 6), layers).unwrap()
}

#[test]
fn no_image_changes_class_inside_the_radius_of_a_residual_network() {
    for (seed, arithmetic, dtype) in [
        (0, Arithmetic::F32, DType::F32),
        (3, Arithmetic::F32Blocked, DType::F32),
        (1, Arithmetic::F32AccumulateF64, DType::F32),
        (2, Arithmetic::F64, DType::F64),
    ] {
        check_radius_survives(&residual_network(dtype, seed), arithmetic, seed);
    }
}

#[test]
fn both_evaluations_of_a_residual_network_agree() {
    let network = residual_network(DType::F64, 5);
    let images = images(70, network.input(), DType::F64, &mut rng(6));
    let logits = network.forward(&images).unwrap();
    let wide = WideNetwork::new(&network).unwrap();
    let values = rows(&images).concat();
    let other = wide.logits(&values, Storage::F64);
    let other = Tensor::from_vec(other, logits.dims(), &Device::Cpu).unwrap();
    assert!(largest_difference(&logits, &other) < 1e-13);
    // the gradient against differences
    let objective = |logits: &Tensor| logits.sum_all();
    let image = images.narrow(0, 0, 1).unwrap();
    let (_, gradient) = network.logits_and_input_gradient(&image, &objective).unwrap();
    let gradient = rows(&gradient).concat();
    let step = 1e-6;
    for at in [0, 17, 95] {
        let moved = |by: f64| {
            let mut values = rows(&image).concat();
            values[at] += by;
            let moved = Tensor::from_vec(values, image.dims(), &Device::Cpu).unwrap();
            rows(&network.forward(&moved).unwrap()).concat().iter().sum::<f64>()
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((slope - gradient[at]).abs() < 1e-6, "{slope} {}", gradient[at]);
    }
}

#[test]
fn sums_add_and_concatenations_add_in_quadrature() {
    // x + 2x = 3x, and (x, 2x, ·) has √5 times the length
    let scaled = |by: f64| {
        let weight = Tensor::full(by, (1, 1, 1, 1), &Device::Cpu).unwrap();
        PlainLayer::PaddedConv(PaddedConv::new(weight, None, Window::default()).unwrap())
    };
    let input = ImageShape::new(1, 3, 3);
    for (joint, truth) in
        [(PlainLayer::Add { from: 0 }, 3.0), (PlainLayer::Concat { from: 0 }, 5f64.sqrt())]
    {
        let network =
            PlainNetwork::new(input, vec![scaled(2.0), joint, PlainLayer::Flatten]).unwrap();
        let bounds = NetworkBounds::new(&network).unwrap();
        let known = norm_from_below(&operator_of(&network));
        assert!((known - truth).abs() < 1e-9);
        for bound in [bounds.lipschitz(), network.lipschitz_bound().unwrap().value()] {
            assert!(bound >= known && bound <= truth * (1.0 + 1e-6), "{bound} {truth}");
        }
    }
}

#[test]
fn linear_networks_with_branches_are_bounded() {
    let rng = &mut rng(8);
    let same = Window { before: [1; 2], after: [1; 2], ..Window::default() };
    for _ in 0..30 {
        let mut layer = || match padded((2, 2, 3), same, DType::F64, rng) {
            PlainLayer::PaddedConv(conv) => PlainLayer::PaddedConv(
                PaddedConv::new(conv.weight().clone(), None, conv.window()).unwrap(),
            ),
            other => other,
        };
        let layers = vec![
            layer(),
            layer(),
            PlainLayer::Add { from: 0 },
            PlainLayer::Recall { from: 1 },
            PlainLayer::Concat { from: 3 },
            PlainLayer::Flatten,
        ];
        let network = PlainNetwork::new(ImageShape::new(2, 4, 4), layers).unwrap();
        let norm = norm_from_below(&operator_of(&network));
        assert!(NetworkBounds::new(&network).unwrap().lipschitz() >= norm);
    }
}

#[test]
fn the_verifier_confirms_certificates_of_foreign_networks() {
    for (seed, dtype) in [(20, DType::F32), (21, DType::F64)] {
        let network = residual_network(dtype, seed);
        let images = images(20, network.input(), dtype, &mut rng(seed));
        let labels = predictions(&network, &images);
        let case = Case::new(&network, &images, labels);
        let report = case.check_text(&case.file.to_json()).unwrap();
        assert!(report.checked.iter().any(|checked| checked.real > 0.0));
        for (i, layer) in case.file.layers.iter().enumerate() {
            let mut file = case.file.clone();
            file.layers[i].lipschitz *= 1.0 - 1e-3;
            let bound = &layer.name;
            let text = case.check_text(&file.to_json()).unwrap_err().to_string();
            // a bound that is not sharp may be lowered and still hold, but the radii then are no longer those of the file
            let named =
                text.contains("lipschitz") || text.contains("margin") || text.contains("real");
            assert!(named, "{bound}: {text}");
        }
    }
}

#[test]
fn radii_of_a_file_are_those_of_the_network() {
    let network = residual_network(DType::F32, 30);
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("network.safetensors");
    network.save(&path).unwrap();
    let again = PlainNetwork::load(&path, &Device::Cpu).unwrap();
    assert_eq!(again.names(), network.names());
    let images = images(5, network.input(), DType::F32, &mut rng(31));
    let labels = predictions(&network, &images);
    let certified = |network: &PlainNetwork| {
        Certifier::new(network).unwrap().certify(&images, &labels).unwrap()
    };
    assert_eq!(certified(&network), certified(&again));
}
