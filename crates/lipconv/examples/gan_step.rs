//! Milliseconds of a step of GAN training, and of its parts:
//! `cargo run --release -p lipconv --example gan_step -- [32|64] [WIDTH]`, WIDTH the factor of the critic's widths.
//!
//! The lines of transposed convolution and batch normalisation are forward and backward of the generator's third block.

use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use lipconv::gan::{GanConfig, GanTrainer, PlayerConfig};
use lipconv::generator::{Generator, GeneratorSpec};
use lipconv::ops::{self, portable};
use lipconv::{ImageShape, Methods, Network, NetworkSpec, Result};

const BATCH: usize = 64;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let size = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(32);
    let width = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(0.25);
    let image = ImageShape::new(3, size, size);
    let spec = GeneratorSpec::paper(image);
    println!("{size} px, batch {BATCH}, critic x {width}, {} parameters", spec.n_parameters());

    let images =
        lipconv::generator::latents(image.n_values(), BATCH, 0, 0, DType::F32, &Device::Cpu)?
            .reshape((BATCH, 3, size, size))?;
    for n_critic in [1000, 1] {
        let critic = NetworkSpec::critic(image, Methods::BCOP, width)?;
        let critic = Network::new(&critic, DType::F32, &Device::Cpu, 1)?;
        let generator = Generator::new(&spec, DType::F32, &Device::Cpu, 2)?;
        let player = PlayerConfig::default();
        let config = GanConfig { epochs: 1, n_critic, critic: player, generator: player, seed: 0 };
        let mut trainer = GanTrainer::new(generator, critic, config)?.epochs_of(100)?;
        time(&format!("step, n_critic {n_critic}"), || trainer.step(&images).map(|_| ()))?;
        let generator = trainer.generator();
        let z = lipconv::generator::latents(spec.latent, BATCH, 0, 0, DType::F32, &Device::Cpu)?;
        time("generator forward", || generator.forward_train(&z).map(|_| ()))?;
        time("generator forward and backward", || {
            generator.forward_train(&z)?.sum_all()?.backward()?;
            Ok(())
        })?;
    }
    time_operations(size)
}

fn time_operations(size: usize) -> Result<()> {
    let random = |shape: &[usize]| -> Result<Var> {
        let n = shape.iter().product();
        let values = lipconv::generator::latents(n, 1, 1, 0, DType::F32, &Device::Cpu)?;
        Ok(Var::from_tensor(&values.reshape(shape)?)?)
    };
    let (x, weight) = (random(&[BATCH, 32, size / 4, size / 4])?, random(&[32, 16, 4, 4])?);
    let both = |y: Tensor| -> Result<()> {
        y.sqr()?.sum_all()?.backward()?;
        Ok(())
    };
    time("transposed convolution, candle's", || both(x.conv_transpose2d(&weight, 1, 0, 2, 1)?))?;
    time("transposed convolution, portable", || {
        both(portable::conv_transpose(&x, &weight, None)?)
    })?;
    time("transposed convolution, here", || both(ops::conv_transpose(&x, &weight, None)?))?;
    let (x, scale) = (random(&[BATCH, 16, size / 2, size / 2])?, random(&[16])?);
    time("batch norm, portable", || both(portable::batch_norm(&x, &scale, &scale, 1e-5)?.output))?;
    time("batch norm, here", || both(ops::batch_norm(&x, &scale, &scale, 1e-5)?.output))
}

/// Prints the median of 21 runs after 3 that do not count.
fn time(what: &str, mut f: impl FnMut() -> Result<()>) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..24 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let counted = &mut times[3..];
    counted.sort_by(f64::total_cmp);
    println!("{what:40} {:8.2} ms", counted[counted.len() / 2]);
    Ok(())
}
