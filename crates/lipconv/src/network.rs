//! Parametrised networks: what is trained.
//!
//! A [`Network`] owns free parameters, one weight parameter and one bias for each linear layer, as candle
//! variables with fixed names (`conv1.weight`, `conv1.bias`, … `linear2.bias`). [`Network::materialize`] makes
//! the [`PlainNetwork`] that they stand for. [`Network::forward`] is the same function as a candle graph.
//! Law: both give the same outputs.
//!
//! Initialisation (the authors'): every n x n matrix of BCOP and every Björck parameter is a Haar-random
//! orthogonal matrix times 1/√n (n the number of input features for a dense layer), biases are uniform in
//! ±1/√c_out; unconstrained weights and biases are uniform in ±1/√fan_in, as in PyTorch.

use candle_core::{DType, Device, Tensor, Var};
use ndarray::{Array2, Axis};
use projectors::{haar_frame, haar_orthogonal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bounds::array;
use crate::element::Element;
use crate::engine::Step;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;
use crate::ops;
use crate::parametrise::{Parametrisation, weight_of};
use crate::plain::{CyclicConv, Dense, PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};
use crate::spec::{ConvMethod, LayerSpec, LinearMethod, NetworkSpec};

/// A network of free parameters.
#[derive(Debug)]
pub struct Network {
    spec: NetworkSpec,
    layers: Vec<Layer>,
    n_classes: usize,
    dtype: DType,
    device: Device,
}

/// One layer and its parameters.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) kind: LayerKind,
    pub(crate) parameters: Option<Parameters>,
}

/// What a layer does, without its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LayerKind {
    Conv { input: ImageShape, downsample: usize },
    Linear,
    MaxMin,
    GroupSort(usize),
    Relu,
    Flatten,
}

impl LayerKind {
    /// The layer as the engine's block form sees it.
    pub(crate) fn step(self) -> Step {
        match self {
            Self::Conv { .. } | Self::Linear => Step::Linear,
            Self::MaxMin => Step::Activation(Activation::MaxMin),
            Self::GroupSort(group) => Step::Activation(Activation::GroupSort(group)),
            Self::Relu => Step::Activation(Activation::Relu),
            Self::Flatten => Step::Flatten,
        }
    }
}

/// The free parameters of a linear layer.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) name: String,
    pub(crate) parametrisation: Parametrisation,
    pub(crate) weight: Var,
    pub(crate) bias: Var,
}

/// Shapes of a layer's parameters, before they have values.
struct Plan {
    kind: LayerKind,
    parameters: Option<ParameterPlan>,
    output: SignalShape,
}

struct ParameterPlan {
    parametrisation: Parametrisation,
    weight: Vec<usize>,
    n_out: usize,
    fan_in: usize,
}

impl Network {
    /// A network with freshly drawn parameters; the same seed gives the same network on every device and,
    /// up to rounding, in every element type.
    ///
    /// # Errors
    /// [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::KernelExceedsImage`],
    /// [`Error::GroupsDoNotDivide`] or [`Error::LayerOrder`] when the layers do not fit;
    /// [`Error::InvalidSetting`] for an element type other than f32 and f64.
    pub fn new(spec: &NetworkSpec, dtype: DType, device: &Device, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self::build(spec, dtype, device, |plan, _| {
            let (weight, bias) = draw(plan, &mut rng);
            Ok((
                Tensor::from_vec(weight, &*plan.weight, device)?,
                Tensor::from_vec(bias, plan.n_out, device)?,
            ))
        })
    }

    /// A network whose parameters `supply` gives: called with names and shapes, in order.
    pub(crate) fn from_tensors(
        spec: &NetworkSpec,
        dtype: DType,
        device: &Device,
        mut supply: impl FnMut(&str, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        Self::build(spec, dtype, device, |plan, name| {
            let weight = supply(&format!("{name}.weight"), &plan.weight)?;
            Ok((weight, supply(&format!("{name}.bias"), &[plan.n_out])?))
        })
    }

    fn build(
        spec: &NetworkSpec,
        dtype: DType,
        device: &Device,
        mut supply: impl FnMut(&ParameterPlan, &str) -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            let value = dtype.as_str().to_owned();
            return Err(Error::InvalidSetting { name: "dtype", value, expected: "f32 or f64" });
        }
        if spec.input.n_values() == 0 {
            return Err(Error::Zero { what: "image size".into() });
        }
        let mut shape = SignalShape::Image(spec.input);
        let (mut n_convs, mut n_linears) = (0, 0);
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let (counter, kind) = match layer {
                LayerSpec::Conv { .. } => (&mut n_convs, "conv"),
                _ => (&mut n_linears, "linear"),
            };
            let name = format!("{kind}{}", *counter + 1);
            let plan = plan_layer(layer, shape, &name)?;
            shape = plan.output;
            let parameters = match &plan.parameters {
                None => None,
                Some(parameters) => {
                    *counter += 1;
                    let (weight, bias) = supply(parameters, &name)?;
                    Some(Parameters {
                        name,
                        parametrisation: parameters.parametrisation,
                        weight: Var::from_tensor(&weight.to_dtype(dtype)?.to_device(device)?)?,
                        bias: Var::from_tensor(&bias.to_dtype(dtype)?.to_device(device)?)?,
                    })
                }
            };
            layers.push(Layer { kind: plan.kind, parameters });
        }
        let SignalShape::Vector(n_classes) = shape else {
            return Err(Error::LayerOrder {
                layer: "the output".into(),
                previous: "an image".into(),
                reason: "a network ends with a vector of logits",
            });
        };
        Ok(Self { spec: spec.clone(), layers, n_classes, dtype, device: device.clone() })
    }

    /// The layers as data.
    #[must_use]
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// Number of logits.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Element type of the parameters.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where the parameters live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of free parameters.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.variables().iter().map(|(_, v)| v.elem_count()).sum()
    }

    /// All parameters with their names, first layer first, weight before bias.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut variables = Vec::new();
        for p in self.linear_layers().filter_map(|layer| layer.parameters.as_ref()) {
            variables.push((format!("{}.weight", p.name), p.weight.clone()));
            variables.push((format!("{}.bias", p.name), p.bias.clone()));
        }
        variables
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn linear_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| layer.parameters.is_some())
    }

    /// The parameters of all linear layers, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameters> {
        self.layers.iter().filter_map(|layer| layer.parameters.as_ref())
    }

    /// Logits (b x classes) of a batch of images (b x c x h x w) as a candle graph: differentiable in the
    /// parameters and the images.
    ///
    /// # Errors
    /// [`Error::Algebra`] or [`Error::Orthonormalisation`] when a parameter has no orthogonal weight,
    /// [`Error::Candle`] when the batch does not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.layers.iter().try_fold(images.clone(), |x, layer| apply(layer, &x))
    }

    /// The plain network that the parameters stand for at this moment.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    pub fn materialize(&self) -> Result<PlainNetwork> {
        let layers = self.layers.iter().map(|layer| match self.dtype {
            DType::F64 => materialize_layer::<f64>(layer),
            _ => materialize_layer::<f32>(layer),
        });
        PlainNetwork::new(self.spec.input, layers.collect::<Result<_>>()?)
    }
}

fn apply(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let weight = |p: &Parameters| weight_of(&p.name, p.parametrisation, p.weight.as_tensor());
    match (layer.kind, &layer.parameters) {
        (LayerKind::Conv { downsample, .. }, Some(p)) => {
            ops::cyclic_conv(x, &weight(p)?, Some(p.bias.as_tensor()), downsample)
        }
        (LayerKind::Linear, Some(p)) => ops::dense(x, &weight(p)?, Some(p.bias.as_tensor())),
        (kind, _) => ops::apply(&plain_activation(kind), x),
    }
}

fn materialize_layer<T: Element>(layer: &Layer) -> Result<PlainLayer> {
    let Some(p) = &layer.parameters else { return Ok(plain_activation(layer.kind)) };
    let device = p.weight.device();
    let parameter = array::<T, _>(p.weight.as_tensor(), p.weight.dims())?;
    let assembled = p.parametrisation.assemble(&p.name, parameter.view(), None)?;
    let weight = assembled.weight(parameter.view());
    let shape = weight.shape().to_vec();
    let weight = Tensor::from_vec(weight.iter().copied().collect::<Vec<T>>(), shape, device)?;
    let bias = Some(p.bias.as_tensor().copy()?);
    Ok(match layer.kind {
        LayerKind::Conv { downsample, .. } => {
            PlainLayer::CyclicConv(CyclicConv::new(weight, bias, downsample)?)
        }
        _ => PlainLayer::Dense(Dense::new(weight, bias)?),
    })
}

/// The plain layer of a kind that has no parameters.
fn plain_activation(kind: LayerKind) -> PlainLayer {
    match kind {
        LayerKind::MaxMin => PlainLayer::MaxMin,
        LayerKind::GroupSort(group) => PlainLayer::GroupSort { group },
        LayerKind::Relu => PlainLayer::Relu,
        LayerKind::Conv { .. } | LayerKind::Linear | LayerKind::Flatten => PlainLayer::Flatten,
    }
}

fn plan_layer(spec: &LayerSpec, input: SignalShape, name: &str) -> Result<Plan> {
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
    let (kernel, c_in) = (kernel_size / stride, after.channels);
    if kernel > after.height || kernel > after.width {
        let (layer, height, width) = (name.to_owned(), after.height, after.width);
        return Err(Error::KernelExceedsImage { layer, kernel, height, width });
    }
    let n = c_in.max(c_out);
    let (parametrisation, weight) = match method {
        ConvMethod::Bcop => (Parametrisation::Bcop { c_out, c_in }, vec![2 * kernel - 1, n, n]),
        ConvMethod::Unconstrained => (Parametrisation::Identity, vec![c_out, c_in, kernel, kernel]),
    };
    let fan_in = c_in * kernel * kernel;
    let output = SignalShape::Image(ImageShape { channels: c_out, ..after });
    let parameters = Some(ParameterPlan { parametrisation, weight, n_out: c_out, fan_in });
    Ok(Plan { kind: LayerKind::Conv { input: image, downsample: stride }, parameters, output })
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
        LinearMethod::Unconstrained => Parametrisation::Identity,
    };
    let plan = ParameterPlan { parametrisation, weight: vec![n_out, n_in], n_out, fan_in: n_in };
    Ok(Plan { kind: LayerKind::Linear, parameters: Some(plan), output: SignalShape::Vector(n_out) })
}

/// Fresh values of a layer's weight parameter and bias, drawn in f64.
fn draw(plan: &ParameterPlan, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>) {
    let root = |n: usize| 1.0 / (n as f64).sqrt();
    let (weight, bias_bound) = match plan.parametrisation {
        Parametrisation::Bcop { .. } => {
            let n = plan.weight[1];
            let draws = (0..plan.weight[0]).flat_map(|_| scaled(haar_orthogonal(n, rng), root(n)));
            (draws.collect(), root(plan.n_out))
        }
        Parametrisation::Polar => {
            let (n_out, n_in) = (plan.weight[0], plan.weight[1]);
            let frame: Array2<f64> = haar_frame(n_out.max(n_in), n_out.min(n_in), rng)
                .expect("as many columns as rows at the most");
            let weight = if n_out < n_in { frame.reversed_axes() } else { frame };
            (scaled(weight, root(n_in)), root(n_out))
        }
        Parametrisation::Identity => {
            let bound = root(plan.fan_in);
            let n = plan.weight.iter().product();
            ((0..n).map(|_| rng.random_range(-bound..bound)).collect(), bound)
        }
    };
    let bias = (0..plan.n_out).map(|_| rng.random_range(-bias_bound..bias_bound)).collect();
    (weight, bias)
}

/// The values in row-major order, times `factor`.
fn scaled(matrix: Array2<f64>, factor: f64) -> Vec<f64> {
    matrix.axis_iter(Axis(0)).flatten().map(|value| value * factor).collect()
}
