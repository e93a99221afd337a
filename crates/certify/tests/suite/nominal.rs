//! Nominal radii: the paper's for a last layer of norm 1, and never beyond the true one for any other.

use candle_core::{DType, Device, Tensor};
use certify::{
    Certifier, Classifier, EvaluationSettings, LogitBound, NominalRadius, evaluate, nominal_radii,
};
use lipconv::{Dense, ImageShape, PlainLayer, PlainNetwork};

use crate::common::{dense, images, mixed_network, predictions, rng, rows, uniform};

const CPU: Device = Device::Cpu;
const TWO_PIXELS: ImageShape = ImageShape::new(1, 1, 2);

/// A dense layer of these rows, after `before`.
fn ends_with(input: ImageShape, before: Vec<PlainLayer>, weight: Tensor) -> PlainNetwork {
    let bias = Tensor::zeros(weight.dims()[0], weight.dtype(), &CPU).unwrap();
    let head = PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap());
    PlainNetwork::new(input, before.into_iter().chain([head]).collect()).unwrap()
}

fn linear(rows: [[f64; 2]; 3]) -> PlainNetwork {
    ends_with(TWO_PIXELS, vec![PlainLayer::Flatten], Tensor::new(&rows, &CPU).unwrap())
}

/// Rows of a last layer whose norm is 2 or about that, and one whose rows have norm 1.
fn wide_heads() -> [[[f64; 2]; 3]; 3] {
    let unit = |angle: f64| [angle.cos(), angle.sin()];
    [
        [[2.0, 0.0], [0.0, 2.0], [0.0, 0.0]],
        [[1.5, 0.5], [-1.0, 1.25], [0.25, -0.5]],
        // three vectors within 40 degrees: as a whole of norm 1.6
        [unit(0.1), unit(0.5), unit(0.8)],
    ]
}

/// The distance from an image to the nearest of another class, by a search in 3600 directions.
fn searched_radius(network: &PlainNetwork, image: &[f64], label: usize) -> f64 {
    let directions = (0..3600).map(|n| f64::from(n) * std::f64::consts::TAU / 3600.0);
    let keeps = |angle: f64, length: f64| {
        let moved = [image[0] + length * angle.cos(), image[1] + length * angle.sin()];
        let moved = Tensor::new(&[[[moved]]], &CPU).unwrap();
        predictions(network, &moved) == [label]
    };
    let nearest = |angle: f64| {
        let (mut inside, mut outside) = (0.0, 4.0);
        if keeps(angle, outside) {
            return f64::INFINITY;
        }
        for _ in 0..20 {
            let middle = 0.5 * (inside + outside);
            if keeps(angle, middle) { inside = middle } else { outside = middle }
        }
        outside
    };
    directions.map(nearest).fold(f64::INFINITY, f64::min)
}

#[test]
fn a_search_finds_no_change_inside_the_radius_of_a_linear_model() {
    for rows in wide_heads() {
        let network = linear(rows);
        let pixels = images(4, TWO_PIXELS, DType::F64, &mut rng(3));
        let labels = predictions(&network, &pixels);
        let nominal = NominalRadius::new(&network).unwrap();
        assert_eq!(nominal.logit_bound(), LogitBound::Pairwise);
        let radii = nominal.radii(&network.logits(&pixels).unwrap(), &labels).unwrap();
        for ((image, label), radius) in crate::common::rows(&pixels).iter().zip(labels).zip(radii) {
            let searched = searched_radius(&network, image, label);
            assert!(radius <= searched, "{rows:?}: {radius} and {searched}");
            // the change lies within half a step of the search's directions
            assert!(radius >= 0.999 * searched, "{rows:?}: {radius} and {searched}");
        }
    }
}

/// √2 is wrong there by as much as the norm, and the test above would see it.
#[test]
fn the_papers_radius_is_wrong_for_a_last_layer_of_norm_two() {
    let network = linear(wide_heads()[0]);
    let pixels = Tensor::new(&[[[[0.9, 0.1]]]], &CPU).unwrap();
    let logits = network.logits(&pixels).unwrap();
    let paper = nominal_radii(&logits, &[0], 1.0).unwrap()[0];
    let nominal = NominalRadius::new(&network).unwrap().radii(&logits, &[0]).unwrap()[0];
    assert!((paper / nominal - 2.0).abs() < 1e-9, "{paper} and {nominal}");
}

#[test]
fn an_orthonormal_last_layer_has_the_papers_radius() {
    let rows = [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]];
    for scale in [1.0, 1.0 + 1e-6, 0.5] {
        let weight = (Tensor::new(&rows, &CPU).unwrap() * scale).unwrap();
        let shape = ImageShape::new(1, 1, 3);
        let network = ends_with(shape, vec![PlainLayer::Flatten], weight);
        let pixels = images(20, shape, DType::F64, &mut rng(5));
        let labels = predictions(&network, &pixels);
        let nominal = NominalRadius::new(&network).unwrap();
        assert_eq!(nominal.logit_bound(), LogitBound::Global);
        let logits = network.logits(&pixels).unwrap();
        let paper = nominal_radii(&logits, &labels, 1.0).unwrap();
        assert_eq!(nominal.radii(&logits, &labels).unwrap(), paper);
        let certificates = Certifier::new(&network).unwrap().certify(&pixels, &labels).unwrap();
        assert!(certificates.nominal.iter().zip(&paper).all(|(a, b)| (a - b).abs() < 1e-12));
    }
}

/// Layers of any norm before a last layer of any norm: nominal and proven radii differ by rounding.
#[test]
fn nominal_radii_are_the_proven_ones_up_to_rounding() {
    let scales = [1.0, 2.0, 0.5];
    for (seed, scale) in scales.into_iter().enumerate() {
        let network = mixed_network([scale, 1.0 / scale, scale, 4.0], DType::F64, seed as u64);
        let pixels = images(40, network.input(), DType::F64, &mut rng(seed as u64 + 20));
        let labels = predictions(&network, &pixels);
        let settings = EvaluationSettings {
            eps: &[0.0, 0.01, 0.1],
            attacks: &[],
            attack_certified: true,
            batch_size: 7,
        };
        let found = evaluate(&network, &pixels, &labels, &settings, &mut |_| {}).unwrap();
        let certificates = &found.samples.certificates;
        let logits = network.logits(&pixels).unwrap();
        let alone = NominalRadius::new(&network).unwrap();
        assert_eq!(alone.logit_bound(), LogitBound::Pairwise);
        // sums of another batch size have another order
        let pairs = alone.radii(&logits, &labels).unwrap().into_iter().zip(&certificates.nominal);
        pairs.for_each(|(a, b)| assert!((a - b).abs() <= 1e-12 * b.max(1.0), "{a} and {b}"));
        assert!(certificates.real.iter().filter(|&&r| r > 0.0).count() > 20);
        for (nominal, real) in certificates.nominal.iter().zip(&certificates.real) {
            assert!((nominal - real).abs() <= 1e-9 * real.max(1e-3), "{nominal} and {real}");
        }
        for at in &found.certified {
            assert_eq!(at.nominal, at.nominal_pairwise);
            assert!(at.real <= at.nominal);
        }
    }
}

/// Without a dense last layer there are no pairs, and the norms of all layers count.
#[test]
fn a_last_layer_that_is_not_dense_counts_with_its_norm() {
    let rng = &mut rng(8);
    let input = ImageShape::new(1, 2, 2);
    let conv = crate::common::conv(3, 1, 2, 1, 8.0, DType::F64, rng);
    let network = PlainNetwork::new(input, vec![conv, PlainLayer::Flatten]).unwrap();
    let nominal = NominalRadius::new(&network).unwrap();
    assert_eq!(nominal.logit_bound(), LogitBound::Global);
    let pixels = images(30, input, DType::F64, rng);
    let labels = predictions(&network, &pixels);
    let logits = network.logits(&pixels).unwrap();
    let lipschitz = Certifier::new(&network).unwrap().bounds().lipschitz();
    assert!(lipschitz > 1.5, "{lipschitz}");
    let expected = nominal_radii(&logits, &labels, lipschitz).unwrap();
    let radii = nominal.radii(&logits, &labels).unwrap();
    for (radius, expected) in radii.iter().zip(expected) {
        assert!((radius - expected).abs() <= 1e-12, "{radius} and {expected}");
    }
}

#[test]
fn mistakes_and_equal_rows_have_the_radii_that_they_should() {
    let network = linear([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]);
    let nominal = NominalRadius::new(&network).unwrap();
    let logits = Tensor::new(&[[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [f64::NAN, 0.0, 0.0]], &CPU);
    let logits = logits.unwrap();
    let radii = nominal.radii(&logits, &[0, 0, 0]).unwrap();
    // the first two logits of the first row keep their difference wherever the image goes
    assert!((radii[0] - 2.0 / 8f64.sqrt()).abs() < 1e-12, "{radii:?}");
    assert_eq!(radii[1..], [0.0, 0.0]);
    let narrow = logits.narrow(1, 0, 2).unwrap();
    let text = nominal.radii(&narrow, &[0, 0, 0]).unwrap_err().to_string();
    assert_eq!(text, "logits has shape [3, 2], expected b x 3");
    assert!(nominal.radii(&logits, &[0, 0, 3]).is_err());
}

/// In f32, as networks are trained, with an unconstrained layer before rows of norm 1.
#[test]
fn rows_of_norm_one_in_f32_are_never_certified_beyond_the_truth() {
    let rng = &mut rng(9);
    let input = ImageShape::new(1, 3, 4);
    let before = vec![
        PlainLayer::Flatten,
        dense(8, 12, 3.0, DType::F32, rng),
        PlainLayer::Activation(lipconv::Activation::MaxMin),
    ];
    let free = uniform(&[6, 8], 1.0, DType::F32, rng);
    let norms = free.sqr().unwrap().sum_keepdim(1).unwrap().sqrt().unwrap();
    let network = ends_with(input, before, free.broadcast_div(&norms).unwrap());
    let pixels = images(60, input, DType::F32, rng);
    let labels = predictions(&network, &pixels);
    let certifier = Certifier::new(&network).unwrap();
    assert!(certifier.bounds().layers()[1].lipschitz > 1.2);
    let certificates = certifier.certify(&pixels, &labels).unwrap();
    for (nominal, real) in certificates.nominal.iter().zip(&certificates.real) {
        assert!((nominal - real).abs() <= 1e-9, "{nominal} and {real}");
    }
    let logits = network.logits(&pixels).unwrap();
    let paper = nominal_radii(&logits, &labels, certifier.bounds().lipschitz()).unwrap();
    let sharper = certificates.nominal.iter().zip(&paper).filter(|(n, p)| *n > *p);
    assert!(sharper.count() > rows(&pixels).len() / 2);
}
