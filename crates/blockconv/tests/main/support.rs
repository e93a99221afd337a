//! What the tests share: seeded draws, dense operators, and tolerances named after what they allow for.

use blockconv::Kernel2;
use ndarray::{
    Array, Array2, Array3, Array4, ArrayBase, ArrayView3, ArrayView4, Data, Dimension,
    IntoDimension,
};
use projectors::{Projector, Real, haar_orthogonal};
use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random tests draw the same cases every time.
pub(crate) fn seeded() -> ProptestConfig {
    let rng_seed = RngSeed::Fixed(0);
    ProptestConfig { cases: 256, rng_seed, failure_persistence: None, ..Default::default() }
}

pub(crate) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Entries uniform in [-1, 1].
pub(crate) fn uniform<T: Real, Sh: IntoDimension>(
    shape: Sh,
    rng: &mut ChaCha8Rng,
) -> Array<T, Sh::Dim> {
    Array::from_shape_simple_fn(shape.into_dimension(), || T::of(rng.random_range(-1.0..1.0)))
}

/// The BCOP parameters of a layer: Haar matrices, as training starts from.
pub(crate) fn parameters<T: Real>(k: usize, n: usize, rng: &mut ChaCha8Rng) -> Array3<T> {
    let mut all = Array3::zeros((2 * k - 1, n, n));
    all.outer_iter_mut().for_each(|mut slice| slice.assign(&haar_orthogonal(n, rng)));
    all
}

/// H and k - 1 projectors of random ranks for each direction.
pub(crate) fn factors<T: Real>(
    k: usize,
    n: usize,
    rng: &mut ChaCha8Rng,
) -> (Array2<T>, Vec<Projector<T>>, Vec<Projector<T>>) {
    let h = haar_orthogonal(n, rng);
    let mut draw = || (1..k).map(|_| random_projector(n, rng)).collect();
    let ps = draw();
    (h, ps, draw())
}

fn random_projector<T: Real>(n: usize, rng: &mut ChaCha8Rng) -> Projector<T> {
    let rank = rng.random_range(0..=n);
    Projector::random(n, rank, rng).unwrap()
}

/// The matrix of v -> X * v on h x w images, written straight from the definition.
pub(crate) fn dense<T: Real>(taps: ArrayView4<'_, T>, (h, w): (usize, usize)) -> Array2<f64> {
    let (kh, kw, n_out, n_in) = taps.dim();
    let mut matrix = Array2::zeros((h * w * n_out, h * w * n_in));
    for (i, j, a, b) in quadruples(h, w, kh, kw) {
        let (from_i, from_j) = ((i + h - a) % h, (j + w - b) % w);
        for o in 0..n_out {
            for c in 0..n_in {
                matrix[[(i * w + j) * n_out + o, (from_i * w + from_j) * n_in + c]] +=
                    taps[[a, b, o, c]].as_f64();
            }
        }
    }
    matrix
}

pub(crate) fn quadruples(
    h: usize,
    w: usize,
    kh: usize,
    kw: usize,
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let pairs = move |h: usize, w: usize| (0..h).flat_map(move |i| (0..w).map(move |j| (i, j)));
    pairs(h, w).flat_map(move |(i, j)| pairs(kh, kw).map(move |(a, b)| (i, j, a, b)))
}

/// All singular values of a matrix, largest first.
pub(crate) fn dense_singular_values(matrix: &Array2<f64>) -> Vec<f64> {
    use ndarray_linalg::SVD;
    projectors::gemm::single_threaded_blas();
    matrix.svd(false, false).unwrap().1.to_vec()
}

/// (sigma_min, sigma_max) of the dense operator over its smaller side.
pub(crate) fn dense_extremes<T: Real>(taps: ArrayView4<'_, T>, size: (usize, usize)) -> (f64, f64) {
    let sigma = dense_singular_values(&dense(taps, size));
    (sigma[sigma.len() - 1], sigma[0])
}

pub(crate) fn distance<S, R, T, D>(a: &ArrayBase<S, D>, b: &ArrayBase<R, D>) -> f64
where
    S: Data<Elem = T>,
    R: Data<Elem = T>,
    T: Real,
    D: Dimension,
{
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b.iter()).map(|(x, y)| (x.as_f64() - y.as_f64()).powi(2)).sum::<f64>().sqrt()
}

pub(crate) fn inner<T: Real, D: Dimension>(a: &Array<T, D>, b: &Array<T, D>) -> f64 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b.iter()).map(|(x, y)| x.as_f64() * y.as_f64()).sum()
}

pub(crate) fn norm<T: Real, D: Dimension>(a: &Array<T, D>) -> f64 {
    inner(a, a).sqrt()
}

pub(crate) fn convert<T: Real, D: Dimension>(a: &Array<f64, D>) -> Array<T, D> {
    a.mapv(T::of)
}

/// The cyclic cross-correlation of an OIHW weight with padding k/2 before, from its definition.
pub(crate) fn cross_correlation(
    weight: ArrayView4<'_, f64>,
    image: ArrayView3<'_, f64>,
) -> Array3<f64> {
    let ((n_out, n_in, kh, kw), (h, w, _)) = (weight.dim(), image.dim());
    let mut out = Array3::zeros((h, w, n_out));
    for (i, j, a, b) in quadruples(h, w, kh, kw) {
        let (from_i, from_j) = ((i + a + h - kh / 2) % h, (j + b + w - kw / 2) % w);
        for o in 0..n_out {
            for c in 0..n_in {
                out[[i, j, o]] += weight[[o, c, a, b]] * image[[from_i, from_j, c]];
            }
        }
    }
    out
}

/// Allowed deviation of singular values from 1, and of an autocorrelation tap from its target, for kernels assembled
/// from 2k - 1 factors of size n: each factor is off by rounding of size eps, sqrt(n) of them add up in a norm.
pub(crate) fn orthogonality<T: Real>(n: usize, k: usize) -> f64 {
    8.0 * T::EPS * (n as f64).sqrt() * (2 * k - 1) as f64
}

/// Allowed autocorrelation defect: the deviation above in each of the (2k - 1)² taps.
pub(crate) fn defect<T: Real>(n: usize, k: usize) -> f64 {
    orthogonality::<T>(n, k) * ((2 * k - 1) * (2 * k - 1)) as f64
}

/// Allowed relative error of a computation with `terms` roundings per entry.
pub(crate) fn rounding<T: Real>(terms: usize) -> f64 {
    4.0 * T::EPS * (terms as f64).sqrt().max(4.0)
}

/// Agreement with float64 reference vectors: 1e-10 in f64, the same number of eps in f32.
pub(crate) fn golden<T: Real>() -> f64 {
    if T::EPS == f64::EPSILON { 1e-10 } else { 32.0 * T::EPS }
}

/// A kernel of uniform entries, orthogonal to nothing.
pub(crate) fn random_kernel<T: Real>(
    shape: (usize, usize, usize, usize),
    rng: &mut ChaCha8Rng,
) -> Kernel2<T> {
    let taps: Array4<T> = uniform(shape, rng);
    Kernel2::try_new(taps).unwrap()
}
