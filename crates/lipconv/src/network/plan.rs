//! Which parameters the layers of a spec have, and the values they start from.
//!
//! Initialisation. Every n x n matrix of BCOP is a Haar-random orthogonal matrix times 1/√n; a Björck parameter and the
//! c_out x c_in·k² reshape of an RKO or RK-L2NE parameter is a random matrix with orthonormal rows or columns times 1/√n, n the
//! number of input features or channels (their weights do not depend on that factor, but the step size relative to it does).
//! OSSN, SVCM and unconstrained weights are uniform in ±1/√fan_in, as in PyTorch: inside the unit ball at first, so that
//! nothing is scaled or clipped. Biases are uniform in ±1/√c_out, those of unconstrained layers in ±1/√fan_in. The vector of
//! OSSN's power iteration is a random unit vector.

use ndarray::{Array2, Axis};
use projectors::{haar_frame, haar_orthogonal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::LayerKind;
use crate::error::{Error, Result};
use crate::parametrise::Parametrisation;
use crate::plain::PlainLayer;
use crate::shape::{ImageShape, SignalShape};
use crate::spec::{ConvMethod, LayerSpec, LinearMethod};

/// Shapes of a layer's parameters, before they have values.
pub(super) struct Plan {
    pub(super) kind: LayerKind,
    pub(super) parameters: Option<ParameterPlan>,
    pub(super) output: SignalShape,
}

pub(super) struct ParameterPlan {
    pub(super) parametrisation: Parametrisation,
    pub(super) weight: Vec<usize>,
    pub(super) n_out: usize,
    pub(super) trained: bool,
    fan_in: usize,
    /// Input features of a dense layer, input channels of a convolution.
    n_in: usize,
}

impl ParameterPlan {
    /// Shape of the vector of OSSN.
    pub(super) fn vector(&self) -> Option<[usize; 3]> {
        match self.parametrisation {
            Parametrisation::Ossn { image: (height, width) } => Some([self.n_in, height, width]),
            _ => None,
        }
    }
}

pub(super) fn plan_layer(spec: &LayerSpec, input: SignalShape, name: &str) -> Result<Plan> {
    let (kind, plain) = match spec {
        LayerSpec::Conv { .. } => return plan_conv(spec, input, name),
        LayerSpec::Linear { out_features, method } => {
            return plan_linear(*out_features, *method, input, name);
        }
        LayerSpec::MaxMin => (LayerKind::MaxMin, PlainLayer::MaxMin),
        LayerSpec::GroupSort { group } => {
            (LayerKind::GroupSort(*group), PlainLayer::GroupSort { group: *group })
        }
        LayerSpec::Relu => (LayerKind::Relu, PlainLayer::Relu),
        LayerSpec::Flatten => (LayerKind::Flatten, PlainLayer::Flatten),
    };
    let label = match spec {
        LayerSpec::GroupSort { .. } => "groupsort",
        _ => "maxmin",
    };
    Ok(Plan { kind, parameters: None, output: plain.output_shape(input, label)? })
}

fn plan_conv(spec: &LayerSpec, input: SignalShape, name: &str) -> Result<Plan> {
    let LayerSpec::Conv { c_out, kernel_size, stride, method } = *spec else {
        unreachable!("only called for a convolution")
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
    let parameters = Some(conv_parameters(method, c_out, kernel, after));
    Ok(Plan { kind: LayerKind::Conv { input: image, downsample: stride }, parameters, output })
}

/// The parameters of a convolution on images of the shape `image`, downsampled.
fn conv_parameters(
    method: ConvMethod,
    c_out: usize,
    kernel: usize,
    image: ImageShape,
) -> ParameterPlan {
    let c_in = image.channels;
    let size = (image.height, image.width);
    let parametrisation = match method {
        ConvMethod::Bcop | ConvMethod::BcopFixed => Parametrisation::Bcop { c_out, c_in },
        ConvMethod::Rko => Parametrisation::Rko,
        ConvMethod::RkL2ne => Parametrisation::RkL2ne,
        ConvMethod::Ossn => Parametrisation::Ossn { image: size },
        ConvMethod::Svcm => Parametrisation::Svcm { image: size },
        ConvMethod::Unconstrained => Parametrisation::Unconstrained,
    };
    let n = c_in.max(c_out);
    let weight = match parametrisation {
        Parametrisation::Bcop { .. } => vec![2 * kernel - 1, n, n],
        _ => vec![c_out, c_in, kernel, kernel],
    };
    let (trained, fan_in) = (method != ConvMethod::BcopFixed, c_in * kernel * kernel);
    ParameterPlan { parametrisation, weight, n_out: c_out, trained, fan_in, n_in: c_in }
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
    let parametrisation = match method {
        LinearMethod::Bjorck => Parametrisation::Polar,
        LinearMethod::Unconstrained => Parametrisation::Unconstrained,
    };
    let weight = vec![n_out, n_in];
    let parameters =
        ParameterPlan { parametrisation, weight, n_out, trained: true, fan_in: n_in, n_in };
    let output = SignalShape::Vector(n_out);
    Ok(Plan { kind: LayerKind::Linear, parameters: Some(parameters), output })
}

/// Fresh values of a layer's weight parameter, bias and vector (empty where it has none), drawn in f64.
pub(super) fn draw(plan: &ParameterPlan, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let n_weights = plan.weight.iter().product::<usize>();
    let weight = match plan.parametrisation {
        Parametrisation::Bcop { .. } => {
            let n = plan.weight[1];
            (0..plan.weight[0]).flat_map(|_| scaled(haar_orthogonal(n, rng), root(n))).collect()
        }
        Parametrisation::Polar | Parametrisation::Rko | Parametrisation::RkL2ne => {
            scaled(orthonormal(plan.n_out, plan.fan_in, rng), root(plan.n_in))
        }
        Parametrisation::Ossn { .. }
        | Parametrisation::Svcm { .. }
        | Parametrisation::Unconstrained => uniform(n_weights, root(plan.fan_in), rng),
    };
    let unconstrained = plan.parametrisation == Parametrisation::Unconstrained;
    let bias_bound = root(if unconstrained { plan.fan_in } else { plan.n_out });
    let bias = uniform(plan.n_out, bias_bound, rng);
    let n_vector = plan.vector().map_or(0, |shape| shape.iter().product());
    (weight, bias, unit_vector(n_vector, rng))
}

/// 1/√n.
fn root(n: usize) -> f64 {
    1.0 / (n as f64).sqrt()
}

fn uniform(n: usize, bound: f64, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..n).map(|_| rng.random_range(-bound..bound)).collect()
}

fn unit_vector(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut vector = uniform(n, 1.0, rng);
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

/// A Haar-random matrix with orthonormal rows or columns, whichever are fewer.
fn orthonormal(rows: usize, columns: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let frame = haar_frame(rows.max(columns), rows.min(columns), rng)
        .expect("as many columns as rows at the most");
    if rows < columns { frame.reversed_axes() } else { frame }
}

/// The values in row-major order, times `factor`.
fn scaled(matrix: Array2<f64>, factor: f64) -> Vec<f64> {
    matrix.axis_iter(Axis(0)).flatten().map(|value| value * factor).collect()
}
