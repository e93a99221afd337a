//! Equations (4) and (5): assembled kernels are isometries of the dense operator, and their pullbacks are derivatives.

use blockconv::Kernel2;
use blockconv::assembly::{assemble, assemble_1d, assemble_2d};
use ndarray::{Array2, Array4, Axis, concatenate, s};
use projectors::Real;
use proptest::prelude::*;

use crate::support::{self, defect, dense_extremes, distance, inner, orthogonality, uniform};

/// k, c_out, c_in, image.
const CASES: [(usize, usize, usize, (usize, usize)); 14] = [
    (1, 1, 1, (1, 1)),
    (2, 1, 1, (2, 3)),
    (1, 3, 5, (2, 3)),
    (2, 4, 4, (2, 5)),
    (3, 4, 4, (3, 4)),
    (3, 2, 5, (5, 3)),
    (3, 5, 2, (4, 3)),
    (4, 3, 3, (4, 7)),
    (4, 2, 3, (7, 4)),
    (4, 3, 1, (4, 4)),
    (5, 2, 2, (5, 6)),
    (5, 1, 3, (6, 5)),
    (2, 7, 3, (3, 3)),
    (2, 3, 7, (2, 2)),
];

fn assembled<T: Real>(
    k: usize,
    c_out: usize,
    c_in: usize,
    seed: u64,
) -> blockconv::assembly::Assembly<T> {
    let (h, ps, qs) = support::factors::<T>(k, c_out.max(c_in), &mut support::rng(seed));
    let order: Vec<_> = ps.iter().zip(&qs).flat_map(|(p, q)| [p.matrix(), q.matrix()]).collect();
    assemble(h.view(), &order, c_out, c_in).unwrap()
}

#[track_caller]
fn check_isometry<T: Real>(k: usize, c_out: usize, c_in: usize, size: (usize, usize), seed: u64) {
    let assembly = assembled::<T>(k, c_out, c_in, seed);
    let (min, max) = dense_extremes(assembly.taps(), size);
    let (n, case) =
        (c_out.max(c_in), format!("k {k}, {c_in} -> {c_out}, {size:?}, seed {seed}, {}", T::NAME));
    let allowed = orthogonality::<T>(n, k);
    assert!(
        (min - 1.0).abs() <= allowed && (max - 1.0).abs() <= allowed,
        "{case}: {min}, {max}, allowed {allowed:e}"
    );
    let measured = assembly.kernel().orthogonality_defect();
    assert!(measured <= defect::<T>(n, k), "{case}: defect {measured:e}");
    assert!(
        max * max - 1.0 <= measured + 1e-14 && 1.0 - min * min <= measured + 1e-14,
        "{case}: {measured:e}"
    );
}

#[test]
fn dense_operator_is_an_isometry() {
    for (seed, (k, c_out, c_in, size)) in (0..).zip(CASES) {
        check_isometry::<f64>(k, c_out, c_in, size, seed);
        check_isometry::<f32>(k, c_out, c_in, size, seed);
    }
}

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn dense_operator_is_an_isometry_for_any_shape(
        k in 1_usize..5, c_out in 1_usize..5, c_in in 1_usize..5, extra_h in 0_usize..3, extra_w in 0_usize..3, seed: u64,
    ) {
        check_isometry::<f64>(k, c_out, c_in, (k + extra_h, k + extra_w), seed);
    }

    #[test]
    fn assembly_of_arbitrary_matrices_is_the_block_product(
        k in 1_usize..5, c_out in 1_usize..6, c_in in 1_usize..6, seed: u64,
    ) {
        check_block_product::<f64>(k, c_out, c_in, seed);
        check_block_product::<f32>(k, c_out, c_in, seed);
    }

    #[test]
    fn pullback_is_the_derivative(k in 1_usize..5, c_out in 1_usize..6, c_in in 1_usize..6, seed: u64) {
        check_pullback(k, c_out, c_in, seed);
    }
}

/// The kernel by general block products of whole n x n kernels, cut at the end.
fn by_block_products<T: Real>(
    h: &Array2<T>,
    factors: &[Array2<T>],
    c_out: usize,
    c_in: usize,
) -> Array4<T> {
    let n = h.nrows();
    let tap = |m: &Array2<T>| m.clone().insert_axis(Axis(0)).insert_axis(Axis(0));
    let mut kernel = Kernel2::try_new(tap(h)).unwrap();
    for (i, p) in factors.iter().enumerate() {
        let complement = Array2::eye(n) - p;
        let taps = concatenate![Axis(i % 2), tap(p), tap(&complement)];
        kernel = kernel.block_product(&Kernel2::try_new(taps).unwrap()).unwrap();
    }
    kernel.taps().slice(s![.., .., ..c_out, ..c_in]).to_owned()
}

fn arbitrary<T: Real>(k: usize, n: usize, seed: u64) -> (Array2<T>, Vec<Array2<T>>) {
    let mut rng = support::rng(seed);
    let h = uniform((n, n), &mut rng);
    (h, (0..2 * (k - 1)).map(|_| uniform((n, n), &mut rng)).collect())
}

#[track_caller]
fn check_block_product<T: Real>(k: usize, c_out: usize, c_in: usize, seed: u64) {
    let (h, factors) = arbitrary::<T>(k, c_out.max(c_in), seed);
    let views: Vec<_> = factors.iter().map(|f| f.view()).collect();
    let assembly = assemble(h.view(), &views, c_out, c_in).unwrap();
    let expected = by_block_products(&h, &factors, c_out, c_in);
    // entries grow by a factor of about n per factor; rounding is relative to that
    let magnitudes: Vec<_> = factors.iter().map(|f| -f.mapv(magnitude)).collect();
    let scale: f64 =
        1.0 + support::norm(&by_block_products(&h.mapv(magnitude), &magnitudes, c_out, c_in));
    let allowed = support::rounding::<T>(16 * k) * scale;
    let error = distance(&assembly.taps().to_owned(), &expected);
    assert!(
        error <= allowed,
        "k {k}, {c_in} -> {c_out}, seed {seed}, {}: {error:e} > {allowed:e}",
        T::NAME
    );
}

fn magnitude<T: Real>(x: T) -> T {
    T::of(x.as_f64().abs())
}

/// The map is a polynomial, so central differences with exact steps are off by third derivatives only.
#[track_caller]
fn check_pullback(k: usize, c_out: usize, c_in: usize, seed: u64) {
    let n = c_out.max(c_in);
    let (h, factors) = arbitrary::<f64>(k, n, seed);
    let (dh, dfactors) = arbitrary::<f64>(k, n, !seed);
    let cotangent: Array4<f64> = uniform((k, k, c_out, c_in), &mut support::rng(seed ^ 1));
    let at = |t: f64| {
        let h = &h + &(&dh * t);
        let moved: Vec<_> = factors.iter().zip(&dfactors).map(|(f, d)| f + &(d * t)).collect();
        let views: Vec<_> = moved.iter().map(|f| f.view()).collect();
        assemble(h.view(), &views, c_out, c_in).unwrap()
    };
    let (gradient_h, gradients) = at(0.0).pullback(cotangent.view()).unwrap();
    let slope = inner(&gradient_h, &dh)
        + gradients.iter().zip(&dfactors).map(|(g, d)| inner(g, d)).sum::<f64>();
    let value = |t: f64| inner(&at(t).taps().to_owned(), &cotangent);
    let central = |t: f64| (value(t) - value(-t)) / (2.0 * t);
    // Richardson: removes the third derivative
    let difference = (4.0 * central(1e-3) - central(2e-3)) / 3.0;
    let scale =
        support::norm(&at(0.0).taps().to_owned()) * support::norm(&cotangent) * (2 * k) as f64;
    let allowed = 1e-8 * (1.0 + scale);
    assert!(
        (slope - difference).abs() <= allowed,
        "k {k}, {c_in} -> {c_out}: {slope} against {difference}"
    );
}

#[test]
fn large_shapes_run_in_panels_and_agree_with_block_products() {
    // enough work for several panels of rows, wide and tall, the last panel incomplete
    for (c_out, c_in) in [(150, 150), (100, 150), (150, 100)] {
        check_block_product::<f64>(2, c_out, c_in, 5);
        check_large_pullback(c_out, c_in);
    }
}

/// In panels the cotangents are sums over panels: ⟨C, W(H)⟩ is linear in H, so ⟨dH, H⟩ must return it.
#[track_caller]
fn check_large_pullback(c_out: usize, c_in: usize) {
    let (k, n) = (2, c_out.max(c_in));
    let (h, factors) = arbitrary::<f64>(k, n, 9);
    let views: Vec<_> = factors.iter().map(|f| f.view()).collect();
    let assembly = assemble(h.view(), &views, c_out, c_in).unwrap();
    let cotangent: Array4<f64> = uniform((k, k, c_out, c_in), &mut support::rng(10));
    let (dh, dfactors) = assembly.pullback(cotangent.view()).unwrap();
    let value = inner(&assembly.taps().to_owned(), &cotangent);
    assert!((inner(&dh, &h) - value).abs() <= 1e-10 * value.abs().max(1e6));
    let step = uniform((n, n), &mut support::rng(11));
    for i in 0..factors.len() {
        let mut moved = factors.clone();
        moved[i] = &moved[i] + &step;
        let views: Vec<_> = moved.iter().map(|f| f.view()).collect();
        let shifted = assemble(h.view(), &views, c_out, c_in).unwrap();
        // affine in each projector, so a unit step gives the derivative exactly
        let slope = inner(&shifted.taps().to_owned(), &cotangent) - value;
        assert!(
            (inner(&dfactors[i], &step) - slope).abs() <= 1e-9 * slope.abs().max(1e6),
            "{c_out} {c_in} factor {i}"
        );
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let assembly = assembled::<f32>(3, 96, 80, 3);
            let cotangent: Array4<f32> = uniform((3, 3, 96, 80), &mut support::rng(4));
            let (dh, dfactors) = assembly.pullback(cotangent.view()).unwrap();
            (assembly.taps().to_owned(), dh, dfactors)
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn one_dimensional_assembly_is_the_vertical_part_of_the_algebra() {
    for (k, n) in [(1, 3), (2, 1), (4, 3), (9, 5)] {
        let (h, ps, _) = support::factors::<f64>(k, n, &mut support::rng(k as u64));
        let kernel = assemble_1d(h.view(), &ps).unwrap();
        assert_eq!(kernel.taps().dim(), (k, n, n));
        assert!(kernel.orthogonality_defect() <= defect::<f64>(n, k));
        assert!(kernel.check_orthogonal(defect::<f64>(n, k)).is_ok());
        let sum = kernel.taps().sum_axis(Axis(0));
        assert!(
            distance(&sum, &h) <= orthogonality::<f64>(n, k),
            "the taps of equation (4) sum to H"
        );
    }
}

#[test]
fn both_assemblies_agree() {
    let (h, ps, qs) = support::factors::<f64>(3, 4, &mut support::rng(8));
    let order: Vec<_> = ps.iter().zip(&qs).flat_map(|(p, q)| [p.matrix(), q.matrix()]).collect();
    let assembly = assemble(h.view(), &order, 4, 4).unwrap();
    assert_eq!(assemble_2d(h.view(), &ps, &qs).unwrap(), assembly.kernel());
}
