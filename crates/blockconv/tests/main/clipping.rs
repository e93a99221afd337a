//! Laws of clipping: what is within the ball stays, everything else approaches it and never gets longer.

use blockconv::clipping::clip_singular_values;
use blockconv::spectrum::layer_singular_values;
use ndarray::Array4;
use projectors::Real;

use crate::support::{distance, norm, rng, uniform};

/// (c_out, c_in, k, h, w): each order of the channels, odd and even kernels, image = kernel, odd, even and flat images.
const CASES: [(usize, usize, usize, usize, usize); 6] = [
    (4, 4, 3, 5, 6),
    (2, 5, 2, 2, 2),
    (6, 3, 4, 7, 4),
    (1, 1, 1, 1, 9),
    (3, 2, 5, 8, 5),
    (9, 9, 2, 4, 4),
];

fn draw<T: Real>(
    (c_out, c_in, k, ..): (usize, usize, usize, usize, usize),
    scale: f64,
) -> Array4<T> {
    let weight: Array4<f64> = uniform((c_out, c_in, k, k), &mut rng(17));
    weight.mapv(|x| T::of(scale * x))
}

fn sigma_max(weight: &Array4<f64>, size: (usize, usize)) -> f64 {
    layer_singular_values(weight.view(), size).unwrap()[0]
}

#[test]
fn a_kernel_of_norm_at_most_one_stays_to_the_bit() {
    for case in CASES {
        let size = (case.3, case.4);
        let weight = draw::<f64>(case, 1.0);
        let inside = &weight * (0.999 / sigma_max(&weight, size));
        assert_eq!(clip_singular_values(inside.view(), size, 3).unwrap(), inside, "{case:?}");
        let single = inside.mapv(|x| x as f32);
        assert_eq!(clip_singular_values(single.view(), size, 3).unwrap(), single, "{case:?}");
    }
}

#[test]
fn rounds_approach_the_ball_and_come_closer_to_every_kernel_in_it() {
    for case in CASES {
        let size = (case.3, case.4);
        let weight = draw::<f64>(case, 1.0);
        let inside = &draw::<f64>(case, 1.0).mapv(|x| x.cos());
        let inside = inside * (1.0 / sigma_max(inside, size));
        let mut last = (f64::INFINITY, f64::INFINITY);
        for rounds in [0, 1, 4, 16, 64] {
            let clipped = clip_singular_values(weight.view(), size, rounds).unwrap();
            let excess = (sigma_max(&clipped, size) - 1.0).max(0.0);
            let to_inside = norm(&(&clipped - &inside));
            assert!(to_inside <= last.1 * (1.0 + 1e-12), "{case:?} after {rounds}: {to_inside}");
            assert!(excess <= last.0 + 1e-12, "{case:?} after {rounds}: {excess}");
            last = (excess, to_inside);
        }
        assert!(last.0 < 0.02, "{case:?}: {}", last.0);
    }
}

#[test]
fn a_kernel_that_fills_the_image_is_clipped_in_one_round() {
    for case in [(4, 4, 3, 3, 3), (2, 5, 2, 2, 2), (6, 3, 4, 4, 4)] {
        let size = (case.3, case.4);
        let weight = draw::<f64>(case, 1.0);
        let clipped = clip_singular_values(weight.view(), size, 1).unwrap();
        let mut expected = layer_singular_values(weight.view(), size).unwrap();
        expected.mapv_inplace(|x| x.min(1.0));
        let got = layer_singular_values(clipped.view(), size).unwrap();
        assert!(distance(&got, &expected) < 1e-12 * expected.len() as f64, "{case:?}");
    }
}

#[test]
fn bad_weights_are_refused() {
    let says = |weight: Array4<f64>, size, text: &str| {
        let error = clip_singular_values(weight.view(), size, 1).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    says(
        Array4::ones((1, 1, 3, 3)),
        (3, 2),
        "a kernel of size 3 x 3 does not fit into an image of size 3 x 2",
    );
    says(Array4::ones((0, 1, 3, 3)), (3, 3), "is empty");
    says(Array4::from_elem((1, 1, 1, 1), f64::NAN), (3, 3), "contains NaN or an infinity");
}
