//! What a method gives.
//!
//! Forward, a parameter tensor becomes a weight; backward, the gradient of the weight is pulled back to the parameter in
//! closed form, and no iteration is differentiated through. A frozen weight is what leaves training: a method that only
//! estimates its norm divides by a proven bound there where that exceeds 1, so that no estimate is left in it.

use std::fmt;

use blockconv::Scratch;
use candle_core::Tensor;
use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD};
use projectors::polar::FactoredPolar;
use rand_chacha::ChaCha8Rng;

use super::draw::inverse_root;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::portable::Factor;

/// The sizes of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub(crate) n_out: usize,
    pub(crate) n_in: usize,
    pub(crate) kernel: usize,
    pub(crate) image: (usize, usize),
    dense: bool,
}

impl Sizes {
    /// Of a convolution, after downsampling: channels, side of the kernel, height and width of the image that it meets.
    #[must_use]
    pub fn conv(c_out: usize, c_in: usize, kernel: usize, image: (usize, usize)) -> Self {
        Self { n_out: c_out, n_in: c_in, kernel, image, dense: false }
    }

    /// Of a dense layer.
    #[must_use]
    pub fn dense(n_out: usize, n_in: usize) -> Self {
        Self { n_out, n_in, kernel: 1, image: (1, 1), dense: true }
    }

    /// Shape of the weight: OIHW or n_out x n_in.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        match self.dense {
            true => vec![self.n_out, self.n_in],
            false => vec![self.n_out, self.n_in, self.kernel, self.kernel],
        }
    }

    /// Inputs that one output is a sum of.
    pub(crate) fn fan_in(&self) -> usize {
        self.n_in * self.kernel * self.kernel
    }
}

/// A linear layer with its name, for errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) name: &'a str,
    pub(crate) sizes: Sizes,
}

impl Layer<'_> {
    pub(crate) fn algebra(self, source: blockconv::Error) -> Error {
        Error::Algebra { layer: self.name.to_owned(), source }
    }

    pub(crate) fn orthonormalisation(self, source: projectors::Error) -> Error {
        Error::Orthonormalisation { layer: self.name.to_owned(), source }
    }
}

/// A weight in candle's operations, what its next training step starts from, and how far its factors are from orthonormal.
#[derive(Debug)]
pub struct Weight {
    /// OIHW or n_out x n_in.
    pub weight: Tensor,
    /// The vector of the next step, for a method that has one.
    pub vector: Option<Tensor>,
    /// The defect of the orthogonal factors that the weight is made of, a scalar outside of the graph.
    pub defect: Option<Tensor>,
}

impl From<Tensor> for Weight {
    fn from(weight: Tensor) -> Self {
        Self { weight, vector: None, defect: None }
    }
}

impl From<Factor> for Weight {
    fn from(Factor { matrix, defect }: Factor) -> Self {
        Self { weight: matrix, vector: None, defect: Some(defect) }
    }
}

/// What a method is on every device.
pub(crate) trait Parametrisation: fmt::Debug + Sync {
    /// The name in files and on the command line, in kebab case.
    fn name(&self) -> &'static str;

    /// The name in a text.
    fn title(&self) -> &'static str;

    /// Shape of the weight parameter; its first axis may count matrices.
    fn parameter_shape(&self, sizes: &Sizes) -> Vec<usize> {
        sizes.weight_shape()
    }

    /// Values that the weight parameter starts from, row-major.
    fn draw(&self, sizes: &Sizes, rng: &mut ChaCha8Rng) -> Vec<f64>;

    /// Biases start uniform between minus and plus this.
    fn bias_bound(&self, sizes: &Sizes) -> f64 {
        inverse_root(sizes.n_out)
    }

    /// Whether training changes the weight parameter.
    fn is_trained(&self) -> bool {
        true
    }

    /// Whether the weight is the parameter.
    fn is_identity(&self) -> bool {
        false
    }

    /// Whether the weight is the same for the parameter and for any positive multiple of it.
    fn is_scale_free(&self) -> bool {
        false
    }

    /// Shape of a vector that every training step starts from and replaces; it begins as a random unit vector.
    fn vector_shape(&self, _sizes: &Sizes) -> Option<Vec<usize>> {
        None
    }

    /// The weight in candle's operations, differentiable in the parameter; `vector` has the shape that the method gave it.
    ///
    /// # Errors
    /// [`Error::Candle`].
    fn weight(&self, sizes: &Sizes, parameter: &Tensor, vector: Option<&Tensor>) -> Result<Weight>;

    /// Whether the parameter is projected after batch `index` (from 0) of an epoch of `n_batches`.
    fn projects_after(&self, _index: usize, _n_batches: usize) -> bool {
        false
    }
}

/// What an assembly starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start<'a, T> {
    /// An inverse square root from an earlier assembly: it saves iterations and changes the result by rounding only.
    pub(crate) warm: Option<ArrayView2<'a, T>>,
    /// The method's vector.
    pub(crate) vector: Option<&'a [T]>,
    /// Memory that earlier assemblies left.
    pub(crate) scratch: Option<&'a Scratch<T>>,
}

impl<T> Start<'_, T> {
    /// From nothing.
    pub(crate) const COLD: Self = Self { warm: None, vector: None, scratch: None };
}

/// What a method is on the CPU, in one element type.
pub(crate) trait CpuParametrisation<T: Element>: Parametrisation {
    /// Computes the weight.
    ///
    /// # Errors
    /// [`Error::Algebra`] or [`Error::Orthonormalisation`] when the parameter has no orthogonal weight: not
    /// finite or rank-deficient. [`Error::NonFinite`] or [`Error::ZeroWeight`] when it cannot be divided by its norm.
    fn assemble(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>>;

    /// The same for a caller that only applies the weight: factored where that costs less.
    ///
    /// # Errors
    /// As for [`CpuParametrisation::assemble`].
    fn assemble_to_apply(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        start: Start<'_, T>,
    ) -> Result<Box<dyn Assembled<T>>> {
        self.assemble(layer, parameter, start)
    }

    /// The weight that leaves training.
    ///
    /// # Errors
    /// As for [`CpuParametrisation::assemble`].
    fn frozen(&self, layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        Ok(self.assemble(layer, parameter.view(), Start::COLD)?.weight(parameter))
    }

    /// The projected parameter, for a method that [projects](Parametrisation::projects_after).
    ///
    /// # Errors
    /// [`Error::Algebra`] when the parameter is not finite.
    fn projected(&self, _layer: Layer<'_>, parameter: ArrayViewD<'_, T>) -> Result<ArrayD<T>> {
        Ok(parameter.to_owned())
    }
}

/// A weight on the CPU and what its pullback needs.
pub(crate) trait Assembled<T: Element>: fmt::Debug + Send + Sync {
    /// The weight; `parameter` is what it was assembled from.
    fn weight(&self, parameter: ArrayViewD<'_, T>) -> ArrayD<T>;

    /// The gradient of the parameter from that of the weight; of a factored weight the dense layer has pulled it back
    /// already.
    ///
    /// # Errors
    /// [`Error::Algebra`] when the gradient is not finite.
    fn pullback(
        &self,
        layer: Layer<'_>,
        parameter: ArrayViewD<'_, T>,
        d_weight: ArrayD<T>,
    ) -> Result<ArrayD<T>>;

    /// The inverse square root to start the next assembly from.
    fn warm_start(&self) -> Option<Array2<T>> {
        None
    }

    /// The vector that the next training step starts from.
    fn next_vector(&self) -> Option<Vec<T>> {
        None
    }

    /// The factored weight, if it is one.
    fn factored(&self) -> Option<&FactoredPolar<T>> {
        None
    }
}
