//! The algebra of kernels: products, application, adjoints, conversion to layer weights.

use blockconv::{Kernel1, Kernel2, from_layer_weight, layer_weight};
use ndarray::{Array2, Array3};
use projectors::Real;
use proptest::prelude::*;

use crate::support::{
    self, convert, cross_correlation, dense, distance, inner, norm, random_kernel, rounding,
    uniform,
};

type Shape = (usize, usize, usize, usize);

proptest! {
    #![proptest_config(crate::support::seeded())]

    #[test]
    fn product_applies_as_the_factors_in_turn(
        a in (1_usize..4, 1_usize..4), b in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5, 1_usize..5),
        extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        let size = (a.0 + b.0 - 1 + extra.0, a.1 + b.1 - 1 + extra.1);
        check_product::<f64>((a.0, a.1, n.0, n.1), (b.0, b.1, n.1, n.2), size, seed);
        check_product::<f32>((a.0, a.1, n.0, n.1), (b.0, b.1, n.1, n.2), size, seed);
    }

    #[test]
    fn block_product_is_associative(
        a in (1_usize..4, 1_usize..4), b in (1_usize..4, 1_usize..4), c in (1_usize..4, 1_usize..4),
        n in 1_usize..5, seed: u64,
    ) {
        let mut rng = support::rng(seed);
        let [a, b, c] = [a, b, c].map(|(kh, kw)| random_kernel::<f64>((kh, kw, n, n), &mut rng));
        let left = a.block_product(&b).unwrap().block_product(&c).unwrap();
        let right = a.block_product(&b.block_product(&c).unwrap()).unwrap();
        prop_assert_eq!(left.kernel_size(), right.kernel_size());
        let scale = norm(&a.taps().to_owned()) * norm(&b.taps().to_owned()) * norm(&c.taps().to_owned());
        let error = distance(&left.taps(), &right.taps());
        prop_assert!(error <= rounding::<f64>(16 * n) * scale * 9.0, "{:e}", error);
    }

    #[test]
    fn adjoint_identity_holds(
        k in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5), extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        check_adjoint((k.0, k.1, n.0, n.1), (k.0 + extra.0, k.1 + extra.1), seed);
    }

    #[test]
    fn application_is_the_dense_operator(
        k in (1_usize..4, 1_usize..4), n in (1_usize..5, 1_usize..5), extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        check_dense::<f64>((k.0, k.1, n.0, n.1), (k.0 + extra.0, k.1 + extra.1), seed);
        check_dense::<f32>((k.0, k.1, n.0, n.1), (k.0 + extra.0, k.1 + extra.1), seed);
    }

    #[test]
    fn layer_weight_is_the_true_convolution_advanced(
        k in (1_usize..6, 1_usize..6), n in (1_usize..4, 1_usize..4), extra in (0_usize..4, 0_usize..4), seed: u64,
    ) {
        check_layer_weight((k.0, k.1, n.0, n.1), (k.0 + extra.0, k.1 + extra.1), seed);
    }
}

#[track_caller]
fn check_product<T: Real>(a: Shape, b: Shape, (h, w): (usize, usize), seed: u64) {
    let mut rng = support::rng(seed);
    let (x, y) = (random_kernel::<T>(a, &mut rng), random_kernel::<T>(b, &mut rng));
    let v: Array3<T> = uniform((h, w, b.3), &mut rng);
    let product = x.block_product(&y).unwrap();
    assert_eq!(product.kernel_size(), (a.0 + b.0 - 1, a.1 + b.1 - 1));
    let at_once = product.apply(v.view()).unwrap();
    let in_turn = x.apply(y.apply(v.view()).unwrap().view()).unwrap();
    // each output sums at most 81 · 16 products of three factors bounded by 1
    let taps: usize = a.0 * a.1 * b.0 * b.1 * a.3 * b.3;
    let allowed = rounding::<T>(taps) * (taps * h * w) as f64;
    let error = distance(&at_once, &in_turn);
    assert!(
        error <= allowed,
        "{a:?} {b:?} {h} x {w} seed {seed} {}: {error:e} > {allowed:e}",
        T::NAME
    );
}

#[track_caller]
fn check_adjoint(shape: Shape, (h, w): (usize, usize), seed: u64) {
    let mut rng = support::rng(seed);
    let x = random_kernel::<f64>(shape, &mut rng);
    let v: Array3<f64> = uniform((h, w, shape.3), &mut rng);
    let u: Array3<f64> = uniform((h, w, shape.2), &mut rng);
    let back = x.apply_adjoint(u.view()).unwrap();
    let allowed = 1e-13 * (1.0 + norm(&v) * norm(&u) * norm(&x.taps().to_owned()));
    let (left, right) = (inner(&x.apply(v.view()).unwrap(), &u), inner(&v, &back));
    assert!((left - right).abs() <= allowed, "{shape:?} {h} x {w}: {left} against {right}");
    // the adjoint kernel is the adjoint delayed by (kh - 1, kw - 1)
    let delayed = x.transpose().apply(u.view()).unwrap();
    let (dh, dw) = (shape.0 - 1, shape.1 - 1);
    let expected = Array3::from_shape_fn(back.raw_dim(), |(i, j, c)| {
        back[[(i + h - dh) % h, (j + w - dw) % w, c]]
    });
    assert!(distance(&delayed, &expected) <= allowed, "{shape:?} {h} x {w}");
    assert_eq!(x.transpose().transpose(), x);
}

#[track_caller]
fn check_dense<T: Real>(shape: Shape, (h, w): (usize, usize), seed: u64) {
    let mut rng = support::rng(seed);
    let x = random_kernel::<T>(shape, &mut rng);
    let v: Array3<T> = uniform((h, w, shape.3), &mut rng);
    let flat = v.mapv(Real::as_f64).into_shape_with_order(h * w * shape.3).unwrap();
    let expected =
        dense(x.taps(), (h, w)).dot(&flat).into_shape_with_order((h, w, shape.2)).unwrap();
    let error = distance(&x.apply(v.view()).unwrap().mapv(Real::as_f64), &expected);
    let terms = shape.0 * shape.1 * shape.3;
    assert!(
        error <= rounding::<T>(terms) * (terms * h * w) as f64,
        "{shape:?} {h} x {w} {}: {error:e}",
        T::NAME
    );
}

#[track_caller]
fn check_layer_weight(shape: Shape, (h, w): (usize, usize), seed: u64) {
    let mut rng = support::rng(seed);
    let x = random_kernel::<f64>(shape, &mut rng);
    let v: Array3<f64> = uniform((h, w, shape.3), &mut rng);
    let weight = layer_weight(&x);
    assert_eq!(weight.dim(), (shape.2, shape.3, shape.0, shape.1));
    assert!(weight.is_standard_layout(), "a layer weight is contiguous");
    let layer = cross_correlation(weight.view(), v.view());
    let convolution = x.apply(v.view()).unwrap();
    let (dh, dw) = ((shape.0 - 1) / 2, (shape.1 - 1) / 2);
    let advanced = Array3::from_shape_fn(layer.raw_dim(), |(i, j, c)| {
        convolution[[(i + dh) % h, (j + dw) % w, c]]
    });
    let error = distance(&layer, &advanced);
    assert!(error <= 1e-13 * (1.0 + norm(&layer)), "{shape:?} {h} x {w}: {error:e}");
    assert_eq!(from_layer_weight(weight.view()).unwrap(), x);
}

#[test]
fn one_dimensional_kernels_are_vertical_two_dimensional_ones() {
    let mut rng = support::rng(3);
    let a = Kernel1::try_new(uniform::<f64, _>((3, 2, 4), &mut rng)).unwrap();
    let b = Kernel1::try_new(uniform::<f64, _>((2, 4, 5), &mut rng)).unwrap();
    let signal: Array2<f64> = uniform((6, 5), &mut rng);
    let product = a.block_product(&b).unwrap();
    assert_eq!((product.kernel_size(), product.n_out(), product.n_in()), (4, 2, 5));
    let in_turn = a.apply(b.apply(signal.view()).unwrap().view()).unwrap();
    assert!(distance(&product.apply(signal.view()).unwrap(), &in_turn) <= 1e-13);
    let vertical = product.clone().into_vertical();
    assert_eq!(vertical.kernel_size(), (4, 1));
    assert_eq!(vertical.transpose(), product.transpose().into_vertical());
    let sigma = product.singular_values(6).unwrap();
    assert!(distance(&sigma, &vertical.singular_values((6, 1)).unwrap()) <= 1e-13);
    let back = product.apply_adjoint(in_turn.view()).unwrap();
    assert!((inner(&in_turn, &in_turn) - inner(&signal, &back)).abs() <= 1e-11);
}

#[test]
fn image_as_large_as_the_kernel_is_the_smallest() {
    let mut rng = support::rng(4);
    let x = random_kernel::<f64>((3, 2, 2, 2), &mut rng);
    let smallest: Array3<f64> = uniform((3, 2, 2), &mut rng);
    assert!(x.apply(smallest.view()).is_ok());
    for (h, w) in [(2, 2), (3, 1), (1, 5)] {
        assert!(x.apply(convert::<f64, _>(&Array3::zeros((h, w, 2))).view()).is_err());
        assert!(x.apply_adjoint(Array3::zeros((h, w, 2)).view()).is_err());
        assert!(x.singular_values((h, w)).is_err());
    }
}

#[test]
fn defect_of_a_scaled_orthogonal_kernel_is_known() {
    // c times an orthogonal kernel has G_0 = c² I: defect |c² - 1| √n
    let (h, ps, qs) = support::factors::<f64>(3, 4, &mut support::rng(5));
    let kernel = blockconv::assembly::assemble_2d(h.view(), &ps, &qs).unwrap();
    for c in [0.5, 1.0, 2.0] {
        let scaled = Kernel2::try_new(kernel.taps().mapv(|x| c * x)).unwrap();
        let expected: f64 = (c * c - 1.0_f64).abs() * 2.0;
        assert!((scaled.orthogonality_defect() - expected).abs() <= 1e-12, "{c}");
        assert_eq!(scaled.check_orthogonal(1e-12).is_ok(), c == 1.0);
    }
}
