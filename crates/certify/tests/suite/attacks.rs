//! Attacks: as strong as the closed form says, inside their ball, and decided by the seed alone.

use candle_core::{DType, Tensor};
use certify::{
    Attack, AttackOutcome, AttackProgress, AttackStart, AttackTarget, Classifier, Fgsm,
    LinearClassifier, Loss, Pgd, Stopping,
};
use lipconv::{ImageShape, PlainNetwork};

use crate::common::{images, largest_difference, mixed_network, predictions, rng, rows, uniform};

const INPUT: ImageShape = ImageShape::new(1, 6, 8);

/// A linear model on images in the middle of the range of pixels, with labels and boundary distances.
fn linear(dtype: DType) -> (LinearClassifier, Tensor, Vec<usize>, Vec<f64>) {
    let rng = &mut rng(20);
    let weight = uniform(&[5, INPUT.n_values()], 1.0, dtype, rng);
    let classifier = LinearClassifier::new(weight, uniform(&[5], 0.1, dtype, rng)).unwrap();
    // pixels in [0.45, 0.55]: no boundary is so far away that pixels would clip
    let images = images(40, INPUT, dtype, rng).affine(0.1, 0.45).unwrap();
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
fn attacks_break_a_linear_model_exactly_beyond_its_distance() {
    for dtype in [DType::F32, DType::F64] {
        let (classifier, images, labels, distances) = linear(dtype);
        for i in 0..labels.len() {
            let (image, label) = (images.narrow(0, i, 1).unwrap(), &labels[i..=i]);
            for (factor, breaks) in [(0.99, false), (1.02, true)] {
                let eps = factor * distances[i];
                // the margin loss of a single rival is linear until the nearest boundary
                let pgd =
                    Pgd { start: AttackStart::Zero, restarts: 1, ..Pgd::strong(eps, 60, 1, 0) };
                assert_eq!(run(&pgd, &classifier, &image, label).broken, [breaks], "{i} {factor}");
            }
            // one step towards the largest rival need not be towards the nearest boundary
            let fgsm = Fgsm::paper(0.99 * distances[i]);
            assert_eq!(run(&fgsm, &classifier, &image, label).broken, [false]);
        }
    }
}

#[test]
fn perturbations_stay_in_ball_and_box() {
    let network = mixed_network([1.0; 4], DType::F32, 30);
    let images = images(30, network.input(), DType::F32, &mut rng(31));
    let labels = predictions(&network, &images);
    let eps = 0.7;
    let attacks: [&dyn Attack; 3] = [
        &Fgsm::paper(eps),
        &Pgd { steps: 30, ..Pgd::paper(eps, 1) },
        &Pgd { loss: Loss::CrossEntropy, ..Pgd::strong(eps, 10, 3, 1) },
    ];
    for attack in attacks {
        let outcome = run(attack, &network, &images, &labels);
        assert_eq!(outcome.adversarial.dims(), images.dims());
        for (i, (row, original)) in rows(&outcome.adversarial).iter().zip(rows(&images)).enumerate()
        {
            assert!(row.iter().all(|v| (-1e-7..=1.0 + 1e-7).contains(v)));
            let d = row.iter().zip(&original).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
            assert!(d <= eps * (1.0 + 1e-6), "{d}");
            if outcome.broken[i] {
                assert!(d <= outcome.distances[i] && outcome.distances[i] <= d * (1.0 + 1e-12));
            } else {
                // nothing was found, and nothing is claimed
                assert_eq!((d, outcome.distances[i]), (0.0, f64::INFINITY));
            }
        }
    }
}

#[test]
fn reported_images_do_what_is_reported() {
    let network = mixed_network([1.0; 4], DType::F32, 32);
    let images = images(40, network.input(), DType::F32, &mut rng(33));
    let labels = predictions(&network, &images);
    for stopping in [Stopping::Never, Stopping::WhenBroken] {
        let pgd = Pgd { stopping, ..Pgd::strong(0.4, 12, 2, 5) };
        let outcome = run(&pgd, &network, &images, &labels);
        let now = predictions(&network, &outcome.adversarial);
        let n_broken = outcome.broken.iter().filter(|&&b| b).count();
        assert!((5..40).contains(&n_broken), "{n_broken} broken: the case tests nothing");
        for i in 0..labels.len() {
            assert_eq!(now[i] != labels[i], outcome.broken[i], "sample {i}");
            assert_eq!(now[i], outcome.predictions[i]);
        }
        assert!((outcome.accuracy() - 100.0 * (40 - n_broken) as f64 / 40.0).abs() < 1e-12);
    }
}

fn strong(stopping: Stopping, batch_size: usize, seed: u64) -> Pgd {
    Pgd { stopping, batch_size, ..Pgd::strong(0.4, 12, 2, seed) }
}

fn attacked(pgd: &Pgd) -> (PlainNetwork, AttackOutcome) {
    let network = mixed_network([1.0; 4], DType::F64, 32);
    let images = images(40, network.input(), DType::F64, &mut rng(33));
    let labels = predictions(&network, &images);
    let outcome = run(pgd, &network, &images, &labels);
    (network, outcome)
}

#[test]
fn batch_size_and_stopping_do_not_change_what_is_broken() {
    let (_, reference) = attacked(&strong(Stopping::WhenBroken, 40, 1));
    for batch_size in [1, 7, 100] {
        let (_, other) = attacked(&strong(Stopping::WhenBroken, batch_size, 1));
        assert_eq!(other.broken, reference.broken);
        assert!(largest_difference(&other.adversarial, &reference.adversarial) < 1e-10);
    }
    let (_, other) = attacked(&strong(Stopping::Never, 40, 1));
    assert_eq!(other.broken, reference.broken);
}

#[test]
fn the_seed_decides_and_is_used() {
    let [a, b, c] = [1, 1, 2].map(|seed| attacked(&strong(Stopping::Never, 40, seed)).1);
    assert_eq!(largest_difference(&a.adversarial, &b.adversarial), 0.0);
    assert!(largest_difference(&a.adversarial, &c.adversarial) > 1e-3);
}

#[test]
fn restarts_only_break_more() {
    let broken = |restarts: usize| {
        attacked(&Pgd { restarts, ..strong(Stopping::WhenBroken, 40, 3) }).1.broken
    };
    let (one, four) = (broken(1), broken(4));
    assert!(one.iter().zip(&four).all(|(one, four)| !one || *four));
    let start = Pgd { start: AttackStart::Zero, restarts: 1, ..strong(Stopping::Never, 40, 3) };
    let random = Pgd { restarts: 1, ..strong(Stopping::Never, 40, 3) };
    let (zero, random) = (attacked(&start).1, attacked(&random).1);
    assert!(largest_difference(&zero.adversarial, &random.adversarial) > 1e-3);
}

#[test]
fn progress_grows_to_one() {
    let (classifier, images, labels, _) = linear(DType::F32);
    let mut seen: Vec<AttackProgress> = Vec::new();
    let pgd = Pgd { batch_size: 15, ..Pgd::strong(0.1, 5, 2, 0) };
    pgd.run(AttackTarget::new(&classifier, &images, &labels), &mut |p| seen.push(p)).unwrap();
    assert!(seen.len() > 10);
    assert!(
        seen.windows(2).all(|w| w[0].fraction <= w[1].fraction && w[0].n_broken <= w[1].n_broken)
    );
    assert!(seen.iter().all(|p| p.attack == "pgd" && p.n_samples == 40));
    assert_eq!(seen.last().unwrap().fraction, 1.0);
}

#[test]
fn an_empty_batch_is_an_empty_outcome() {
    let (classifier, images, _, _) = linear(DType::F32);
    let outcome = run(&Pgd::paper(0.1, 0), &classifier, &images.narrow(0, 0, 0).unwrap(), &[]);
    assert!(outcome.broken.is_empty() && outcome.accuracy() == 0.0);
}
