//! Milliseconds of one training step of the CUDA engine, images on the device, as one line of JSON:
//! `cargo run --release -p lipconv --features cuda-engine --example device_step -- small|large [bcop|rko|plain|lln] [steps]`.
//!
//! With the feature `cuda-emulation` alone the same runs on the emulated device, with batches of 2, to see that it runs.

use std::time::Instant;

use candle_core::{DType, Device};
use lipconv::cuda::{Engine, Place, Sample};
use lipconv::{
    ImageShape, LayerSpec, LinearMethod, Loss, Methods, Network, NetworkSpec, Optimizer, Schedule,
    TrainConfig,
};

fn main() -> Result<(), lipconv::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let n_steps: usize = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(200);
    let spec = spec(&has)?;
    let config = TrainConfig {
        epochs: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        optimizer: Optimizer::default(),
        loss: Loss::MultiClassHinge { margin: std::f64::consts::FRAC_1_SQRT_2 },
        seed: 0,
        averaging: lipconv::Averaging::None,
    };
    let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?;
    let (mut engine, batch, device) = engine(&network, &config)?;
    let n_images = 8 * batch;
    let images: Vec<u8> =
        (0..n_images * spec.input.n_values()).map(|i| (i * 7919 % 251) as u8).collect();
    let labels: Vec<u8> = (0..n_images).map(|i| (i * 31 % 10) as u8).collect();
    engine.set_images(&images, &labels, n_steps)?;
    let sample = |i: usize| Sample {
        image: (i % n_images) as u32,
        shift: ((i % 9) as i16 - 4, (i / 9 % 9) as i16 - 4),
        mirrored: i.is_multiple_of(2),
    };
    let samples: Vec<Sample> = (0..n_steps * batch).map(sample).collect();
    let rates: Vec<(f64, u64)> = (1..=n_steps as u64).map(|step| (1e-3, step)).collect();
    engine.begin_epoch(&samples, &rates)?;
    let mut times = Vec::new();
    let mut loss = f64::NAN;
    let some = n_steps.div_ceil(20);
    for _ in 0..n_steps / some {
        let start = Instant::now();
        loss = engine.run(some)?.loss;
        times.push(start.elapsed().as_secs_f64() * 1e3 / some as f64);
    }
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(first);
    println!(
        "{{\"what\": \"step\", \"network\": \"{}\", \"device\": \"{device}\", \"batch\": {batch}, \"steps\": {n_steps}, \"step_ms\": {median:.4}, \"loss\": {loss:.5}}}",
        arguments
            .iter()
            .filter(|a| a.parse::<usize>().is_err())
            .cloned()
            .collect::<Vec<_>>()
            .join(" ")
    );
    Ok(())
}

/// The network that the words ask for.
fn spec(has: &dyn Fn(&str) -> bool) -> Result<NetworkSpec, lipconv::Error> {
    let methods = match () {
        () if has("plain") => Methods::UNCONSTRAINED,
        () if has("rko") => Methods::RKO,
        () => Methods::BCOP,
    };
    let mut spec = if has("large") {
        NetworkSpec::large(ImageShape::new(3, 32, 32), 10, methods, 1.0)?
    } else {
        NetworkSpec::small(ImageShape::new(1, 28, 28), 10, methods)
    };
    if has("lln") {
        let head = LayerSpec::Linear { out_features: 10, method: LinearMethod::Lln };
        spec.layers.pop();
        spec.layers.push(head);
    }
    Ok(spec)
}

/// An engine, the size of its batches, and the device's name.
#[cfg(feature = "cuda-engine")]
fn engine(
    network: &Network,
    config: &TrainConfig,
) -> Result<(Engine, usize, &'static str), lipconv::Error> {
    Ok((Engine::for_network(network, config, Place::Device(0), 128)?, 128, "cuda"))
}

#[cfg(not(feature = "cuda-engine"))]
fn engine(
    network: &Network,
    config: &TrainConfig,
) -> Result<(Engine, usize, &'static str), lipconv::Error> {
    let place = Place::Emulated(lipconv::cuda::Emulated::default());
    Ok((Engine::for_network(network, config, place, 2)?, 2, "emulated"))
}
