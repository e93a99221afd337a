//! Boundary and pointwise attack: how near they come where the truth is known, and what decides them.

use candle_core::{DType, Tensor};
use certify::{
    Attack, AttackOutcome, AttackProgress, AttackTarget, Boundary, Classifier, LinearClassifier,
    Pointwise, Replay, Stopping, TracedAttack,
};
use lipconv::ImageShape;
use rand::Rng;

use crate::common::{images, largest_difference, mixed_network, predictions, rng, rows, uniform};

const INPUT: ImageShape = ImageShape::new(2, 3, 4);
const ANY_EPS: f64 = 1e-9;

fn boundary() -> Boundary {
    Boundary { steps: 400, ..Boundary::new(ANY_EPS, 0) }
}

/// A linear model on images in the middle of the range of pixels, with labels and boundary distances.
fn linear(dtype: DType) -> (LinearClassifier, Tensor, Vec<usize>, Vec<f64>) {
    let rng = &mut rng(60);
    let weight = uniform(&[4, INPUT.n_values()], 1.0, dtype, rng);
    let classifier = LinearClassifier::new(weight, uniform(&[4], 0.1, dtype, rng)).unwrap();
    let images = images(12, INPUT, dtype, rng).affine(0.1, 0.45).unwrap();
    let labels = predictions(&classifier, &images);
    let distances = classifier.distances(&images, &labels).unwrap();
    (classifier, images, labels, distances)
}

fn run(
    attack: &dyn Attack,
    classifier: &dyn Classifier,
    images: &Tensor,
    labels: &[usize],
) -> AttackOutcome {
    attack.run(AttackTarget::new(classifier, images, labels), &mut |_| {}).unwrap()
}

#[test]
fn boundary_comes_near_the_distance_of_a_linear_model() {
    for dtype in [DType::F32, DType::F64] {
        let (classifier, images, labels, distances) = linear(dtype);
        let outcome = run(&boundary(), &classifier, &images, &labels);
        for (i, (&found, &distance)) in outcome.distances.iter().zip(&distances).enumerate() {
            assert!(found >= distance * (1.0 - 1e-5), "{i}: {found} {distance}");
        }
        // a walk may end at the boundary of another class than the nearest
        let near = outcome.distances.iter().zip(&distances).filter(|(f, d)| **f < 1.1 * **d);
        assert!(near.count() >= 9, "{:?} {distances:?}", outcome.distances);
        assert!(outcome.broken.iter().all(|&broken| !broken));
    }
}

#[test]
fn pointwise_ends_where_no_single_value_can_be_reset() {
    let (classifier, images, labels, distances) = linear(DType::F64);
    let outcome = run(&Pointwise::new(ANY_EPS, 0), &classifier, &images, &labels);
    let originals = rows(&images);
    for (i, row) in rows(&outcome.adversarial).iter().enumerate() {
        assert!(outcome.distances[i] >= distances[i] && outcome.distances[i].is_finite());
        for idx in (0..row.len()).filter(|&idx| row[idx] != originals[i][idx]) {
            let mut reset = row.clone();
            reset[idx] = originals[i][idx];
            let reset = Tensor::from_vec(reset, (1, 2, 3, 4), images.device()).unwrap();
            assert_eq!(predictions(&classifier, &reset), [labels[i]], "sample {i} value {idx}");
        }
        // few values suffice, which is what the attack is about
        let n_changed = row.iter().zip(&originals[i]).filter(|(a, b)| a != b).count();
        assert!(n_changed <= INPUT.n_values() / 2, "{n_changed}");
    }
}

#[test]
fn reported_images_do_what_is_reported() {
    let network = mixed_network([1.0; 4], DType::F32, 61);
    let images = images(20, network.input(), DType::F32, &mut rng(62));
    let mut labels = predictions(&network, &images);
    labels[3] = (labels[3] + 1) % 5;
    let attacks: [&dyn Attack; 2] =
        [&Boundary { eps: 0.4, steps: 300, ..boundary() }, &Pointwise::new(0.4, 0)];
    for attack in attacks {
        let outcome = run(attack, &network, &images, &labels);
        for (i, y) in rows(&network.logits(&outcome.adversarial).unwrap()).iter().enumerate() {
            // a search ends at the boundary, where another batch may round to the other side
            let slack = 100.0 * f64::from(f32::EPSILON);
            assert!(y[outcome.predictions[i]] >= y[labels[i]] - slack, "sample {i}");
        }
        let n_broken = outcome.broken.iter().filter(|&&b| b).count();
        assert!((2..20).contains(&n_broken), "{} broke {n_broken}", attack.name());
        assert!(outcome.broken[3] && outcome.distances[3] == 0.0, "a mistake is broken as it is");
        let pairs = rows(&outcome.adversarial).into_iter().zip(rows(&images)).enumerate();
        for (i, (row, original)) in pairs {
            assert!(row.iter().all(|v| (0.0..=1.0).contains(v)));
            assert_eq!(outcome.broken[i], outcome.distances[i] <= 0.4, "sample {i}");
            // where neither noise nor another image has another class, there is nothing to start from
            let found = outcome.distances[i].is_finite();
            assert_eq!(outcome.predictions[i] != labels[i], found, "sample {i}");
            let d = row.iter().zip(&original).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            let reported = if found { outcome.distances[i] } else { 0.0 };
            assert!(d <= reported && reported <= d * (1.0 + 1e-12));
        }
    }
}

#[test]
fn seeds_decide_and_batches_do_not() {
    let (classifier, images, labels, _) = linear(DType::F64);
    let [a, b, c] = [(7, 0), (3, 0), (7, 1)].map(|(batch_size, seed)| {
        let boundary = Boundary { batch_size, seed, steps: 60, ..boundary() };
        let pointwise = Pointwise { batch_size, ..Pointwise::new(ANY_EPS, seed) };
        let attacks: [&dyn Attack; 2] = [&boundary, &pointwise];
        attacks.map(|attack| run(attack, &classifier, &images, &labels))
    });
    for attack in 0..2 {
        assert_eq!(largest_difference(&a[attack].adversarial, &b[attack].adversarial), 0.0);
        assert_eq!(a[attack].distances, b[attack].distances);
        assert!(largest_difference(&a[attack].adversarial, &c[attack].adversarial) > 1e-6);
    }
}

#[test]
fn stopping_early_changes_no_verdict() {
    let (classifier, images, labels, distances) = linear(DType::F64);
    let mut sorted = distances.clone();
    sorted.sort_by(f64::total_cmp);
    let eps = 1.2 * sorted[6];
    let [early, never] = [Stopping::WhenBroken, Stopping::Never].map(|stopping| {
        run(&Boundary { eps, stopping, ..boundary() }, &classifier, &images, &labels)
    });
    assert_eq!(early.broken, never.broken);
    assert!(early.broken.iter().any(|&b| b) && early.broken.iter().any(|&b| !b));
    assert!(early.distances.iter().zip(&never.distances).all(|(e, n)| n <= e));
    assert!(early.distances.iter().zip(&never.distances).any(|(e, n)| n < e));
}

#[test]
fn a_budget_ends_a_search() {
    let (classifier, images, labels, _) = linear(DType::F64);
    let mut n_reports = 0;
    let attack = Boundary { max_queries: 25, batch_size: 100, ..boundary() };
    let outcome = attack
        .run(AttackTarget::new(&classifier, &images, &labels), &mut |_| n_reports += 1)
        .unwrap();
    assert!((25..=27).contains(&n_reports), "{n_reports}");
    let longer = run(&Boundary { max_queries: 2000, ..attack }, &classifier, &images, &labels);
    assert!(outcome.distances.iter().zip(&longer.distances).all(|(a, b)| a >= b));
    assert!(outcome.distances.iter().zip(&longer.distances).any(|(a, b)| a > b));
}

/// A model that takes all noise for class 0: its logit grows with the variation of neighbouring pixels.
#[derive(Debug)]
struct NoiseIsZero(LinearClassifier);

impl Classifier for NoiseIsZero {
    fn n_classes(&self) -> usize {
        2
    }

    fn device(&self) -> &candle_core::Device {
        self.0.device()
    }

    fn dtype(&self) -> DType {
        DType::F64
    }

    fn logits(&self, images: &Tensor) -> certify::Result<Tensor> {
        let flat = images.flatten_from(1)?;
        let n = flat.dims()[1];
        let steps = (flat.narrow(1, 1, n - 1)? - flat.narrow(1, 0, n - 1)?)?;
        let variation = (steps.abs()?.sum_keepdim(1)? * 10.0)?;
        let brightness = (flat.mean_keepdim(1)? - 0.5)?;
        Ok(Tensor::cat(&[(variation - &brightness)?, brightness], 1)?)
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &certify::Objective<'_>,
    ) -> certify::Result<(Tensor, Tensor)> {
        certify::input_gradient(images, objective, |x| self.logits(x))
    }
}

#[test]
fn where_noise_is_the_label_the_nearest_other_image_is_the_start() {
    let classifier = NoiseIsZero(linear(DType::F64).0);
    let values: Vec<f64> = [0.2, 0.9, 0.7].into_iter().flat_map(|v| [v; 24]).collect();
    let images = Tensor::from_vec(values, (3, 2, 3, 4), classifier.device()).unwrap();
    assert_eq!(predictions(&classifier, &images), [0, 1, 1]);
    let attacks: [&dyn Attack; 2] =
        [&Boundary { steps: 50, ..boundary() }, &Pointwise::new(ANY_EPS, 0)];
    for attack in attacks {
        let outcome = run(attack, &classifier, &images, &[0, 1, 1]);
        // from image 2, 0.5 brighter in each of 24 values, and nearer from there on
        assert!(outcome.distances[0] <= 0.5 * 24f64.sqrt() + 1e-9, "{:?}", outcome.distances);
        assert_eq!(outcome.predictions[0], 1);
        // without other images there is nothing to start from
        let alone = run(attack, &classifier, &images.narrow(0, 0, 1).unwrap(), &[0]);
        assert_eq!((alone.distances[0], alone.broken[0]), (f64::INFINITY, false));
        assert_eq!(alone.predictions, [0]);
    }
}

#[test]
fn given_starts_are_used_and_checked() {
    let (classifier, images, labels, _) = linear(DType::F64);
    let other = |t: usize| (0..labels.len()).find(|&i| labels[i] != t).unwrap();
    let order: Vec<u32> = labels.iter().map(|&t| other(t) as u32).collect();
    let starts = images.index_select(&Tensor::new(order, images.device()).unwrap(), 0).unwrap();
    let attack = Boundary { max_queries: 1, ..boundary() };
    let target = AttackTarget::new(&classifier, &images, &labels);
    let from = |attack: &dyn TracedAttack, starts: &Tensor| {
        let replay = Replay { starts: Some(starts), ..Replay::default() };
        attack.run_traced(target, replay, &mut |_| {})
    };
    let (outcome, traces) = from(&attack, &starts).unwrap();
    assert_eq!(largest_difference(&outcome.adversarial, &starts), 0.0);
    assert!(traces.iter().enumerate().all(|(i, t)| t.sample == i && t.values.len() == 1));
    let text = "sample 0: the starting image is classified as the sample's own label";
    let attack = Pointwise::new(ANY_EPS, 0);
    let refused = from(&attack, &images);
    assert!(refused.unwrap_err().to_string().starts_with(text));
    let fewer = starts.narrow(0, 0, 3).unwrap();
    let refused = from(&attack, &fewer);
    let text = "batch of starting images has shape [3, 2, 3, 4], expected [12, 2, 3, 4]";
    assert_eq!(refused.unwrap_err().to_string(), text);
}

#[test]
fn walks_are_traced_and_random_numbers_can_be_handed_in() {
    let (classifier, images, labels, _) = linear(DType::F64);
    let target = AttackTarget::new(&classifier, &images, &labels);
    let traced = |attack: &dyn TracedAttack, draws: Option<&[Vec<f64>]>| {
        attack.run_traced(target, Replay { starts: None, draws }, &mut |_| {})
    };
    let boundary = Boundary { steps: 30, ..boundary() };
    let pointwise = Pointwise::new(ANY_EPS, 0);
    let attacks: [&dyn TracedAttack; 2] = [&boundary, &pointwise];
    let rng = &mut rng(61);
    let draws: Vec<Vec<f64>> =
        (0..12).map(|_| (0..60_000).map(|_| rng.random_range(0.0..1.0)).collect()).collect();
    for attack in attacks {
        let [first, second] = [(), ()].map(|()| traced(attack, Some(&draws[..])).unwrap());
        assert_eq!(first.1, second.1);
        assert_eq!(first.0.distances, second.0.distances);
        assert!(first.0.distances.iter().all(|d| d.is_finite()));
        // distances fall, and values that differ become fewer
        for trace in &first.1 {
            assert!(trace.values.len() > 1 && trace.values.windows(2).all(|w| w[1] <= w[0]));
        }
        let other = traced(attack, None).unwrap().0;
        assert!(other.distances.iter().zip(&first.0.distances).any(|(a, b)| a != b));
        let fewer: Vec<Vec<f64>> = draws.iter().map(|values| values[..20].to_vec()).collect();
        let error = traced(attack, Some(&fewer)).unwrap_err().to_string();
        assert!(error.contains("20 random numbers, expected more"), "{error}");
    }
    let walks = traced(&boundary, None).unwrap();
    for (trace, distance) in walks.1.iter().zip(&walks.0.distances) {
        assert_eq!((trace.values.len(), trace.steps.len()), (31, 30));
        assert!((trace.values[30] - distance).abs() < 1e-9 * distance);
    }
}

#[test]
fn progress_ends_at_one_and_settings_have_domains() {
    let (classifier, images, labels, _) = linear(DType::F32);
    let mut seen: Vec<AttackProgress> = Vec::new();
    let attack = Boundary { steps: 5, batch_size: 5, ..boundary() };
    attack.run(AttackTarget::new(&classifier, &images, &labels), &mut |p| seen.push(p)).unwrap();
    assert!(seen.iter().all(|p| p.attack == "boundary" && p.n_samples == 12));
    assert!(seen.iter().all(|p| (0.0..=1.0).contains(&p.fraction)));
    assert_eq!(seen.last().unwrap().fraction, 1.0);
    let check = |attack: &dyn Attack, expected: &str| {
        let error =
            attack.run(AttackTarget::new(&classifier, &images, &labels), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        &Boundary { step_adaptation: 1.0, ..boundary() },
        "step_adaptation is 1, expected a finite number above 1",
    );
    check(
        &Boundary { max_directions: 0, ..boundary() },
        "max_directions is 0, expected at least 1",
    );
    check(
        &Boundary { source_step: f64::NAN, ..boundary() },
        "source_step is NaN, expected a positive finite number",
    );
    check(
        &Pointwise { max_queries: 0, ..Pointwise::new(0.1, 0) },
        "max_queries is 0, expected at least 1",
    );
    check(&Pointwise::new(-0.1, 0), "eps is -0.1, expected a positive finite number");
}
