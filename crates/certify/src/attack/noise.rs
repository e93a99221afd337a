//! Adversarial images to start from, made of noise.
//!
//! Definition. *Blended uniform noise*: an image u of independent uniform pixels that the classifier takes for another
//! class (up to 1000 are drawn), then the first of `(1 - k/1000) x + (k/1000) u`, k = 1, 2, …, that is adversarial. *Salt and
//! pepper*: every place of the image becomes 0 or 1, in all its channels, with probability p/2 each, for p on a grid of
//! up to 100 values in (0, p_max]; ten rounds, each with p_max at most 1.2 times the last p that was adversarial; the
//! nearest adversarial image of all rounds counts.
//!
//! Source: the defaults of foolbox 2, with which these attacks are reported.

use super::draws::Draws;

/// What is known after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Searching,
    /// The image asked for last is the start.
    Found,
    Failed,
}

/// Numbers of draws of a random image, and of steps of blending.
const MAX_DRAWS: usize = 1000;
const BLEND_STEPS: usize = 1000;

/// Blended uniform noise.
#[derive(Debug)]
pub(super) struct Blended {
    random: Vec<f64>,
    n_draws: usize,
    /// k once an adversarial draw was found, 0 before.
    step: usize,
}

impl Blended {
    pub(super) fn new(n_values: usize) -> Self {
        Self { random: vec![0.0; n_values], n_draws: 0, step: 0 }
    }

    pub(super) fn propose(&mut self, draws: &mut Draws, original: &[f64], image: &mut [f64]) {
        if self.step == 0 {
            self.n_draws += 1;
            self.random.iter_mut().for_each(|v| *v = draws.uniform());
            image.copy_from_slice(&self.random);
            return;
        }
        let share = self.step as f64 / BLEND_STEPS as f64;
        let pixels = original.iter().zip(&self.random);
        image.iter_mut().zip(pixels).for_each(|(v, (x, u))| *v = (1.0 - share) * x + share * u);
    }

    pub(super) fn answer(&mut self, adversarial: bool) -> Verdict {
        match (self.step, adversarial) {
            (0, false) if self.n_draws == MAX_DRAWS => Verdict::Failed,
            (0, false) => Verdict::Searching,
            (1.., true) => Verdict::Found,
            (BLEND_STEPS.., false) => Verdict::Failed,
            _ => {
                self.step += 1;
                Verdict::Searching
            }
        }
    }
}

/// Rounds of salt and pepper, and steps of a round.
const ROUNDS: usize = 10;
const MAX_SHARES: usize = 100;

/// Salt-and-pepper noise.
#[derive(Debug)]
pub(super) struct SaltAndPepper {
    n_channels: usize,
    round: usize,
    step: usize,
    largest: f64,
    candidate: Vec<f64>,
    /// The nearest adversarial image and its squared distance.
    best: Option<(Vec<f64>, f64)>,
}

impl SaltAndPepper {
    pub(super) fn new(n_values: usize, n_channels: usize) -> Self {
        let candidate = vec![0.0; n_values];
        Self { n_channels, round: 0, step: 0, largest: 1.0, candidate, best: None }
    }

    /// The start, once [`propose`](Self::propose) has returned false.
    pub(super) fn take_best(&mut self) -> Option<Vec<f64>> {
        self.best.take().map(|(image, _)| image)
    }

    /// The next image that is nearer than the best one; false after the last round.
    pub(super) fn propose(
        &mut self,
        draws: &mut Draws,
        original: &[f64],
        image: &mut [f64],
    ) -> bool {
        let n_shares = self.n_places().min(MAX_SHARES);
        while self.round < ROUNDS {
            if self.step == n_shares {
                (self.round, self.step) = (self.round + 1, 0);
                continue;
            }
            self.step += 1;
            self.draw(draws, original, self.share());
            let nearer = |(_, best): &(Vec<f64>, f64)| squared(&self.candidate, original) < *best;
            if self.best.as_ref().is_none_or(nearer) {
                image.copy_from_slice(&self.candidate);
                return true;
            }
        }
        false
    }

    pub(super) fn answer(&mut self, adversarial: bool, original: &[f64]) {
        if adversarial {
            self.best = Some((self.candidate.clone(), squared(&self.candidate, original)));
            self.largest = (1.2 * self.share()).min(1.0);
            (self.round, self.step) = (self.round + 1, 0);
        }
    }

    fn n_places(&self) -> usize {
        self.candidate.len() / self.n_channels.max(1)
    }

    /// p of the present step.
    fn share(&self) -> f64 {
        let n_shares = self.n_places().clamp(1, MAX_SHARES);
        self.largest * self.step as f64 / n_shares as f64
    }

    fn draw(&mut self, draws: &mut Draws, original: &[f64], share: f64) {
        let n_places = self.n_places();
        self.candidate.copy_from_slice(original);
        for place in 0..n_places {
            let u = draws.uniform();
            let value = if u < share / 2.0 {
                0.0
            } else if u >= 1.0 - share / 2.0 {
                1.0
            } else {
                continue;
            };
            (0..self.n_channels).for_each(|c| self.candidate[c * n_places + place] = value);
        }
    }
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}
