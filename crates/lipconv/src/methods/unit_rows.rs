//! LLN (dense), last-layer normalisation: every row is divided by its norm.
//!
//! Definition. `W = V / ‖V‖_row`, that is `w_j = v_j / ‖v_j‖₂` for every row of the parameter V.
//!
//! Shapes. Parameter and weight n_out x n_in. V starts as Björck's: orthonormal rows or columns times 1/√n_in.
//! The weight does not depend on the norms of V's rows, the step size relative to them does.
//!
//! Guarantee. Rows of norm 1 up to rounding, and so `‖w_t - w_j‖ <= 2` for every pair: a last layer for certificates by pairs of
//! classes. The norm of the whole weight may be anything up to √n_out: no statement may take it for 1.
//! Frozen, the weight is what it is in training.
//!
//! Pullback. With the gradient D in W: `∂/∂v_j = (d_j - ⟨d_j, w_j⟩ w_j) / ‖v_j‖`.
//!
//! Cost. 2 n_out n_in flops each way.
//!
//! Errors. A row that is zero has no direction: [`Error::ZeroRow`]. In candle's operations its weight is NaN, and the step is refused
//! when the logits are checked.
//!
//! Source. Singla, Singla and Feizi (2022).

use candle_core::Tensor;
use ndarray::{Array1, ArrayD, ArrayView1, ArrayView2, ArrayViewD, Axis, Ix2, Zip};
use rand_chacha::ChaCha8Rng;

use super::arrays::{finite, ranked};
use super::polar::Polar;
use super::{Assembled, CpuParametrisation, Layer, Parametrisation, Sizes, Start, Weight};
use crate::element::Element;
use crate::error::{Error, Result};

/// Rows of norm 1.
#[derive(Debug)]
pub(super) struct UnitRows;

impl Parametrisation for UnitRows {
    fn name(&self) -> &'static str {
        "lln"
    }

    fn title(&self) -> &'static str {
        "LLN"
    }

    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64> {
        Polar.draw(sizes, rng)
    }

    fn is_scale_free(&self) -> bool {
        true
    }

    fn weight(&self, _: &Sizes, parameter: &Tensor, _: Option<&Tensor>) -> Result<Weight> {
        // divided by the largest entry first, so that no square overflows or vanishes
        let largest = parameter.abs()?.max_keepdim(1)?.detach();
        let scaled = parameter.broadcast_div(&largest)?;
        let norms = scaled.sqr()?.sum_keepdim(1)?.sqrt()?;
        Ok(scaled.broadcast_div(&norms)?.into())
    }
}

impl<T: Element> CpuParametrisation<T> for UnitRows {
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        _: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        finite(layer, &parameter)?;
        let rows = ranked::<T, Ix2>(parameter);
        let norms = rows.rows().into_iter().map(norm).collect::<Vec<_>>();
        if let Some(row) = norms.iter().position(|&norm| norm == 0.0) {
            return Err(Error::ZeroRow { layer: layer.name.to_owned(), row });
        }
        Ok(Box::new(RowNorms { norms }))
    }
}

/// The norms of the parameter's rows.
#[derive(Debug)]
struct RowNorms {
    norms: Vec<f64>,
}

impl RowNorms {
    fn unit<T: Element>(&self, row: usize, values: ArrayView1<'_, T>) -> Array1<f64> {
        values.mapv(|v| v.as_f64() / self.norms[row])
    }

    fn gradient<T: Element>(
        &self,
        rows: ArrayView2<'_, T>,
        d_rows: ArrayView2<'_, T>,
    ) -> ArrayD<T> {
        let mut gradient = d_rows.to_owned();
        for (row, mut gradient) in gradient.axis_iter_mut(Axis(0)).enumerate() {
            let unit = self.unit(row, rows.row(row));
            let along = gradient.iter().zip(&unit).map(|(d, w)| d.as_f64() * w).sum::<f64>();
            let norm = self.norms[row];
            Zip::from(&mut gradient).and(&unit).for_each(|d, w| {
                *d = T::of((d.as_f64() - along * w) / norm);
            });
        }
        gradient.into_dyn()
    }
}

impl<T: Element> Assembled<T> for RowNorms {
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        let mut weight = ranked::<T, Ix2>(parameter).to_owned();
        for (row, mut values) in weight.axis_iter_mut(Axis(0)).enumerate() {
            let unit = self.unit(row, values.view());
            values.assign(&unit.mapv(T::of));
        }
        weight.into_dyn()
    }

    fn pullback(
        &self,
        _: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        let d_weight = ranked::<T, Ix2>(d_weight.view());
        Ok(self.gradient(ranked::<T, Ix2>(parameter), d_weight))
    }
}

/// The norm of a row, safe from overflow.
fn norm<T: Element>(row: ArrayView1<'_, T>) -> f64 {
    let largest = row.iter().map(|v| v.as_f64().abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    largest * row.iter().map(|v| (v.as_f64() / largest).powi(2)).sum::<f64>().sqrt()
}
