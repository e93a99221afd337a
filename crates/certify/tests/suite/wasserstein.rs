//! Dual estimates: never above the exact distance of the samples, exact where the critic is, with honest errors.

use candle_core::{DType, Device, Tensor};
use certify::{
    Anchor, Critic, Distribution as _, DualEstimate, Error, ExactDistribution, ExactKind,
    SamplePart, euclidean_distance,
};
use lipconv::{
    Activation, ConvMethod, Dense, ImageShape, LayerSpec, LinearMethod, Network, NetworkSpec,
    PlainLayer, PlainNetwork,
};
use rand_distr::{Distribution, StandardNormal};

use crate::common::{conv, dense, rng, rows, uniform};

const INPUT: ImageShape = ImageShape::new(2, 6, 8);

/// `f(x) = <w, x> + b`.
fn linear(weight: &[f64], bias: f64, dtype: DType) -> PlainNetwork {
    let n = weight.len();
    let weight = Tensor::from_slice(weight, (1, n), &Device::Cpu).unwrap();
    let bias = Tensor::new(&[bias], &Device::Cpu).unwrap();
    let of = |t: &Tensor| t.to_dtype(dtype).unwrap();
    let layer = Dense::new(of(&weight), Some(of(&bias))).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(layer)];
    PlainNetwork::new(ImageShape::new(1, 1, n), layers).unwrap()
}

/// Every kind of layer, with one output.
fn mixed_critic(scales: [f64; 3], dtype: DType, seed: u64) -> PlainNetwork {
    let rng = &mut rng(seed);
    let layers = vec![
        conv(6, 2, 2, 2, scales[0], dtype, rng),
        PlainLayer::Activation(Activation::MaxMin),
        conv(4, 6, 3, 1, scales[1], dtype, rng),
        PlainLayer::Activation(Activation::Relu),
        PlainLayer::Flatten,
        dense(1, 4 * 3 * 4, scales[2], dtype, rng),
    ];
    PlainNetwork::new(INPUT, layers).unwrap()
}

fn points(n: usize, input: ImageShape, dtype: DType, seed: u64) -> Tensor {
    let ImageShape { channels, height, width } = input;
    uniform(&[n, channels, height, width], 1.0, dtype, &mut rng(seed))
}

/// W1 of two sets of n points, n small: the best of all assignments.
fn exact_distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (rows(a), rows(b));
    let cost = |i: usize, j: usize| {
        a[i].iter().zip(&b[j]).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
    };
    // best[set] = cost of assigning the first |set| points of A to that set of points of B
    let n = a.len();
    let mut best = vec![f64::INFINITY; 1 << n];
    best[0] = 0.0;
    for set in 0..1usize << n {
        let i = set.count_ones() as usize;
        for j in (0..n).filter(|j| set & (1 << j) == 0) {
            let next = set | (1 << j);
            best[next] = best[next].min(best[set] + cost(i, j));
        }
    }
    best[(1 << n) - 1] / n as f64
}

fn estimate(network: &PlainNetwork, a: &Tensor, b: &Tensor) -> DualEstimate {
    Critic::new(network).unwrap().estimate(a, b).unwrap()
}

#[test]
fn no_critic_exceeds_the_exact_distance_of_the_samples() {
    for seed in 0..40 {
        let dtype = if seed % 2 == 0 { DType::F32 } else { DType::F64 };
        let scales = [[1.0, 1.0, 1.0], [0.01, 30.0, 1e3], [5.0, 0.5, 1e-4]][seed as usize % 3];
        let network = mixed_critic(scales, dtype, seed);
        let n = 2 + seed as usize % 6;
        let (a, b) = (points(n, INPUT, dtype, 100 + seed), points(n, INPUT, dtype, 200 + seed));
        // near and far, and the same points
        for scale in [1.0, 0.1, 0.0] {
            let b = (&a + ((&b - &a).unwrap() * scale).unwrap()).unwrap();
            let exact = exact_distance(&a, &b);
            let got = estimate(&network, &a, &b);
            assert!(got.value <= exact, "seed {seed}: {got:?}, exact {exact}");
            let reverse = estimate(&network, &b, &a);
            assert!(reverse.value <= exact && got.value + reverse.value <= 0.0, "seed {seed}");
            let lost = -(got.value + reverse.value);
            assert!(lost <= 4.0 * got.rounding_error / got.lipschitz, "seed {seed}: {lost}");
        }
    }
}

/// Networks of the paper's methods as they are trained, bounds and all.
#[test]
fn no_network_of_any_method_exceeds_it_either() {
    for method in [ConvMethod::Bcop, ConvMethod::Rko, ConvMethod::Ossn, ConvMethod::Unconstrained] {
        let conv = |c_out| LayerSpec::Conv { c_out, kernel_size: 4, stride: 2, method };
        let head = LayerSpec::Linear { out_features: 1, method: LinearMethod::Bjorck };
        let maxmin = LayerSpec::Activation(Activation::MaxMin);
        let layers = vec![conv(8), maxmin, conv(16), maxmin, LayerSpec::Flatten, head];
        let input = ImageShape::new(3, 8, 8);
        let network = Network::new(&NetworkSpec { input, layers }, DType::F32, &Device::Cpu, 3);
        let plain = network.unwrap().materialize().unwrap();
        let (a, b) = (points(7, input, DType::F32, 1), points(7, input, DType::F32, 2));
        let got = estimate(&plain, &a, &b);
        assert!(got.value <= exact_distance(&a, &b), "{method:?}");
        let bound = plain.lipschitz_bound().unwrap().value();
        assert!(got.lipschitz <= bound * (1.0 + 1e-12), "{method:?}: {got:?} and {bound}");
    }
}

/// B is A moved by s along the critic's own direction: the distance is |s|, and the critic finds all of it.
#[test]
fn a_translation_is_found_exactly_but_for_rounding() {
    let n = 24;
    let direction: Vec<f64> = rows(&points(1, ImageShape::new(1, 1, n), DType::F64, 9)).remove(0);
    let norm = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
    for (dtype, scale) in [(DType::F64, 1.0), (DType::F64, 1e6), (DType::F32, 1e-3)] {
        let weight: Vec<f64> = direction.iter().map(|v| v * scale).collect();
        let network = linear(&weight, 3.0, dtype);
        let a = points(50, ImageShape::new(1, 1, n), DType::F64, 10);
        for shift in [1e-3, 0.5, 20.0] {
            let step: Vec<f64> = direction.iter().map(|v| -v / norm * shift).collect();
            let step = Tensor::from_vec(step, (1, 1, 1, n), &Device::Cpu).unwrap();
            let b = a.broadcast_add(&step).unwrap();
            // what b really is, after rounding
            let (x, y) = (rows(&a), rows(&b));
            let moved =
                |i: usize| x[i].iter().zip(&y[i]).map(|(p, q)| (p - q).powi(2)).sum::<f64>().sqrt();
            let exact = (0..50).map(moved).sum::<f64>() / 50.0;
            let got = estimate(&network, &a, &b);
            // f32 turns the direction by an angle of about its roundoff, which counts squared
            let allowed = exact * 1e-10 + 2.0 * got.rounding_error / got.lipschitz;
            assert!(got.value <= exact && got.value >= exact - allowed, "{got:?}, {exact}");
        }
    }
}

#[test]
fn scale_and_bias_of_the_critic_do_not_matter() {
    let (a, b) = (points(30, INPUT, DType::F64, 5), points(20, INPUT, DType::F64, 6));
    let b = (b + 0.3).unwrap();
    let network = mixed_critic([1.0; 3], DType::F64, 4);
    let reference = estimate(&network, &a, &b);
    for (factor, offset) in [(4.0, 0.0), (1e-5, 0.0), (1.0, 7.0), (300.0, -2.0)] {
        let mut layers = network.layers().to_vec();
        let Some(PlainLayer::Dense(last)) = layers.pop() else { panic!("the head is dense") };
        let weight = (last.weight() * factor).unwrap();
        let bias = last.bias().map(|bias| ((bias * factor).unwrap() + offset).unwrap());
        layers.push(PlainLayer::Dense(Dense::new(weight, bias).unwrap()));
        let got = estimate(&PlainNetwork::new(INPUT, layers).unwrap(), &a, &b);
        let close = |x: f64, y: f64| (x - y).abs() <= 1e-11 * y.abs().max(0.1);
        assert!(close(got.value, reference.value), "{got:?} and {reference:?}");
        assert!(close(got.standard_error, reference.standard_error));
    }
}

#[test]
fn batches_add_up_to_the_whole() {
    let network = mixed_critic([1.0; 3], DType::F32, 4);
    let critic = Critic::new(&network).unwrap();
    let (a, b) = (points(70, INPUT, DType::F32, 5), points(41, INPUT, DType::F32, 6));
    let whole = critic.estimate(&a, &b).unwrap();
    let mut estimator = critic.estimator();
    for start in [0, 10, 20, 30, 40, 50, 60] {
        estimator.add_a(&a.narrow(0, start, 10).unwrap()).unwrap();
    }
    for (start, n) in [(0, 1), (1, 20), (21, 0), (21, 20)] {
        estimator.add_b(&b.narrow(0, start, n).unwrap()).unwrap();
    }
    assert_eq!(estimator.n_samples(), (70, 41));
    let got = estimator.finish().unwrap();
    assert!((got.value - whole.value).abs() <= 1e-12, "{got:?} and {whole:?}");
    assert!((got.standard_error - whole.standard_error).abs() <= 1e-12);
    assert_eq!((got.n_a, got.n_b, got.lipschitz), (whole.n_a, whole.n_b, whole.lipschitz));

    // the standard error by its definition
    let variance = |images: &Tensor| {
        let values = critic.evaluate(images).unwrap().values;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0) / n
    };
    let expected = (variance(&a) + variance(&b)).sqrt() / whole.lipschitz;
    assert!((whole.standard_error / expected - 1.0).abs() < 1e-10);
}

/// Of 1000 bounds at 95 %, about 950 are below the expectation: for normal samples and n = 100 Student's t differs from the
/// normal distribution by 0.2 %.
#[test]
fn confidence_bounds_cover_as_often_as_they_say() {
    let critic = Critic::new(&linear(&[1.0], 0.0, DType::F64)).unwrap();
    let rng = &mut rng(77);
    let mut draw = |mean: f64, deviation: f64| {
        let sample = (0..100).map(|_| {
            let z: f64 = StandardNormal.sample(rng);
            mean + deviation * z
        });
        Tensor::from_vec(sample.collect::<Vec<_>>(), (100, 1, 1, 1), &Device::Cpu).unwrap()
    };
    let (mut covered, n_runs) = (0, 1000);
    for _ in 0..n_runs {
        let got = critic.estimate(&draw(2.0, 1.0), &draw(0.5, 3.0)).unwrap();
        covered += usize::from(got.confidence_bound(0.95).unwrap() <= 1.5);
    }
    // four binomial standard deviations
    assert!((920..=980).contains(&covered), "{covered}");
}

#[test]
fn confidence_bounds_are_ordered() {
    let (a, b) = (points(30, INPUT, DType::F64, 5), points(20, INPUT, DType::F64, 6));
    let got = estimate(&mixed_critic([1.0; 3], DType::F64, 4), &a, &b);
    let bound = |confidence| got.confidence_bound(confidence).unwrap();
    assert!((bound(0.5) - got.value).abs() <= 1e-14);
    assert!(bound(0.99) < bound(0.95) && bound(0.95) < got.value && got.value < bound(0.1));
    let expected = got.value - 1.644_853_626_951_473 * got.standard_error;
    assert!((bound(0.95) - expected).abs() < 1e-12);
}

#[test]
fn the_rounding_error_is_small_and_covers_another_order_of_summation() {
    let network = mixed_critic([1.0; 3], DType::F32, 4);
    let critic = Critic::new(&network).unwrap();
    let images = points(40, INPUT, DType::F32, 5);
    let values = critic.evaluate(&images).unwrap();
    let wide = network.to_dtype(DType::F64).unwrap();
    let other = rows(&wide.forward(&images.to_dtype(DType::F64).unwrap()).unwrap());
    for ((value, error), other) in values.values.iter().zip(&values.errors).zip(other) {
        assert!(*error > 0.0 && *error < 1e-11, "{error}");
        assert!((value - other[0]).abs() <= 2.0 * error);
    }
}

#[test]
fn a_constant_critic_says_nothing() {
    let network = linear(&[0.0, 0.0], 3.0, DType::F64);
    let input = ImageShape::new(1, 1, 2);
    let (a, b) = (points(3, input, DType::F64, 1), points(3, input, DType::F64, 2));
    let got = estimate(&network, &a, &b);
    assert!(got.value <= 0.0 && got.value.is_finite() && got.standard_error == 0.0, "{got:?}");
}

#[track_caller]
fn says<T: std::fmt::Debug>(result: Result<T, Error>, text: &str) {
    assert_eq!(result.unwrap_err().to_string(), text);
}

#[test]
fn what_is_not_an_estimate_is_refused() {
    let two = crate::common::mixed_network([1.0; 4], DType::F32, 1);
    says(Critic::new(&two), "the network has 5 outputs, expected 1 for a critic");
    let network = mixed_critic([1.0; 3], DType::F32, 4);
    let critic = Critic::new(&network).unwrap();
    let images = points(4, INPUT, DType::F32, 5);
    says(
        critic.estimate(&images, &images.narrow(0, 0, 1).unwrap()),
        "1 samples of distribution B, expected at least 2",
    );
    says(critic.estimator().finish(), "0 samples of distribution A, expected at least 2");
    says(
        critic.evaluate(&images.narrow(3, 0, 4).unwrap()),
        "batch of images has shape [4, 2, 6, 4], expected b x 2 x 6 x 8",
    );
    says(
        critic.evaluate(&(images.abs().unwrap() / 0.0).unwrap()),
        "sample 0: the image contains inf, expected finite values",
    );
    let huge = (images.to_dtype(DType::F64).unwrap() * 1e308).unwrap();
    assert!(critic.evaluate(&huge).is_err(), "a sum overflows");
    let got = critic.estimate(&images, &images).unwrap();
    for confidence in [0.0, 1.0, f64::NAN] {
        let text = format!("confidence is {confidence}, expected a number between 0 and 1");
        says(got.confidence_bound(confidence), &text);
    }
}

/// The optimal critics of the first three anchors, on samples.
#[test]
fn known_critics_reach_the_exact_distances() {
    let anchors = Anchor::all(3).unwrap();
    let values = |side: &ExactDistribution, f: &dyn Fn(&[f32]) -> f64| -> f64 {
        let n = side.n_held_out(SamplePart::Report).unwrap_or(2000);
        let samples = side.held_out(SamplePart::Report, 0..n).unwrap().flatten_all().unwrap();
        let samples = samples.to_vec1::<f32>().unwrap();
        samples.chunks(64).map(f).sum::<f64>() / n as f64
    };
    let norm = |x: &[f32]| euclidean_distance(x, &[0.0; 64]);
    let circles = &anchors[2];
    let found = values(&circles.b, &norm) - values(&circles.a, &norm);
    assert!((found - circles.exact).abs() < 1e-4, "{found}");
    let gaussians = &anchors[1];
    let mean = |side: &ExactDistribution, i: usize| values(side, &|x| f64::from(x[i]));
    let shift: f64 = (0..64)
        .map(|i| (mean(&gaussians.a, i) - mean(&gaussians.b, i)).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!((shift - gaussians.exact).abs() < 0.1, "{shift}");
    assert!((anchors[0].exact - 2.0).abs() < 1e-6);
}

/// A linear critic along the shift of the Gaussians, by the command that a critic of one's own would be measured with.
#[test]
fn a_critic_is_measured_between_distributions() {
    let gaussians = &Anchor::all(5).unwrap()[1];
    let [a, b] = [&gaussians.a, &gaussians.b].map(|side| {
        let samples = side.held_out(SamplePart::Select, 0..4000).unwrap().flatten_from(1).unwrap();
        samples.mean(0).unwrap().to_vec1::<f32>().unwrap()
    });
    let weight: Vec<f64> = a.iter().zip(&b).map(|(x, y)| f64::from(x - y)).collect();
    let weight = Tensor::from_vec(weight, (1, 64), &Device::Cpu).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
    let critic =
        Critic::new(&PlainNetwork::new(ImageShape::new(1, 8, 8), layers).unwrap()).unwrap();
    let report = SamplePart::Report;
    let found = critic.estimate_between(&gaussians.a, &gaussians.b, report, 1000).unwrap();
    assert_eq!((found.n_a, found.n_b), (1000, 1000));
    gaussians.check(found.value, found.standard_error).unwrap();
    assert!(found.value > 0.9 * gaussians.exact, "{found:?}");
    // points are a population: measured whole, nothing is left to chance; in part, it is
    let points = &Anchor::all(5).unwrap()[3];
    let [whole, part] = [8, 7]
        .map(|n| critic.estimate_between(&points.a, &points.b, report, n).unwrap().standard_error);
    assert!(whole == 0.0 && part > 0.0, "{whole} {part}");
}

#[test]
fn samples_are_a_function_of_their_number() {
    for anchor in Anchor::all(1).unwrap() {
        for side in [&anchor.a, &anchor.b] {
            let of = |part, range| -> Vec<Vec<f32>> {
                let samples = side.held_out(part, range).unwrap().flatten_from(1).unwrap();
                samples.to_vec2().unwrap()
            };
            let all = of(SamplePart::Report, 0..2);
            assert_eq!(of(SamplePart::Report, 1..2)[0], all[1], "{}", side.name());
            let differs = of(SamplePart::Select, 0..2) != all;
            assert_eq!(differs, !side.is_population(), "{}", side.name());
        }
    }
}

#[test]
fn distributions_that_are_none_are_refused() {
    let text = |kind| ExactDistribution::new("x", [1, 1, 2], kind, 0).unwrap_err().to_string();
    assert_eq!(
        text(ExactKind::Points(vec![])),
        "number of values is 0, expected those of whole samples"
    );
    assert_eq!(
        text(ExactKind::Points(vec![0.0; 3])),
        "number of values is 3, expected those of whole samples"
    );
    assert_eq!(
        text(ExactKind::Gaussian(vec![0.0; 4], 1.0)),
        "number of values is 4, expected those of one sample"
    );
    assert_eq!(
        text(ExactKind::Points(vec![0.0, f32::INFINITY])),
        "a value is inf, expected a finite number"
    );
    assert_eq!(
        text(ExactKind::Sphere(-1.0, vec![1.0, 0.0])),
        "deviation or radius is -1, expected a finite number of at least 0"
    );
    let points =
        ExactDistribution::new("x", [1, 1, 2], ExactKind::Points(vec![0.0; 4]), 0).unwrap();
    let text = points.held_out(SamplePart::Report, 1..3).unwrap_err().to_string();
    assert!(text.contains("sample index is 2, expected less than 2, the size of x"), "{text}");
}

#[test]
fn an_estimate_above_the_exact_distance_is_refused() {
    let anchor = &Anchor::all(0).unwrap()[0];
    anchor.check(2.0, 0.0).unwrap();
    anchor.check(2.03, 0.01).unwrap();
    let text = anchor.check(2.1, 0.01).unwrap_err().to_string();
    assert!(
        text.starts_with("two points: the estimate 2.1 exceeds the exact distance 2"),
        "{text}"
    );
    assert!(anchor.check(f64::NAN, 0.01).is_err());
}
