//! The factorisation of a tall matrix, and what every method needs of it: its defect, its scale, its pullback.

use ndarray::{Array2, ArrayView2};

use super::sylvester::{self, Spectrum};
use crate::{Real, dense, gemm};

/// The factorisation of a tall W = Q H.
#[derive(Debug, Clone)]
pub(super) struct Tall<T> {
    /// Q.
    pub(super) factor: Array2<T>,
    /// S = (W^T W)^-1/2 = H^-1.
    pub(super) inverse_sqrt: Array2<T>,
    /// Spectrum of H, the singular values of W.
    pub(super) spectrum: Spectrum<T>,
    pub(super) iterations: usize,
    pub(super) residual: f64,
}

impl<T: Real> Tall<T> {
    /// Measures the defect of Q and removes it to first order while it is above the tolerance.
    pub(super) fn reorthonormalise(&mut self, tolerance: f64) {
        for _ in 0..3 {
            let mut gram = gemm::gram(self.factor.view());
            self.residual = dense::distance_to_identity(gram.view());
            if self.residual <= tolerance || dense::exceeds(self.residual, 0.1) {
                return;
            }
            dense::scale(&mut gram, -0.5);
            dense::add_diagonal(&mut gram, T::of(1.5));
            self.factor = gemm::matmul(self.factor.view(), gram.view());
            self.iterations += 1;
        }
    }

    /// The factorisation of W from that of `scale W`.
    pub(super) fn unscaled(mut self, scale: T) -> Self {
        self.inverse_sqrt.mapv_inplace(|x| x * scale);
        self.spectrum = match self.spectrum {
            Spectrum::Known { v, values } => {
                Spectrum::Known { v, values: values.mapv(|x| x / scale) }
            }
            Spectrum::Within { lowest, highest } => Spectrum::Within {
                lowest: lowest / scale.as_f64(),
                highest: highest / scale.as_f64(),
            },
        };
        self
    }

    /// The same factorisation in another element type, with the defect measured again.
    pub(super) fn converted<U: Real>(self) -> Tall<U> {
        let factor: Array2<U> = dense::convert(self.factor.view());
        let residual = dense::distance_to_identity(gemm::gram(factor.view()).view());
        let spectrum = match self.spectrum {
            Spectrum::Known { v, values } => Spectrum::Known {
                v: dense::convert(v.view()),
                values: values.mapv(|x| U::of(x.as_f64())),
            },
            Spectrum::Within { lowest, highest } => Spectrum::Within { lowest, highest },
        };
        Tall {
            factor,
            inverse_sqrt: dense::convert(self.inverse_sqrt.view()),
            spectrum,
            iterations: self.iterations,
            residual,
        }
    }

    /// The gradient with respect to W from that with respect to Q.
    pub(super) fn pullback(&self, w: ArrayView2<'_, T>, c: ArrayView2<'_, T>) -> Array2<T> {
        let (q, s) = (self.factor.view(), self.inverse_sqrt.view());
        let qc = gemm::matmul(q.t(), c);
        let mut k = qc.clone();
        dense::skew_part_doubled(&mut k);
        let mut x = self.solve_sylvester(w, k);
        if w.nrows() == w.ncols() {
            return gemm::oriented_product(q, x.view());
        }
        // (I - Q Q^T) C S = C S - Q (Q^T C) S, and the second term joins Q X.
        gemm::matmul_into(-T::one(), qc.view(), s, T::one(), x.view_mut());
        let mut d = gemm::oriented_product(c, s);
        gemm::matmul_into(T::one(), q, x.view(), T::one(), d.view_mut());
        d
    }

    /// X with H X + X H = K, through H where W is short and through S X + X S = S K S where forming H costs more.
    fn solve_sylvester(&self, w: ArrayView2<'_, T>, k: Array2<T>) -> Array2<T> {
        match &self.spectrum {
            Spectrum::Known { v, values } => {
                sylvester::solve_diagonalised(v.view(), values, k.view())
            }
            &Spectrum::Within { lowest, highest } if w.nrows() < 2 * w.ncols() => {
                let mut h = gemm::matmul(self.factor.t(), w);
                dense::symmetrise(&mut h);
                sylvester::solve(h.view(), k, lowest, highest)
            }
            &Spectrum::Within { lowest, highest } => {
                let s = self.inverse_sqrt.view();
                let mut sks = gemm::matmul(gemm::matmul(s, k.view()).view(), s);
                dense::skew_part_doubled(&mut sks);
                dense::scale(&mut sks, 0.5);
                sylvester::solve(s, sks, 1.0 / highest, 1.0 / lowest)
            }
        }
    }
}
