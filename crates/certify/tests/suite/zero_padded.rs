//! Networks with zero-padded convolutions: the same functions as candle's, and files that are refused.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use certify::{
    Attack, AttackTarget, Classifier, Fgsm, ZeroPaddedLayer, ZeroPaddedNetwork, ZeroPaddedSpec,
};
use lipconv::ImageShape;
use tempfile::TempDir;

use crate::common::{images, largest_difference, rng, rows, uniform};

type Weights = HashMap<String, Tensor>;

/// Strides and paddings that leave rows over, an image that is not square.
fn spec() -> ZeroPaddedSpec {
    use ZeroPaddedLayer::{Conv, Dense, Relu};
    let layers = vec![
        Conv { stride: 2, padding: 1 },
        Relu,
        Conv { stride: 1, padding: 2 },
        Relu,
        Conv { stride: 3, padding: 0 },
        Dense,
        Relu,
        Dense,
    ];
    let input = ImageShape::new(2, 9, 12);
    ZeroPaddedSpec { input, mean: vec![0.4, 0.6], scale: 0.25, layers }
}

const SHAPES: [(&str, &[usize]); 5] = [
    ("conv1", &[4, 2, 4, 4]),
    ("conv2", &[3, 4, 3, 3]),
    ("conv3", &[5, 3, 2, 2]),
    ("linear1", &[7, 5 * 2 * 3]),
    ("linear2", &[3, 7]),
];

fn weights(dtype: DType) -> Weights {
    let rng = &mut rng(70);
    let layer = |(name, shape): (&str, &[usize])| {
        let weight = uniform(shape, 0.5, dtype, rng);
        let bias = uniform(&shape[..1], 0.5, dtype, rng);
        [(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]
    };
    SHAPES.into_iter().flat_map(layer).collect()
}

fn write(weights: &Weights) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("weights.safetensors");
    safetensors::save(weights, &path).unwrap();
    (folder, path)
}

/// The same network in candle's operations.
fn forward(weights: &Weights, images: &Tensor) -> certify::Result<Tensor> {
    let get = |name: &str| weights[name].clone();
    let mean = Tensor::new(&[0.4, 0.6], &Device::Cpu)?.to_dtype(images.dtype())?;
    let mut x = (images.broadcast_sub(&mean.reshape((1, 2, 1, 1))?)? / 0.25)?;
    for (name, padding, stride, relu) in
        [("conv1", 1, 2, true), ("conv2", 2, 1, true), ("conv3", 0, 3, false)]
    {
        let bias = get(&format!("{name}.bias")).reshape((1, (), 1, 1))?;
        x = x.conv2d(&get(&format!("{name}.weight")), padding, stride, 1, 1)?;
        x = x.broadcast_add(&bias)?;
        x = if relu { x.relu()? } else { x };
    }
    let x = x.flatten_from(1)?.matmul(&get("linear1.weight").t()?)?;
    let x = x.broadcast_add(&get("linear1.bias"))?.relu()?;
    Ok(x.matmul(&get("linear2.weight").t()?)?.broadcast_add(&get("linear2.bias"))?)
}

#[test]
fn logits_and_gradients_are_those_of_tensor_operations() {
    for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 500.0 * f64::from(f32::EPSILON))] {
        let weights = weights(dtype);
        let (_folder, path) = write(&weights);
        let network = ZeroPaddedNetwork::load(&path, &spec()).unwrap();
        assert_eq!((network.dtype(), network.n_classes()), (dtype, 3));
        // sizes around the chunks that images are processed in
        for n in [0, 1, 32, 45] {
            let images = images(n, spec().input, dtype, &mut rng(71));
            let expected = forward(&weights, &images).unwrap();
            assert!(largest_difference(&network.logits(&images).unwrap(), &expected) < tolerance);
        }
    }
}

#[test]
fn input_gradients_are_those_of_central_differences() {
    let (_folder, path) = write(&weights(DType::F64));
    let network = ZeroPaddedNetwork::load(&path, &spec()).unwrap();
    let images = images(35, spec().input, DType::F64, &mut rng(73));
    let objective = |logits: &Tensor| logits.sqr()?.sum_all();
    let (logits, gradient) = network.logits_and_input_gradient(&images, &objective).unwrap();
    assert_eq!(largest_difference(&logits, &network.logits(&images).unwrap()), 0.0);
    let value = |images: &Tensor| rows(&network.logits(images).unwrap()).concat();
    let value = |images: &Tensor| value(images).iter().map(|y| y * y).sum::<f64>();
    for _ in 0..10 {
        let direction = uniform(images.dims(), 1.0, DType::F64, &mut rng(74));
        let h = 1e-6;
        let [ahead, behind] =
            [h, -h].map(|h| value(&(&images + (&direction * h).unwrap()).unwrap()));
        let difference = (ahead - behind) / (2.0 * h);
        let product = rows(&(&gradient * &direction).unwrap()).concat().iter().sum::<f64>();
        // truncation of order h² and rounding of order eps / h, on a value of order 1e2
        assert!(
            (difference - product).abs() < 1e-6 * product.abs().max(1e2),
            "{difference} {product}"
        );
    }
    let (_folder, path) = write(&weights(DType::F32));
    let narrow = ZeroPaddedNetwork::load(&path, &spec()).unwrap();
    let images = images.to_dtype(DType::F32).unwrap();
    let (_, in_f32) = narrow.logits_and_input_gradient(&images, &objective).unwrap();
    let wide = gradient.zeros_like().unwrap();
    let size = largest_difference(&gradient, &wide);
    assert!(size > 0.1 && largest_difference(&in_f32, &gradient) < 1e-4 * size);
}

#[test]
fn attacks_run_on_it() {
    let (_folder, path) = write(&weights(DType::F32));
    let network = ZeroPaddedNetwork::load(&path, &spec()).unwrap();
    let images = images(10, spec().input, DType::F32, &mut rng(72));
    let labels = crate::common::predictions(&network, &images);
    let outcome =
        Fgsm::paper(0.5).run(AttackTarget::new(&network, &images, &labels), &mut |_| {}).unwrap();
    assert!(outcome.broken.iter().any(|&b| b));
}

#[track_caller]
fn check_refused(path: &Path, spec: &ZeroPaddedSpec, expected: &str) {
    let text = ZeroPaddedNetwork::load(path, spec).unwrap_err().to_string();
    let text = text.replace(&path.display().to_string(), "FILE");
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn files_that_do_not_fit_say_why() {
    let good = weights(DType::F32);
    let changed = |name: &str, tensor: Option<Tensor>| {
        let mut weights = good.clone();
        weights.remove(name);
        weights.extend(tensor.map(|tensor| (name.to_owned(), tensor)));
        write(&weights)
    };
    let zeros = |shape: &[usize]| Some(Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap());
    let check = |name: &str, tensor: Option<Tensor>, expected: &str| {
        let (_folder, path) = changed(name, tensor);
        check_refused(&path, &spec(), expected);
    };
    check("conv2.bias", None, "FILE: tensor `conv2.bias` is missing");
    check(
        "conv9.bias",
        zeros(&[1]),
        "FILE: unexpected tensor `conv9.bias`; the network has no such tensor",
    );
    check(
        "conv2.weight",
        zeros(&[3, 5, 3, 3]),
        "FILE: tensor `conv2.weight` has shape [3, 5, 3, 3], expected c_out x 4 x k x k",
    );
    check(
        "linear1.weight",
        zeros(&[7, 31]),
        "FILE: tensor `linear1.weight` has shape [7, 31], expected [7, 30]",
    );
    check(
        "linear2.weight",
        zeros(&[3]),
        "FILE: tensor `linear2.weight` has shape [3], expected 2 sides, none of them 0",
    );
    check(
        "conv1.weight",
        zeros(&[4, 2, 12, 12]),
        "FILE: conv1: a kernel of 12 with stride 2 does not fit into 11 padded pixels",
    );
    let half = good["conv1.bias"].to_dtype(DType::F16).unwrap();
    check("conv1.bias", Some(half), "FILE: expected all tensors in f32 or all in f64");
    let nan = Tensor::new(&[0.0, f32::NAN, 0.0, 0.0], &Device::Cpu).unwrap();
    check(
        "conv1.bias",
        Some(nan),
        "FILE: tensor `conv1.bias` holds NaN at flat index 1, expected finite numbers",
    );
}

#[test]
fn broken_files_and_specs_say_why() {
    let (_folder, path) = write(&weights(DType::F32));
    let few = ZeroPaddedSpec { mean: vec![0.5], ..spec() };
    check_refused(&path, &few, "channel means has shape [1], expected 2");
    let flat = ZeroPaddedSpec { scale: 0.0, ..spec() };
    check_refused(&path, &flat, "scale is 0, expected a positive number");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    check_refused(&path, &spec(), "FILE: not a complete safetensors file: ");
    std::fs::remove_file(&path).unwrap();
    check_refused(&path, &spec(), "cannot read FILE: ");
    let (_folder, path) = write(&weights(DType::F64));
    let network = ZeroPaddedNetwork::load(&path, &spec()).unwrap();
    let text = |images: Tensor| network.logits(&images).unwrap_err().to_string();
    let narrow = images(1, spec().input, DType::F32, &mut rng(0));
    assert_eq!(text(narrow.clone()), "batch of images has dtype f32, expected f64");
    let shape = "batch of images has shape [1, 2, 9, 6], expected b x 2 x 9 x 12";
    assert_eq!(text(narrow.narrow(3, 0, 6).unwrap()), shape);
}
