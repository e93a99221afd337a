//! Layers in the frequency domain, exponentials and residual layers: against their dense operators, at hard parameters, and
//! against arrays of an independent program (`golden/layers.py`).

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use lipconv::nn::{
    self, Materialize, SandwichConfig, SllConfig, SocConfig, SpectralConfig, SpectralMethod,
    StepRule,
};
use lipconv::{CyclicConv, ImageShape, PlainLayer, Result, SignalShape};

use crate::aoc::{defect, largest_singular_value, operator};
use crate::support::{check_close, eps, sum_tolerance, uniform, values};

const CPU: Device = Device::Cpu;

/// c_in, c_out, kernel size, stride, height and width.
type Row = (usize, usize, usize, usize, usize, usize);

/// c_in <, =, > c_out, odd and even kernels, strides, odd, even, prime and non-square images, a kernel as large as the image.
const ROWS: [Row; 9] = [
    (1, 1, 1, 1, 1, 1),
    (2, 3, 3, 1, 4, 4),
    (3, 3, 3, 1, 5, 5),
    (4, 2, 3, 1, 7, 3),
    (2, 2, 3, 1, 3, 3),
    (2, 5, 1, 1, 2, 5),
    (1, 3, 6, 2, 8, 6),
    (1, 4, 6, 2, 6, 6),
    (2, 3, 9, 3, 9, 12),
];

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Spectral(SpectralMethod),
    Soc(usize),
    /// With hidden channels.
    Residual(StepRule, usize),
    Sandwich,
}

const KINDS: [Kind; 9] = [
    Kind::Spectral(SpectralMethod::Cayley),
    Kind::Spectral(SpectralMethod::Bro),
    Kind::Spectral(SpectralMethod::Lot),
    Kind::Soc(15),
    Kind::Soc(2),
    Kind::Residual(StepRule::Sll, 0),
    Kind::Residual(StepRule::Sll, 5),
    Kind::Residual(StepRule::Cpl, 3),
    Kind::Sandwich,
];

impl Kind {
    fn module(self, row: Row, vb: VarBuilder<'_>) -> Result<Box<dyn Materialize>> {
        let (c_in, c_out, kernel, stride, ..) = row;
        Ok(match self {
            Self::Spectral(method) => {
                let config = SpectralConfig { method, stride, seed: 3, ..Default::default() };
                Box::new(nn::spectral_conv2d(c_in, c_out, kernel, config, vb)?)
            }
            Self::Soc(terms) => {
                let config = SocConfig { terms, stride, seed: 3, ..Default::default() };
                Box::new(nn::soc_conv2d(c_in, c_out, kernel, config, vb)?)
            }
            Self::Residual(rule, hidden) => {
                let config = SllConfig { hidden, rule, seed: 3 };
                Box::new(nn::sll(c_in, kernel.min(3), config, vb)?)
            }
            Self::Sandwich => {
                let config = SandwichConfig { seed: 3 };
                Box::new(nn::sandwich(c_in, c_out, kernel.min(3), config, vb)?)
            }
        })
    }

    /// Singular values of 1 to this.
    fn orthogonality(self, (c_in, c_out, _, stride, ..): Row) -> Option<f64> {
        match self {
            Self::Spectral(SpectralMethod::Cayley | SpectralMethod::Lot) => Some(1e-12),
            // a square reflector, to ε
            Self::Spectral(SpectralMethod::Bro) if c_out == c_in * stride * stride => Some(1e-5),
            Self::Soc(15) if c_out >= c_in * stride * stride => Some(1e-12),
            _ => None,
        }
    }
}

fn image((c_in, .., height, width): Row) -> ImageShape {
    ImageShape::new(c_in, height, width)
}

fn batch(row: Row, n: usize, dtype: DType, seed: u64) -> Tensor {
    let ImageShape { channels, height, width } = image(row);
    uniform(&[n, channels, height, width], -1.0, 1.0, dtype, seed)
}

/// All variables by name.
fn sorted(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().unwrap();
    let mut all = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect::<Vec<_>>();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// 200 random steps.
fn walk(variables: &VarMap) {
    for (place, (_, var)) in sorted(variables).into_iter().enumerate() {
        for step in 0..200 {
            let step = uniform(var.dims(), -0.02, 0.02, var.dtype(), 1000 * place as u64 + step);
            var.set(&(var.as_tensor() + step).unwrap()).unwrap();
        }
    }
}

fn norm(x: &Tensor) -> f64 {
    values(x).iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The linear part of a convolution: a large bias would drown it.
fn bias_free(layer: &PlainLayer) -> PlainLayer {
    let PlainLayer::CyclicConv(conv) = layer else { return layer.clone() };
    let linear = CyclicConv::new(conv.weight().clone(), None, conv.downsample());
    PlainLayer::CyclicConv(linear.unwrap())
}

/// Distances do not grow, and where the layer is linear its dense operator has a norm of at most 1, or is an isometry.
#[track_caller]
fn check_norms(kind: Kind, row: Row, module: &dyn Materialize, dtype: DType) {
    let tolerance = sum_tolerance(dtype, 256, 1.0);
    // the truncated series of two terms exceeds 1
    let excess = if kind == Kind::Soc(2) { 0.5 } else { tolerance };
    for seed in 0..8 {
        let (x, y) = (batch(row, 1, dtype, seed), batch(row, 1, dtype, seed + 50));
        let moved = (module.forward(&x).unwrap() - module.forward(&y).unwrap()).unwrap();
        let distance = norm(&(x - y).unwrap());
        assert!(norm(&moved) <= distance * (1.0 + excess), "{kind:?} {row:?} {dtype:?}");
    }
    if dtype == DType::F32 || matches!(kind, Kind::Residual(..) | Kind::Sandwich) {
        return;
    }
    let ImageShape { channels, height, width } = image(row);
    let matrix = operator(module, (channels, height, width));
    let norm = largest_singular_value(&matrix);
    assert!(norm <= 1.0 + excess.max(1e-12), "{kind:?} {row:?}: {norm}");
    if let Some(allowed) = kind.orthogonality(row) {
        let defect = defect(&matrix);
        assert!(defect <= allowed, "{kind:?} {row:?}: {defect:e}");
    }
}

/// On square images: the same function, with rigorous bounds of about 1 that are not below the truth.
#[track_caller]
fn check_plain_form(kind: Kind, row: Row, module: &dyn Materialize, dtype: DType) {
    let input = SignalShape::Image(image(row));
    let plain = module.materialize(input, dtype);
    if row.4 != row.5 {
        let text = plain.unwrap_err().to_string();
        assert!(text.ends_with("expected a square one"), "{text}");
        return;
    }
    let (mut shape, mut bound) = (input, 1.0);
    let x = batch(row, 2, dtype, 77);
    let mut y = x.clone();
    for layer in &plain.unwrap() {
        let of_layer = layer.lipschitz_bound_on(shape, "layer").unwrap().rigorous().unwrap();
        if let (DType::F64, PlainLayer::CyclicConv(_), SignalShape::Image(image)) =
            (dtype, layer, shape)
        {
            let matrix = operator(&bias_free(layer), (image.channels, image.height, image.width));
            let truth = largest_singular_value(&matrix);
            assert!(of_layer >= truth * (1.0 - 1e-13), "{kind:?} {row:?}: {of_layer} < {truth}");
        }
        bound *= of_layer;
        shape = layer.output_shape(shape, "layer").unwrap();
        y = layer.forward(&y).unwrap();
    }
    // two layers at most, each within 2e-5 of its norm, which for two terms exceeds 1
    let excess = if kind == Kind::Soc(2) { 0.5 } else { 5e-5 };
    let most = 1.0 + excess + 64.0 * eps(dtype) * input.n_values() as f64;
    assert!(bound <= most, "{kind:?} {row:?} {dtype:?}: {bound} > {most}");
    let truth = module.forward(&x).unwrap();
    check_close(&format!("{kind:?} {row:?}"), &truth, &y, sum_tolerance(dtype, 1024, 4.0));
}

#[test]
fn layers_obey_their_laws_before_and_after_training() {
    for dtype in [DType::F64, DType::F32] {
        for kind in KINDS {
            for row in ROWS {
                let variables = VarMap::new();
                let vb = VarBuilder::from_varmap(&variables, dtype, &CPU);
                let module = kind.module(row, vb).unwrap();
                for trained in [false, true] {
                    if trained {
                        walk(&variables);
                    }
                    check_norms(kind, row, module.as_ref(), dtype);
                    check_plain_form(kind, row, module.as_ref(), dtype);
                }
            }
        }
    }
}

/// Of `Σ d · module(x)` in every parameter and in the input.
#[test]
fn gradients_agree_with_differences() {
    for kind in KINDS {
        for row in ROWS {
            let variables = VarMap::new();
            let module =
                kind.module(row, VarBuilder::from_varmap(&variables, DType::F64, &CPU)).unwrap();
            walk(&variables);
            let x = Var::from_tensor(&batch(row, 1, DType::F64, 7)).unwrap();
            let y = module.forward(x.as_tensor()).unwrap();
            let d = uniform(y.dims(), -1.0, 1.0, DType::F64, 8);
            let gradients = (y * &d).unwrap().sum_all().unwrap().backward().unwrap();
            let all = sorted(&variables).into_iter().chain([("x".to_owned(), x.clone())]);
            for (name, var) in all {
                let gradient = gradients.get(&var).unwrap();
                let direction = uniform(var.dims(), -1.0, 1.0, DType::F64, 9);
                let start = var.as_tensor().copy().unwrap();
                let at = |t: f64| {
                    var.set(&(&start + (&direction * t).unwrap()).unwrap()).unwrap();
                    let y = module.forward(x.as_tensor()).unwrap();
                    values(&(y * &d).unwrap().sum_all().unwrap())[0]
                };
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                var.set(&start).unwrap();
                let slopes = values(&direction).into_iter().zip(values(gradient));
                let derivative = slopes.map(|(a, b)| a * b).sum::<f64>();
                let allowed = 1e-6 * derivative.abs().max(1.0);
                let error = (difference - derivative).abs();
                assert!(error <= allowed, "{kind:?} {row:?} {name}: {difference} and {derivative}");
            }
        }
    }
}

/// What is done to a weight, in words and in code.
type Change<'a> = (&'a str, &'a dyn Fn(&Tensor) -> Tensor);

/// Zero rows, zero and huge weights, deficient rank: finite values, bounds that hold.
#[test]
fn hard_parameters_have_finite_values_and_bounds_that_hold() {
    let row = (3, 3, 3, 1, 4, 4);
    let zero_row = |w: &Tensor| {
        let mask = Tensor::from_vec(vec![0.0, 1.0, 1.0], (3, 1, 1, 1), &CPU).unwrap();
        w.broadcast_mul(&mask.to_dtype(w.dtype()).unwrap()).unwrap()
    };
    let one_column =
        |w: &Tensor| w.narrow(1, 0, 1).unwrap().broadcast_as(w.dims()).unwrap().copy().unwrap();
    let changes: [Change<'_>; 5] = [
        ("a zero row", &zero_row),
        ("equal columns", &one_column),
        ("zero", &|w| w.zeros_like().unwrap()),
        ("huge", &|w| (w * 1e12).unwrap()),
        ("tiny", &|w| (w * 1e-12).unwrap()),
    ];
    let kinds = KINDS.into_iter().chain([Kind::Soc(1), Kind::Residual(StepRule::Cpl, 0)]);
    for kind in kinds.filter(|kind| *kind != Kind::Spectral(SpectralMethod::Lot)) {
        for (what, change) in &changes {
            let variables = VarMap::new();
            let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
            let module = kind.module(row, vb).unwrap();
            let weight = variables.data().lock().unwrap()["weight"].clone();
            if weight.dims()[0] != 3 && *what == "a zero row" {
                continue;
            }
            weight.set(&change(weight.as_tensor())).unwrap();
            if let Some(alpha) = variables.data().lock().unwrap().get("alpha") {
                // the edge of the domain: eigenvalues close to -1
                let factor = if *what == "huge" { 1e6 } else { 0.5 };
                alpha.set(&(alpha.as_tensor() * factor).unwrap()).unwrap();
            }
            let x = batch(row, 2, DType::F64, 1);
            let y = module.forward(&x).unwrap();
            assert!(values(&y).iter().all(|v| v.is_finite()), "{kind:?}, {what}");
            let gradients = y.sum_all().unwrap().backward().unwrap();
            let gradient = values(gradients.get(&weight).unwrap());
            assert!(gradient.iter().all(|v| v.is_finite()), "{kind:?}, {what}: gradient");
            let most = if matches!(kind, Kind::Soc(1 | 2)) { 1.5 } else { 1.0 + 1e-9 };
            let other = module.forward(&batch(row, 2, DType::F64, 2)).unwrap();
            let moved = norm(&(y - other).unwrap());
            let distance = norm(&(x - batch(row, 2, DType::F64, 2)).unwrap());
            assert!(moved <= distance * most, "{kind:?}, {what}: {moved} > {distance}");
            let mut shape = SignalShape::Image(image(row));
            for layer in module.materialize(shape, DType::F64).unwrap() {
                let bound = layer.lipschitz_bound_on(shape, "layer").unwrap();
                let most = if matches!(kind, Kind::Soc(1 | 2)) { 1.5 } else { 1.0 + 3e-5 };
                assert!(bound.rigorous().unwrap() <= most, "{kind:?}, {what}: {}", bound.value());
                if let (PlainLayer::CyclicConv(_), SignalShape::Image(i)) = (&layer, shape) {
                    let truth = largest_singular_value(&operator(
                        &bias_free(&layer),
                        (i.channels, i.height, i.width),
                    ));
                    assert!(bound.value() >= truth * (1.0 - 1e-13), "{kind:?}, {what}");
                }
                shape = layer.output_shape(shape, "layer").unwrap();
            }
        }
    }
}

#[test]
fn residual_layers_of_vectors_have_plain_forms() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
    let layer = nn::sll(6, 1, SllConfig { hidden: 4, ..Default::default() }, vb).unwrap();
    walk(&variables);
    let x = uniform(&[5, 6], -1.0, 1.0, DType::F64, 1);
    let plain = layer.materialize(SignalShape::Vector(6), DType::F64).unwrap();
    let y = plain.iter().fold(x.clone(), |x, layer| layer.forward(&x).unwrap());
    check_close("dense", &layer.forward(&x).unwrap(), &y, sum_tolerance(DType::F64, 64, 2.0));
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
    let layer = nn::sandwich(6, 4, 1, SandwichConfig::default(), vb.pp("sandwich")).unwrap();
    let plain = layer.materialize(SignalShape::Vector(6), DType::F64).unwrap();
    let y = plain.iter().fold(x.clone(), |x, layer| layer.forward(&x).unwrap());
    check_close("sandwich", &layer.forward(&x).unwrap(), &y, 1e-10);
}

#[test]
fn layers_refuse_what_they_cannot_be() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F64, &CPU);
    let says =
        |result: Result<String>, text: &str| assert_eq!(result.unwrap_err().to_string(), text);
    let text = |layer: &dyn std::fmt::Debug| format!("{layer:?}");
    let spectral = SpectralConfig { stride: 2, ..Default::default() };
    says(
        nn::spectral_conv2d(2, 2, 3, spectral, vb.clone()).map(|l| text(&l)),
        "spectral-conv2d: kernel size 3 is not divisible by the stride 2",
    );
    says(
        nn::soc_conv2d(2, 2, 4, SocConfig::default(), vb.clone()).map(|l| text(&l)),
        "kernel size after downsampling is 4, expected an odd number: a skew kernel is symmetric about its centre",
    );
    let none = SocConfig { terms: 0, ..Default::default() };
    says(
        nn::soc_conv2d(2, 2, 3, none, vb.clone()).map(|l| text(&l)),
        "soc-conv2d: terms is 0, expected at least 1",
    );
    says(
        nn::sll(0, 3, SllConfig::default(), vb.clone()).map(|l| text(&l)),
        "sll: channels is 0, expected at least 1",
    );
    says(
        nn::sandwich(2, 0, 3, SandwichConfig::default(), vb.clone()).map(|l| text(&l)),
        "sandwich: c_out is 0, expected at least 1",
    );
    let layer = nn::sll(2, 3, SllConfig::default(), vb.pp("block")).unwrap();
    let on = |c, h, w| layer.materialize(SignalShape::Image(ImageShape::new(c, h, w)), DType::F64);
    says(
        on(2, 4, 5).map(|l| text(&l)),
        "block has no plain form: its image is 4 x 5, expected a square one",
    );
    says(on(3, 4, 4).map(|l| text(&l)), "input of block has shape [3], expected [2]");
    says(
        on(2, 2, 2).map(|l| text(&l)),
        "block: a 3 x 3 kernel exceeds its 2 x 2 image; a cyclic convolution needs an image at least as large as the kernel",
    );
    let layer = nn::spectral_conv2d(2, 3, 3, SpectralConfig::default(), vb.pp("conv1")).unwrap();
    says(
        layer.materialize(SignalShape::Vector(4), DType::F64).map(|l| text(&l)),
        "conv1 cannot follow a vector of 4 features: a convolution needs an image",
    );
}
