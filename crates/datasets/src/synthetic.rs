//! Synthetic digits: a stand-in for MNIST that a program draws, for machines without data and without a network.
//!
//! Definition: a digit is a few pen strokes (lines and Catmull-Rom splines) in several handwriting variants per class. Each
//! image moves the control points, bends, slants, rotates, scales and shifts the whole, picks a pen width, draws the strokes
//! anti-aliased and adds sensor noise and, now and then, a stray mark. Image i of a split depends on (seed, split, i) alone.
//!
//! Shapes: 28 x 28, one channel, ten classes, as many images of each class as the number allows.
//!
//! Guarantee: the same seed gives the same images on one platform, in whatever number and on however many threads. Every set
//! says `synthetic`: accuracies on it say nothing about MNIST.
//!
//! Cost: about 20 microseconds an image and thread.
//!
//! Not here: the decision to use it ([`locate`](crate::locate)).

mod glyphs;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use self::glyphs::Point;
use crate::dataset::{DataSource, Dataset};
use crate::error::Result;
use crate::image_set::{ImageSet, ImageSetParts, SYNTHETIC};

/// Rows and columns of an image.
pub const SIDE: usize = 28;
const N_CLASSES: usize = 10;

/// How many digits to draw, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyntheticDigits {
    /// Seed of all randomness.
    pub seed: u64,
    /// Training images.
    pub n_train: usize,
    /// Test images.
    pub n_test: usize,
}

impl Default for SyntheticDigits {
    /// MNIST's own sizes.
    fn default() -> Self {
        Self { seed: 0, n_train: 60_000, n_test: 10_000 }
    }
}

/// Draws a training set and a test set.
pub fn dataset(digits: &SyntheticDigits) -> Result<Dataset> {
    Ok(Dataset {
        train: draw_set(digits.seed, 0, digits.n_train)?,
        test: draw_set(digits.seed, 1, digits.n_test)?,
        classes: Vec::new(),
        source: DataSource::Synthetic { seed: digits.seed },
        notes: Vec::new(),
    })
}

/// Split `split` has its own half of the generator's streams, so no image of one is an image of the other.
fn draw_set(seed: u64, split: u64, n: usize) -> Result<ImageSet> {
    let mut pixels = vec![0; n * SIDE * SIDE];
    let mut labels = vec![0; n];
    pixels.par_chunks_mut(SIDE * SIDE).zip(&mut labels).enumerate().for_each(
        |(i, (image, label))| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream((split << 32) | i as u64);
            *label = (i % N_CLASSES) as u8;
            draw_digit(*label, &mut rng, image);
        },
    );
    ImageSet::new(ImageSetParts {
        name: SYNTHETIC.into(),
        shape: [1, SIDE, SIDE],
        n_classes: N_CLASSES,
        pixels,
        labels,
        synthetic: true,
    })
}

fn draw_digit(digit: u8, rng: &mut ChaCha8Rng, image: &mut [u8]) {
    let variants = glyphs::variants(digit);
    let strokes = variants[rng.random_range(0..variants.len())];
    let hand = Hand::draw(rng);
    let mut canvas = Canvas::new(SIDE);
    for stroke in strokes {
        let moved: Vec<Point> = stroke.points.iter().map(|&p| hand.place(p, rng)).collect();
        canvas.stroke(&glyphs::flatten(&moved, stroke.kind), hand.half_width);
    }
    if rng.random_bool(0.15) {
        let mark = stray_mark(rng);
        canvas.stroke(&mark, 0.7 * hand.half_width);
    }
    canvas.finish(
        hand.ink,
        |value| {
            let noise = bell(rng, hand.noise);
            (255.0 * value + noise).round().clamp(0.0, 255.0) as u8
        },
        image,
    );
}

/// How one writer holds the pen: an affine map, a bend, and the ink.
struct Hand {
    linear: [[f32; 2]; 2],
    shift: Point,
    bend: [f32; 2],
    phase: f32,
    wobble: f32,
    half_width: f32,
    ink: f32,
    noise: f32,
}

impl Hand {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let (sin, cos) = bell(rng, 0.16).sin_cos();
        let slant = bell(rng, 0.20);
        let scale_x = SIDE as f32 * rng.random_range(0.52..0.86);
        let scale_y = SIDE as f32 * rng.random_range(0.66..0.88);
        // rotation * slant * scale; y points down, so a positive slant leans to the right at the top
        let sheared = [[scale_x, -slant * scale_y], [0.0, scale_y]];
        let rotate = |row: [f32; 2]| {
            [
                row[0] * sheared[0][0] + row[1] * sheared[1][0],
                row[0] * sheared[0][1] + row[1] * sheared[1][1],
            ]
        };
        let centre = 0.5 * (SIDE as f32 - 1.0);
        Self {
            linear: [rotate([cos, -sin]), rotate([sin, cos])],
            shift: [centre + bell(rng, 0.9), centre + bell(rng, 0.9)],
            bend: [bell(rng, 0.03), bell(rng, 0.03)],
            phase: rng.random_range(0.0..std::f32::consts::TAU),
            wobble: rng.random_range(0.012..0.036),
            half_width: rng.random_range(0.75..1.75),
            ink: rng.random_range(0.75..1.0),
            noise: rng.random_range(0.0..14.0),
        }
    }

    /// From the unit square of the glyph to pixels.
    fn place(&self, [x, y]: Point, rng: &mut ChaCha8Rng) -> Point {
        let u = x - 0.5 + bell(rng, self.wobble) + self.bend[0] * (5.0 * y + self.phase).sin();
        let v = y - 0.5 + bell(rng, self.wobble) + self.bend[1] * (5.0 * x + self.phase).sin();
        let [a, b] = self.linear;
        [self.shift[0] + a[0] * u + a[1] * v, self.shift[1] + b[0] * u + b[1] * v]
    }
}

/// A short line anywhere on the canvas.
fn stray_mark(rng: &mut ChaCha8Rng) -> Vec<Point> {
    let side = SIDE as f32;
    let start = [rng.random_range(2.0..side - 3.0), rng.random_range(2.0..side - 3.0)];
    let (sin, cos) = rng.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let length: f32 = rng.random_range(2.0..6.0);
    vec![start, [start[0] + length * cos, start[1] + length * sin]]
}

/// A bell-shaped deviate of standard deviation `sigma` within 3 `sigma`: the sum of three uniform ones.
fn bell(rng: &mut ChaCha8Rng, sigma: f32) -> f32 {
    let sum: f32 = (0..3).map(|_| rng.random_range(-1.0..1.0_f32)).sum();
    sigma * sum
}

/// Coverage of each pixel so far, in [0, 1].
pub(crate) struct Canvas {
    side: usize,
    coverage: Vec<f32>,
}

impl Canvas {
    pub(crate) fn new(side: usize) -> Self {
        Self { side, coverage: vec![0.0; side * side] }
    }

    /// Draws a polyline; where strokes overlap the darker one stays.
    pub(crate) fn stroke(&mut self, polyline: &[Point], half_width: f32) {
        for ends in polyline.windows(2) {
            self.segment(ends[0], ends[1], half_width);
        }
    }

    /// Writes `tone(ink * coverage)` of each pixel.
    pub(crate) fn finish(&self, ink: f32, mut tone: impl FnMut(f32) -> u8, image: &mut [u8]) {
        for (pixel, &coverage) in image.iter_mut().zip(&self.coverage) {
            *pixel = tone(ink * coverage);
        }
    }

    fn segment(&mut self, a: Point, b: Point, half_width: f32) {
        let reach = half_width + 0.5;
        let columns = self.range(a[0].min(b[0]) - reach, a[0].max(b[0]) + reach);
        let rows = self.range(a[1].min(b[1]) - reach, a[1].max(b[1]) + reach);
        for row in rows {
            for column in columns.clone() {
                let d = distance([column as f32, row as f32], a, b);
                let pixel = &mut self.coverage[row * self.side + column];
                *pixel = pixel.max((reach - d).clamp(0.0, 1.0));
            }
        }
    }

    fn range(&self, low: f32, high: f32) -> std::ops::Range<usize> {
        // casts saturate, so points off the canvas give empty or cut ranges
        let low = (low.ceil() as usize).min(self.side);
        let high = if high < 0.0 { 0 } else { (high.floor() as usize + 1).min(self.side) };
        low..high
    }
}

/// Distance from `p` to the segment from `a` to `b`.
fn distance(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let (px, py) = (p[0] - a[0], p[1] - a[1]);
    let length2 = dx * dx + dy * dy;
    let t = if length2 > 0.0 { ((px * dx + py * dy) / length2).clamp(0.0, 1.0) } else { 0.0 };
    (px - t * dx).hypot(py - t * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_covers_its_width_and_nothing_beyond_the_ramp() {
        let mut canvas = Canvas::new(9);
        canvas.stroke(&[[-3.0, 4.0], [12.0, 4.0]], 1.25);
        let column: Vec<f32> = (0..9).map(|row| canvas.coverage[row * 9 + 5]).collect();
        assert_eq!(column, [0.0, 0.0, 0.0, 0.75, 1.0, 0.75, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn strokes_off_the_canvas_leave_it_blank() {
        let mut canvas = Canvas::new(5);
        canvas.stroke(&[[-9.0, -9.0], [-5.0, -5.0]], 1.0);
        canvas.stroke(&[[90.0, 9.0], [95.0, 50.0]], 1.0);
        assert!(canvas.coverage.iter().all(|&c| c == 0.0));
    }

    #[test]
    fn distance_to_a_point_segment_is_the_distance_of_points() {
        assert_eq!(distance([3.0, 4.0], [0.0, 0.0], [0.0, 0.0]), 5.0);
        assert_eq!(distance([5.0, 2.0], [0.0, 0.0], [3.0, 0.0]), 8.0_f32.sqrt());
    }
}
