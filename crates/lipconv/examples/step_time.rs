//! Milliseconds of one training step at batch 128:
//! `cargo run --release -p lipconv --example step_time -- small|large [steps] [METHOD]`, METHOD one of bcop (the default),
//! bcop-fixed, rko, ossn, svcm, rk-l2ne, plain.
//!
//! For profiling; the benchmark with PyTorch beside it is `cargo xtask bench step`.

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use lipconv::{
    Batch, ImageShape, Loss, Methods, Network, NetworkSpec, Optimizer, Schedule, TrainConfig,
    Trainer,
};

fn main() -> Result<(), lipconv::Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let n_steps = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(20);
    let named = [
        ("plain", Methods::UNCONSTRAINED),
        ("rko", Methods::RKO),
        ("ossn", Methods::OSSN),
        ("svcm", Methods::SVCM),
        ("rk-l2ne", Methods::RK_L2NE),
        ("bcop-fixed", Methods::BCOP_FIXED),
    ];
    let methods = named.iter().find(|(name, _)| has(name)).map_or(Methods::BCOP, |&(_, m)| m);
    let spec = if has("large") {
        NetworkSpec::large(ImageShape::new(3, 32, 32), 10, methods, 1.0)?
    } else {
        NetworkSpec::small(ImageShape::new(1, 28, 28), 10, methods)
    };
    let config = TrainConfig {
        epochs: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        optimizer: Optimizer::default(),
        averaging: lipconv::Averaging::None,
        loss: Loss::MultiClassHinge { margin: 2.12 },
        seed: 0,
    };
    let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?;
    let mut trainer = Trainer::new(network, config)?.epochs_of(n_steps)?;
    let ImageShape { channels, height, width } = spec.input;
    let n = 128 * spec.input.n_values();
    let pixels: Vec<f32> = (0..n).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
    let images = Tensor::from_vec(pixels, (128, channels, height, width), &Device::Cpu)?;
    let batch = Batch { images, labels: (0..128).map(|i| i * 31 % 10).collect() };
    let mut times = Vec::with_capacity(n_steps);
    for _ in 0..n_steps {
        let start = Instant::now();
        trainer.step(&batch)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("first {:.1} ms", times[0]);
    times.sort_by(f64::total_cmp);
    println!("median {:.1} ms, fastest {:.1} ms", times[n_steps / 2], times[0]);
    let start = Instant::now();
    let plain = trainer.network().materialize()?;
    let materialised = start.elapsed().as_secs_f64() * 1e3;
    let bound = plain.lipschitz_bound()?.value();
    let bounded = start.elapsed().as_secs_f64() * 1e3 - materialised;
    println!("materialised in {materialised:.0} ms, bound {bound:.7} in {bounded:.0} ms");
    Ok(())
}
