//! One test for each error variant, asserting what a person reads.

use blockconv::assembly::{assemble, assemble_1d, assemble_2d};
use blockconv::bcop::bcop;
use blockconv::{Error, Kernel1, Kernel2, bounds, from_layer_weight, spectrum};
use ndarray::{Array2, Array3, Array4, array};
use projectors::Projector;

use crate::support;

fn text<T>(result: Result<T, Error>) -> String {
    result.err().expect("the input is bad").to_string()
}

#[test]
fn empty() {
    let expected =
        "the kernel is empty: its shape is 2 x 0 x 3 x 3, every extent must be at least 1";
    assert_eq!(text(Kernel2::<f64>::try_new(Array4::zeros((2, 0, 3, 3)))), expected);
    assert!(matches!(Kernel1::<f32>::try_new(Array3::zeros((0, 1, 1))), Err(Error::Empty { .. })));
    assert!(matches!(
        from_layer_weight(Array4::<f64>::zeros((1, 1, 0, 1)).view()),
        Err(Error::Empty { .. })
    ));
    assert!(matches!(
        bounds::cyclic_norm_bound(Array4::<f64>::zeros((0, 1, 1, 1)).view()),
        Err(Error::Empty { .. })
    ));
    assert!(matches!(
        assemble_1d::<f64>(Array2::zeros((0, 0)).view(), &[]),
        Err(Error::Empty { .. })
    ));
    assert!(matches!(
        bcop(Array3::<f64>::zeros((1, 1, 1)).view(), 0, 1, None),
        Err(Error::Empty { .. })
    ));
}

#[test]
fn non_square_blocks() {
    assert_eq!(
        text(assemble_1d(array![[1.0, 0.0]].view(), &[])),
        "H must have square blocks, got 1 x 2"
    );
    let (h, p) = (Array2::<f64>::eye(2), Array2::<f64>::zeros((2, 3)));
    let result = assemble(h.view(), &[p.view(), p.view()], 2, 2);
    assert_eq!(text(result), "a projector must have square blocks, got 2 x 3");
}

#[test]
fn shape_mismatch() {
    let (a, b) = (Array4::<f64>::zeros((1, 1, 2, 3)), Array4::zeros((2, 2, 4, 5)));
    let product = Kernel2::try_new(a).unwrap().block_product(&Kernel2::try_new(b).unwrap());
    assert_eq!(
        text(product),
        "the right factor of a block product has shape 2 x 2 x 4 x 5, expected 2 x 2 x 3 x 5"
    );
    let kernel = Kernel2::<f64>::try_new(Array4::zeros((1, 1, 2, 3))).unwrap();
    assert_eq!(
        text(kernel.apply(Array3::zeros((4, 5, 2)).view())),
        "the image has shape 4 x 5 x 2, expected 4 x 5 x 3"
    );
    let (h, p) = (Array2::<f64>::eye(3), Projector::random(2, 1, &mut support::rng(0)).unwrap());
    assert_eq!(text(assemble_1d(h.view(), &[p])), "a projector has shape 2 x 2, expected 3 x 3");
    let q = Projector::random(3, 1, &mut support::rng(0)).unwrap();
    let unequal = assemble_2d(h.view(), &[], &[q]);
    assert_eq!(text(unequal), "the list of horizontal projectors has shape 1, expected 0");
    assert_eq!(text(assemble(h.view(), &[], 2, 4)), "H has shape 3 x 3, expected 4 x 4");
    let parameters = Array3::<f64>::zeros((3, 4, 5));
    assert_eq!(
        text(bcop(parameters.view(), 4, 2, None)),
        "the parameters has shape 3 x 4 x 5, expected 3 x 4 x 4"
    );
    let assembly = assemble(h.view(), &[], 3, 2).unwrap();
    let result = assembly.pullback(Array4::zeros((1, 1, 2, 3)).view());
    assert_eq!(
        text(result),
        "the cotangent of the taps has shape 1 x 1 x 2 x 3, expected 1 x 1 x 3 x 2"
    );
    let evaluated =
        bcop(Array2::<f64>::eye(3).insert_axis(ndarray::Axis(0)).view(), 3, 2, None).unwrap();
    let result = evaluated.pullback(Array4::zeros((3, 3, 1, 1)).view());
    assert_eq!(
        text(result),
        "the cotangent of the layer weight has shape 3 x 3 x 1 x 1, expected 3 x 2 x 1 x 1"
    );
}

#[test]
fn factor_count() {
    let h = Array2::<f64>::eye(2);
    let odd = text(assemble(h.view(), &[h.view()], 2, 2));
    assert_eq!(
        odd,
        "the list of projectors: 1 given, but a k x k kernel needs 2(k - 1), an even number"
    );
    let even = text(bcop(Array3::<f64>::zeros((2, 3, 3)).view(), 3, 3, None));
    assert_eq!(
        even,
        "the parameters: 2 given, but a k x k kernel needs 2k - 1 matrices, an odd number"
    );
    assert!(matches!(
        bcop(Array3::<f64>::zeros((0, 3, 3)).view(), 3, 3, None),
        Err(Error::FactorCount { count: 0, .. })
    ));
}

#[test]
fn non_finite() {
    for bad in [f64::NAN, f64::INFINITY] {
        let taps = Array4::from_elem((1, 2, 1, 1), bad);
        assert_eq!(text(Kernel2::try_new(taps.clone())), "the kernel contains NaN or an infinity");
        assert_eq!(
            text(bounds::cyclic_norm_bound(taps.view())),
            "the layer weight contains NaN or an infinity"
        );
        assert_eq!(
            text(bounds::cyclic_norm_bound_on(taps.view(), (3, 3))),
            "the layer weight contains NaN or an infinity"
        );
        assert_eq!(
            text(spectrum::layer_singular_values(taps.view(), (3, 3))),
            "the layer weight contains NaN or an infinity"
        );
        assert_eq!(
            text(assemble(array![[bad]].view(), &[], 1, 1)),
            "H contains NaN or an infinity"
        );
    }
    let huge = Kernel2::try_new(Array4::from_elem((1, 1, 1, 1), 1e200)).unwrap();
    assert!(
        matches!(huge.block_product(&huge), Err(Error::NonFinite { .. })),
        "the product overflows"
    );
}

#[test]
fn kernel_exceeds_image() {
    let kernel = Kernel2::<f64>::try_new(Array4::zeros((2, 3, 1, 1))).unwrap();
    let expected = "a kernel of size 2 x 3 does not fit into an image of size 4 x 2: \
                    a cyclic convolution needs the image at least as large as the kernel";
    assert_eq!(text(kernel.apply(Array3::zeros((4, 2, 1)).view())), expected);
    assert_eq!(text(kernel.singular_values((4, 2))), expected);
    assert_eq!(text(spectrum::extremes(&kernel, (4, 2))), expected);
    let weight = blockconv::layer_weight(&kernel);
    assert_eq!(text(bounds::cyclic_norm_bound_on(weight.view(), (4, 2))), expected);
    let signal = Kernel1::<f64>::try_new(Array3::zeros((3, 1, 1))).unwrap();
    let expected = "a kernel of size 3 does not fit into an image of size 2: \
                    a cyclic convolution needs the image at least as large as the kernel";
    assert_eq!(text(signal.apply(Array2::zeros((2, 1)).view())), expected);
}

#[test]
fn not_orthogonal() {
    let kernel = Kernel2::try_new(Array4::from_elem((1, 1, 1, 1), 2.0)).unwrap();
    let expected =
        "the kernel is not orthogonal: its autocorrelation defect is 3.000e0, allowed is 1.000e-12";
    assert_eq!(text(kernel.check_orthogonal(1e-12)), expected);
}

#[test]
fn overflow() {
    let weight = Array4::from_elem((2, 2, 2, 2), f64::MAX);
    assert_eq!(
        text(bounds::cyclic_norm_bound(weight.view())),
        "the bound of the operator norm exceeds the range of f64"
    );
}

#[test]
fn parameter() {
    let mut parameters = support::parameters::<f64>(2, 4, &mut support::rng(1));
    parameters.index_axis_mut(ndarray::Axis(0), 2).fill(1.0);
    let message = text(bcop(parameters.view(), 4, 4, None));
    assert!(message.starts_with("parameter matrix 2 of 3 (a horizontal projector): "), "{message}");
    assert!(message.ends_with("has numerical rank 1, expected full rank 2"), "{message}");
    parameters[[0, 1, 1]] = f64::NAN;
    let message = text(bcop(parameters.view(), 4, 4, None));
    assert!(
        message.starts_with("parameter matrix 0 of 3 (the orthogonal matrix H): "),
        "{message}"
    );
}

#[test]
fn projector_off_by_a_thousandth() {
    let nearly = Projector::try_new(array![[1.001, 0.0], [0.0, 0.0]]).map_err(Error::from);
    let message = text(nearly);
    assert!(message.starts_with("matrix is not a symmetric projector"), "{message}");
}
