//! Laws of the factored polar factor.

use ndarray::Array2;
use projectors::polar::{factored_polar, factored_polar_within};
use projectors::{Error, Real, tolerance};

use crate::orthonormal::with_condition;
use crate::support::{assert_close, convert, norm, normal, orthonormality_defect};

/// The closed form with the singular value decomposition, straight from its definition.
pub(crate) fn exact_pullback(w: &Array2<f64>, c: &Array2<f64>) -> Array2<f64> {
    use ndarray_linalg::{JobSvd, SVDDC};
    if w.nrows() < w.ncols() {
        return exact_pullback(&w.t().to_owned(), &c.t().to_owned()).reversed_axes();
    }
    let (u, sigma, vt) = w.svddc(JobSvd::Some).unwrap();
    let (u, vt) = (u.unwrap(), vt.unwrap());
    let q = u.dot(&vt);
    let k = vt.dot(&(q.t().dot(c) - c.t().dot(&q))).dot(&vt.t());
    let x = Array2::from_shape_fn(k.dim(), |(i, j)| k[[i, j]] / (sigma[i] + sigma[j]));
    let x = vt.t().dot(&x).dot(&vt);
    let inverse = (&vt.t() / &sigma).dot(&vt);
    q.dot(&x) + (c - &q.dot(&q.t().dot(c))).dot(&inverse)
}

/// Outputs, input gradients and pullbacks of the factored form against the explicit factor in f64.
#[track_caller]
fn check_factored<T: Real>(rows: usize, columns: usize, condition: f64, allowed: f64) {
    let case = format!("{rows} x {columns}, condition {condition:e}, {}, {allowed:e}", T::NAME);
    let (w, q) = with_condition(rows, columns, condition);
    let (a, d) = (normal::<f64>(5, columns, 51), normal::<f64>(5, rows, 53));
    let typed = |x: &Array2<f64>| convert::<f64, T>(x.view());
    let typed_w = typed(&w);
    let factored = factored_polar_within(typed_w.view(), allowed).unwrap();
    let factor = factored.factor(typed_w.view());
    let (eps, defect) = if factored.is_corrected() {
        let working = tolerance::orthonormal::<T>(columns, rows);
        (working + 8.0 * T::EPS * condition * (rows as f64).sqrt(), 2.0 * working)
    } else {
        // the estimate is as good as 16 vectors make it
        assert!(allowed > 0.0, "{case}");
        let defect = 3.0 * allowed.min(plain_defect::<T>(columns, condition));
        (defect * (rows as f64).sqrt(), defect * (rows as f64).sqrt())
    };
    assert!(orthonormality_defect(factor.view()) <= defect, "{case}");
    assert_close(&case, factor.view(), q.view(), eps);
    let coordinates = factored.coordinates(typed_w.view(), typed(&a).view());
    let mut outputs = Array2::from_elem((5, rows), T::one());
    factored.add_output(coordinates.view(), outputs.view_mut());
    let expected = a.dot(&q.t()) + 1.0;
    assert_close(&case, outputs.view(), expected.view(), eps * norm(a.view()));
    let mut d_inputs = Array2::zeros((5, columns));
    factored.input_gradient(typed_w.view(), typed(&d).view(), d_inputs.view_mut());
    assert_close(&case, d_inputs.view(), d.dot(&q).view(), eps * norm(d.view()));
    let (d, a) = (typed(&d), typed(&a));
    let gradient = factored.pullback(typed_w.view(), d.view(), a.view(), coordinates.view());
    let (d, a) = (convert::<T, f64>(d.view()), convert::<T, f64>(a.view()));
    let expected = exact_pullback(&w, &d.t().dot(&a));
    let relative = T::EPS * condition * (16.0 * (rows as f64).sqrt() + condition);
    let allowed = relative * norm(expected.view());
    assert_close(&format!("pullback, {case}"), gradient.view(), expected.view(), allowed);
}

#[test]
fn factored_polar_agrees_with_the_explicit_one() {
    for (rows, columns) in
        [(1, 1), (1, 5), (3, 7), (7, 7), (31, 31), (33, 60), (48, 48), (40, 300), (130, 140)]
    {
        for condition in [1.0, 2.0, 10.0, 30.0, 100.0, 200.0, 400.0, 1e3] {
            for allowed in [0.0, 1.0] {
                let allowed = |most| allowed * most;
                check_factored::<f64>(
                    rows,
                    columns,
                    condition,
                    allowed(tolerance::applied::<f64>()),
                );
                check_factored::<f32>(
                    rows,
                    columns,
                    condition,
                    allowed(tolerance::applied::<f32>()),
                );
            }
        }
        check_factored::<f64>(rows, columns, 1e7, 0.0);
        check_factored::<f32>(rows, columns, 1e5, 0.0);
    }
}

/// What a plain factored form is expected to lose: the eigenvectors of W W^T are known to eps times its condition number.
fn plain_defect<T: Real>(columns: usize, condition: f64) -> f64 {
    T::EPS * (4.0 + (columns as f64).sqrt() + condition * condition)
}

#[test]
fn a_factored_polar_is_corrected_where_its_defect_is_not_allowed() {
    let applied = tolerance::applied::<f32>();
    let is_corrected = |condition: f64, allowed: f64| {
        let w = convert::<f64, f32>(with_condition(60, 200, condition).0.view());
        factored_polar_within(w.view(), allowed).unwrap().is_corrected()
    };
    assert!(!is_corrected(1.0, applied));
    assert!(!is_corrected(50.0, applied));
    assert!(is_corrected(2e3, applied));
    assert!(is_corrected(50.0, 0.0));
    assert!(is_corrected(50.0, f64::from(f32::EPSILON)));
    // products with a W of such a scale would underflow
    let tiny = convert::<f64, f32>(with_condition(60, 200, 50.0).0.view()).mapv(|x| x * 1e-30);
    assert!(factored_polar_within(tiny.view(), applied).unwrap().is_corrected());
}

#[test]
fn factored_polar_does_not_depend_on_scale() {
    let (w, q) = with_condition(36, 40, 3.0);
    let (a, d) = (normal::<f64>(2, 40, 51), normal::<f64>(2, 36, 53));
    let pulled = |w: &Array2<f64>| {
        let factored = factored_polar(w.view()).unwrap();
        assert_close("scaled", factored.factor(w.view()).view(), q.view(), 1e-12);
        let coordinates = factored.coordinates(w.view(), a.view());
        factored.pullback(w.view(), d.view(), a.view(), coordinates.view())
    };
    let expected = pulled(&w);
    for exponent in [-200, -100, 100, 200] {
        let scale = 10.0_f64.powi(exponent);
        let gradient = pulled(&w.mapv(|x| x * scale)).mapv(|x| x * scale);
        assert_close("scaled gradient", gradient.view(), expected.view(), 1e-11);
    }
}

#[test]
fn factored_polar_refuses_what_has_no_factor() {
    let tall = Array2::<f64>::ones((3, 2));
    assert_eq!(
        factored_polar(tall.view()).unwrap_err(),
        Error::ShapeMismatch { what: "matrix", expected: (2, 2), got: (3, 2) }
    );
    for n in [2, 40] {
        let deficient = Array2::<f32>::ones((n, n + 1));
        assert_eq!(
            factored_polar(deficient.view()).unwrap_err(),
            Error::RankDeficient { what: "matrix", rank: 1, expected: n }
        );
        let zero = Array2::<f32>::zeros((n, n));
        assert_eq!(
            factored_polar(zero.view()).unwrap_err(),
            Error::RankDeficient { what: "matrix", rank: 0, expected: n }
        );
    }
}
