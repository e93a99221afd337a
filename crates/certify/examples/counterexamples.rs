//! Hunts for images that change class inside their nominal radius (L = 1 taken on faith, rounding ignored), on networks made to
//! have them, and checks that none changes inside its executed radius.
//!
//! Expected: counterexamples to nominal radii wherever weights were rounded to bf16 or f16, or a large bias hides in the
//! network; none to executed radii.
//!
//!     cargo run --release -p lipconv-certify --example counterexamples -- [NETWORKS PER CONSTRUCTION]

#![allow(clippy::unwrap_used, reason = "an example may end where it cannot go on")]

#[path = "../tests/suite/hunt.rs"]
mod hunt;

use candle_core::DType;
use hunt::{Construction, Findings, hunt};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const N_IMAGES: usize = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = std::env::args().nth(1).map_or(Ok(40), |n| n.parse::<u64>())?;
    println!("{n} networks with {N_IMAGES} images each");
    println!(
        "{:<22}{:>8}{:>22}{:>12}{:>22}{:>18}",
        "construction",
        "images",
        "inside nominal radius",
        "deepest",
        "inside executed radius",
        "executed/nominal"
    );
    let constructions = [
        ("orthogonal, f32", Construction::Plain),
        ("weights in f16", Construction::StoredIn(DType::F16)),
        ("weights in bf16", Construction::StoredIn(DType::BF16)),
        ("hidden bias 1e2", Construction::HiddenBias(1e2)),
        ("hidden bias 1e4", Construction::HiddenBias(1e4)),
        ("hidden bias 1e6", Construction::HiddenBias(1e6)),
        ("hidden bias 5e6", Construction::HiddenBias(5e6)),
    ];
    let mut n_unsound = 0;
    for (name, construction) in constructions {
        let all: Vec<Findings> = (0..n).map(|seed| found(construction, seed)).collect();
        let sum = |f: fn(&Findings) -> usize| all.iter().map(f).sum::<usize>();
        let deepest = all.iter().map(|f| f.deepest).fold(0.0, f64::max);
        let kept = all.iter().map(|f| f.kept).sum::<f64>() / n as f64;
        n_unsound += sum(|f| f.n_unsound);
        println!(
            "{name:<22}{:>8}{:>22}{deepest:>12.1e}{:>22}{kept:>18.6}",
            sum(|f| f.n_images),
            sum(|f| f.n_broken),
            sum(|f| f.n_unsound)
        );
    }
    if n_unsound > 0 { Err("an executed radius is wrong".into()) } else { Ok(()) }
}

fn found(construction: Construction, seed: u64) -> Findings {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let network = construction.network(rng);
    hunt(&network, &Construction::images(N_IMAGES, rng), rng)
}
