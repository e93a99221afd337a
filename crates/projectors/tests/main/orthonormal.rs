//! Laws of the Björck iteration and of the polar factor.

use ndarray::{Array2, ArrayView2};
use projectors::bjorck::{BjorckConfig, bjorck, bjorck_iterations};
use projectors::polar::{polar, polar_from};
use projectors::{Error, Real, gemm, tolerance};
use proptest::prelude::*;

use crate::factored::exact_pullback;
use crate::support::{
    assert_close, assert_gradient, convert, largest_difference, norm, normal,
    orthonormality_defect, with_singular_values,
};

/// Square, tall and wide; small, odd, around the switch of methods at 32, and long enough for panelled products.
const SHAPES: [(usize, usize); 12] = [
    (1, 1),
    (1, 5),
    (2, 2),
    (7, 3),
    (3, 7),
    (31, 31),
    (33, 33),
    (40, 35),
    (35, 40),
    (10, 100),
    (300, 40),
    (130, 140),
];

/// Singular values spread evenly on a logarithmic scale from 1 to 1 / condition.
fn spread(k: usize, condition: f64) -> Vec<f64> {
    (0..k).map(|i| condition.powf(-(i as f64) / (k.max(2) - 1) as f64)).collect()
}

/// A rows x columns matrix of the given condition number, and its exact polar factor in f64.
pub(crate) fn with_condition(
    rows: usize,
    columns: usize,
    condition: f64,
) -> (Array2<f64>, Array2<f64>) {
    let (long, short) = (rows.max(columns), rows.min(columns));
    let w = with_singular_values::<f64>(long, &spread(short, condition), 31);
    let q = with_singular_values::<f64>(long, &vec![1.0; short], 31);
    if rows >= columns { (w, q) } else { (w.reversed_axes(), q.reversed_axes()) }
}

#[track_caller]
fn check_polar<T: Real>(rows: usize, columns: usize, condition: f64) {
    let case = format!("{rows} x {columns}, condition {condition:e}");
    let (w, expected) = with_condition(rows, columns, condition);
    let w: Array2<T> = convert(w.view());
    let polar = polar(w.view()).unwrap();
    let (long, short) = (rows.max(columns), rows.min(columns));
    let allowed = tolerance::orthonormal::<T>(long, short);
    assert!(polar.residual() <= allowed, "{case}: residual {:.2e}", polar.residual());
    let defect = orthonormality_defect(polar.factor());
    assert!(
        defect <= 1.5 * allowed,
        "{case} ({}): defect {defect:.2e}, allowed {allowed:.2e}",
        T::NAME
    );
    // Rounding W alone moves its polar factor by eps times the condition number.
    let sensitivity = T::EPS * condition * (short as f64).sqrt();
    assert_close(&case, polar.factor(), expected.view(), allowed + 8.0 * sensitivity);
    // S = H^-1 and H = Q^T W.
    let h = if rows >= columns { polar.factor().t().dot(&w) } else { w.dot(&polar.factor().t()) };
    let identity = polar.inverse_sqrt().dot(&h);
    let defect = norm((convert::<T, f64>(identity.view()) - Array2::<f64>::eye(short)).view());
    assert!(
        defect <= 32.0 * T::EPS * condition * short as f64,
        "{case} ({}): |S H - I| = {defect:.2e}",
        T::NAME
    );
}

#[test]
fn polar_factor_is_exact_to_working_precision() {
    for (rows, columns) in SHAPES {
        for condition in [1.0, 2.0, 10.0, 30.0, 100.0, 200.0, 400.0, 1e3] {
            check_polar::<f64>(rows, columns, condition);
            check_polar::<f32>(rows, columns, condition);
        }
        check_polar::<f64>(rows, columns, 1e8);
    }
}

#[test]
fn polar_factor_does_not_depend_on_scale() {
    let (w, q) = with_condition(40, 36, 3.0);
    for exponent in [-300, -100, 100, 300] {
        let scaled = polar(w.mapv(|x| x * 10.0_f64.powi(exponent)).view()).unwrap();
        assert_close("scaled", scaled.factor(), q.view(), 1e-12);
        let back = scaled.inverse_sqrt().mapv(|x| x * 10.0_f64.powi(exponent));
        assert_close(
            "inverse square root",
            back.view(),
            polar(w.view()).unwrap().inverse_sqrt(),
            1e-11,
        );
    }
}

#[test]
fn polar_factor_of_an_orthogonal_matrix_is_itself() {
    for n in [1, 5, 40] {
        let q = with_singular_values::<f64>(n, &vec![1.0; n], 1);
        assert_close("orthogonal", polar(q.view()).unwrap().factor(), q.view(), 1e-14 * n as f64);
    }
}

fn check_warm<T: Real>(change: f64) {
    for (rows, columns) in [(5, 5), (40, 40), (36, 200), (200, 36)] {
        let (w, _) = with_condition(rows, columns, 2.0);
        let first = polar(convert::<f64, T>(w.view()).view()).unwrap();
        let moved =
            &w + &(normal::<f64>(rows, columns, 3) * (change / (rows.max(columns) as f64).sqrt()));
        let moved: Array2<T> = convert(moved.view());
        let cold = polar(moved.view()).unwrap();
        let warm = polar_from(moved.view(), Some(first.inverse_sqrt())).unwrap();
        let allowed = tolerance::orthonormal::<T>(rows.max(columns), rows.min(columns));
        assert_close(
            &format!("{rows} x {columns}, change {change:e}"),
            warm.factor(),
            cold.factor(),
            allowed,
        );
        assert!(orthonormality_defect(warm.factor()) <= 1.5 * allowed);
    }
}

#[test]
fn warm_start_changes_rounding_only() {
    for change in [0.0, 1e-7, 1e-5, 1e-3, 0.1, 3.0] {
        check_warm::<f64>(change);
        check_warm::<f32>(change);
    }
}

#[test]
fn hostile_warm_starts_are_harmless() {
    let (w, q) = with_condition(40, 36, 1.5);
    let good = polar(w.view()).unwrap().inverse_sqrt().to_owned();
    // The negative of the inverse square root satisfies S G S = I too.
    let negative = good.mapv(|x| -x);
    let mut reflected = good.clone();
    reflected.row_mut(0).mapv_inplace(|x| -x);
    let nan = Array2::from_elem((36, 36), f64::NAN);
    for start in [
        negative,
        reflected,
        nan,
        Array2::zeros((36, 36)),
        Array2::eye(3),
        good.mapv(|x| x * 1e200),
    ] {
        let warm = polar_from(w.view(), Some(start.view())).unwrap();
        assert_close("hostile start", warm.factor(), q.view(), 1e-12);
    }
}

#[test]
fn polar_pullback_matches_finite_differences() {
    for (rows, columns) in
        [(1, 1), (1, 4), (3, 3), (6, 2), (2, 6), (34, 33), (35, 33), (33, 35), (70, 33)]
    {
        for condition in [1.5, 20.0] {
            let (w, _) = with_condition(rows, columns, condition);
            let cotangent = normal::<f64>(rows, columns, 37);
            let value = |w: ArrayView2<'_, f64>| (&polar(w).unwrap().factor() * &cotangent).sum();
            let gradient = polar(w.view()).unwrap().pullback(w.view(), cotangent.view());
            assert_gradient(
                &format!("{rows} x {columns}, condition {condition}"),
                &w,
                value,
                &gradient,
            );
        }
    }
}

/// The pullback in `f32` and the iterative solvers in `f64` agree with the eigendecomposition in f64.
#[test]
fn polar_pullback_agrees_between_methods_and_precisions() {
    for (rows, columns) in [(48, 48), (64, 48), (48, 200)] {
        for condition in [1.0, 3.0, 10.0, 30.0, 80.0] {
            let (w, _) = with_condition(rows, columns, condition);
            let cotangent = normal::<f64>(rows, columns, 41);
            let expected = exact_pullback(&w, &cotangent);
            let scale = norm(expected.view());
            let case = format!("{rows} x {columns}, condition {condition}");
            let double = polar(w.view()).unwrap().pullback(w.view(), cotangent.view());
            assert_close(&case, double.view(), expected.view(), 1e-13 * condition * scale);
            let (w, c): (Array2<f32>, Array2<f32>) = (convert(w.view()), convert(cotangent.view()));
            let single = polar(w.view()).unwrap().pullback(w.view(), c.view());
            assert_close(
                &case,
                single.view(),
                expected.view(),
                8.0 * f64::from(f32::EPSILON) * condition * scale,
            );
        }
    }
}

#[test]
fn polar_pullback_is_scale_invariant_in_both_arguments() {
    let (w, _) = with_condition(40, 36, 3.0);
    let c = normal::<f64>(40, 36, 2);
    let expected = polar(w.view()).unwrap().pullback(w.view(), c.view());
    let allowed = 12.0 * 3.0 * f64::from(f32::EPSILON) * norm(expected.view());
    for (w_scale, c_scale) in [(1e-20_f32, 1e-12_f32), (1e15, 1e-25), (1.0, 1e20), (1e-12, 1e15)] {
        let (w, c) = (w.mapv(|x| x as f32 * w_scale), c.mapv(|x| x as f32 * c_scale));
        let gradient = polar(w.view()).unwrap().pullback(w.view(), c.view());
        let gradient = gradient.mapv(|x| f64::from(x) * f64::from(w_scale) / f64::from(c_scale));
        assert_close("scaled", gradient.view(), expected.view(), allowed);
    }
}

#[test]
fn zero_cotangent_has_zero_gradient() {
    let (w, _) = with_condition(40, 40, 3.0);
    let gradient = polar(w.view()).unwrap().pullback(w.view(), Array2::zeros((40, 40)).view());
    assert_eq!(gradient, Array2::<f64>::zeros((40, 40)));
}

#[track_caller]
fn check_bjorck<T: Real>(rows: usize, columns: usize, condition: f64, order: usize) {
    let case = format!("{rows} x {columns}, condition {condition:e}, order {order}, {}", T::NAME);
    let (w, expected) = with_condition(rows, columns, condition);
    let w: Array2<T> = convert(w.view());
    let result = bjorck(w.view(), &BjorckConfig { order, ..BjorckConfig::default() }).unwrap();
    let allowed = tolerance::orthonormal::<T>(rows.max(columns), rows.min(columns));
    assert!(result.residual <= allowed, "{case}: {:.2e}", result.residual);
    assert!(orthonormality_defect(result.matrix.view()) <= 1.5 * allowed, "{case}");
    let sensitivity = 16.0 * T::EPS * condition * (rows.min(columns) as f64).sqrt();
    assert_close(&case, result.matrix.view(), expected.view(), allowed + sensitivity);
}

#[test]
fn bjorck_reaches_the_polar_factor_for_every_order() {
    for (rows, columns) in SHAPES {
        for order in [1, 2, 3, 5] {
            for condition in [2.0, 100.0] {
                check_bjorck::<f64>(rows, columns, condition, order);
                check_bjorck::<f32>(rows, columns, condition, order);
            }
        }
    }
    // Beyond what the Gram matrix can tell apart: finished on the full side.
    check_bjorck::<f64>(12, 9, 1e9, 1);
    check_bjorck::<f32>(12, 9, 1e4, 2);
}

#[test]
fn higher_orders_take_fewer_steps() {
    let (w, _) = with_condition(20, 12, 50.0);
    let steps = |order| {
        bjorck(w.view(), &BjorckConfig { order, ..BjorckConfig::default() }).unwrap().iterations
    };
    assert!(steps(1) > steps(2) && steps(2) > steps(4), "{} {} {}", steps(1), steps(2), steps(4));
}

#[test]
fn twenty_fixed_steps_do_not_orthonormalise_an_ill_conditioned_matrix() {
    // A singular value of 1e-5 grows by at most 1.5^20 = 3325.
    let (w, _) = with_condition(6, 6, 1e5);
    let fixed = bjorck_iterations(w.view(), 20);
    assert!(orthonormality_defect(fixed.view()) > 0.99);
    let result = bjorck(w.view(), &BjorckConfig::default()).unwrap();
    assert!(result.iterations > 20 && orthonormality_defect(result.matrix.view()) < 1e-13);
}

#[test]
fn bjorck_respects_a_loose_tolerance() {
    let (w, _) = with_condition(20, 12, 10.0);
    let config = BjorckConfig { tolerance: Some(1e-3), ..BjorckConfig::default() };
    let loose = bjorck(w.view(), &config).unwrap();
    let tight = bjorck(w.view(), &BjorckConfig::default()).unwrap();
    assert!(
        loose.iterations < tight.iterations
            && loose.residual <= 1e-3
            && loose.residual > tight.residual
    );
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let w = normal::<f32>(200, 260, 1);
    let c = normal::<f32>(200, 260, 2);
    let run = || {
        let polar = polar(w.view()).unwrap();
        let gradient = polar.pullback(w.view(), c.view());
        let gram = gemm::gram(w.view());
        (polar.into_factor(), gradient, gram)
    };
    let with_threads =
        |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(run);
    let reference = with_threads(1);
    for n_threads in [2, 3, 8] {
        assert!(with_threads(n_threads) == reference, "{n_threads} threads");
    }
}

#[test]
fn panelled_products_equal_plain_ones() {
    for (m, k, n) in
        [(700, 40, 300), (64, 900, 257), (300, 200, 129), (130, 130, 1000), (60, 3000, 70)]
    {
        let (a, b) = (normal::<f64>(m, k, 1), normal::<f64>(k, n, 2));
        assert_close("product", gemm::matmul(a.view(), b.view()).view(), a.dot(&b).view(), 1e-11);
        // Transposed operands and results, and accumulation.
        let mut c = Array2::from_elem((n, m), 1.0);
        gemm::matmul_into(2.0, b.t(), a.t(), 3.0, c.view_mut());
        assert_close("accumulated", c.view(), (b.t().dot(&a.t()) * 2.0 + 3.0).view(), 1e-11);
        // Blocked sums, added and not, on one thread and in panels.
        let plain = a.dot(&b);
        let mut c = Array2::from_elem((m, n), 1.0);
        gemm::add_in_blocks(a.view(), b.view(), c.view_mut());
        assert_close("blocks", c.view(), (&plain + 1.0).view(), 1e-11);
        let (mut c, buffer) = (Array2::from_elem((n, m), f64::NAN), &mut Vec::new());
        gemm::product_in_blocks(b.t(), a.t(), false, c.view_mut(), buffer);
        assert_close("blocks alone", c.t(), plain.view(), 1e-11);
        let gram = gemm::gram(a.view());
        assert_close("gram", gram.view(), a.t().dot(&a).view(), 1e-11);
        assert_eq!(gram, gram.t(), "exactly symmetric");
    }
    let wide = normal::<f64>(50, 1100, 3);
    assert_close("blocked gram", gemm::gram(wide.view()).view(), wide.t().dot(&wide).view(), 1e-11);
}

#[test]
fn rank_deficient_matrices_are_refused() {
    for (rows, columns) in [(2, 2), (6, 4), (4, 6), (50, 40), (40, 50)] {
        let mut sigma = vec![1.0; rows.min(columns)];
        *sigma.last_mut().unwrap() = 0.0;
        let w = with_singular_values::<f64>(rows.max(columns), &sigma, 3);
        let w = if rows < columns { w.reversed_axes() } else { w };
        let expected = rows.min(columns);
        let deficient = Error::RankDeficient { what: "matrix", rank: expected - 1, expected };
        assert_eq!(polar(w.view()).unwrap_err(), deficient);
        assert_eq!(bjorck(w.view(), &BjorckConfig::default()).unwrap_err(), deficient);
        let single: Array2<f32> = convert(w.view());
        assert!(matches!(
            bjorck(single.view(), &BjorckConfig::default()),
            Err(Error::RankDeficient { .. })
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: proptest::test_runner::RngSeed::Fixed(0), failure_persistence: None, ..Default::default() })]

    #[test]
    fn polar_factor_is_the_nearest_orthonormal_matrix(rows in 1_usize..8, columns in 1_usize..8, seed in any::<u64>()) {
        let w = normal::<f64>(rows, columns, seed);
        let q = polar(w.view()).unwrap();
        prop_assert!(orthonormality_defect(q.factor()) < 1e-13);
        let rival = polar(normal::<f64>(rows, columns, seed ^ 1).view()).unwrap();
        prop_assert!(norm((&q.factor() - &w).view()) <= norm((&rival.factor() - &w).view()) + 1e-12);
    }

    #[test]
    fn polar_commutes_with_rotations_and_transposition(rows in 1_usize..7, columns in 1_usize..7, seed in any::<u64>()) {
        let w = normal::<f64>(rows, columns, seed);
        let rotation = projectors::haar_orthogonal::<f64>(rows, &mut crate::support::rng(seed));
        let q = polar(w.view()).unwrap().into_factor();
        let rotated = polar(rotation.dot(&w).view()).unwrap().into_factor();
        prop_assert!(largest_difference(rotated.view(), rotation.dot(&q).view()) < 1e-8);
        let transposed = polar(w.t()).unwrap().into_factor();
        prop_assert!(largest_difference(transposed.t(), q.view()) < 1e-8);
    }

    #[test]
    fn bjorck_and_polar_agree(rows in 1_usize..9, columns in 1_usize..9, order in 1_usize..4, seed in any::<u64>()) {
        let w = normal::<f64>(rows, columns, seed);
        let config = BjorckConfig { order, max_iterations: 200, ..BjorckConfig::default() };
        let iterated = bjorck(w.view(), &config).unwrap();
        prop_assert!(largest_difference(iterated.matrix.view(), polar(w.view()).unwrap().factor()) < 1e-8);
    }
}
