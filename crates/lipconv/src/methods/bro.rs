//! BRO (dense): block reflector orthogonal layers, a reflection in the range of a free matrix.
//!
//! Definition. W = I - 2 V (Vᵗ V + ε I)⁻¹ Vᵗ for the parameter V of n x r, with n = max(n_out, n_in), r = n / 2 (at least 1) and
//! ε = 1e-7 ‖V‖_F² / r, 1e-7 times the mean of the diagonal of VᵗV; the first n_out rows and n_in columns of it.
//!
//! Guarantee. W is symmetric with eigenvalues 1 and 1 - 2 σ² / (σ² + ε) for the singular values σ of V: all in [-1, 1] for
//! every V, also of deficient rank, 1 or within 2ε/σ² of -1. So the norm is at most 1 up to rounding, and W is frozen as it is; its
//! bound is computed from the stored numbers. V = 0 has no scale and is refused.
//!
//! Identity. V (VᵗV + εI)⁻¹ Vᵗ is the upper left block of the projector on the range of the stacked [V; √ε I]. On the CPU that is
//! `projectors::range`, with its pullback; in candle's operations the polar factor U of the stack gives it as U Uᵗ.
//!
//! Shapes. Parameter n x r; it starts as a random matrix with orthonormal columns times 1/√n: the weight does not depend on that
//! factor, the step size relative to it does.
//!
//! Cost. The projector of an (n + r) x r matrix: about 2 n² r flops, and twice that for the pullback.
//!
//! Source. Lai, Huang, Kuo and Lin (2025), arXiv 2505.15174.

use candle_core::Tensor;
use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Ix2, s};
use projectors::range::{RangeProjection, project_range};
use rand_chacha::ChaCha8Rng;

use super::arrays::{finite, ranked};
use super::draw::{inverse_root, orthonormal, scaled};
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::portable::{Factor, polar};

/// ε relative to the mean of the diagonal of VᵗV.
const RELATIVE_EPSILON: f64 = 1e-7;

/// Block reflectors.
#[derive(Debug)]
pub(super) struct Bro;

fn sides(sizes: &Sizes) -> (usize, usize) {
    let n = sizes.n_out.max(sizes.n_in);
    (n, (n / 2).max(1))
}

impl Parametrisation for Bro {
    fn name(&self) -> &'static str {
        "bro"
    }

    fn title(&self) -> &'static str {
        "BRO"
    }

    fn parameter_shape(&self, sizes: &Sizes) -> Vec<usize> {
        let (n, rank) = sides(sizes);
        vec![n, rank]
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let (n, rank) = sides(sizes);
        scaled(orthonormal(n, rank, rng), inverse_root(n))
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, sizes: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        let (n, rank) = parameter.dims2()?;
        let mean_root = parameter.sqr()?.sum_all()?.sqrt()?;
        let root = (mean_root * (RELATIVE_EPSILON / rank as f64).sqrt())?;
        let eye = Tensor::eye(rank, parameter.dtype(), parameter.device())?;
        let stack = Tensor::cat(&[parameter, &eye.broadcast_mul(&root)?], 0)?;
        let Factor { matrix, defect } = polar(&stack)?;
        let basis = matrix.narrow(0, 0, n)?;
        let rows = basis.narrow(0, 0, sizes.n_out)?.contiguous()?;
        let columns = basis.narrow(0, 0, sizes.n_in)?.contiguous()?;
        let eye = Tensor::eye(n, parameter.dtype(), parameter.device())?;
        let eye = eye.narrow(0, 0, sizes.n_out)?.narrow(1, 0, sizes.n_in)?;
        let weight = (eye - (rows.matmul(&columns.t()?)? * 2.0)?)?;
        Ok(Factor { matrix: weight, defect }.into())
    }
}

impl<T: Element> CpuParametrisation<T> for Bro {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        finite(layer, &parameter)?;
        let v = ranked::<T, Ix2>(parameter);
        let (n, rank) = v.dim();
        let norm = frobenius(v);
        if norm == 0.0 {
            return Err(Error::ZeroWeight { layer: layer.name.to_owned() });
        }
        let share = (RELATIVE_EPSILON / rank as f64).sqrt();
        let mut stack = Array2::zeros((n + rank, rank));
        stack.slice_mut(s![..n, ..]).assign(&v);
        stack.slice_mut(s![n.., ..]).diag_mut().fill(T::of(share * norm));
        let projection =
            project_range(stack.view()).map_err(|source| layer.orthonormalisation(source))?;
        Ok(Box::new(Reflector { projection, n_out: layer.sizes.n_out, n_in: layer.sizes.n_in }))
    }
}

/// The Frobenius norm, safe from overflow.
fn frobenius<T: Element>(v: ArrayView2<'_, T>) -> f64 {
    let largest = v.iter().map(|x| x.as_f64().abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    largest * v.iter().map(|x| (x.as_f64() / largest).powi(2)).sum::<f64>().sqrt()
}

/// The projector on the range of the stack.
#[derive(Debug)]
struct Reflector<T> {
    projection: RangeProjection<T>,
    n_out: usize,
    n_in: usize,
}

impl<T: Element> Assembled<T> for Reflector<T> {
    fn weight(&self, _: ArrayViewD<'_, T>) -> ArrayD<T> {
        let block = self.projection.matrix();
        let mut weight = block.slice(s![..self.n_out, ..self.n_in]).mapv(|x| T::of(-2.0) * x);
        weight.diag_mut().mapv_inplace(|x| x + T::one());
        weight.into_dyn()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let v = ranked::<T, Ix2>(parameter);
        let (n, rank) = v.dim();
        let mut cotangent = Array2::zeros((n + rank, n + rank));
        let d_weight = ranked::<T, Ix2>(d_weight.view()).mapv(|x| T::of(-2.0) * x);
        cotangent.slice_mut(s![..self.n_out, ..self.n_in]).assign(&d_weight);
        let d_stack = self.projection.pullback(cotangent.view());
        // the diagonal below V is √(1e-7 / r) times ‖V‖_F
        let d_root = d_stack.slice(s![n.., ..]).diag().iter().map(|x| x.as_f64()).sum::<f64>();
        let share = d_root * (RELATIVE_EPSILON / rank as f64).sqrt() / frobenius(v);
        let mut gradient = d_stack.slice(s![..n, ..]).to_owned();
        gradient.zip_mut_with(&v, |g, x| *g = T::of(g.as_f64() + share * x.as_f64()));
        Ok(gradient.into_dyn())
    }
}
