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

use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Luma};
use rayon::prelude::*;

use super::image_set::{ImageSet, ImageSetParts};
use crate::error::{Error, Result};

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

fn resampled(plane: &[u8], h: usize, w: usize, height: usize, width: usize) -> Vec<u8> {
    let image = ImageBuffer::<Luma<u8>, _>::from_raw(w as u32, h as u32, plane)
        .expect("a plane has h x w pixels");
    resize(&image, width as u32, height as u32, FilterType::Triangle).into_raw()
}
