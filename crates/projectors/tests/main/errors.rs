//! One test per error variant: bad input is refused, and the text names the thing, its value and what was expected.

use ndarray::{Array2, array};
use projectors::bjorck::{BjorckConfig, bjorck};
use projectors::grassmann::{geodesic, nearest_projector, nearest_projector_of_rank};
use projectors::norms::spectral_norm_bound;
use projectors::polar::polar;
use projectors::range::project_range;
use projectors::unit_ball::{Retraction, projected_descent};
use projectors::{Error, LipschitzBound, Projector, haar_frame};

use crate::support::{normal, rng, with_singular_values};

#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, Error>, expected: &str) {
    assert_eq!(result.unwrap_err().to_string(), expected);
}

#[test]
fn non_finite() {
    let mut w = normal::<f64>(3, 4, 1);
    w[[1, 2]] = f64::NAN;
    let expected = "matrix has the value NaN at row 1, column 2, expected a finite number";
    check(polar(w.view()), expected);
    check(bjorck(w.view(), &BjorckConfig::default()), expected);
    check(spectral_norm_bound(w.view()), expected);
    check(
        project_range(w.t()),
        "matrix has the value NaN at row 2, column 1, expected a finite number",
    );
    let infinite = array![[f32::NEG_INFINITY]];
    check(
        Projector::try_new(infinite),
        "projector has the value -inf at row 0, column 0, expected a finite number",
    );
}

#[test]
fn not_square() {
    check(
        Projector::try_new(Array2::<f64>::zeros((2, 3))),
        "projector is 2 x 3, expected a square matrix",
    );
    check(
        nearest_projector(Array2::<f64>::zeros((2, 3)).view()),
        "matrix is 2 x 3, expected a square matrix",
    );
}

#[test]
fn shape_mismatch() {
    let p = Projector::<f64>::random(3, 1, &mut rng(1)).unwrap();
    let q = Projector::random(4, 1, &mut rng(1)).unwrap();
    check(p.distance(&q), "second projector is 4 x 4, expected 3 x 3");
    check(geodesic(&p, &q), "second projector is 4 x 4, expected 3 x 3");
    let (target, start) = (Array2::<f64>::zeros((2, 2)), Array2::zeros((2, 3)));
    check(
        projected_descent(target.view(), start.view(), Retraction::Clipping, 0.1, 1),
        "start is 2 x 3, expected 2 x 2",
    );
}

#[test]
fn empty() {
    let none = Array2::<f64>::zeros((0, 3));
    check(polar(none.view()), "matrix is 0 x 3, expected at least one row and one column");
    check(
        bjorck(none.view(), &BjorckConfig::default()),
        "matrix is 0 x 3, expected at least one row and one column",
    );
}

#[test]
fn not_a_projector() {
    let expected = "matrix is not a symmetric projector: |P - P^T|_F = 0.000e0 and |P^2 - P|_F = 9.990e-4, \
                    expected at most 2.842e-14";
    check(Projector::try_new(array![[1.0, 0.0], [0.0, 0.999_f64]]), expected);
    // Idempotent, but oblique.
    let error = Projector::try_new(array![[1.0, 1.0], [0.0, 0.0_f64]]).unwrap_err();
    assert!(
        matches!(error, Error::NotAProjector { asymmetry, idempotence: 0.0, .. } if asymmetry > 1.4),
        "{error}"
    );
    // Squares that overflow are no proof of anything.
    assert!(Projector::try_new(array![[1e300, 0.0], [0.0, 1e300_f64]]).is_err());
}

#[test]
fn not_symmetric() {
    let expected = "matrix is not symmetric: |A - A^T|_F = 1.414e0, expected at most 4.019e-14";
    check(nearest_projector(array![[1.0, 1.0], [0.0, 0.0]].view()), expected);
}

#[test]
fn not_orthonormal() {
    let expected =
        "columns of basis are not orthonormal: |B^T B - I|_F = 3.000e0, expected at most 2.842e-14";
    check(Projector::from_basis(array![[2.0], [0.0]].view()), expected);
}

#[test]
fn rank_deficient() {
    let w = array![[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]];
    let expected = "matrix has numerical rank 1, expected full rank 2";
    check(polar(w.view()), expected);
    check(bjorck(w.view(), &BjorckConfig::default()), expected);
    check(project_range(w.view()), expected);
    check(project_range(w.mapv(|x| x as f32).view()), expected);
    check(Projector::from_range(w.view()), expected);
    check(
        polar(Array2::<f64>::zeros((2, 2)).view()),
        "matrix has numerical rank 0, expected full rank 2",
    );
    check(
        bjorck(Array2::<f64>::zeros((2, 2)).view(), &BjorckConfig::default()),
        "matrix has numerical rank 0, expected full rank 2",
    );
    check(
        project_range(Array2::<f64>::zeros((2, 2)).view()),
        "matrix has numerical rank 0, expected full rank 2",
    );
    check(
        project_range(Array2::<f64>::eye(3).slice(ndarray::s![..2, ..])),
        "matrix has numerical rank 2, expected full rank 3",
    );
}

#[test]
fn rank_out_of_range() {
    let expected = "rank 4 is outside 0..=3, the ranks of projectors on a space of dimension 3";
    check(Projector::<f64>::random(3, 4, &mut rng(1)), expected);
    check(haar_frame::<f64>(3, 4, &mut rng(1)), expected);
    check(nearest_projector_of_rank(Array2::<f64>::eye(3).view(), 4), expected);
}

#[test]
fn ranks_differ() {
    let (p, q) = (
        Projector::<f64>::random(3, 1, &mut rng(1)).unwrap(),
        Projector::random(3, 2, &mut rng(1)).unwrap(),
    );
    check(
        geodesic(&p, &q),
        "projectors have ranks 1 and 2, expected equal ranks: no path joins two components",
    );
}

#[test]
fn not_converged() {
    let w = with_singular_values::<f64>(5, &[1.0, 1e-3, 1e-3], 1);
    let config = BjorckConfig { max_iterations: 3, ..BjorckConfig::default() };
    let error = bjorck(w.view(), &config).unwrap_err();
    assert!(
        matches!(error, Error::NotConverged { iterations: 3, residual, .. } if residual > 1.0),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.starts_with("bjorck iteration left a residual of 1.4"), "{text}");
    assert!(text.ends_with("after 3 iterations, expected at most 2.523e-15"), "{text}");
}

#[test]
fn invalid_setting() {
    let w = array![[1.0]];
    let order = BjorckConfig { order: 0, ..BjorckConfig::default() };
    check(bjorck(w.view(), &order), "order = 0, expected an order of at least 1");
    for tolerance in [0.0, -1.0, f64::NAN] {
        let config = BjorckConfig { tolerance: Some(tolerance), ..BjorckConfig::default() };
        check(
            bjorck(w.view(), &config),
            &format!("tolerance = {tolerance}, expected a positive finite number"),
        );
    }
    let p = Projector::<f64>::random(3, 1, &mut rng(1)).unwrap();
    check(geodesic(&p, &p).unwrap().at(f64::NAN), "t = NaN, expected a finite number");
}

#[test]
fn invalid_bound() {
    check(
        LipschitzBound::exact(f64::NAN),
        "lipschitz bound is NaN, expected a finite number at or above zero",
    );
    check(
        LipschitzBound::upper_bound(f64::INFINITY),
        "lipschitz bound is inf, expected a finite number at or above zero",
    );
    check(
        LipschitzBound::estimate(-0.5),
        "lipschitz bound is -0.5, expected a finite number at or above zero",
    );
    // The norm itself exceeds the largest number.
    let w = Array2::from_elem((2, 2), f64::MAX);
    check(
        spectral_norm_bound(w.view()),
        "lipschitz bound is inf, expected a finite number at or above zero",
    );
}

#[test]
fn lapack() {
    // No finite input makes a routine fail reliably, so the text alone is checked.
    let error = Error::Lapack { routine: "svd", reason: "return code 1".to_owned() };
    assert_eq!(error.to_string(), "lapack svd failed: return code 1");
}
