//! APGD, FAB, Square and AutoAttack: where the truth is known, what never happens, and what hides gradients in vain.

use candle_core::{DType, Device, Tensor};
use certify::{
    Apgd, ApgdLoss, Attack, AttackOutcome, AttackProgress, AttackTarget, AutoAttack,
    AutoAttackFlag, AutoAttackPart, Certifier, Classifier, EvaluationSettings, Fab,
    LinearClassifier, Objective, Pgd, Replay, Square, Stopping, TracedAttack, check_soundness,
    evaluate,
};
use lipconv::{ImageShape, PlainNetwork};

use crate::common::{images, largest_difference, mixed_network, predictions, rng, rows, uniform};

const INPUT: ImageShape = ImageShape::new(2, 6, 8);
const TARGETED: ApgdLoss = ApgdLoss::TargetedDlr { targets: 9 };

/// A linear model on images in the middle of the range of pixels, with labels and boundary distances.
fn linear(n_classes: usize, dtype: DType) -> (LinearClassifier, Tensor, Vec<usize>, Vec<f64>) {
    let rng = &mut rng(70);
    let weight = uniform(&[n_classes, INPUT.n_values()], 1.0, dtype, rng);
    let bias = uniform(&[n_classes], 0.1, dtype, rng);
    let classifier = LinearClassifier::new(weight, bias).unwrap();
    let images = images(20, INPUT, dtype, rng).affine(0.1, 0.45).unwrap();
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

fn mixed(dtype: DType) -> (PlainNetwork, Tensor, Vec<usize>) {
    let network = mixed_network([1.0; 4], dtype, 71);
    let images = images(24, network.input(), dtype, &mut rng(72));
    let labels = predictions(&network, &images);
    (network, images, labels)
}

/// Small budgets, so that tests take seconds.
fn short(eps: f64, seed: u64) -> AutoAttack {
    let mut attack = AutoAttack::standard(eps, seed);
    for part in &mut attack.parts {
        match part {
            AutoAttackPart::Apgd(apgd) => apgd.steps = 20,
            AutoAttackPart::Fab(fab) => fab.steps = 15,
            AutoAttackPart::Square(square) => square.queries = 60,
        }
    }
    attack
}

#[test]
fn a_linear_model_is_broken_exactly_beyond_its_distance() {
    for dtype in [DType::F32, DType::F64] {
        // two and three classes have no ratio to climb
        for n_classes in [2, 3, 5] {
            let (classifier, images, labels, distances) = linear(n_classes, dtype);
            for i in [0, 7, 13] {
                let (image, label) = (images.narrow(0, i, 1).unwrap(), &labels[i..=i]);
                for (factor, breaks) in [(0.99, false), (1.02, true)] {
                    let eps = factor * distances[i];
                    let apgd = Apgd::standard(eps, TARGETED, 3);
                    let fab = Fab::standard(eps, 0);
                    let attacks: [&dyn Attack; 2] = [&apgd, &fab];
                    for attack in attacks {
                        let outcome = run(attack, &classifier, &image, label);
                        assert_eq!(outcome.broken, [breaks], "{} {n_classes} {i}", attack.name());
                    }
                }
            }
        }
    }
}

#[test]
fn fab_finds_the_distance_of_a_linear_model() {
    let (classifier, images, labels, distances) = linear(5, DType::F64);
    let fab = Fab { stopping: Stopping::Never, ..Fab::standard(1e-9, 0) };
    let outcome = run(&fab, &classifier, &images, &labels);
    for (i, (&found, &distance)) in outcome.distances.iter().zip(&distances).enumerate() {
        // β and η leave steps of a few percent about the boundary; the last points lie beyond it by less
        assert!(found >= distance * (1.0 - 1e-9), "{i}: {found} {distance}");
        assert!(found <= distance * 1.02, "{i}: {found} {distance}");
        assert!(!outcome.broken[i] && outcome.predictions[i] != labels[i]);
    }
}

#[test]
fn every_point_is_in_ball_and_box_and_the_best_only_improves() {
    for dtype in [DType::F32, DType::F64] {
        let (network, images, labels) = mixed(dtype);
        let eps = 0.5;
        let apgd =
            |loss| Apgd { stopping: Stopping::Never, steps: 30, ..Apgd::standard(eps, loss, 1) };
        let (ce, targeted) = (apgd(ApgdLoss::CrossEntropy), apgd(TARGETED));
        let square = Square { queries: 80, ..Square::standard(eps, 1) };
        let pgd =
            Pgd { stopping: Stopping::Never, step_size: 0.1, steps: 30, ..Pgd::paper(eps, 1) };
        let attacks: [&dyn TracedAttack; 4] = [&ce, &targeted, &square, &pgd];
        for attack in attacks {
            let counted = Counted { network: &network, images: &images, eps };
            let run = attack.run_traced(
                AttackTarget::new(&counted, &images, &labels),
                Replay::default(),
                &mut |_| {},
            );
            let (_, traces) = run.unwrap();
            assert!(traces.len() >= labels.len());
            let originals = rows(&images);
            for trace in traces {
                let best = trace.values.iter().copied();
                let d = trace.best.iter().zip(&originals[trace.sample]);
                let d = d.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                assert!(d <= eps * (1.0 + 1e-5), "{d}");
                if attack.name() == "square" {
                    assert_eq!(trace.values.len(), trace.steps.len());
                    let accepted = best.zip(&trace.steps).filter(|(_, a)| **a == 1.0);
                    let margins: Vec<f64> = accepted.map(|(m, _)| m).collect();
                    assert!(margins.windows(2).all(|w| w[1] < w[0]), "{margins:?}");
                } else {
                    // the start and 30 steps; steps only shrink, by halves
                    assert_eq!((trace.values.len(), trace.steps.len()), (31, 30));
                    let halves = |w: &[f64]| w[1] == w[0] || w[1] == 0.5 * w[0];
                    assert!(trace.steps.windows(2).all(halves));
                }
            }
        }
    }
}

/// Checks every point that it is asked about.
struct Counted<'a> {
    network: &'a PlainNetwork,
    images: &'a Tensor,
    eps: f64,
}

impl Counted<'_> {
    /// No point may be outside of the box, or farther than ε from every image.
    fn check(&self, points: &Tensor) {
        let originals = rows(self.images);
        for point in rows(points) {
            assert!(point.iter().all(|v| (0.0..=1.0).contains(v)));
            let distance = |x: &Vec<f64>| {
                x.iter().zip(&point).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
            };
            let nearest = originals.iter().map(distance).fold(f64::INFINITY, f64::min);
            assert!(nearest <= self.eps * (1.0 + 1e-5), "{nearest}");
        }
    }
}

impl Classifier for Counted<'_> {
    fn n_classes(&self) -> usize {
        self.network.n_classes()
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn dtype(&self) -> DType {
        self.network.dtype()
    }

    fn logits(&self, images: &Tensor) -> certify::Result<Tensor> {
        self.check(images);
        self.network.logits(images)
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> certify::Result<(Tensor, Tensor)> {
        self.check(images);
        self.network.logits_and_input_gradient(images, objective)
    }
}

#[test]
fn reported_images_do_what_is_reported() {
    let (network, images, mut labels) = mixed(DType::F64);
    labels[3] = (labels[3] + 1) % 5;
    let outcome = run(&short(0.35, 2), &network, &images, &labels);
    let now = predictions(&network, &outcome.adversarial);
    let n_broken = outcome.broken.iter().filter(|&&b| b).count();
    assert!((3..24).contains(&n_broken), "{n_broken} broken: the case tests nothing");
    assert!(outcome.broken[3] && outcome.distances[3] == 0.0, "a mistake is broken as it is");
    for i in 0..24 {
        assert_eq!(now[i], outcome.predictions[i], "sample {i}");
        assert_eq!(now[i] != labels[i], outcome.distances[i].is_finite());
        assert_eq!(outcome.broken[i], outcome.distances[i] <= 0.35 * (1.0 + 1e-9));
    }
    let names: Vec<&str> = outcome.parts.iter().map(|part| &*part.attack).collect();
    assert_eq!(names, ["apgd-ce", "apgd-t", "fab-t", "square"]);
    assert_eq!(outcome.parts.iter().map(|part| part.n_broken).sum::<usize>(), n_broken);
    assert_eq!(outcome.parts[0].n_attacked, 24);
    for w in outcome.parts.windows(2) {
        assert_eq!(w[1].n_attacked, w[0].n_attacked - w[0].n_broken);
    }
    assert!(outcome.flags.is_empty(), "{:?}", outcome.flags);
}

#[test]
fn seeds_decide_and_batches_and_neighbours_do_not() {
    let (network, images, labels) = mixed(DType::F64);
    let [a, b, c] = [(24, 0), (5, 0), (24, 1)].map(|(batch_size, seed)| {
        run(&short(0.35, seed).with_batch_size(batch_size), &network, &images, &labels)
    });
    assert_eq!(a.broken, b.broken);
    // batches change what the classifier rounds
    assert!(largest_difference(&a.adversarial, &b.adversarial) < 1e-8);
    assert!(largest_difference(&a.adversarial, &c.adversarial) > 1e-6);
    // a subset is attacked as it would be among all, by old attacks too
    let some = [2, 3, 11, 17];
    let pgd = Pgd { stopping: Stopping::Never, ..Pgd::strong(0.35, 8, 2, 5) };
    let auto = short(0.35, 0);
    let attacks: [&dyn Attack; 2] = [&auto, &pgd];
    for attack in attacks {
        let whole = run(attack, &network, &images, &labels);
        let part = attack
            .run_on(&some, AttackTarget::new(&network, &images, &labels), &mut |_| {})
            .unwrap();
        for i in 0..24 {
            let row = |outcome: &AttackOutcome| outcome.adversarial.narrow(0, i, 1).unwrap();
            if some.contains(&i) {
                assert_eq!(part.broken[i], whole.broken[i]);
                assert!(largest_difference(&row(&part), &row(&whole)) < 1e-8, "{i}");
            } else {
                assert!(!part.broken[i] && part.distances[i] == f64::INFINITY);
                assert_eq!(part.predictions[i], labels[i]);
                assert_eq!(largest_difference(&row(&part), &images.narrow(0, i, 1).unwrap()), 0.0);
            }
        }
        let error = attack
            .run_on(&[24], AttackTarget::new(&network, &images, &labels), &mut |_| {})
            .unwrap_err();
        let text = "index of a sample to attack is 24, expected below the number of images";
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn going_on_changes_no_verdict_and_finds_smaller_distances() {
    let (network, images, labels) = mixed(DType::F64);
    let early = run(&short(0.35, 0), &network, &images, &labels);
    let never = run(&short(0.35, 0).with_stopping(Stopping::Never), &network, &images, &labels);
    assert_eq!(early.broken, never.broken);
    assert!(early.distances.iter().zip(&never.distances).all(|(e, n)| n <= e));
    assert!(early.distances.iter().zip(&never.distances).any(|(e, n)| *n < 0.9 * e));
}

#[test]
fn certificates_withstand_and_may_be_skipped() {
    let network = mixed_network([0.6; 4], DType::F32, 73);
    let images = images(20, network.input(), DType::F32, &mut rng(74));
    let labels = predictions(&network, &images);
    let certificates = Certifier::new(&network).unwrap().certify(&images, &labels).unwrap();
    let arithmetic = certify::Arithmetic::F32;
    let radii = &certificates.executed[&arithmetic];
    let mut sorted = radii.clone();
    sorted.sort_by(f64::total_cmp);
    let eps = sorted[10];
    let attack = short(eps, 0).with_stopping(Stopping::Never);
    let outcome = run(&attack, &network, &images, &labels);
    check_soundness("auto", &outcome, &labels, radii, arithmetic).unwrap();
    let evaluated = [true, false].map(|attack_certified| {
        let attacks: [&dyn Attack; 1] = [&attack];
        let settings =
            EvaluationSettings { eps: &[eps], attacks: &attacks, attack_certified, batch_size: 20 };
        evaluate(&network, &images, &labels, &settings, &mut |_| {}).unwrap()
    });
    let row = |i: usize| {
        let row = &evaluated[i].attacks[0];
        (row.accuracy, row.certified, row.n_broken, row.largest_distance)
    };
    assert_eq!(row(0), row(1));
    let n_attacked = |i: usize| evaluated[i].attacks[0].parts[0].n_attacked;
    assert!(n_attacked(0) == 20 && n_attacked(1) < 20);
    // and are attacked only where asked for
    let certified: Vec<usize> = (0..20).filter(|&i| radii[i] > eps).collect();
    assert!(certified.len() >= 5, "{radii:?}");
}

/// Hides its gradients: `quantised` logits are piecewise constant, others are multiplied by 10⁶.
struct Masked {
    network: PlainNetwork,
    quantised: bool,
}

impl Masked {
    fn new(quantised: bool) -> Self {
        Self { network: mixed_network([1.0; 4], DType::F32, 71), quantised }
    }
}

impl Classifier for Masked {
    fn n_classes(&self) -> usize {
        self.network.n_classes()
    }

    fn device(&self) -> &Device {
        self.network.device()
    }

    fn dtype(&self) -> DType {
        self.network.dtype()
    }

    fn logits(&self, images: &Tensor) -> certify::Result<Tensor> {
        let logits = self.network.logits(images)?;
        Ok(if self.quantised { ((logits * 1e4)?.round()? / 1e4)? } else { (logits * 1e6)? })
    }

    fn logits_and_input_gradient(
        &self,
        images: &Tensor,
        objective: &Objective<'_>,
    ) -> certify::Result<(Tensor, Tensor)> {
        if self.quantised {
            return Ok((self.logits(images)?, images.zeros_like()?));
        }
        let scaled = |logits: &Tensor| objective(&(logits * 1e6)?);
        let (logits, gradient) = self.network.logits_and_input_gradient(images, &scaled)?;
        Ok(((logits * 1e6)?, gradient))
    }
}

#[test]
fn hidden_gradients_are_seen_through_and_flagged() {
    let (network, images, labels) = mixed(DType::F32);
    let open = run(&short(0.35, 0), &network, &images, &labels);
    let n_open = open.broken.iter().filter(|&&b| b).count();
    assert!(n_open >= 4, "{n_open}");
    let report = |masked: &Masked, attack: &AutoAttack| run(attack, masked, &images, &labels);
    // × 10⁶: cross-entropy is saturated, neither the ratio nor FAB is
    let large = Masked::new(false);
    let seen = report(&large, &short(0.35, 0));
    assert!(seen.flags.iter().any(|f| matches!(f, AutoAttackFlag::ZeroGradients { samples: 1.. })));
    assert!(seen.parts[0].n_broken < n_open, "{:?}", seen.parts);
    let n_seen = seen.broken.iter().filter(|&&b| b).count();
    assert!(n_seen + 1 >= n_open, "{n_seen} of {n_open}");
    let fab = run(&Fab::standard(0.35, 0), &large, &images, &labels);
    let n_fab = fab.broken.iter().filter(|&&b| b).count();
    assert!(2 * n_fab > n_open, "{n_fab} of {n_open}");
    // piecewise constant: no gradient at all, which Square does not ask for
    let flat = Masked::new(true);
    let mut attack = short(0.5, 0);
    attack.parts[3] = AutoAttackPart::Square(Square { queries: 400, ..Square::standard(0.5, 0) });
    let seen = report(&flat, &attack);
    // a random start may be adversarial, but nothing leads anywhere from there
    let by_chance = seen.parts[0].n_broken + seen.parts[1].n_broken;
    assert_eq!(seen.parts[2].n_broken, 0, "{:?}", seen.parts);
    assert!(seen.parts[3].n_broken > by_chance, "{:?}", seen.parts);
    assert!(seen.flags.contains(&AutoAttackFlag::ZeroGradients { samples: 24 }));
    let square = AutoAttackFlag::SquareIsBetter { samples: seen.parts[3].n_broken };
    assert!(seen.flags.contains(&square), "{:?}", seen.flags);
    assert!(square.to_string().starts_with("Square, without gradients, broke "));
}

#[test]
fn probabilities_and_random_outputs_are_flagged() {
    struct Odd {
        network: PlainNetwork,
        random: bool,
        n_calls: std::cell::Cell<f64>,
    }
    impl Classifier for Odd {
        fn n_classes(&self) -> usize {
            self.network.n_classes()
        }

        fn device(&self) -> &Device {
            self.network.device()
        }

        fn dtype(&self) -> DType {
            self.network.dtype()
        }

        fn logits(&self, images: &Tensor) -> certify::Result<Tensor> {
            self.n_calls.set(self.n_calls.get() + 1.0);
            let logits = self.network.logits(images)?;
            if self.random {
                return Ok((logits + 1e-3 * self.n_calls.get())?);
            }
            let exponentials = logits.exp()?;
            Ok(exponentials.broadcast_div(&exponentials.sum_keepdim(1)?)?)
        }

        fn logits_and_input_gradient(
            &self,
            images: &Tensor,
            _: &Objective<'_>,
        ) -> certify::Result<(Tensor, Tensor)> {
            Ok((self.logits(images)?, images.ones_like()?))
        }
    }
    let (network, images, labels) = mixed(DType::F64);
    for random in [true, false] {
        let odd = Odd { network: network.clone(), random, n_calls: std::cell::Cell::new(0.0) };
        let mut attack = short(0.1, 0);
        attack.parts.truncate(1);
        let flags = run(&attack, &odd, &images, &labels).flags;
        let [flag] = flags[..] else { panic!("{flags:?}") };
        match flag {
            AutoAttackFlag::RandomisedOutput { largest_difference } => {
                assert!(random && (largest_difference - 1e-3).abs() < 1e-9);
            }
            other => assert!(!random && other == AutoAttackFlag::Probabilities, "{other}"),
        }
    }
}

#[test]
fn progress_grows_to_one_and_nothing_is_an_empty_outcome() {
    let (classifier, images, labels, _) = linear(5, DType::F32);
    let mut seen: Vec<AttackProgress> = Vec::new();
    let attack = short(0.05, 0).with_batch_size(7);
    attack.run(AttackTarget::new(&classifier, &images, &labels), &mut |p| seen.push(p)).unwrap();
    let grows = |w: &[AttackProgress]| {
        w[0].fraction <= w[1].fraction + 1e-12 && w[0].n_broken <= w[1].n_broken
    };
    assert!(seen.len() > 20 && seen.windows(2).all(grows));
    assert_eq!(seen.last().unwrap().fraction, 1.0);
    let none = run(&attack, &classifier, &images.narrow(0, 0, 0).unwrap(), &[]);
    assert!(none.broken.is_empty() && none.accuracy() == 0.0);
}

#[test]
fn settings_have_domains_and_one_class_is_too_few() {
    let (classifier, images, labels, _) = linear(5, DType::F32);
    let check = |attack: &dyn Attack, expected: &str| {
        let error =
            attack.run(AttackTarget::new(&classifier, &images, &labels), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let apgd = Apgd::default();
    check(&Apgd { eps: 0.0, ..apgd }, "eps is 0, expected a positive finite number");
    check(&Apgd { steps: 0, ..apgd }, "steps is 0, expected at least 1");
    check(&Apgd { restarts: 0, ..apgd }, "restarts is 0, expected 1 to 4096");
    let none = ApgdLoss::TargetedDlr { targets: 0 };
    check(&Apgd { loss: none, ..apgd }, "targets is 0, expected at least 1");
    let fab = Fab::default();
    check(&Fab { alpha_max: 1.5, ..fab }, "alpha_max is 1.5, expected in [0, 1]");
    check(
        &Fab { overshoot: 0.5, ..fab },
        "overshoot is 0.5, expected a finite number of at least 1",
    );
    check(&Fab { backward: 1.0, ..fab }, "backward is 1, expected above 0 and below 1");
    let square = Square::default();
    check(&Square { queries: 0, ..square }, "queries is 0, expected at least 1");
    check(
        &Square { first_share: 0.0, ..square },
        "first_share is 0, expected above 0 and at most 1",
    );
    let mut auto = AutoAttack::standard(0.5, 0);
    auto.eps = 0.25;
    check(&auto, "eps of a part is 0.5, expected that of the whole attack");
    check(&AutoAttack { parts: Vec::new(), ..auto }, "parts is 0, expected at least 1");
    let rng = &mut rng(75);
    let weight = uniform(&[1, INPUT.n_values()], 1.0, DType::F32, rng);
    let lone = LinearClassifier::new(weight, uniform(&[1], 0.1, DType::F32, rng)).unwrap();
    let error = apgd
        .run(AttackTarget::new(&lone, &images, &vec![0; labels.len()]), &mut |_| {})
        .unwrap_err();
    let text = "the classifier has 1 classes, expected at least 2 for an attack on its class";
    assert_eq!(error.to_string(), text);
}

#[test]
fn plus_is_at_least_as_strong_and_restarts_differ() {
    let (network, images, labels) = mixed(DType::F64);
    let plus = AutoAttack::plus(0.3, 0);
    let names: Vec<&str> = plus.parts.iter().map(AutoAttackPart::name).collect();
    assert_eq!(names, ["apgd-ce", "apgd-dlr", "square", "apgd-t", "fab-t"]);
    let loss = ApgdLoss::CrossEntropy;
    let two =
        Apgd { steps: 3, restarts: 2, stopping: Stopping::Never, ..Apgd::standard(0.3, loss, 0) };
    let run = two.run_traced(
        AttackTarget::new(&network, &images, &labels),
        Replay::default(),
        &mut |_| {},
    );
    let traces = run.unwrap().1;
    assert_eq!(traces.len(), 48);
    let first = |round: usize| traces.iter().find(|t| t.round == round && t.sample == 0).unwrap();
    assert!((first(0).values[0] - first(1).values[0]).abs() > 1e-9, "one start for two rounds");
}
