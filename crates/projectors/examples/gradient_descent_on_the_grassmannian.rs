//! Principal component analysis by gradient ascent through the range projection.
//!
//! Maximises trace(P A) over projectors P = M (M^T M)^-1 M^T of rank 3 by plain gradient steps on the unconstrained M. Expected
//! output: the objective rises to the sum of the three largest eigenvalues of A (1.0 + 0.9 + 0.8 = 2.7), while P stays
//! a projector to rounding at every step.

use ndarray::{Array1, Array2};
use projectors::{Projector, grassmann, haar_orthogonal, range::project_range};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn main() -> Result<(), projectors::Error> {
    let (n, rank) = (10, 3);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let u: Array2<f64> = haar_orthogonal(n, &mut rng);
    let eigenvalues = Array1::from_shape_fn(n, |i| 1.0 - 0.1 * i as f64);
    let a = (&u * &eigenvalues).dot(&u.t());

    let mut m = haar_orthogonal::<f64>(n, &mut rng).slice_move(ndarray::s![.., ..rank]);
    for step in 0..=400 {
        let projection = project_range(m.view())?;
        if step % 100 == 0 {
            let objective = (&projection.matrix() * &a).sum();
            let defect = Projector::try_new(projection.matrix().to_owned())?.defect();
            println!("step {step:3}: trace(P A) = {objective:.9}, defect {defect:.1e}");
        }
        m.scaled_add(1.0, &projection.pullback(a.view()));
    }

    let found = Projector::from_range(m.view())?;
    let expected = Projector::from_basis(u.slice(ndarray::s![.., ..rank]))?;
    let angles = grassmann::geodesic(&found, &expected)?;
    println!("distance to the top eigenspace: {:.1e}", angles.length());
    Ok(())
}
