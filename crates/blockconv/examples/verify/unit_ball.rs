//! Appendix A: which map into the unit ball of the spectral norm is the Frobenius projection, and what that changes.

use blockconv::Result;
use ndarray::{Array2, array};
use projectors::haar_orthogonal;
use projectors::unit_ball::{
    Retraction, project_onto_unit_ball, projected_descent, scale_to_unit_ball,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::report::{Finding, Statement, WRONG};

pub(crate) fn check() -> Vec<Finding> {
    let sizes: Vec<_> = (1..=8).flat_map(|m| (1..=8).map(move |n| (m, n))).collect();
    // (a, b) of the target diag(a, b), a > 1 > b > 0, and the step size
    let problems = [(1.5, 0.1, 0.1), (2.0, 0.5, 0.03), (2.0, 0.5, 0.5), (5.0, 0.9, 0.2)];
    let statement = |text, tolerance, draws| Statement { text, tolerance, draws };
    vec![
        statement(
            "Appendix A: clipping singular values is the nearest point of the ball",
            1e-13,
            20,
        )
        .sweep(&sizes, |&(m, n), rng| nearest(m, n, rng)),
        statement(
            "Appendix A: descent reaches the minimiser with clipping, not with scaling",
            1e-12,
            20,
        )
        .sweep(&problems, |&problem, rng| descents(problem, rng)),
    ]
}

fn uniform(m: usize, n: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    Array2::from_shape_simple_fn((m, n), || rng.random_range(-2.0..2.0))
}

fn distance(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (a - b).mapv(|x| x * x).sum().sqrt()
}

/// By how much a point of the ball is nearer than the clipped matrix: scaled, or on the way to another point.
fn nearest(m: usize, n: usize, rng: &mut ChaCha8Rng) -> Result<f64> {
    let w = uniform(m, n, rng);
    let clipped = project_onto_unit_ball(w.view())?;
    let other = scale_to_unit_ball(uniform(m, n, rng).view())?;
    let share = rng.random_range(0.0..1.0);
    let rivals = [scale_to_unit_ball(w.view())?, &clipped * (1.0 - share) + &other * share, other];
    let best = rivals.iter().map(|rival| distance(rival, &w)).fold(f64::INFINITY, f64::min);
    Ok((distance(&clipped, &w) - best).max(0.0))
}

/// The distance of both limits from what the algebra says, in a random pair of orthonormal bases.
fn descents((a, b, step): (f64, f64, f64), rng: &mut ChaCha8Rng) -> Result<f64> {
    let (u, v) = (haar_orthogonal::<f64>(2, rng), haar_orthogonal::<f64>(2, rng));
    let rotated = |x: f64, y: f64| u.dot(&array![[x, 0.0], [0.0, y]]).dot(&v.t());
    let target = rotated(a, b);
    let limit = |retraction| {
        let start = Array2::zeros((2, 2));
        projected_descent(target.view(), start.view(), retraction, step, 4000)
    };
    let (clipped, scaled) = (limit(Retraction::Clipping)?, limit(Retraction::Scaling)?);
    if distance(&scaled, &target) <= distance(&clipped, &target) {
        return Ok(WRONG);
    }
    Ok(distance(&clipped, &rotated(1.0, b)).max(distance(&scaled, &rotated(1.0, b / a))))
}
