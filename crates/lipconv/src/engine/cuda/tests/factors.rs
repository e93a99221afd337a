//! Polar factors on the emulated device against those in f64.

use ndarray::{Array2, ArrayView2, s};
use projectors::haar_orthogonal;
use projectors::polar::polar;

use super::super::backend::{Address, Backend};
use super::super::emit::{CONTROL_BYTES, Emit};
use super::super::emulation::Emulation;
use super::super::polar::{PolarBuffers, allowed_defect};
use super::*;

/// A matrix r x c with singular values from 1 to 1/`condition`.
pub(super) fn conditioned(r: usize, c: usize, condition: f64, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let (left, right) = (haar_orthogonal::<f64>(r, rng), haar_orthogonal::<f64>(c, rng));
    let sigma = |i: usize| condition.powf(-(i as f64) / (r as f64 - 1.0));
    let scaled = Array2::from_shape_fn((r, r), |(i, j)| left[[i, j]] * sigma(j));
    scaled.dot(&right.slice(s![..r, ..]))
}

/// Singular values that f32 cannot tell from 0: the factor is orthonormal all the same, and in the other directions it is the exact one.
#[test]
fn nearly_singular_matrices_have_orthonormal_factors() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for (r, c) in [(2, 2), (9, 9), (20, 33), (64, 64), (70, 70), (70, 130)] {
        for smallest in [1e-5, 1e-7, 1e-9, 0.0] {
            let (left, right) =
                (haar_orthogonal::<f64>(r, &mut rng), haar_orthogonal::<f64>(c, &mut rng));
            let right = right.slice(s![..r, ..]);
            let sigma = |i: usize| if i + 1 < r { 0.3 + 0.7 / (i as f64 + 1.0) } else { smallest };
            let scaled = Array2::from_shape_fn((r, r), |(i, j)| left[[i, j]] * sigma(j));
            let w = scaled.dot(&right).mapv(|x| x as f32);
            let cotangent = Array2::zeros((r, c));
            let [factor, _] = polar_on_device(w.view(), cotangent.view(), 0).expect("a factor");
            let factor = Array2::from_shape_vec((r, c), factor).expect("r x c");
            let gram = factor.dot(&factor.t()) - Array2::<f32>::eye(r);
            let defect = gram.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
            assert!(defect <= allowed_defect(c), "{r} x {c}, {smallest:e}: defect {defect:e}");
            // U ᵗ F V is 1 in all directions but the last
            let inside = left.t().dot(&factor.mapv(f64::from)).dot(&right.t());
            let apart = (0..r - 1).map(|i| (inside[[i, i]] - 1.0).abs()).fold(0.0, f64::max);
            assert!(apart <= rounding(c), "{r} x {c}, {smallest:e}: {apart:e} apart");
        }
    }
}

/// Factor and pullback on the emulated device, with the first level from `level` on that suffices.
fn polar_on_device(
    w: ArrayView2<'_, f32>,
    cotangent: ArrayView2<'_, f32>,
    level: usize,
) -> Result<[Vec<f32>; 2]> {
    let (r, c) = w.dim();
    let mut device = Emulation::new(Emulated::default());
    let control = device.allocate(CONTROL_BYTES)?;
    let [place, d_place, defect, out] =
        [4 * r * c, 4 * r * c, 4, 4 * r * c].map(|n| device.allocate(n));
    let [place, d_place, defect, out]: [Address; 4] = [place?, d_place?, defect?, out?];
    device.write(place, &bytes_of(w.as_standard_layout().as_slice().expect("standard")))?;
    device
        .write(d_place, &bytes_of(cotangent.as_standard_layout().as_slice().expect("standard")))?;
    let mut buffers = PolarBuffers::new(&mut Emit::new(&mut device, control), r, c, defect)?;
    (0..level).for_each(|_| assert!(buffers.raise_level()));
    loop {
        let mut emit = Emit::new(&mut device, control);
        buffers.forward(&mut emit, 0, place)?;
        buffers.prepare_backward(&mut emit, 0, place)?;
        buffers.backward(&mut emit, 0, d_place, out)?;
        let read = |device: &mut Emulation, from: Address, n: usize| -> Result<Vec<f32>> {
            let mut bytes = vec![0; 4 * n];
            device.read(from, &mut bytes)?;
            Ok(bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect())
        };
        if read(&mut device, defect, 1)?[0] <= 1.0 || !buffers.raise_level() {
            return Ok([read(&mut device, buffers.factor, r * c)?, read(&mut device, out, r * c)?]);
        }
        device.write(defect, &[0; 4])?;
    }
}

/// A level that is more patient than a matrix needs costs no digits, the last one with its nineteen steps one: errors of a step must not
/// grow in the next ones.
#[test]
fn pullbacks_of_every_level_are_as_exact() {
    let mut rng = ChaCha8Rng::seed_from_u64(13);
    for (r, c) in [(9, 9), (40, 64), (70, 70)] {
        let w = conditioned(r, c, 2.0, &mut rng).mapv(|x| x as f32);
        let cotangent = Array2::from_shape_simple_fn((r, c), || rng.random_range(-1.0_f32..1.0));
        let wide = w.mapv(f64::from);
        let exact = polar(wide.view()).expect("full rank");
        let exact = exact.pullback(wide.view(), cotangent.mapv(f64::from).view());
        let exact: Vec<f32> = exact.iter().map(|x| *x as f32).collect();
        for level in 0..4 {
            let [_, gradient] =
                polar_on_device(w.view(), cotangent.view(), level).expect("a factor");
            let apart = distance(&gradient, &exact);
            let allowed = rounding(c) * if level == 3 { 16.0 } else { 1.0 };
            assert!(apart <= allowed, "{r} x {c}, level {level}: {apart:e} apart");
        }
    }
}

#[test]
fn polar_factors_and_pullbacks_at_all_condition_numbers() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (r, c) in [(1, 1), (5, 9), (16, 16), (40, 64), (70, 130)] {
        for condition in [1.0, 10.0, 1e2, 1e3, 1e4] {
            let condition = if r == 1 { 1.0 } else { condition };
            let w = conditioned(r, c, condition, &mut rng) * rng.random_range(0.01..100.0);
            let w = w.mapv(|x| x as f32);
            let cotangent =
                Array2::from_shape_simple_fn((r, c), || rng.random_range(-1.0_f32..1.0));
            let [factor, gradient] =
                polar_on_device(w.view(), cotangent.view(), 0).expect("a factor");
            let wide = w.mapv(f64::from);
            let exact = polar(wide.view()).expect("full rank");
            let exact_factor: Vec<f32> = exact.factor().iter().map(|x| *x as f32).collect();
            // of f32 input: perturbations grow with the condition number
            let allowed = rounding(c) * (1.0 + condition / 8.0);
            let apart = distance(&factor, &exact_factor);
            assert!(apart <= allowed, "{r} x {c}, condition {condition:e}: factor {apart:e} apart");
            let pulled = exact.pullback(wide.view(), cotangent.mapv(f64::from).view());
            let pulled: Vec<f32> = pulled.iter().map(|x| *x as f32).collect();
            // of a square W with one singular value the gradient is 0: its parts are as large as |C| / |W|
            let norm =
                |x: &Array2<f32>| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let length = pulled.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let relative = length / length.max(norm(&cotangent) / norm(&w));
            let apart = match relative > 0.0 {
                true => distance(&gradient, &pulled) * relative,
                false => {
                    let all = Array2::from_shape_vec((r, c), gradient.clone()).expect("r x c");
                    norm(&all) * norm(&w) / norm(&cotangent)
                }
            };
            assert!(
                apart <= allowed,
                "{r} x {c}, condition {condition:e}: gradient {apart:e} apart"
            );
            // orthonormal whatever the condition
            let factor = Array2::from_shape_vec((r, c), factor).expect("r x c");
            let gram = factor.dot(&factor.t());
            let defect =
                gram.indexed_iter().map(|((i, j), g)| (g - f32::from(u8::from(i == j))).abs());
            assert!(
                defect.fold(0.0, f32::max) <= allowed_defect(c),
                "{r} x {c}, condition {condition:e}"
            );
        }
    }
}
