//! The error bounds against errors that are known: replays in integers, and f32 against f64.

use candle_core::{DType, Device, Tensor};
use lipconv::{Activation, Dense, ImageShape, PlainLayer, PlainNetwork};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::classifier::logit_rows;
use crate::upper::norm_up;
use lipconv::wide::{Storage, WideNetwork};

/// A dense ReLU network with weights, biases and images that are integers over a power of two, so that i128 replays it
/// exactly.
struct Replay {
    weights: [Vec<Vec<i128>>; 2],
    biases: [Vec<i128>; 2],
    image: Vec<i128>,
    bits: u32,
}

impl Replay {
    fn new(sizes: [usize; 3], bits: u32, rng: &mut ChaCha8Rng) -> Self {
        let top = 1i128 << bits;
        let mut vector =
            |n: usize| (0..n).map(|_| rng.random_range(-top..=top)).collect::<Vec<_>>();
        let mut matrix = |m: usize, n: usize| (0..m).map(|_| vector(n)).collect::<Vec<_>>();
        let weights = [matrix(sizes[1], sizes[0]), matrix(sizes[2], sizes[1])];
        let biases = [vector(sizes[1]), vector(sizes[2])];
        Self { weights, biases, image: vector(sizes[0]), bits }
    }

    /// Logits as integers over 2^(3·bits).
    fn logits(&self) -> Vec<i128> {
        let layer = |i: usize, a: &[i128], shift: u32| -> Vec<i128> {
            let row = |(w, b): (&Vec<i128>, &i128)| {
                w.iter().zip(a).map(|(w, a)| w * a).sum::<i128>() + (b << shift)
            };
            self.weights[i].iter().zip(&self.biases[i]).map(row).collect()
        };
        let hidden: Vec<i128> =
            layer(0, &self.image, self.bits).into_iter().map(|z| z.max(0)).collect();
        layer(1, &hidden, 2 * self.bits)
    }

    fn network(&self, dtype: DType) -> PlainNetwork {
        let scale = 0.5f64.powi(self.bits as i32);
        let real = |v: &[i128]| v.iter().map(|&x| x as f64 * scale).collect::<Vec<_>>();
        let tensor = |v: Vec<f64>, shape: &[usize]| {
            Tensor::from_vec(v, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
        };
        let layer = |i: usize| {
            let (m, n) = (self.weights[i].len(), self.weights[i][0].len());
            let bias = tensor(real(&self.biases[i]), &[m]);
            let weight = tensor(real(&self.weights[i].concat()), &[m, n]);
            PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap())
        };
        let input = ImageShape::new(1, 1, self.image.len());
        PlainNetwork::new(
            input,
            vec![PlainLayer::Flatten, layer(0), PlainLayer::Activation(Activation::Relu), layer(1)],
        )
        .unwrap()
    }

    fn image(&self) -> Vec<f64> {
        let scale = 0.5f64.powi(self.bits as i32);
        self.image.iter().map(|&x| x as f64 * scale).collect()
    }
}

/// Norms of the signals of a network in f64, by the engine itself.
fn measured(engine: &WideNetwork, image: &[f64]) -> MeasuredNorms {
    #[derive(Default)]
    struct Norms(MeasuredNorms);
    impl lipconv::wide::SignalObserver for Norms {
        fn input(&mut self, _: usize, signal: &[f64], _: usize) {
            self.0.inputs.push(norm_up(signal.iter().copied()).value());
        }
        fn output(&mut self, _: usize, signal: &[f64], _: usize) {
            self.0.outputs.push(norm_up(signal.iter().copied()).value());
        }
    }
    engine.run::<Norms>(image, Storage::F64).remove(0).observed.0
}

/// The centre that `reference` sees at an image.
fn centre_of(reference: &ErrorModel, engine: &WideNetwork, image: &[f64]) -> Centre {
    let mut centre = Centre::default();
    reference.centre(&measured(engine, image), &mut Vec::new(), &mut centre);
    centre
}

/// The exact difference `(y_t - y_j) - (z_t - z_j)` of computed logits y and exact ones z over 2^scale, as f64.
fn deviation(computed: &[f64], exact: &[i128], scale: u32, t: usize, j: usize) -> f64 {
    // computed logits are multiples of 2^-scale when they are multiples of their own last place, which is larger
    let to_int = |y: f64| {
        let scaled = y * 2f64.powi(scale as i32);
        assert_eq!(scaled.fract(), 0.0, "the replay is not exact");
        scaled as i128
    };
    let difference = (to_int(computed[t]) - exact[t]) - (to_int(computed[j]) - exact[j]);
    difference as f64 * 0.5f64.powi(scale as i32)
}

#[test]
fn errors_at_the_centre_are_bounded_and_not_absurdly() {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    for (sizes, bits, dtype) in [
        ([30, 20, 4], 20, DType::F32),
        ([300, 17, 3], 20, DType::F32),
        ([30, 20, 4], 36, DType::F64),
        ([200, 40, 3], 36, DType::F64),
    ] {
        let mut largest = [(0.0f64, 0.0f64); 4];
        for _ in 0..20 {
            let replay = Replay::new(sizes, bits, rng);
            for (largest, (error, bound)) in largest.iter_mut().zip(check_centre(&replay, dtype)) {
                *largest = (largest.0.max(error), largest.1.max(bound));
            }
        }
        // worst cases over summation orders and signs are that far from what happens
        for (error, bound) in largest.into_iter().filter(|(error, _)| *error > 0.0) {
            assert!(bound < 2e4 * error, "{sizes:?}: bound {bound:e}, largest error {error:e}");
        }
    }
}

/// Checks every pair of logits; the largest error and the largest bound in each arithmetic.
#[track_caller]
fn check_centre(replay: &Replay, dtype: DType) -> Vec<(f64, f64)> {
    let network = replay.network(dtype);
    let engine = WideNetwork::new(&network).unwrap();
    let bounds = NetworkBounds::new(&network).unwrap();
    let reference = ErrorModel::new(&bounds, Arithmetic::F64).unwrap();
    let image = replay.image();
    let centre = centre_of(&reference, &engine, &image);
    let (exact, scale) = (replay.logits(), 3 * replay.bits);
    let tensor = Tensor::from_slice(&image, (1, 1, 1, image.len()), &Device::Cpu).unwrap();
    let mut runs = vec![(engine.logits(&image, Storage::F64), None)];
    if dtype == DType::F32 {
        let logits = network.forward(&tensor.to_dtype(dtype).unwrap()).unwrap();
        let logits = logit_rows(&logits).unwrap().remove(0);
        runs.push((logits.clone(), Some(Arithmetic::F32)));
        runs.push((logits, Some(Arithmetic::F32Blocked)));
        runs.push((engine.logits(&image, Storage::F32), Some(Arithmetic::F32AccumulateF64)));
        runs.push((engine.logits(&image, Storage::Tf32), Some(Arithmetic::Tf32)));
    }
    let pairs = |n: usize| (0..n).flat_map(|t| (0..t).map(move |j| (t, j)));
    let check = |(logits, arithmetic): (Vec<f64>, Option<Arithmetic>)| {
        let mut largest = (0.0f64, 0.0f64);
        for (t, j) in pairs(exact.len()) {
            let bound = match arithmetic {
                None => reference.centre_pair_error(bounds.head(), &centre, t, j).value(),
                Some(arithmetic) => {
                    let model = ErrorModel::new(&bounds, arithmetic).unwrap();
                    let ball = model.ball(&centre, &mut Vec::new());
                    model.pair_error(bounds.head(), &ball, t, j).at_centre.value()
                }
            };
            let error = deviation(&logits, &exact, scale, t, j).abs();
            assert!(error <= bound, "{arithmetic:?}: {error:e} exceeds {bound:e}");
            largest = (largest.0.max(error), largest.1.max(bound));
        }
        largest
    };
    runs.into_iter().map(check).collect()
}

#[test]
fn errors_over_the_ball_are_bounded() {
    // f32 against f64 at random points of the ball; the f64 error is 2^-29 of the f32 one
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let replay = Replay::new([40, 30, 5], 20, rng);
    let network = replay.network(DType::F32);
    let wide = network.to_dtype(DType::F64).unwrap();
    let bounds = NetworkBounds::new(&network).unwrap();
    let model = ErrorModel::new(&bounds, Arithmetic::F32).unwrap();
    let engine = WideNetwork::new(&network).unwrap();
    let image = replay.image();
    let reference = ErrorModel::new(&bounds, Arithmetic::F64).unwrap();
    let ball = model.ball(&centre_of(&reference, &engine, &image), &mut Vec::new());
    for r in [0.01, 1.0, 100.0] {
        for _ in 0..50 {
            let d: Vec<f64> = image.iter().map(|_| rng.random_range(-1.0..=1.0)).collect();
            let scale = 0.999 * r / d.iter().map(|v: &f64| v * v).sum::<f64>().sqrt();
            let point: Vec<f32> =
                image.iter().zip(&d).map(|(x, d)| (x + d * scale) as f32).collect();
            let point = Tensor::from_vec(point, (1, 1, 1, image.len()), &Device::Cpu).unwrap();
            let narrow = logit_rows(&network.forward(&point).unwrap()).unwrap().remove(0);
            let point = point.to_dtype(DType::F64).unwrap();
            let exact = logit_rows(&wide.forward(&point).unwrap()).unwrap().remove(0);
            for (t, j) in (0..5).flat_map(|t| (0..t).map(move |j| (t, j))) {
                let error = ((narrow[t] - narrow[j]) - (exact[t] - exact[j])).abs();
                let bound = model.pair_error(bounds.head(), &ball, t, j).at(Upper::new(r)).value();
                assert!(error <= bound, "r {r}: {error:e} exceeds {bound:e}");
            }
        }
    }
}

#[test]
fn blocked_sums_have_the_roundings_of_their_blocks() {
    for n in 1..2000 {
        let allowed = Arithmetic::F32Blocked.roundings(n);
        assert!(allowed <= Arithmetic::F32.roundings(n));
        // within the block, and then block after block with the bias
        assert!(n.min(128) + n.div_ceil(128) <= allowed, "{n} terms");
    }
    assert_eq!(Arithmetic::F32Blocked.roundings(4096), 128 + 32 + 1);
}

/// The sum that loses most in any order: a large number first, then ones that it swallows one by one.
#[test]
fn a_blocked_sum_keeps_what_a_sequential_one_loses() {
    let n = 4096;
    let pixels: Vec<f32> =
        (0..n).map(|i| if i == 0 { 1.0 } else { 0.9 * f32::EPSILON / 2.0 }).collect();
    let ones = Tensor::ones((2, n), DType::F32, &Device::Cpu).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(ones, None).unwrap())];
    let network = PlainNetwork::new(ImageShape::new(1, 1, n), layers).unwrap();
    assert!(network.sums_in_blocks());
    let exact: f64 = pixels.iter().map(|&p| f64::from(p)).sum();
    let sequential: f32 = pixels.iter().sum();
    let image = Tensor::from_vec(pixels, (1, 1, 1, n), &Device::Cpu).unwrap();
    let logits = logit_rows(&network.forward(&image).unwrap()).unwrap().remove(0);
    let unit = f64::from(f32::EPSILON) / 2.0;
    let allowed = Arithmetic::F32Blocked.roundings(n) as f64 * 1.001 * unit * exact;
    assert!((logits[0] - exact).abs() <= allowed);
    assert!((f64::from(sequential) - exact).abs() > allowed);
}

#[test]
fn dot_products_that_are_too_long_are_refused() {
    let layer = |n: usize| LayerBound {
        name: "linear1".into(),
        lipschitz: 1.0,
        absolute_norm: 1.0,
        bias_norm: 0.0,
        dot_length: n,
        n_outputs: 1,
    };
    let limit = (1 << 22) - 1;
    assert!(
        layer_model(&layer(limit), Arithmetic::F32, Joint::Single(None), (Upper::ONE, Upper::ONE))
            .is_ok()
    );
    let error = layer_model(
        &layer(limit + 1),
        Arithmetic::F32,
        Joint::Single(None),
        (Upper::ONE, Upper::ONE),
    )
    .unwrap_err();
    let text = "linear1: dot products of length 4194304 are too long for f32 arithmetic, expected at most 4194303";
    assert_eq!(error.to_string(), text);
    assert!(
        layer_model(
            &layer(limit + 1),
            Arithmetic::F64,
            Joint::Single(None),
            (Upper::ONE, Upper::ONE)
        )
        .is_ok()
    );
}
