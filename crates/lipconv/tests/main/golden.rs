//! Reference vectors of an independent float64 implementation: single layers and a whole network.

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Activation, Batch, ConvMethod, CyclicConv, Dense, ImageShape, LayerSpec, LinearMethod, Loss,
    Network, NetworkSpec, PlainLayer, PlainNetwork, Sizes, TrainConfig, Trainer, ops,
};
use ndarray::{ArrayD, OwnedRepr};
use ndarray_npy::NpzReader;

use crate::support::{check_close, eps, golden_tolerance, uniform, values};
use crate::training::config;

pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// An array of `layers.npz` in the element type wanted.
fn layer_array(name: &str, dtype: DType) -> Tensor {
    array_of("layers.npz", name, dtype)
}

pub(crate) fn array_of(file: &str, name: &str, dtype: DType) -> Tensor {
    let mut file = NpzReader::new(std::fs::File::open(golden(file)).unwrap()).unwrap();
    let array: ArrayD<f64> = file.by_name::<OwnedRepr<f64>, _>(&format!("{name}.npy")).unwrap();
    let shape = array.shape().to_vec();
    let values: Vec<f64> = array.iter().copied().collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn labels() -> Vec<u32> {
    let mut file = NpzReader::new(std::fs::File::open(golden("layers.npz")).unwrap()).unwrap();
    let array: ArrayD<i64> = file.by_name::<OwnedRepr<i64>, _>("labels.npy").unwrap();
    array.iter().map(|&label| u32::try_from(label).unwrap()).collect()
}

#[test]
fn activations_and_downsampling_match() {
    for dtype in [DType::F32, DType::F64] {
        let x = layer_array("activation_input", dtype);
        let exact = [
            ("maxmin_halves", Activation::MaxMin.forward(&x).unwrap()),
            ("groupsort3_ascending", Activation::GroupSort { group: 3 }.forward(&x).unwrap()),
            ("downsample2", ops::pixel_unshuffle(&x, 2).unwrap()),
        ];
        for (name, result) in exact {
            check_close(name, &result, &layer_array(name, dtype), 0.0);
        }
    }
}

#[test]
fn cyclic_convolutions_match() {
    for dtype in [DType::F32, DType::F64] {
        let x = layer_array("activation_input", dtype);
        for k in 1..5 {
            let weight = layer_array(&format!("cyclic_k{k}_weight"), dtype);
            let bias = layer_array(&format!("cyclic_k{k}_bias"), dtype);
            let y = ops::cyclic_conv(&x, &weight, Some(&bias), 1).unwrap();
            let expected = layer_array(&format!("cyclic_k{k}_output"), dtype);
            let scale = values(&expected).iter().fold(1.0_f64, |m, v| m.max(v.abs()));
            let tolerance = golden_tolerance(dtype, 6 * k * k) * scale;
            check_close(&format!("cyclic_k{k} {dtype:?}"), &y, &expected, tolerance);
        }
    }
}

/// (name, height, width) of the kernels of `conv_layers.npz`.
const KERNELS: [(&str, usize, usize); 4] = [
    ("o4_i4_k3_h5_w6", 5, 6),
    ("o6_i3_k2_h4_w4", 4, 4),
    ("o3_i8_k3_h3_w7", 3, 7),
    ("o5_i5_k1_h4_w4", 4, 4),
];

#[test]
fn normalised_kernels_match() {
    for dtype in [DType::F32, DType::F64] {
        for (case, height, width) in KERNELS {
            let array = |kind: &str| array_of("conv_layers.npz", &format!("{case}_{kind}"), dtype);
            let weight = array("weight");
            let tolerance = golden_tolerance(dtype, 64);
            let check = |kind: &str, weight: &Tensor| {
                check_close(&format!("{case} {kind} {dtype:?}"), weight, &array(kind), tolerance);
            };
            let (c_out, c_in, kernel, _) = weight.dims4().unwrap();
            let sizes = Sizes::conv(c_out, c_in, kernel, (height, width));
            let of = |method: ConvMethod, vector: Option<&Tensor>| {
                ops::weight(method, &sizes, &weight, vector).unwrap()
            };
            check("rko", &of(ConvMethod::Rko, None).weight);
            check("rkl2ne", &of(ConvMethod::RkL2ne, None).weight);
            // the reference divides by the norm itself: iterate until the estimate has converged
            let mut vector = uniform(&[c_in, height, width], -1.0, 1.0, dtype, 1);
            for _ in 0..1000 {
                vector = of(ConvMethod::Ossn, Some(&vector)).vector.unwrap();
            }
            check("ossn", &of(ConvMethod::Ossn, Some(&vector)).weight);
        }
    }
}

/// SVCM as a layer: what a training step clips is what the reference clips.
#[test]
fn clipped_kernels_match() {
    for (case, height, width) in KERNELS {
        let array = |kind: &str| array_of("conv_layers.npz", &format!("{case}_{kind}"), DType::F64);
        let (c_out, c_in, kernel_size, _) = array("weight").dims4().unwrap();
        let conv = LayerSpec::Conv { c_out, kernel_size, stride: 1, method: ConvMethod::Svcm };
        let linear = LayerSpec::Linear { out_features: 2, method: LinearMethod::Unconstrained };
        let input = ImageShape::new(c_in, height, width);
        let spec = NetworkSpec { input, layers: vec![conv, LayerSpec::Flatten, linear] };
        let network = Network::new(&spec, DType::F64, &Device::Cpu, 0).unwrap();
        network.variables()[0].1.set(&array("weight")).unwrap();
        // the only step of a run is its last, after which kernels are clipped; the rate moves nothing
        let settings = TrainConfig { learning_rate: 1e-200, ..config(1) };
        let mut trainer = Trainer::new(network, settings).unwrap().epochs_of(1).unwrap();
        let images = uniform(&[2, c_in, height, width], 0.0, 1.0, DType::F64, 3);
        trainer.step(&Batch { images, labels: vec![0, 1] }).unwrap();
        let clipped = trainer.network().variables()[0].1.as_tensor().clone();
        check_close(case, &clipped, &array("svcm50"), golden_tolerance(DType::F64, 64));
    }
}

#[test]
fn a_kernel_of_five_on_four_pixels_is_refused() {
    let x = layer_array("activation_input", DType::F64);
    let weight = layer_array("cyclic_k5_weight", DType::F64);
    let bias = layer_array("cyclic_k5_bias", DType::F64);
    let error = ops::cyclic_conv(&x, &weight, Some(&bias), 1).unwrap_err();
    assert!(matches!(
        error,
        lipconv::Error::KernelExceedsImage { kernel: 5, height: 4, width: 4, .. }
    ));
}

#[test]
fn hinge_losses_match() {
    let labels = labels();
    for dtype in [DType::F32, DType::F64] {
        let logits = layer_array("logits", dtype);
        for (name, margin) in
            [("hinge_2.1213", 1.5 * 2f64.sqrt()), ("hinge_0.7071", 0.5 * 2f64.sqrt())]
        {
            let expected = layer_array(name, DType::F64);
            let mean = values(&expected).iter().sum::<f64>() / labels.len() as f64;
            let loss = Loss::MultiClassHinge { margin };
            let row_major = values(&logits);
            let closed = loss.evaluate(&row_major, &labels, 10).unwrap();
            let label_tensor = Tensor::new(labels.as_slice(), &Device::Cpu).unwrap();
            let graph = loss.forward(&logits, &label_tensor).unwrap();
            let tolerance = golden_tolerance(dtype, 400);
            assert!(
                (closed.value - mean).abs() <= tolerance,
                "{name}: {} and {mean}",
                closed.value
            );
            assert!((values(&graph)[0] - mean).abs() <= tolerance, "{name} as a graph");
        }
    }
}

#[test]
fn margins_follow_from_the_logits() {
    let logits = values(&layer_array("logits", DType::F64));
    let margin = values(&layer_array("margin", DType::F64));
    let radius = values(&layer_array("radius_l1", DType::F64));
    for (n, (row, label)) in logits.chunks(10).zip(labels()).enumerate() {
        let others = row.iter().enumerate().filter(|(j, _)| *j != label as usize);
        let best = others.map(|(_, z)| *z).fold(f64::NEG_INFINITY, f64::max);
        let expected = (row[label as usize] - best).max(0.0);
        assert!((expected - margin[n]).abs() <= 4.0 * eps(DType::F64));
        assert!((expected / 2f64.sqrt() - radius[n]).abs() <= 4.0 * eps(DType::F64));
    }
}

/// A tensor of a reference network; a single dense layer has no number there.
pub(crate) fn reference(tensors: &HashMap<String, Tensor>, name: &str) -> Tensor {
    let unnumbered = || tensors.get(&name.replace("linear1", "linear"));
    tensors.get(name).or_else(unnumbered).unwrap_or_else(|| panic!("{name} is in the file")).clone()
}

/// (kind, layers): convolutions with their downsampling factor, then the number of dense layers.
fn network(
    file: &str,
    convs: &[usize],
    n_linears: usize,
    dtype: DType,
) -> (PlainNetwork, HashMap<String, Tensor>) {
    let tensors = candle_core::safetensors::load(golden(file), &Device::Cpu).unwrap();
    let get = |name: String| reference(&tensors, &name).to_dtype(dtype).unwrap();
    let mut layers = Vec::new();
    for (n, &downsample) in convs.iter().enumerate() {
        let name = format!("conv{}", n + 1);
        let (weight, bias) = (get(format!("{name}.weight")), get(format!("{name}.bias")));
        layers
            .push(PlainLayer::CyclicConv(CyclicConv::new(weight, Some(bias), downsample).unwrap()));
        layers.push(PlainLayer::Activation(Activation::MaxMin));
    }
    layers.push(PlainLayer::Flatten);
    for n in 1..=n_linears {
        let name = format!("linear{n}");
        let (weight, bias) = (get(format!("{name}.weight")), get(format!("{name}.bias")));
        layers.push(PlainLayer::Dense(Dense::new(weight, Some(bias)).unwrap()));
        if n < n_linears {
            layers.push(PlainLayer::Activation(Activation::MaxMin));
        }
    }
    let (_, c, h, w) = tensors["input"].dims4().unwrap();
    (PlainNetwork::new(ImageShape::new(c, h, w), layers).unwrap(), tensors)
}

/// Logits by the engine and by tensor operations; the widest inner product decides the f32 tolerance.
#[track_caller]
fn check_network(file: &str, convs: &[usize], n_linears: usize, widest: usize) {
    for dtype in [DType::F32, DType::F64] {
        let (network, tensors) = network(file, convs, n_linears, dtype);
        let x = tensors["input"].to_dtype(dtype).unwrap();
        let tolerance = golden_tolerance(dtype, widest);
        let logits = network.forward(&x).unwrap();
        check_close(&format!("{file} {dtype:?}"), &logits, &tensors["output_f64"], tolerance);
        let graph = network.layers().iter().fold(x, |x, layer| ops::apply(layer, &x).unwrap());
        check_close(
            &format!("{file} {dtype:?} as a graph"),
            &graph,
            &tensors["output_f64"],
            tolerance,
        );
    }
}

#[test]
fn small_mnist_network_matches() {
    check_network("net_small_mnist.safetensors", &[2, 2], 2, 1568);
}

#[test]
fn large_quarter_network_matches() {
    check_network("net_large_quarter_cifar10.safetensors", &[1, 2, 1, 2], 3, 1024);
}

#[test]
fn critic_eighth_network_matches() {
    check_network("net_critic_eighth.safetensors", &[2, 2, 2, 2], 1, 1024);
}

#[test]
fn attacks_gradient_matches_the_reference_step() {
    // one FGSM step of length 0.5, from the reference attack: the CW loss is active for every sample
    let dtype = DType::F64;
    let (network, tensors) = network("net_small_mnist.safetensors", &[2, 2], 2, dtype);
    let x = tensors["input"].to_dtype(dtype).unwrap();
    let labels: Vec<i64> = tensors["labels"].to_vec1().unwrap();
    let recording = network.record(&x).unwrap();
    let logits: Vec<Vec<f64>> = recording.logits().to_vec2().unwrap();
    let mut d_logits = vec![0.0; logits.len() * 10];
    for (n, (row, &label)) in logits.iter().zip(&labels).enumerate() {
        let label = usize::try_from(label).unwrap();
        let rivals = (0..10).filter(|&j| j != label);
        let best = rivals.max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        d_logits[n * 10 + best] = 1.0;
        d_logits[n * 10 + label] = -1.0;
    }
    let d_logits = Tensor::from_vec(d_logits, (logits.len(), 10), &Device::Cpu).unwrap();
    let gradient = recording.input_gradient(&d_logits).unwrap();
    let n = x.elem_count() / labels.len();
    let (gradient, x) = (values(&gradient), values(&x));
    let expected = values(&tensors["fgsm_eps0.5_f64"]);
    for sample in 0..labels.len() {
        let range = sample * n..(sample + 1) * n;
        let norm = gradient[range.clone()].iter().map(|g| g * g).sum::<f64>().sqrt();
        for i in range {
            let moved = (x[i] + 0.5 * gradient[i] / norm).clamp(0.0, 1.0);
            assert!((moved - expected[i]).abs() <= 1e-10, "pixel {i}: {moved} and {}", expected[i]);
        }
    }
}
