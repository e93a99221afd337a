//! Cyclic convolution of one image, without a matrix of its patches.
//!
//! Definition: with `p = k/2` and the downsampled image `x` of shape c_in x h x w,
//! `y[o, i, j] = β[o] + Σ_{c,a,b} W[o, c, a, b] x[c, (i + a - p) mod h, (j + b - p) mod w]`.
//!
//! The image is first copied, downsampled and cyclically padded to c_in x hp x wp with hp = h + k - 1, wp = w + k - 1. In this copy
//! output pixel (i, j) and term (c, a, b) meet at `place(i, j) + place(c, a, b)`, with `place(i, j) = i·wp + j` and
//! `place(c, a, b) = (c·hp + a)·wp + b`: what [`Sums`] adds up.
//!
//! | | values | rows | terms | factors |
//! |-|-|-|-|-|
//! | output | padded image | pixels | (c, a, b) | weight |
//! | weight gradient | padded image | (c, a, b) | pixels | output gradient |
//! | input gradient | padded output gradient | pixels | (o, a, b) | weight, taps reversed, channels exchanged |
//!
//! The input gradient is itself a cyclic convolution, padded by k - 1 - k/2 before, and is upsampled at the end.
//!
//! Cost: 2·c_out·c_in·k²·h·w FLOP for each of the three, the number of channels in lanes (c_out, for the input gradient c_in) rounded up
//! to a multiple of 16.
//!
//! Guarantee: an output is the bias and, one after another, sums of at most 128 terms each.

use ndarray::ArrayView1;
use projectors::Real;

use super::lanes::{LANES, Lanes, n_groups};
use super::registers::Packed;
use super::sums::Sums;
use super::transposition::{into_lanes, out_of_lanes};

mod geometry;
mod padding;

pub(crate) use geometry::ConvGeometry;
use padding::{pad, scatter};

/// A convolution with its weight.
#[derive(Debug)]
pub(crate) struct Conv<T> {
    pub(crate) geometry: ConvGeometry,
    /// The weight in lanes: groups of output channels x terms.
    factors: Vec<Lanes<T>>,
    /// The bias in lanes.
    bias: Vec<Lanes<T>>,
    /// Places of the output pixels.
    pixels: Vec<usize>,
    /// Places of the terms of an output, or of those of an input gradient: as many as there are of the one or the other.
    terms: Vec<usize>,
}

/// Memory for the convolutions of one sample after another.
#[derive(Debug, Default)]
pub(crate) struct ConvScratch<T> {
    padded: Vec<T>,
    lanes: Vec<Lanes<T>>,
    /// Rows of sixteen channels.
    rows: Vec<T>,
}

impl<T: Packed> ConvScratch<T> {
    /// Makes room for a convolution.
    pub(crate) fn reserve(&mut self, conv: &Conv<T>) {
        let (geometry, adjoint) = (conv.geometry, conv.geometry.adjoint());
        let n_pixels = conv.pixels.len();
        grow(&mut self.padded, geometry.n_padded().max(adjoint.n_padded()), T::zero());
        let n_lanes = n_groups(geometry.c_out.max(adjoint.c_out)) * n_pixels;
        grow(&mut self.lanes, n_lanes, Lanes::zero());
        grow(&mut self.rows, LANES * n_pixels, T::zero());
    }
}

/// At least `n` elements.
pub(crate) fn grow<E: Clone>(buffer: &mut Vec<E>, n: usize, element: E) {
    if buffer.len() < n {
        buffer.resize(n, element);
    }
}

impl<T> Conv<T> {
    /// Lanes of the weight gradient and of the bias gradient.
    pub(crate) fn gradient_len(&self) -> usize {
        self.factors.len() + self.bias.len()
    }
}

impl<T: Packed> Conv<T> {
    /// `weight` is c_out x c_in x k x k.
    pub(crate) fn new(geometry: ConvGeometry, weight: &[T], bias: Option<&[T]>) -> Self {
        let (w, n_terms) = (geometry.width(), geometry.n_terms());
        let mut factors = vec![Lanes::zero(); n_groups(geometry.c_out) * n_terms];
        into_lanes(weight, n_terms, &mut factors);
        let mut lanes = vec![Lanes::zero(); n_groups(geometry.c_out)];
        if let Some(bias) = bias {
            into_lanes(bias, 1, &mut lanes);
        }
        let n_pixels = geometry.height() * w;
        let place = |pixel: usize| (pixel / w) * geometry.padded_width() + pixel % w;
        let most = n_terms.max(geometry.adjoint().n_terms());
        Self {
            geometry,
            factors,
            bias: lanes,
            pixels: (0..n_pixels).map(place).collect(),
            terms: (0..most).map(|term| geometry.place(term)).collect(),
        }
    }

    /// The gradients of weight (c_out x c_in x k x k) and bias out of the lanes that begin with them.
    pub(crate) fn gradients(&self, lanes: &[Lanes<T>]) -> (Vec<T>, Vec<T>) {
        let (c_out, n_terms) = (self.geometry.c_out, self.geometry.n_terms());
        let mut weight = vec![T::zero(); c_out * n_terms];
        let mut bias = vec![T::zero(); c_out];
        let (of_weight, rest) = lanes.split_at(self.factors.len());
        out_of_lanes(of_weight, n_terms, &mut weight);
        out_of_lanes(&rest[..self.bias.len()], 1, &mut bias);
        (weight, bias)
    }

    /// `output = β + W ⋆ image`.
    pub(crate) fn forward(&self, image: &[T], output: &mut [T], scratch: &mut ConvScratch<T>) {
        let (geometry, n_pixels) = (&self.geometry, self.pixels.len());
        let ConvScratch { padded, lanes, .. } = scratch;
        let padded = &mut padded[..geometry.n_padded()];
        pad(geometry, geometry.kernel / 2, image, padded);
        let lanes = &mut lanes[..self.bias.len() * n_pixels];
        let terms = &self.terms[..geometry.n_terms()];
        let sums = Sums { values: padded, rows: &self.pixels, terms, factors: &self.factors };
        sums.write(Some(&self.bias), lanes);
        out_of_lanes(lanes, n_pixels, output);
    }

    /// Adds the gradients of weight and bias, in lanes.
    pub(crate) fn add_gradients(
        &self,
        image: &[T],
        d_output: &[T],
        gradient: &mut [Lanes<T>],
        scratch: &mut ConvScratch<T>,
    ) {
        let (geometry, n_pixels) = (&self.geometry, self.pixels.len());
        let ConvScratch { padded, lanes, .. } = scratch;
        let padded = &mut padded[..geometry.n_padded()];
        pad(geometry, geometry.kernel / 2, image, padded);
        let factors = &mut lanes[..self.bias.len() * n_pixels];
        into_lanes(d_output, n_pixels, factors);
        let rows = &self.terms[..geometry.n_terms()];
        let (d_weight, d_bias) = gradient.split_at_mut(self.factors.len());
        Sums { values: padded, rows, terms: &self.pixels, factors }.add(d_weight);
        for (o, plane) in d_output.chunks_exact(n_pixels).enumerate() {
            d_bias[o / LANES].0[o % LANES] += ArrayView1::from(plane).sum();
        }
    }

    /// The factors of the input gradient: groups of input channels x (output channel, reversed tap).
    pub(crate) fn adjoint_factors(&self) -> Vec<Lanes<T>> {
        let (geometry, adjoint) = (&self.geometry, self.geometry.adjoint());
        let (n_taps, n_terms) = (geometry.n_taps(), adjoint.n_terms());
        let mut factors = vec![Lanes::zero(); n_groups(adjoint.c_out) * n_terms];
        for (group, factors) in factors.chunks_exact_mut(n_terms).enumerate() {
            for (term, Lanes(factor)) in factors.iter_mut().enumerate() {
                let (o, tap) = (term / n_taps, n_taps - 1 - term % n_taps);
                let own = &self.factors[o / LANES * geometry.n_terms()..];
                let channels = (group * LANES..adjoint.c_out).zip(factor);
                channels.for_each(|(c, value)| *value = own[c * n_taps + tap].0[o % LANES]);
            }
        }
        factors
    }

    /// The input gradient; `factors` are the [`adjoint_factors`](Self::adjoint_factors).
    pub(crate) fn input_gradient(
        &self,
        factors: &[Lanes<T>],
        d_output: &[T],
        d_image: &mut [T],
        scratch: &mut ConvScratch<T>,
    ) {
        let (geometry, adjoint) = (&self.geometry, self.geometry.adjoint());
        let (n_pixels, n_terms) = (self.pixels.len(), adjoint.n_terms());
        let ConvScratch { padded, lanes, rows } = scratch;
        let padded = &mut padded[..adjoint.n_padded()];
        pad(&adjoint, geometry.kernel - 1 - geometry.kernel / 2, d_output, padded);
        let lanes = &mut lanes[..n_groups(adjoint.c_out) * n_pixels];
        let terms = &self.terms[..n_terms];
        Sums { values: padded, rows: &self.pixels, terms, factors }.write(None, lanes);
        if geometry.downsample == 1 {
            return out_of_lanes(lanes, n_pixels, d_image);
        }
        for (group, lanes) in lanes.chunks_exact(n_pixels).enumerate() {
            let first = group * LANES;
            let rows = &mut rows[..(adjoint.c_out - first).min(LANES) * n_pixels];
            out_of_lanes(lanes, n_pixels, rows);
            scatter(geometry, first, rows, d_image);
        }
    }
}

/// `target += source`.
pub(crate) fn add_assign<T: Real>(target: &mut [Lanes<T>], source: &[Lanes<T>]) {
    for (Lanes(target), Lanes(source)) in target.iter_mut().zip(source) {
        for (t, &s) in target.iter_mut().zip(source) {
            *t += s;
        }
    }
}

#[cfg(test)]
mod tests;
