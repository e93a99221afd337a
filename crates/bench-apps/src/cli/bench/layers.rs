//! `lipconv bench layers`: one layer at a time, forward and backward, beside PyTorch programs of the same formulas.

use std::ops::Range;

use anyhow::Result;
use candle_core::{DType, Device, Module, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use lipconv::ConvMethod;
use lipconv::nn;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Bench, Measured, Peer};

/// Channels, side of the image and kernel size of the layers measured.
const CHANNELS: usize = 64;
const SIDE: usize = 16;
const KERNEL: usize = 3;
/// Channels and kernel sizes of the strided kernels whose assembly is measured: from, to, size, stride.
const STRIDED: [[usize; 4]; 3] = [[64, 128, 3, 2], [64, 64, 4, 2], [128, 256, 4, 2]];

/// A layer's name in the table, its stride, and whether the script of the peers knows its formula.
const LAYERS: [(&str, usize, bool); 11] = [
    ("bcop", 1, false),
    ("aoc", 1, false),
    ("bcop", 2, false),
    ("aoc", 2, false),
    ("aol", 1, true),
    ("sll", 1, true),
    ("cpl", 1, true),
    ("bro", 1, true),
    ("cayley", 1, true),
    ("lot", 1, false),
    ("soc", 1, true),
];

impl Bench<'_> {
    /// Every layer with the weight's assembly, then the assembly of strided AOC kernels alone.
    pub(super) fn layers(&self) -> Result<Vec<Measured>> {
        let layers = LAYERS.iter().map(|&layer| self.layer(layer));
        let strided = STRIDED.iter().map(|&sizes| self.strided(sizes));
        layers.chain(strided).collect()
    }

    /// Forward and backward pass of a layer for its parameters and its input.
    fn layer(&self, (name, stride, has_peer): (&str, usize, bool)) -> Result<Measured> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let kernel = if stride == 1 { KERNEL } else { 2 * stride };
        let module = module(name, kernel, stride, vb)?;
        let batch = self.args.batch;
        let x = Var::from_tensor(&noise(&[batch, CHANNELS, SIDE, SIDE], -1.0..1.0, 1)?)?;
        let cotangent = noise(&[batch, CHANNELS, SIDE / stride, SIDE / stride], -1.0..1.0, 2)?;
        let ours = || {
            let gradients = (module.forward(&x)? * &cotangent)?.sum_all()?.backward()?;
            let pixel =
                gradients.get(&x).map(|g| g.get(0)?.flatten_all()?.get(0)?.to_scalar::<f32>());
            let pixel = pixel.transpose()?;
            anyhow::ensure!(
                pixel.is_some_and(f32::is_finite),
                "{name}: a pixel's gradient is {pixel:?}"
            );
            Ok(())
        };
        let sizes = [CHANNELS, kernel, SIDE].map(|n| n.to_string());
        let arguments = self.peer_arguments(["layer", name, &sizes[0], &sizes[1], &sizes[2]]);
        let peer: Peer = ("torch", arguments, "layer_ms");
        let title = format!(
            "{name}, {CHANNELS} channels, {kernel} x {kernel}, stride {stride}, on {SIDE} x {SIDE}"
        );
        self.measure(&title, ours, if has_peer { std::slice::from_ref(&peer) } else { &[] })
    }

    /// Assembly of a strided AOC kernel and its gradient.
    fn strided(&self, [c_in, c_out, kernel, stride]: [usize; 4]) -> Result<Measured> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let config = nn::AocConfig { stride, ..Default::default() };
        let layer = nn::aoc_conv2d(c_in, c_out, kernel, config, vb)?;
        let ours = || {
            let sum = layer.weight()?.sum_all()?;
            let n_gradients = sum.backward()?.get_ids().count();
            let sum = sum.to_scalar::<f32>()?;
            anyhow::ensure!(
                sum.is_finite() && n_gradients > 0,
                "a strided kernel has the sum {sum}"
            );
            Ok(())
        };
        let sizes = [c_in, c_out, kernel, stride].map(|n| n.to_string());
        let arguments =
            self.peer_arguments(["strided", &sizes[0], &sizes[1], &sizes[2], &sizes[3]]);
        let peer: Peer = ("orthogonium", arguments, "strided_ms");
        let title = format!(
            "assemble {c_in} -> {c_out} channels {kernel} x {kernel}, stride {stride}, forward and backward"
        );
        self.measure(&title, ours, &[peer])
    }
}

fn module(name: &str, kernel: usize, stride: usize, vb: VarBuilder<'_>) -> Result<Box<dyn Module>> {
    let c = CHANNELS;
    let constrained = |method| nn::Conv2dConfig { method, stride, ..Default::default() };
    let spectral = |method, vb| {
        let config = nn::SpectralConfig { method, stride, ..Default::default() };
        nn::spectral_conv2d(c, c, kernel, config, vb)
    };
    let residual = |rule| nn::SllConfig { rule, ..Default::default() };
    Ok(match name {
        "bcop" => Box::new(nn::conv2d(c, c, kernel, constrained(ConvMethod::Bcop), vb)?),
        "aol" => Box::new(nn::conv2d(c, c, kernel, constrained(ConvMethod::Aol), vb)?),
        "aoc" => {
            let config = nn::AocConfig { stride, ..Default::default() };
            Box::new(nn::aoc_conv2d(c, c, kernel, config, vb)?)
        }
        "sll" => Box::new(nn::sll(c, kernel, residual(nn::StepRule::Sll), vb)?),
        "cpl" => Box::new(nn::sll(c, kernel, residual(nn::StepRule::Cpl), vb)?),
        "bro" => Box::new(spectral(nn::SpectralMethod::Bro, vb)?),
        "lot" => Box::new(spectral(nn::SpectralMethod::Lot, vb)?),
        "cayley" => Box::new(spectral(nn::SpectralMethod::Cayley, vb)?),
        "soc" => Box::new(nn::soc_conv2d(c, c, kernel, nn::SocConfig::default(), vb)?),
        other => anyhow::bail!("no layer of the benchmark is called {other}"),
    })
}

pub(super) fn noise(shape: &[usize], range: Range<f32>, seed: u64) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random_range(range.clone())).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
