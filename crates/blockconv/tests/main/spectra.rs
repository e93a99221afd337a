//! Singular values: those of the dense operator, for square and rectangular kernels and images, odd and even.

use blockconv::{Kernel2, spectrum};
use ndarray::{Array1, Array4};
use projectors::Real;
use proptest::prelude::*;

use crate::support::{self, dense, dense_singular_values, distance, random_kernel};

/// Allowed deviation relative to sigma_max: what the method promises in f64, and the result's own rounding.
fn accuracy<T: Real>() -> f64 {
    1e-11 + 2.0 * T::EPS
}

#[track_caller]
fn check_spectrum<T: Real>(kernel: &Kernel2<T>, size: (usize, usize)) {
    let expected = Array1::from(dense_singular_values(&dense(kernel.taps(), size)));
    let got = kernel.singular_values(size).unwrap().mapv(Real::as_f64);
    assert_eq!(got.len(), size.0 * size.1 * kernel.n_out().min(kernel.n_in()));
    let allowed = accuracy::<T>() * expected[0] * (expected.len() as f64).sqrt();
    let error = distance(&got, &expected);
    assert!(
        error <= allowed,
        "{:?} on {size:?} in {}: {error:e} > {allowed:e}",
        kernel.taps().dim(),
        T::NAME
    );
    let extremes = spectrum::extremes(kernel, size).unwrap();
    let (min, max) = (expected[expected.len() - 1], expected[0]);
    assert!(
        (extremes.sigma_min - min).abs() <= allowed && (extremes.sigma_max - max).abs() <= allowed
    );
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn singular_values_are_those_of_the_dense_operator(
        k in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5), extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        let shape = (k.0, k.1, n.0, n.1);
        check_spectrum(&random_kernel::<f64>(shape, &mut support::rng(seed)), (k.0 + extra.0, k.1 + extra.1));
        check_spectrum(&random_kernel::<f32>(shape, &mut support::rng(seed)), (k.0 + extra.0, k.1 + extra.1));
    }
}

#[test]
fn singular_kernels_have_accurate_small_singular_values() {
    // a difference filter annihilates constants: squares would lose half of the digits of the smallest values
    let difference = Array4::from_shape_fn((2, 1, 1, 1), |(i, ..)| if i == 0 { 1.0 } else { -1.0 });
    let kernel = Kernel2::try_new(difference).unwrap();
    let sigma = kernel.singular_values((6, 2)).unwrap();
    let mut exact: Vec<f64> =
        (0..12).map(|m| 2.0 * (std::f64::consts::PI * f64::from(m / 2) / 6.0).sin()).collect();
    exact.sort_by(|a, b| b.total_cmp(a));
    assert!(distance(&sigma, &Array1::from(exact)) <= 1e-15 * 20.0, "{sigma}");
    let rank_one = Array4::<f64>::from_elem((2, 2, 3, 3), 0.5);
    check_spectrum(&Kernel2::try_new(rank_one).unwrap(), (3, 5));
    check_spectrum(&Kernel2::try_new(Array4::<f64>::zeros((1, 2, 2, 3))).unwrap(), (2, 2));
}

#[test]
fn spectrum_of_a_product_of_orthogonal_and_diagonal_kernels_is_the_diagonal() {
    let (h, ps, qs) = support::factors::<f64>(3, 3, &mut support::rng(2));
    let orthogonal = blockconv::assembly::assemble_2d(h.view(), &ps, &qs).unwrap();
    let mut diagonal = Array4::zeros((1, 1, 3, 3));
    for (i, x) in [4.0, 2.0, 0.5].into_iter().enumerate() {
        diagonal[[0, 0, i, i]] = x;
    }
    let kernel = orthogonal.block_product(&Kernel2::try_new(diagonal).unwrap()).unwrap();
    let sigma = kernel.singular_values((4, 5)).unwrap();
    let expected = Array1::from_shape_fn(60, |i| [4.0, 2.0, 0.5][i / 20]);
    assert!(distance(&sigma, &expected) <= 1e-13);
}

#[test]
fn spectra_do_not_depend_on_the_number_of_threads() {
    let kernel = random_kernel::<f32>((3, 3, 12, 9), &mut support::rng(1));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| kernel.singular_values((6, 5)).unwrap())
    };
    assert_eq!(run(1), run(3));
}
