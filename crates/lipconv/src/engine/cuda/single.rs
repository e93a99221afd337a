//! The weight of one layer, for networks that are candle's: an engine of that layer alone, on one image of the kernel's size.
//!
//! The graph `Weight` makes the weight of the parameter, `WeightGradient` makes it once more and pulls a gradient back, so that layers of
//! the same sizes can share an engine and its memory. `Pullback` does not make it once more: it is for whoever knows that the engine has
//! done nothing else since `Weight`, and works once, since it overwrites what the assembly has left.

use super::backend::{Launch, arguments};
use super::blueprint::{Blueprint, LinearPlan, LinearShape};
use super::constraint::on_device;
use super::emit::Emit;
use super::{Descent, Engine, Graph, Place, n_streams, no_images, streams};
use crate::error::Result;
use crate::loss::Loss;
use crate::methods::{Method, Sizes};
use crate::optim::{Averaging, Optimizer};
use crate::shape::ImageShape;

/// The plan of a layer whose weight the engine makes; `None` where it does not, or where the method keeps a vector.
pub(super) fn single(method: Method, sizes: &Sizes) -> Option<LinearPlan> {
    let of_device = on_device(method, sizes)?;
    if method.vector_shape(sizes).is_some() || method.definition().is_identity() {
        return None;
    }
    let shape = match method {
        Method::Conv(_) => {
            let input = ImageShape::new(sizes.n_in, sizes.kernel, sizes.kernel);
            LinearShape::Conv { input, downsample: 1, kernel: sizes.kernel }
        }
        Method::Linear(_) => LinearShape::Dense { n_in: sizes.n_in },
    };
    Some(LinearPlan {
        name: method.definition().name().to_owned(),
        shape,
        method: of_device,
        n_weights: method.parameter_shape(sizes).iter().product(),
        n_out: sizes.n_out,
        trained: true,
        activation: None,
    })
}

impl Engine {
    /// An engine of one layer.
    pub(super) fn of_layer(plan: LinearPlan, place: Place) -> Result<Self> {
        let input = match plan.shape {
            LinearShape::Conv { input, .. } => input,
            LinearShape::Dense { n_in } => ImageShape::vector(n_in),
        };
        let blueprint = Blueprint { input, layers: vec![plan] };
        let device = place.open(n_streams(&blueprint))?;
        // it takes no steps
        let (loss, optimizer) = (Loss::Wasserstein, Optimizer::RmsProp(Default::default()));
        let descent = Descent { loss, optimizer, averaging: Averaging::None };
        let mut engine = Self::new(device, blueprint, descent, 1)?;
        engine.memory.weight = engine.device.allocate(4 * engine.n_weight())?;
        Ok(engine)
    }

    /// Values of the layer's weight.
    pub(super) fn n_weight(&self) -> usize {
        let plan = &self.blueprint.layers[0];
        match plan.shape {
            LinearShape::Conv { input, kernel, .. } => {
                plan.n_out * input.channels * kernel * kernel
            }
            LinearShape::Dense { n_in } => plan.n_out * n_in,
        }
    }

    /// Values of its parameter.
    pub(super) fn n_parameter(&self) -> usize {
        self.blueprint.layers[0].n_weights
    }

    /// Runs [`Graph::Weight`], [`Graph::WeightGradient`] or [`Graph::Pullback`] on what has been written to `memory.parameters` and, for
    /// the gradient, to `memory.weight`; `memory.weight` or `memory.gradients` have the result when it returns.
    ///
    /// # Errors
    /// [`Error::Orthonormalisation`](crate::Error::Orthonormalisation) for a parameter that has no weight.
    pub(super) fn make(&mut self, mut wanted: Graph) -> Result<()> {
        loop {
            let levels = self.levels();
            if wanted == Graph::Weight {
                // its rehearsal would overwrite the assembly
                self.ready(Graph::Pullback)?;
            }
            self.perform(wanted)?;
            self.status()?;
            if levels == self.levels() {
                return Ok(());
            }
            if wanted == Graph::Pullback {
                wanted = Graph::WeightGradient;
            }
        }
    }

    pub(super) fn record_weight(&mut self) -> Result<()> {
        let (layer, to) = (self.layers.first().ok_or_else(no_images)?, self.memory.weight);
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let own = streams(0);
        emit.wait(own[0], 0)?;
        emit.wait(own[1], 0)?;
        layer.assemble(&mut emit, own)?;
        layer.weight.measure(&mut emit, own)?;
        emit.wait(0, own[0])?;
        emit.wait(0, own[1])?;
        layer.hand_out(&mut emit, to)
    }

    pub(super) fn record_weight_gradient(&mut self, assembles: bool) -> Result<()> {
        let (layer, from) = (self.layers.first().ok_or_else(no_images)?, self.memory.weight);
        let mut emit = Emit::new(&mut *self.device, self.memory.control);
        let own = streams(0);
        emit.wait(own[0], 0)?;
        emit.wait(own[1], 0)?;
        if assembles {
            layer.assemble(&mut emit, own)?;
            emit.wait(own[0], own[1])?;
        }
        layer.weight.prepare_backward(&mut emit, own)?;
        layer.take_in(&mut emit, own[0], from)?;
        layer.weight.pull_back(&mut emit, own)?;
        emit.wait(0, own[0])?;
        emit.wait(0, own[1])?;
        let (gradients, n) = (self.memory.gradients, self.blueprint.layers[0].n_weights);
        let control = self.memory.control;
        emit.launch(Launch::each("check_finite", 0, n, arguments![gradients, n, control]))
    }
}
