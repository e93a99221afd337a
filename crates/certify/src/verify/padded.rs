//! Convolutions with padding, stride, dilation and groups as the verifier reads them: which pixel each term takes, and where the term
//! stands on a torus.
//!
//! The torus is that of [`lipconv::PaddedConv::unrolled`], whose bounds certificates hold; the arithmetic here is of its own. Along an axis with
//! stride s, tap i of output y reads pixel y·s + i·d - b, b being the padding before. With m·s ≥ b it is pixel
//! `y + ⌊(i·d - b + m·s) / s⌋ - m` of the phase `(i·d - b + m·s) mod s`.

use serde::Deserialize;

use super::failure::Verdict;
use super::network::{Shape, Torus, refuse};

/// The setting `window` of a padded convolution.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    stride: [usize; 2],
    before: [usize; 2],
    after: [usize; 2],
    dilation: [usize; 2],
    pub(super) groups: usize,
    boundary: Boundary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Boundary {
    Zeros,
    Cyclic,
}

/// A convolution on its image.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) output: (usize, usize),
    axes: [Line; 2],
}

/// One axis.
#[derive(Debug, Clone, Copy)]
struct Line {
    size: usize,
    taps: usize,
    outputs: usize,
    stride: usize,
    before: usize,
    dilation: usize,
    cyclic: bool,
}

/// One axis of the torus: super-pixels, phases, and for each tap both.
struct Circle {
    length: usize,
    phases: usize,
    places: Vec<(usize, usize)>,
}

const LIMIT: usize = 1 << 20;

impl Geometry {
    /// The geometry of a kernel on an image.
    pub(super) fn new(window: Window, kernel: [usize; 2], image: Shape) -> Verdict<Self> {
        let Window { stride, before, after, dilation, .. } = window;
        let settings = [stride, before, after, dilation, kernel];
        if settings.iter().flatten().any(|v| *v > LIMIT) {
            return Err(refuse(format!("a setting of a convolution exceeds {LIMIT}")));
        }
        let line = |axis: usize, size: usize| {
            let (s, d, taps) = (stride[axis], dilation[axis], kernel[axis]);
            if s == 0 || d == 0 || taps == 0 || size == 0 {
                return Err(refuse("a stride, dilation or side of a convolution is 0"));
            }
            let reach = (taps - 1) * d + 1;
            let padded = size + before[axis] + after[axis];
            let cyclic = window.boundary == Boundary::Cyclic;
            let outputs = if padded < reach { 0 } else { (padded - reach) / s + 1 };
            if outputs == 0 || (cyclic && (reach > size || (outputs - 1) * s >= size)) {
                return Err(refuse(format!(
                    "a kernel that spans {reach} does not fit {size} pixels"
                )));
            }
            Ok(Line { size, taps, outputs, stride: s, before: before[axis], dilation: d, cyclic })
        };
        let axes = [line(0, image.height)?, line(1, image.width)?];
        Ok(Self { output: (axes[0].outputs, axes[1].outputs), axes })
    }

    /// Positions in the image of the terms of all outputs, for one group after the other; `image.n_values()` for what is outside.
    pub(super) fn sources(&self, image: Shape, groups: usize) -> Vec<u32> {
        let [vertical, horizontal] = self.axes;
        let outside = image.n_values();
        let channels = image.channels / groups;
        let mut sources = Vec::new();
        for group in 0..groups {
            for (y, x) in
                (0..vertical.outputs).flat_map(|y| (0..horizontal.outputs).map(move |x| (y, x)))
            {
                for c in group * channels..(group + 1) * channels {
                    for i in 0..vertical.taps {
                        let row = vertical.read(y, i);
                        sources.extend((0..horizontal.taps).map(|j| {
                            match (row, horizontal.read(x, j)) {
                                (Some(row), Some(column)) => {
                                    ((c * image.height + row) * image.width + column) as u32
                                }
                                _ => outside as u32,
                            }
                        }));
                    }
                }
            }
        }
        sources
    }

    /// Channels of the torus, for `channels` of a group: one for each phase.
    pub(super) fn n_columns(&self, channels: usize) -> usize {
        self.axes.iter().fold(channels, |n, axis| n.saturating_mul(axis.phases()))
    }

    /// The torus, for `channels` of a group.
    pub(super) fn torus(&self, channels: usize) -> Torus {
        let [vertical, horizontal] = self.axes.map(Line::circle);
        let mut places = Vec::new();
        for c in 0..channels {
            for &(qy, ry) in &vertical.places {
                for &(qx, rx) in &horizontal.places {
                    let column = (c * vertical.phases + ry) * horizontal.phases + rx;
                    places.push((column, qy, qx));
                }
            }
        }
        Torus {
            height: vertical.length,
            width: horizontal.length,
            n_columns: self.n_columns(channels),
            n_taps: self.axes[0].taps * self.axes[1].taps,
            places,
        }
    }
}

impl Line {
    fn read(self, output: usize, tap: usize) -> Option<usize> {
        // signed, so that what lies before the image is negative
        let at = (output * self.stride + tap * self.dilation) as i64 - self.before as i64;
        let size = self.size as i64;
        let at = if self.cyclic { at.rem_euclid(size) } else { at };
        (0..size).contains(&at).then_some(at as usize)
    }

    fn phases(self) -> usize {
        let whole = self.size.is_multiple_of(self.stride);
        if self.cyclic && !whole { 1 } else { self.stride }
    }

    fn circle(self) -> Circle {
        let phases = self.phases();
        let first = -(self.before as i64);
        let base = first.div_euclid(phases as i64);
        let places: Vec<(usize, usize)> = (0..self.taps)
            .map(|tap| {
                let at = first + (tap * self.dilation) as i64;
                let (pixel, phase) = (at.div_euclid(phases as i64), at.rem_euclid(phases as i64));
                ((pixel - base) as usize, phase as usize)
            })
            .collect();
        let span = places.last().map_or(1, |(pixel, _)| pixel + 1);
        let length = if self.cyclic {
            self.size / phases
        } else {
            let reach = (self.outputs - 1) * self.stride + (self.taps - 1) * self.dilation + 1;
            let end = reach.saturating_sub(self.before);
            let least = (self.size + self.before).max(end);
            least.div_ceil(phases).max(self.outputs).max(span)
        };
        Circle { length, phases, places }
    }
}
