//! Parametrised networks: what is trained.
//!
//! A [`Network`] owns free parameters, one weight parameter and one bias for each linear layer, as candle
//! variables with fixed names (`conv1.weight`, `conv1.bias`, … `linear2.bias`), and for each OSSN layer the vector of
//! its power iteration (`conv1.vector`), which training steps alone change. [`Network::materialize`] makes
//! the [`PlainNetwork`] that they stand for. [`Network::forward`] is the same function as a candle graph.
//!
//! Law: both give the same outputs, but for one factor per RKO, RK-L2NE, OSSN or SVCM layer: what is materialised has been
//! divided by a proven bound of its norm where that exceeds 1, while the graph knows an estimate at best.

mod gain;
mod module;
mod plan;

use candle_core::{DType, Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::activation::Activation;
use crate::bounds::array;
use crate::element::{Element, to_vec};
use crate::engine::{Step, has_block_form};
use crate::error::{Error, Result};
use crate::methods::{self, Method, Sizes, Weight, estimated_norm, frozen_weight, weight_of};
use crate::ops;
use crate::plain::{CyclicConv, Dense, PlainLayer, PlainNetwork};
use crate::shape::{ImageShape, SignalShape};
use crate::spec::{LayerSpec, NetworkSpec};
use module::ModuleLayer;
use plan::{ParameterPlan, draw, plan_layer};
use projectors::LipschitzBound;

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
    /// What makes something of the parameters, where they are no weight.
    module: Option<ModuleLayer>,
}

/// What a layer does, without its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LayerKind {
    Conv { input: ImageShape, downsample: usize },
    Module,
    Linear,
    Activation(Activation),
    Flatten,
}

impl LayerKind {
    /// The layer as the engine's block form sees it.
    pub(crate) fn step(self) -> Step {
        match self {
            Self::Conv { .. } | Self::Linear => Step::Linear,
            Self::Activation(activation) => Step::Activation(activation),
            Self::Flatten => Step::Flatten,
            Self::Module => Step::Other,
        }
    }
}

/// The free parameters of a linear layer.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub(crate) name: String,
    pub(crate) method: Method,
    pub(crate) sizes: Sizes,
    pub(crate) weight: Var,
    pub(crate) bias: Var,
    /// What the method keeps between steps, such as the vector of OSSN's power iteration.
    pub(crate) vector: Option<Var>,
    /// Whether training changes the weight.
    pub(crate) trained: bool,
}

impl Parameters {
    /// The weight parameter in a graph: a constant where it is not trained, so that no optimizer moves it.
    fn graph_weight(&self) -> Tensor {
        if self.trained {
            self.weight.as_tensor().clone()
        } else {
            self.weight.as_detached_tensor()
        }
    }

    /// The weight in a graph, of a layer that has one.
    fn graph(&self, parameter: &Tensor, on_cpu: bool) -> Result<Weight> {
        let vector = self.vector.as_ref().map(Var::as_tensor);
        if !on_cpu {
            return self.method.definition().weight(&self.sizes, parameter, vector);
        }
        let (weight, vector) = weight_of(self.layer(), self.method, parameter, vector)?;
        Ok(Weight { weight, vector, defect: None })
    }

    /// The layer as its method sees it.
    pub(crate) fn layer(&self) -> methods::Layer<'_> {
        methods::Layer { name: &self.name, sizes: self.sizes }
    }
}

/// A forward pass as a graph.
pub(crate) struct GraphForward {
    pub(crate) logits: Tensor,
    /// The weight of the last linear layer.
    pub(crate) last_weight: Option<Tensor>,
    /// For each linear layer, the vector that the next training step starts from.
    pub(crate) vectors: Vec<Option<Tensor>>,
    /// For each linear layer made of orthogonal factors in candle's operations, how far they are from orthonormal.
    pub(crate) defects: Vec<Option<Tensor>>,
}

/// The values of a layer's parameters.
struct Values {
    weight: Tensor,
    bias: Tensor,
    vector: Option<Tensor>,
}

impl Network {
    /// A network with freshly drawn parameters; the same seed gives the same network on every device and,
    /// up to rounding, in every element type.
    ///
    /// # Errors
    /// [`Error::Zero`], [`Error::StrideDoesNotDivide`], [`Error::KernelExceedsImage`],
    /// [`Error::GroupsDoNotDivide`] or [`Error::LayerOrder`] when the layers do not fit; [`Error::TooManyValues`] beyond 2²²
    /// values between two layers; [`Error::InvalidSetting`] for an element type other than f32 and f64.
    pub fn new(spec: &NetworkSpec, dtype: DType, device: &Device, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        Self::build(spec, dtype, device, |plan, _| {
            let ParameterPlan { method, sizes, .. } = plan;
            let (weight, bias, vector) = draw(plan, &mut rng)?;
            let vector_shape = method.vector_shape(sizes);
            let vector = vector_shape.map(|shape| Tensor::from_vec(vector, shape, device));
            Ok(Values {
                weight: Tensor::from_vec(weight, plan.shape(), device)?,
                bias: Tensor::from_vec(bias, sizes.n_out, device)?,
                vector: vector.transpose()?,
            })
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
            let ParameterPlan { method, sizes, .. } = plan;
            let weight = supply(&format!("{name}.weight"), &plan.shape())?;
            let bias = supply(&format!("{name}.bias"), &[sizes.n_out])?;
            let vector_shape = method.vector_shape(sizes);
            let vector = vector_shape.map(|shape| supply(&format!("{name}.vector"), &shape));
            Ok(Values { weight, bias, vector: vector.transpose()? })
        })
    }

    fn build(
        spec: &NetworkSpec,
        dtype: DType,
        device: &Device,
        mut supply: impl FnMut(&ParameterPlan, &str) -> Result<Values>,
    ) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::F64) {
            let value = dtype.as_str().to_owned();
            return Err(Error::InvalidSetting { name: "dtype", value, expected: "f32 or f64" });
        }
        if spec.input.n_values() == 0 {
            return Err(Error::Zero { what: "image size".into() });
        }
        if spec.layers.is_empty() {
            return Err(Error::Zero { what: "number of layers".into() });
        }
        let mut shape = SignalShape::Image(spec.input);
        shape.check_size(|| "an image".into())?;
        let (mut n_convs, mut n_linears) = (0, 0);
        let mut layers = Vec::with_capacity(spec.layers.len());
        for layer in &spec.layers {
            let (counter, kind) = match layer {
                LayerSpec::Conv { .. } | LayerSpec::Module { .. } => (&mut n_convs, "conv"),
                _ => (&mut n_linears, "linear"),
            };
            let name = format!("{kind}{}", *counter + 1);
            let plan = plan_layer(layer, shape, &name)?;
            shape = plan.output;
            shape.check_size(|| format!("the output of {name}"))?;
            let parameters = match &plan.parameters {
                None => None,
                Some(parameters) => {
                    *counter += 1;
                    let Values { weight, bias, vector } = supply(parameters, &name)?;
                    let var = |t: Tensor| Var::from_tensor(&t.to_dtype(dtype)?.to_device(device)?);
                    Some(Parameters {
                        name,
                        method: parameters.method,
                        sizes: parameters.sizes,
                        weight: var(weight)?,
                        bias: var(bias)?,
                        vector: vector.map(var).transpose()?,
                        trained: parameters.method.definition().is_trained(),
                    })
                }
            };
            let module = plan.parameters.and_then(|parameters| parameters.module);
            layers.push(Layer { kind: plan.kind, parameters, module });
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

    /// Number of parameters, those that are drawn once and never trained included.
    #[must_use]
    pub fn n_parameters(&self) -> usize {
        self.variables().iter().map(|(_, v)| v.elem_count()).sum()
    }

    /// Number of parameters that training changes: all but the weights of BCOP-fixed.
    #[must_use]
    pub fn n_trained_parameters(&self) -> usize {
        let fixed = self.parameters().filter(|p| !p.trained).map(|p| p.weight.elem_count());
        self.n_parameters() - fixed.sum::<usize>()
    }

    /// The parameters that an optimizer may change, with their names: all but the weights of BCOP-fixed.
    ///
    /// A foreign optimizer moves neither the vectors of OSSN nor does it clip SVCM's kernels: [`Trainer`](crate::Trainer) does
    /// both.
    #[must_use]
    pub fn trained_variables(&self) -> Vec<(String, Var)> {
        let weights =
            self.parameters().map(|p| (p.trained, format!("{}.weight", p.name), &p.weight));
        let biases = self.parameters().map(|p| (true, format!("{}.bias", p.name), &p.bias));
        let pairs = weights.zip(biases).flat_map(|(weight, bias)| [weight, bias]);
        pairs.filter(|(trained, ..)| *trained).map(|(_, name, var)| (name, var.clone())).collect()
    }

    /// All parameters with their names, first layer first, weight before bias: also those that are not to be trained, for
    /// which see [`Network::trained_variables`].
    #[must_use]
    pub fn variables(&self) -> Vec<(String, Var)> {
        let mut variables = Vec::new();
        for p in self.parameters() {
            variables.push((format!("{}.weight", p.name), p.weight.clone()));
            variables.push((format!("{}.bias", p.name), p.bias.clone()));
        }
        variables
    }

    /// What training carries from step to step beside the parameters: the vectors of OSSN's power iterations
    /// (`conv1.vector` …), c_in x h x w of each layer's downsampled input.
    #[must_use]
    pub fn vectors(&self) -> Vec<(String, Tensor)> {
        let vector = |p: &Parameters| {
            p.vector.as_ref().map(|v| (format!("{}.vector", p.name), v.as_tensor().clone()))
        };
        self.parameters().filter_map(vector).collect()
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The parameters of all linear layers, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameters> {
        self.layers.iter().filter_map(|layer| layer.parameters.as_ref())
    }

    /// Logits (b x classes) of a batch of images (b x c x h x w, or b x c where h = w = 1) as a candle graph: differentiable in
    /// the trained parameters and the images.
    ///
    /// # Errors
    /// [`Error::Algebra`] or [`Error::Orthonormalisation`] when a parameter has no orthogonal weight,
    /// [`Error::Candle`] when the batch does not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let images = self.spec.input.batch(images)?;
        Ok(self.graph(&images, self.device.is_cpu())?.logits)
    }

    /// The logits with what a training step needs beside them: in the CPU's own operations where `on_cpu`, in candle's alone
    /// otherwise, on any device.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    pub(crate) fn graph(&self, images: &Tensor, on_cpu: bool) -> Result<GraphForward> {
        let bias = |bias: &Var| bias.as_tensor().clone();
        self.graph_of(images, on_cpu, Parameters::graph_weight, bias)
    }

    /// The logits, the parameters being constants: differentiable in the images.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    pub(crate) fn forward_constant(&self, images: &Tensor, on_cpu: bool) -> Result<Tensor> {
        let weight = |p: &Parameters| p.weight.as_detached_tensor();
        Ok(self.graph_of(images, on_cpu, weight, Var::as_detached_tensor)?.logits)
    }

    fn graph_of(
        &self,
        images: &Tensor,
        on_cpu: bool,
        parameter_of: impl Fn(&Parameters) -> Tensor,
        bias_of: impl Fn(&Var) -> Tensor,
    ) -> Result<GraphForward> {
        let mut forward = GraphForward {
            logits: images.clone(),
            last_weight: None,
            vectors: Vec::new(),
            defects: Vec::new(),
        };
        for layer in &self.layers {
            let x = &forward.logits;
            let Some(p) = &layer.parameters else {
                forward.logits = ops::apply(&plain_activation(layer.kind), x)?;
                continue;
            };
            let (parameter, bias) = (parameter_of(p), bias_of(&p.bias));
            if let Some(module) = &layer.module {
                forward.logits = module.forward(x, &parameter, &bias)?;
                forward.last_weight = None;
                forward.vectors.push(None);
                forward.defects.push(None);
                continue;
            }
            let Weight { weight, vector, defect } = p.graph(&parameter, on_cpu)?;
            let bias = Some(&bias);
            forward.logits = match layer.kind {
                LayerKind::Conv { downsample, .. } if on_cpu => {
                    ops::cyclic_conv(x, &weight, bias, downsample)?
                }
                LayerKind::Conv { downsample, .. } => {
                    ops::portable::cyclic_conv(x, &weight, bias, downsample)?
                }
                _ => ops::dense(x, &weight, bias)?,
            };
            forward.last_weight = Some(weight);
            forward.vectors.push(vector);
            forward.defects.push(defect);
        }
        Ok(forward)
    }

    /// Whether the engine can run the network.
    pub(crate) fn has_block_form(&self) -> bool {
        has_block_form(self.layers.iter().map(|layer| layer.kind.step()))
    }

    /// Whether a method projects its parameter after batch `index` (from 0) of an epoch of `n_batches`.
    pub(crate) fn projects_after(&self, index: usize, n_batches: usize) -> bool {
        self.parameters().any(|p| p.method.definition().projects_after(index, n_batches))
    }

    /// Projects the parameters whose methods do so after batch `index` (from 0) of an epoch of `n_batches`.
    ///
    /// # Errors
    /// [`Error::Algebra`] when a parameter is not finite.
    pub(crate) fn project_after(&self, index: usize, n_batches: usize) -> Result<()> {
        let due = |p: &&Parameters| p.method.definition().projects_after(index, n_batches);
        self.parameters().filter(due).try_for_each(|p| match self.dtype {
            DType::F64 => project::<f64>(p),
            _ => project::<f32>(p),
        })
    }

    /// The plain network that the parameters stand for at this moment.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    pub fn materialize(&self) -> Result<PlainNetwork> {
        let layers = self.layers.iter().map(materialize_layer);
        PlainNetwork::new(self.spec.input, layers.collect::<Result<Vec<_>>>()?.concat())
    }

    /// What the norms of the linear layers are in training, about: estimates, which prove nothing. Bounds are
    /// those of the [materialised](Network::materialize) network.
    ///
    /// # Errors
    /// As for [`Network::forward`].
    pub fn lipschitz_estimates(&self) -> Result<Vec<LipschitzBound>> {
        let layers = self.layers.iter().filter_map(|layer| {
            let parameters = layer.parameters.as_ref()?;
            Some(match self.dtype {
                // by construction
                _ if layer.module.is_some() => LipschitzBound::estimate(1.0)
                    .map_err(|source| parameters.layer().orthonormalisation(source)),
                DType::F64 => estimate::<f64>(parameters),
                _ => estimate::<f32>(parameters),
            })
        });
        layers.collect()
    }
}

fn project<T: Element>(p: &Parameters) -> Result<()> {
    let parameter = array::<T, _>(p.weight.as_tensor(), p.weight.dims())?;
    let projected = p.method.on_cpu().projected(p.layer(), parameter.view())?;
    let values = projected.iter().copied().collect::<Vec<T>>();
    Ok(p.weight.set(&Tensor::from_vec(values, p.weight.shape(), p.weight.device())?)?)
}

fn estimate<T: Element>(p: &Parameters) -> Result<LipschitzBound> {
    let on_cpu = |v: &Var| v.as_tensor().to_device(&Device::Cpu);
    let vector = p.vector.as_ref().map(on_cpu).transpose()?;
    let vector = vector.as_ref();
    let (weight, _) = weight_of(p.layer(), p.method, &on_cpu(&p.weight)?, vector)?;
    let source = |source| p.layer().orthonormalisation(source);
    if let Method::Conv(_) = p.method {
        let vector = vector.map(to_vec::<T>).transpose()?;
        let weight = array::<T, _>(&weight, weight.dims())?;
        let norm = estimated_norm(weight.view(), p.sizes.image, vector);
        return LipschitzBound::estimate(norm).map_err(source);
    }
    let weight = array::<T, _>(&weight, weight.dims2()?)?;
    projectors::norms::spectral_norm_estimate(weight.view()).map_err(source)
}

fn materialize_layer(layer: &Layer) -> Result<Vec<PlainLayer>> {
    let Some(p) = &layer.parameters else { return Ok(vec![plain_activation(layer.kind)]) };
    if let Some(module) = &layer.module {
        return module.materialize(p.weight.as_tensor(), p.bias.as_tensor());
    }
    let weight = frozen_weight(p.layer(), p.method, p.weight.as_tensor())?;
    let bias = Some(p.bias.as_tensor().copy()?);
    Ok(vec![match layer.kind {
        LayerKind::Conv { downsample, .. } => {
            PlainLayer::CyclicConv(CyclicConv::new(weight, bias, downsample)?)
        }
        _ => PlainLayer::Dense(Dense::new(weight, bias)?),
    }])
}

/// The plain layer of a kind that has no parameters.
fn plain_activation(kind: LayerKind) -> PlainLayer {
    match kind {
        LayerKind::Activation(activation) => PlainLayer::Activation(activation),
        _ => PlainLayer::Flatten,
    }
}

/// For use among candle's own modules.
impl candle_core::Module for Network {
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Self::forward(self, images)?)
    }
}
