//! Distances of the rows of the last weight, and their gradient.
//!
//! Definition, for a weight with rows w_0 … w_{C-1}: `K_tj = ‖w_t - w_j‖₂`, C x C, symmetric, 0 on the diagonal.
//! A network that is 1-Lipschitz up to its last layer moves the difference of logits t and j by at most K_tj·ε under a perturbation of
//! length ε.
//! Gradient: `∂K_tj/∂w_t = (w_t - w_j) / K_tj = -∂K_tj/∂w_j`, and 0 where K_tj = 0.
//! Cost: C² n for rows of n numbers.

use candle_core::Tensor;
use ndarray::{Array2, ArrayView2};

use crate::element::Element;
use crate::error::Result;

/// The distances of all pairs of rows of a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct PairNorms {
    n_classes: usize,
    /// Row-major, C x C.
    norms: Vec<f64>,
}

impl PairNorms {
    /// The distances of the rows of `weight`, C x n.
    #[must_use]
    pub fn of_rows<T: Element>(weight: ArrayView2<'_, T>) -> Self {
        let n_classes = weight.nrows();
        let norm = |t: usize, j: usize| {
            let pairs = weight.row(t).into_iter().zip(weight.row(j));
            pairs.map(|(a, b)| (a.as_f64() - b.as_f64()).powi(2)).sum::<f64>().sqrt()
        };
        let places = (0..n_classes).flat_map(|t| (0..n_classes).map(move |j| (t, j)));
        Self { n_classes, norms: places.map(|(t, j)| norm(t, j)).collect() }
    }

    /// The number of rows.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// K_tj.
    #[must_use]
    pub fn get(&self, t: usize, j: usize) -> f64 {
        self.norms[t * self.n_classes + j]
    }

    /// The gradient of the rows of `weight` from the gradient `d_pairs` of the distances, both row-major.
    #[must_use]
    pub fn pull_back<T: Element>(&self, weight: ArrayView2<'_, T>, d_pairs: &[f64]) -> Array2<T> {
        let mut gradient = Array2::<f64>::zeros(weight.raw_dim());
        for (place, (&norm, &d)) in self.norms.iter().zip(d_pairs).enumerate() {
            if norm == 0.0 || d == 0.0 {
                continue;
            }
            let (t, j) = (place / self.n_classes, place % self.n_classes);
            for column in 0..weight.ncols() {
                let difference = weight[[t, column]].as_f64() - weight[[j, column]].as_f64();
                let change = d * difference / norm;
                gradient[[t, column]] += change;
                gradient[[j, column]] -= change;
            }
        }
        gradient.mapv(T::of)
    }
}

/// The same as a tensor operation, differentiable by candle: C x n to C x C.
pub(crate) fn pair_norms(weight: &Tensor) -> Result<Tensor> {
    let differences = weight.unsqueeze(1)?.broadcast_sub(&weight.unsqueeze(0)?)?;
    let squares = differences.sqr()?.sum(2)?;
    // a root has no derivative at 0
    let equal = squares.eq(0.0)?.to_dtype(squares.dtype())?;
    Ok(((&squares + &equal)?.sqrt()? * (1.0 - equal)?)?)
}
