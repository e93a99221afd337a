//! Certificates: tight where the truth is known, and never refuted.

use candle_core::{DType, Device, Tensor};
use certify::is_correct;
use certify::{
    Arithmetic, Attack, AttackTarget, Certifier, Classifier, ExecutedNetwork, LinearClassifier,
    LogitBound, Loss, Pgd, check_soundness,
};
use lipconv::{Activation, Dense, ImageShape, PlainLayer, PlainNetwork};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::Rng;

use crate::common::{dense, images, mixed_network, predictions, rng, rows, uniform};

const FLAT: ImageShape = ImageShape::new(1, 2, 6);

fn linear(dtype: DType, seed: u64) -> (PlainNetwork, LinearClassifier) {
    let rng = &mut rng(seed);
    let (weight, bias) = (uniform(&[4, 12], 1.0, dtype, rng), uniform(&[4], 0.1, dtype, rng));
    let layer = Dense::new(weight.clone(), Some(bias.clone())).unwrap();
    let network =
        PlainNetwork::new(FLAT, vec![PlainLayer::Flatten, PlainLayer::Dense(layer)]).unwrap();
    (network, LinearClassifier::new(weight, bias).unwrap())
}

#[test]
fn radius_of_a_linear_model_is_its_distance_to_the_boundary() {
    for (seed, dtype) in [(0, DType::F32), (1, DType::F64)] {
        let (network, closed_form) = linear(dtype, seed);
        let images = images(50, FLAT, dtype, &mut rng(seed + 10));
        let labels = predictions(&network, &images);
        let in_f64 = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
        let layer = network.layers()[1].parameters().unwrap();
        let exact = LinearClassifier::new(in_f64(layer.0), in_f64(layer.1.unwrap())).unwrap();
        let distances = exact.distances(&in_f64(&images), &labels).unwrap();
        assert_eq!(closed_form.n_classes(), 4);
        let certificates = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
        for ((&radius, &distance), &nominal) in
            certificates.real.iter().zip(&distances).zip(&certificates.nominal_pairwise)
        {
            // a sum of 12 products in f64 against another, on values near 1
            let slack = 1e-13;
            assert!(radius <= distance + slack && radius >= distance * (1.0 - 1e-12) - slack);
            assert!((nominal - distance).abs() < 1e-12);
        }
        let global = Certifier::new(&network).unwrap().with_logit_bound(LogitBound::Global);
        let global = global.certify(&images, &labels).unwrap();
        assert!(global.real.iter().zip(&certificates.real).all(|(g, p)| g <= p));
        assert!(global.real.iter().zip(&certificates.real).any(|(g, p)| *g < 0.99 * p));
    }
}

/// Random points and PGD iterates just inside the executed radius keep their class, in the arithmetic that was
/// certified.
#[track_caller]
pub(crate) fn check_radius_survives(network: &PlainNetwork, arithmetic: Arithmetic, seed: u64) {
    let rng = &mut rng(seed);
    let executed = ExecutedNetwork::new(network, arithmetic).unwrap();
    let images = images(12, network.input(), executed.dtype(), rng);
    let labels = predictions(&executed, &images);
    let certificates = Certifier::new(network).unwrap().certify(&images, &labels).unwrap();
    let radii = &certificates.executed[&arithmetic];
    assert!(radii.iter().zip(&certificates.real).all(|(e, r)| e <= r));
    assert!(certificates.real.iter().any(|&r| r > 0.0), "seed {seed}: nothing is certified");
    for i in 0..labels.len() {
        if radii[i] == 0.0 {
            continue;
        }
        let image = images.narrow(0, i, 1).unwrap();
        for loss in [Loss::default(), Loss::CrossEntropy] {
            let pgd = Pgd { loss, ..Pgd::strong(0.999 * radii[i], 25, 2, seed) };
            let outcome =
                pgd.run(AttackTarget::new(&executed, &image, &labels[i..=i]), &mut |_| {}).unwrap();
            let radius = &radii[i..=i];
            check_soundness("pgd", &outcome, &labels[i..=i], radius, arithmetic).unwrap();
            assert!(!outcome.broken[0], "arithmetic {} seed {seed} sample {i}", arithmetic.name());
        }
        let batch = sphere(&image, 0.999 * radii[i], 200, rng);
        for logits in rows(&executed.logits(&batch).unwrap()) {
            assert!(is_correct(&logits, labels[i]), "{} seed {seed} sample {i}", arithmetic.name());
        }
    }
}

/// `n` points at distance `r` of an image, up to rounding.
fn sphere(image: &Tensor, r: f64, n: usize, rng: &mut rand_chacha::ChaCha8Rng) -> Tensor {
    let centre = &rows(image)[0];
    let mut points = Vec::with_capacity(n * centre.len());
    for _ in 0..n {
        let d: Vec<f64> = centre.iter().map(|_| rng.random_range(-1.0..=1.0)).collect();
        let norm = d.iter().map(|v| v * v).sum::<f64>().sqrt();
        points.extend(centre.iter().zip(d).map(|(c, d)| c + d * r / norm));
    }
    let mut shape = image.dims().to_vec();
    shape[0] = n;
    Tensor::from_vec(points, shape, &Device::Cpu).unwrap().to_dtype(image.dtype()).unwrap()
}

#[test]
fn no_attack_succeeds_inside_the_executed_radius() {
    // equal, unequal and extreme scales of the layers
    let cases = [[1.0, 1.0, 1.0, 1.0], [30.0, 0.02, 5.0, 0.3], [1e-3, 1e3, 1e-2, 1e2]];
    for (seed, scales) in cases.into_iter().enumerate() {
        let network = mixed_network(scales, DType::F32, seed as u64);
        for arithmetic in Arithmetic::ALL {
            check_radius_survives(&network, arithmetic, seed as u64);
        }
        let network = mixed_network(scales, DType::F64, seed as u64);
        check_radius_survives(&network, Arithmetic::F64, seed as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    /// Whatever the scales of the layers: radii are ordered and survive.
    #[test]
    fn radii_of_any_network_survive(exponents in prop::array::uniform4(-4i32..=4), seed in 0u64..1000) {
        let scales = exponents.map(|e| 4f64.powi(e));
        let network = mixed_network(scales, DType::F32, seed);
        for arithmetic in Arithmetic::ALL {
            check_radius_survives(&network, arithmetic, seed);
        }
    }
}

#[test]
fn more_precise_arithmetic_certifies_more() {
    let network = mixed_network([1.0; 4], DType::F32, 7);
    let images = images(20, network.input(), DType::F32, &mut rng(8));
    let labels = predictions(&network, &images);
    let c = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
    for i in 0..labels.len() {
        let radii @ [tf32, f32, _, accumulated, f64] = Arithmetic::ALL.map(|a| c.executed[&a][i]);
        assert!(radii.is_sorted() && f64 <= c.real[i]);
        assert!(
            f32 > 0.9 * c.real[i] && accumulated > (1.0 - 1e-4) * c.real[i],
            "{f32} {accumulated}"
        );
        assert!(f64 > (1.0 - 1e-9) * c.real[i]);
        assert!(tf32 < f32);
    }
}

/// y = ((x + b) - b), logit by logit: the identity in real arithmetic.
fn hidden_bias(bias: f32) -> PlainNetwork {
    let identity = || Tensor::eye(2, DType::F32, &Device::Cpu).unwrap();
    let layer = |b: f32| {
        let bias = Tensor::new(&[b, b], &Device::Cpu).unwrap();
        PlainLayer::Dense(Dense::new(identity(), Some(bias)).unwrap())
    };
    let layers = vec![
        PlainLayer::Flatten,
        layer(bias),
        PlainLayer::Activation(Activation::Relu),
        layer(-bias),
    ];
    PlainNetwork::new(ImageShape::new(1, 1, 2), layers).unwrap()
}

#[test]
fn a_huge_bias_breaks_the_real_radius_but_not_the_executed_one() {
    // near 5e6 the gap between two f32 numbers is 0.5: (0.2, 0) becomes a tie
    let network = hidden_bias(5e6);
    let image = Tensor::new(&[0.2f32, 0.0], &Device::Cpu).unwrap().reshape((1, 1, 1, 2)).unwrap();
    let certificates = Certifier::new(&network).unwrap().certify(&image, &[0]).unwrap();
    assert!(certificates.real[0] > 0.14);
    for arithmetic in Arithmetic::ALL.into_iter().filter(|a| *a != Arithmetic::F64) {
        assert_eq!(certificates.executed[&arithmetic], [0.0], "{}", arithmetic.name());
    }
    assert!(certificates.executed[&Arithmetic::F64][0] > 0.14);
    let pgd = Pgd { steps: 2, ..Pgd::paper(0.01, 0) };
    let outcome = pgd.run(AttackTarget::new(&network, &image, &[0]), &mut |_| {}).unwrap();
    assert!(outcome.broken[0]);
    let executed = &certificates.executed[&Arithmetic::F32Blocked];
    check_soundness("pgd", &outcome, &[0], executed, Arithmetic::F32Blocked).unwrap();
    let real = &certificates.real;
    let text =
        check_soundness("pgd", &outcome, &[0], real, Arithmetic::F32).unwrap_err().to_string();
    assert!(
        text.starts_with("unsound certificate: pgd changed the prediction of sample 0"),
        "{text}"
    );
}

#[test]
fn overflow_in_f32_leaves_nothing_certified_there() {
    let rng = &mut rng(5);
    let layers = vec![
        PlainLayer::Flatten,
        dense(12, 12, 1e25, DType::F32, rng),
        PlainLayer::Activation(Activation::MaxMin),
        dense(3, 12, 1e25, DType::F32, rng),
    ];
    let network = PlainNetwork::new(FLAT, layers).unwrap();
    let wide = ExecutedNetwork::new(&network, Arithmetic::F64).unwrap();
    let images = images(5, FLAT, DType::F32, rng);
    let labels = predictions(&wide, &images.to_dtype(DType::F64).unwrap());
    let c = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
    assert!(c.real.iter().all(|&r| r > 0.0));
    assert!(c.executed[&Arithmetic::F64].iter().all(|&r| r > 0.0));
    assert_eq!(c.executed[&Arithmetic::F32], [0.0; 5]);
    assert_eq!(c.executed[&Arithmetic::F32AccumulateF64], [0.0; 5]);
}

#[test]
fn mistakes_and_ties_have_no_radius() {
    let (network, _) = linear(DType::F32, 3);
    let images = images(10, FLAT, DType::F32, &mut rng(4));
    let wrong: Vec<usize> = predictions(&network, &images).iter().map(|t| (t + 1) % 4).collect();
    let c = Certifier::new(&network).unwrap().certify(&images, &wrong).unwrap();
    assert!(c.real.iter().chain(&c.margins).chain(&c.nominal).all(|&r| r == 0.0));
    assert!(c.executed.values().flatten().all(|&r| r == 0.0));
    let network = hidden_bias(0.0);
    let tie = Tensor::full(0.5f32, (1, 1, 1, 2), &Device::Cpu).unwrap();
    let c = Certifier::new(&network).unwrap().certify(&tie, &[0]).unwrap();
    assert_eq!((c.real[0], c.nominal[0], c.margins[0]), (0.0, 0.0, 0.0));
}

#[test]
fn the_engine_of_certificates_agrees_with_the_network() {
    // sizes around the chunks that images are processed in
    let network = mixed_network([1.0; 4], DType::F64, 11);
    for n in [0, 1, 7, 64, 65, 130] {
        let images = images(n, network.input(), DType::F64, &mut rng(12));
        let labels = predictions(&network, &images);
        let margins = certify::margins(&network.forward(&images).unwrap(), &labels).unwrap();
        let c = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
        assert_eq!(c.margins.len(), n);
        for (rigorous, margin) in c.margins.iter().zip(&margins) {
            assert!(rigorous <= margin && margin - rigorous < 1e-11, "{rigorous} {margin}");
        }
    }
}

#[test]
fn f32_storage_refuses_images_it_would_round() {
    let network = mixed_network([1.0; 4], DType::F32, 2);
    let image = Tensor::full(0.1f64, (2, 2, 6, 8), &Device::Cpu).unwrap();
    let text = Certifier::new(&network).unwrap().certify(&image, &[0, 0]).unwrap_err().to_string();
    let expected =
        "sample 0: the value 0.1 is not representable in f32, in which tf32 stores its input";
    assert_eq!(text, expected);
    // weights in f64 are executed in f64 alone, where 0.1 is a number like any other
    let certifier = Certifier::new(&mixed_network([1.0; 4], DType::F64, 2)).unwrap();
    assert_eq!(certifier.arithmetics().collect::<Vec<_>>(), [Arithmetic::F64]);
    certifier.certify(&image, &[0, 0]).unwrap();
}

#[test]
fn sums_too_long_for_tf32_leave_the_other_arithmetics() {
    let n = (1 << 20) + 1;
    let weight = Tensor::full(1e-4f32, (2, n), &Device::Cpu).unwrap();
    let layers = vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
    let network = PlainNetwork::new(ImageShape::vector(n), layers).unwrap();
    let held: Vec<Arithmetic> = Certifier::new(&network).unwrap().arithmetics().collect();
    assert_eq!(held, Arithmetic::ALL[1..]);
}
