//! Zero padding: an orthogonal kernel loses norm at the border unless it has size 1.

use blockconv::zero_padding::{off_centre_energy, operator, zero_padded};
use blockconv::{Kernel2, assembly::assemble_2d, layer_weight};
use ndarray::{Array3, Array4, s};
use projectors::{Projector, haar_orthogonal};

use crate::support::{self, distance, uniform};

fn kernel(k: usize, n: usize, seed: u64) -> Kernel2<f64> {
    let (h, ps, qs) = support::factors(k, n, &mut support::rng(seed));
    assemble_2d(h.view(), &ps, &qs).unwrap()
}

/// The operator equals the cyclic layer on an image with a border of zeros around it.
#[test]
fn operator_is_the_layer_on_an_image_framed_by_zeros() {
    let mut rng = support::rng(1);
    for (k, n, (h, w)) in [(1, 2, (1, 2)), (2, 3, (2, 4)), (3, 2, (3, 5)), (4, 1, (6, 4))] {
        let kernel = kernel(k, n, 2);
        let image: Array3<f64> = uniform((h, w, n), &mut rng);
        let mut framed = Array3::zeros((h + k, w + k, n));
        framed.slice_mut(s![..h, ..w, ..]).assign(&image);
        let out = support::cross_correlation(layer_weight(&kernel).view(), framed.view());
        let expected = out.slice(s![..h, ..w, ..]);
        let flat = image.flatten();
        let actual = operator(&kernel, (h, w)).unwrap().dot(&flat);
        let actual = actual.into_shape_with_order((h, w, n)).unwrap();
        assert!(distance(&actual.view(), &expected) <= 1e-13, "k {k}, n {n}");
    }
}

#[test]
fn orthogonal_kernels_lose_norm_in_proportion_to_their_outer_taps() {
    for k in 2..=4 {
        for n in 1..=3 {
            for seed in 0..6 {
                let kernel = kernel(k, n, seed);
                let size = (k + seed as usize % 2, k + 1);
                let (padded, energy) =
                    (zero_padded(&kernel, size).unwrap(), off_centre_energy(&kernel));
                let case = format!("k {k}, n {n}, seed {seed}");
                assert!((0.0..=1.0 + 1e-12).contains(&energy), "{case}: {energy}");
                assert!(
                    padded.norm_defect() >= 0.5 * energy - 1e-12,
                    "{case}: {padded:?}, {energy}"
                );
                assert!(padded.sigma_max <= 1.0 + 1e-12, "{case}: restrictions do not expand");
                let cyclic = support::dense_extremes(kernel.taps(), size);
                assert!((cyclic.0 - 1.0).abs() < 1e-12, "{case}: cyclic boundaries preserve norms");
            }
        }
    }
}

/// Of all kernels only those of size 1 remain orthogonal, possibly written with taps that are zero.
#[test]
fn only_size_one_survives() {
    let mut rng = support::rng(3);
    for k in 1..=5 {
        let mut taps = Array4::zeros((k, k, 3, 3));
        let h = haar_orthogonal::<f64>(3, &mut rng);
        taps.slice_mut(s![(k - 1) / 2, (k - 1) / 2, .., ..]).assign(&h);
        let size_one = Kernel2::try_new(taps).unwrap();
        let padded = zero_padded(&size_one, (k, k + 1)).unwrap();
        assert!(padded.norm_defect() <= 1e-13, "size {k}: {padded:?}");
        assert_eq!(off_centre_energy(&size_one), 0.0);
    }
    // Ranks as BCOP has them, a third of the norm and more is lost.
    let mut half = || Projector::random(4, 2, &mut rng).unwrap();
    let (p, q) = (half(), half());
    let h = haar_orthogonal::<f64>(4, &mut rng);
    let bcop = assemble_2d(h.view(), &[p], &[q]).unwrap();
    let padded = zero_padded(&bcop, (4, 4)).unwrap();
    assert!(padded.norm_defect() > 1.0 / 3.0, "{padded:?}");
}

#[test]
fn kernel_must_fit() {
    let expected = "a kernel of size 3 x 3 does not fit into an image of size 2 x 5: \
                    a cyclic convolution needs the image at least as large as the kernel";
    assert_eq!(zero_padded(&kernel(3, 1, 0), (2, 5)).unwrap_err().to_string(), expected);
}
