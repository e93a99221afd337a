//! The polar factor as a product, for layers that only ever apply it.
//!
//! For a wide or square W (n x m, n <= m) the factor is Q = B U with B (n x n) and U (n x m) from the corrected
//! eigendecomposition of W W^T, see the module on the spectral form. A layer needs A Q^T for its inputs A (b x m), D Q for
//! the gradient D (b x n) of its outputs, and the gradient of W for the cotangent C = D^T A of Q. All three cost less from
//! the factors than through Q:
//!
//! ```text
//! A Q^T = (A U^T) B^T,    D Q = (D B) U,
//! dW    = S D^T A - (X + S N) Q,    N = C Q^T = D^T (A Q^T),    H X + X H = N^T - N,
//! ```
//!
//! where N needs no product of length m, the eigenvectors V turn the Sylvester equation for X into a division by
//! sigma_i + sigma_j, and only two products touch all of W: n x b x m and n x n x m.
//!
//! U is formed only where it has to be corrected. Elsewhere B = V, the eigenvectors as they come from the f32 or f64 matrix W W^T,
//! and U = diag(1/sigma) V^T W is applied in its factors too: then nothing of the size of W is formed or kept.
//!
//! Shapes: A b x m, D b x n, P = A U^T b x n (handed from the forward pass to the pullback).
//!
//! Guarantee: |Q Q^T - I|_F is at most twice [`tolerance::orthonormal`] in exact products of the stored factors, and Q is the
//! polar factor to eps times the condition number k of W. The pullback is accurate to eps k^2 relative to its norm, since it
//! takes V and sigma as they come from W W^T. [`factored_polar_within`] allows more: there the defect of what is not corrected is about
//! eps k^2, estimated on random vectors.
//!
//! Cost: n^2 m / 2 multiplications for W W^T and one eigendecomposition; for a corrected U n^2 m more, and half of that for U U^T.
//! The pullback takes n^2 m + n b m, and a row of inputs or gradients n m + n^2.
//!
//! Errors: as [`super::polar`], and [`Error::ShapeMismatch`] for a W with more rows than columns.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

use super::spectral::{SpectralForm, corrected, singular_vectors};
use crate::error::{Error, Result};
use crate::{Real, dense, gemm, tolerance};

/// Random vectors on which a defect is estimated.
const PROBES: usize = 16;

/// The polar factor Q = B U of a wide or square W, with what products with Q and its pullback need.
///
/// Its methods take W as it was given.
#[derive(Debug, Clone)]
pub struct FactoredPolar<T> {
    /// Where U was formed.
    formed: Option<Formed<T>>,
    /// V, n x n: eigenvectors of W W^T.
    v: Array2<T>,
    /// Singular values of W.
    sigma: Array1<T>,
}

#[derive(Debug, Clone)]
struct Formed<T> {
    /// U, n x m.
    basis: Array2<T>,
    /// B, n x n.
    rotation: Array2<T>,
    /// F with B = V (I - F).
    correction: Array2<T>,
}

/// The polar factor of W (n x m, n <= m, full rank), factored.
///
/// # Errors
/// [`Error::NonFinite`], [`Error::Empty`], [`Error::RankDeficient`], [`Error::ShapeMismatch`].
///
/// ```
/// use projectors::polar::{factored_polar, polar};
/// let w = ndarray::array![[3.0, 1.0, 0.0], [1.0, 2.0, 2.0]];
/// let a = ndarray::array![[1.0, -1.0, 0.5]];
/// let q = factored_polar(w.view())?;
/// let coordinates = q.coordinates(w.view(), a.view());
/// let mut y = ndarray::Array2::zeros((1, 2));
/// q.add_output(coordinates.view(), y.view_mut());
/// assert!((y - a.dot(&polar(w.view())?.factor().t())).iter().all(|x: &f64| x.abs() < 1e-14));
/// # Ok::<(), projectors::Error>(())
/// ```
pub fn factored_polar<T: Real>(w: ArrayView2<'_, T>) -> Result<FactoredPolar<T>> {
    factored_polar_within(w, 0.0)
}

/// As [`factored_polar`], for a caller whom a defect does not hurt.
///
/// `allowed` bounds the root mean square, over the rows, of Q Q^T - I, estimated on 16 fixed vectors of random signs; where the
/// estimate is larger, Q is corrected to working precision.
///
/// # Errors
/// As [`factored_polar`].
pub fn factored_polar_within<T: Real>(
    w: ArrayView2<'_, T>,
    allowed: f64,
) -> Result<FactoredPolar<T>> {
    dense::check_not_empty("matrix", w)?;
    dense::check_finite("matrix", w)?;
    let (n, m) = w.dim();
    if n > m {
        return Err(Error::ShapeMismatch { what: "matrix", expected: (m, m), got: (n, m) });
    }
    let deficient = Error::RankDeficient { what: "matrix", rank: 0, expected: n };
    let scale = dense::unit_scale(w).ok_or(deficient)?;
    let tolerance = tolerance::orthonormal::<T>(m, n);
    if scale != T::one() {
        let mut factored = decomposed(w.mapv(|x| x * scale).view(), 0.0, tolerance)?;
        factored.sigma.mapv_inplace(|s| s / scale);
        return Ok(factored);
    }
    decomposed(w, allowed, tolerance)
}

/// The factored form of a W of ordinary size.
fn decomposed<T: Real>(
    w: ArrayView2<'_, T>,
    allowed: f64,
    tolerance: f64,
) -> Result<FactoredPolar<T>> {
    let known = singular_vectors(gemm::gram(w.t()).view())?;
    if let Some((sigma, v)) = known {
        let plain = FactoredPolar { formed: None, v, sigma };
        if allowed > 0.0 && plain.probed_defect(w) <= allowed {
            return Ok(plain);
        }
        let known = (plain.sigma, plain.v);
        if let Some(form) = SpectralForm::corrected(w.t(), known, tolerance) {
            return Ok(form.into());
        }
    }
    SpectralForm::in_double(w.t(), tolerance).map(FactoredPolar::from)
}

impl<T: Real> From<SpectralForm<T>> for FactoredPolar<T> {
    fn from(form: SpectralForm<T>) -> Self {
        let rotation = form.rotation();
        let SpectralForm { basis, v, correction, sigma } = form;
        let formed = Some(Formed { basis: basis.reversed_axes(), rotation, correction });
        Self { formed, v, sigma }
    }
}

impl<T: Real> FactoredPolar<T> {
    /// Whether U was formed, to be corrected.
    #[must_use]
    pub fn is_corrected(&self) -> bool {
        self.formed.is_some()
    }

    /// Q itself, n x m.
    #[must_use]
    pub fn factor(&self, w: ArrayView2<'_, T>) -> Array2<T> {
        match &self.formed {
            Some(Formed { basis, rotation, .. }) => gemm::matmul(rotation.view(), basis.view()),
            None => gemm::matmul(self.to_w(self.v.clone()).view(), w),
        }
    }

    /// `x diag(1/sigma) V^T`, so that `x U` is the product of it with W.
    fn to_w(&self, mut x: Array2<T>) -> Array2<T> {
        x /= &self.sigma;
        gemm::matmul(x.view(), self.v.t())
    }

    /// P = A U^T (b x n) for inputs A (b x m).
    ///
    /// # Panics
    /// If `inputs` does not have m columns.
    #[must_use]
    pub fn coordinates(&self, w: ArrayView2<'_, T>, inputs: ArrayView2<'_, T>) -> Array2<T> {
        match &self.formed {
            Some(Formed { basis, .. }) => gemm::matmul(inputs, basis.t()),
            None => {
                let products = gemm::matmul(inputs, w.t());
                let mut coordinates = gemm::matmul(products.view(), self.v.view());
                coordinates /= &self.sigma;
                coordinates
            }
        }
    }

    fn rotation(&self) -> &Array2<T> {
        self.formed.as_ref().map_or(&self.v, |formed| &formed.rotation)
    }

    /// Adds A Q^T = P B^T to `outputs` (b x n), for P from [`FactoredPolar::coordinates`].
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn add_output(&self, coordinates: ArrayView2<'_, T>, outputs: ArrayViewMut2<'_, T>) {
        gemm::matmul_into(T::one(), coordinates, self.rotation().t(), T::one(), outputs);
    }

    /// Writes D Q to `d_inputs` (b x m), for the gradient D (b x n) of the outputs.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn input_gradient(
        &self,
        w: ArrayView2<'_, T>,
        d_outputs: ArrayView2<'_, T>,
        d_inputs: ArrayViewMut2<'_, T>,
    ) {
        let rotated = gemm::matmul(d_outputs, self.rotation().view());
        match &self.formed {
            Some(Formed { basis, .. }) => {
                gemm::matmul_into(T::one(), rotated.view(), basis.view(), T::zero(), d_inputs);
            }
            None => {
                gemm::matmul_into(T::one(), self.to_w(rotated).view(), w, T::zero(), d_inputs);
            }
        }
    }

    /// The gradient of W (n x m) of a function whose gradient in Q is D^T A, for the gradient D (b x n) of the outputs,
    /// the inputs A (b x m) and their coordinates P.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[must_use]
    pub fn pullback(
        &self,
        w: ArrayView2<'_, T>,
        d_outputs: ArrayView2<'_, T>,
        inputs: ArrayView2<'_, T>,
        coordinates: ArrayView2<'_, T>,
    ) -> Array2<T> {
        let (n, m) = w.dim();
        let rotated = gemm::matmul(d_outputs, self.v.view());
        let mut gradient = match &self.formed {
            Some(Formed { basis, correction, .. }) => {
                let outputs = corrected(coordinates, correction.view());
                let inner = gemm::matmul(rotated.t(), outputs.view());
                let along = corrected(self.sylvester(&inner, n < m).view(), correction.t());
                let along = gemm::matmul(self.v.view(), along.view());
                gemm::matmul(along.view(), basis.view())
            }
            None => {
                let inner = gemm::matmul(rotated.t(), coordinates);
                let along = self.sylvester(&inner, n < m);
                let along = gemm::matmul(self.v.view(), along.view());
                gemm::matmul(self.to_w(along).view(), w)
            }
        };
        if n < m {
            let across = self.to_w(rotated);
            gemm::matmul_into(T::one(), across.t(), inputs, T::one(), gradient.view_mut());
        }
        gradient
    }

    /// `-(X + S N)` in the basis V, from N in that basis; without S N for a square W, where C S = S N Q cancels it.
    fn sylvester(&self, n: &Array2<T>, wide: bool) -> Array2<T> {
        let mut solution = n.clone();
        dense::skew_part_doubled(&mut solution);
        let rows = solution.rows_mut().into_iter().zip(n.rows()).zip(&self.sigma);
        for ((mut row, n), &s) in rows {
            row.zip_mut_with(&self.sigma, |x, &t| *x /= s + t);
            if wide {
                row.scaled_add(-T::one() / s, &n);
            }
        }
        solution
    }

    /// `|Z (Q Q^T - I)|_F / |Z|_F` for fixed rows Z of random signs: an estimate of the root mean square of the rows of Q Q^T - I, with
    /// the rounding of the products that a layer makes.
    fn probed_defect(&self, w: ArrayView2<'_, T>) -> f64 {
        let probes = Array2::from_shape_fn((PROBES, w.nrows()), |at| sign(at));
        let mut back = Array2::zeros((PROBES, w.ncols()));
        self.input_gradient(w, probes.view(), back.view_mut());
        let mut left = probes.mapv(|x| -x);
        self.add_output(self.coordinates(w, back.view()).view(), left.view_mut());
        dense::frobenius(left.view()) / (probes.len() as f64).sqrt()
    }
}

/// A random sign for each place.
fn sign<T: Real>((i, j): (usize, usize)) -> T {
    // splitmix64
    let mut x = (j * PROBES + i) as u64;
    for _ in 0..2 {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    if x & 1 == 0 { T::one() } else { -T::one() }
}
