//! Theorem 3: the lifted kernel has projectors of rank n only, and its first n channels are the original, seen on images.

use blockconv::components::{Sign, label_2d, labels_2d, random_2d};
use blockconv::factorisation::factorise;
use blockconv::lift::lift;
use ndarray::{Array2, Array3, array, s};
use projectors::{Projector, Real};

use crate::support::{self, distance, norm, rounding, uniform};

#[track_caller]
fn check_lift<T: Real>(n: usize, k: usize, size: (usize, usize), seed: u64) {
    let case = format!("n {n}, k {k}, {size:?}, seed {seed}, {}", T::NAME);
    let mut rng = support::rng(seed);
    let (h, ps, qs) = support::factors::<T>(k, n, &mut rng);
    let original = blockconv::assembly::assemble_2d(h.view(), &ps, &qs).unwrap();
    let lifted = lift(h.view(), &ps, &qs).unwrap();
    for p in lifted.ps.iter().chain(&lifted.qs) {
        assert_eq!((p.n(), p.rank()), (2 * n, n), "{case}");
    }
    let kernel = lifted.assemble_2d().unwrap();
    assert!(kernel.orthogonality_defect() <= support::defect::<T>(2 * n, k), "{case}");

    let image: Array3<T> = uniform((size.0, size.1, 2 * n), &mut rng);
    let out = kernel.apply(image.view()).unwrap();
    let expected = original.apply(image.slice(s![.., .., ..n])).unwrap();
    let error = distance(&out.slice(s![.., .., ..n]), &expected.view());
    let allowed = rounding::<T>(2 * n * k * k) * norm(&image);
    assert!(error <= allowed, "{case}: {error:e}, allowed {allowed:e}");
    // The auxiliary channels neither read nor write the others.
    let (near, far) = (
        kernel.taps().slice(s![.., .., ..n, n..]).sum(),
        kernel.taps().slice(s![.., .., n.., ..n]).sum(),
    );
    assert_eq!((near.as_f64(), far.as_f64()), (0.0, 0.0), "{case}");
}

#[test]
fn first_channels_of_the_lift_are_the_original() {
    for (n, k, size) in
        [(1, 2, (2, 3)), (2, 1, (3, 2)), (3, 2, (5, 4)), (4, 3, (3, 6)), (5, 4, (7, 5))]
    {
        for seed in 0..8 {
            check_lift::<f64>(n, k, size, seed);
            check_lift::<f32>(n, k, size, seed);
        }
    }
}

/// Kernels of all 2(n+1)² labels become kernels of one label for each sign: what fixed ranks cannot reach on n channels,
/// they reach on 2n.
#[test]
fn all_labels_lift_into_one_component_of_each_sign() {
    let (n, mut rng) = (3, support::rng(1));
    for label in labels_2d(n, 2) {
        let kernel = random_2d::<f64>(label, n, 2, &mut rng).unwrap();
        let forced = blockconv::membership::membership(&kernel).unwrap();
        let factors = forced.forced_factors();
        let lifted = lift(
            factors.h.view(),
            std::slice::from_ref(&factors.p),
            std::slice::from_ref(&factors.q),
        );
        let lifted = lifted.unwrap().assemble_2d().unwrap();
        let lifted_label = label_2d(&lifted).unwrap();
        assert_eq!(lifted_label.sign, label.sign);
        assert_eq!((lifted_label.vertical, lifted_label.horizontal), (n, n), "{label}");
    }
    let largest = labels_2d(n, 2).last().unwrap();
    assert_eq!((largest.sign, largest.vertical), (Sign::Plus, n));
}

#[test]
fn one_dimensional_kernels_lift_from_their_factors_alone() {
    let mut rng = support::rng(2);
    let (h, ps, _) = support::factors::<f64>(4, 5, &mut rng);
    let kernel = blockconv::assembly::assemble_1d(h.view(), &ps).unwrap();
    let factors = factorise(&kernel).unwrap();
    let lifted = lift(factors.h.view(), &factors.projectors, &[]).unwrap().assemble_1d().unwrap();
    let first = lifted.taps().slice_move(s![.., ..5, ..5]);
    assert!(distance(&first, &kernel.taps()) <= 32.0 * f64::EPSILON * 20.0);
}

#[test]
fn bad_factors_are_refused() {
    let p = Projector::random(2, 1, &mut support::rng(3)).unwrap();
    let text =
        |h: Array2<f64>| lift(h.view(), std::slice::from_ref(&p), &[]).unwrap_err().to_string();
    assert_eq!(text(Array2::eye(3)), "a projector has shape 2 x 2, expected 3 x 3");
    assert_eq!(text(array![[1.0, 0.0]]), "H must have square blocks, got 1 x 2");
    assert_eq!(text(array![[f64::NAN]]), "H contains NaN or an infinity");
}
