//! Evaluation with sums in f64: the same function, rounded where it says.

use candle_core::{DType, Device, Tensor};
use lipconv::wide::Storage;
use lipconv::{
    Activation, CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork, WideNetwork,
    roundings_in_blocks,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn uniform(shape: &[usize], rng: &mut ChaCha8Rng) -> Tensor {
    let n = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(-0.5..0.5)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Every kind of layer, even and odd kernels, an image that is not square.
fn network(rng: &mut ChaCha8Rng) -> PlainNetwork {
    let conv = |shape: [usize; 4], downsample: usize, rng: &mut ChaCha8Rng| {
        let (weight, bias) = (uniform(&shape, rng), uniform(&shape[..1], rng));
        PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), downsample).unwrap())
    };
    let layers = vec![
        conv([6, 8, 2, 2], 2, rng),
        PlainLayer::Activation(Activation::MaxMin),
        conv([4, 6, 3, 3], 1, rng),
        PlainLayer::Activation(Activation::GroupSort { group: 2 }),
        PlainLayer::Flatten,
        PlainLayer::Dense(Dense::new(uniform(&[10, 48], rng), None).unwrap()),
        PlainLayer::Activation(Activation::Relu),
        PlainLayer::Dense(Dense::new(uniform(&[3, 10], rng), Some(uniform(&[3], rng))).unwrap()),
    ];
    PlainNetwork::new(ImageShape::new(2, 6, 8), layers).unwrap()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
    tensor.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

#[test]
fn accumulated_logits_are_nearer_to_the_exact_ones() {
    let rng = &mut ChaCha8Rng::seed_from_u64(5);
    let network = network(rng);
    for n in [0, 1, 9, 65] {
        let images = uniform(&[n, 2, 6, 8], rng);
        let accumulated = network.forward_accumulated(&images).unwrap();
        assert_eq!((accumulated.dtype(), accumulated.dims()), (DType::F32, &[n, 3][..]));
        let wide = network.to_dtype(DType::F64).unwrap();
        let exact = wide.forward(&images.to_dtype(DType::F64).unwrap()).unwrap();
        let error = |logits: &Tensor| {
            let pairs = rows(logits).concat().into_iter().zip(rows(&exact).concat());
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        // four roundings to f32 of values near 1, each magnified by at most the layers behind it
        assert!(error(&accumulated) < 40.0 * f64::from(f32::EPSILON));
        let converted = WideNetwork::new(&network).unwrap();
        let again = converted.forward_accumulated(&images, Storage::F32).unwrap();
        assert_eq!(rows(&again), rows(&accumulated));
    }
}

#[test]
fn a_dense_layer_rounds_the_exact_sum_once() {
    // 2^24 + 1 - 2^24: an f32 sum from the left loses the 1, whatever follows
    let big = (1u32 << 24) as f32;
    let weight = Tensor::new(&[[big, 1.0, -big, 2f32.powi(-30)]], &Device::Cpu).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
    let network = PlainNetwork::new(ImageShape::new(1, 2, 2), layers).unwrap();
    let ones = Tensor::ones((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let logits = network.forward_accumulated(&ones).unwrap();
    assert_eq!(logits.to_vec2::<f32>().unwrap(), [[1.0]]);
}

#[test]
fn other_types_and_shapes_are_refused() {
    let network = network(&mut ChaCha8Rng::seed_from_u64(6));
    let images = |dtype| Tensor::zeros((1, 2, 6, 8), dtype, &Device::Cpu).unwrap();
    let text = network.forward_accumulated(&images(DType::F64)).unwrap_err().to_string();
    assert!(text.contains("batch of images") && text.contains("f64"), "{text}");
    let wide = network.to_dtype(DType::F64).unwrap();
    let text = wide.forward_accumulated(&images(DType::F32)).unwrap_err().to_string();
    assert!(text.contains("network") && text.contains("f64"), "{text}");
    let narrow = images(DType::F32).narrow(3, 0, 4).unwrap();
    let text = network.forward_accumulated(&narrow).unwrap_err().to_string();
    assert!(text.contains("[1, 2, 6, 4]") && text.contains("[1, 2, 6, 8]"), "{text}");
}

/// The layer alone, as blocks or as a graph.
fn alone(layer: &PlainLayer, input: ImageShape, as_graph: bool) -> PlainNetwork {
    let mut layers = vec![layer.clone()];
    let at = if let PlainLayer::Dense(_) = layer { 0 } else { 1 };
    layers.insert(at, PlainLayer::Flatten);
    if as_graph {
        layers.insert(0, PlainLayer::Recall { from: 0 });
    }
    PlainNetwork::new(input, layers).unwrap()
}

#[test]
fn blocked_sums_stay_within_their_roundings() {
    let rng = &mut ChaCha8Rng::seed_from_u64(6);
    let unit = f64::from(f32::EPSILON) / 2.0;
    let convolutions = [(1, 3), (7, 5), (23, 3), (24, 2), (25, 1), (130, 2), (300, 1), (40, 5)];
    let shapes = convolutions.map(|(c_in, k)| vec![3, c_in, k, k]);
    for shape in shapes.into_iter().chain([1, 128, 129, 5000].map(|n| vec![3, n])) {
        let layer = |weight: Tensor, bias: Tensor| match shape.len() {
            4 => PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), 1).unwrap()),
            _ => PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap()),
        };
        let size = if shape.len() == 4 { [6, 7] } else { [1, 1] };
        let input = ImageShape::new(shape[1], size[0], size[1]);
        let (weight, bias) = (uniform(&shape, rng), uniform(&[3], rng));
        let random = uniform(&[2, shape[1], size[0], size[1]], rng);
        // one number that swallows all others when they are added to it one by one
        let n = input.n_values();
        let swallowed: Vec<f32> =
            (0..n).map(|i| if i == 0 { 1.0 } else { 0.45 * f32::EPSILON }).collect();
        let swallowed =
            Tensor::from_vec(swallowed, (1, shape[1], size[0], size[1]), &Device::Cpu).unwrap();
        let ones = (weight.ones_like().unwrap(), bias.zeros_like().unwrap());
        for ((weight, bias), images) in [((weight, bias), random), (ones, swallowed)] {
            let exact = alone(&layer(weight.clone(), bias.clone()), input, false);
            let sizes = alone(&layer(weight.abs().unwrap(), bias.abs().unwrap()), input, false);
            let in_f64 = |network: &PlainNetwork, images: &Tensor| {
                let network = network.to_dtype(DType::F64).unwrap();
                rows(&network.forward(&images.to_dtype(DType::F64).unwrap()).unwrap()).concat()
            };
            let (sums, sizes) = (in_f64(&exact, &images), in_f64(&sizes, &images.abs().unwrap()));
            let q = roundings_in_blocks(shape[1..].iter().product()) as f64;
            for as_graph in [false, true] {
                let network = alone(&layer(weight.clone(), bias.clone()), input, as_graph);
                assert!(
                    network.sums_in_blocks()
                        && !network.to_dtype(DType::F64).unwrap().sums_in_blocks()
                );
                let found = rows(&network.forward(&images).unwrap()).concat();
                for ((found, sum), size) in found.iter().zip(&sums).zip(&sizes) {
                    let allowed = q * unit / (1.0 - q * unit) * size + 1e-13;
                    assert!(
                        (found - sum).abs() <= allowed,
                        "{shape:?}, graph {as_graph}: {found} {sum}"
                    );
                }
            }
        }
    }
}

#[test]
fn tf32_keeps_eleven_bits_of_the_factors_alone() {
    // 1 + 2^-10 has 11 significant bits, 1 + 2^-11 has 12; products, sums and the bias keep f32's 24
    let (short, long) = (1.0 + 2f32.powi(-10), 1.0 + 2f32.powi(-11));
    let row = |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
    let bias = Tensor::new(&[2f32.powi(-20)], &Device::Cpu).unwrap();
    let dense = Dense::new(row(&[short, -long]), Some(bias)).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(dense)];
    let network = PlainNetwork::new(ImageShape::vector(2), layers).unwrap();
    let image = row(&[long, -short]).reshape((1, 2, 1, 1)).unwrap();
    let logit = WideNetwork::new(&network).unwrap();
    let logit = rows(&logit.forward_accumulated(&image, Storage::Tf32).unwrap())[0][0];
    assert_eq!(logit, f64::from(2.0 * short + 2f32.powi(-20)));
}
