//! Theorems 1 and 2: labels from the determinant agree with the factors, all occur, and are what paths preserve.

use blockconv::assembly::{assemble_1d, assemble_2d};
use blockconv::bcop::bcop;
use blockconv::components::{
    Label1, Label2, Path, Sign, label_1d, label_2d, labels_1d, labels_2d, measure_1d, measure_2d,
    path, random_1d, random_2d, reflections, representative_1d, representative_2d,
};
use blockconv::{Error, Kernel1, Kernel2};
use ndarray::{Array2, Array3, Axis, array, s};
use ndarray_linalg::Determinant;
use projectors::{Projector, Real, haar_orthogonal};
use proptest::prelude::*;
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use std::collections::HashSet;
use std::f64::consts::PI;

use crate::support::{self, distance, rounding};

/// Allowed |det A - sign z^d|: n factors of modulus 1 from n x n matrices that are off by the defect of k factors.
fn determinant<T: Real>(n: usize, k: usize) -> f64 {
    support::orthogonality::<T>(n, k) * n as f64
}

/// The label that the factors predict, with LAPACK's determinant for the sign.
fn predicted<T: Real>(h: &ndarray::Array2<T>, ps: &[Projector<T>]) -> Label1 {
    let degree = ps.iter().map(|p| p.n() - p.rank()).sum();
    let det = h.mapv(|x| x.as_f64()).det().unwrap();
    Label1 { sign: if det > 0.0 { Sign::Plus } else { Sign::Minus }, degree }
}

#[track_caller]
fn check_label_of_factors<T: Real>(n: usize, k: usize, seed: u64) {
    let (h, ps, qs) = support::factors::<T>(k, n, &mut support::rng(seed));
    let kernel = assemble_1d(h.view(), &ps).unwrap();
    let measured = measure_1d(&kernel).unwrap();
    let case = format!("n {n}, k {k}, seed {seed}, {}", T::NAME);
    assert_eq!(measured.label, predicted(&h, &ps), "{case}");
    assert!(measured.deviation <= determinant::<T>(n, k), "{case}: {:e}", measured.deviation);

    let kernel = assemble_2d(h.view(), &ps, &qs).unwrap();
    let measured = measure_2d(&kernel).unwrap();
    let (vertical, horizontal) = (predicted(&h, &ps), predicted(&h, &qs));
    let expected =
        Label2 { sign: vertical.sign, vertical: vertical.degree, horizontal: horizontal.degree };
    assert_eq!(measured.label, expected, "{case}");
    assert!(measured.deviation <= determinant::<T>(n, 2 * k), "{case}: {:e}", measured.deviation);
}

#[test]
fn labels_agree_with_the_factors() {
    for (n, k) in [(1, 1), (1, 5), (2, 2), (3, 3), (5, 4), (7, 2), (12, 5), (31, 3), (64, 2)] {
        for seed in 0..4 {
            check_label_of_factors::<f64>(n, k, seed);
            check_label_of_factors::<f32>(n, k, seed);
        }
    }
}

#[test]
fn theorem_1_counts_the_labels() {
    for (n, k) in [(1, 1), (1, 2), (2, 3), (4, 5), (6, 2), (3, 9)] {
        let labels: Vec<_> = labels_1d(n, k).collect();
        assert_eq!(labels.len(), 2 * (k - 1) * n + 2);
        let mut rng = support::rng(11);
        let mut reached = HashSet::new();
        for label in labels {
            let canonical = representative_1d::<f64>(label, n, k).unwrap();
            assert_eq!(canonical.orthogonality_defect(), 0.0, "canonical kernels are exact");
            reached.insert(label_1d(&canonical).unwrap());
            assert_eq!(label_1d(&random_1d::<f64>(label, n, k, &mut rng).unwrap()).unwrap(), label);
        }
        assert_eq!(reached, labels_1d(n, k).collect());
        // Nothing else occurs among kernels drawn without regard to labels.
        for _ in 0..50 {
            let (h, ps, _) = support::factors::<f64>(k, n, &mut rng);
            assert!(reached.contains(&label_1d(&assemble_1d(h.view(), &ps).unwrap()).unwrap()));
        }
    }
}

#[test]
fn theorem_2_counts_the_labels() {
    for n in 1..=5 {
        let labels: Vec<_> = labels_2d(n, 2).collect();
        assert_eq!(labels.len(), 2 * (n + 1) * (n + 1));
        let mut rng = support::rng(12);
        let mut reached = HashSet::new();
        for label in labels {
            let canonical = representative_2d::<f64>(label, n, 2).unwrap();
            assert_eq!(canonical.orthogonality_defect(), 0.0, "canonical kernels are exact");
            reached.insert(label_2d(&canonical).unwrap());
            assert_eq!(label_2d(&random_2d::<f64>(label, n, 2, &mut rng).unwrap()).unwrap(), label);
        }
        assert_eq!(reached.len(), 2 * (n + 1) * (n + 1));
    }
    assert_eq!(labels_2d(3, 3).count(), 2 * 7 * 7);
    let largest = Label2 { sign: Sign::Minus, vertical: 6, horizontal: 5 };
    assert_eq!(label_2d(&representative_2d::<f64>(largest, 3, 3).unwrap()).unwrap(), largest);
}

/// det A(y, -1) = sign (-1)^b y^a: the winding in y is the same at another z.
#[test]
fn winding_does_not_depend_on_the_other_variable() {
    let mut rng = support::rng(13);
    for n in 1..=6 {
        for k in 1..=4 {
            let (h, ps, qs) = support::factors::<f64>(k, n, &mut rng);
            let kernel = assemble_2d(h.view(), &ps, &qs).unwrap();
            let label = label_2d(&kernel).unwrap();
            let mut alternating = kernel.into_taps();
            for mut tap in alternating.axis_iter_mut(Axis(1)).skip(1).step_by(2) {
                tap.mapv_inplace(|x| -x);
            }
            let at_minus_one = Kernel1::try_new(alternating.sum_axis(Axis(1))).unwrap();
            let expected = label.sign.value() * (-1f64).powi(label.horizontal as i32);
            let measured = label_1d(&at_minus_one).unwrap();
            assert_eq!((measured.sign.value(), measured.degree), (expected, label.vertical));
        }
    }
}

#[test]
fn labels_multiply_as_determinants_do() {
    let mut rng = support::rng(14);
    for n in [1, 2, 5, 8] {
        let mut draw = |k| {
            let (h, ps, _) = support::factors::<f64>(k, n, &mut rng);
            assemble_1d(h.view(), &ps).unwrap()
        };
        let (x, y) = (draw(3), draw(4));
        let (a, b) = (label_1d(&x).unwrap(), label_1d(&y).unwrap());
        let product = label_1d(&x.block_product(&y).unwrap()).unwrap();
        assert_eq!(product.degree, a.degree + b.degree);
        assert_eq!(product.sign.value(), a.sign.value() * b.sign.value());
        // X† X = z^(k-1): the degrees of a kernel and of its adjoint add up to (k-1)n.
        assert_eq!(label_1d(&x.transpose()).unwrap().degree, 2 * n - a.degree);
    }
}

#[track_caller]
fn check_path(from: &Kernel1<f64>, to: &Kernel1<f64>, case: &str) -> Path {
    let (k, n, _) = from.taps().dim();
    let path = path(from, to).unwrap_or_else(|error| panic!("{case}: {error}"));
    let label = label_1d(from).unwrap();
    assert_eq!(path.label(), label, "{case}");
    let ends = 64.0 * f64::EPSILON * (n * k) as f64;
    for (t, end) in [(0.0, from), (1.0, to)] {
        let error = distance(&path.at(t).unwrap().taps(), &end.taps());
        assert!(error <= ends, "{case}: the end at {t} is off by {error:e}");
    }
    let steps = 40;
    let speed = path.speed_bound();
    let mut before = path.at(0.0).unwrap();
    for step in 1..=steps {
        let t = f64::from(step) / f64::from(steps);
        let now = path.at(t).unwrap();
        let allowed = support::defect::<f64>(n, k) + 64.0 * f64::EPSILON * n as f64;
        let defect = now.orthogonality_defect();
        assert!(defect <= allowed, "{case}: defect {defect:e} at {t}, allowed {allowed:e}");
        assert_eq!(label_1d(&now).unwrap(), label, "{case}: label at {t}");
        let moved = distance(&now.taps(), &before.taps());
        assert!(moved <= speed / f64::from(steps) + ends, "{case}: a jump of {moved} before {t}");
        before = now;
    }
    path
}

#[test]
fn kernels_of_equal_label_are_joined() {
    let mut rng = support::rng(15);
    for (n, k) in [(1, 3), (2, 1), (2, 2), (3, 3), (5, 4), (4, 5)] {
        for label in labels_1d(n, k) {
            let from = random_1d(label, n, k, &mut rng).unwrap();
            let to = random_1d(label, n, k, &mut rng).unwrap();
            check_path(&from, &to, &format!("n {n}, k {k}, label {label}"));
        }
    }
    let label = Label1 { sign: Sign::Minus, degree: 97 };
    let (from, to) =
        (random_1d(label, 24, 9, &mut rng).unwrap(), representative_1d(label, 24, 9).unwrap());
    check_path(&from, &to, "n 24, k 9");
}

/// Ranks (0, 2) and (1, 1) have one label: along the path rank moves from one factor to the other.
#[test]
fn paths_join_kernels_whose_factors_have_different_ranks() {
    let mut rng = support::rng(16);
    let mut draw = |ranks: [usize; 2]| {
        let ps = ranks.map(|rank| Projector::random(2, rank, &mut rng).unwrap());
        let mut h = haar_orthogonal::<f64>(2, &mut rng);
        if h.det().unwrap() < 0.0 {
            h.row_mut(0).mapv_inplace(|x| -x);
        }
        assemble_1d(h.view(), &ps).unwrap()
    };
    let kernels = [draw([0, 2]), draw([2, 0]), draw([1, 1]), draw([1, 1])];
    for from in &kernels {
        for to in &kernels {
            check_path(from, to, "ranks that add up to 2");
        }
    }
}

#[test]
fn kernels_of_different_labels_are_not_joined() {
    let labels: Vec<_> = labels_1d(2, 3).collect();
    for &left in &labels {
        for &right in labels.iter().filter(|&&right| right != left) {
            let from = representative_1d(left, 2, 3).unwrap();
            let to = representative_1d(right, 2, 3).unwrap();
            match path(&from, &to) {
                Err(Error::LabelsDiffer { left: a, right: b }) => {
                    assert_eq!((a, b), (left, right));
                }
                other => panic!("{left} to {right}: {other:?}"),
            }
        }
    }
}

/// As in training the parameters drift, now and then by a lot; half-way a reflection of H changes the sign of det H.
#[test]
fn bcop_stays_in_one_component_of_each_sign() {
    for (n, k) in [(2, 3), (3, 2), (4, 3), (5, 4)] {
        let mut rng = support::rng(17);
        let mut parameters: Array3<f64> = support::parameters(k, n, &mut rng);
        let mut seen = HashSet::new();
        for step in 0..100 {
            let scale = if step % 10 == 9 { 2.0 } else { 0.1 };
            parameters.mapv_inplace(|x| {
                let noise: f64 = StandardNormal.sample(&mut rng);
                x + scale * noise
            });
            if step == 50 {
                parameters.slice_mut(s![0, 0, ..]).mapv_inplace(|x| -x);
            }
            let kernel = bcop(parameters.view(), n, n, None).unwrap().kernel();
            seen.insert(label_2d(&kernel).unwrap());
        }
        let degree = (k - 1) * (n - n / 2);
        let allowed = Sign::BOTH.map(|sign| Label2 { sign, vertical: degree, horizontal: degree });
        assert_eq!(seen, HashSet::from(allowed), "n {n}, k {k}");
    }
}

#[track_caller]
fn check_reflections(r: &Array2<f64>, tolerance: f64, case: &str) {
    let n = r.nrows();
    let (p, q) = reflections(r.view()).unwrap();
    assert_eq!((p.rank(), q.rank()), (n / 2, n / 2), "{case}");
    let mirror = |p: &Projector<f64>| Array2::eye(n) - p.matrix().mapv(|x| 2.0 * x);
    let error = distance(&mirror(&p).dot(&mirror(&q)), r);
    assert!(error <= tolerance, "{case}: {error:e}");
}

/// Every rotation of an even number of coordinates is a product of two half-rank reflections.
#[test]
fn two_half_rank_reflections_reach_every_rotation() {
    let mut rng = support::rng(31);
    for n in [2, 4, 6, 10, 16] {
        for draw in 0..20 {
            let mut r = haar_orthogonal::<f64>(n, &mut rng);
            if r.det().unwrap() < 0.0 {
                r.row_mut(0).mapv_inplace(|x| -x);
            }
            check_reflections(&r, 1e-11, &format!("n {n}, draw {draw}"));
        }
    }
    // equal and opposite angles, eigenvalues ±1 in pairs, and angles that rounding hides
    for angles in [
        [0.0, 0.0, 0.0],
        [PI, 0.0, PI],
        [0.7, 0.7, 0.7],
        [0.7, -0.7, 0.0],
        [PI, PI, 1.0],
        [1e-9, 2.0, PI - 1e-9],
    ] {
        let mut blocks = Array2::<f64>::zeros((6, 6));
        for (plane, angle) in angles.iter().enumerate() {
            let (sin, cos) = f64::sin_cos(*angle);
            let block = array![[cos, -sin], [sin, cos]];
            blocks.slice_mut(s![2 * plane..2 * plane + 2, 2 * plane..2 * plane + 2]).assign(&block);
        }
        let v = haar_orthogonal::<f64>(6, &mut rng);
        check_reflections(&v.dot(&blocks).dot(&v.t()), 1e-7, &format!("{angles:?}"));
    }
}

/// Products of two half-rank reflections are rotations; a factor H reaches the other half of O(n) too.
#[test]
fn two_half_rank_reflections_reach_only_rotations() {
    let mut rng = support::rng(32);
    let mut signs = HashSet::new();
    for n in [2, 4, 8] {
        for _ in 0..20 {
            let mut mirror = || {
                let p = Projector::<f64>::random(n, n / 2, &mut rng).unwrap();
                Array2::<f64>::eye(n) - p.matrix().mapv(|x| 2.0 * x)
            };
            let product = mirror().dot(&mirror());
            assert!((product.det().unwrap() - 1.0).abs() < 1e-12);
            signs.insert(haar_orthogonal::<f64>(n, &mut rng).det().unwrap() > 0.0);
        }
    }
    assert_eq!(signs.len(), 2);
}

#[test]
fn what_is_no_rotation_is_refused() {
    let text = |r: Array2<f64>| reflections(r.view()).unwrap_err().to_string();
    let rotation = "expected a rotation of an even number of coordinates";
    assert_eq!(
        text(Array2::eye(3)),
        format!("the 3 x 3 matrix has no even number of rows and columns, {rotation}")
    );
    assert_eq!(
        text(array![[1.0, 0.0], [0.0, -1.0]]),
        format!("the 2 x 2 matrix has determinant -1, {rotation}")
    );
    assert_eq!(
        text(array![[2.0, 0.0], [0.0, 0.5]]),
        "the kernel is not orthogonal: its autocorrelation defect is 3.092e0, allowed is 1.000e-10"
    );
    assert!(matches!(
        reflections(array![[f64::NAN, 0.0], [0.0, 1.0]].view()),
        Err(Error::NotOrthogonal { .. })
    ));
}

#[test]
fn bad_labels_and_kernels_are_refused() {
    let text = |error: Error| error.to_string();
    let label = Label1 { sign: Sign::Plus, degree: 7 };
    assert_eq!(
        text(representative_1d::<f64>(label, 3, 3).unwrap_err()),
        "degree 7 is outside 0..=6, the degrees of orthogonal kernels of size 3 with 3 channels"
    );
    assert!(matches!(representative_1d::<f64>(label, 3, 0), Err(Error::Empty { .. })));
    assert!(matches!(representative_1d::<f64>(label, 0, 3), Err(Error::Empty { .. })));
    let bad = Label2 { sign: Sign::Plus, vertical: 0, horizontal: 3 };
    assert!(matches!(representative_2d::<f64>(bad, 2, 2), Err(Error::DegreeOutOfRange { .. })));
    assert_eq!(labels_1d(0, 3).count() + labels_1d(3, 0).count() + labels_2d(0, 2).count(), 0);

    let at = |degree| representative_1d(Label1 { sign: Sign::Minus, degree }, 2, 2).unwrap();
    assert_eq!(
        text(path(&at(1), &at(2)).unwrap_err()),
        "the kernels have labels (-, 1) and (-, 2), expected equal (sign, degree): \
         no path of orthogonal kernels joins them"
    );
    let longer = representative_1d(Label1 { sign: Sign::Minus, degree: 1 }, 2, 3).unwrap();
    assert_eq!(
        text(path(&at(1), &longer).unwrap_err()),
        "the end of the path has shape 3 x 2 x 2, expected 2 x 2 x 2"
    );
    let path = path(&at(1), &at(1)).unwrap();
    assert_eq!(text(path.at(1.5).unwrap_err()), "t = 1.5, expected a number in [0, 1]");
    assert!(path.at(f64::NAN).is_err());

    let wide = Kernel2::try_new(array![[[[1.0, 0.0]]]]).unwrap();
    assert_eq!(text(label_2d(&wide).unwrap_err()), "the kernel must have square blocks, got 1 x 2");
    let double = Kernel2::try_new(array![[[[2.0]]]]).unwrap();
    assert!(matches!(label_2d(&double), Err(Error::NotOrthogonal { defect, .. }) if defect == 3.0));
    let label = Label2 { sign: Sign::Plus, vertical: 1, horizontal: 2 };
    assert_eq!(label.to_string(), "(+, 1, 2)");
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn any_label_is_measured_as_drawn(n in 1_usize..=8, k in 1_usize..=6, seed: u64) {
        let mut rng = support::rng(seed);
        let labels: Vec<_> = labels_1d(n, k).collect();
        let label = labels[rng.random_range(0..labels.len())];
        let kernel = random_1d::<f64>(label, n, k, &mut rng).unwrap();
        let measured = measure_1d(&kernel).unwrap();
        prop_assert_eq!(measured.label, label);
        prop_assert!(measured.deviation <= determinant::<f64>(n, k).max(rounding::<f64>(n)));
    }
}
