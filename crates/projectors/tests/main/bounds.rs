//! Laws of directed rounding, Lipschitz bounds and spectral norms.

use ndarray::{Array2, array};
use ndarray_linalg::SVD;
use projectors::norms::{spectral_norm_bound, spectral_norm_estimate};
use projectors::rounding;
use projectors::unit_ball::{
    Retraction, project_onto_unit_ball, projected_descent, scale_to_unit_ball,
};
use projectors::{BoundKind, LipschitzBound, Real};
use proptest::prelude::*;

use crate::support::{convert, norm, normal, with_singular_values};

/// The bound is rigorous, at or above the largest singular value up to the error of computing that, and close.
#[track_caller]
fn check_norm<T: Real>(case: &str, w: &Array2<T>, sigma_max: f64, excess: f64) {
    let bound = spectral_norm_bound(w.view()).unwrap();
    assert_eq!(bound.kind(), BoundKind::UpperBound, "{case}");
    let relative = bound.value() / sigma_max - 1.0;
    assert!(
        relative >= -1e-14 && relative <= excess,
        "{case}: relative excess {relative:.3e}, allowed {excess:.1e}"
    );
    let estimate = spectral_norm_estimate(w.view()).unwrap();
    assert_eq!(estimate.kind(), BoundKind::Estimate);
    assert!(
        (estimate.value() / sigma_max - 1.0).abs() <= 1e-3,
        "{case}: estimate {}",
        estimate.value()
    );
}

#[test]
fn norm_bound_is_tight_for_every_kind_of_spectrum() {
    for (rows, columns) in
        [(1, 1), (1, 7), (7, 1), (5, 5), (40, 30), (30, 100), (129, 129), (100, 400)]
    {
        let short = rows.min(columns);
        let orient = |w: Array2<f64>| if rows < columns { w.reversed_axes() } else { w };
        let spread: Vec<f64> = (0..short).map(|i| 3.0 / (1.0 + i as f64)).collect();
        let clustered: Vec<f64> =
            (0..short).map(|i| 1.0 - 1e-4 * i as f64 / short as f64).collect();
        let isometry = orient(with_singular_values(rows.max(columns), &vec![1.0; short], 1));
        check_norm("isometry", &isometry, 1.0, 1e-7);
        check_norm("scaled isometry", &isometry.mapv(|x| x * 0.37), 0.37, 1e-7);
        check_norm(
            "clustered",
            &orient(with_singular_values(rows.max(columns), &clustered, 2)),
            1.0,
            1e-6,
        );
        check_norm(
            "spread",
            &orient(with_singular_values(rows.max(columns), &spread, 3)),
            3.0,
            1e-6,
        );
        let gaussian = orient(normal::<f64>(rows.max(columns), short, 4));
        let sigma = gaussian.svd(false, false).unwrap().1[0];
        check_norm("gaussian", &gaussian, sigma, 1e-4);
        // The bound is for the numbers stored in f32, so the reference is taken of those.
        let single: Array2<f32> = convert(gaussian.view());
        let sigma = convert::<f32, f64>(single.view()).svd(false, false).unwrap().1[0];
        check_norm("f32", &single, sigma, 1e-4);
    }
}

#[test]
fn norm_bound_holds_at_every_scale() {
    let w = normal::<f64>(9, 6, 8);
    let sigma = w.svd(false, false).unwrap().1[0];
    for exponent in [-1000, -600, -200, 200, 600, 1000] {
        let factor = 2.0_f64.powi(exponent);
        check_norm(&format!("2^{exponent}"), &w.mapv(|x| x * factor), sigma * factor, 1e-6);
    }
    // Subnormal numbers are exact too: a 3-4-5 triangle of the smallest ones.
    let tiny = f64::from_bits(1);
    let bound =
        spectral_norm_bound(array![[3.0 * tiny, 0.0], [4.0 * tiny, 0.0]].view()).unwrap().value();
    assert!(bound >= 5.0 * tiny && bound <= 8.0 * tiny, "{bound:e}");
    let largest = spectral_norm_bound(array![[f64::MAX, 0.0], [0.0, 1.0]].view());
    assert!(largest.is_err() || largest.unwrap().value() == f64::MAX);
    // Entries 1e300 apart: the small ones vanish in the Gram matrix but not in the bound.
    let bound =
        spectral_norm_bound(array![[1.0, 1e-300], [1e-300, 1e-300]].view()).unwrap().value();
    assert!((1.0..=1.0 + 1e-7).contains(&bound));
}

#[test]
fn norm_bound_of_nothing_is_zero() {
    for w in [Array2::<f64>::zeros((3, 2)), Array2::zeros((0, 4)), Array2::zeros((4, 0))] {
        assert_eq!(spectral_norm_bound(w.view()).unwrap().rigorous(), Some(0.0));
        assert_eq!(spectral_norm_estimate(w.view()).unwrap().value(), 0.0);
    }
}

#[test]
fn norm_bound_is_not_fooled_by_the_start_of_the_estimate() {
    // Block diagonal: the start vector of any estimate sees the dominating block through one coordinate only.
    let mut w = Array2::<f64>::eye(150) * 0.5;
    w[[149, 149]] = 1.25;
    check_norm("spike", &w, 1.25, 1e-6);
    w[[149, 149]] = 0.5 + 1e-9;
    check_norm("faint spike", &w, 0.5 + 1e-9, 1e-6);
}

#[test]
fn bounds_combine_to_the_weakest_kind() {
    let exact = LipschitzBound::exact(2.0).unwrap();
    let upper = LipschitzBound::upper_bound(3.0).unwrap();
    let estimate = LipschitzBound::estimate(0.5).unwrap();
    assert_eq!(exact.in_series(&upper).rigorous(), Some(6.0));
    assert_eq!(exact.in_series(&exact).kind(), BoundKind::UpperBound);
    assert_eq!(LipschitzBound::ONE.in_series(&upper), upper);
    assert_eq!(upper.in_series(&estimate).rigorous(), None);
    assert_eq!(exact.max(&upper).value(), 3.0);
    assert_eq!(exact.max(&estimate).kind(), BoundKind::Estimate);
    assert_eq!(exact.sum(&upper).rigorous(), Some(5.0));
    let huge = LipschitzBound::upper_bound(1e300).unwrap();
    assert!(!huge.in_series(&huge).is_rigorous(), "an overflow proves nothing");
    assert_eq!(upper.to_string(), "3 (upper bound)");
}

#[cfg(feature = "serde")]
#[test]
fn bounds_survive_serialisation_and_are_checked_on_the_way_in() {
    let bound = LipschitzBound::upper_bound(1.000_000_1).unwrap();
    let text = serde_json::to_string(&bound).unwrap();
    assert_eq!(text, r#"{"value":1.0000001,"kind":"upper_bound"}"#);
    assert_eq!(serde_json::from_str::<LipschitzBound>(&text).unwrap(), bound);
    let error =
        serde_json::from_str::<LipschitzBound>(r#"{"value":-1.0,"kind":"exact"}"#).unwrap_err();
    assert!(error.to_string().contains("lipschitz bound is -1, expected"), "{error}");
    assert!(
        serde_json::from_str::<LipschitzBound>(r#"{"value":1.0,"kind":"exact","more":1}"#).is_err()
    );
}

/// Appendix A: descent with clipping reaches the minimiser, with scaling it stalls at diag(1, b / a).
#[test]
fn scaling_stalls_where_clipping_does_not() {
    let (a, b) = (2.0, 0.5);
    let target = array![[a, 0.0], [0.0, b]];
    let loss = |w: &Array2<f64>| (w - &target).mapv(|x| x * x).sum() / 2.0;
    for step in [0.03, 0.1, 0.5] {
        let run = |r| {
            projected_descent(target.view(), Array2::zeros((2, 2)).view(), r, step, 3000).unwrap()
        };
        let (clipped, scaled) = (run(Retraction::Clipping), run(Retraction::Scaling));
        assert!(
            norm((&clipped - &array![[1.0, 0.0], [0.0, b]]).view()) < 1e-12,
            "step {step}: {clipped}"
        );
        assert!(
            norm((&scaled - &array![[1.0, 0.0], [0.0, b / a]]).view()) < 1e-12,
            "step {step}: {scaled}"
        );
        assert!(loss(&scaled) > loss(&clipped) + 0.03);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: proptest::test_runner::RngSeed::Fixed(0), failure_persistence: None, ..Default::default() })]

    #[test]
    fn directed_rounding_encloses_the_exact_result(a in any::<f64>(), b in any::<f64>()) {
        prop_assume!(a.is_finite() && b.is_finite() && (a + b).is_finite());
        let (down, up) = (rounding::add_down(a, b), rounding::add_up(a, b));
        prop_assert!(down <= a + b && a + b <= up && up <= down.next_up());
        prop_assume!((a * b).is_finite() && (a / b).is_finite());
        let (down, up) = (rounding::mul_down(a, b), rounding::mul_up(a, b));
        prop_assert!(down <= a * b && a * b <= up && up <= down.next_up().next_up());
        let (down, up) = (rounding::div_down(a, b), rounding::div_up(a, b));
        prop_assert!(down <= a / b && a / b <= up && up <= down.next_up().next_up());
        let (down, up) = (rounding::sqrt_down(a.abs()), rounding::sqrt_up(a.abs()));
        prop_assert!(down <= a.abs().sqrt() && a.abs().sqrt() <= up);
    }

    /// Integers of 26 bits: exact results are known, and the enclosure must contain them.
    #[test]
    fn directed_rounding_is_exact_where_it_can_be(a in 1_u32..1 << 26, b in 1_u32..1 << 26) {
        let (x, y) = (f64::from(a), f64::from(b));
        prop_assert_eq!(rounding::mul_up(x, y), x * y);
        prop_assert_eq!(rounding::mul_down(x, y), x * y);
        prop_assert_eq!(rounding::add_up(x, y), x + y);
        prop_assert_eq!(rounding::div_up(x * y, y), x);
        prop_assert_eq!(rounding::div_down(x * y, y), x);
        prop_assert_eq!(rounding::sqrt_up(x * x), x);
        // q >= a / b in exact arithmetic: q has 53 bits and b 26, so compare with integers after scaling.
        let (up, down) = (rounding::div_up(x, y), rounding::div_down(x, y));
        prop_assert!(at_least(up, a, b) && (up == down || !at_least(down, a, b)));
    }

    /// The projection is the nearest point, and both maps land in the ball and leave it fixed.
    #[test]
    fn clipping_is_the_nearest_point_of_the_ball(rows in 1_usize..6, columns in 1_usize..6, seed in any::<u64>()) {
        let w = normal::<f64>(rows, columns, seed);
        let clipped = project_onto_unit_ball(w.view()).unwrap();
        let scaled = scale_to_unit_ball(w.view()).unwrap();
        for inside in [&clipped, &scaled] {
            prop_assert!(spectral_norm_bound(inside.view()).unwrap().value() <= 1.0 + 1e-7);
            prop_assert!(norm((&project_onto_unit_ball(inside.view()).unwrap() - inside).view()) < 1e-13);
        }
        let rival = scale_to_unit_ball(normal::<f64>(rows, columns, seed ^ 1).view()).unwrap();
        let distance = |x: &Array2<f64>| norm((x - &w).view());
        prop_assert!(distance(&clipped) <= distance(&scaled) + 1e-13 && distance(&clipped) <= distance(&rival) + 1e-13);
    }

    #[test]
    fn norm_bound_dominates_every_quotient(rows in 1_usize..9, columns in 1_usize..9, seed in any::<u64>()) {
        let w = normal::<f64>(rows, columns, seed);
        let bound = spectral_norm_bound(w.view()).unwrap().value();
        let v = normal::<f64>(columns, 1, seed ^ 1);
        prop_assert!(norm(w.dot(&v).view()) <= bound * norm(v.view()) * (1.0 + 1e-14));
        prop_assert!(bound >= w.svd(false, false).unwrap().1[0] * (1.0 - 1e-14));
    }
}

/// `q >= a / b`, decided in integers.
fn at_least(q: f64, a: u32, b: u32) -> bool {
    let exponent = ((q.to_bits() >> 52) & 0x7ff) as i32 - 1075;
    let mantissa = u128::from((q.to_bits() & ((1 << 52) - 1)) | (1 << 52));
    // q b = mantissa 2^exponent b against a, with -80 <= exponent <= -26 for quotients of 26-bit integers.
    mantissa * u128::from(b) >= u128::from(a) << -exponent
}
