//! Cross-entropy with an offset, a temperature, annealing and a training radius: formula, gradients, extremes, refused input.

use candle_core::{DType, Device, Tensor, Var};
use lipconv::loss::PairNorms;
use lipconv::{CrossEntropy, Error, Loss, TrainingRadius};
use ndarray::Array2;

use crate::support::{check_close, eps, sum_tolerance, uniform, values};

const CPU: Device = Device::Cpu;
const N_CLASSES: usize = 5;
const LABELS: [u32; 6] = [0, 4, 2, 2, 1, 3];

fn with(offset: f64, temperature: f64, annealing: f64, radius: Option<f64>) -> Loss {
    let radius = radius.map(|eps| TrainingRadius { start: eps, end: eps });
    Loss::CrossEntropy(CrossEntropy { offset, temperature, annealing, radius })
}

/// Every part of the loss alone and all together.
fn losses() -> [Loss; 7] {
    [
        with(0.0, 1.0, 0.0, None),
        with(2.234, 0.25, 0.0, None),
        with(3.3, 0.5, 0.0, None),
        with(0.5, 0.75, 1.0, None),
        with(2.0, 0.75, 5.0, None),
        with(0.0, 1.0, 0.0, Some(0.4)),
        with(2.0, 0.75, 5.0, Some(0.4)),
    ]
}

fn logits() -> Vec<f64> {
    values(&uniform(&[LABELS.len(), N_CLASSES], -1.5, 1.5, DType::F64, 31))
}

/// The rows of a last weight; the last two are equal.
fn weight() -> Array2<f64> {
    let mut weight = values(&uniform(&[N_CLASSES, 7], -1.0, 1.0, DType::F64, 32));
    weight.copy_within(21..28, 28);
    Array2::from_shape_vec((N_CLASSES, 7), weight).unwrap()
}

/// s of one row of logits.
fn raised(loss: CrossEntropy, logits: &[f64], label: usize, pairs: &PairNorms) -> Vec<f64> {
    let eps = loss.radius.map_or(0.0, |radius| radius.start);
    let of = |(j, y): (usize, &f64)| {
        let norm = pairs.get(label, j);
        let share = ((logits[label] - y) / (norm * eps)).clamp(0.01, 1.0);
        if j == label || norm * eps == 0.0 { 0.0 } else { share * eps * norm }
    };
    logits.iter().enumerate().map(of).collect()
}

/// The loss of one row of logits, term by term and without a shift.
fn by_definition(loss: CrossEntropy, logits: &[f64], label: usize, raised: &[f64]) -> f64 {
    let CrossEntropy { offset, temperature, annealing, .. } = loss;
    let z = |j: usize| logits[j] + raised[j] - if j == label { offset } else { 0.0 };
    let sum: f64 = (0..logits.len()).map(|j| (z(j) / temperature).exp()).sum();
    let p = (z(label) / temperature).exp() / sum;
    (1.0 - p).powf(annealing) * temperature * -p.ln()
}

#[test]
fn values_are_those_of_the_definition() {
    let pairs = PairNorms::of_rows(weight().view());
    let logits = logits();
    for loss in losses() {
        let Loss::CrossEntropy(settings) = loss else { unreachable!() };
        let rows = logits.chunks_exact(N_CLASSES).zip(LABELS.map(|label| label as usize));
        let expected = rows.map(|(row, label)| {
            by_definition(settings, row, label, &raised(settings, row, label, &pairs))
        });
        let expected = expected.sum::<f64>() / LABELS.len() as f64;
        let got = loss.evaluate_with_pairs(&logits, &LABELS, N_CLASSES, Some(&pairs));
        let got = got.unwrap().value;
        let allowed = sum_tolerance(DType::F64, logits.len(), expected);
        assert!((got - expected).abs() <= allowed, "{loss:?}: {got} and {expected}");
    }
}

/// 0.25 * F.cross_entropy((y - 2.234 * onehot) / 0.25) in decimal arithmetic of 40 digits.
#[test]
fn the_loss_of_two_samples_is_known() {
    let logits = [1.0, -0.5, 0.25, -2.0, 3.0, 0.125];
    let value = with(2.234, 0.25, 0.0, None).evaluate(&logits, &[0, 1], 3).unwrap();
    let expected = 0.757_661_475_038_785_5;
    assert!((value.value - expected).abs() <= 8.0 * f64::EPSILON, "{}", value.value);
    assert_eq!(value.n_correct, 2);
}

/// Central differences with one step of Richardson's extrapolation: an error of h⁴.
fn difference(f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-3;
    let central = |h: f64| (f(h) - f(-h)) / (2.0 * h);
    (4.0 * central(h / 2.0) - central(h)) / 3.0
}

/// The raise of the competing logits stays as it is: its share of the training radius is a constant of the gradient.
#[test]
fn gradients_are_those_of_finite_differences() {
    let pairs = PairNorms::of_rows(weight().view());
    let logits = logits();
    for loss in losses() {
        let Loss::CrossEntropy(settings) = loss else { unreachable!() };
        let got = loss.evaluate_with_pairs(&logits, &LABELS, N_CLASSES, Some(&pairs)).unwrap();
        for (n, (row, label)) in logits.chunks_exact(N_CLASSES).zip(LABELS).enumerate() {
            let raised = raised(settings, row, label as usize, &pairs);
            for class in 0..N_CLASSES {
                let moved = |h: f64| {
                    let mut row = row.to_vec();
                    row[class] += h;
                    by_definition(settings, &row, label as usize, &raised)
                };
                let expected = difference(moved) / LABELS.len() as f64;
                let error = (got.d_logits[n * N_CLASSES + class] - expected).abs();
                assert!(error <= 1e-9, "{loss:?}, sample {n}, class {class}: off by {error:e}");
            }
        }
    }
}

/// Closed forms and candle's graph agree, in the logits and in the last weight.
#[test]
fn closed_forms_are_those_of_the_graph() {
    for device in &crate::portable::devices() {
        for dtype in [DType::F32, DType::F64] {
            for loss in losses() {
                check_graph(&loss, dtype, device);
            }
        }
    }
}

fn check_graph(loss: &Loss, dtype: DType, device: &Device) {
    let on_device = |shape: &[usize], data: Vec<f64>| {
        let tensor = Tensor::from_vec(data, shape, &CPU).unwrap().to_dtype(dtype).unwrap();
        Var::from_tensor(&tensor.to_device(device).unwrap()).unwrap()
    };
    let logits = on_device(&[LABELS.len(), N_CLASSES], logits());
    let weight = on_device(&[N_CLASSES, 7], weight().into_raw_vec_and_offset().0);
    let stored = |v: &Var| values(&v.as_tensor().to_device(&CPU).unwrap());
    let rows = Array2::from_shape_vec((N_CLASSES, 7), stored(&weight)).unwrap();
    let pairs = PairNorms::of_rows(rows.view());
    let closed = loss.evaluate_with_pairs(&stored(&logits), &LABELS, N_CLASSES, Some(&pairs));
    let closed = closed.unwrap();
    let labels = Tensor::new(&LABELS, device).unwrap();
    let graph = loss.forward_with_weight(logits.as_tensor(), &labels, Some(weight.as_tensor()));
    let graph = graph.unwrap();
    let store = graph.backward().unwrap();
    let allowed = sum_tolerance(dtype, N_CLASSES, 1.0 / smallest_temperature(loss));
    let close = |what: &str, got: Option<&Tensor>, expected: &[f64]| {
        let zeros = || Tensor::zeros(expected.len(), DType::F64, &CPU).unwrap();
        let got = got.map_or_else(zeros, |t| t.to_device(&CPU).unwrap().flatten_all().unwrap());
        let expected = Tensor::new(expected, &CPU).unwrap();
        let got = got.to_dtype(DType::F64).unwrap();
        check_close(&format!("{what} of {loss:?} {dtype:?}"), &got, &expected, allowed);
    };
    close("value", Some(&graph), &[closed.value]);
    close("gradient", store.get(logits.as_tensor()), &closed.d_logits);
    if loss.needs_pairs() {
        let pulled = pairs.pull_back(rows.view(), &closed.d_pairs);
        close("weight gradient", store.get(weight.as_tensor()), pulled.as_slice().unwrap());
    } else {
        assert!(closed.d_pairs.is_empty());
    }
}

/// The quotient by which a small temperature enlarges a rounding of the logits.
fn smallest_temperature(loss: &Loss) -> f64 {
    match loss {
        Loss::CrossEntropy(settings) => settings.temperature.min(1.0),
        _ => 1.0,
    }
}

/// The gradient of a weighted sum of the distances.
#[test]
fn distances_are_pulled_back_to_the_rows() {
    let weight = weight();
    let pairs = PairNorms::of_rows(weight.view());
    let factors = values(&uniform(&[N_CLASSES * N_CLASSES], -1.0, 1.0, DType::F64, 33));
    let pulled = pairs.pull_back(weight.view(), &factors);
    for place in 0..weight.len() {
        let (row, column) = (place / 7, place % 7);
        // the root of a square has no derivative where two rows are equal
        if row >= 3 {
            continue;
        }
        let sum = |h: f64| {
            let mut moved = weight.clone();
            moved[[row, column]] += h;
            let pairs = PairNorms::of_rows(moved.view());
            let places = (0..N_CLASSES).flat_map(|t| (0..N_CLASSES).map(move |j| (t, j)));
            places.zip(&factors).map(|((t, j), factor)| factor * pairs.get(t, j)).sum::<f64>()
        };
        let error = (pulled[[row, column]] - difference(sum)).abs();
        assert!(error <= 1e-10, "row {row}, column {column}: off by {error:e}");
    }
}

#[test]
fn extreme_logits_give_finite_losses_on_every_path() {
    for loss in losses() {
        for size in [1e-30_f64, 1e3, 1e30] {
            for label in [0u32, 1] {
                let logits = [size, -size, 0.0, size / 2.0, -size];
                let pairs = PairNorms::of_rows(weight().view());
                let wide = loss.evaluate_with_pairs(&logits, &[label], N_CLASSES, Some(&pairs));
                let wide = wide.unwrap();
                assert!(wide.value.is_finite() && wide.value >= 0.0, "{loss:?}: {wide:?}");
                assert!(wide.d_logits.iter().all(|d| d.is_finite()), "{loss:?}: {wide:?}");
                let narrow = logits.map(|y| y as f32);
                let narrow = Var::from_tensor(&Tensor::new(&[narrow], &CPU).unwrap()).unwrap();
                let labels = Tensor::new(&[label], &CPU).unwrap();
                let rows: Vec<f32> = weight().iter().map(|w| *w as f32).collect();
                let rows = Tensor::from_vec(rows, (N_CLASSES, 7), &CPU).unwrap();
                let graph = loss.forward_with_weight(narrow.as_tensor(), &labels, Some(&rows));
                let graph = graph.unwrap();
                let got = values(&graph)[0];
                let allowed = 64.0 * eps(DType::F32) * wide.value.max(10.0);
                assert!((got - wide.value).abs() <= allowed, "{loss:?}: {got}, {}", wide.value);
                let store = graph.backward().unwrap();
                let gradient = values(store.get(narrow.as_tensor()).unwrap());
                for (got, expected) in gradient.iter().zip(&wide.d_logits) {
                    assert!((got - expected).abs() <= 1e-4, "{loss:?}: {got} and {expected}");
                }
            }
        }
    }
}

/// A sample that wins by far has no loss to speak of, and not less than nothing.
#[test]
fn small_losses_keep_their_digits() {
    let value = with(0.0, 1.0, 0.0, None).evaluate(&[40.0, 0.0], &[0], 2).unwrap();
    let expected = (-40f64).exp();
    assert!((value.value / expected - 1.0).abs() < 1e-14, "{}", value.value);
    assert!((value.d_logits[1] / expected - 1.0).abs() < 1e-14);
    assert_eq!(value.d_logits[0], -value.d_logits[1]);
}

#[test]
fn the_training_radius_rises_over_the_first_half() {
    let radius = TrainingRadius { start: 0.1, end: 0.5 };
    for (progress, expected) in [(0.0, 0.1), (0.25, 0.3), (0.5, 0.5), (1.0, 0.5)] {
        assert!((radius.at(progress) - expected).abs() < 1e-15);
    }
    let rising =
        CrossEntropy { radius: Some(radius), ..CrossEntropy::for_radius(36.0 / 255.0, 0.25) };
    assert!((rising.offset - 8f64.sqrt() * 36.0 / 255.0).abs() < 1e-15, "{}", rising.offset);
    let Loss::CrossEntropy(fixed) = Loss::CrossEntropy(rising).at(0.25) else { unreachable!() };
    let expected = radius.at(0.25);
    assert_eq!(fixed.radius, Some(TrainingRadius { start: expected, end: expected }));
    assert_eq!(with(1.0, 1.0, 0.0, None).at(0.3), with(1.0, 1.0, 0.0, None));
}

#[test]
fn settings_outside_their_domain_are_named() {
    let says = |loss: Loss, text: &str| assert_eq!(loss.validate().unwrap_err().to_string(), text);
    says(with(f64::NAN, 1.0, 0.0, None), "offset is NaN, expected a number of at least 0");
    says(with(-1.0, 1.0, 0.0, None), "offset is -1, expected a number of at least 0");
    says(with(1.0, 0.0, 0.0, None), "temperature is 0, expected a positive number");
    says(with(1.0, f64::INFINITY, 0.0, None), "temperature is inf, expected a positive number");
    says(with(1.0, 1.0, 0.5, None), "annealing is 0.5, expected 0 or a number of at least 1");
    says(with(1.0, 1.0, f64::NAN, None), "annealing is NaN, expected 0 or a number of at least 1");
    says(with(1.0, 1.0, 0.0, Some(0.0)), "training radius is 0, expected a positive number");
    losses().iter().for_each(|loss| loss.validate().unwrap());
}

#[test]
fn what_does_not_fit_the_loss_is_refused() {
    let loss = with(1.0, 1.0, 0.0, None);
    let one = loss.check_outputs(1).unwrap_err();
    assert!(matches!(one, Error::NumberOfOutputs { expected: 2, got: 1, .. }), "{one}");
    let tensor = Tensor::zeros((3, 1), DType::F32, &Device::Cpu).unwrap();
    let labels = Tensor::zeros(3, DType::U32, &Device::Cpu).unwrap();
    assert_eq!(loss.forward(&tensor, &labels).unwrap_err().to_string(), one.to_string());
    let label = loss.evaluate(&[0.0, 1.0], &[2], 2);
    assert!(matches!(label, Err(Error::LabelOutOfRange { index: 0, label: 2, n_classes: 2 })));
    let infinite = loss.evaluate(&[0.0, f64::INFINITY], &[1], 2);
    assert!(matches!(infinite, Err(Error::NonFinite { index: 1, .. })));
    let radius = with(1.0, 1.0, 0.0, Some(0.1));
    assert!(matches!(radius.evaluate(&[0.0, 1.0], &[1], 2), Err(Error::NoLastWeight)));
    let pairs = PairNorms::of_rows(weight().view());
    let other = radius.evaluate_with_pairs(&[0.0, 1.0], &[1], 2, Some(&pairs));
    assert!(matches!(other, Err(Error::ShapeMismatch { .. })));
    let text = serde_json::to_string(&radius).unwrap();
    assert_eq!(serde_json::from_str::<Loss>(&text).unwrap(), radius);
    let short = r#"{"type":"cross-entropy","offset":1.0,"temperature":1.0}"#;
    assert_eq!(serde_json::from_str::<Loss>(short).unwrap(), loss);
    let unknown = r#"{"type":"cross-entropy","offset":1.0,"temperature":1.0,"beta":2.0}"#;
    assert!(serde_json::from_str::<Loss>(unknown).unwrap_err().to_string().contains("beta"));
}
