//! Which parameters the layers of a spec have, and the values they start from.
//!
//! The weight parameter starts as its [method](crate::methods) draws it. Biases are uniform in ±1/√c_out, those of
//! unconstrained layers in ±1/√fan_in. A module draws its own parameters. A vector that a method keeps between steps is a random unit vector.

use rand::RngCore;
use rand_chacha::ChaCha8Rng;

use super::LayerKind;
use super::module::ModuleLayer;
use crate::error::{Error, Result};
use crate::methods::{ConvMethod, LinearMethod, Method, Sizes, inverse_root, uniform, unit_vector};
use crate::shape::{ImageShape, SignalShape};
use crate::spec::LayerSpec;

/// Shapes of a layer's parameters, before they have values.
pub(super) struct Plan {
    pub(super) kind: LayerKind,
    pub(super) parameters: Option<ParameterPlan>,
    pub(super) output: SignalShape,
}

/// A linear layer and how its weight is constrained.
pub(super) struct ParameterPlan {
    /// Of a module that its parameters are unconstrained: the module constrains what it makes of them.
    pub(super) method: Method,
    pub(super) sizes: Sizes,
    /// What the layer is, where it is no weight.
    pub(super) module: Option<ModuleLayer>,
}

impl ParameterPlan {
    /// Shape of the weight parameter.
    pub(super) fn shape(&self) -> Vec<usize> {
        match &self.module {
            Some(module) => vec![module.n_values()],
            None => self.method.parameter_shape(&self.sizes),
        }
    }
}

pub(super) fn plan_layer(spec: &LayerSpec, input: SignalShape, name: &str) -> Result<Plan> {
    let (kind, output) = match spec {
        LayerSpec::Conv { .. } | LayerSpec::Module { .. } => return plan_conv(spec, input, name),
        LayerSpec::Linear { out_features, method } => {
            return plan_linear(*out_features, *method, input, name);
        }
        LayerSpec::Activation(activation) => {
            (LayerKind::Activation(*activation), activation.output_shape(input, activation.name())?)
        }
        LayerSpec::Flatten => (LayerKind::Flatten, SignalShape::Vector(input.n_values())),
    };
    Ok(Plan { kind, parameters: None, output })
}

fn plan_conv(spec: &LayerSpec, input: SignalShape, name: &str) -> Result<Plan> {
    let (c_out, kernel_size, stride, method, kind) = match *spec {
        LayerSpec::Conv { c_out, kernel_size, stride, method } => {
            (c_out, kernel_size, stride, method, None)
        }
        LayerSpec::Module { c_out, kernel_size, stride, kind } => {
            (c_out, kernel_size, stride, ConvMethod::Unconstrained, Some(kind))
        }
        _ => unreachable!("only called for a convolution or what stands in its place"),
    };
    let SignalShape::Image(image) = input else {
        let (layer, previous) = (name.to_owned(), "a vector".to_owned());
        return Err(Error::LayerOrder { layer, previous, reason: "a convolution needs an image" });
    };
    for (what, size) in [("c_out", c_out), ("kernel_size", kernel_size)] {
        if size == 0 {
            return Err(Error::Zero { what: format!("{name}: {what}") });
        }
    }
    let after = image.downsampled(stride, name)?;
    if !kernel_size.is_multiple_of(stride) {
        let layer = name.to_owned();
        return Err(Error::StrideDoesNotDivide {
            layer,
            what: "kernel size",
            size: kernel_size,
            stride,
        });
    }
    let kernel = kernel_size / stride;
    if kernel > after.height || kernel > after.width {
        let (layer, height, width) = (name.to_owned(), after.height, after.width);
        return Err(Error::KernelExceedsImage { layer, kernel, height, width });
    }
    let output = SignalShape::Image(ImageShape { channels: c_out, ..after });
    let sizes = Sizes::conv(c_out, after.channels, kernel, (after.height, after.width));
    let module =
        kind.map(|kind| ModuleLayer::new(name, kind, (image, after), (c_out, kernel_size, stride)));
    let module = module.transpose()?;
    let kind = match module {
        Some(_) => LayerKind::Module,
        None => LayerKind::Conv { input: image, downsample: stride },
    };
    let parameters = Some(ParameterPlan { method: method.into(), sizes, module });
    Ok(Plan { kind, parameters, output })
}

fn plan_linear(n_out: usize, method: LinearMethod, input: SignalShape, name: &str) -> Result<Plan> {
    let SignalShape::Vector(n_in) = input else {
        let (layer, previous) = (name.to_owned(), "an image".to_owned());
        let reason = "a dense layer needs a vector; put flatten before it";
        return Err(Error::LayerOrder { layer, previous, reason });
    };
    if n_out == 0 {
        return Err(Error::Zero { what: format!("{name}: out_features") });
    }
    let sizes = Sizes::dense(n_out, n_in);
    let parameters = ParameterPlan { method: method.into(), sizes, module: None };
    let output = SignalShape::Vector(n_out);
    Ok(Plan { kind: LayerKind::Linear, parameters: Some(parameters), output })
}

/// Fresh values of a layer's weight parameter, bias and vector (empty where it has none), drawn in f64.
pub(super) fn draw(
    plan: &ParameterPlan,
    rng: &mut ChaCha8Rng,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let ParameterPlan { method, sizes, module } = plan;
    let definition = method.definition();
    let (weight, bound) = match module {
        Some(module) => (module.draw(rng.next_u64())?, inverse_root(sizes.n_out)),
        None => (definition.draw(sizes, rng), definition.bias_bound(sizes)),
    };
    let bias = uniform(sizes.n_out, bound, rng);
    let n_vector = method.vector_shape(sizes).map_or(0, |shape| shape.iter().product());
    Ok((weight, bias, unit_vector(n_vector, rng)))
}
