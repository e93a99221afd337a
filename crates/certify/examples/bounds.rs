//! Layer bounds on thousands of weights that are hard on them, against singular values from LAPACK.
//!
//! Expected: no bound below the truth, none more than 1e-4 above it.
//!
//!     cargo run --release -p lipconv-certify --example bounds -- [KERNELS PER FAMILY]

#![allow(clippy::unwrap_used, reason = "an example may end where it cannot go on")]

#[path = "../tests/suite/kernels.rs"]
mod kernels;

use certify::NetworkBounds;
use kernels::{Case, FAMILIES};
use lipconv::PlainLayer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let n = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse::<usize>())?;
    let mut n_violations = 0;
    println!("{n} weights of each family: bound / truth - 1, median and largest");
    println!("{:<18}{:>22}{:>22}{:>22}", "", "K dense", "K convolution", "A");
    for (seed, family) in FAMILIES.into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed as u64);
        let [mut dense, mut conv, mut absolute] = [const { Vec::new() }; 3];
        for _ in 0..n {
            let case = Case::draw(family, &mut rng);
            let bounds = NetworkBounds::new(&case.network())?;
            let (layer, (norm, absolute_norm)) = (&bounds.layers()[0], case.truth());
            let is_dense = matches!(case.layer, PlainLayer::Dense(_));
            let list = if is_dense { &mut dense } else { &mut conv };
            for (bound, truth, list) in
                [(layer.lipschitz, norm, list), (layer.absolute_norm, absolute_norm, &mut absolute)]
            {
                n_violations += usize::from(bound < truth);
                list.push(if truth == 0.0 { 0.0 } else { bound / truth - 1.0 });
            }
        }
        let figures = [dense, conv, absolute].map(summary);
        let name = format!("{family:?}");
        println!("{name:<18}{:>22}{:>22}{:>22}", figures[0], figures[1], figures[2]);
    }
    println!("{} bounds, {n_violations} below the truth", 2 * n * FAMILIES.len());
    if n_violations > 0 { Err("a bound is wrong".into()) } else { Ok(()) }
}

fn summary(mut excesses: Vec<f64>) -> String {
    excesses.sort_by(f64::total_cmp);
    match excesses.last() {
        Some(worst) => format!("{:.1e} {worst:.1e}", excesses[excesses.len() / 2]),
        None => String::new(),
    }
}
