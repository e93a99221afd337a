//! What certifying an image costs beside a plain forward pass in f64, for the paper's Small and Large.
//!
//!     cargo run --release -p lipconv-certify --example margin_cost

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use certify::Certifier;
use lipconv::{ImageShape, Methods, Network, NetworkSpec};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Images of a batch, and measurements of which the median counts.
const BATCH: usize = 250;
const REPEAT: usize = 7;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (digits, colours) = (ImageShape::new(1, 28, 28), ImageShape::new(3, 32, 32));
    for (name, spec) in [
        ("Small, MNIST", NetworkSpec::small(digits, 10, Methods::BCOP)),
        ("Large, CIFAR-10", NetworkSpec::large(colours, 10, Methods::BCOP, 1.0)?),
    ] {
        let network = Network::new(&spec, DType::F32, &Device::Cpu, 0)?.materialize()?;
        let double = Network::new(&spec, DType::F64, &Device::Cpu, 0)?.materialize()?;
        let ImageShape { channels, height, width } = spec.input;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let pixels: Vec<f32> = (0..BATCH * spec.input.n_values()).map(|_| rng.random()).collect();
        let images = Tensor::from_vec(pixels, (BATCH, channels, height, width), &Device::Cpu)?;
        let wide = images.to_dtype(DType::F64)?;
        let labels = vec![0; BATCH];
        let start = Instant::now();
        let certifier = Certifier::new(&network)?;
        let bounds = start.elapsed().as_secs_f64() * 1e3;
        let forward = median(|| Ok(double.forward(&wide).map(drop)?))?;
        let certify = median(|| Ok(certifier.certify(&images, &labels).map(drop)?))?;
        println!(
            "{name}: bounds of all layers {bounds:.0} ms once; {BATCH} images: forward in f64 {forward:.1} ms, \
             certified {certify:.1} ms, {:.1} times",
            certify / forward
        );
    }
    Ok(())
}

/// Median milliseconds of some calls after a first one.
fn median(
    mut f: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<f64, Box<dyn std::error::Error>> {
    f()?;
    let mut times = Vec::with_capacity(REPEAT);
    for _ in 0..REPEAT {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPEAT / 2])
}
