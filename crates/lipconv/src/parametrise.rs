//! From free parameters to weights and back: the parametrisations of dense and convolutional layers.
//!
//! Forward, a parameter tensor becomes a weight; backward, the gradient of the weight is pulled back to the
//! parameter in closed form, and no iteration is differentiated through.
//!
//! * BCOP: equation (5) of the paper, see `blockconv::bcop`. Parameter [2k-1, n, n] with n = max(c_out, c_in).
//! * Björck (dense): the polar factor, what Björck orthonormalisation converges to, see `projectors::polar`. n_out x n_in.
//! * RKO: the polar factor of the c_out x c_in·k² reshape, divided by k. OIHW, like all that follow.
//! * RK-L2NE: divided by a bound of the norm that row sums give, see [`row_sums`].
//! * OSSN: divided by an estimate of the norm where that exceeds 1, see [`power`].
//! * SVCM and unconstrained: the parameter itself. What makes SVCM another method is a projection after every
//!   [`SVCM_PERIOD`](crate::train::SVCM_PERIOD) training steps and at the end of an epoch, see `blockconv::clipping`.
//!
//! A frozen weight is what leaves training: RKO, RK-L2NE, OSSN and SVCM are divided by a proven bound of their norm on the
//! layer's image size where that exceeds 1, so that no estimate is left in it.

mod operation;
mod power;
mod row_sums;

use blockconv::Scratch;
use blockconv::bcop::{Bcop, bcop_reusing};
use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Ix2, Ix3, Ix4};
use projectors::Real;
use projectors::polar::{FactoredPolar, Polar, factored_polar, polar_warm};

use crate::bounds;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::finite::check_finite;
pub(crate) use operation::weight_of;
pub(crate) use power::N_ITERATIONS;
use power::Ossn;
use row_sums::RowSums;

/// How a parameter tensor becomes a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parametrisation {
    /// Orthogonal convolution with so many output and input channels.
    Bcop { c_out: usize, c_in: usize },
    /// Polar factor of a dense weight.
    Polar,
    /// Polar factor of the reshaped kernel, divided by its size.
    Rko,
    /// Divided by a bound from row sums.
    RkL2ne,
    /// Divided by the estimated norm on images of this height and width.
    Ossn { image: (usize, usize) },
    /// The parameter itself, which training clips from time to time on images of this height and width.
    Svcm { image: (usize, usize) },
    /// The parameter itself.
    Unconstrained,
}

/// What an assembly starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a, T> {
    /// An inverse square root from an earlier assembly: it saves iterations and changes the result by rounding only.
    pub(crate) warm: Option<ArrayView2<'a, T>>,
    /// The vector of OSSN, c_in x h x w.
    pub(crate) vector: Option<&'a [T]>,
    /// Memory that earlier assemblies left.
    pub(crate) scratch: Option<&'a Scratch<T>>,
}

/// A weight and what its pullback needs.
#[derive(Debug)]
pub(crate) enum Assembled<T: Element> {
    Bcop(Box<Bcop<T>>),
    Polar(Box<Polar<T>>),
    Rko(Box<Polar<T>>),
    RkL2ne(RowSums<T>),
    Ossn(Ossn<T>),
    /// The polar factor of a wide or square parameter, for products only; pulled back by the dense layer itself.
    Factored(Box<FactoredPolar<T>>),
    Identity,
}

/// Rows from which a polar factor is cheaper to apply than to form.
const FACTORED_FROM: usize = 64;

impl Parametrisation {
    /// Whether the weight is the parameter.
    pub(crate) fn is_identity(self) -> bool {
        matches!(self, Self::Svcm { .. } | Self::Unconstrained)
    }

    /// Whether the weight is made of orthogonal factors.
    pub(crate) fn is_orthogonal(self) -> bool {
        matches!(self, Self::Bcop { .. } | Self::Polar | Self::Rko)
    }

    /// As [`Parametrisation::assemble`] for a caller that only applies the weight: factored where that costs less.
    pub(crate) fn assemble_to_apply<T: Element>(
        self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Assembled<T>> {
        let (rows, columns) = (parameter.shape()[0], parameter.shape()[1]);
        if self == Self::Polar && rows >= FACTORED_FROM && rows <= columns {
            let factored = factored_polar(ranked::<T, Ix2>(parameter));
            return Ok(Assembled::Factored(Box::new(
                factored.map_err(|e| orthonormalisation(layer, e))?,
            )));
        }
        self.assemble(layer, parameter, start)
    }

    /// Computes the weight.
    ///
    /// # Errors
    /// [`Error::Algebra`] or [`Error::Orthonormalisation`] when the parameter has no orthogonal weight: not
    /// finite or rank-deficient. [`Error::NonFinite`] or [`Error::ZeroWeight`] when it cannot be divided by its norm.
    pub(crate) fn assemble<T: Element>(
        self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Assembled<T>> {
        match self {
            Self::Bcop { c_out, c_in } => {
                let fresh = Scratch::default();
                let scratch = start.scratch.unwrap_or(&fresh);
                let parameter = ranked::<T, Ix3>(parameter);
                let assembled = bcop_reusing(parameter, c_out, c_in, start.warm, scratch);
                Ok(Assembled::Bcop(Box::new(assembled.map_err(|e| algebra(layer, e))?)))
            }
            Self::Polar => Ok(Assembled::Polar(polar_of(layer, ranked(parameter), start.warm)?)),
            Self::Rko => Ok(Assembled::Rko(polar_of(layer, flat(&parameter), start.warm)?)),
            Self::RkL2ne => {
                finite(layer, &parameter)?;
                let sums = RowSums::new(flat(&parameter), kernel_size(&parameter));
                let zero = || Error::ZeroWeight { layer: layer.to_owned() };
                Ok(Assembled::RkL2ne(sums.ok_or_else(zero)?))
            }
            Self::Ossn { image } => {
                finite(layer, &parameter)?;
                let vector = start.vector.expect("the network gave every OSSN layer its vector");
                let ossn = Ossn::estimate(ranked(parameter), image, vector);
                check_finite(&format!("{layer}: the estimated norm"), &[ossn.sigma()])?;
                Ok(Assembled::Ossn(ossn))
            }
            Self::Svcm { .. } | Self::Unconstrained => Ok(Assembled::Identity),
        }
    }

    /// The weight that leaves training; `image` is the height and width of a convolution's input.
    ///
    /// # Errors
    /// As for [`Self::assemble`].
    pub(crate) fn frozen_weight<T: Element>(
        self,
        layer: &str,
        parameter: ArrayViewD<'_, T>,
        image: Option<(usize, usize)>,
    ) -> Result<ArrayD<T>> {
        let start = Start { warm: None, vector: None, scratch: None };
        let weight = match self {
            // the proven bound is that of the parameter: the estimate has no part in it
            Self::Ossn { .. } => parameter.to_owned(),
            _ => self.assemble(layer, parameter.view(), start)?.weight(parameter),
        };
        match (self, image) {
            (Self::Rko | Self::RkL2ne | Self::Ossn { .. } | Self::Svcm { .. }, Some(image)) => {
                within_unit_ball(layer, weight, image)
            }
            _ => Ok(weight),
        }
    }
}

/// Divides by a proven bound of the norm where that exceeds 1.
fn within_unit_ball<T: Element>(
    layer: &str,
    mut weight: ArrayD<T>,
    image: (usize, usize),
) -> Result<ArrayD<T>> {
    let values = weight.mapv(Real::as_f64);
    let values = ranked::<f64, Ix4>(values.view());
    if bounds::conv_norm(values, layer)?.value() <= 1.0 {
        return Ok(weight);
    }
    let bound = bounds::conv_norm_on(values, image, layer)?.value();
    if bound > 1.0 {
        weight.mapv_inplace(|x| T::of(x.as_f64() / bound));
    }
    Ok(weight)
}

impl<T: Element> Assembled<T> {
    /// The weight; `parameter` is what it was assembled from.
    pub(crate) fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T> {
        match self {
            Self::Bcop(bcop) => bcop.layer_weight().into_dyn(),
            Self::Polar(polar) => polar.factor().to_owned().into_dyn(),
            Self::Rko(polar) => {
                let factor = T::of(1.0 / kernel_size(&parameter) as f64);
                shaped_like(&parameter, polar.factor().mapv(|x| x * factor))
            }
            Self::RkL2ne(sums) => shaped_like(&parameter, sums.scaled(flat(&parameter))),
            Self::Ossn(ossn) => ossn.scaled(ranked(parameter)).into_dyn(),
            Self::Factored(polar) => polar.factor().into_dyn(),
            Self::Identity => parameter.to_owned(),
        }
    }

    /// The inverse square root to start the next assembly from.
    pub(crate) fn warm_start(&self) -> Option<Array2<T>> {
        match self {
            Self::Bcop(bcop) => Some(bcop.inverse_sqrt().to_owned()),
            Self::Polar(polar) | Self::Rko(polar) => Some(polar.inverse_sqrt().to_owned()),
            Self::Factored(_) | Self::RkL2ne(_) | Self::Ossn(_) | Self::Identity => None,
        }
    }

    /// The vector that the next training step starts from.
    pub(crate) fn next_vector(&self) -> Option<Vec<T>> {
        match self {
            Self::Ossn(ossn) => Some(ossn.vector().to_vec()),
            _ => None,
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
            Self::Rko(polar) => {
                let factor = T::of(1.0 / kernel_size(&parameter) as f64);
                let d_weight = d_weight.mapv(|x| x * factor);
                let d_weight = d_weight.as_standard_layout();
                let d = polar.pullback(flat(&parameter), flat(&d_weight.view()));
                shaped_like(&parameter, d)
            }
            Self::RkL2ne(sums) => {
                let d_weight = d_weight.as_standard_layout();
                shaped_like(&parameter, sums.pullback(flat(&parameter), flat(&d_weight.view())))
            }
            Self::Ossn(ossn) => {
                ossn.pullback(ranked(parameter), ranked(d_weight.view())).into_dyn()
            }
            Self::Factored(_) | Self::Identity => d_weight,
        })
    }
}

fn polar_of<T: Element>(
    layer: &str,
    matrix: ArrayView2<'_, T>,
    warm: Option<ArrayView2<'_, T>>,
) -> Result<Box<Polar<T>>> {
    Ok(Box::new(polar_warm(matrix, warm).map_err(|e| orthonormalisation(layer, e))?))
}

fn orthonormalisation(layer: &str, source: projectors::Error) -> Error {
    Error::Orthonormalisation { layer: layer.to_owned(), source }
}

fn ranked<T, D: ndarray::Dimension>(array: ArrayViewD<'_, T>) -> ndarray::ArrayView<'_, T, D> {
    array.into_dimensionality().expect("the network gave every parameter the rank of its kind")
}

/// An OIHW array in row-major order as the c_out x c_in·k² matrix that it is stored as.
fn flat<'a, T>(array: &ArrayViewD<'a, T>) -> ArrayView2<'a, T> {
    let rows = array.shape()[0];
    let shape = (rows, array.len() / rows.max(1));
    array.clone().into_shape_with_order(shape).expect("in row-major order")
}

/// A c_out x c_in·k² matrix in the shape of the OIHW array it belongs to.
fn shaped_like<T: Element>(array: &ArrayViewD<'_, T>, matrix: Array2<T>) -> ArrayD<T> {
    let matrix = matrix.as_standard_layout().into_owned();
    matrix.into_shape_with_order(array.raw_dim()).expect("as many values as its reshape")
}

/// k of an OIHW array.
fn kernel_size<T>(array: &ArrayViewD<'_, T>) -> usize {
    array.shape()[3]
}

fn algebra(layer: &str, source: blockconv::Error) -> Error {
    Error::Algebra { layer: layer.to_owned(), source }
}

fn finite<T: Element>(layer: &str, parameter: &ArrayViewD<'_, T>) -> Result<()> {
    let values = parameter.as_slice().expect("a parameter is in row-major order");
    check_finite(&format!("{layer}.weight"), values)
}

/// The largest singular value of a cyclic convolution by a hundred power iterations, from `vector` or a fixed start: an
/// estimate.
pub(crate) fn estimated_norm<T: Element>(
    weight: ArrayViewD<'_, T>,
    image: (usize, usize),
    vector: Option<Vec<T>>,
) -> f64 {
    let n = weight.shape()[1] * image.0 * image.1;
    // without symmetry, so that no frequency is missed
    let fixed = || (0..n).map(|i| T::of((i * 7919 % 1009) as f64 / 1009.0 - 0.45)).collect();
    let start: Vec<T> = vector.unwrap_or_else(fixed);
    let weight = ranked::<T, Ix4>(weight);
    let mut ossn = Ossn::estimate(weight, image, &start);
    for _ in 1..10 {
        ossn = Ossn::estimate(weight, image, ossn.vector());
    }
    ossn.sigma().as_f64()
}
