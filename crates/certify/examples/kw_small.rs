//! Attacks the "Small" CIFAR-10 network of Wong et al. 2018, which this project did not train: a check of the attacks
//! against published figures.
//!
//! Expected on the 10,000 test images at ε = 36/255: clean 54.38 %, FGSM 49.97 %, PGD 49.93 % (Table 3 of Li et al. 2019
//! has 54.39, 49.98, 49.94); on the first 100: clean 63, boundary attack about 60, pointwise attack 63.
//!
//!     cargo run --release -p certify --example kw_small -- WEIGHTS.safetensors test_batch.bin [N]
//!
//! WEIGHTS holds conv1, conv2, linear1, linear2 in OIHW; test_batch.bin is that of CIFAR-10's binary version.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use certify::is_correct;
use certify::{
    Attack, Boundary, Classifier, Fgsm, Pgd, Pointwise, ZeroPaddedNetwork, ZeroPaddedSpec,
};
use certify::{AttackTarget, batched_logits};

const EPS: f64 = 36.0 / 255.0;
const N_PIXELS: usize = 3 * 32 * 32;

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [weights, batch, rest @ ..] = arguments.as_slice() else {
        return Err("usage: kw_small WEIGHTS.safetensors test_batch.bin [N]".into());
    };
    let limit = rest.first().map_or(Ok(10_000), |n| n.parse::<usize>())?;
    let network = ZeroPaddedNetwork::load(Path::new(weights), &ZeroPaddedSpec::kw_small())?;
    let (images, labels) = read_batch(Path::new(batch), limit)?;

    println!("{} images: clean {:.2} %", labels.len(), clean(&network, &images, &labels)?);
    report(&network, &Fgsm::paper(EPS), &images, &labels)?;
    report(&network, &Pgd::paper(EPS, 0), &images, &labels)?;

    let n = labels.len().min(100);
    let (images, labels) = (images.narrow(0, 0, n)?, &labels[..n]);
    println!("first {n} images: clean {:.2} %", clean(&network, &images, labels)?);
    report(&network, &Boundary::new(EPS, 0), &images, labels)?;
    report(&network, &Pointwise::new(EPS, 0), &images, labels)
}

/// Images and labels of a batch file: 1 byte of label and 3072 of pixels, channel by channel.
fn read_batch(path: &Path, limit: usize) -> Result<(Tensor, Vec<usize>), AnyError> {
    let bytes = std::fs::read(path)?;
    let records: Vec<&[u8]> = bytes.chunks_exact(1 + N_PIXELS).take(limit).collect();
    let labels = records.iter().map(|record| usize::from(record[0])).collect();
    let pixels: Vec<f32> =
        records.iter().flat_map(|record| &record[1..]).map(|&p| f32::from(p) / 255.0).collect();
    Ok((Tensor::from_vec(pixels, (records.len(), 3, 32, 32), &Device::Cpu)?, labels))
}

fn clean(network: &dyn Classifier, images: &Tensor, labels: &[usize]) -> Result<f64, AnyError> {
    let logits = batched_logits(network, images, 1000)?.to_dtype(candle_core::DType::F64)?;
    let rows = logits.to_vec2::<f64>()?;
    let n = rows.iter().zip(labels).filter(|(row, t)| is_correct(row, **t)).count();
    Ok(100.0 * n as f64 / labels.len() as f64)
}

fn report(
    network: &dyn Classifier,
    attack: &dyn Attack,
    images: &Tensor,
    labels: &[usize],
) -> Result<(), AnyError> {
    let start = Instant::now();
    let outcome = attack.run(AttackTarget::new(network, images, labels), &mut |_| {})?;
    let seconds = start.elapsed().as_secs_f64();
    println!("  {:<10} {:.2} % survive, {seconds:.1} s", attack.name(), outcome.accuracy());
    Ok(())
}
