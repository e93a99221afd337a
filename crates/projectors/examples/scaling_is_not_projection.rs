//! Projected gradient descent over the unit ball of the spectral norm, on the 2 x 2 problem of Appendix A.
//!
//! Expected output: clipping singular values reaches the minimiser diag(1, 0.5); one-sided spectral normalisation
//! stalls at diag(1, b/a) = diag(1, 0.25) with a loss that is higher by (b - b/a)^2 / 2 = 0.03125.

use ndarray::{Array2, array};
use projectors::unit_ball::{Retraction, projected_descent};

fn main() -> Result<(), projectors::Error> {
    let target = array![[2.0, 0.0], [0.0, 0.5]];
    let start = Array2::<f64>::zeros((2, 2));
    println!("minimise |W - diag(2, 0.5)|^2 / 2 over |W|_2 <= 1");
    for retraction in [Retraction::Clipping, Retraction::Scaling] {
        let w = projected_descent(target.view(), start.view(), retraction, 0.1, 1000)?;
        let loss = (&w - &target).mapv(|x| x * x).sum() / 2.0;
        println!(
            "{retraction:?}: ends at diag({:.6}, {:.6}), loss {loss:.6}",
            w[[0, 0]],
            w[[1, 1]]
        );
    }
    Ok(())
}
