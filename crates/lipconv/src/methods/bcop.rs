//! BCOP: block convolution orthogonal parametrisation.
//!
//! Definition. Equation (5) of the paper, `H □ [P1; I-P1] □ [Q1 I-Q1] □ …`, with H the polar factor of slice 0 of the
//! parameter and P1, Q1, P2, … the projectors on the ranges of the first n/2 columns of slices 1, 2, …. BCOP-fixed is the
//! same with a parameter that stays as it is drawn.
//!
//! Shapes. Parameter [2k-1, n, n] with n = max(c_out, c_in); weight c_out x c_in x k x k. Every n x n matrix starts as a
//! Haar-random orthogonal matrix times 1/√n: the weight does not depend on that factor, the step size relative to it does.
//!
//! Guarantee. The weight is orthogonal up to rounding for every image size and every value of the parameter of full rank,
//! so that it is frozen as it is.
//!
//! On the CPU the algebra is blockconv's, where it is derived: `bcop` for the parametrisation and its pullback, `chain` for
//! the product. In candle's operations a stack holds min(c_out, c_in) rows of every tap; a two-tap factor [M  I-M] maps A to
//! C_i = B_i + (A - B)_{i-1} with B = A M, one matrix product for all taps. For c_in < c_out the transposed product is
//! evaluated in the opposite order.
//!
//! Between steps. The inverse square root of H's Gram matrix, from which the next orthonormalisation starts.
//!
//! Cost. As blockconv's; in candle's operations with Newton-Schulz steps in place of the eigendecomposition and of Cholesky
//! factors.
//!
//! Source. Li et al., section 4.

use blockconv::Scratch;
use blockconv::bcop::Bcop as Kernel;
use candle_core::Tensor;
use ndarray::{Array2, ArrayD, ArrayViewD, Ix3, Ix4};
use projectors::haar_orthogonal;
use rand_chacha::ChaCha8Rng;

use super::arrays::ranked;
use super::draw::{inverse_root, scaled};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::Result;
use crate::ops::portable::{Factor, polar, reversed};

/// BCOP, or BCOP with a kernel that is not trained.
#[derive(Debug)]
pub(super) struct Bcop {
    pub(super) fixed: bool,
}

impl Parametrisation for Bcop {
    fn name(&self) -> &'static str {
        if self.fixed { "bcop-fixed" } else { "bcop" }
    }

    fn title(&self) -> &'static str {
        if self.fixed { "BCOP-fixed" } else { "BCOP" }
    }

    fn parameter_shape(&self, sizes: &Sizes) -> Vec<usize> {
        let n = sizes.n_out.max(sizes.n_in);
        vec![2 * sizes.kernel - 1, n, n]
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let (count, n) = (2 * sizes.kernel - 1, sizes.n_out.max(sizes.n_in));
        (0..count).flat_map(|_| scaled(haar_orthogonal(n, rng), inverse_root(n))).collect()
    }

    fn is_trained(&self) -> bool {
        !self.fixed
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, sizes: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        Ok(kernel(parameter, sizes.n_out, sizes.n_in)?.into())
    }
}

impl<T: Element> CpuParametrisation<T> for Bcop {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        let fresh = Scratch::default();
        let scratch = start.scratch.unwrap_or(&fresh);
        let Sizes { n_out, n_in, .. } = layer.sizes;
        let assembled =
            Kernel::assemble_into(ranked::<T, Ix3>(parameter), n_out, n_in, start.warm, scratch);
        Ok(Box::new(assembled.map_err(|source| layer.algebra(source))?))
    }
}

impl<T: Element> Assembled<T> for Kernel<T> {
    fn weight(&self, _: ArrayViewD<'_, T>) -> ArrayD<T> {
        self.layer_weight().into_dyn()
    }

    fn pullback(
        &self,
        layer: Layer<'_>,
        _: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let pulled = Kernel::pullback(self, ranked::<T, Ix4>(d_weight.view()));
        Ok(pulled.map_err(|source| layer.algebra(source))?.into_dyn())
    }

    fn warm_start(&self) -> Option<Array2<T>> {
        Some(self.inverse_sqrt().to_owned())
    }
}

/// The orthogonal kernel of BCOP parameters in candle's operations, and the defect of its orthogonal factors.
fn kernel(parameters: &Tensor, c_out: usize, c_in: usize) -> Result<Factor> {
    let (count, n, _) = parameters.dims3()?;
    let h = polar(&parameters.get(0)?)?;
    let (factors, mut defect) = (projectors(parameters)?, h.defect);
    if let Some(Factor { defect: of_projectors, .. }) = &factors {
        defect = (defect + of_projectors)?;
    }
    let factor = |index: usize| match &factors {
        Some(stack) => stack.matrix.get(index),
        None => Tensor::zeros((n, n), parameters.dtype(), parameters.device()),
    };
    // vertical and horizontal factors alternate
    let order = 0..count - 1;
    let taps = if c_out <= c_in {
        let start = h.matrix.narrow(0, 0, c_out)?.reshape((1, 1, c_out, n))?;
        order.into_iter().try_fold(start, |stack, i| multiply(&stack, &factor(i)?, i % 2))?
    } else {
        let eye = Tensor::eye(n, parameters.dtype(), parameters.device())?;
        let start = eye.narrow(0, 0, c_in)?.contiguous()?.reshape((1, 1, c_in, n))?;
        let stack = order
            .into_iter()
            .rev()
            .try_fold(start, |stack, i| multiply(&stack, &factor(i)?, i % 2))?;
        times(&stack, &h.matrix.t()?)?.transpose(2, 3)?
    };
    // w[o, i, a, b] = X[k-1-a, k-1-b][o, i]
    let taps = reversed(&reversed(&taps, 0)?, 1)?;
    let weight = taps.permute((2, 3, 0, 1))?.contiguous()?;
    Ok(Factor { matrix: weight, defect })
}

/// The projectors on the ranges of the first n/2 columns of slices 1…, stacked; `None` where there are none or n/2 is 0.
fn projectors(parameters: &Tensor) -> Result<Option<Factor>> {
    let (count, n, _) = parameters.dims3()?;
    if count == 1 || n / 2 == 0 {
        return Ok(None);
    }
    let columns = parameters.narrow(0, 1, count - 1)?.narrow(2, 0, n / 2)?.contiguous()?;
    let Factor { matrix: basis, defect } = polar(&columns)?;
    Ok(Some(Factor { matrix: basis.matmul(&basis.t()?)?, defect }))
}

/// The stack times [M; I-M] (axis 0) or [M  I-M] (axis 1).
fn multiply(stack: &Tensor, matrix: &Tensor, axis: usize) -> Result<Tensor> {
    let product = times(stack, matrix)?;
    let rest = (stack - &product)?;
    Ok((product.pad_with_zeros(axis, 0, 1)? + rest.pad_with_zeros(axis, 1, 0)?)?)
}

/// Every tap times a matrix.
fn times(stack: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    let (v, h, rows, n) = stack.dims4()?;
    let product = stack.contiguous()?.reshape((v * h * rows, n))?.matmul(&matrix.contiguous()?)?;
    Ok(product.reshape((v, h, rows, n))?)
}
