//! Laws of projectors, of the range projection and of the Grassmannian.

use ndarray::{Array2, ArrayView2, s};
use projectors::range::project_range;
use projectors::{Projector, Real, grassmann, haar_frame, haar_orthogonal, tolerance};
use proptest::prelude::*;

use crate::support::{
    assert_close, assert_gradient, convert, norm, normal, orthonormality_defect, rng,
    with_singular_values,
};

/// Sizes with prime, small and power-of-two neighbours; the last ones run the panelled products.
const SIZES: [usize; 9] = [1, 2, 3, 7, 16, 31, 64, 129, 257];

/// P = P^2 = P^T and trace P = rank, measured in f64.
#[track_caller]
fn check_is_projector<T: Real>(case: &str, p: &Projector<T>) {
    let m: Array2<f64> = convert(p.matrix());
    let idempotence = norm((m.dot(&m) - &m).view());
    let asymmetry = norm((&m - &m.t()).view());
    let allowed = tolerance::projector::<T>(p.n()) / 4.0;
    assert!(
        idempotence <= allowed && asymmetry == 0.0,
        "{case}: {idempotence:.2e}, {asymmetry:.2e}, allowed {allowed:.2e}"
    );
    let trace: f64 = m.diag().sum();
    assert!((trace - p.rank() as f64).abs() <= allowed, "{case}: trace {trace}, rank {}", p.rank());
    assert!(p.defect().as_f64() <= tolerance::projector::<T>(p.n()));
}

fn check_random_projectors<T: Real>() {
    for n in SIZES {
        for rank in [0, n / 2, n] {
            let case = format!("n = {n}, rank = {rank}, {}", T::NAME);
            let p = Projector::<T>::random(n, rank, &mut rng(7)).unwrap();
            assert_eq!((p.n(), p.rank()), (n, rank));
            check_is_projector(&case, &p);
            check_is_projector(&case, &p.complement());
            assert_eq!(p.complement().rank(), n - rank);
            // P and its complement sum to the identity, and their product vanishes.
            let product = p.matrix().dot(&p.complement().matrix());
            assert!(norm(product.view()) <= tolerance::projector::<T>(n), "{case}");
        }
    }
}

#[test]
fn random_projectors_and_complements_are_projectors() {
    check_random_projectors::<f64>();
    check_random_projectors::<f32>();
}

#[test]
fn random_projectors_are_uniform() {
    // E[P] = (rank / n) I, and the variance of an entry is below 1 / n.
    let (n, rank, draws) = (5, 2, 4000);
    let mut rng = rng(3);
    let mut mean = Array2::<f64>::zeros((n, n));
    for _ in 0..draws {
        mean += &Projector::<f64>::random(n, rank, &mut rng).unwrap().matrix();
    }
    mean /= draws as f64;
    let expected = Array2::<f64>::eye(n) * (rank as f64 / n as f64);
    assert_close("mean", mean.view(), expected.view(), 5.0 / (draws as f64 * n as f64).sqrt());
}

#[test]
fn haar_matrices_are_uniform_not_merely_orthogonal() {
    // For the Haar measure E[trace Q] = 0 and E[(trace Q)^2] = 1; QR without the sign correction has a negative mean.
    let (n, draws) = (6, 4000);
    let mut rng = rng(5);
    let traces: Vec<f64> =
        (0..draws).map(|_| haar_orthogonal::<f64>(n, &mut rng).diag().sum()).collect();
    let mean = traces.iter().sum::<f64>() / draws as f64;
    let square = traces.iter().map(|t| t * t).sum::<f64>() / draws as f64;
    assert!(mean.abs() < 0.08 && (square - 1.0).abs() < 0.12, "mean {mean}, mean square {square}");
}

fn check_haar_frames<T: Real>() {
    for n in SIZES {
        for k in [0, n / 2, n] {
            let frame = haar_frame::<T>(n, k, &mut rng(11)).unwrap();
            assert_eq!(frame.dim(), (n, k));
            assert!(
                orthonormality_defect(frame.view()) <= tolerance::orthonormal::<T>(n, k),
                "n = {n}, k = {k}"
            );
        }
    }
}

#[test]
fn haar_frames_are_orthonormal() {
    check_haar_frames::<f64>();
    check_haar_frames::<f32>();
}

#[test]
fn single_and_double_precision_see_the_same_draws() {
    let single = haar_orthogonal::<f32>(9, &mut rng(2));
    let double = haar_orthogonal::<f64>(9, &mut rng(2));
    assert_close("haar", single.view(), double.view(), 1e-5);
}

/// The basis is orthonormal whatever the conditioning, and P fixes the columns of M.
fn check_range<T: Real>(n: usize, k: usize, condition: f64) {
    let case = format!("n = {n}, k = {k}, condition = {condition:e}, {}", T::NAME);
    let sigma: Vec<f64> =
        (0..k).map(|i| condition.powf(-(i as f64) / (k.max(2) - 1) as f64)).collect();
    let m: Array2<T> = with_singular_values(n, &sigma, 17);
    let projection = project_range(m.view()).unwrap();
    let defect = orthonormality_defect(projection.basis());
    assert!(defect <= 1.5 * tolerance::orthonormal::<T>(n, k), "{case}: defect {defect:.2e}");
    check_is_projector(&case, &Projector::try_new(projection.matrix().to_owned()).unwrap());
    let residual = norm((projection.matrix().dot(&m) - &m).view());
    assert!(residual <= tolerance::projector::<T>(n), "{case}: |P M - M| = {residual:.2e}");
}

#[test]
fn range_projection_is_a_projector_whatever_the_conditioning() {
    for (n, k) in [(1, 1), (5, 2), (16, 8), (31, 31), (130, 65), (300, 150)] {
        for condition in [1.0, 6.0, 1e2, 1e3, 1e4] {
            check_range::<f32>(n, k, condition);
        }
        for condition in [1.0, 1e3, 1e7, 1e10, 1e12] {
            check_range::<f64>(n, k, condition);
        }
    }
}

#[test]
fn range_projection_does_not_depend_on_scale() {
    let m = normal::<f32>(9, 4, 1);
    let expected = project_range(m.view()).unwrap();
    for scale in [1e-30_f32, 1e-12, 1e12, 1e30] {
        let scaled = project_range(m.mapv(|x| x * scale).view()).unwrap();
        assert_close("scaled", scaled.matrix(), expected.matrix(), 1e-5);
    }
    let tiny = project_range(normal::<f64>(4, 2, 3).mapv(|x| x * 1e-300).view()).unwrap();
    assert!(tiny.pullback(Array2::eye(4).view()).iter().all(|x| x.is_finite()));
}

#[test]
fn range_projection_pullback_matches_finite_differences() {
    for (n, k) in [(1, 1), (4, 1), (6, 3), (9, 9), (20, 10)] {
        let m =
            with_singular_values::<f64>(n, &(0..k).map(|i| 1.0 + i as f64).collect::<Vec<_>>(), 23);
        let cotangent = normal::<f64>(n, n, 29);
        let value =
            |m: ArrayView2<'_, f64>| (&project_range(m).unwrap().matrix() * &cotangent).sum();
        let gradient = project_range(m.view()).unwrap().pullback(cotangent.view());
        assert_gradient(&format!("n = {n}, k = {k}"), &m, value, &gradient);
    }
}

#[test]
fn range_projection_pullback_survives_bad_conditioning() {
    // The gradient along M's own columns vanishes, because P depends on the range only.
    let m = with_singular_values::<f64>(12, &[1.0, 1e-3, 1e-6, 1e-9], 5);
    let gradient = project_range(m.view()).unwrap().pullback(normal::<f64>(12, 12, 6).view());
    let along = m.t().dot(&gradient);
    assert!(norm(along.view()) <= 1e-5, "{:.2e}", norm(along.view()));
}

#[test]
fn empty_range_is_the_zero_projector() {
    let projection = project_range(Array2::<f64>::zeros((3, 0)).view()).unwrap();
    assert_eq!(projection.matrix(), Array2::<f64>::zeros((3, 3)));
    assert_eq!(projection.pullback(Array2::eye(3).view()).dim(), (3, 0));
}

#[test]
fn basis_of_a_projector_spans_its_range() {
    let p = Projector::<f64>::random(13, 5, &mut rng(1)).unwrap();
    let again = Projector::from_basis(grassmann::basis(&p).unwrap().view()).unwrap();
    assert!(p.distance(&again).unwrap() < 1e-13);
}

/// The path starts and ends where it should, has the speed of a geodesic, and stays in the space.
#[track_caller]
fn check_geodesic<T: Real>(from: &Projector<T>, to: &Projector<T>) {
    let path = grassmann::geodesic(from, to).unwrap();
    let allowed = tolerance::projector::<T>(from.n());
    assert!(path.at(0.0).unwrap().distance(from).unwrap().as_f64() <= allowed);
    assert!(path.at(1.0).unwrap().distance(to).unwrap().as_f64() <= allowed);
    let (steps, speed) = (16, 2.0_f64.sqrt() * path.length().as_f64());
    let mut last = path.at(0.0).unwrap();
    for i in 1..=steps {
        let next = path.at(i as f64 / steps as f64).unwrap();
        check_is_projector("point of the path", &next);
        assert_eq!(next.rank(), from.rank());
        let moved = last.distance(&next).unwrap().as_f64();
        assert!(
            moved <= speed / steps as f64 + allowed,
            "jump of {moved:.3e} at speed {speed:.3e}"
        );
        last = next;
    }
}

#[test]
fn geodesic_joins_projectors_of_equal_rank() {
    for (n, rank) in [(1, 0), (1, 1), (2, 1), (5, 2), (6, 5), (16, 8), (16, 16)] {
        let mut rng = rng(n as u64);
        let (p, q) = (
            Projector::<f64>::random(n, rank, &mut rng).unwrap(),
            Projector::random(n, rank, &mut rng).unwrap(),
        );
        check_geodesic(&p, &q);
        check_geodesic(&p, &p);
        let (p, q) = (
            Projector::<f32>::random(n, rank, &mut rng).unwrap(),
            Projector::random(n, rank, &mut rng).unwrap(),
        );
        check_geodesic(&p, &q);
    }
}

#[test]
fn geodesic_handles_right_angles_and_tiny_angles() {
    let p = Projector::<f64>::random(8, 4, &mut rng(1)).unwrap();
    check_geodesic(&p, &p.complement());
    let u = haar_frame::<f64>(8, 5, &mut rng(2)).unwrap();
    for angle in [1e-12_f64, 1e-8, 1e-4] {
        let mut v = u.slice(s![.., ..4]).to_owned();
        let turned = &u.column(0) * angle.cos() + &u.column(4) * angle.sin();
        v.column_mut(0).assign(&turned);
        let (p, q) = (
            Projector::from_basis(u.slice(s![.., ..4])).unwrap(),
            Projector::from_basis(v.view()).unwrap(),
        );
        check_geodesic(&p, &q);
        let length = grassmann::geodesic(&p, &q).unwrap().length();
        assert!((length - angle).abs() <= 1e-14 + 1e-6 * angle, "{length:e} for {angle:e}");
    }
}

#[test]
fn distance_is_the_norm_of_the_sines() {
    let mut rng = rng(4);
    let (p, q) = (
        Projector::<f64>::random(9, 4, &mut rng).unwrap(),
        Projector::random(9, 4, &mut rng).unwrap(),
    );
    let angles = grassmann::geodesic(&p, &q).unwrap().angles().clone();
    let expected = (2.0 * angles.mapv(|t| t.sin().powi(2)).sum()).sqrt();
    assert!((p.distance(&q).unwrap() - expected).abs() < 1e-13);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: proptest::test_runner::RngSeed::Fixed(0), failure_persistence: None, ..Default::default() })]

    #[test]
    fn nearest_projector_beats_every_other(n in 1_usize..7, seed in any::<u64>(), rival in 0_usize..7) {
        let a = normal::<f64>(n, n, seed);
        let symmetric = (&a + &a.t()) / 2.0;
        let distance = |p: &Projector<f64>| norm((&p.matrix() - &symmetric).view());
        let best = grassmann::nearest_projector(symmetric.view()).unwrap();
        check_is_projector("nearest", &best);
        let rank = rival.min(n);
        let of_rank = grassmann::nearest_projector_of_rank(symmetric.view(), rank).unwrap();
        prop_assert_eq!(of_rank.rank(), rank);
        let other = Projector::random(n, rank, &mut rng(seed ^ 1)).unwrap();
        prop_assert!(distance(&best) <= distance(&of_rank) + 1e-12);
        prop_assert!(distance(&of_rank) <= distance(&other) + 1e-12);
    }

    #[test]
    fn nearest_projector_of_a_projector_is_itself(n in 1_usize..9, rank in 0_usize..9, seed in any::<u64>()) {
        let p = Projector::<f64>::random(n, rank.min(n), &mut rng(seed)).unwrap();
        let nearest = grassmann::nearest_projector(p.matrix()).unwrap();
        prop_assert!(p.distance(&nearest).unwrap() < 1e-13);
    }

    #[test]
    fn projector_of_a_range_depends_on_the_range_only(n in 1_usize..12, k in 1_usize..12, seed in any::<u64>()) {
        let k = k.min(n);
        let m = normal::<f64>(n, k, seed);
        // A triangular mix of the columns with unit diagonal is invertible and well-conditioned enough.
        let mix = Array2::from_shape_fn((k, k), |(i, j)| if i == j { 1.0 } else if i < j { 0.3 } else { 0.0 });
        let p = Projector::from_range(m.view()).unwrap();
        let q = Projector::from_range(m.dot(&mix).view()).unwrap();
        check_is_projector("range", &p);
        prop_assert!(p.distance(&q).unwrap() < 1e-7);
    }
}
