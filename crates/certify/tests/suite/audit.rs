//! Slopes against what is known, and what becomes of claims.

use candle_core::{DType, Tensor};
use certify::{Certifier, Classifier as _, Slope, SlopeSearch, Verdict};
use lipconv::{Activation, ImageShape, PlainLayer, PlainNetwork};

use crate::common::{dense, images, mixed_network, rng, rows};

fn steepest(network: &PlainNetwork, images: &Tensor) -> (Certifier, Slope) {
    let certifier = Certifier::new(network).unwrap();
    let mut seen = 0;
    let search = SlopeSearch { batch_size: 3, ..SlopeSearch::default() };
    let slope = search.run(network, &certifier, images, &mut |n| seen = n).unwrap();
    assert_eq!(seen, images.dims()[0]);
    (certifier, slope.unwrap())
}

/// Grey images, far from the ends of the pixels' range.
fn grey(n: usize, input: ImageShape, dtype: DType) -> Tensor {
    let noise = images(n, input, dtype, &mut rng(5));
    ((noise * 0.125).unwrap() + 0.4375).unwrap()
}

#[test]
fn the_slope_of_a_linear_network_is_the_norm_of_a_difference_of_rows() {
    for dtype in [DType::F32, DType::F64] {
        let rng = &mut rng(1);
        let layers = vec![PlainLayer::Flatten, dense(5, 2 * 3 * 7, 2.0, dtype, rng)];
        let network = PlainNetwork::new(ImageShape::new(2, 3, 7), layers).unwrap();
        let (certifier, slope) = steepest(&network, &grey(7, network.input(), dtype));
        let (t, j) = slope.classes;
        let truth = certifier.bounds().pair_norm(t, j).unwrap();
        // the first steps stay inside the pixels' range; in f32 their directions are rounded
        assert!(slope.difference <= truth && slope.difference > truth * (1.0 - 1e-6), "{slope:?}");
        assert!(slope.network() <= certifier.bounds().lipschitz());
    }
}

#[test]
fn slopes_lie_below_the_bounds_of_every_pair() {
    for seed in 0..20 {
        let dtype = if seed % 2 == 0 { DType::F32 } else { DType::F64 };
        let network = mixed_network([1.0, 1.5, 1.0, 2.0], dtype, seed);
        let (certifier, slope) =
            steepest(&network, &images(5, network.input(), dtype, &mut rng(seed)));
        let (t, j) = slope.classes;
        assert!(slope.difference <= certifier.difference_constant(t, j), "{slope:?}");
        assert!(slope.network() <= certifier.bounds().lipschitz(), "{slope:?}");
        assert!(slope.difference > 0.0 && slope.sample < 5);
        let constant = |claimed: f64| {
            Verdict::of_constant(claimed, slope.network(), certifier.bounds().lipschitz())
        };
        assert_eq!(constant(certifier.bounds().lipschitz()), Verdict::Proved);
        assert_eq!(constant(slope.network()), Verdict::Open);
        assert_eq!(constant(slope.network() * 0.999), Verdict::Refuted);
    }
}

#[test]
fn differences_are_just_below_those_of_the_logits() {
    let network = mixed_network([1.0; 4], DType::F64, 3);
    let images = images(9, network.input(), DType::F64, &mut rng(3));
    let pairs: Vec<(usize, usize)> = (0..9).map(|i| (i % 5, (i * i + 1) % 5)).collect();
    let certifier = Certifier::new(&network).unwrap();
    let differences = certifier.differences(&images, &pairs).unwrap();
    let logits = rows(&network.logits(&images).unwrap());
    for ((difference, logits), (t, j)) in differences.iter().zip(logits).zip(&pairs) {
        let expected = logits[*t] - logits[*j];
        assert!(*difference <= expected + 1e-14 && *difference > expected - 1e-11, "{expected}");
    }
    let text = certifier.differences(&images, &pairs[1..]).unwrap_err().to_string();
    assert_eq!(text, "8 labels, expected 9: one for each sample");
    let text = certifier.differences(&images, &[(0, 5); 9]).unwrap_err().to_string();
    assert_eq!(text, "sample 0: label 5 is not below the number of classes 5");
}

#[test]
fn a_network_that_does_not_move_has_no_slope() {
    let rng = &mut rng(2);
    // every logit is the same function
    let row = dense(1, 4, 1.0, DType::F64, rng);
    let (weight, _) = row.parameters().unwrap();
    let weight = Tensor::cat(&[weight, weight], 0).unwrap();
    let layers =
        vec![PlainLayer::Flatten, PlainLayer::Dense(lipconv::Dense::new(weight, None).unwrap())];
    let network = PlainNetwork::new(ImageShape::new(1, 2, 2), layers).unwrap();
    let certifier = Certifier::new(&network).unwrap();
    let images = images(3, network.input(), DType::F64, rng);
    let search = SlopeSearch::default();
    assert_eq!(search.run(&network, &certifier, &images, &mut |_| {}).unwrap(), None);
    // one class has no difference
    let layers = vec![
        PlainLayer::Flatten,
        dense(4, 4, 1.0, DType::F64, rng),
        PlainLayer::Activation(Activation::MaxMin),
        dense(1, 4, 1.0, DType::F64, rng),
    ];
    let network = PlainNetwork::new(ImageShape::new(1, 2, 2), layers).unwrap();
    let certifier = Certifier::new(&network).unwrap();
    assert_eq!(search.run(&network, &certifier, &images, &mut |_| {}).unwrap(), None);
    for (search, expected) in [
        (
            SlopeSearch { step: f64::NAN, ..search },
            "length of a step is NaN, expected a positive number",
        ),
        (SlopeSearch { batch_size: 0, ..search }, "batch_size is 0, expected at least 1"),
    ] {
        let error = search.run(&network, &certifier, &images, &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_radius_is_proved_refuted_or_open() {
    let verdict = |nearest| Verdict::of_radius(0.5, 0.4, nearest);
    assert_eq!(Verdict::of_radius(0.5, 0.5, f64::INFINITY), Verdict::Proved);
    assert_eq!(verdict(0.5f64.next_down()), Verdict::Refuted);
    // an image at this very distance is outside
    assert_eq!(verdict(0.5), Verdict::Open);
    assert_eq!(verdict(f64::INFINITY), Verdict::Open);
    // a radius of 0 claims nothing
    assert_eq!(Verdict::of_radius(0.0, 0.0, 0.0), Verdict::Proved);
}
