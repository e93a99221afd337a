//! The parametrisation: orthogonal for all shapes, its pullback a derivative, warm starts and threads without effect.

use blockconv::Scratch;
use blockconv::bcop::{Bcop, bcop};
use blockconv::from_layer_weight;
use ndarray::{Array3, Array4, s};
use projectors::Real;
use proptest::prelude::*;

use crate::support::{self, defect, distance, inner, orthogonality, parameters, uniform};

#[track_caller]
fn check_orthogonal<T: Real>(k: usize, c_out: usize, c_in: usize, seed: u64) {
    let n = c_out.max(c_in);
    let mut rng = support::rng(seed);
    // away from orthogonal parameters, as training goes
    let parameters = parameters::<T>(k, n, &mut rng)
        + &(uniform::<T, _>((2 * k - 1, n, n), &mut rng) * T::of(0.2));
    let bcop = bcop(parameters.view(), c_out, c_in, None).unwrap();
    let weight = bcop.layer_weight();
    assert_eq!(weight.dim(), (c_out, c_in, k, k));
    let kernel = from_layer_weight(weight.view()).unwrap();
    assert_eq!(kernel, bcop.kernel());
    let measured = kernel.orthogonality_defect();
    let allowed = defect::<T>(n, k);
    assert!(
        measured <= allowed,
        "k {k}, {c_in} -> {c_out}, seed {seed}, {}: {measured:e} > {allowed:e}",
        T::NAME
    );
}

#[test]
fn layer_weights_are_orthogonal() {
    for (k, c_out, c_in) in [
        (1, 1, 1),
        (3, 1, 1),
        (2, 16, 4),
        (2, 32, 64),
        (3, 32, 3),
        (5, 8, 8),
        (4, 5, 7),
        (3, 64, 64),
    ] {
        check_orthogonal::<f64>(k, c_out, c_in, 1);
        check_orthogonal::<f32>(k, c_out, c_in, 2);
    }
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn layer_weights_are_orthogonal_for_any_shape(k in 1_usize..5, c_out in 1_usize..8, c_in in 1_usize..8, seed: u64) {
        check_orthogonal::<f64>(k, c_out, c_in, seed);
        check_orthogonal::<f32>(k, c_out, c_in, seed);
    }

    #[test]
    fn pullback_is_the_derivative(k in 1_usize..4, c_out in 1_usize..7, c_in in 1_usize..7, seed: u64) {
        check_pullback(k, c_out, c_in, seed);
    }
}

#[track_caller]
fn check_pullback(k: usize, c_out: usize, c_in: usize, seed: u64) {
    let n = c_out.max(c_in);
    let mut rng = support::rng(seed);
    // Haar parameters have condition number 1: the map is smooth on the scale of the steps
    let point = parameters::<f64>(k, n, &mut rng);
    let direction: Array3<f64> = uniform((2 * k - 1, n, n), &mut rng);
    let cotangent: Array4<f64> = uniform((c_out, c_in, k, k), &mut rng);
    let value = |t: f64| {
        let moved = &point + &(&direction * t);
        inner(&bcop(moved.view(), c_out, c_in, None).unwrap().layer_weight(), &cotangent)
    };
    let central = |t: f64| (value(t) - value(-t)) / (2.0 * t);
    let t = 1e-3 / n as f64;
    let difference = (4.0 * central(t) - central(2.0 * t)) / 3.0;
    let gradient =
        bcop(point.view(), c_out, c_in, None).unwrap().pullback(cotangent.view()).unwrap();
    let slope = inner(&gradient, &direction);
    let allowed = 1e-7 * support::norm(&cotangent) * support::norm(&direction) * (2 * k) as f64;
    assert!(
        (slope - difference).abs() <= allowed,
        "k {k}, {c_in} -> {c_out}: {slope} against {difference}"
    );
    let unused = gradient.slice(s![1.., .., n / 2..]);
    assert!(unused.iter().all(|x| *x == 0.0), "columns beyond the rank have no effect");
}

#[test]
fn large_pullback_is_the_derivative_wide_and_tall() {
    // large enough for parallel projectors and several panels
    check_pullback(2, 96, 130, 3);
    check_pullback(2, 130, 96, 4);
}

#[test]
fn warm_start_changes_nothing_beyond_rounding() {
    let mut rng = support::rng(6);
    let before = parameters::<f64>(3, 24, &mut rng);
    let after = &before + &(uniform::<f64, _>((5, 24, 24), &mut rng) * 1e-3);
    let first = bcop(before.view(), 24, 24, None).unwrap();
    let cold = bcop(after.view(), 24, 24, None).unwrap();
    let warm = bcop(after.view(), 24, 24, Some(first.inverse_sqrt())).unwrap();
    assert!(
        distance(&cold.layer_weight(), &warm.layer_weight()) <= 24.0 * orthogonality::<f64>(24, 3)
    );
    assert!(warm.kernel().orthogonality_defect() <= defect::<f64>(24, 3));
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut rng = support::rng(12);
            let evaluated = bcop(parameters::<f32>(3, 96, &mut rng).view(), 64, 96, None).unwrap();
            let cotangent: Array4<f32> = uniform((64, 96, 3, 3), &mut rng);
            (evaluated.layer_weight(), evaluated.pullback(cotangent.view()).unwrap())
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn parts_are_the_factors_of_the_kernel() {
    let parameters = parameters::<f64>(2, 6, &mut support::rng(20));
    let evaluated = bcop(parameters.view(), 6, 6, None).unwrap();
    let ranks: Vec<_> = evaluated.projectors().map(|p| p.diag().sum().round() as usize).collect();
    assert_eq!(ranks, [3, 3]);
    let total = evaluated.kernel().taps().sum_axis(ndarray::Axis(0)).sum_axis(ndarray::Axis(0));
    assert!(
        distance(&total, &evaluated.h().to_owned()) <= orthogonality::<f64>(6, 2),
        "the taps sum to H"
    );
}

/// A later evaluation in the same scratch memory gives the same bits, and the memory stops growing.
#[test]
fn scratch_memory_is_reused_and_changes_nothing() {
    for (k, c_out, c_in) in [(3, 6, 6), (2, 5, 9), (3, 9, 4), (3, 96, 96)] {
        let scratch = Scratch::<f64>::default();
        let mut held = Vec::new();
        for step in 0..4 {
            let mut rng = support::rng(step);
            let parameters = parameters::<f64>(k, c_out.max(c_in), &mut rng);
            let cotangent = uniform::<f64, _>((c_out, c_in, k, k), &mut rng);
            let fresh = bcop(parameters.view(), c_out, c_in, None).unwrap();
            let reusing =
                Bcop::assemble_into(parameters.view(), c_out, c_in, None, &scratch).unwrap();
            assert_eq!(fresh.layer_weight(), reusing.layer_weight());
            assert_eq!(
                fresh.pullback(cotangent.view()).unwrap(),
                reusing.pullback(cotangent.view()).unwrap()
            );
            drop(reusing);
            held.push(scratch.waiting().1);
        }
        assert!(held[0] > 0 && held[1..].iter().all(|&bytes| bytes == held[1]), "{held:?}");
    }
}
