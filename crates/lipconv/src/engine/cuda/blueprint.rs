//! What the engine is to run: a network's layers as the device sees them, without memory.

use crate::activation::Activation;
use crate::shape::ImageShape;

/// A network that the engine can run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blueprint {
    pub(super) input: ImageShape,
    pub(super) layers: Vec<LinearPlan>,
}

/// A linear layer and the activation after it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LinearPlan {
    pub(super) name: String,
    pub(super) shape: LinearShape,
    pub(super) method: Method,
    /// Values of the weight parameter.
    pub(super) n_weights: usize,
    pub(super) n_out: usize,
    pub(super) trained: bool,
    pub(super) activation: Option<Activation>,
}

/// What a linear layer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinearShape {
    /// Invertible downsampling of the input, then a cyclic convolution.
    Conv { input: ImageShape, downsample: usize, kernel: usize },
    /// A product with n_out x `n_in`.
    Dense { n_in: usize },
}

/// How a parameter becomes a weight on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Bcop {
        n: usize,
    },
    /// The polar factor of a dense weight.
    Polar,
    /// The polar factor of the reshaped kernel, divided by its size.
    Rko,
    /// Rows divided by their norms.
    UnitRows,
    /// Divided by an estimate of the operator norm where that exceeds 1.
    Ossn,
    /// RK-L2NE: divided by a bound of the norm from row sums.
    RowSums,
    /// The parameter itself.
    Free,
}

impl Blueprint {
    /// Values of all parameters: weight, bias, weight, ….
    pub(super) fn n_parameters(&self) -> usize {
        self.layers.iter().map(|layer| layer.n_weights + layer.n_out).sum()
    }

    /// Values of all vectors that methods keep between steps.
    pub(super) fn n_vectors(&self) -> usize {
        self.layers.iter().map(LinearPlan::n_vector).sum()
    }

    pub(super) fn n_classes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.n_out)
    }
}

impl LinearPlan {
    /// Values of the vector that the layer's method keeps between steps: none, or an input's.
    pub(super) fn n_vector(&self) -> usize {
        match (self.method, self.shape) {
            (Method::Ossn, LinearShape::Conv { input, .. }) => input.n_values(),
            _ => 0,
        }
    }
}
