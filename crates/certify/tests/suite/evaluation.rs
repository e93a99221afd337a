//! The evaluation as a whole.

use candle_core::DType;
use certify::{
    Arithmetic, Attack, AttackOutcome, AttackProgress, AttackTarget, Evaluation,
    EvaluationSettings, Evaluator, Fab, Fgsm, Pgd, Result, Scope, Stopping, evaluate,
};

use crate::common::{images, mixed_network, predictions, rng};

fn evaluation(dtype: DType) -> Evaluation {
    under(dtype, &[&Pgd::strong(0.3, 20, 2, 0), &Fgsm::paper(0.3)])
}

fn under(dtype: DType, attacks: &[&dyn Attack]) -> Evaluation {
    let network = mixed_network([1.0; 4], dtype, 40);
    let images = images(60, network.input(), dtype, &mut rng(41));
    let mut labels = predictions(&network, &images);
    // every sixth label is wrong
    labels.iter_mut().step_by(6).for_each(|t| *t = (*t + 1) % 5);
    let settings = EvaluationSettings {
        eps: &[0.0, 0.05, 0.3],
        attacks,
        attack_certified: true,
        batch_size: 7,
    };
    evaluate(&network, &images, &labels, &settings, &mut |_| {}).unwrap()
}

/// The arithmetic of the CPU engine.
fn own(dtype: DType) -> Arithmetic {
    if dtype == DType::F32 { Arithmetic::F32Blocked } else { Arithmetic::F64 }
}

#[test]
fn certified_is_at_most_attacked_is_at_most_clean() {
    for dtype in [DType::F32, DType::F64] {
        let e = evaluation(dtype);
        assert_eq!(e.n_samples, 60);
        assert!((e.clean - 100.0 * 50.0 / 60.0).abs() < 1e-12);
        let arithmetic = own(dtype);
        let certified = e.certified[2].executed[&arithmetic];
        for attack in &e.attacks {
            assert!(certified <= attack.accuracy && attack.accuracy <= e.clean, "{attack:?}");
            assert_eq!(attack.eps, 0.3);
        }
        assert!(e.attacks[0].accuracy < e.clean, "the attack breaks nothing");
        assert_eq!([&*e.attacks[0].attack, &*e.attacks[1].attack], ["pgd", "fgsm"]);
        assert_eq!(
            e.attacks[0].n_broken,
            ((e.clean - e.attacks[0].accuracy) * 0.6).round() as usize
        );
    }
}

#[test]
fn scopes_and_nearest_examples_go_together_with_certificates() {
    let network = mixed_network([0.8; 4], DType::F32, 40);
    let images = images(60, network.input(), DType::F32, &mut rng(41));
    let mut labels = predictions(&network, &images);
    labels[3] = (labels[3] + 1) % 5;
    let mut evaluator = Evaluator::new(&network, &images, &labels, 60).unwrap();
    let pgd = Pgd::strong(0.3, 10, 1, 0);
    let some = Scope { first: Some(20), certified: false };
    evaluator.attack(&pgd, some, &mut |_| {}).unwrap();
    evaluator.attack(&pgd, Scope { first: Some(1000), certified: true }, &mut |_| {}).unwrap();
    let by_pgd = evaluator.nearest().to_vec();
    let fab = Fab { stopping: Stopping::Never, steps: 20, ..Fab::standard(0.3, 0) };
    evaluator.approach(&fab, Scope { first: Some(20), certified: true }, &mut |_| {}).unwrap();
    let e = evaluator.finish(&[0.3]).unwrap();
    let [first, whole] = &e.attacks[..] else { panic!("an approach is no accuracy") };
    assert_eq!((first.n_samples, whole.n_samples), (20, 60));
    // the percentages are those of the scope
    let radii = &e.samples.certificates.executed[&Arithmetic::F32Blocked];
    let share = |holds: &dyn Fn(usize) -> bool, n: usize| {
        100.0 * (0..n).filter(|&i| holds(i)).count() as f64 / n as f64
    };
    for row in [first, whole] {
        let n = row.n_samples;
        assert!((row.clean - share(&|i| e.samples.correct[i], n)).abs() < 1e-12);
        assert!((row.certified - share(&|i| radii[i] > 0.3, n)).abs() < 1e-12);
        assert!(row.certified <= row.accuracy && row.accuracy < row.clean, "{row:?}");
    }
    // nothing nearer than its radius; the first images were approached from further than ε
    let nearest = &e.samples.nearest;
    assert_eq!(nearest[3], Some(0.0));
    assert!((0..60).all(|i| nearest[i].is_none_or(|d| d >= radii[i])));
    assert!(nearest[..20].iter().all(Option::is_some));
    assert!((0..20).any(|i| by_pgd[i].is_none() && nearest[i].unwrap() > 0.3));
    assert!((0..20).any(|i| by_pgd[i].is_some_and(|d| nearest[i].unwrap() < 0.95 * d)));
    assert_eq!(nearest[20..], by_pgd[20..]);
}

#[test]
fn columns_are_ordered_by_how_much_they_prove() {
    let e = evaluation(DType::F32);
    for (row, eps) in e.certified.iter().zip([0.0, 0.05, 0.3]) {
        assert_eq!(row.eps, eps);
        let executed = Arithmetic::ALL.map(|a| row.executed[&a]);
        assert!(executed.is_sorted() && executed[4] <= row.real && row.real <= e.clean);
    }
    assert!((e.certified[0].real - e.clean).abs() < 1e-12, "every correct sample has a radius");
    assert!(e.certified[2].real < e.certified[1].real);
    assert_eq!(e.layers.len(), 4);
    assert_eq!(e.layers[0].name, "conv1");
    let product: f64 = e.layers.iter().map(|layer| layer.lipschitz).product();
    assert!(e.lipschitz >= product && e.lipschitz < product * (1.0 + 1e-14));
}

#[test]
fn an_evaluation_survives_serialisation() {
    let e = evaluation(DType::F32);
    let text = serde_json::to_string(&e).unwrap();
    assert!(text.contains("\"f32_accumulate_f64\":"), "{text}");
    assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), e);
}

/// Says of every image that it was broken, by the same one.
struct Boaster {
    pixel: f64,
}

impl Attack for Boaster {
    fn name(&self) -> &'static str {
        "boaster"
    }

    fn eps(&self) -> f64 {
        0.3
    }

    fn run(
        &self,
        target: AttackTarget<'_>,
        _: &mut dyn FnMut(AttackProgress),
    ) -> Result<AttackOutcome> {
        let AttackTarget { images, labels, .. } = target;
        Ok(AttackOutcome {
            adversarial: (images.zeros_like()? + self.pixel)?,
            predictions: labels.iter().map(|label| (label + 1) % 5).collect(),
            broken: vec![true; labels.len()],
            distances: vec![0.299; labels.len()],
            parts: Vec::new(),
            flags: Vec::new(),
        })
    }
}

#[test]
fn what_is_no_point_of_the_ball_breaks_nothing() {
    for dtype in [DType::F32, DType::F64] {
        for pixel in [f64::NAN, f64::INFINITY, -0.1, 1.1, 0.5] {
            let e = under(dtype, &[&Boaster { pixel }]);
            assert_eq!((e.attacks[0].n_broken, e.attacks[0].accuracy), (0, e.clean), "{pixel}");
        }
        // steps that leave the range of the numbers
        for step_size in [1e30, 1e308, f64::MAX] {
            let pgd = Pgd { step_size, steps: 2, ..Pgd::paper(0.3, 0) };
            let e = under(dtype, &[&pgd]);
            let certified = e.certified[2].executed[&own(dtype)];
            assert!(e.attacks[0].accuracy >= certified && e.attacks[0].largest_distance <= 0.301);
        }
    }
}
