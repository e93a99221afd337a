//! Convolutions against their definition.

use projectors::Real;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Conv, ConvGeometry, ConvScratch};
use crate::kernels::lanes::Lanes;
use crate::kernels::registers::Packed;
use crate::shape::ImageShape;

/// Image (before downsampling), downsampling, kernel, output channels: every kernel size from 1 to 5, widths and channels below, at and
/// beside what registers hold, sums of more than one block of terms, more than one group of lanes.
const CASES: [([usize; 3], usize, usize, usize); 20] = [
    ([1, 1, 1], 1, 1, 1),
    ([3, 5, 1], 1, 1, 2),
    ([2, 2, 2], 2, 1, 3),
    ([1, 2, 9], 1, 2, 16),
    ([7, 3, 2], 1, 2, 5),
    ([16, 4, 7], 1, 3, 16),
    ([33, 7, 8], 1, 3, 17),
    ([5, 9, 14], 1, 4, 33),
    ([33, 4, 5], 1, 4, 7),
    ([3, 6, 16], 1, 3, 32),
    ([2, 3, 31], 1, 3, 13),
    ([1, 4, 32], 1, 2, 11),
    ([17, 8, 6], 1, 5, 1),
    ([1, 28, 28], 2, 2, 16),
    ([4, 14, 14], 2, 2, 8),
    ([33, 6, 4], 2, 2, 33),
    ([2, 12, 62], 2, 3, 5),
    ([3, 16, 8], 2, 4, 3),
    ([2, 6, 9], 3, 2, 19),
    ([1, 12, 15], 3, 3, 2),
];

fn geometry((input, downsample, kernel, c_out): ([usize; 3], usize, usize, usize)) -> ConvGeometry {
    let [channels, height, width] = input;
    ConvGeometry { input: ImageShape::new(channels, height, width), downsample, kernel, c_out }
}

/// Calls `f` with the places in output, weight and image of every product of the definition.
fn each_product(g: &ConvGeometry, mut f: impl FnMut(usize, usize, usize)) {
    let (s, k, h, w) = (g.downsample, g.kernel, g.height(), g.width());
    for o in 0..g.c_out {
        for (i, j) in (0..h * w).map(|pixel| (pixel / w, pixel % w)) {
            for term in 0..g.n_terms() {
                let (c, a, b) = (term / (k * k), term / k % k, term % k);
                let row = (i + a + h - k / 2) % h * s + c / s % s;
                let column = (j + b + w - k / 2) % w * s + c % s;
                let pixel = (c / (s * s) * g.input.height + row) * g.input.width + column;
                f((o * h + i) * w + j, o * g.n_terms() + term, pixel);
            }
        }
    }
}

fn uniform<T: Real>(n: usize, rng: &mut ChaCha8Rng) -> Vec<T> {
    (0..n).map(|_| T::of(rng.random_range(-1.0..1.0))).collect()
}

fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.as_f64()).collect()
}

/// Error of a sum of `n` products and one more number, of which `size` is the sum of the sizes; that of the reference included.
fn allowed<T: Real>(n: usize, size: f64) -> f64 {
    2.0 * (n + 2) as f64 * T::EPS * size
}

/// A convolution with numbers drawn, and what the definition makes of them.
struct Case<T> {
    conv: Conv<T>,
    weight: Vec<T>,
    bias: Vec<T>,
    image: Vec<T>,
    d_output: Vec<T>,
}

impl<T: Packed> Case<T> {
    fn all() -> impl Iterator<Item = Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        CASES.into_iter().map(move |case| {
            let geometry = geometry(case);
            let weight = uniform(geometry.c_out * geometry.n_terms(), &mut rng);
            let bias: Vec<T> = uniform(geometry.c_out, &mut rng);
            Self {
                conv: Conv::new(geometry, &weight, Some(&bias)),
                weight,
                bias,
                image: uniform(geometry.input.n_values(), &mut rng),
                d_output: uniform(geometry.output().n_values(), &mut rng),
            }
        })
    }

    /// Checks `found` against sums over all products: `f` adds one, given the numbers, to the sums or, given their absolute values, to
    /// the sizes. Both begin with `start`.
    fn check(
        &self,
        found: &[T],
        start: impl Fn(usize) -> f64,
        n_terms: usize,
        mut f: impl FnMut(&mut [f64], [f64; 3], [usize; 3]),
    ) {
        let [d_output, weight, image] =
            [&self.d_output, &self.weight, &self.image].map(|values| wide(values));
        let mut sums: Vec<f64> = (0..found.len()).map(start).collect();
        let mut sizes: Vec<f64> = sums.iter().map(|x| x.abs()).collect();
        each_product(&self.conv.geometry, |y, w, x| {
            let numbers = [d_output[y], weight[w], image[x]];
            f(&mut sums, numbers, [y, w, x]);
            f(&mut sizes, numbers.map(f64::abs), [y, w, x]);
        });
        for ((found, sum), size) in found.iter().zip(sums).zip(sizes) {
            let error = (found.as_f64() - sum).abs();
            let allowed = allowed::<T>(n_terms, size);
            assert!(error <= allowed, "{:?}: {found} {sum}", self.conv.geometry);
        }
    }
}

fn outputs_and_gradients_are_as_defined<T: Packed>() {
    // one memory for all: what an earlier convolution left in it must not matter
    let scratch = &mut ConvScratch::default();
    for case in Case::<T>::all() {
        let Case { conv, bias, image, d_output, .. } = &case;
        let (n_terms, n_pixels) = (conv.geometry.n_terms(), conv.geometry.output().n_pixels());
        scratch.reserve(conv);
        let mut output = vec![T::zero(); d_output.len()];
        conv.forward(image, &mut output, scratch);
        let of_plane = |y: usize| bias[y / n_pixels].as_f64();
        case.check(&output, of_plane, n_terms, |sums, [_, w, x], at| sums[at[0]] += w * x);

        let mut d_image = vec![T::zero(); image.len()];
        conv.input_gradient(&conv.adjoint_factors(), d_output, &mut d_image, scratch);
        let n_uses = conv.geometry.c_out * conv.geometry.kernel.pow(2);
        case.check(&d_image, |_| 0.0, n_uses, |sums, [y, w, _], at| sums[at[2]] += y * w);

        // added to what is there
        let mut lanes = vec![Lanes([T::one(); 16]); conv.gradient_len()];
        conv.add_gradients(image, d_output, &mut lanes, scratch);
        let (d_weight, d_bias) = conv.gradients(&lanes);
        case.check(&d_weight, |_| 1.0, n_pixels, |sums, [y, _, x], at| sums[at[1]] += y * x);
        for (found, plane) in d_bias.iter().zip(d_output.chunks_exact(n_pixels)) {
            let sum = 1.0 + wide(plane).iter().sum::<f64>();
            let size = 1.0 + wide(plane).iter().map(|x| x.abs()).sum::<f64>();
            assert!((found.as_f64() - sum).abs() <= allowed::<T>(n_pixels, size));
        }
    }
}

#[test]
fn outputs_and_gradients_are_as_defined_in_f32() {
    outputs_and_gradients_are_as_defined::<f32>();
}

#[test]
fn outputs_and_gradients_are_as_defined_in_f64() {
    outputs_and_gradients_are_as_defined::<f64>();
}

fn gradients_are_adjoint<T: Packed>() {
    let scratch = &mut ConvScratch::default();
    let product = |a: &[T], b: &[T]| {
        let products = wide(a).into_iter().zip(wide(b)).map(|(a, b)| a * b);
        products.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()))
    };
    for Case { weight, image, d_output, conv, .. } in Case::<T>::all() {
        let conv = Conv::new(conv.geometry, &weight, None);
        scratch.reserve(&conv);
        let mut output = vec![T::zero(); d_output.len()];
        conv.forward(&image, &mut output, scratch);
        let mut d_image = vec![T::zero(); image.len()];
        conv.input_gradient(&conv.adjoint_factors(), &d_output, &mut d_image, scratch);
        let mut lanes = vec![Lanes::zero(); conv.gradient_len()];
        conv.add_gradients(&image, &d_output, &mut lanes, scratch);
        let (d_weight, _) = conv.gradients(&lanes);

        let (along, size) = product(&output, &d_output);
        let n = conv.geometry.n_terms() + conv.geometry.output().n_values();
        for (back, back_size) in [product(&d_image, &image), product(&d_weight, &weight)] {
            let allowed = allowed::<T>(n, size + back_size);
            assert!((along - back).abs() <= allowed, "{:?}: {along} {back}", conv.geometry);
        }
    }
}

#[test]
fn gradients_are_adjoint_in_f32() {
    gradients_are_adjoint::<f32>();
}

#[test]
fn gradients_are_adjoint_in_f64() {
    gradients_are_adjoint::<f64>();
}
