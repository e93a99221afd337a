//! Networks without block form: the engine against candle's operations, values and gradients.

use candle_core::{DType, Device, Tensor, Var};
use lipconv::{
    Activation, Boundary, CyclicConv, Dense, ImageShape, PaddedConv, PlainLayer, PlainNetwork,
    SignalShape, Window,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{check_close, sum_tolerance, uniform, values};

const SIZES: [usize; 6] = [1, 2, 4, 5, 7, 12];

/// A network as it grows: layers, and the shapes of all signals.
struct Growing {
    rng: ChaCha8Rng,
    layers: Vec<PlainLayer>,
    shapes: Vec<SignalShape>,
    dtype: DType,
}

impl Growing {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())]
    }

    fn draw(&mut self, shape: &[usize], size: f64) -> Tensor {
        let seed = self.rng.random();
        uniform(shape, -size, size, self.dtype, seed)
    }

    fn window(&mut self) -> Window {
        let mut pair = |choices: &[usize]| [0; 2].map(|_| self.pick(choices));
        let (stride, dilation) = (pair(&[1, 1, 2, 3]), pair(&[1, 1, 2]));
        let (before, after) = (pair(&[0, 1, 2]), pair(&[0, 1, 3]));
        let boundary = self.pick(&[Boundary::Zeros, Boundary::Zeros, Boundary::Cyclic]);
        Window { stride, before, after, dilation, groups: 1, boundary }
    }

    fn convolution(&mut self, input: ImageShape) -> PlainLayer {
        let c_out = self.pick(&[2, 4, 6]);
        if self.rng.random_bool(0.3) {
            let (k, s) = (self.pick(&[1, 2, 3]), self.pick(&[1, 1, 2, 3]));
            let c_in = input.channels * s * s;
            let weight = self.draw(&[c_out, c_in, k, k], 1.0 / (c_in as f64).sqrt());
            let bias = self.draw(&[c_out], 1.0);
            return PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), s).unwrap());
        }
        let groups = if input.channels.is_multiple_of(2) { self.pick(&[1, 1, 2]) } else { 1 };
        let (kh, kw) = (self.pick(&[1, 2, 3]), self.pick(&[1, 3, 4]));
        let c_in = input.channels / groups;
        let weight = self.draw(&[c_out, c_in, kh, kw], 1.0 / (c_in as f64).sqrt());
        let bias = self.draw(&[c_out], 1.0);
        let window = Window { groups, ..self.window() };
        PlainLayer::PaddedConv(PaddedConv::new(weight, Some(bias), window).unwrap())
    }

    /// Appends a layer if it fits.
    fn grow(&mut self) {
        let current = self.shapes[self.shapes.len() - 1];
        let SignalShape::Image(image) = current else { return };
        let from = self.rng.random_range(0..self.shapes.len());
        let SignalShape::Image(earlier) = self.shapes[from] else { return };
        let same_size = (earlier.height, earlier.width) == (image.height, image.width);
        let joined = ImageShape { channels: image.channels + earlier.channels, ..image };
        let (layer, shape) = match self.rng.random_range(0..9) {
            0 if earlier == image => (PlainLayer::Add { from }, Some(current)),
            1 if same_size => (PlainLayer::Concat { from }, Some(SignalShape::Image(joined))),
            2 => (PlainLayer::Recall { from }, Some(self.shapes[from])),
            3 => (PlainLayer::LeakyRelu { slope: self.pick(&[0.25, -1.0]) }, None),
            4 => (PlainLayer::Activation(Activation::Relu), None),
            5 => (PlainLayer::Activation(Activation::MaxMin), None),
            6 => (PlainLayer::Activation(Activation::GroupSort { group: 3 }), None),
            _ => (self.convolution(image), None),
        };
        let Some(shape) = shape.or_else(|| layer.output_shape(current, "layer").ok()) else {
            return;
        };
        self.layers.push(layer);
        self.shapes.push(shape);
    }

    fn network(mut self) -> PlainNetwork {
        let SignalShape::Image(input) = self.shapes[0] else { unreachable!("an image is first") };
        let n = self.shapes[self.shapes.len() - 1].n_values();
        self.layers.push(PlainLayer::Flatten);
        let weight = self.draw(&[5, n], 1.0 / (n as f64).sqrt());
        let bias = self.draw(&[5], 1.0);
        self.layers.push(PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap()));
        PlainNetwork::new(input, self.layers).unwrap()
    }
}

fn random_network(seed: u64, dtype: DType) -> PlainNetwork {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut size = || SIZES[rng.random_range(0..SIZES.len())];
    let (height, width, channels) = (size(), size(), 1 + size() % 4);
    let shapes = vec![SignalShape::Image(ImageShape::new(channels, height, width))];
    let mut growing = Growing { rng, layers: Vec::new(), shapes, dtype };
    for _ in 0..12 {
        growing.grow();
    }
    growing.network()
}

#[track_caller]
fn check(network: &PlainNetwork, batch: usize, seed: u64) {
    let (dtype, input) = (network.dtype(), network.input());
    let shape = [batch, input.channels, input.height, input.width];
    let images = uniform(&shape, 0.0, 1.0, dtype, seed);
    // candle keeps a graph of what it may have to differentiate
    let tracked = Var::from_tensor(&images).unwrap();
    let expected = network.forward(tracked.as_tensor()).unwrap();
    let largest = values(&expected).into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let tolerance = sum_tolerance(dtype, 100_000, largest);
    let recording = network.record(&images).unwrap();
    let what = format!("network {seed} {dtype:?} {:?}", network.layers());
    check_close(&what, recording.logits(), &expected, tolerance);
    check_close(&what, &network.forward(&images).unwrap(), &expected, tolerance);
    let d_logits = uniform(&[batch, network.n_classes()], -1.0, 1.0, dtype, seed + 1);
    let objective = (&expected * &d_logits).unwrap().sum_all().unwrap();
    let gradients = objective.backward().unwrap();
    let zeros = images.zeros_like().unwrap();
    let expected = gradients.get(tracked.as_tensor()).unwrap_or(&zeros);
    let largest = values(expected).into_iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    let gradient = recording.input_gradient(&d_logits).unwrap();
    check_close(&what, &gradient, expected, sum_tolerance(dtype, 100_000, largest));
}

#[test]
fn random_networks_have_the_values_and_gradients_of_candles_operations() {
    for seed in 0..300 {
        let dtype = if seed % 3 == 0 { DType::F32 } else { DType::F64 };
        // one image, a chunk and a bit, two chunks
        let batch = [1, 3, 33, 64][seed as usize % 4];
        check(&random_network(seed, dtype), batch, seed);
    }
}

/// The matrix of shifted inputs of one image alone is larger than what is held at a time.
#[test]
fn a_convolution_goes_in_bands_where_its_matrix_is_large() {
    let draw = |shape: &[usize], seed| uniform(shape, -0.1, 0.1, DType::F64, seed);
    let window = Window { before: [2; 2], after: [1, 2], stride: [1, 2], ..Window::default() };
    let conv = |weight, bias| PaddedConv::new(weight, Some(bias), window).unwrap();
    let layers = vec![
        PlainLayer::PaddedConv(conv(draw(&[4, 8, 5, 5], 0), draw(&[4], 1))),
        PlainLayer::LeakyRelu { slope: -1.0 },
        PlainLayer::Flatten,
        PlainLayer::Dense(Dense::new(draw(&[3, 4 * 96 * 47], 2), None).unwrap()),
    ];
    let network = PlainNetwork::new(ImageShape::new(8, 97, 93), layers).unwrap();
    check(&network, 2, 5);
}

/// A slope is a weight: in f32 it is the nearest number of f32, which is what the engine multiplies by.
#[test]
fn slopes_are_rounded_with_the_weights() {
    let network = |slope: f64| {
        let weight = Tensor::ones((2, 3), DType::F64, &Device::Cpu).unwrap();
        let dense = PlainLayer::Dense(Dense::new(weight, None).unwrap());
        let layers = vec![PlainLayer::Flatten, PlainLayer::LeakyRelu { slope }, dense];
        PlainNetwork::new(ImageShape::new(1, 1, 3), layers).unwrap()
    };
    for slope in [0.1, 1.1, 0.01, -1.0, 1e-60] {
        let narrow = network(slope).to_dtype(DType::F32).unwrap();
        let PlainLayer::LeakyRelu { slope: rounded } = narrow.layers()[1] else {
            panic!("a slope")
        };
        assert_eq!(rounded, f64::from(slope as f32));
        let wide = narrow.to_dtype(DType::F64).unwrap();
        assert!(matches!(wide.layers()[1], PlainLayer::LeakyRelu { slope } if slope == rounded));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("network.safetensors");
        narrow.save(&path).unwrap();
        PlainNetwork::load(&path, &Device::Cpu).unwrap();
    }
    let text = network(1e39).to_dtype(DType::F32).unwrap_err().to_string();
    assert_eq!(text, "slope is inf, expected a finite number that the weights' element type holds");
}

#[test]
fn no_images_have_no_logits_and_no_gradient() {
    let network = random_network(7, DType::F32);
    let input = network.input();
    let shape = (0, input.channels, input.height, input.width);
    let images = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let recording = network.record(&images).unwrap();
    assert_eq!(recording.logits().dims(), [0, 5]);
    let d_logits = Tensor::zeros((0, 5), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(recording.input_gradient(&d_logits).unwrap().dims4().unwrap(), shape);
}
