//! Random numbers of one search: a stream of its own, or a list that was handed in.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Uniform random numbers in [0, 1), and what is made of them.
#[derive(Debug, Clone)]
pub(super) enum Draws {
    Stream(Box<ChaCha8Rng>),
    Given { values: Vec<f64>, next: usize },
}

impl Draws {
    /// The stream of a round of a sample.
    pub(super) fn stream(seed: u64, sample: usize, round: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((sample as u64) << 16 | round as u64);
        Self::Stream(Box::new(rng))
    }

    pub(super) fn given(values: &[f64]) -> Self {
        Self::Given { values: values.to_vec(), next: 0 }
    }

    /// The next number; 0 beyond the end of a list, which [`ran_out`](Self::ran_out) tells.
    pub(super) fn uniform(&mut self) -> f64 {
        match self {
            Self::Stream(rng) => rng.random(),
            Self::Given { values, next } => {
                *next += 1;
                values.get(*next - 1).copied().unwrap_or_default()
            }
        }
    }

    /// An index below `n`; 0 where n is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// A number in [-bound, bound].
    pub(super) fn symmetric(&mut self, bound: f64) -> f64 {
        // the width of the range must be finite
        let bound = bound.min(f64::MAX / 4.0);
        match self {
            Self::Stream(rng) => rng.random_range(-bound..=bound),
            Self::Given { .. } => bound * (2.0 * self.uniform() - 1.0),
        }
    }

    /// -1 or 1.
    pub(super) fn sign(&mut self) -> f64 {
        if self.uniform() < 0.5 { -1.0 } else { 1.0 }
    }

    /// A normal number.
    pub(super) fn normal(&mut self) -> f64 {
        match self {
            Self::Stream(rng) => rng.sample(StandardNormal),
            Self::Given { .. } => self.two_normals()[0],
        }
    }

    /// Box and Muller: normal numbers from uniform ones, so that a list can replay them.
    fn two_normals(&mut self) -> [f64; 2] {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        let (radius, angle) = ((-2.0 * u.ln()).sqrt(), std::f64::consts::TAU * v);
        [radius * angle.cos(), radius * angle.sin()]
    }

    /// A direction of length 1, uniform on the sphere.
    pub(super) fn direction(&mut self, n: usize) -> Vec<f64> {
        let mut values: Vec<f64> = Vec::with_capacity(n + 1);
        while values.len() < n {
            values.extend(self.two_normals());
        }
        values.truncate(n);
        let length = values.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        values.iter_mut().for_each(|v| *v /= length);
        values
    }

    /// Puts a list into a random order, by Fisher and Yates.
    pub(super) fn shuffle(&mut self, order: &mut [usize]) {
        for i in (1..order.len()).rev() {
            order.swap(i, self.below(i + 1));
        }
    }

    pub(super) fn ran_out(&self) -> bool {
        matches!(self, Self::Given { values, next } if *next > values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_permutations_and_each_place_is_as_likely() {
        let mut draws = Draws::stream(3, 5, 0);
        let mut counts = [[0usize; 4]; 4];
        for _ in 0..4000 {
            let mut order = [0, 1, 2, 3];
            draws.shuffle(&mut order);
            order.iter().enumerate().for_each(|(place, &i)| counts[place][i] += 1);
        }
        // six standard deviations of 1000 of 4000
        assert!(counts.iter().flatten().all(|&n| n.abs_diff(1000) < 165), "{counts:?}");
        assert!((0..4).all(|i| counts.iter().map(|row| row[i]).sum::<usize>() == 4000));
    }

    #[test]
    fn a_list_gives_its_numbers_in_order_and_says_when_it_ends() {
        let mut draws = Draws::given(&[0.25, 0.75]);
        assert_eq!((draws.sign(), draws.below(4), draws.ran_out()), (-1.0, 3, false));
        assert_eq!((draws.uniform(), draws.ran_out()), (0.0, true));
        // u = 1/2, v = 0: √(2 ln 2)
        let normal = Draws::given(&[0.5, 0.0]).normal();
        assert!((normal - (2.0 * 2f64.ln()).sqrt()).abs() < 1e-15);
    }
}
