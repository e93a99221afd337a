//! Anti-aliased strokes on a small square canvas.
//!
//! Definition: the value of a pixel at distance d from the nearest stroke of half width r is clamp(r + 1/2 - d, 0, 1) times
//! the ink: full inside, a ramp one pixel wide at the edge.
//!
//! Cost: each segment looks only at the pixels within r + 1/2 of its bounding box.

use super::glyphs::Point;

/// Coverage of each pixel so far, in [0, 1].
pub(super) struct Canvas {
    side: usize,
    coverage: Vec<f32>,
}

impl Canvas {
    pub(super) fn new(side: usize) -> Self {
        Self { side, coverage: vec![0.0; side * side] }
    }

    /// Draws a polyline; where strokes overlap the darker one stays.
    pub(super) fn stroke(&mut self, polyline: &[Point], half_width: f32) {
        for ends in polyline.windows(2) {
            self.segment(ends[0], ends[1], half_width);
        }
    }

    /// Writes `tone(ink * coverage)` of each pixel.
    pub(super) fn finish(&self, ink: f32, mut tone: impl FnMut(f32) -> u8, image: &mut [u8]) {
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
