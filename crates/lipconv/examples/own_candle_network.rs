//! A network of one's own inside candle: modules of this crate mixed with candle's, trained by candle's optimizer, saved and
//! loaded.
//!
//!     cargo run --release -p lipconv --example own_candle_network -- network.safetensors
//!
//! It writes the file named and prints losses that fall, and the bounds of the layers.

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap, loss::cross_entropy};
use lipconv::nn::{self, AocConfig, Conv2dConfig, LinearConfig};
use lipconv::{Activation, ConvMethod, ImageShape, Result};

fn network(vb: &VarBuilder<'_>) -> Result<nn::Sequential> {
    let strided = AocConfig { stride: 2, ..Default::default() };
    let almost = Conv2dConfig { method: ConvMethod::Aol, ..Default::default() };
    Ok(nn::seq()
        .add(nn::conv2d(1, 8, 3, Conv2dConfig::default(), vb.pp("conv1"))?)
        .add(Activation::MaxMin)
        .add(nn::aoc_conv2d(8, 16, 3, strided, vb.pp("conv2"))?)
        .add(nn::householder(16, Default::default(), vb.pp("householder"))?)
        .add(nn::conv2d(16, 16, 3, almost, vb.pp("conv3"))?)
        .add(nn::AveragePool { size: 2 })
        .add(nn::Flatten)
        .add(candle_nn::linear(16 * 2 * 2, 32, vb.pp("linear1"))?)
        .add(candle_nn::Activation::Relu)
        .add(nn::linear(32, 4, LinearConfig::default(), vb.pp("linear2"))?))
}

/// Images whose class is the bright quarter.
fn images(n: usize) -> Result<(Tensor, Tensor)> {
    let pixel = |index: usize| {
        let (image, row, column) = (index / 64, index / 8 % 8, index % 8);
        let bright = image % 4 == 2 * (row / 4) + column / 4;
        (index as f32 * 0.7).sin().abs() * 0.5 + if bright { 0.5 } else { 0.0 }
    };
    let pixels = (0..n * 64).map(pixel).collect::<Vec<_>>();
    let labels = (0..n as u32).map(|index| index % 4).collect::<Vec<_>>();
    let images = Tensor::from_vec(pixels, (n, 1, 8, 8), &Device::Cpu)?;
    Ok((images, Tensor::from_vec(labels, n, &Device::Cpu)?))
}

fn main() -> Result<()> {
    let Some(path) = std::env::args().nth(1) else {
        println!("usage: own_candle_network FILE");
        return Ok(());
    };
    let variables = VarMap::new();
    let network_of =
        |variables: &VarMap| network(&VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu));
    let trained = network_of(&variables)?;
    let (x, labels) = images(64)?;
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 1e-2)?;
    for step in 0..40 {
        let loss = cross_entropy(&trained.forward(&x)?, &labels)?;
        optimizer.backward_step(&loss)?;
        if step % 10 == 0 {
            println!("step {step}: loss {:.3}", loss.to_scalar::<f32>()?);
        }
    }
    variables.save(&path)?;

    let mut others = VarMap::new();
    let loaded = network_of(&others)?;
    others.load(&path)?;
    let difference = (loaded.forward(&x)? - trained.forward(&x)?)?.abs()?.max_all()?;
    println!("the loaded network differs by {}", difference.to_scalar::<f32>()?);

    let plain = loaded.network(ImageShape::new(1, 8, 8), DType::F32)?;
    for (name, bound) in plain.names().iter().zip(plain.lipschitz_bounds()?) {
        println!("{name}: norm at most {}", bound.value());
    }
    Ok(())
}
