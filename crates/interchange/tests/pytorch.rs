//! Exported networks: the padded kernels, and PyTorch's own answer where it is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use interchange::{pytorch_module, pytorch_state, pytorch_weights};
use lipconv::{
    Activation, ImageShape, LayerSpec, LinearMethod, Methods, Network, NetworkSpec, PlainNetwork,
};

fn small() -> PlainNetwork {
    let spec = NetworkSpec::small(ImageShape::new(1, 28, 28), 10, Methods::BCOP);
    Network::new(&spec, DType::F32, &Device::Cpu, 3).unwrap().materialize().unwrap()
}

/// Odd and even kernels, with and without downsampling, on images that are not square.
fn mixed() -> PlainNetwork {
    let method = lipconv::ConvMethod::Bcop;
    let conv = |c_out, kernel_size, stride| LayerSpec::Conv { c_out, kernel_size, stride, method };
    let layers = vec![
        conv(6, 3, 1),
        LayerSpec::Activation(Activation::MaxMin),
        conv(12, 4, 2),
        LayerSpec::Activation(Activation::GroupSort { group: 3 }),
        conv(8, 4, 1),
        LayerSpec::Activation(Activation::Relu),
        conv(8, 1, 1),
        LayerSpec::Flatten,
        LayerSpec::Linear { out_features: 5, method: LinearMethod::Bjorck },
    ];
    let spec = NetworkSpec { input: ImageShape::new(3, 8, 12), layers };
    Network::new(&spec, DType::F64, &Device::Cpu, 4).unwrap().materialize().unwrap()
}

#[test]
fn even_kernels_get_a_last_row_and_column_of_zeros() {
    let network = small();
    let state = pytorch_state(&network).unwrap();
    let weight = &state["conv2.weight"];
    assert_eq!(weight.dims(), [32, 64, 3, 3]);
    let (inner, _) = network.layers()[2].parameters().unwrap();
    let same = weight.narrow(2, 0, 2).unwrap().narrow(3, 0, 2).unwrap();
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&same), values(inner));
    for axis in [2, 3] {
        assert!(values(&weight.narrow(axis, 2, 1).unwrap()).iter().all(|&v| v == 0.0));
    }
    let text = pytorch_module(&network).unwrap();
    for line in [
        "(\"conv1_downsample\", nn.PixelUnshuffle(2)),",
        "(\"conv1\", nn.Conv2d(4, 16, 3, padding=1, padding_mode=\"circular\")),",
        "(\"conv2\", nn.Conv2d(64, 32, 3, padding=1, padding_mode=\"circular\")),",
        "(\"linear2\", nn.Linear(100, 10)),",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

/// Images whose pixels are a fixed function of their place.
fn images(network: &PlainNetwork) -> Tensor {
    let input = network.input();
    let shape = (2, input.channels, input.height, input.width);
    let n = 2 * input.n_values();
    let values: Vec<f64> = (0..n).map(|i| (i * 7919 % 1000) as f64 / 1000.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(network.dtype()).unwrap()
}

const SCRIPT: &str = r#"
import sys
sys.dont_write_bytecode = True
try:
    import torch
except ImportError:
    sys.exit(77)
from exported import load
model = load("exported.safetensors")
shape = [int(n) for n in sys.argv[1].split("x")]
n = 1
for m in shape:
    n *= m
values = torch.tensor([(i * 7919 % 1000) / 1000.0 for i in range(n)], dtype=torch.float64)
logits = model(values.reshape(shape).to(next(model.parameters()).dtype))
print(" ".join(repr(v) for v in logits.double().flatten().tolist()))
"#;

/// PyTorch's logits, or `None` where it is not installed.
fn torch_logits(network: &PlainNetwork, dir: &Path) -> Option<Vec<f64>> {
    fs::write(dir.join("exported.safetensors"), pytorch_weights(network).unwrap()).unwrap();
    fs::write(dir.join("exported.py"), pytorch_module(network).unwrap()).unwrap();
    fs::write(dir.join("script.py"), SCRIPT).unwrap();
    let dims = images(network).dims().iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let output =
        Command::new("python3").args(["script.py", &dims]).current_dir(dir).output().ok()?;
    if output.status.code() == Some(77) {
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_whitespace().map(|word| word.parse().unwrap()).collect())
}

#[test]
fn pytorch_computes_the_same_logits() {
    // sums of some hundred terms of size 1
    for (network, eps) in [(small(), f64::from(f32::EPSILON)), (mixed(), f64::EPSILON)] {
        let dir = tempfile::tempdir().unwrap();
        let Some(theirs) = torch_logits(&network, dir.path()) else {
            eprintln!("skipped: python3 with torch is not installed");
            return;
        };
        let ours = network.forward(&images(&network)).unwrap().to_dtype(DType::F64).unwrap();
        let ours: Vec<f64> = ours.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(ours.len(), theirs.len());
        let largest = ours.iter().fold(1.0_f64, |m, v| m.max(v.abs()));
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() < 1000.0 * eps * largest, "{a} {b}");
        }
    }
}
