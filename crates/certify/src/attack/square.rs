//! The square attack: a random search that moves the perturbation's mass between square windows.
//!
//! Definition. The pattern of side s is two stacked pyramids of opposite sign, transposed with probability 1/2, of norm 1. The
//! search starts at a tiling of five by five patterns, each with a random sign for each channel, scaled to norm ε and
//! clamped. δ is the perturbation of the best point. A query draws two windows of side s and a pattern. In each channel, the
//! pattern with a random sign is added to δ of the first window, normalised, and the sum is given the norm
//!
//! ```text
//! √( max(ε² - ‖δ‖², 0) / c + ‖δ in both windows‖² )
//! ```
//!
//! for c channels; the second window becomes zero; the whole is scaled to norm ε and clamped. The point replaces the best one
//! if the margin `y_t - max_{j≠t} y_j` falls, or is not positive. s is `√(p h w)`, rounded, at least 3, odd and inside the
//! image; p starts at 0.8 and is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries. Windows do not
//! reach the last row and the last column of places, which is a habit of the reference.
//!
//! Unlike the reference, every sample draws windows and patterns of its own, so that a result does not depend on the batch.
//!
//! Random numbers are used in this order: for each tile a transposition and the signs of the channels; for each query row and
//! column of the first window, those of the second, a transposition and the signs. A search ends at an adversarial point.
//!
//! Guarantee: every point is one of the ball and of [0, 1]; the margin of the best point never rises.
//!
//! Cost: one forward for each query. No gradient: what hides gradients does not hide from it.
//!
//! Source: Andriushchenko et al. 2020 (arXiv 1912.00049), as in the standard version of AutoAttack.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::objective::best_rival;
use super::outcome::Stopping;
use super::rounds::{Ended, Plan, Reply, Rounds, Search, Subject, Trace, Wish};
use super::setup::check_at_least_one;
use super::step::norm;
use crate::error::{Error, Result};
use crate::tensor::{Pixel, widened};

/// The square attack in L2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Square {
    /// ε: radius of the ball, positive.
    pub eps: f64,
    /// Queries of one restart, at least 1.
    pub queries: usize,
    /// Independent searches, 1 to 4096.
    pub restarts: usize,
    /// The share of the image that a window covers at first, in (0, 1].
    pub first_share: f64,
    /// Decides all draws.
    pub seed: u64,
    /// Whether to go on with samples that are broken.
    pub stopping: Stopping,
    /// Images in one forward pass, at least 1.
    pub batch_size: usize,
}

impl Square {
    /// The settings of the standard AutoAttack: 5000 queries.
    #[must_use]
    pub const fn standard(eps: f64, seed: u64) -> Self {
        let stopping = Stopping::WhenBroken;
        Self { eps, queries: 5000, restarts: 1, first_share: 0.8, seed, stopping, batch_size: 500 }
    }
}

impl Default for Square {
    /// The standard settings at ε = 1/2.
    fn default() -> Self {
        Self::standard(0.5, 0)
    }
}

impl Rounds for Square {
    type Search<T: Pixel> = Windows;

    fn plan(&self) -> Plan {
        let Self { eps, seed, stopping, restarts, batch_size, .. } = *self;
        Plan { name: "square", eps, seed, stopping, restarts, batch_size }
    }

    fn check_own(&self) -> Result<()> {
        check_at_least_one("queries", self.queries)?;
        let value = self.first_share;
        if !(value > 0.0 && value <= 1.0) {
            let (name, expected) = ("first_share", "above 0 and at most 1");
            return Err(Error::InvalidSetting { name, value, expected });
        }
        Ok(())
    }

    fn search<T: Pixel>(&self, subject: Subject<'_, T>) -> Windows {
        let Subject { image, shape, label, start, draws, .. } = subject;
        let original = widened(image);
        Windows {
            settings: *self,
            grid: Grid::of(shape, image.len()),
            label,
            best: original.clone(),
            candidate: start.map_or_else(|| original.clone(), widened),
            starts_elsewhere: start.is_some(),
            original,
            margin: f64::INFINITY,
            n_asked: 0,
            trace: Trace::default(),
            draws,
        }
    }
}

/// Channels, rows and columns of an image.
#[derive(Debug, Clone, Copy)]
struct Grid {
    channels: usize,
    height: usize,
    width: usize,
}

/// A square of places.
#[derive(Debug, Clone, Copy)]
struct Window {
    row: usize,
    column: usize,
    side: usize,
}

impl Grid {
    /// An image without rows and columns is one row.
    fn of(shape: &[usize], n_values: usize) -> Self {
        match *shape {
            [channels, height, width] => Self { channels, height, width },
            _ => Self { channels: 1, height: 1, width: n_values },
        }
    }

    /// The values of a window in a channel, row by row, each with its place in the window.
    fn values(self, channel: usize, window: Window) -> impl Iterator<Item = (usize, usize)> {
        let Window { row, column, side } = window;
        (0..side * side).filter_map(move |k| {
            let (i, j) = (row + k / side, column + k % side);
            let inside = i < self.height && j < self.width;
            inside.then(|| ((channel * self.height + i) * self.width + j, k))
        })
    }

    /// The odd side of a window that covers a share of the image.
    fn side(self, share: f64) -> usize {
        let side = (share * (self.height * self.width) as f64).sqrt().round() as usize;
        let largest = self.height.min(self.width).max(1);
        let largest = if largest.is_multiple_of(2) { largest - 1 } else { largest };
        (side.max(3) | 1).min(largest)
    }
}

/// The search for one sample.
#[derive(Debug)]
pub(super) struct Windows {
    settings: Square,
    grid: Grid,
    label: usize,
    original: Vec<f64>,
    best: Vec<f64>,
    candidate: Vec<f64>,
    /// Whether the first candidate was handed in.
    starts_elsewhere: bool,
    /// The margin at the best point.
    margin: f64,
    n_asked: usize,
    trace: Trace,
    draws: Draws,
}

impl<T: Pixel> Search<T> for Windows {
    fn propose(&mut self, _: &[T], point: &mut [T]) -> Option<Wish> {
        // the start is no query
        if self.n_asked > self.settings.queries || self.margin <= 0.0 {
            return None;
        }
        if self.n_asked > 0 {
            let delta = self.moved();
            self.place(&delta);
        } else if !self.starts_elsewhere {
            let delta = self.tiling();
            self.place(&delta);
        }
        point.iter_mut().zip(&self.candidate).for_each(|(p, &c)| *p = T::of(c));
        Some(Wish::Logits)
    }

    fn answer(&mut self, _: &[T], reply: Reply<'_, T>) {
        let logits = reply.logits;
        let margin = best_rival(logits, self.label)
            .map_or(f64::INFINITY, |rival| logits[self.label] - logits[rival]);
        let accepted = self.n_asked == 0 || margin < self.margin || margin <= 0.0;
        if accepted {
            self.margin = margin;
            self.best.copy_from_slice(&self.candidate);
        }
        self.trace.values.push(margin);
        self.trace.steps.push(if accepted { 1.0 } else { 0.0 });
        self.n_asked += 1;
    }

    fn progress(&self) -> f64 {
        (self.n_asked as f64 / self.settings.queries as f64).min(1.0)
    }
}

impl Windows {
    /// The share of the image that a window covers in query number `n_asked`, from 1.
    fn share(&self) -> f64 {
        const HALVED_AFTER: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
        let query = self.n_asked - 1;
        let halvings = HALVED_AFTER.iter().filter(|&&after| query > after).count();
        self.settings.first_share / f64::from(1u32 << halvings)
    }

    /// The candidate x + ε δ / ‖δ‖, clamped.
    fn place(&mut self, delta: &[f64]) {
        let scale = self.settings.eps / (norm(delta) + TINY);
        for ((c, x), d) in self.candidate.iter_mut().zip(&self.original).zip(delta) {
            *c = (x + scale * d).clamp(0.0, 1.0);
        }
    }

    fn tiling(&mut self) -> Vec<f64> {
        let grid = self.grid;
        let side = (grid.height / 5).max(1);
        let first = grid.height.saturating_sub(5 * side) / 2;
        let mut delta = vec![0.0; self.original.len()];
        for i in 0..grid.height / side {
            for j in 0..grid.width / side {
                let pattern = self.pattern(side);
                let window = Window { row: first + i * side, column: first + j * side, side };
                for channel in 0..grid.channels {
                    let sign = self.draws.sign();
                    for (at, k) in grid.values(channel, window) {
                        delta[at] += sign * pattern[k];
                    }
                }
            }
        }
        delta
    }

    fn window(&mut self, side: usize) -> Window {
        let row = self.draws.below(self.grid.height - side.min(self.grid.height));
        let column = self.draws.below(self.grid.width - side.min(self.grid.width));
        Window { row, column, side }
    }

    /// The best point's perturbation with the mass of a second window moved into a first one.
    fn moved(&mut self) -> Vec<f64> {
        let (grid, eps) = (self.grid, self.settings.eps);
        let side = grid.side(self.share());
        let (into, from) = (self.window(side), self.window(side));
        let mut delta: Vec<f64> =
            self.best.iter().zip(&self.original).map(|(b, x)| b - x).collect();
        let pattern = self.pattern(side);
        let missing = (eps * eps - norm(&delta).powi(2)).max(0.0) / grid.channels as f64;
        let in_windows = self.mass(&delta, into, from);
        let amplitude = (missing + in_windows).sqrt();
        let mut patches = Vec::with_capacity(grid.channels);
        for channel in 0..grid.channels {
            let sign = self.draws.sign();
            let old: Vec<f64> = grid.values(channel, into).map(|(at, _)| delta[at]).collect();
            let length = norm(&old) + TINY;
            let new = old.iter().zip(&pattern).map(|(d, p)| d / length + sign * p);
            let new: Vec<f64> = new.collect();
            let scale = amplitude / (norm(&new) + TINY);
            patches.push(new.into_iter().map(|v| v * scale).collect::<Vec<f64>>());
        }
        for (channel, patch) in patches.iter().enumerate() {
            grid.values(channel, from).for_each(|(at, _)| delta[at] = 0.0);
            grid.values(channel, into).for_each(|(at, k)| delta[at] = patch[k]);
        }
        delta
    }

    /// Σ δ² over the union of two windows, in all channels.
    fn mass(&self, delta: &[f64], a: Window, b: Window) -> f64 {
        let in_a = |k: usize| {
            let (i, j) = (b.row + k / b.side, b.column + k % b.side);
            (a.row..a.row + a.side).contains(&i) && (a.column..a.column + a.side).contains(&j)
        };
        let squares = |channel: usize| {
            let first = self.grid.values(channel, a).map(|(at, _)| delta[at] * delta[at]);
            let second = self.grid.values(channel, b).filter(|&(_, k)| !in_a(k));
            first.sum::<f64>() + second.map(|(at, _)| delta[at] * delta[at]).sum::<f64>()
        };
        (0..self.grid.channels).map(squares).sum()
    }

    /// Two stacked pyramids of opposite sign, of norm 1, transposed by chance.
    fn pattern(&mut self, side: usize) -> Vec<f64> {
        let half = side / 2;
        let mut pattern = pyramid(half, side);
        pattern.extend(pyramid(side - half, side).into_iter().map(|v| -v));
        let length = norm(&pattern);
        pattern.iter_mut().for_each(|v| *v /= length);
        if self.draws.uniform() > 0.5 {
            pattern = (0..side * side).map(|k| pattern[k % side * side + k / side]).collect();
        }
        pattern
    }
}

impl Ended for Windows {
    fn trace(&self) -> Trace {
        Trace { best: self.best.clone(), ..self.trace.clone() }
    }

    fn ran_out(&self) -> bool {
        self.draws.ran_out()
    }
}

/// Keeps quotients by a length finite.
const TINY: f64 = 1e-12;

/// A sum of nested rectangles about the middle, the k-th of weight 1 / k², of norm 1.
fn pyramid(height: usize, width: usize) -> Vec<f64> {
    let mut values = vec![0.0; height * width];
    let (middle_row, middle_column) = (height / 2, width / 2);
    for k in 0..=middle_row.max(middle_column) {
        let rows = middle_row.saturating_sub(k)..(middle_row + k + 1).min(height);
        for i in rows {
            let columns = middle_column.saturating_sub(k)..(middle_column + k + 1).min(width);
            columns.for_each(|j| values[i * width + j] += 1.0 / ((k + 1) * (k + 1)) as f64);
        }
    }
    let length = norm(&values).max(f64::MIN_POSITIVE);
    values.iter_mut().for_each(|v| *v /= length);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_odd_and_inside() {
        let grid = Grid { channels: 3, height: 32, width: 32 };
        assert_eq!(grid.side(0.8), 29);
        assert_eq!(grid.side(0.4), 21);
        assert_eq!(grid.side(1e-6), 3);
        assert_eq!(grid.side(1.0), 31);
        let flat = Grid::of(&[7], 7);
        assert_eq!((flat.height, flat.width, flat.side(0.8)), (1, 7, 1));
        let even = Grid { channels: 1, height: 4, width: 6 };
        assert_eq!(even.side(0.8), 3);
    }

    #[test]
    fn pyramids_rise_to_the_middle_and_have_norm_1() {
        let values = pyramid(3, 5);
        assert!((norm(&values) - 1.0).abs() < 1e-15);
        // the middle has all three rectangles, its neighbours the last two, the outer columns the last one
        let scale = values[7];
        let expected = |v: f64| v / (1.0 + 0.25 + 1.0 / 9.0);
        assert!((values[6] / scale - expected(0.25 + 1.0 / 9.0)).abs() < 1e-15);
        assert!((values[5] / scale - expected(1.0 / 9.0)).abs() < 1e-15);
        assert!(pyramid(0, 1).is_empty());
    }
}
