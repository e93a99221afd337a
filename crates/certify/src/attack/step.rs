//! One step of projected gradient ascent on raw slices: a few passes over the pixels of one sample, which stay in
//! the nearest cache.

use candle_core::WithDType;

use crate::tensor::Pixel;
use crate::upper::norm_up;

/// Gradients shorter than this are not scaled up to a full step.
const SHORTEST_GRADIENT: f64 = 1e-6;

/// `d ← d + step · g / max(‖g‖, 1e-6)`, then into the ball and into the range of pixels; a gradient that is not
/// finite points nowhere and is left out.
pub(super) fn ascend<T: Pixel>(d: &mut [T], gradient: &[T], image: &[T], step: f64, eps: f64) {
    let length = norm(gradient).max(SHORTEST_GRADIENT);
    if gradient.iter().any(|g| !g.is_finite()) {
        return;
    }
    let scale = T::of(step / length);
    d.iter_mut().zip(gradient).for_each(|(d, &g)| *d += scale * g);
    project(d, image, eps);
}

/// `d ← d · ε / max(‖d‖, ε)`, then `d ← clamp(x + d, 0, 1) - x`.
pub(super) fn project<T: Pixel>(d: &mut [T], image: &[T], eps: f64) {
    let scale = T::of(eps / norm(d).max(eps));
    for (d, &x) in d.iter_mut().zip(image) {
        *d = clamp01(x + *d * scale) - x;
    }
}

pub(super) fn clamp01<T: Pixel>(v: T) -> T {
    let v = if v < T::one() { v } else { T::one() };
    if v > T::zero() { v } else { T::zero() }
}

/// `x + d`.
pub(super) fn perturbed<T: Pixel>(image: &[T], d: &[T], into: &mut [T]) {
    into.iter_mut().zip(image).zip(d).for_each(|((y, &x), &d)| *y = x + d);
}

/// `‖a - b‖₂`, rounded up.
pub(super) fn distance_up<T: Pixel>(a: &[T], b: &[T]) -> f64 {
    let difference = |(a, b): (&T, &T)| {
        let (a, b) = (WithDType::to_f64(*a), WithDType::to_f64(*b));
        if a == b { 0.0 } else { (a - b).abs().next_up() }
    };
    norm_up(a.iter().zip(b).map(difference)).value()
}

/// Whether an image is a point of the ball of radius `eps` about another one and of [0, 1]^n.
///
/// The ball is larger than ε by what rounding can add when a point of its sphere is stored.
pub(super) fn is_in_ball<T: Pixel>(point: &[T], image: &[T], eps: f64) -> bool {
    let rounded_eps = with_rounding(eps, point.len(), T::UNIT_ROUNDOFF);
    is_image(point) && distance_up(point, image) <= rounded_eps
}

/// Whether all values are numbers in [0, 1].
pub(super) fn is_image<T: Pixel>(point: &[T]) -> bool {
    point.iter().all(|v| (0.0..=1.0).contains(&WithDType::to_f64(*v)))
}

/// The distance up to which a point counts as one of the ball: ε and what rounding adds in [`project`], to the norm and the scaling, relative to ε, and to n sums `x + d` in [0, 1].
pub(super) fn with_rounding(eps: f64, n: usize, unit_roundoff: f64) -> f64 {
    eps * (1.0 + (n as f64 + 8.0) * unit_roundoff) + 2.0 * unit_roundoff * (n as f64).sqrt()
}

/// Partial sums of a long sum, so that the compiler can use vector registers.
pub(super) const LANES: usize = 8;

/// Euclidean norm.
pub(super) fn norm<T: Pixel>(values: &[T]) -> f64 {
    dot(values, values).sqrt()
}

/// `Σ a b`.
pub(super) fn dot<T: Pixel>(a: &[T], b: &[T]) -> f64 {
    let mut sums = [T::zero(); LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f64 = rest.map(|(&a, &b)| WithDType::to_f64(a * b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().map(|&s| WithDType::to_f64(s)).sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn projection_lands_in_ball_and_box() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for n in [1, 7, 8, 784] {
            let image: Vec<f64> = (0..n).map(|_| rng.random_range(0.0..=1.0)).collect();
            let mut d: Vec<f64> = (0..n).map(|_| rng.random_range(-0.5..=0.5)).collect();
            project(&mut d, &image, 0.5);
            assert!(norm(&d) <= 0.5 * (1.0 + 4.0 * f64::EPSILON));
            assert!(image.iter().zip(&d).all(|(x, d)| (-1e-15..=1.0 + 1e-15).contains(&(x + d))));
            assert!(d.iter().any(|d| *d != 0.0));
        }
    }

    #[test]
    fn a_step_has_the_length_asked_for() {
        let (image, gradient) = ([0.5; 4], [3.0, 0.0, -4.0, 0.0]);
        let mut d = [0.0f64; 4];
        ascend(&mut d, &gradient, &image, 0.1, 1.0);
        let expected = [0.06, 0.0, -0.08, 0.0];
        assert!(d.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{d:?}");
        // a vanishing gradient is not blown up to a full step
        let mut d = [0.0f64; 4];
        ascend(&mut d, &[1e-9, 0.0, 0.0, 0.0], &image, 0.1, 1.0);
        assert!((d[0] - 1e-4).abs() < 1e-15);
        let before = d;
        for bad in [f64::NAN, f64::INFINITY] {
            ascend(&mut d, &[1.0, bad, 0.0, 0.0], &image, 0.1, 1.0);
            assert_eq!(d, before);
        }
    }

    #[test]
    fn points_of_the_ball_are_told_apart() {
        let image = [0.5f32; 4];
        assert!(is_in_ball(&[1.0, 0.5, 0.5, 0.5], &image, 0.5));
        assert!(!is_in_ball(&[1.0, 0.5, 0.5, 0.51], &image, 0.5));
        // outside of the box, or no number
        for bad in [-0.1, 1.0 + f32::EPSILON, f32::NAN, f32::INFINITY] {
            assert!(!is_in_ball(&[bad, 0.5, 0.5, 0.5], &image, 10.0), "{bad}");
        }
        // whatever projection lands on is inside, in either precision
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for (n, eps) in [(1, 1e-3), (784, 0.14), (3072, 1.58)] {
            check_projected::<f32>(n, eps, &mut rng);
            check_projected::<f64>(n, eps, &mut rng);
        }
    }

    fn check_projected<T: Pixel>(n: usize, eps: f64, rng: &mut ChaCha8Rng) {
        for _ in 0..20 {
            let image: Vec<T> = (0..n).map(|_| T::of(rng.random_range(0.0..=1.0))).collect();
            let mut d: Vec<T> = (0..n).map(|_| T::of(rng.random_range(-eps..=eps))).collect();
            project(&mut d, &image, eps);
            let mut point = image.clone();
            perturbed(&image, &d, &mut point);
            assert!(is_in_ball(&point, &image, eps), "n = {n}, eps = {eps}");
        }
    }

    #[test]
    fn distances_round_up() {
        assert!(distance_up(&[1.0f32, 0.0], &[0.0, 0.0]) >= 1.0);
        assert!(distance_up(&[0.3f64, 0.4], &[0.0, 0.0]) >= 0.5);
    }
}
