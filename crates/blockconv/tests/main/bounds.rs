//! Rigorous bounds: never below the dense operator's norm, tight where the documentation says so.

use blockconv::bounds::{cyclic_norm_bound, cyclic_norm_bound_on};
use blockconv::{layer_weight, spectrum};
use ndarray::{Array4, s};
use projectors::{BoundKind, Real};
use proptest::prelude::*;
use rand::Rng;

use crate::support::{self, dense, dense_singular_values, parameters, random_kernel};

/// The norm of a dense matrix is computed with a relative error of about this.
fn dense_error(sides: usize) -> f64 {
    4.0 * f64::EPSILON * (sides as f64).sqrt()
}

#[track_caller]
fn check_bounds<T: Real>(weight: &Array4<T>, size: (usize, usize)) {
    let kernel = blockconv::from_layer_weight(weight.view()).unwrap();
    let matrix = dense(kernel.taps(), size);
    let sigma_max = dense_singular_values(&matrix)[0];
    let least = sigma_max * (1.0 - dense_error(matrix.nrows().max(matrix.ncols())));
    let every = cyclic_norm_bound(weight.view()).unwrap();
    let on = cyclic_norm_bound_on(weight.view(), size).unwrap();
    let case = format!("{:?} on {size:?} in {}", weight.dim(), T::NAME);
    assert!(every.is_rigorous() && on.is_rigorous());
    assert!(every.value() >= least, "{case}: {} below {sigma_max}", every.value());
    assert!(on.value() >= least, "{case}: {} below {sigma_max}", on.value());
    assert!(
        on.value() <= sigma_max * (1.0 + 1e-4) + 1e-280,
        "{case}: {} not near {sigma_max}",
        on.value()
    );
    assert!(on.value() <= every.value(), "{case}");
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn bounds_hold_for_random_kernels(
        k in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5), extra in (0_usize..4, 0_usize..4),
        exponent in -30_i32..30, seed: u64,
    ) {
        let size = (k.0 + extra.0, k.1 + extra.1);
        let kernel = random_kernel::<f64>((k.0, k.1, n.0, n.1), &mut support::rng(seed));
        let weight = layer_weight(&kernel).mapv(|x| x * 10_f64.powi(exponent));
        check_bounds(&weight, size);
        check_bounds(&weight.mapv(|x| x as f32), size);
    }

    #[test]
    fn bounds_hold_for_adversarial_kernels(
        k in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5), extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        let size = (k.0 + extra.0, k.1 + extra.1);
        for weight in adversarial((n.0, n.1, k.0, k.1), seed) {
            check_bounds(&weight, size);
        }
    }
}

/// Constant kernels (norm attained at frequency 0, all shifts aligned), alternating signs (at the highest frequency),
/// rank one, one dominant entry, entries of widely different size, zero.
fn adversarial(shape: (usize, usize, usize, usize), seed: u64) -> Vec<Array4<f64>> {
    let mut rng = support::rng(seed);
    let wild = Array4::from_shape_simple_fn(shape, || {
        rng.random_range(-1.0..1.0) * 10_f64.powi(rng.random_range(-12..3))
    });
    let mut dominant = Array4::from_elem(shape, 1e-9);
    dominant[[shape.0 - 1, 0, shape.2 - 1, 0]] = 1.0;
    vec![
        Array4::ones(shape),
        Array4::from_shape_fn(
            shape,
            |(o, i, a, b)| if (o + i + a + b) % 2 == 0 { 1.0 } else { -1.0 },
        ),
        Array4::from_shape_fn(shape, |(o, i, a, b)| {
            (1 + o) as f64 * (2 + i) as f64 / (1 + a + 2 * b) as f64
        }),
        dominant,
        wild,
        Array4::zeros(shape),
    ]
}

#[track_caller]
fn check_tight<T: Real>(k: usize, c_out: usize, c_in: usize, excess: f64) {
    let mut rng = support::rng((k + c_out) as u64);
    let parameters = parameters::<f64>(k, c_out.max(c_in), &mut rng);
    let weight = blockconv::bcop::bcop(parameters.view(), c_out, c_in, None)
        .unwrap()
        .layer_weight()
        .mapv(T::of);
    let bound = cyclic_norm_bound(weight.view()).unwrap();
    assert_eq!(bound.kind(), BoundKind::UpperBound);
    let value = bound.value();
    assert!(
        value >= 1.0 - 1e-6 && value <= 1.0 + excess,
        "k {k}, {c_in} -> {c_out} in {}: 1 + {:e}",
        T::NAME,
        value - 1.0
    );
    let kernel = blockconv::from_layer_weight(weight.view()).unwrap();
    let sigma_max = spectrum::extremes(&kernel, (k + 2, k + 3)).unwrap().sigma_max;
    assert!(
        value >= sigma_max * (1.0 - 1e-14),
        "k {k}, {c_in} -> {c_out}: {value} below {sigma_max}"
    );
}

#[test]
fn bound_is_tight_for_orthonormal_kernels_rounded_to_f32() {
    for (k, c_out, c_in) in [
        (1, 1, 1),
        (2, 16, 4),
        (2, 32, 64),
        (3, 32, 3),
        (3, 64, 64),
        (4, 8, 8),
        (5, 32, 32),
        (3, 160, 96),
    ] {
        check_tight::<f32>(k, c_out, c_in, 1e-6);
        // in f64 what remains is the accounted rounding of the bound itself
        check_tight::<f64>(k, c_out, c_in, 1e-9);
    }
}

#[test]
fn bounds_are_equivariant_under_powers_of_two_up_to_the_ends_of_the_range() {
    let weight = layer_weight(&random_kernel::<f64>((2, 3, 3, 2), &mut support::rng(7)));
    let (every, on) = (
        cyclic_norm_bound(weight.view()).unwrap(),
        cyclic_norm_bound_on(weight.view(), (3, 4)).unwrap(),
    );
    for exponent in [-900, -300, 1, 500, 1000] {
        let scaled = weight.mapv(|x| x * 2_f64.powi(exponent));
        let factor = 2_f64.powi(exponent);
        // scaling back is exact or rounded up by one last place
        let every_scaled = cyclic_norm_bound(scaled.view()).unwrap().value() / factor;
        let on_scaled = cyclic_norm_bound_on(scaled.view(), (3, 4)).unwrap().value() / factor;
        for (got, expected) in [(every_scaled, every.value()), (on_scaled, on.value())] {
            assert!(
                got == expected || got == expected.next_up(),
                "2^{exponent}: {got} against {expected}"
            );
        }
    }
    let subnormal = weight.mapv(|x| x * 2_f64.powi(-1000) * 2_f64.powi(-70));
    check_bounds_scaled_up(&subnormal);
    assert!(cyclic_norm_bound(Array4::from_elem((2, 2, 2, 2), f64::MAX).view()).is_err());
}

/// Subnormal numbers: the same stored numbers times 2^1000 twice over have an ordinary norm.
#[track_caller]
fn check_bounds_scaled_up(weight: &Array4<f64>) {
    let large = weight.mapv(|x| x * 2_f64.powi(1000));
    let sigma_max = spectrum::layer_singular_values(large.view(), (3, 4)).unwrap()[0];
    let bound = cyclic_norm_bound_on(weight.view(), (3, 4)).unwrap().value();
    assert!(bound * 2_f64.powi(1000) >= sigma_max * (1.0 - 1e-14));
}

#[test]
fn one_wrong_tap_shows_in_the_bound() {
    let parameters = parameters::<f64>(3, 8, &mut support::rng(30));
    let mut weight = blockconv::bcop::bcop(parameters.view(), 8, 8, None).unwrap().layer_weight();
    weight.slice_mut(s![0, 0, .., ..]).mapv_inplace(|x| x + 1e-3);
    let bound = cyclic_norm_bound(weight.view()).unwrap().value();
    let sigma_max = spectrum::layer_singular_values(weight.view(), (5, 5)).unwrap()[0];
    assert!(sigma_max > 1.0 + 1e-5 && bound >= sigma_max);
}

#[test]
fn bounds_do_not_depend_on_the_number_of_threads() {
    let weight = layer_weight(&random_kernel::<f32>((3, 3, 20, 20), &mut support::rng(9)));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            (
                cyclic_norm_bound(weight.view()).unwrap(),
                cyclic_norm_bound_on(weight.view(), (5, 6)).unwrap(),
            )
        })
    };
    assert_eq!(run(1), run(3));
}
