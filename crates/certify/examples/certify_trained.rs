//! Certifies a network of dense layers and ReLU that another program has trained: weights under PyTorch's names in a safetensors
//! file.
//!
//!     cargo run --release -p lipconv-certify --example certify_trained -- network.safetensors
//!
//! The file holds `0.weight`, `0.bias`, `2.weight`, `2.bias` and so on, as `torch.nn.Sequential(Linear, ReLU, Linear, …)` has them.
//! Without a file the example writes one first, with the weights that candle starts from. It prints the bound of each layer's norm and the radii of
//! some inputs. Nothing is assumed of the weights: the radius divides by the product of the bounds.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{VarBuilder, VarMap};
use certify::{Arithmetic, Certifier};
use lipconv::{Activation, Dense, ImageShape, PlainLayer, PlainNetwork};

/// Any error ends the example.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A network of 6 to 8 to 3 features, as candle initialises it.
fn write_one(path: &Path) -> Outcome<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    candle_nn::linear(6, 8, vb.pp("0"))?;
    candle_nn::linear(8, 3, vb.pp("2"))?;
    Ok(variables.save(path)?)
}

fn network(path: &Path) -> Outcome<PlainNetwork> {
    let mut tensors = safetensors::load(path, &Device::Cpu)?;
    let mut layers = vec![PlainLayer::Flatten];
    let mut n_in = None;
    for place in (0..).step_by(2) {
        let Some(weight) = tensors.remove(&format!("{place}.weight")) else { break };
        if place > 0 {
            layers.push(PlainLayer::Activation(Activation::Relu));
        }
        n_in = n_in.or(Some(weight.dims2()?.1));
        let bias = tensors.remove(&format!("{place}.bias"));
        layers.push(PlainLayer::Dense(Dense::new(weight, bias)?));
    }
    let features = n_in.ok_or("the file has no tensor 0.weight")?;
    Ok(PlainNetwork::new(ImageShape::vector(features), layers)?)
}

fn main() -> Outcome<()> {
    let path = match std::env::args().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let path = std::env::temp_dir().join("lipconv-certify-trained.safetensors");
            write_one(&path)?;
            path
        }
    };
    let network = network(&path)?;
    for (name, bound) in network.names().iter().zip(network.lipschitz_bounds()?) {
        println!("{name}: norm at most {:.6}", bound.value());
    }
    let features = network.input().channels;
    let values = (0..5 * features).map(|index| (index as f32 * 0.9).sin().abs());
    let shape = (5, features, 1, 1);
    let images = Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)?;
    let labels = network.forward(&images)?.argmax(1)?.to_vec1::<u32>()?;
    let labels = labels.into_iter().map(|label| label as usize).collect::<Vec<_>>();
    let certificates = Certifier::new(&network)?.certify(&images, &labels)?;
    let executed = &certificates.executed[&Arithmetic::F32];
    for (index, label) in labels.iter().enumerate() {
        let real = certificates.real[index];
        println!(
            "input {index}: class {label}, radius {real:.6}, as executed in f32 {:.6}",
            executed[index]
        );
    }
    Ok(())
}
