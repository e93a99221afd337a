//! Images at another size.
//!
//! Definition. Where both sides grow by the same whole factor, every pixel becomes a square of that side (nearest
//! neighbour), which keeps each value and adds none. Otherwise each channel is resampled with a triangle filter whose support
//! grows with the reduction (bilinear with antialiasing), as the `image` crate does, and rounded to 8 bits.
//!
//! Shapes: pixels [c, h, w] before and after.
//!
//! Guarantee: a set at its own size is returned as it is; the pixels depend on nothing but the image and the size.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::image_set::{ImageSet, ImageSetParts};

/// The largest side that is asked for in earnest.
const MAX_SIDE: usize = 4096;

/// Every image of `set` at `height` x `width`.
pub fn resized(set: &ImageSet, height: usize, width: usize) -> Result<ImageSet> {
    let [c, h, w] = set.shape();
    if (h, w) == (height, width) {
        return Ok(set.clone());
    }
    let n = set.image_len();
    let images = set.pixels().par_chunks_exact(n);
    let resized = |image: &[u8]| Ok(resized_image(image, [c, h, w], height, width)?.into_owned());
    let pixels = images.map(resized).collect::<Result<Vec<_>>>()?.concat();
    ImageSet::new(ImageSetParts {
        name: set.name().to_owned(),
        shape: [c, height, width],
        n_classes: set.n_classes(),
        pixels,
        labels: set.labels().to_vec(),
        synthetic: set.is_synthetic(),
    })
}

/// The pixels of one image at another size.
pub fn resized_image(
    pixels: &[u8],
    [c, h, w]: [usize; 3],
    height: usize,
    width: usize,
) -> Result<Cow<'_, [u8]>> {
    let invalid = |name, got: usize, expected: String| {
        Err(Error::InvalidArgument { name, got: got.to_string(), expected })
    };
    if pixels.len() != c * h * w || pixels.is_empty() {
        return invalid("number of pixels", pixels.len(), (c * h * w).max(1).to_string());
    }
    for side in [height, width] {
        if !(1..=MAX_SIDE).contains(&side) {
            return invalid("image size", side, format!("1 to {MAX_SIDE}"));
        }
    }
    if (h, w) == (height, width) {
        return Ok(Cow::Borrowed(pixels));
    }
    let planes = pixels.chunks_exact(h * w);
    let factor = height / h;
    let whole = factor > 0 && (height, width) == (factor * h, factor * w);
    let planes = planes.flat_map(|plane| match whole {
        true => repeated(plane, w, factor),
        false => resampled(plane, h, w, height, width),
    });
    Ok(Cow::Owned(planes.collect()))
}

/// Every pixel as a square.
fn repeated(plane: &[u8], w: usize, factor: usize) -> Vec<u8> {
    let row = |row: &[u8]| -> Vec<u8> {
        row.iter().flat_map(|&pixel| std::iter::repeat_n(pixel, factor)).collect()
    };
    plane.chunks_exact(w).flat_map(|line| row(line).repeat(factor)).collect()
}

/// The plane by rows, then by columns.
///
/// The sums are those of `image::imageops::resize` with its triangle filter, to the bit; that one walks down the columns, which
/// takes minutes for the largest pictures.
fn resampled(plane: &[u8], h: usize, w: usize, height: usize, width: usize) -> Vec<u8> {
    let columns = windows(w, width);
    let mut row = vec![0.0_f32; w];
    let mut pixels = Vec::with_capacity(height * width);
    for (first, weights) in windows(h, height) {
        row.fill(0.0);
        for (line, weight) in plane.chunks_exact(w).skip(first).zip(&weights) {
            row.iter_mut().zip(line).for_each(|(sum, &pixel)| *sum += f32::from(pixel) * weight);
        }
        pixels.extend(columns.iter().map(|(first, weights)| {
            let terms = row[*first..].iter().zip(weights).map(|(value, weight)| value * weight);
            // the cast is of a whole number between 0 and 255
            terms.fold(0.0, |sum: f32, term| sum + term).clamp(0.0, 255.0).round() as u8
        }));
    }
    pixels
}

/// For each of `new` positions, the first of `old` ones that counts, and the weights from there on.
fn windows(old: usize, new: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = old as f32 / new as f32;
    let support = ratio.max(1.0);
    let window = |out: usize| {
        let centre = (out as f32 + 0.5) * ratio;
        let first = ((centre - support).floor().max(0.0) as usize).min(old - 1);
        let end = ((centre + support).ceil() as usize).clamp(first + 1, old);
        let centre = centre - 0.5;
        let weight = |i: usize| (1.0 - ((i as f32 - centre) / support).abs()).max(0.0);
        let mut weights: Vec<f32> = (first..end).map(weight).collect();
        let sum = weights.iter().fold(0.0, |sum: f32, weight| sum + weight);
        weights.iter_mut().for_each(|weight| *weight /= sum);
        (first, weights)
    };
    (0..new).map(window).collect()
}
