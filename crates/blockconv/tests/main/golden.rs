//! Reference vectors from an independent float64 implementation: every array of both files is matched.

use std::collections::BTreeMap;
use std::fs::File;

use blockconv::assembly::{assemble, assemble_1d, assemble_2d};
use blockconv::clipping::clip_singular_values;
use blockconv::{Kernel1, Kernel2, spectrum};
use ndarray::{Array1, Array2, Array3, Array4, ArrayD, Axis, Ix1, Ix2, Ix3, Ix4};
use ndarray_npy::NpzReader;
use projectors::{Projector, Real};

use crate::support::{convert, distance, golden, norm};

/// The arrays of a reference file, removed one by one as they are used.
struct Reference(BTreeMap<String, ArrayD<f64>>);

impl Reference {
    fn open(name: &str) -> Self {
        let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut npz = NpzReader::new(File::open(path).unwrap()).unwrap();
        let names = npz.names().unwrap();
        let strip = |name: &String| name.trim_end_matches(".npy").to_owned();
        Self(names.iter().map(|name| (strip(name), npz.by_name(name).unwrap())).collect())
    }

    fn prefixes(&self, suffix: &str) -> Vec<String> {
        self.0.keys().filter_map(|name| name.strip_suffix(suffix)).map(str::to_owned).collect()
    }

    fn take(&mut self, name: &str) -> ArrayD<f64> {
        self.0.remove(name).unwrap_or_else(|| panic!("{name} is in the file"))
    }

    fn take1(&mut self, name: &str) -> Array1<f64> {
        self.take(name).into_dimensionality::<Ix1>().unwrap()
    }

    fn take2(&mut self, name: &str) -> Array2<f64> {
        self.take(name).into_dimensionality::<Ix2>().unwrap()
    }

    fn take3(&mut self, name: &str) -> Array3<f64> {
        self.take(name).into_dimensionality::<Ix3>().unwrap()
    }

    fn take4(&mut self, name: &str) -> Array4<f64> {
        self.take(name).into_dimensionality::<Ix4>().unwrap()
    }
}

/// Relative agreement in Frobenius norm, at 1e-10 in f64 and a few eps in f32.
#[track_caller]
fn check<T: Real, D: ndarray::Dimension>(
    name: &str,
    got: &ndarray::Array<T, D>,
    expected: &ndarray::Array<f64, D>,
) {
    let error = distance(&got.mapv(Real::as_f64), expected) / norm(expected).max(1.0);
    assert!(error <= golden::<T>(), "{name} in {}: {error:e}", T::NAME);
}

fn projectors_of<T: Real>(stack: &Array3<f64>) -> Vec<Projector<T>> {
    stack.outer_iter().map(|p| Projector::try_new(convert(&p.to_owned())).unwrap()).collect()
}

#[test]
fn equation_4_and_its_application() {
    let mut file = Reference::open("blockconv.npz");
    let cases: Vec<_> =
        file.prefixes("_h").into_iter().filter(|case| case.starts_with("eq4")).collect();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let [h, input, output] =
            ["h", "input", "output"].map(|part| file.take2(&format!("{case}_{part}")));
        let [p, kernel] = ["p", "kernel"].map(|part| file.take3(&format!("{case}_{part}")));
        check_equation_4::<f64>(&case, &h, &p, &kernel, (&input, &output));
        check_equation_4::<f32>(&case, &h, &p, &kernel, (&input, &output));
    }
    assert!(file.prefixes("").iter().all(|name| !name.starts_with("eq4")));
}

fn check_equation_4<T: Real>(
    case: &str,
    h: &Array2<f64>,
    p: &Array3<f64>,
    kernel: &Array3<f64>,
    (input, output): (&Array2<f64>, &Array2<f64>),
) {
    let assembled = assemble_1d(convert::<T, _>(h).view(), &projectors_of(p)).unwrap();
    check(case, &assembled.taps().to_owned(), kernel);
    let given = Kernel1::try_new(convert::<T, _>(kernel)).unwrap();
    check(case, &given.apply(convert(input).view()).unwrap(), output);
}

#[test]
fn equation_5_and_its_application() {
    let mut file = Reference::open("blockconv.npz");
    let cases: Vec<_> =
        file.prefixes("_h").into_iter().filter(|case| case.starts_with("eq5")).collect();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let h = file.take2(&format!("{case}_h"));
        let [p, q, input, output] =
            ["p", "q", "input", "output"].map(|part| file.take3(&format!("{case}_{part}")));
        let kernel = file.take4(&format!("{case}_kernel"));
        check_equation_5::<f64>(&case, &h, [&p, &q], &kernel, (&input, &output));
        check_equation_5::<f32>(&case, &h, [&p, &q], &kernel, (&input, &output));
    }
    assert!(file.prefixes("").iter().all(|name| !name.starts_with("eq5")));
}

fn check_equation_5<T: Real>(
    case: &str,
    h: &Array2<f64>,
    [p, q]: [&Array3<f64>; 2],
    kernel: &Array4<f64>,
    (input, output): (&Array3<f64>, &Array3<f64>),
) {
    let (h, ps, qs) = (convert::<T, _>(h), projectors_of::<T>(p), projectors_of::<T>(q));
    check(case, &assemble_2d(h.view(), &ps, &qs).unwrap().into_taps(), kernel);
    let order: Vec<_> = ps.iter().zip(&qs).flat_map(|(p, q)| [p.matrix(), q.matrix()]).collect();
    let n = h.nrows();
    for (c_out, c_in) in [(n, n), (n / 2, n), (n, n / 2)] {
        let cut = kernel.slice(ndarray::s![.., .., ..c_out, ..c_in]).to_owned();
        check(case, &assemble(h.view(), &order, c_out, c_in).unwrap().taps().to_owned(), &cut);
    }
    let given = Kernel2::try_new(convert::<T, _>(kernel)).unwrap();
    check(case, &given.apply(convert(input).view()).unwrap(), output);
}

#[test]
fn block_product_and_its_application() {
    let mut file = Reference::open("blockconv.npz");
    let [a, b, ab] = ["product_a", "product_b", "product_ab"].map(|name| file.take4(name));
    let [input, output] = ["product_input", "product_output"].map(|name| file.take3(name));
    check_product::<f64>([&a, &b, &ab], &input, &output);
    check_product::<f32>([&a, &b, &ab], &input, &output);
    assert!(file.prefixes("").iter().all(|name| !name.starts_with("product")));
    // the three tests of this file use all of its arrays
    assert!(
        file.prefixes("").iter().all(|name| name.starts_with("eq4") || name.starts_with("eq5"))
    );
}

fn check_product<T: Real>(
    [a, b, ab]: [&Array4<f64>; 3],
    input: &Array3<f64>,
    output: &Array3<f64>,
) {
    let [a, b] = [a, b].map(|taps| Kernel2::try_new(convert::<T, _>(taps)).unwrap());
    let product = a.block_product(&b).unwrap();
    check("product", &product.taps().to_owned(), ab);
    let image = convert::<T, _>(input);
    check("product applied", &product.apply(image.view()).unwrap(), output);
    let in_turn = a.apply(b.apply(image.view()).unwrap().view()).unwrap();
    check("factors applied in turn", &in_turn, output);
}

#[test]
fn singular_values_of_layer_weights() {
    let mut file = Reference::open("conv_layers.npz");
    let cases = file.prefixes("_singular_values");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (weight, sigma) =
            (file.take4(&format!("{case}_weight")), file.take1(&format!("{case}_singular_values")));
        let size = image_size(&case);
        check_spectrum::<f64>(&case, &weight, size, &sigma);
        check_spectrum::<f32>(&case, &weight, size, &sigma);
    }
}

fn check_spectrum<T: Real>(
    case: &str,
    weight: &Array4<f64>,
    size: (usize, usize),
    sigma: &Array1<f64>,
) {
    let got = spectrum::layer_singular_values(convert::<T, _>(weight).view(), size).unwrap();
    check(case, &got, sigma);
    let kernel = blockconv::from_layer_weight(convert::<T, _>(weight).view()).unwrap();
    assert_eq!(kernel.singular_values(size).unwrap(), got);
}

#[test]
fn clipped_and_truncated_kernels() {
    let mut file = Reference::open("conv_layers.npz");
    for case in file.prefixes("_weight") {
        let weight = file.take4(&format!("{case}_weight"));
        for rounds in [1, 50] {
            let expected = file.take4(&format!("{case}_svcm{rounds}"));
            check_clipping::<f64>(&case, &weight, rounds, &expected);
            check_clipping::<f32>(&case, &weight, rounds, &expected);
        }
    }
}

fn check_clipping<T: Real>(
    case: &str,
    weight: &Array4<f64>,
    rounds: usize,
    expected: &Array4<f64>,
) {
    let weight = convert::<T, _>(weight);
    let clipped = clip_singular_values(weight.view(), image_size(case), rounds).unwrap();
    check(&format!("{case} after {rounds} rounds"), &clipped, expected);
}

/// h and w of a case named like `o4_i4_k3_h5_w6`.
fn image_size(case: &str) -> (usize, usize) {
    let extent = |letter: &str| {
        case.split('_').find_map(|part| part.strip_prefix(letter)).unwrap().parse().unwrap()
    };
    (extent("h"), extent("w"))
}

#[test]
fn baseline_layers_of_the_reference_are_bounded_by_one() {
    // The clipped, divided and projected weights are other people's 1-Lipschitz layers at their image size: an
    // independent check of the spectrum and of both bounds.
    let mut file = Reference::open("conv_layers.npz");
    for case in file.prefixes("_weight") {
        let size = image_size(&case);
        for kind in ["ossn", "rko", "rkl2ne", "svcm1", "svcm50"] {
            let weight = file.take4(&format!("{case}_{kind}"));
            let sigma_max = spectrum::layer_singular_values(weight.view(), size).unwrap()[0];
            // one round of clipping and truncation does not reach 1; fifty nearly do
            let limit = match kind {
                "svcm1" => 1.5,
                "svcm50" => 1.01,
                _ => 1.0 + 1e-12,
            };
            assert!(sigma_max <= limit, "{case} {kind}: {sigma_max}");
            let on = blockconv::bounds::cyclic_norm_bound_on(weight.view(), size).unwrap().value();
            let every = blockconv::bounds::cyclic_norm_bound(weight.view()).unwrap().value();
            assert!(
                sigma_max <= on && on <= sigma_max * (1.0 + 1e-4) && on <= every,
                "{case} {kind}: {on} {every}"
            );
        }
        let (weight, sigma) =
            (file.take4(&format!("{case}_weight")), file.take1(&format!("{case}_singular_values")));
        assert_eq!(weight.len_of(Axis(2)), weight.len_of(Axis(3)));
        assert!(sigma.len().is_multiple_of(size.0 * size.1));
    }
    assert!(file.0.is_empty(), "every array of the file is used");
}
