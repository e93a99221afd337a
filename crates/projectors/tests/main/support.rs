//! Generators, tolerances and comparisons shared by the tests.

use ndarray::{Array2, ArrayView2};
use projectors::{Real, haar_frame};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// A generator decided by its seed.
pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Independent standard normal entries.
pub(crate) fn normal<T: Real>(rows: usize, columns: usize, seed: u64) -> Array2<T> {
    let mut rng = rng(seed);
    Array2::from_shape_simple_fn((rows, columns), || {
        let z: f64 = StandardNormal.sample(&mut rng);
        T::of(z)
    })
}

/// `U diag(sigma) V^T` with Haar-distributed factors; the number of columns is that of `sigma`.
pub(crate) fn with_singular_values<T: Real>(rows: usize, sigma: &[f64], seed: u64) -> Array2<T> {
    let mut rng = rng(seed);
    let u = haar_frame::<f64>(rows, sigma.len(), &mut rng).unwrap();
    let v = haar_frame::<f64>(sigma.len(), sigma.len(), &mut rng).unwrap();
    (&u * &ndarray::aview1(sigma)).dot(&v.t()).mapv(T::of)
}

/// Frobenius norm, in f64.
pub(crate) fn norm<T: Real>(a: ArrayView2<'_, T>) -> f64 {
    a.iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt()
}

/// The same matrix in another element type.
pub(crate) fn convert<T: Real, U: Real>(a: ArrayView2<'_, T>) -> Array2<U> {
    a.mapv(|x| U::of(x.as_f64()))
}

/// Largest absolute difference of two matrices of the same shape.
pub(crate) fn largest_difference<T: Real, U: Real>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, U>,
) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b.iter()).map(|(x, y)| (x.as_f64() - y.as_f64()).abs()).fold(0.0, f64::max)
}

/// `|B^T B - I|_F` in f64, of the wide matrix's transpose where that is the side that can be orthonormal.
pub(crate) fn orthonormality_defect<T: Real>(b: ArrayView2<'_, T>) -> f64 {
    let b = convert::<T, f64>(if b.nrows() < b.ncols() { b.t() } else { b });
    let defect = b.t().dot(&b) - Array2::<f64>::eye(b.ncols());
    norm(defect.view())
}

/// Asserts closeness entry by entry, naming the case.
#[track_caller]
pub(crate) fn assert_close<T: Real, U: Real>(
    case: &str,
    got: ArrayView2<'_, T>,
    expected: ArrayView2<'_, U>,
    tolerance: f64,
) {
    let difference = largest_difference(got, expected);
    assert!(
        difference <= tolerance,
        "{case} ({}): largest difference {difference:.3e}, allowed {tolerance:.3e}",
        T::NAME
    );
}

/// Compares a gradient with central differences along random directions, in f64.
#[track_caller]
pub(crate) fn assert_gradient(
    case: &str,
    at: &Array2<f64>,
    value: impl Fn(ArrayView2<'_, f64>) -> f64,
    gradient: &Array2<f64>,
) {
    assert_eq!(gradient.dim(), at.dim(), "{case}");
    for seed in 0..4 {
        let direction = normal::<f64>(at.nrows(), at.ncols(), 100 + seed);
        let step = 1e-5 / norm(direction.view()) * norm(at.view()).min(1.0);
        let difference =
            value((at + &(&direction * step)).view()) - value((at - &(&direction * step)).view());
        let expected = difference / (2.0 * step);
        let got = (gradient * &direction).sum();
        // Rounding of the value over the step, and the curvature times the square of the step.
        let n = at.nrows().max(at.ncols()) as f64;
        let rounding = f64::EPSILON * n * (1.0 + value(at.view()).abs()) / step;
        let allowed = 2e-6 * norm(gradient.view()) * norm(direction.view()) + rounding + 1e-9;
        assert!(
            (got - expected).abs() <= allowed,
            "{case}: {got} against {expected}, allowed {allowed:.1e}"
        );
    }
}
