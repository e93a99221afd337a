//! Milliseconds of a training step of the paper's BCOP networks put together from candle modules, with candle's optimiser, as one line
//! of JSON: `cargo run --release -p lipconv [--features cuda] --example module_step -- small|large [cpu|cuda] [steps]`.

use std::time::Instant;

use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap, loss::cross_entropy};
use lipconv::nn::{self, Conv2dConfig};
use lipconv::{Activation::MaxMin, ImageShape};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let n_steps: usize = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(50);
    let device = if has("cuda") { Device::new_cuda(0)? } else { Device::Cpu };
    let (name, input, (first, second), width) = match has("large") {
        true => ("large", ImageShape::new(3, 32, 32), (32, 64), 512),
        false => ("small", ImageShape::new(1, 28, 28), (16, 32), 100),
    };
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &device);
    let ImageShape { channels, height, .. } = input;
    let halving = Conv2dConfig { stride: 2, ..Conv2dConfig::default() };
    let features = second * (height / 4) * (height / 4);
    let mut network = nn::seq();
    if has("large") {
        network = network
            .add(nn::conv2d(channels, first, 3, Default::default(), vb.pp("conv1"))?)
            .add(MaxMin)
            .add(nn::conv2d(first, first, 4, halving, vb.pp("conv2"))?)
            .add(MaxMin)
            .add(nn::conv2d(first, second, 3, Default::default(), vb.pp("conv3"))?)
            .add(MaxMin)
            .add(nn::conv2d(second, second, 4, halving, vb.pp("conv4"))?)
            .add(MaxMin)
            .add(nn::Flatten)
            .add(nn::linear(features, width, Default::default(), vb.pp("linear1"))?)
            .add(MaxMin)
            .add(nn::linear(width, width, Default::default(), vb.pp("linear2"))?);
    } else {
        network = network
            .add(nn::conv2d(channels, first, 4, halving, vb.pp("conv1"))?)
            .add(MaxMin)
            .add(nn::conv2d(first, second, 4, halving, vb.pp("conv2"))?)
            .add(MaxMin)
            .add(nn::Flatten)
            .add(nn::linear(features, width, Default::default(), vb.pp("linear1"))?);
    }
    let network =
        network.add(MaxMin).add(nn::linear(width, 10, Default::default(), vb.pp("head"))?);
    let values = (0..128 * input.n_values()).map(|i| (i * 7919 % 251) as f32 / 250.0);
    let images = Tensor::from_iter(values, &device)?.reshape((128, channels, height, height))?;
    let labels = Tensor::from_iter((0..128u32).map(|i| i % 10), &device)?;
    let mut adam = AdamW::new_lr(variables.all_vars(), 1e-3)?;
    let mut times = Vec::new();
    let mut last = f32::NAN;
    for _ in 0..n_steps.max(3) {
        let start = Instant::now();
        let loss = cross_entropy(&network.forward(&images)?, &labels)?;
        adam.backward_step(&loss)?;
        last = loss.to_scalar::<f32>()?;
        device.synchronize()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let (median, device) = (times[times.len() / 2], if has("cuda") { "cuda" } else { "cpu" });
    println!(
        "{{\"what\": \"module step\", \"network\": \"{name} bcop\", \"device\": \"{device}\", \"batch\": 128, \"steps\": {n_steps}, \"step_ms\": {median:.4}, \"loss\": {last:.5}}}"
    );
    Ok(())
}
