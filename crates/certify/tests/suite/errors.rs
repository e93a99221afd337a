//! Bad input, and what is said about it.

use candle_core::{DType, Device, Tensor};
use certify::{
    Arithmetic, Attack, AttackOutcome, AttackStart, AttackTarget, Certifier, Error,
    EvaluationSettings, ExecutedNetwork, LinearClassifier, Loss, Objective, Pgd, check_soundness,
    evaluate, input_gradient, nominal_radii,
};
use lipconv::{Dense, ImageShape, PlainLayer, PlainNetwork};

use crate::common::mixed_network;

fn images(values: f32) -> Tensor {
    Tensor::full(values, (2, 2, 6, 8), &Device::Cpu).unwrap()
}

fn network() -> PlainNetwork {
    mixed_network([1.0; 4], DType::F32, 50)
}

#[track_caller]
fn check_text<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    assert_eq!(result.unwrap_err().to_string(), expected);
}

fn attack(pgd: Pgd, images: &Tensor, labels: &[usize]) -> Result<AttackOutcome, Error> {
    pgd.run(AttackTarget::new(&network(), images, labels), &mut |_| {})
}

#[test]
fn images_and_labels_must_fit() {
    let certify = |images: &Tensor, labels: &[usize]| {
        Certifier::new(&network()).unwrap().certify(images, labels)
    };
    let half = images(0.5);
    check_text(certify(&half, &[0]), "1 labels, expected 2: one for each sample");
    check_text(certify(&half, &[0, 5]), "sample 1: label 5 is not below the number of classes 5");
    let shape = "batch of images has shape [2, 2, 6, 4], expected b x 2 x 6 x 8";
    check_text(certify(&half.narrow(3, 0, 4).unwrap(), &[0, 0]), shape);
    let flat = Tensor::new(&[0.5f32], &Device::Cpu).unwrap();
    let shape = "batch of images has shape [1], expected b x …";
    check_text(attack(Pgd::paper(0.1, 0), &flat, &[0]), shape);
    let dtype = "batch of images has dtype f64, expected f32";
    let wide = half.to_dtype(DType::F64).unwrap();
    check_text(attack(Pgd::paper(0.1, 0), &wide, &[0, 0]), dtype);
}

#[test]
fn values_must_be_numbers_in_range() {
    let mut values = vec![0.5f32; 192];
    values[100] = f32::NAN;
    let nan = Tensor::from_vec(values, (2, 2, 6, 8), &Device::Cpu).unwrap();
    let certifier = Certifier::new(&network()).unwrap();
    let text = "sample 1: the image contains NaN, expected finite values";
    check_text(certifier.certify(&nan, &[0, 0]), text);
    let text = "sample 1: the pixel NaN is outside [0, 1]";
    check_text(attack(Pgd::paper(0.1, 0), &nan, &[0, 0]), text);
    check_text(
        attack(Pgd::paper(0.1, 0), &images(1.5), &[0, 0]),
        "sample 0: the pixel 1.5 is outside [0, 1]",
    );
}

#[test]
fn weights_that_are_not_numbers_certify_nothing() {
    for bad in [f32::NAN, f32::INFINITY] {
        let weight = Tensor::new(&[[1f32, bad], [0.0, 1.0]], &Device::Cpu).unwrap();
        let layers =
            vec![PlainLayer::Flatten, PlainLayer::Dense(Dense::new(weight, None).unwrap())];
        let network = PlainNetwork::new(ImageShape::new(1, 1, 2), layers);
        let Ok(network) = network else { continue };
        let text = Certifier::new(&network).unwrap_err().to_string();
        assert!(text.starts_with("network: linear1"), "{text}");
    }
}

#[test]
fn settings_have_domains() {
    let half = images(0.5);
    let paper = Pgd::paper(0.1, 0);
    let cases = [
        (Pgd { eps: f64::NAN, ..paper }, "eps is NaN, expected a positive finite number"),
        (Pgd { eps: 0.0, ..paper }, "eps is 0, expected a positive finite number"),
        (Pgd { step_size: -1.0, ..paper }, "step_size is -1, expected a positive finite number"),
        (Pgd { steps: 0, ..paper }, "steps is 0, expected at least 1"),
        (Pgd { batch_size: 0, ..paper }, "batch_size is 0, expected at least 1"),
        (Pgd { restarts: 0, ..paper }, "restarts is 0, expected 1 to 65536"),
        (
            Pgd { restarts: 2, start: AttackStart::Zero, ..paper },
            "restarts is 2, expected 1 with a zero start",
        ),
        (
            Pgd { loss: Loss::CarliniWagner { confidence: -1.0 }, ..paper },
            "confidence is -1, expected a finite number of at least 0",
        ),
    ];
    for (pgd, expected) in cases {
        check_text(attack(pgd, &half, &[0, 0]), expected);
    }
    let evaluate_at = |eps: &[f64], batch_size: usize| {
        let settings = EvaluationSettings { eps, attacks: &[], attack_certified: true, batch_size };
        evaluate(&network(), &half, &[0, 0], &settings, &mut |_| {})
    };
    check_text(evaluate_at(&[-0.5], 1), "eps is -0.5, expected a finite number of at least 0");
    check_text(evaluate_at(&[], 0), "batch_size is 0, expected at least 1");
    let logits = Tensor::zeros((1, 2), DType::F64, &Device::Cpu).unwrap();
    check_text(
        nominal_radii(&logits, &[0], 0.0),
        "lipschitz is 0, expected a positive finite number",
    );
}

#[test]
fn arithmetic_must_hold_the_weights() {
    let wide = mixed_network([1.0; 4], DType::F64, 50);
    let text = "f32 arithmetic cannot execute weights stored in f64, expected f64 arithmetic, or a network \
                converted to f32 first";
    check_text(ExecutedNetwork::new(&wide, Arithmetic::F32), text);
    let half = network().to_dtype(DType::F16).unwrap();
    check_text(Certifier::new(&half), "network has dtype f16, expected f32 or f64");
}

#[test]
fn linear_classifiers_check_their_shapes() {
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let text = "linear weight has shape [3], expected n_classes x n_values";
    check_text(LinearClassifier::new(tensor(&[3]), tensor(&[3])), text);
    let text = "linear bias has shape [2], expected 3";
    check_text(LinearClassifier::new(tensor(&[3, 4]), tensor(&[2])), text);
    let wide = Tensor::zeros(3, DType::F64, &Device::Cpu).unwrap();
    let text = "linear bias has dtype f64, expected f32";
    check_text(LinearClassifier::new(tensor(&[3, 4]), wide), text);
}

/// Two classes with equal rows have no boundary: the label is on top everywhere, or nowhere.
#[test]
fn equal_rows_leave_an_image_without_a_margin_at_distance_0() {
    let weight = Tensor::new(&[[1.0, 0.0], [1.0, 0.0]], &Device::Cpu).unwrap();
    let image = Tensor::new(&[[[[0.5, 0.25]]]], &Device::Cpu).unwrap();
    for (bias, expected) in [(0.0, [0.0, 0.0]), (1.0, [f64::INFINITY, 0.0])] {
        let bias = Tensor::new(&[bias, 0.0], &Device::Cpu).unwrap();
        let classifier = LinearClassifier::new(weight.clone(), bias).unwrap();
        let distance = |label| classifier.distances(&image, &[label]).unwrap()[0];
        assert_eq!([distance(0), distance(1)], expected);
    }
    assert_eq!((certify::margin(&[1.0], 3), certify::is_correct(&[], 0)), (0.0, false));
}

#[test]
fn a_classifier_without_gradient_says_so() {
    let constant = |x: &Tensor| Ok(Tensor::zeros((x.dims()[0], 2), DType::F32, &Device::Cpu)?);
    let objective: &Objective<'_> = &|logits| logits.sum_all();
    let text =
        "the classifier's logits do not depend on its input through differentiable operations";
    check_text(input_gradient(&images(0.5), objective, constant), text);
    let no_shape = |x: &Tensor| Ok(x.reshape((3, 5))?);
    let text = input_gradient(&images(0.5), objective, no_shape).unwrap_err().to_string();
    assert!(text.starts_with("tensor operation failed: "), "{text}");
}

#[test]
fn a_refuted_certificate_names_the_sample() {
    let outcome = AttackOutcome {
        adversarial: images(0.5),
        predictions: vec![1, 3],
        broken: vec![false, true],
        distances: vec![0.5, 0.25],
        parts: Vec::new(),
        flags: Vec::new(),
    };
    let check = |radii: &[f64]| check_soundness("pgd", &outcome, &[1, 2], radii, Arithmetic::F32);
    // only samples that were broken strictly inside their radius count
    check(&[9.0, 0.25]).unwrap();
    check_text(
        check(&[9.0, 0.25f64.next_up()]),
        "unsound certificate: pgd changed the prediction of sample 1 from 2 to 3 at distance 2.5e-1, inside \
         its certified radius 2.5000000000000006e-1 (f32)",
    );
    check_text(check(&[1.0]), "1 radii, expected 2: one for each sample");
}

#[test]
fn rare_errors_read_well() {
    let text = Error::NotRigorous { layer: "conv1".into(), value: 1.5 }.to_string();
    let expected = "conv1: the Lipschitz constant 1.5 is an estimate, expected a rigorous upper bound; an \
                    estimate certifies nothing";
    assert_eq!(text, expected);
    let layer = "linear1".to_string();
    let text = Error::DotTooLong { layer, length: 9, arithmetic: "f32", limit: 8 }.to_string();
    let expected =
        "linear1: dot products of length 9 are too long for f32 arithmetic, expected at most 8";
    assert_eq!(text, expected);
    let source = projectors::LipschitzBound::exact(-1.0).unwrap_err();
    let text = Error::Norm { what: "|conv1.weight|".into(), source }.to_string();
    assert!(text.starts_with("norm of |conv1.weight|: "), "{text}");
}
