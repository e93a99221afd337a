//! The frequencies of an image and the matrices of a kernel at them.
//!
//! Definition. On h x w images the cyclic convolution with X is unitarily equivalent to the h·w matrices
//! X̂(p, q) = Σ_{a,b} X[a, b] e^{-2πi (a p / h + b q / w)}. For real X, X̂(-p, -q) is the complex conjugate of X̂(p, q), so
//! one matrix for each pair {(p, q), (-p, -q)} suffices; the up to four frequencies that are their own partner have
//! real matrices.
//!
//! Guarantee. Twiddle factors come from exact integer reduction to an octant and a Taylor polynomial, not from the
//! platform's sine, so that their error has a proof: each of cos and sin is within 64 u of the truth, u = 2⁻⁵³.
//! Proof. With x = (π/4) r, r in [0, 1] a quotient of integers, the computed x is off by at most 3.01 u π/4 < 2.4 u
//! (constant, quotient, product). The polynomials are cut after x^17 and x^16, leaving at most (π/4)^18/18! < 0.02 u.
//! Horner's rule in y = x² multiplies each term c_i yⁱ by at most 32 factors 1 + δ, |δ| <= u (coefficient, powers of y,
//! products, sums, the last product with x), so it is off by at most γ_32 cosh(π/4) < 43 u. Sum: below 46 u.
//! Multiples of a quarter turn are exact, so that self-conjugate frequencies have exactly real matrices.
//!
//! Cost. kh kw n_out n_in multiply-adds per frequency: less than one matrix factorisation unless the kernel has more
//! taps than channels.

use ndarray::{Array2, Array4, ArrayView2, s};
use projectors::gemm;

/// One representative of a pair of conjugate frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frequency {
    pub(crate) row: usize,
    pub(crate) col: usize,
    /// 1 when the frequency is its own partner, and the matrix real; otherwise 2.
    pub(crate) multiplicity: usize,
}

/// The frequencies of h x w images with their twiddle factors.
#[derive(Debug)]
pub(crate) struct Grid {
    rows: Vec<(f64, f64)>,
    cols: Vec<(f64, f64)>,
}

/// A complex matrix as its real part stacked on its imaginary part: 2 n_out x n_in.
#[derive(Debug)]
pub(crate) struct Symbol {
    stacked: Array2<f64>,
}

impl Grid {
    pub(crate) fn new((h, w): (usize, usize)) -> Self {
        let turn = |s: usize| (0..s).map(|m| unit_root(m, s)).collect();
        Self { rows: turn(h), cols: turn(w) }
    }

    /// One frequency for each conjugate pair; the multiplicities add up to h w.
    pub(crate) fn frequencies(&self) -> Vec<Frequency> {
        let (h, w) = (self.rows.len(), self.cols.len());
        let all = (0..h).flat_map(|row| (0..w).map(move |col| (row, col)));
        all.filter_map(|(row, col)| {
            let partner = ((h - row) % h, (w - col) % w);
            let multiplicity = if partner == (row, col) { 1 } else { 2 };
            ((row, col) <= partner).then_some(Frequency { row, col, multiplicity })
        })
        .collect()
    }

    /// X̂ at a frequency, for taps [kh, kw, n_out, n_in] in standard order.
    pub(crate) fn symbol(&self, taps: &Array4<f64>, frequency: Frequency) -> Symbol {
        let (kh, kw, n_out, n_in) = taps.dim();
        let weights = self.weights(frequency, (kh, kw));
        let taps = taps.view().into_shape_with_order((kh * kw, n_out * n_in));
        let stacked = gemm::matmul(weights.view(), taps.expect("taps are in standard order"));
        let stacked = stacked.into_shape_with_order((2 * n_out, n_in));
        Symbol { stacked: stacked.expect("a product has standard order") }
    }

    /// Real and imaginary part of the factor of every tap at a frequency: 2 x kh·kw.
    pub(crate) fn weights(&self, frequency: Frequency, (kh, kw): (usize, usize)) -> Array2<f64> {
        let mut weights = Array2::zeros((2, kh * kw));
        for tap in 0..kh * kw {
            let (re, im) = self.weight(frequency, tap / kw, tap % kw);
            weights[[0, tap]] = re;
            weights[[1, tap]] = im;
        }
        weights
    }

    /// e^{-2πi (a p / h + b q / w)}.
    fn weight(&self, frequency: Frequency, a: usize, b: usize) -> (f64, f64) {
        let (h, w) = (self.rows.len(), self.cols.len());
        let (c1, s1) = self.rows[(a * frequency.row) % h];
        let (c2, s2) = self.cols[(b * frequency.col) % w];
        (c1 * c2 - s1 * s2, -(c1 * s2 + s1 * c2))
    }
}

impl Symbol {
    fn n_out(&self) -> usize {
        self.stacked.nrows() / 2
    }

    pub(crate) fn n_in(&self) -> usize {
        self.stacked.ncols()
    }

    pub(crate) fn re(&self) -> ArrayView2<'_, f64> {
        self.stacked.slice(s![..self.n_out(), ..])
    }

    pub(crate) fn im(&self) -> ArrayView2<'_, f64> {
        self.stacked.slice(s![self.n_out().., ..])
    }

    /// [Re; Im].
    pub(crate) fn stacked(&self) -> ArrayView2<'_, f64> {
        self.stacked.view()
    }

    /// [Im; -Re], the stack of -i X̂.
    pub(crate) fn turned(&self) -> Array2<f64> {
        let mut turned = Array2::zeros(self.stacked.raw_dim());
        turned.slice_mut(s![..self.n_out(), ..]).assign(&self.im());
        turned.slice_mut(s![self.n_out().., ..]).assign(&self.re().mapv(|x| -x));
        turned
    }
}

/// (cos, sin) of 2π m / s for m < s, each within 64 u.
fn unit_root(m: usize, s: usize) -> (f64, f64) {
    let (octant, remainder) = (8 * m / s, 8 * m % s);
    // odd octants are walked backwards from the next multiple of an eighth
    let backwards = octant % 2 == 1;
    let r = if backwards { s - remainder } else { remainder };
    let (cos, sin) = cos_sin(std::f64::consts::FRAC_PI_4 * (r as f64 / s as f64));
    let (cos, sin) = if matches!(octant % 4, 1 | 2) { (sin, cos) } else { (cos, sin) };
    match octant {
        0 | 1 => (cos, sin),
        2 | 3 => (-cos, sin),
        4 | 5 => (-cos, -sin),
        _ => (cos, -sin),
    }
}

/// (cos x, sin x) for 0 <= x <= π/4 by their Taylor polynomials.
fn cos_sin(x: f64) -> (f64, f64) {
    let y = x * x;
    // 1 / (2i)! and 1 / (2i + 1)! with alternating signs, divided down one after the other by Horner's rule
    let (mut cos, mut sin) = (0.0, 0.0);
    for i in (0..=8_u32).rev() {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        cos = cos * y + sign / factorial(2 * i);
        sin = sin * y + sign / factorial(2 * i + 1);
    }
    (cos, sin * x)
}

/// n! for n <= 17, exact in f64.
fn factorial(n: u32) -> f64 {
    (1..=n).map(f64::from).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_roots_agree_with_the_library_sine_and_are_exact_at_quarters() {
        for s in (1..=64).chain([97, 128, 1000]) {
            for m in 0..s {
                let (cos, sin) = unit_root(m, s);
                let angle = std::f64::consts::TAU * m as f64 / s as f64;
                let error = (cos - angle.cos()).abs().max((sin - angle.sin()).abs());
                // the angle itself is rounded here, to at most two ulps of 2π
                assert!(error <= 80.0 * f64::EPSILON / 2.0, "m = {m}, s = {s}: {error:e}");
            }
        }
        assert_eq!(
            [0, 1, 2, 3].map(|m| unit_root(m, 4)),
            [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)]
        );
    }

    #[test]
    fn frequencies_cover_the_image_once() {
        for (h, w) in [(1, 1), (1, 2), (3, 5), (4, 6), (7, 2)] {
            let frequencies = Grid::new((h, w)).frequencies();
            assert_eq!(frequencies.iter().map(|f| f.multiplicity).sum::<usize>(), h * w);
        }
    }
}
