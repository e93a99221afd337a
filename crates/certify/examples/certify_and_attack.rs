//! Certifies a random 1-Lipschitz network on random images and attacks it.
//!
//! Expected: 60.0 % certified at 0.1 and 19.5 % at 0.3 in every arithmetic, 21.5 % surviving PGD at 0.3, and no
//! error: PGD breaks nothing inside a radius.
//!
//!     cargo run --release -p lipconv-certify --example certify_and_attack

use candle_core::{Device, Tensor};
use certify::{Arithmetic, Classifier, EvaluationSettings, Pgd, evaluate, predicted_class};
use lipconv::{Activation, Dense, ImageShape, PlainLayer, PlainNetwork};
use projectors::haar_orthogonal;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: usize = 8;
const N_IMAGES: usize = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let network = PlainNetwork::new(
        ImageShape::new(1, SIDE, SIDE),
        vec![
            PlainLayer::Flatten,
            orthogonal(SIDE * SIDE, SIDE * SIDE, &mut rng)?,
            PlainLayer::Activation(Activation::MaxMin),
            orthogonal(10, SIDE * SIDE, &mut rng)?,
        ],
    )?;
    let pixels: Vec<f32> = (0..N_IMAGES * SIDE * SIDE).map(|_| rng.random()).collect();
    let images = Tensor::from_vec(pixels, (N_IMAGES, 1, SIDE, SIDE), &Device::Cpu)?;
    // the network's own predictions serve as labels
    let logits: Vec<Vec<f64>> =
        Classifier::logits(&network, &images)?.to_dtype(candle_core::DType::F64)?.to_vec2()?;
    let labels: Vec<usize> = logits.iter().map(|row| predicted_class(row)).collect();

    let pgd = Pgd::strong(0.3, 40, 2, 0);
    let settings = EvaluationSettings {
        eps: &[0.1, 0.3],
        attacks: &[&pgd],
        attack_certified: true,
        batch_size: 100,
    };
    let evaluation = evaluate(&network, &images, &labels, &settings, &mut |_| {})?;
    for row in &evaluation.certified {
        println!(
            "certified at {}: nominal {:.1} %, real {:.1} %, executed in f32 {:.1} %, in f64 {:.1} %",
            row.eps,
            row.nominal,
            row.real,
            row.executed[&Arithmetic::F32],
            row.executed[&Arithmetic::F64],
        );
    }
    for row in &evaluation.attacks {
        println!("{} at {}: {:.1} % survive", row.attack, row.eps, row.accuracy);
    }
    Ok(())
}

/// The first `n_out` rows of a random orthogonal matrix, as a layer.
fn orthogonal(
    n_out: usize,
    n_in: usize,
    rng: &mut ChaCha8Rng,
) -> Result<PlainLayer, Box<dyn std::error::Error>> {
    let q = haar_orthogonal::<f32>(n_in, rng);
    let rows: Vec<f32> = q.iter().copied().take(n_out * n_in).collect();
    let weight = Tensor::from_vec(rows, (n_out, n_in), &Device::Cpu)?;
    Ok(PlainLayer::Dense(Dense::new(weight, None)?))
}
