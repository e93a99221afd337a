//! Every array of the reference vectors, from an independent float64 implementation, is matched.
//!
//! 1e-10 in f64. In f32 the tolerance is a few eps times the size of the values times the condition number of the
//! problem, which the reference singular values give.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use ndarray::{Array1, Array2};
use ndarray_linalg::{EigValsh, SVD, UPLO};
use ndarray_npy::NpzReader;
use projectors::bjorck::{BjorckConfig, bjorck, bjorck_iterations};
use projectors::polar::polar;
use projectors::{Projector, Real, norms};

use crate::support::{assert_close, convert, largest_difference};

/// The shapes of the reference matrices.
const SHAPES: [(usize, usize); 5] = [(4, 4), (7, 3), (3, 7), (16, 16), (60, 20)];
/// Step counts of the reference Björck runs.
const BJORCK_STEPS: [usize; 3] = [1, 5, 20];

/// The reference file, remembering which arrays were used.
struct Reference {
    npz: NpzReader<File>,
    used: BTreeSet<String>,
}

impl Reference {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/projectors.npz");
        Self { npz: NpzReader::new(File::open(path).unwrap()).unwrap(), used: BTreeSet::new() }
    }

    fn matrix(&mut self, name: &str) -> Array2<f64> {
        self.used.insert(name.to_owned());
        self.npz.by_name(name).unwrap()
    }

    fn vector(&mut self, name: &str) -> Array1<f64> {
        self.used.insert(name.to_owned());
        self.npz.by_name(name).unwrap()
    }

    /// Fails if an array was never compared.
    fn assert_exhausted(mut self) {
        let all: BTreeSet<_> = self
            .npz
            .names()
            .unwrap()
            .into_iter()
            .map(|n| n.trim_end_matches(".npy").to_owned())
            .collect();
        assert_eq!(all, self.used, "every reference array is compared");
    }
}

/// Tolerance for values of size about `scale` in a problem of condition number `condition`.
fn tolerance<T: Real>(scale: f64, condition: f64) -> f64 {
    if T::EPS == f64::EPSILON {
        1e-10 * scale.max(1.0)
    } else {
        16.0 * T::EPS * scale.max(1.0) * condition
    }
}

fn check_projectors<T: Real>(reference: &mut Reference) {
    for (n, ranks) in
        [(1, vec![0, 1]), (2, vec![0, 1, 2]), (5, vec![0, 2, 5]), (16, vec![0, 8, 16])]
    {
        for k in ranks {
            let case = format!("projector_n{n}_k{k}");
            let expected = reference.matrix(&case);
            let p = Projector::<T>::try_new(convert(expected.view())).unwrap();
            assert_eq!((p.n(), p.rank()), (n, k), "{case}");
            // The first k columns of P in the order of a pivoted choice span its range.
            let range =
                Projector::<T>::from_range(spanning_columns(&expected, k).mapv(T::of).view())
                    .unwrap();
            assert_close(&case, range.matrix(), expected.view(), tolerance::<T>(1.0, 100.0));
            let complement = Array2::<f64>::eye(n) - &expected;
            assert_close(
                &case,
                p.complement().matrix(),
                complement.view(),
                tolerance::<T>(1.0, 1.0),
            );
        }
    }
}

/// k orthonormal eigenvectors of the projector for the eigenvalue 1, mixed by a triangular matrix.
fn spanning_columns(p: &Array2<f64>, k: usize) -> Array2<f64> {
    let (u, _, _) = p.svd(true, false).unwrap();
    let mix =
        Array2::from_shape_fn(
            (k, k),
            |(i, j)| if i <= j { 1.0 / (1.0 + (j - i) as f64) } else { 0.0 },
        );
    u.unwrap().slice(ndarray::s![.., ..k]).dot(&mix)
}

fn check_matrix<T: Real>(reference: &mut Reference, rows: usize, columns: usize) {
    let case = format!("w_{rows}x{columns}");
    let exact = reference.matrix(&case);
    let sigma = reference.vector(&format!("{case}_singular_values"));
    let w: Array2<T> = convert(exact.view());
    let condition = sigma[0] / sigma[sigma.len() - 1];

    let bound = norms::spectral_norm_bound(w.view()).unwrap().value();
    assert!(
        (bound - sigma[0]).abs() <= tolerance::<T>(1.0, 1.0),
        "{case}: {bound} against {}",
        sigma[0]
    );

    for steps in BJORCK_STEPS {
        let expected = reference.matrix(&format!("{case}_bjorck{steps}"));
        let scaled = convert::<f64, T>((&exact / sigma[0]).view());
        assert_close(
            &case,
            bjorck_iterations(scaled.view(), steps).view(),
            expected.view(),
            tolerance::<T>(1.0, condition),
        );
    }

    let expected = reference.matrix(&format!("{case}_polar"));
    let polar = polar(w.view()).unwrap();
    assert_close(&case, polar.factor(), expected.view(), tolerance::<T>(1.0, condition));
    // The eigenvalues of (W^T W)^-1/2 are the reciprocals of the singular values, largest first.
    let inverse = convert::<T, f64>(polar.inverse_sqrt()).eigvalsh(UPLO::Lower).unwrap();
    for (got, expected) in inverse.iter().map(|x| 1.0 / x).zip(&sigma) {
        assert!(
            (got - expected).abs() <= tolerance::<T>(1.0, condition),
            "{case}: {got} against {expected}"
        );
    }
    let orthonormalised = bjorck(w.view(), &BjorckConfig::default()).unwrap();
    assert_close(
        &case,
        orthonormalised.matrix.view(),
        expected.view(),
        tolerance::<T>(1.0, condition),
    );

    let cotangent: Array2<T> = convert(reference.matrix(&format!("{case}_cotangent")).view());
    let expected = reference.matrix(&format!("{case}_polar_vjp"));
    let scale = largest_difference(expected.view(), Array2::<f64>::zeros(expected.dim()).view());
    let gradient = polar.pullback(w.view(), cotangent.view());
    assert_close(&case, gradient.view(), expected.view(), tolerance::<T>(scale, condition));
}

fn check_all<T: Real>() {
    let mut reference = Reference::open();
    check_projectors::<T>(&mut reference);
    for (rows, columns) in SHAPES {
        check_matrix::<T>(&mut reference, rows, columns);
    }
    reference.assert_exhausted();
}

#[test]
fn reference_vectors_match_in_f64() {
    check_all::<f64>();
}

#[test]
fn reference_vectors_match_in_f32() {
    check_all::<f32>();
}
