//! The shared table of layers, and every law that a layer obeys: a new kind of layer is a row here.
//!
//! Each row is a network of one layer of the kind and a dense head. It is trained for 200 random steps, once in one go and
//! once interrupted and resumed from its file; then it is materialised and checked in f64, whatever it was trained in.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor, Var};
use lipconv::{
    Activation, AdamConfig, Batch, BatchSource, ConvMethod, ImageShape, LayerSpec, LinearMethod,
    Method, Network, NetworkSpec, Observer, Optimizer, PlainLayer, RmsPropConfig, Sizes,
    StepReport, TrainConfig, Trainer, Weight, ops,
};
use ndarray::Array4;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::laws::dense_operator;
use crate::support::{check_close, distance, eps, sum_tolerance, uniform, values};
use crate::training::config;

const DTYPES: [DType; 2] = [DType::F64, DType::F32];

/// c_in, c_out, kernel size, stride, height and width.
type ConvShape = (usize, usize, usize, usize, usize, usize);

/// The smallest layer, every kernel size to 7, each order of the channels, image = kernel in one direction, images that
/// are not square, strides 2 and 3, and so many channels that taps are not gathered into one product.
const CONVS: [ConvShape; 12] = [
    (1, 1, 1, 1, 1, 1),
    (2, 5, 1, 1, 3, 4),
    (4, 4, 2, 1, 2, 5),
    (5, 3, 3, 1, 4, 7),
    (3, 3, 4, 1, 5, 4),
    (2, 4, 5, 1, 5, 6),
    (4, 2, 6, 1, 7, 6),
    (2, 2, 7, 1, 8, 7),
    (3, 8, 4, 2, 6, 4),
    (2, 9, 6, 3, 9, 6),
    (1, 4, 2, 2, 4, 6),
    (26, 6, 2, 1, 3, 2),
];

/// n_in and n_out; the last is large enough to be applied in factors.
const DENSES: [(usize, usize); 6] = [(1, 1), (3, 7), (7, 3), (6, 6), (40, 9), (70, 66)];

/// What is known of the norm of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    /// All singular values are 1.
    Orthogonal,
    /// At most 1, in training and when frozen.
    Bounded,
    /// Estimated or clipped in training; at most 1 when frozen.
    Estimated,
    /// Anything.
    Free,
}

/// What a method keeps between steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// The parameter, which is trained.
    Parameter,
    /// The parameter as it was drawn.
    FixedParameter,
    /// The parameter and a vector.
    Vector,
}

/// One network: the layer in question comes first.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    method: Method,
    norm: Norm,
    keeps: Keeps,
    sizes: Sizes,
    spec: NetworkSpec,
    dtype: DType,
    optimizer: Optimizer,
    /// Longest sum of products in the layer.
    inner: usize,
}

const HEAD: LayerSpec = LayerSpec::Linear { out_features: 3, method: LinearMethod::Bjorck };

/// All channels sorted: a nonlinearity for any number of them that lets every gradient through.
fn sort(channels: usize) -> LayerSpec {
    LayerSpec::Activation(Activation::GroupSort { group: channels })
}

fn cases(method: Method, norm: Norm, keeps: Keeps) -> impl Iterator<Item = Case> {
    let layers: Vec<(LayerSpec, ImageShape, Sizes)> = match method {
        Method::Conv(method) => CONVS.iter().map(|&shape| conv_layer(method, shape)).collect(),
        Method::Linear(method) => DENSES.iter().map(|&shape| dense_layer(method, shape)).collect(),
    };
    let rows = layers.into_iter().enumerate().flat_map(|(row, l)| DTYPES.map(|d| (row, l, d)));
    rows.map(move |(row, (layer, input, sizes), dtype)| {
        let c_out = sizes.weight_shape()[0];
        let layers = match method {
            Method::Conv(_) => vec![layer, sort(c_out), LayerSpec::Flatten, HEAD],
            Method::Linear(_) => vec![LayerSpec::Flatten, layer, sort(c_out), HEAD],
        };
        let inner = match layer {
            LayerSpec::Conv { kernel_size, .. } => input.channels * kernel_size * kernel_size,
            _ => input.channels,
        };
        Case {
            name: format!("{layer:?} on {input:?} {dtype:?}"),
            method,
            norm,
            keeps,
            sizes,
            spec: NetworkSpec { input, layers },
            dtype,
            optimizer: optimizer(row),
            inner: inner + c_out,
        }
    })
}

fn conv_layer(method: ConvMethod, shape: ConvShape) -> (LayerSpec, ImageShape, Sizes) {
    let (c_in, c_out, kernel_size, stride, height, width) = shape;
    let layer = LayerSpec::Conv { c_out, kernel_size, stride, method };
    let image = (height / stride, width / stride);
    let sizes = Sizes::conv(c_out, c_in * stride * stride, kernel_size / stride, image);
    (layer, ImageShape::new(c_in, height, width), sizes)
}

fn dense_layer(
    method: LinearMethod,
    (n_in, out_features): (usize, usize),
) -> (LayerSpec, ImageShape, Sizes) {
    let layer = LayerSpec::Linear { out_features, method };
    (layer, ImageShape::new(n_in, 1, 1), Sizes::dense(out_features, n_in))
}

fn optimizer(row: usize) -> Optimizer {
    if row.is_multiple_of(2) {
        Optimizer::default()
    } else {
        Optimizer::RmsProp(RmsPropConfig::default())
    }
}

/// Images and labels that have nothing to do with each other.
struct Noise {
    input: ImageShape,
    dtype: DType,
    seed: u64,
}

const N_EPOCHS: usize = 10;
const STEPS_PER_EPOCH: usize = 20;

impl BatchSource for Noise {
    fn n_batches(&self) -> usize {
        STEPS_PER_EPOCH
    }

    fn start_epoch(&mut self, _epoch: usize, seed: u64) {
        self.seed = seed;
    }

    fn batch(&mut self, index: usize) -> lipconv::Result<Batch> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(index as u64));
        let ImageShape { channels, height, width } = self.input;
        let shape = [4, channels, height, width];
        let images = uniform(&shape, 0.0, 1.0, self.dtype, rng.random());
        Ok(Batch { images, labels: (0..4).map(|_| rng.random_range(0..3)).collect() })
    }
}

/// Saves after 130 steps and stops.
struct Interrupt(std::path::PathBuf);

impl Observer for Interrupt {
    fn after_step(
        &mut self,
        trainer: &Trainer,
        report: &StepReport,
    ) -> lipconv::Result<ControlFlow<()>> {
        if report.step < 130 {
            return Ok(ControlFlow::Continue(()));
        }
        trainer.save(&self.0)?;
        Ok(ControlFlow::Break(()))
    }
}

fn trainer(case: &Case) -> Trainer {
    trainer_with_rate(case, 1e-2)
}

fn trainer_with_rate(case: &Case, learning_rate: f64) -> Trainer {
    let network = Network::new(&case.spec, case.dtype, &Device::Cpu, 11).unwrap();
    let settings = TrainConfig { learning_rate, optimizer: case.optimizer, ..config(N_EPOCHS) };
    Trainer::new(network, settings).unwrap().epochs_of(STEPS_PER_EPOCH).unwrap()
}

/// Every number that a run ends with.
fn bits(network: &Network) -> Vec<u64> {
    let variables = network.variables().into_iter().map(|(_, v)| v.as_tensor().clone());
    let all = variables.chain(network.vectors().into_iter().map(|(_, vector)| vector));
    all.flat_map(|t| values(&t)).map(f64::to_bits).collect()
}

#[track_caller]
fn check_case(case: &Case) {
    let mut source = Noise { input: case.spec.input, dtype: case.dtype, seed: 0 };
    let start = trainer(case);
    let mut whole = trainer(case);
    whole.fit(&mut source, &mut ()).unwrap();
    assert_eq!(whole.n_steps(), 200);
    check_resumption(case, &mut source, whole.network());
    check_what_training_changes(case, start.network(), whole.network());
    check_norms(case, whole.network());
    check_materialisation(case, whole.network());
    check_gradients(case, whole.network());
}

#[track_caller]
fn check_resumption(case: &Case, source: &mut Noise, whole: &Network) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    trainer(case).fit(source, &mut Interrupt(path.clone())).unwrap();
    let mut resumed = Trainer::resume(&path, &Device::Cpu).unwrap();
    assert_eq!(resumed.n_steps(), 130, "{}", case.name);
    resumed.fit(source, &mut ()).unwrap();
    assert_eq!(bits(resumed.network()), bits(whole), "{}: a resumed run", case.name);
}

/// All parameters but fixed ones, and vectors; and evaluation changes nothing.
#[track_caller]
fn check_what_training_changes(case: &Case, start: &Network, end: &Network) {
    let first = &start.variables()[0].0;
    let fixed = |name: &str| case.keeps == Keeps::FixedParameter && name == first;
    // a layer of one value has no choice when its norm is 1
    let has_choice = start.variables()[1].1.elem_count() > 1;
    for ((name, a), (_, b)) in start.variables().iter().zip(end.variables()) {
        if has_choice || fixed(name) {
            assert_eq!(distance(a, &b) == 0.0, fixed(name), "{}: {name}", case.name);
        }
    }
    let has_vector = case.keeps == Keeps::Vector;
    assert_eq!(end.vectors().len(), usize::from(has_vector), "{}", case.name);
    let before = bits(end);
    let ImageShape { channels, height, width } = end.spec().input;
    let x = uniform(&[2, channels, height, width], 0.0, 1.0, case.dtype, 3);
    end.forward(&x).unwrap();
    end.materialize().unwrap().forward(&x).unwrap();
    end.lipschitz_estimates().unwrap();
    assert_eq!(bits(end), before, "{}: evaluation", case.name);
}

/// 4 eps for each of the numbers that are summed, about.
fn norm_tolerance(case: &Case) -> f64 {
    4.0 * eps(case.dtype) * case.inner as f64
}

/// The singular values of the dense operator against 1 and against the bounds.
#[track_caller]
fn check_norms(case: &Case, network: &Network) {
    let plain = network.materialize().unwrap().to_dtype(DType::F64).unwrap();
    let input = case.spec.input;
    let (index, layer) = linear_layer(plain.layers());
    let operator = dense_operator(layer, [input.channels, input.height, input.width]);
    let (rows, columns) = operator.dim();
    let operator =
        Array4::from_shape_vec((rows, columns, 1, 1), operator.into_iter().collect()).unwrap();
    let sigma = blockconv::spectrum::layer_singular_values(operator.view(), (1, 1)).unwrap();
    let (largest, smallest) = (sigma[0], sigma[sigma.len() - 1]);
    let allowed = norm_tolerance(case);
    assert!(
        case.norm == Norm::Free || largest <= 1.0 + allowed,
        "{}: sigma_max {largest}, allowed {allowed:e}",
        case.name
    );
    if case.norm == Norm::Orthogonal {
        let allowed = if case.dtype == DType::F32 { 1e-5 } else { allowed };
        assert!(smallest >= 1.0 - allowed, "{}: sigma_min {smallest}", case.name);
    }
    // the decomposition above is itself off by a few roundings
    let rounding = 16.0 * eps(DType::F64) * sigma.len() as f64;
    let bound = plain.lipschitz_bounds().unwrap()[index];
    assert!(bound.is_rigorous());
    assert!(
        bound.value() >= largest * (1.0 - rounding),
        "{}: {} < {largest}",
        case.name,
        bound.value()
    );
    assert!(
        bound.value() <= largest.max(1e-3) * (1.0 + 1e-4),
        "{}: {} > {largest}",
        case.name,
        bound.value()
    );
    let every_size = layer.lipschitz_bound("layer").unwrap().value();
    assert!(every_size >= bound.value(), "{}: {every_size} < {}", case.name, bound.value());
    let estimate = network.lipschitz_estimates().unwrap()[0];
    assert!(!estimate.is_rigorous(), "{}", case.name);
    let about_one = (estimate.value() - 1.0).abs() <= 1e-5;
    assert!(about_one || case.norm != Norm::Orthogonal, "{}: {}", case.name, estimate.value());
}

fn linear_layer(layers: &[PlainLayer]) -> (usize, &PlainLayer) {
    let mut linear = layers.iter().enumerate().filter(|(_, layer)| layer.parameters().is_some());
    linear.next().unwrap()
}

/// The parametrised weight of the layer in question, as a tensor operation on its parameter.
fn weight(case: &Case, parameter: &Tensor, vector: Option<&Tensor>) -> Weight {
    ops::weight(case.method, &case.sizes, parameter, vector).unwrap()
}

/// What is materialised is the parametrised weight, divided by a number that is at least 1, and 1 where the
/// parametrisation itself bounds the norm; outputs agree accordingly.
#[track_caller]
fn check_materialisation(case: &Case, network: &Network) {
    let plain = network.materialize().unwrap();
    let (index, layer) = linear_layer(plain.layers());
    let (frozen, bias) = layer.parameters().unwrap();
    let vectors = network.vectors();
    let vector = vectors.first().map(|(_, vector)| vector);
    let trained = weight(case, network.variables()[0].1.as_tensor(), vector).weight;
    let inner =
        |a: &Tensor, b: &Tensor| values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum::<f64>();
    let factor = inner(&trained, frozen) / inner(frozen, frozen);
    let tolerance = norm_tolerance(case);
    let largest = if case.norm == Norm::Estimated { 1.1 } else { 1.0 + tolerance };
    assert!(factor >= 1.0 - tolerance && factor <= largest, "{}: divided by {factor}", case.name);
    check_close(&case.name, &trained, &(frozen * factor).unwrap(), tolerance);
    // the same network with that factor put back
    let mut layers = plain.layers().to_vec();
    let (rescaled, bias) = ((frozen * factor).unwrap(), bias.cloned());
    layers[index] = match layer {
        PlainLayer::CyclicConv(conv) => PlainLayer::CyclicConv(
            lipconv::CyclicConv::new(rescaled, bias, conv.downsample()).unwrap(),
        ),
        _ => PlainLayer::Dense(lipconv::Dense::new(rescaled, bias).unwrap()),
    };
    let rescaled = lipconv::PlainNetwork::new(plain.input(), layers).unwrap();
    let ImageShape { channels, height, width } = plain.input();
    let x = uniform(&[3, channels, height, width], 0.0, 1.0, case.dtype, 5);
    let (a, b) = (network.forward(&x).unwrap(), rescaled.forward(&x).unwrap());
    let scale = values(&a).iter().fold(1.0_f64, |m, v| m.max(v.abs()));
    check_close(&case.name, &a, &b, sum_tolerance(case.dtype, 64 * case.inner, scale));
}

/// The gradient of the weight in its parameter against central differences, in f64.
#[track_caller]
fn check_gradients(case: &Case, network: &Network) {
    if case.dtype != DType::F64 {
        return;
    }
    let parameter = network.variables()[0].1.as_tensor().copy().unwrap();
    let converged = |parameter: &Tensor| {
        let mut vector = network.vectors().first().map(|(_, vector)| vector.clone())?;
        for _ in 0..400 {
            vector = weight(case, parameter, Some(&vector)).vector.unwrap();
        }
        Some(vector)
    };
    let value = |parameter: &Tensor, vector: Option<&Tensor>| {
        let weight = weight(case, parameter, vector).weight;
        let d = uniform(weight.dims(), -1.0, 1.0, DType::F64, 8);
        (weight * d).unwrap().sum_all().unwrap()
    };
    let variable = Var::from_tensor(&parameter).unwrap();
    let vector = converged(&parameter);
    let gradients = value(variable.as_tensor(), vector.as_ref()).backward().unwrap();
    let gradient = gradients.get(variable.as_tensor()).unwrap();
    let direction = uniform(parameter.dims(), -1.0, 1.0, DType::F64, 9);
    let at = |t: f64| {
        let moved = (&parameter + (&direction * t).unwrap()).unwrap();
        values(&value(&moved, converged(&moved).as_ref()))[0]
    };
    let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
    let derivative: f64 = values(&direction).iter().zip(values(gradient)).map(|(d, g)| d * g).sum();
    let allowed = 1e-6 * derivative.abs().max(1.0);
    assert!(
        (difference - derivative).abs() <= allowed,
        "{}: {difference} and {derivative}",
        case.name
    );
}

macro_rules! laws {
    ($($name:ident: $method:expr, $norm:expr, $keeps:expr;)+) => {
        /// Every row.
        const TABLE: &[(Method, Norm, Keeps)] = &[$(($method, $norm, $keeps)),+];

        $(
            #[test]
            fn $name() {
                cases($method, $norm, $keeps).for_each(|case| check_case(&case));
            }
        )+
    };
}

use Method::{Conv, Linear};

laws! {
    bcop_obeys_every_law: Conv(ConvMethod::Bcop), Norm::Orthogonal, Keeps::Parameter;
    fixed_bcop_obeys_every_law: Conv(ConvMethod::BcopFixed), Norm::Orthogonal, Keeps::FixedParameter;
    rko_obeys_every_law: Conv(ConvMethod::Rko), Norm::Bounded, Keeps::Parameter;
    ossn_obeys_every_law: Conv(ConvMethod::Ossn), Norm::Estimated, Keeps::Vector;
    svcm_obeys_every_law: Conv(ConvMethod::Svcm), Norm::Estimated, Keeps::Parameter;
    rk_l2ne_obeys_every_law: Conv(ConvMethod::RkL2ne), Norm::Bounded, Keeps::Parameter;
    aol_obeys_every_law: Conv(ConvMethod::Aol), Norm::Bounded, Keeps::Parameter;
    unconstrained_convolutions_obey_every_law: Conv(ConvMethod::Unconstrained), Norm::Free, Keeps::Parameter;
    bjorck_obeys_every_law: Linear(LinearMethod::Bjorck), Norm::Orthogonal, Keeps::Parameter;
    lln_obeys_every_law: Linear(LinearMethod::Lln), Norm::Free, Keeps::Parameter;
    bro_obeys_every_law: Linear(LinearMethod::Bro), Norm::Bounded, Keeps::Parameter;
    unconstrained_dense_layers_obey_every_law: Linear(LinearMethod::Unconstrained), Norm::Free, Keeps::Parameter;
}

#[test]
fn every_method_has_a_row_and_a_name_of_its_own() {
    let rows: Vec<Method> = TABLE.iter().map(|(method, ..)| *method).collect();
    let convs = ConvMethod::ALL.iter().map(|&method| Conv(method));
    let all: Vec<Method> = convs.chain(LinearMethod::ALL.iter().map(|&m| Linear(m))).collect();
    assert_eq!(rows, all);
    for &method in ConvMethod::ALL {
        assert_eq!(method.name().parse::<ConvMethod>().unwrap(), method);
        assert_eq!(serde_json::to_value(method).unwrap(), method.name());
    }
    for &method in LinearMethod::ALL {
        assert_eq!(method.name().parse::<LinearMethod>().unwrap(), method);
        assert_eq!(serde_json::to_value(method).unwrap(), method.name());
    }
}

/// The engine and candle's operations train every kind of layer alike. ReLU after Flatten, where it does the same as before it or
/// (on images, which are not negative) nothing, is outside the engine's block form.
#[test]
fn engine_and_graph_train_every_kind_alike() {
    for case in TABLE.iter().flat_map(|&(method, norm, keeps)| cases(method, norm, keeps)) {
        let mut on_engine = case.spec.layers.clone();
        let mut on_graph = on_engine.clone();
        match case.method {
            Linear(_) => on_graph.insert(1, LayerSpec::Activation(Activation::Relu)),
            _ => {
                on_engine[1] = LayerSpec::Activation(Activation::Relu);
                on_graph.clone_from(&on_engine);
                on_graph.swap(1, 2);
            }
        }
        check_alike(&case, [on_engine, on_graph]);
    }
}

/// Three steps from the same start lead to the same place.
#[track_caller]
fn check_alike(case: &Case, networks: [Vec<LayerSpec>; 2]) {
    // with a small epsilon a rounding of a small gradient would count as much as a large gradient
    let optimizer = match case.optimizer {
        Optimizer::RmsProp(c) => Optimizer::RmsProp(RmsPropConfig { epsilon: 1e-2, ..c }),
        _ => Optimizer::Adam(AdamConfig { epsilon: 1e-2, ..AdamConfig::default() }),
    };
    let [a, b] = networks.map(|layers| {
        let spec = NetworkSpec { layers, ..case.spec.clone() };
        // a large matrix stays well-conditioned, as the two ways to its polar factor need in f32
        let mut trainer = trainer_with_rate(&Case { spec, optimizer, ..case.clone() }, 1e-4);
        // large enough for ties of row sums, small enough for the condition of the largest matrix
        crate::portable::perturb(&[trainer.network()], 1e-3);
        let mut source = Noise { input: case.spec.input, dtype: case.dtype, seed: 4 };
        for n in 0..3 {
            trainer.step(&source.batch(n).unwrap()).unwrap();
        }
        trainer.into_network()
    });
    // beside the sums of the layer, those of some twenty steps of an orthonormalisation
    let allowed = sum_tolerance(case.dtype, 256 * case.inner, 1.0);
    for ((name, a), (_, b)) in a.variables().iter().zip(b.variables()) {
        check_close(&format!("{}: {name}", case.name), a, &b, allowed);
    }
    for ((name, a), (_, b)) in a.vectors().iter().zip(b.vectors()) {
        check_close(&format!("{}: {name}", case.name), a, &b, allowed);
    }
}
