//! A million perturbations of 0.999 of the executed radius: random ones and ones along gradients, none of which may change a class.
//!
//! Expected: 0 changes, in every arithmetic.
//!
//!     cargo run --release -p lipconv-certify --example perturbations -- NETWORK.safetensors IMAGES LABELS [PERTURBATIONS]
//!
//! NETWORK is a plain network, IMAGES and LABELS are IDX files, not compressed (t10k-images-idx3-ubyte). A sixth of the perturbations
//! follow the gradient that lowers the margin to each of the best rivals, a third do so with noise of the same length
//! added; the others are uniform on the sphere.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use certify::is_correct;
use certify::{Arithmetic, Certifier, Classifier, ExecutedNetwork};
use lipconv::PlainNetwork;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

type AnyError = Box<dyn std::error::Error>;

const SHARE: f64 = 0.999;
/// Images whose perturbations are evaluated in one forward pass.
const GROUP: usize = 16;

fn main() -> Result<(), AnyError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [network, images, labels, rest @ ..] = arguments.as_slice() else {
        return Err("usage: perturbations NETWORK.safetensors IMAGES LABELS [PERTURBATIONS]".into());
    };
    let n_wanted = rest.first().map_or(Ok(1_000_000), |n| n.parse::<usize>())?;
    let network = PlainNetwork::load(Path::new(network), &Device::Cpu)?;
    let (images, labels) = read_idx(Path::new(images), Path::new(labels), &network)?;
    let certificates = Certifier::new(&network)?.certify(&images, &labels)?;
    for (arithmetic, radii) in &certificates.executed {
        let start = Instant::now();
        let executed = ExecutedNetwork::new(&network, *arithmetic)?;
        let images = images.to_dtype(executed.dtype())?;
        let certified: Vec<usize> = (0..radii.len()).filter(|&i| radii[i] > 0.0).collect();
        let each = n_wanted.div_ceil(certified.len().max(1)).max(6);
        let mut n_changed = 0;
        for group in certified.chunks(GROUP) {
            let points = perturbed(&executed, &images, &labels, radii, group, each)?;
            let rows = points.1.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            let changed =
                rows.iter().zip(&points.0).filter(|(row, label)| !is_correct(row, **label));
            n_changed += changed.count();
        }
        let seconds = start.elapsed().as_secs_f64();
        let name = arithmetic.name();
        let n = each * certified.len();
        println!(
            "{name}: {n} perturbations of {} images, {n_changed} changes, {seconds:.0} s",
            certified.len()
        );
        if n_changed > 0 {
            return Err(format!("an executed radius is wrong in {name}").into());
        }
    }
    Ok(())
}

/// `each` perturbations of every image of the group: their labels and logits.
fn perturbed(
    network: &ExecutedNetwork,
    images: &Tensor,
    labels: &[usize],
    radii: &[f64],
    group: &[usize],
    each: usize,
) -> Result<(Vec<usize>, Tensor), AnyError> {
    let narrow = network.arithmetic() != Arithmetic::F64;
    let index: Vec<u32> = group.iter().map(|&i| i as u32).collect();
    let centres = images.index_select(&Tensor::new(index, &Device::Cpu)?, 0)?;
    let gradients = gradients(network, &centres, group, labels)?;
    let values = centres.to_dtype(DType::F64)?.flatten_from(1)?.to_vec2::<f64>()?;
    let points: Vec<Vec<f64>> = (0..group.len() * each)
        .into_par_iter()
        .map(|at| {
            let (member, attempt) = (at / each, at % each);
            let sample = group[member];
            let mut rng = ChaCha8Rng::seed_from_u64(at as u64);
            rng.set_stream(sample as u64);
            let gradient = &gradients[attempt % gradients.len()][member];
            let direction = direction(attempt, each, gradient, &mut rng);
            placed(&values[member], &direction, SHARE * radii[sample], narrow)
        })
        .collect();
    let mut shape = images.dims().to_vec();
    shape[0] = points.len();
    let batch =
        Tensor::from_vec(points.concat(), shape, &Device::Cpu)?.to_dtype(network.dtype())?;
    let labels = (0..points.len()).map(|at| labels[group[at / each]]).collect();
    Ok((labels, network.logits(&batch)?))
}

/// Gradients of `y_j - y_label` for the three best rivals j, image by image.
fn gradients(
    network: &ExecutedNetwork,
    centres: &Tensor,
    group: &[usize],
    labels: &[usize],
) -> Result<Vec<Vec<Vec<f64>>>, AnyError> {
    let logits = network.logits(centres)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let rival = |place: usize| {
        let mut weights = vec![0.0; group.len() * network.n_classes()];
        for (member, row) in logits.iter().enumerate() {
            let label = labels[group[member]];
            let mut others: Vec<usize> = (0..row.len()).filter(|&j| j != label).collect();
            others.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let weights = &mut weights[member * row.len()..(member + 1) * row.len()];
            (weights[label], weights[others[place]]) = (-1.0, 1.0);
        }
        let shape = (group.len(), network.n_classes());
        let weights = Tensor::from_vec(weights, shape, &Device::Cpu)?.to_dtype(network.dtype())?;
        let objective = |logits: &Tensor| (logits * &weights)?.sum_all();
        let (_, gradient) = network.logits_and_input_gradient(centres, &objective)?;
        Ok(gradient.to_dtype(DType::F64)?.flatten_from(1)?.to_vec2::<f64>()?)
    };
    (0..3.min(network.n_classes() - 1)).map(rival).collect()
}

fn direction(attempt: usize, each: usize, gradient: &[f64], rng: &mut ChaCha8Rng) -> Vec<f64> {
    if attempt < each / 6 {
        return gradient.to_vec();
    }
    let noise: Vec<f64> = gradient.iter().map(|_| rng.sample(StandardNormal)).collect();
    if attempt >= each / 2 {
        return noise;
    }
    let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
    let share: f64 = rng.random();
    let scale = share * norm(gradient) / norm(&noise);
    gradient.iter().zip(&noise).map(|(g, n)| g + scale * n).collect()
}

/// The point at distance `radius` in a direction, rounded to f32 where the arithmetic stores that.
fn placed(centre: &[f64], direction: &[f64], radius: f64, narrow: bool) -> Vec<f64> {
    let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt();
    let step = if length > 0.0 { radius / length } else { 0.0 };
    let point = centre.iter().zip(direction).map(|(x, d)| x + step * d);
    point.map(|v| if narrow { f64::from(v as f32) } else { v }).collect()
}

/// Images in f32 with pixels in [0, 1], and labels.
fn read_idx(
    images: &Path,
    labels: &Path,
    network: &PlainNetwork,
) -> Result<(Tensor, Vec<usize>), AnyError> {
    let (images, labels) = (std::fs::read(images)?, std::fs::read(labels)?);
    let input = network.input();
    let n = labels.len().saturating_sub(8);
    if images.len() != 16 + n * input.n_values() {
        return Err("the files do not hold images of the network's size, one for each label".into());
    }
    let pixels: Vec<f32> = images[16..].iter().map(|&p| f32::from(p) / 255.0).collect();
    let shape = (n, input.channels, input.height, input.width);
    let labels = labels[8..].iter().map(|&label| usize::from(label)).collect();
    Ok((Tensor::from_vec(pixels, shape, &Device::Cpu)?, labels))
}
