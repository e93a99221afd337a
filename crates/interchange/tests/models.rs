//! Models that torch wrote: read, compared with torch's logits, written and read again; and what must be refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

mod pytorch;

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use interchange::{Description, described, from_onnx, to_onnx};
use lipconv::{Activation, CyclicConv, Dense, ImageShape, PlainLayer, PlainNetwork};

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(data().join(name)).unwrap()
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    let path = data().join(format!("{name}.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// Names and weights of all layers.
fn contents(network: &PlainNetwork) -> Vec<(String, Vec<f64>)> {
    let weights = |layer: &PlainLayer| {
        let Some((weight, bias)) = layer.parameters() else { return Vec::new() };
        values(weight).into_iter().chain(bias.map(values).unwrap_or_default()).collect()
    };
    let layers = network.layers().iter().zip(network.names());
    layers.map(|(layer, name)| (name.clone(), weights(layer))).collect()
}

const NAMES: [&str; 6] = ["kw_like", "resnet_like", "cyclic", "branches", "aoc", "torchlip"];

#[test]
fn networks_of_torch_give_torchs_logits() {
    for name in NAMES {
        let truth = tensors(name);
        for exporter in ["", "_dynamo"] {
            let imported = from_onnx(&bytes(&format!("{name}{exporter}.onnx"))).unwrap();
            let logits = imported.network.forward(&truth["images"]).unwrap();
            let error = difference(&logits, &truth["logits"]);
            println!("{name}{exporter}: {} layers, {error:.1e}", imported.network.layers().len());
            // a few hundred sums in f32 of numbers near 1, in another order
            assert!(error < 2e-6, "{name}{exporter}: logits differ by {error}");
            let bound = imported.network.lipschitz_bound().unwrap();
            assert!(bound.is_rigorous() && bound.value() > 0.0);
        }
    }
}

#[test]
fn both_exporters_make_one_network() {
    for name in NAMES {
        let [a, b] = ["", "_dynamo"].map(|exporter| {
            contents(&from_onnx(&bytes(&format!("{name}{exporter}.onnx"))).unwrap().network)
        });
        let kinds = |network: &[(String, Vec<f64>)]| {
            network.iter().map(|(name, weights)| (name.clone(), weights.len())).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&a), kinds(&b), "{name}");
        for ((layer, a), (_, b)) in a.iter().zip(&b) {
            // each exporter folds batch normalisation in its own order
            let close = a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-6);
            assert!(close, "{name}: {layer}");
        }
    }
}

#[test]
fn the_layers_are_those_of_the_network() {
    let names = |name: &str| {
        let imported = from_onnx(&bytes(name)).unwrap();
        imported.network.names().join(" ")
    };
    assert_eq!(
        names("kw_like_dynamo.onnx"),
        "conv1 conv2 relu1 conv3 leaky1 flatten1 linear1 relu2 linear2"
    );
    assert_eq!(names("cyclic.onnx"), "conv1 maxmin1 conv2 conv3 maxmin2 conv4 flatten1 linear1");
    assert_eq!(names("torchlip.onnx"), "conv1 groupsort1 conv2 conv3 groupsort2 flatten1 linear1");
    assert_eq!(
        names("resnet_like.onnx"),
        "conv1 relu1 conv2 relu2 conv3 add1 relu3 conv4 relu4 conv5 recall1 conv6 add2 relu5 conv7 flatten1 linear1"
    );
}

#[test]
fn what_is_written_is_read_as_the_same_network() {
    for name in NAMES {
        let network = from_onnx(&bytes(&format!("{name}.onnx"))).unwrap().network;
        let again = from_onnx(&to_onnx(&network).unwrap()).unwrap().network;
        assert_eq!(contents(&network), contents(&again), "{name}");
        let images = &tensors(name)["images"];
        let logits = |network: &PlainNetwork| network.forward(images).unwrap();
        assert_eq!(difference(&logits(&network), &logits(&again)), 0.0, "{name}");
    }
}

/// Of our own layers: downsampling, even kernels, every activation.
fn own(dtype: DType) -> PlainNetwork {
    let tensor = |shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f64> =
            (0..n).map(|i| f64::from(((i * 37 % 101) as f32) / 101.0) - 0.5).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    };
    let layers = vec![
        PlainLayer::CyclicConv(
            CyclicConv::new(tensor(&[6, 8, 2, 2]), Some(tensor(&[6])), 2).unwrap(),
        ),
        PlainLayer::Activation(Activation::MaxMin),
        PlainLayer::CyclicConv(CyclicConv::new(tensor(&[6, 6, 3, 3]), None, 1).unwrap()),
        PlainLayer::Activation(Activation::GroupSort { group: 3 }),
        PlainLayer::Flatten,
        PlainLayer::Dense(Dense::new(tensor(&[8, 72]), Some(tensor(&[8]))).unwrap()),
        PlainLayer::Activation(Activation::GroupSort { group: 4 }),
        PlainLayer::Dense(Dense::new(tensor(&[4, 8]), None).unwrap()),
    ];
    PlainNetwork::new(ImageShape::new(2, 6, 8), layers).unwrap()
}

#[test]
fn networks_of_our_own_survive_the_way_out_and_back() {
    for dtype in [DType::F32, DType::F64] {
        let network = own(dtype);
        let again = from_onnx(&to_onnx(&network).unwrap()).unwrap().network;
        assert_eq!(again.dtype(), dtype);
        assert_eq!(contents(&network), contents(&again));
    }
}

#[test]
fn a_description_makes_the_same_network() {
    let network = from_onnx(&bytes("kw_like_dynamo.onnx")).unwrap().network;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let mut weights = HashMap::new();
    for (layer, name) in network.layers().iter().zip(network.names()).skip(1) {
        if let Some((weight, bias)) = layer.parameters() {
            weights.insert(format!("{name}.w"), weight.clone());
            weights.insert(format!("{name}.b"), bias.unwrap().clone());
        }
    }
    candle_core::safetensors::save(&weights, &path).unwrap();
    let layer = |kind: &str| kind.to_owned();
    let conv = |n: usize| {
        format!(
            r#"{{"type":"conv","weight":"conv{n}.w","bias":"conv{n}.b","stride":2,"padding":1}}"#
        )
    };
    let dense =
        |n: usize| format!(r#"{{"type":"dense","weight":"linear{n}.w","bias":"linear{n}.b"}}"#);
    let relu = layer(r#"{"type":"relu"}"#);
    let leaky = layer(&format!(r#"{{"type":"leaky-relu","slope":{}}}"#, f64::from(0.1f32)));
    let layers = [conv(2), relu.clone(), conv(3), leaky, dense(1), relu, dense(2)].join(",");
    let mean = [0.485f32, 0.456, 0.406].map(f64::from);
    let std = [0.229f32, 0.224, 0.225].map(f64::from);
    let text = format!(
        r#"{{"input":{{"channels":3,"height":12,"width":12}},"mean":{mean:?},"std":{std:?},"layers":[{layers}]}}"#
    );
    let description: Description = serde_json::from_str(&text).unwrap();
    let weights = std::fs::read(&path).unwrap();
    let same = described(&description, &weights).unwrap();
    assert_eq!(contents(&network), contents(&same));
    let refused = |change: &dyn Fn(&str) -> String| {
        let description: Description = serde_json::from_str(&change(&text)).unwrap();
        described(&description, &weights).unwrap_err().to_string()
    };
    assert_eq!(refused(&|t| t.replace("linear2.b", "nothing")), "tensor `nothing`: it is missing");
    assert!(
        refused(&|t| t.replace(r#","bias":"linear2.b""#, "")).contains("`linear2.b`: no layer")
    );
}

/// z where v · z >= 0 for v = (cos θ, sin θ), its mirror image elsewhere, on channels i and i + c/2.
fn reflected(x: &[f64], angles: &[f64], plane: usize) -> Vec<f64> {
    let half = angles.len() * plane;
    let mut y = x.to_vec();
    for i in 0..half {
        let (sin, cos) = angles[i / plane].sin_cos();
        let along = cos * x[i] + sin * x[i + half];
        if along < 0.0 {
            y[i] -= 2.0 * along * cos;
            y[i + half] -= 2.0 * along * sin;
        }
    }
    y
}

#[test]
fn householder_activations_of_images_and_vectors_are_described() {
    let angles = |n: usize| -> Vec<f64> { (0..n).map(|i| 1.7 * i as f64 - 2.0).collect() };
    let (of_image, of_vector) = (angles(2), angles(12));
    let tensor = |values: &[f64]| Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("w.safetensors");
    let weights =
        HashMap::from([("a".to_owned(), tensor(&of_image)), ("b".to_owned(), tensor(&of_vector))]);
    candle_core::safetensors::save(&weights, &path).unwrap();
    let weights = std::fs::read(&path).unwrap();
    let text = |height: usize| {
        format!(
            r#"{{"input":{{"channels":4,"height":{height},"width":3}},"layers":[
                {{"type":"householder","angle":"a"}},{{"type":"flatten"}},{{"type":"householder","angle":"b"}}]}}"#
        )
    };
    let network = described(&serde_json::from_str(&text(2)).unwrap(), &weights).unwrap();
    let x: Vec<f64> = (0..24).map(|i| ((i * 37 % 24) as f64 - 11.5) / 7.0).collect();
    let expected = reflected(&reflected(&x, &of_image, 6), &of_vector, 1);
    let image = Tensor::from_slice(&x, (1, 4, 2, 3), &Device::Cpu).unwrap();
    let got = values(&network.forward(&image).unwrap());
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() < 64.0 * f64::EPSILON, "{got} {expected}");
    }
    let bound = network.lipschitz_bound().unwrap().value();
    assert!((1.0..1.0 + 1e-6).contains(&bound), "{bound}");
    let refused = described(&serde_json::from_str(&text(1)).unwrap(), &weights).unwrap_err();
    assert_eq!(refused.to_string(), "layer 3: 12 angles for 12 channels");
}

/// The model with `from` replaced by `to` of the same length.
fn patched(model: &[u8], from: &str, to: &str) -> String {
    assert_eq!(from.len(), to.len());
    let at = model.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    let mut model = model.to_vec();
    model[at..at + to.len()].copy_from_slice(to.as_bytes());
    from_onnx(&model).unwrap_err().to_string()
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let model = bytes("kw_like_dynamo.onnx");
    assert!(patched(&model, "LeakyRelu", "LeakyTanh").contains("LeakyTanh `"));
    assert!(patched(&model, "alpha", "alphA").contains("attribute `alphA` is unknown"));
    assert!(patched(&model, "dilations", "dilatiOns").contains("attribute `dilatiOns` is unknown"));
    assert!(patched(&model, "inner.7.bias", "inner.8.bias").contains("`inner.8.bias`"));
    let text = patched(&bytes("cyclic_dynamo.onnx"), "wrap", "edge");
    assert!(text.contains("it pads by edge, expected constant or wrap"), "{text}");
    // every refusal is one line
    for n in (0..model.len()).step_by(97) {
        let text = from_onnx(&model[..n]).unwrap_err().to_string();
        assert!(!text.contains('\n') && text.len() < 400, "{text}");
    }
    assert!(from_onnx(&[0; 1 << 16]).unwrap_err().to_string().starts_with("not an ONNX model"));
}

#[test]
fn weights_that_are_not_finite_are_refused() {
    let mut model = to_onnx(&own(DType::F32)).unwrap();
    let weight = 0.0f32.to_le_bytes();
    let network = own(DType::F32);
    let first = values(network.layers()[0].parameters().unwrap().0)[0] as f32;
    let at = model.windows(4).position(|window| window == first.to_le_bytes()).unwrap();
    assert_ne!(weight, first.to_le_bytes());
    model[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let text = from_onnx(&model).unwrap_err().to_string();
    assert_eq!(text, "tensor `conv1.weight`: it holds NaN at 0, expected finite numbers");
}
