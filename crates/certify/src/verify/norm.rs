//! Proofs of `‖W‖₂ ≤ K`: a matrix is tested, nothing is iterated or estimated.
//!
//! Definition: `‖W‖₂ ≤ K` exactly when `K² I - W W*` is positive semidefinite. Let G̃ be `W W*` as computed in f64, with
//! `‖W W* - G̃‖₂ ≤ δ`, and suppose that Cholesky's factorisation of `Ã = fl((K² - t) I - G̃)` runs to its end in f64 without
//! meeting a pivot that is not positive. Then (Higham 2002, theorem 10.3; Rump 2006) `λ_min(Ã) ≥ -g tr(Ã)` with
//! `g = γ_{n+2} / (1 - γ_{n+2})`, so that the claim is proven if
//!
//! ```text
//! t ≥ δ + g tr(Ã) + 4u (K² + max G̃_ii) .          the last term: rounding of the diagonal
//! ```
//!
//! For rows of length m, `|W W* - G̃| ≤ γ_{m+2} |W| |W|*` entry by entry, and `‖ |W| |W|* ‖₂ ≤ ‖W‖_F²`: `δ = γ_{m+2} ‖W‖_F²`.
//!
//! A convolution with padding or a stride is no larger than a cyclic one on a torus (module `padded`), and each group of its channels is taken by
//! itself. A dense layer is W itself, on its smaller side. A cyclic convolution on h x w pixels is unitarily similar to the blocks
//! `Ŵ(p, q) = Σ W[:, :, i, j] exp(2πi (p i / h + q j / w))`, one for each frequency, of which conjugate ones have equal norms; as a real
//! matrix, `[Re -Im; Im Re]` has the same norm. Angles are reduced in integers; the entries err by at most
//! `(k² + 64) u Σ_ij |W[o, c, i, j]|`, given that sine and cosine are good to 16 units in the last place, which adds at most
//! `2 ‖Ŵ‖_F ‖Δ‖_F + ‖Δ‖_F²` to δ. The norm of `|W|` is that of the one non-negative matrix of sums over the taps.
//!
//! Guarantee: `true` proves the claim. `false` says only that the test did not: it succeeds whenever K exceeds the norm by
//! about `γ_{m+2} ‖W‖_F² / K²`, which is 1e-10 for the networks at hand; certificates leave room for that.
//!
//! Cost: one product W Wᵀ of the smaller side and a third of a cube of it.

use rayon::prelude::*;

use super::network::{Affine, Torus};

const UNIT: f64 = f64::EPSILON / 2.0;

/// A matrix by rows, and a bound of the Frobenius norm of the error of its entries.
#[derive(Debug)]
struct Matrix {
    rows: Vec<Vec<f64>>,
    error: f64,
}

/// Whether `‖W‖₂ ≤ bound` is proven.
pub(super) fn proves_lipschitz(affine: &Affine, bound: f64) -> bool {
    match &affine.torus {
        None => {
            let rows = affine.weight.chunks_exact(affine.n_terms).map(<[f64]>::to_vec).collect();
            Matrix { rows, error: 0.0 }.proves(bound)
        }
        Some(torus) => groups(affine).all(|weight| {
            let frequencies: Vec<(usize, usize)> = half_of_frequencies(torus).collect();
            let n_terms = affine.n_terms;
            frequencies.par_iter().all(|&at| block(weight, n_terms, torus, at).proves(bound))
        }),
    }
}

/// Whether `‖|W|‖₂ ≤ bound` is proven.
pub(super) fn proves_absolute(affine: &Affine, bound: f64) -> bool {
    let n_taps = affine.torus.as_ref().map_or(1, |torus| torus.n_taps);
    groups(affine).all(|weight| {
        let rows = absolute_taps(weight, affine.n_terms, affine.torus.as_ref());
        let error = n_taps as f64 * f64::EPSILON * frobenius_up(&rows);
        Matrix { rows, error }.proves(bound)
    })
}

/// The rows of each group; one of several that follow each other and are equal, as in pooling.
fn groups(affine: &Affine) -> impl Iterator<Item = &[f64]> {
    let length = affine.weight.len() / affine.n_groups;
    let group = move |g: usize| &affine.weight[g * length..(g + 1) * length];
    (0..affine.n_groups).filter(move |&g| g == 0 || group(g) != group(g - 1)).map(group)
}

/// Σ over the taps of |W|, rows x input channels; each entry within n_taps·2u of the exact one, relatively.
fn absolute_taps(weight: &[f64], n_terms: usize, torus: Option<&Torus>) -> Vec<Vec<f64>> {
    let rows = weight.chunks_exact(n_terms);
    let Some(torus) = torus else {
        return rows.map(|row| row.iter().map(|w| w.abs()).collect()).collect();
    };
    let sums = |row: &[f64]| {
        let mut sums = vec![0.0; torus.n_columns];
        row.iter().zip(&torus.places).for_each(|(w, place)| sums[place.0] += w.abs());
        sums
    };
    rows.map(sums).collect()
}

/// One of each pair of conjugate frequencies.
fn half_of_frequencies(torus: &Torus) -> impl Iterator<Item = (usize, usize)> {
    let (height, width) = (torus.height, torus.width);
    let all = (0..height).flat_map(move |p| (0..width).map(move |q| (p, q)));
    all.filter(move |&(p, q)| (p, q) <= ((height - p) % height, (width - q) % width))
}

/// `[Re -Im; Im Re]` of the block at a frequency.
fn block(weight: &[f64], n_terms: usize, torus: &Torus, (p, q): (usize, usize)) -> Matrix {
    let Torus { height, width, n_columns, n_taps, .. } = *torus;
    let turn = |&(_, i, j): &(usize, usize, usize)| {
        // the angle as a fraction of a turn, reduced exactly
        let fraction = (p * i * width + q * j * height) % (height * width);
        let angle = std::f64::consts::TAU * (fraction as f64 / (height * width) as f64);
        (angle.cos(), angle.sin())
    };
    let turns: Vec<(f64, f64)> = torus.places.iter().map(turn).collect();
    let n_rows = weight.len() / n_terms;
    let mut rows = vec![vec![0.0; 2 * n_columns]; 2 * n_rows];
    for (o, row) in weight.chunks_exact(n_terms).enumerate() {
        for ((w, (cos, sin)), &(c, _, _)) in row.iter().zip(&turns).zip(&torus.places) {
            rows[o][c] += w * cos;
            rows[n_rows + o][c] += w * sin;
        }
    }
    for o in 0..n_rows {
        for c in 0..n_columns {
            (rows[o][n_columns + c], rows[n_rows + o][n_columns + c]) =
                (-rows[n_rows + o][c], rows[o][c]);
        }
    }
    // each entry of the sums over the taps occurs four times
    let absolute = absolute_taps(weight, n_terms, Some(torus));
    let error = (n_taps + 64) as f64 * UNIT * 2.0 * frobenius_up(&absolute);
    Matrix { rows, error }
}

impl Matrix {
    fn scaled(self, bound: f64) -> Scaled {
        let scale = 2f64.powi(-(bound.log2().round().clamp(-1000.0, 1000.0) as i32));
        let scaled = |row: &[f64]| row.iter().map(|w| w * scale).collect::<Vec<f64>>();
        let rows: Vec<Vec<f64>> = self.rows.iter().map(|row| scaled(row)).collect();
        // what becomes subnormal loses less than 1e-300 in each of fewer than 1e100 entries
        let lost = if scale < 1.0 { 1e-200 } else { 0.0 };
        let rows = if rows.len() <= rows[0].len() { rows } else { transposed(&rows) };
        Scaled { rows, error: self.error * scale + lost, bound: bound * scale }
    }

    fn proves(self, bound: f64) -> bool {
        if !(bound.is_finite() && bound >= 0.0) {
            return false;
        }
        if self.error == 0.0 && self.rows.iter().flatten().all(|&w| w == 0.0) {
            return true;
        }
        let Scaled { rows, error, bound } = self.scaled(bound);
        let (n, m) = (rows.len(), rows[0].len());
        let frobenius = frobenius_up(&rows);
        let delta = gamma(m + 2) * frobenius * frobenius + error * (2.0 * frobenius + error);
        let mut matrix = minus_gram(&rows);
        let largest = (0..n).map(|i| -matrix[i][i]).fold(0.0, f64::max);
        let square = bound * bound;
        let trace: f64 = (0..n).map(|i| square + matrix[i][i]).sum();
        let g = 1.1 * gamma(n + 2);
        let shift = delta + g * trace.max(0.0) + 8.0 * UNIT * (square + largest);
        // a part in a thousand covers the rounding of the shift itself
        let shift = shift * 1.001;
        (0..n).for_each(|i| matrix[i][i] += square - shift);
        cholesky_completes(matrix)
    }
}

/// The same claim for W 2^-e, on the smaller side, with a bound near 1: squares neither overflow nor vanish.
struct Scaled {
    rows: Vec<Vec<f64>>,
    error: f64,
    bound: f64,
}

/// -W Wᵀ, its lower triangle.
fn minus_gram(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| {
        const LANES: usize = 8;
        let mut sums = [0.0; LANES];
        let (chunks, other) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest: f64 = chunks.remainder().iter().zip(other.remainder()).map(|(a, b)| a * b).sum();
        for (a, b) in chunks.zip(other) {
            (0..LANES).for_each(|lane| sums[lane] += a[lane] * b[lane]);
        }
        sums.iter().sum::<f64>() + rest
    };
    let row = |i: usize| (0..=i).map(|j| -dot(&rows[i], &rows[j])).collect();
    (0..rows.len()).into_par_iter().map(row).collect()
}

/// Whether the factorisation of the matrix with this lower triangle meets only positive pivots.
fn cholesky_completes(mut l: Vec<Vec<f64>>) -> bool {
    for i in 0..l.len() {
        let (done, rest) = l.split_at_mut(i);
        let row = &mut rest[0];
        for j in 0..i {
            let product: f64 = row[..j].iter().zip(&done[j][..j]).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - product) / done[j][j];
        }
        let pivot = row[i] - row[..i].iter().map(|v| v * v).sum::<f64>();
        // a NaN is no pivot either
        if !(pivot.is_finite() && pivot > f64::MIN_POSITIVE) {
            return false;
        }
        row[i] = pivot.sqrt();
    }
    true
}

fn transposed(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).collect()).collect()
}

/// At least the Frobenius norm.
fn frobenius_up(rows: &[Vec<f64>]) -> f64 {
    if rows.iter().flatten().all(|&v| v == 0.0) {
        return 0.0;
    }
    let n = rows.len() * rows[0].len();
    let sum: f64 = rows.iter().flatten().map(|v| v * v).sum();
    (sum * (1.0 + 2.0 * gamma(n + 2)) + n as f64 * f64::MIN_POSITIVE).sqrt() * (1.0 + 4.0 * UNIT)
}

/// At least n u / (1 - n u), for n below 2^40.
fn gamma(n: usize) -> f64 {
    n as f64 * UNIT * 1.001
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn dense(n_rows: usize, n_terms: usize, weight: Vec<f64>) -> Affine {
        Affine {
            name: "linear1".into(),
            n_rows,
            n_terms,
            weight,
            bias: vec![0.0; n_rows],
            source: (0..n_terms as u32).collect(),
            n_groups: 1,
            n_pixels: 1,
            torus: None,
        }
    }

    /// The bound is provable just above the norm and not below it.
    #[track_caller]
    fn check_threshold(affine: &Affine, norm: f64) {
        assert!(proves_lipschitz(affine, norm * (1.0 + 1e-9)), "not proven at {norm}");
        assert!(!proves_lipschitz(affine, norm * (1.0 - 1e-13)), "proven below {norm}");
        for bad in [f64::NAN, f64::INFINITY, -norm] {
            assert!(!proves_lipschitz(affine, bad));
        }
    }

    #[test]
    fn norms_of_known_matrices() {
        check_threshold(&dense(2, 3, vec![3.0, 0.0, 0.0, 0.0, 4.0, 0.0]), 4.0);
        check_threshold(&dense(3, 1, vec![1.0, 2.0, 2.0]), 3.0);
        // rank one: ‖u vᵀ‖ = ‖u‖ ‖v‖, all other singular values 0
        let rng = &mut ChaCha8Rng::seed_from_u64(0);
        let mut vector =
            |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>();
        let (u, v) = (vector(40), vector(90));
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let weight = u.iter().flat_map(|a| v.iter().map(move |b| a * b)).collect();
        check_threshold(&dense(40, 90, weight), norm(&u) * norm(&v));
        let affine = dense(2, 2, vec![1.0, -1.0, -1.0, 1.0]);
        assert!(proves_absolute(&affine, 2.0 + 1e-8) && !proves_absolute(&affine, 2.0 - 1e-12));
    }

    #[test]
    fn the_norm_of_zeros_is_0() {
        let torus = Some(Torus::cyclic(2, 1, (4, 3)));
        let zeros = dense(2, 4, vec![0.0; 8]);
        for affine in [Affine { n_pixels: 12, torus, ..dense(1, 4, vec![0.0; 4]) }, zeros] {
            assert!(proves_lipschitz(&affine, 0.0) && proves_absolute(&affine, 0.0));
        }
        let tiny = dense(1, 2, vec![0.0, f64::MIN_POSITIVE]);
        assert!(!proves_lipschitz(&tiny, 0.0) && !proves_absolute(&tiny, 0.0));
    }

    #[test]
    fn norms_of_cyclic_kernels() {
        // a shift keeps norms; the mean of two neighbours has norm 1 (frequency 0), their difference 2 on an even side
        let conv = |taps: [f64; 4], height: usize, width: usize| {
            let torus = Some(Torus::cyclic(2, 1, (height, width)));
            let n_pixels = height * width;
            Affine { n_pixels, torus, ..dense(1, 4, taps.to_vec()) }
        };
        for (height, width) in [(4, 4), (3, 6), (5, 5)] {
            check_threshold(&conv([0.0, 1.0, 0.0, 0.0], height, width), 1.0);
            check_threshold(&conv([0.5, 0.5, 0.0, 0.0], height, width), 1.0);
            let side = width as f64;
            let most =
                if width % 2 == 0 { 1.0 } else { (std::f64::consts::PI / (2.0 * side)).cos() };
            check_threshold(&conv([1.0, -1.0, 0.0, 0.0], height, width), 2.0 * most);
            let difference = conv([1.0, -1.0, 0.0, 0.0], height, width);
            assert!(proves_absolute(&difference, 2.0 + 1e-8));
            assert!(!proves_absolute(&difference, 2.0 - 1e-12));
        }
    }
}
