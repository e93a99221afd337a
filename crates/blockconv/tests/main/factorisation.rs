//! Equation (4) is onto: kernels return from their factors, whatever the ranks, and nothing else is factorised.

use blockconv::assembly::assemble_1d;
use blockconv::factorisation::{Factors1, factorise};
use blockconv::{Error, Kernel1};
use ndarray::{Array2, Array3, array, s};
use projectors::{Projector, Real, haar_orthogonal};
use proptest::prelude::*;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::support::{self, distance};

/// Allowed distance between a kernel and the product of its factors: k projections of rows of length n.
fn round_trip<T: Real>(n: usize, k: usize) -> f64 {
    32.0 * T::EPS * (n * k) as f64
}

fn draw<T: Real>(n: usize, ranks: &[usize], rng: &mut ChaCha8Rng) -> Kernel1<T> {
    let projectors: Vec<_> =
        ranks.iter().map(|&rank| Projector::random(n, rank, rng).unwrap()).collect();
    assemble_1d(haar_orthogonal::<T>(n, rng).view(), &projectors).unwrap()
}

#[track_caller]
fn check_factors<T: Real>(kernel: &Kernel1<T>, case: &str) -> Factors1<T> {
    let (k, n, _) = kernel.taps().dim();
    let allowed = round_trip::<T>(n, k);
    let factors = factorise(kernel).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(factors.projectors.len(), k - 1, "{case}");
    let h_defect = distance(&factors.h.t().dot(&factors.h), &Array2::eye(n));
    assert!(h_defect <= allowed, "{case}: H is off by {h_defect:e}");
    for p in &factors.projectors {
        assert!(p.defect().as_f64() <= allowed, "{case}: projector off by {}", p.defect());
    }
    let back = factors.assemble().unwrap();
    let error = distance(&back.taps(), &kernel.taps());
    assert!(error <= allowed, "{case}: round trip {error:e}, allowed {allowed:e}");
    factors
}

#[track_caller]
fn check_round_trip<T: Real>(n: usize, ranks: &[usize], seed: u64) {
    let case = format!("n {n}, ranks {ranks:?}, seed {seed}, {}", T::NAME);
    let factors = check_factors(&draw::<T>(n, ranks, &mut support::rng(seed)), &case);
    let degree: usize = ranks.iter().map(|r| n - r).sum();
    assert_eq!(factors.degree(), degree, "{case}: the kernel fixes the sum of ranks");
}

#[test]
fn kernels_return_from_their_factors() {
    let cases: [(usize, &[usize]); 14] = [
        (1, &[]),
        (5, &[]),
        (1, &[0]),
        (1, &[1, 0, 1]),
        (2, &[1]),
        (3, &[0, 0]),
        (3, &[3, 3, 3]),
        (4, &[2, 2, 2, 2]),
        (5, &[0, 5, 2, 5, 0]),
        (6, &[1, 5, 1, 5, 3, 3, 0, 6]),
        (8, &[8, 1, 0, 7, 4]),
        (12, &[6, 6, 6, 6]),
        (16, &[3, 0, 16, 8, 1, 15, 8, 2]),
        (64, &[32, 32, 1, 63, 0, 64, 10, 50]),
    ];
    for (n, ranks) in cases {
        for seed in 0..3 {
            check_round_trip::<f64>(n, ranks, seed);
            check_round_trip::<f32>(n, ranks, seed);
        }
    }
}

/// A tap has singular values of every order of magnitude down to rounding when factors nearly cancel.
#[test]
fn nearly_rank_deficient_taps_cost_no_digits() {
    let (n, mut rng) = (8, support::rng(5));
    for exponent in 0..17 {
        let u = haar_orthogonal::<f64>(n, &mut rng);
        let angle = 10f64.powi(-exponent);
        // The second projector is the complement of the first, turned by a small angle.
        let mut turned = u.clone();
        for i in 0..n {
            let (a, b) = (u[[i, 0]], u[[i, n - 1]]);
            turned[[i, 0]] = angle.cos() * a - angle.sin() * b;
            turned[[i, n - 1]] = angle.sin() * a + angle.cos() * b;
        }
        let p = Projector::from_basis(u.slice(s![.., ..n / 2])).unwrap();
        let q = Projector::from_basis(turned.slice(s![.., n / 2..])).unwrap();
        let kernel = assemble_1d(u.view(), &[p.clone(), q, p.complement()]).unwrap();
        check_factors(&kernel, &format!("angle 1e-{exponent}"));
    }
}

#[test]
fn factors_return_when_the_row_space_fixes_them() {
    // For k = 2, X[0] = H P and X[0] + X[1] = H: both are unique.
    let mut rng = support::rng(9);
    for rank in 0..=6 {
        let (h, p) =
            (haar_orthogonal::<f64>(6, &mut rng), Projector::random(6, rank, &mut rng).unwrap());
        let factors = factorise(&assemble_1d(h.view(), std::slice::from_ref(&p)).unwrap()).unwrap();
        assert!(distance(&factors.h, &h) <= round_trip::<f64>(6, 2));
        assert!(factors.projectors[0].distance(&p).unwrap() <= round_trip::<f64>(6, 2));
    }
}

/// Orthogonal kernels that were not made by equation (4): shifts of channels, and products with the factor on the left.
#[test]
fn kernels_from_elsewhere_are_factorised() {
    let mut shifts = Array3::<f64>::zeros((4, 3, 3));
    for (channel, delay) in [3, 0, 2].into_iter().enumerate() {
        shifts[[delay, (channel + 1) % 3, channel]] = -1.0;
    }
    check_factors(&Kernel1::try_new(shifts).unwrap(), "delays");
    let mut rng = support::rng(3);
    let reversed = draw::<f64>(5, &[2, 3, 1], &mut rng).transpose();
    check_factors(&reversed, "transpose");
    let padded = {
        let mut taps = Array3::zeros((6, 5, 5));
        taps.slice_mut(s![1..5, .., ..]).assign(&reversed.taps());
        Kernel1::try_new(taps).unwrap()
    };
    check_factors(&padded, "zero taps on both sides");
}

#[test]
fn kernels_that_are_not_orthogonal_are_refused_with_their_defect() {
    let mut taps = draw::<f64>(4, &[2, 1], &mut support::rng(1)).into_taps();
    taps[[1, 2, 3]] += 1e-3;
    let kernel = Kernel1::try_new(taps).unwrap();
    let measured = kernel.orthogonality_defect();
    match factorise(&kernel) {
        Err(Error::NotOrthogonal { defect, .. }) => {
            assert_eq!(defect, measured);
            assert!(defect > 1e-4 && defect < 1e-2, "{defect}");
        }
        other => panic!("{other:?}"),
    }
    let ones = Kernel1::try_new(array![[[1.0]], [[1.0]]]).unwrap();
    let expected =
        "the kernel is not orthogonal: its autocorrelation defect is 3.000e0, allowed is 2.842e-14";
    assert_eq!(factorise(&ones).unwrap_err().to_string(), expected);
    let wide = Kernel1::try_new(array![[[1.0, 0.0]]]).unwrap();
    assert_eq!(
        factorise(&wide).unwrap_err().to_string(),
        "the kernel must have square blocks, got 1 x 2"
    );
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn any_ranks_round_trip(n in 1_usize..=10, k in 1_usize..=9, seed: u64) {
        let mut rng = support::rng(seed);
        let ranks: Vec<_> = (1..k).map(|_| rng.random_range(0..=n)).collect();
        check_round_trip::<f64>(n, &ranks, seed);
    }
}
