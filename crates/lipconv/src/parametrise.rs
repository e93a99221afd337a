//! From free parameters to weights and back: the parametrisations of dense and convolutional layers.
//!
//! Forward, a parameter tensor becomes a weight: by BCOP (equation (5) of the paper, see `blockconv::bcop`),
//! by the polar factor (what Björck orthonormalisation converges to, see `projectors::polar`), or unchanged. Backward, the gradient of
//! the weight is pulled back to the parameters in closed form; no iteration is differentiated through.
//!
//! Shapes: a BCOP parameter is [2k-1, n, n] with n = max(c_out, c_in) and its weight OIHW; a Björck parameter
//! and its weight are n_out x n_in.

use std::sync::Mutex;

use blockconv::bcop::{Bcop, bcop};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Ix2, Ix3, Ix4};
use projectors::polar::{FactoredPolar, Polar, factored_polar, polar_warm};

use crate::element::{Element, cpu_slice};
use crate::error::{Error, Result};

/// How a parameter tensor becomes a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parametrisation {
    /// Orthogonal convolution with so many output and input channels.
    Bcop { c_out: usize, c_in: usize },
    /// Polar factor.
    Polar,
    /// The parameter itself.
    Identity,
}

/// A weight and what its pullback needs.
#[derive(Debug)]
pub(crate) enum Assembled<T: Element> {
    Bcop(Box<Bcop<T>>),
    Polar(Box<Polar<T>>),
    /// The polar factor of a wide or square parameter, for products only; pulled back by the dense layer itself.
    Factored(Box<FactoredPolar<T>>),
    Identity,
}

/// Rows from which a polar factor is cheaper to apply than to form.
const FACTORED_FROM: usize = 64;

impl Parametrisation {
    /// As [`Parametrisation::assemble`] for a caller that only applies the weight: factored where that costs less.
    pub(crate) fn assemble_to_apply<T: Element>(
        self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        warm: Option<ArrayView2<'_, T>>,
    ) -> Result<Assembled<T>> {
        let (rows, columns) = (parameter.shape()[0], parameter.shape()[1]);
        if self == Self::Polar && rows >= FACTORED_FROM && rows <= columns {
            let factored = factored_polar(ranked::<T, Ix2>(parameter));
            return Ok(Assembled::Factored(Box::new(
                factored.map_err(|e| orthonormalisation(layer, e))?,
            )));
        }
        self.assemble(layer, parameter, warm)
    }

    /// Computes the weight. `warm` is an inverse square root from an earlier call: it saves iterations and
    /// changes the result by rounding only.
    pub(crate) fn assemble<T: Element>(
        self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        warm: Option<ArrayView2<'_, T>>,
    ) -> Result<Assembled<T>> {
        match self {
            Self::Bcop { c_out, c_in } => {
                let parameter = ranked::<T, Ix3>(parameter);
                let assembled = bcop(parameter, c_out, c_in, warm);
                Ok(Assembled::Bcop(Box::new(assembled.map_err(|e| algebra(layer, e))?)))
            }
            Self::Polar => {
                let assembled = polar_warm(ranked::<T, Ix2>(parameter), warm);
                Ok(Assembled::Polar(Box::new(assembled.map_err(|e| orthonormalisation(layer, e))?)))
            }
            Self::Identity => Ok(Assembled::Identity),
        }
    }
}

impl<T: Element> Assembled<T> {
    /// The weight; `parameter` is what it was assembled from.
    pub(crate) fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        match self {
            Self::Bcop(bcop) => bcop.layer_weight().into_dyn(),
            Self::Polar(polar) => polar.factor().to_owned().into_dyn(),
            Self::Factored(polar) => polar.factor().into_dyn(),
            Self::Identity => parameter.to_owned(),
        }
    }

    /// The inverse square root to start the next assembly from.
    pub(crate) fn warm_start(&self) -> Option<Array2<T>> {
        match self {
            Self::Bcop(bcop) => Some(bcop.inverse_sqrt().to_owned()),
            Self::Polar(polar) => Some(polar.inverse_sqrt().to_owned()),
            Self::Factored(_) | Self::Identity => None,
        }
    }

    /// The factored weight, if it is one.
    pub(crate) fn factored(&self) -> Option<&FactoredPolar<T>> {
        match self {
            Self::Factored(polar) => Some(polar),
            _ => None,
        }
    }

    /// The gradient of the parameter from that of the weight; of a factored weight the dense layer has pulled it back
    /// already.
    pub(crate) fn pullback(
        &self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>> {
        Ok(match self {
            Self::Bcop(bcop) => {
                let pulled = bcop.pullback(ranked::<T, Ix4>(d_weight.view()));
                pulled.map_err(|e| algebra(layer, e))?.into_dyn()
            }
            Self::Polar(polar) => {
                let d_weight = ranked::<T, Ix2>(d_weight.view());
                polar.pullback(ranked::<T, Ix2>(parameter), d_weight).into_dyn()
            }
            Self::Factored(_) | Self::Identity => d_weight,
        })
    }
}

fn ranked<T, D: ndarray::Dimension>(array: ArrayViewD<'_, T>) -> ndarray::ArrayView<'_, T, D> {
    array.into_dimensionality().expect("the network gave every parameter the rank of its kind")
}

fn algebra(layer: &str, source: blockconv::Error) -> Error {
    Error::Algebra { layer: layer.to_owned(), source }
}

fn orthonormalisation(layer: &str, source: projectors::Error) -> Error {
    Error::Orthonormalisation { layer: layer.to_owned(), source }
}

/// The weight as a tensor operation on the parameter, differentiable by candle; on the CPU.
///
/// # Errors
/// [`Error::Algebra`] or [`Error::Orthonormalisation`] when the parameter has no orthogonal weight: not
/// finite or rank-deficient.
pub(crate) fn weight_of(
    layer: &str,
    parametrisation: Parametrisation,
    parameter: &Tensor,
) -> Result<Tensor> {
    if parametrisation == Parametrisation::Identity {
        return Ok(parameter.clone());
    }
    let saved = Saved {
        layer: layer.to_owned(),
        parametrisation,
        f32: Mutex::default(),
        f64: Mutex::default(),
    };
    Ok(parameter.contiguous()?.apply_op1(saved)?)
}

/// One application of a parametrisation, with what its pullback needs.
struct Saved {
    layer: String,
    parametrisation: Parametrisation,
    f32: Mutex<Option<Assembled<f32>>>,
    f64: Mutex<Option<Assembled<f64>>>,
}

impl Saved {
    fn forward<T: Element>(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        saved: &Mutex<Option<Assembled<T>>>,
    ) -> Result<(CpuStorage, Shape)> {
        let parameter = ArrayViewD::from_shape(layout.dims(), cpu_slice::<T>(storage, layout)?)
            .expect("a contiguous tensor has as many values as its shape says");
        let assembled = self.parametrisation.assemble(&self.layer, parameter.view(), None)?;
        let weight = assembled.weight(parameter);
        let shape = Shape::from(weight.shape());
        *lock(saved) = Some(assembled);
        Ok((T::to_cpu_storage_owned(weight.iter().copied().collect()), shape))
    }

    fn backward<T: Element>(
        &self,
        parameter: &Tensor,
        gradient: &Tensor,
        saved: &Mutex<Option<Assembled<T>>>,
    ) -> Result<Tensor> {
        let parameter_values = crate::bounds::array::<T, _>(parameter, parameter.dims())?;
        let gradient = crate::bounds::array::<T, _>(gradient, gradient.dims())?;
        let saved = lock(saved);
        let assembled = saved.as_ref().expect("backward runs after forward");
        let gradient = assembled.pullback(&self.layer, parameter_values.view(), gradient)?;
        let values = gradient.iter().copied().collect::<Vec<T>>();
        Ok(Tensor::from_vec(values, parameter.shape(), parameter.device())?)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // what is inside is replaced as a whole, so a panicking holder leaves nothing half-done
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl CustomOp1 for Saved {
    fn name(&self) -> &'static str {
        "orthogonal-parametrisation"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(match storage {
            CpuStorage::F64(_) => self.forward(storage, layout, &self.f64)?,
            _ => self.forward(storage, layout, &self.f32)?,
        })
    }

    fn bwd(
        &self,
        parameter: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(match parameter.dtype() {
            DType::F64 => self.backward(parameter, gradient, &self.f64)?,
            _ => self.backward(parameter, gradient, &self.f32)?,
        }))
    }
}
