//! Times of the parametrisation, of spectra and of bounds on this machine, in milliseconds (fastest of many).
//!
//! `cargo run --release -p blockconv --example speed`. For C channels and kernel size K it prints the forward and the
//! forward and backward evaluation of the f32 BCOP parametrisation with the share of it that is assembly, and for
//! C = 128, K = 3 the singular values on 16 x 16 images and both norm bounds.

use std::time::Instant;

use blockconv::bcop::bcop;
use blockconv::{assembly, bounds, from_layer_weight};
use ndarray::{Array3, Array4};
use projectors::haar_orthogonal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), blockconv::Error> {
    println!("   C  K   bcop fwd  fwd+bwd (warm)   assembly fwd  fwd+bwd   GFLOP/s of assembly");
    for (c, k) in [(16, 2), (32, 3), (64, 3), (128, 3), (128, 5), (256, 3), (512, 3)] {
        line(c, k)?;
    }
    spectra()
}

fn parameters(c: usize, k: usize) -> Array3<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut all = Array3::zeros((2 * k - 1, c, c));
    all.outer_iter_mut().for_each(|mut slice| slice.assign(&haar_orthogonal(c, &mut rng)));
    // as after some training: no longer orthogonal
    all.mapv_inplace(|x: f32| x + 0.3 * x.abs() / (c as f32).sqrt());
    all
}

fn line(c: usize, k: usize) -> Result<(), blockconv::Error> {
    let (before, after) = (parameters(c, k), parameters(c, k) * 1.001);
    let cotangent = Array4::<f32>::ones((c, c, k, k));
    let taps = Array4::<f32>::ones((k, k, c, c));
    let warm = bcop(before.view(), c, c, None)?;
    let forward = fastest_ms(|| {
        bcop(after.view(), c, c, Some(warm.inverse_sqrt())).map(|b| b.layer_weight())
    })?;
    let both = fastest_ms(|| {
        let evaluated = bcop(after.view(), c, c, Some(warm.inverse_sqrt()))?;
        let weight = evaluated.layer_weight();
        evaluated.pullback(cotangent.view()).map(|gradient| (weight, gradient))
    })?;
    let projectors: Vec<_> = warm.projectors().collect();
    let assemble = || assembly::assemble(warm.h(), &projectors, c, c);
    let alone = fastest_ms(assemble)?;
    let alone_both = fastest_ms(|| assemble()?.pullback(taps.view()))?;
    let products: usize = (1..k).map(|t| t * t + t * (t + 1)).sum();
    let rate = 6.0 * (products * c * c * c) as f64 / alone_both / 1e6;
    println!(
        "{c:4} {k:2} {forward:10.3} {both:10.3}        {alone:10.3} {alone_both:10.3} {rate:10.1}"
    );
    Ok(())
}

fn spectra() -> Result<(), blockconv::Error> {
    let weight = bcop(parameters(128, 3).view(), 128, 128, None)?.layer_weight();
    let orthogonal = from_layer_weight(weight.view())?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let noise = Array4::from_shape_simple_fn((128, 128, 3, 3), || {
        rand::Rng::random_range(&mut rng, -1.0..1.0)
    });
    let arbitrary = from_layer_weight(noise.view())?;
    println!("128 channels, K = 3, 16 x 16: milliseconds");
    println!(
        "singular values, orthogonal f32 {:10.1}",
        fastest_ms(|| orthogonal.singular_values((16, 16)))?
    );
    println!(
        "singular values, arbitrary f64  {:10.1}",
        fastest_ms(|| arbitrary.singular_values((16, 16)))?
    );
    println!(
        "cyclic_norm_bound, orthogonal   {:10.1}",
        fastest_ms(|| bounds::cyclic_norm_bound(weight.view()))?
    );
    println!(
        "cyclic_norm_bound_on, arbitrary {:10.1}",
        fastest_ms(|| bounds::cyclic_norm_bound_on(noise.view(), (16, 16)))?
    );
    Ok(())
}

fn fastest_ms<R>(
    mut f: impl FnMut() -> Result<R, blockconv::Error>,
) -> Result<f64, blockconv::Error> {
    f()?;
    let (start, mut fastest, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 5 || (runs < 1000 && start.elapsed().as_millis() < 600) {
        let begin = Instant::now();
        std::hint::black_box(f()?);
        fastest = fastest.min(begin.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    Ok(fastest)
}
