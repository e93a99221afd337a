//! The kernels for tensors of other programs against loops and the CPU's activation.

use super::super::backend::{Backend, Launch, arguments};
use super::*;

/// A device and a few tensors on it.
struct Tensors(Box<dyn Backend>);

impl Tensors {
    /// Runs a kernel on tensors; the result begins as something else than zeros.
    fn run(
        &mut self,
        kernel: &'static str,
        inputs: &[&[f32]],
        rest: Vec<Vec<u64>>,
        (n, n_result): (usize, usize),
    ) -> Vec<f32> {
        let mut write = |values: &[f32]| {
            let place = self.0.allocate(4 * values.len()).expect("memory");
            self.0.write(place, &bytes_of(values)).expect("written");
            place
        };
        let mut places: Vec<_> = inputs.iter().map(|values| write(values)).collect();
        let result = write(&vec![7.5; n_result]);
        places.push(result);
        let mut given: Vec<Vec<u64>> = places.into_iter().map(|place| vec![place]).collect();
        given.extend(rest);
        self.0.launch(&Launch::each(kernel, 0, n, given)).expect("a kernel");
        let mut bytes = vec![0; 4 * n_result];
        self.0.read(result, &mut bytes).expect("read");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0_f32..1.0)).collect()
}

/// Batch, channels before downsampling, downsampling, kernel, output image.
type Case = (usize, usize, usize, usize, (usize, usize));

const CASES: [Case; 7] = [
    (1, 1, 1, 1, (1, 1)),
    (2, 3, 1, 3, (5, 4)),
    (3, 2, 2, 2, (3, 5)),
    (2, 1, 3, 1, (2, 2)),
    (1, 4, 1, 4, (4, 7)),
    (5, 3, 2, 3, (3, 3)),
    (2, 2, 1, 5, (5, 5)),
];

/// For every value of the patches the place of the image that it is a copy of, by the definition of the layer.
fn sources((batch, c, s, k, (h, w)): Case) -> Vec<usize> {
    let mut sources = Vec::new();
    for channel in 0..c * s * s {
        let (of, dy, dx) = (channel / (s * s), channel / s % s, channel % s);
        for (a, b) in (0..k).flat_map(|a| (0..k).map(move |b| (a, b))) {
            for (image, y, x) in
                (0..batch).flat_map(|n| (0..h).flat_map(move |y| (0..w).map(move |x| (n, y, x))))
            {
                let row = (y + a + h - k / 2) % h * s + dy;
                let column = (x + b + w - k / 2) % w * s + dx;
                sources.push(((image * c + of) * h * s + row) * w * s + column);
            }
        }
    }
    sources
}

#[test]
fn patches_are_copies_of_pixels_and_fold_is_their_adjoint() {
    let mut device = Tensors(place().open(1).expect("a device"));
    for case @ (batch, c, s, k, (h, w)) in CASES {
        let sources = sources(case);
        let (columns, n_image) = (batch * h * w, batch * c * s * s * h * w);
        let image = random(n_image, 3);
        let shape = [h, w, c, s, k, 0].map(|n| n as u32);
        let rest = arguments![columns, &shape[..]];
        let n = sources.len();
        let patches = device.run("unfold", &[&image], rest.clone(), (n, n));
        let expected: Vec<f32> = sources.iter().map(|&source| image[source]).collect();
        assert_eq!(patches, expected, "{case:?}");
        let cotangent = random(n, 4);
        let mut sums = vec![0.0_f64; n_image];
        for (&source, &value) in sources.iter().zip(&cotangent) {
            sums[source] += f64::from(value);
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        let folded = device.run("fold", &[&cotangent], rest, (n_image, n_image));
        let apart = distance(&folded, &sums);
        assert!(apart <= rounding(k * k), "{case:?}: {apart:e}");
    }
}

#[test]
fn axes_are_exchanged() {
    let mut device = Tensors(place().open(1).expect("a device"));
    for (m, n, plane) in [(1, 1, 1), (2, 3, 5), (7, 1, 4), (1, 6, 3), (130, 11, 2)] {
        let values = random(m * n * plane, 5);
        let count = values.len();
        let exchanged =
            device.run("exchange_axes", &[&values], arguments![m, n, plane], (count, count));
        for (i, j, p) in
            (0..m).flat_map(|i| (0..n).flat_map(move |j| (0..plane).map(move |p| (i, j, p))))
        {
            let (to, from) = ((j * m + i) * plane + p, (i * n + j) * plane + p);
            assert_eq!(exchanged[to], values[from], "{m} x {n} x {plane}");
        }
        let back =
            device.run("exchange_axes", &[&exchanged], arguments![n, m, plane], (count, count));
        assert_eq!(back, values);
    }
}

#[test]
fn maxima_and_their_gradient_are_the_cpus() {
    let mut device = Tensors(place().open(1).expect("a device"));
    for (signals, half) in [(1, 1), (3, 4), (2, 15), (300, 7)] {
        let n = 2 * signals * half;
        // a coarse grid has ties, where nothing is exchanged
        let x: Vec<f32> = random(n, 6).into_iter().map(|v| (3.0 * v).round()).collect();
        let cotangent = random(n, 7);
        let (mut y, mut dx) = (x.clone(), cotangent.clone());
        let mut record = vec![0; Activation::MaxMin.record_len(2 * half)];
        for (y, dx) in y.chunks_exact_mut(2 * half).zip(dx.chunks_exact_mut(2 * half)) {
            Activation::MaxMin.apply(y, 1, &mut record);
            Activation::MaxMin.pull_back(dx, 1, &record);
        }
        let sizes = arguments![signals, half];
        let got = device.run("max_min", &[&x], sizes.clone(), (n / 2, n));
        assert_eq!(got, y, "{signals} signals of {n} values");
        let gradient = device.run("max_min_gradient", &[&x, &cotangent], sizes, (n / 2, n));
        assert_eq!(gradient, dx, "{signals} signals of {n} values");
    }
}
