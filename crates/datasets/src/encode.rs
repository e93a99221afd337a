//! Images as PNG files, one alone or many in rows, and as addresses inside a page or a JSON file.
//!
//! Definition. A grid shows images with values in [-1, 1] as pixels round((x + 1) · 127.5), in rows, with two pixels of white between.
//!
//! Errors: [`Error::InvalidArgument`] for images with neither 1 nor 3 channels, and for a wrong number of pixels.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use candle_core::{DType, Device, Tensor};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};

use crate::error::{Error, Result, by};

/// Pixels of white between the images of a grid.
const GAP: u32 = 2;

/// An image (`shape`: channels, height, width; `pixels` in that order) as a PNG, one pixel for one pixel.
///
/// # Errors
/// [`Error::InvalidArgument`].
pub fn png(shape: [usize; 3], pixels: &[u8]) -> Result<Vec<u8>> {
    let [c, h, w] = shape;
    let colour = match c {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(channels(c)),
    };
    if pixels.len() != c * h * w {
        return Err(Error::argument("number of pixels", pixels.len(), c * h * w));
    }
    // PNG wants the channels of a pixel side by side
    let interleaved: Vec<u8> = (0..h * w)
        .flat_map(|p| (0..c).map(move |channel| channel * h * w + p))
        .map(|i| pixels[i])
        .collect();
    encoded(&interleaved, [w as u32, h as u32], colour)
}

/// Images n x c x h x w with values in [-1, 1] as one PNG, `n_columns` in a row.
///
/// # Errors
/// [`Error::InvalidArgument`]; [`Error::Tensor`] for a tensor of another rank.
pub fn png_grid(images: &Tensor, n_columns: usize) -> Result<Vec<u8>> {
    let (n, c, h, w) = images.dims4()?;
    if c != 1 && c != 3 {
        return Err(channels(c));
    }
    let values = images.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
    let values = values.flatten_all()?.to_vec1::<f32>()?;
    let n_columns = n_columns.clamp(1, n.max(1));
    let n_rows = n.div_ceil(n_columns);
    let side = |n: usize, length: usize| n as u32 * (length as u32 + GAP) + GAP;
    let mut grid = RgbImage::from_pixel(side(n_columns, w), side(n_rows, h), Rgb([255, 255, 255]));
    for (i, image) in values.chunks_exact(c * h * w).enumerate() {
        let (left, top) = (side(i % n_columns, w), side(i / n_columns, h));
        for y in 0..h {
            for x in 0..w {
                let value = |channel: usize| byte(image[(channel % c * h + y) * w + x]);
                let pixel = Rgb([value(0), value(1), value(2)]);
                grid.put_pixel(left + x as u32, top + y as u32, pixel);
            }
        }
    }
    encoded(&grid, [grid.width(), grid.height()], ExtendedColorType::Rgb8)
}

/// A PNG file as a `data:` address.
#[must_use]
pub fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

fn encoded(pixels: &[u8], [w, h]: [u32; 2], colour: ExtendedColorType) -> Result<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    let written = PngEncoder::new(&mut png).write_image(pixels, w, h, colour);
    let refused = |e: image::ImageError| {
        let size = by(&[usize::from(colour.channel_count()), h as usize, w as usize]);
        Error::argument("picture", size, format!("one that PNG can hold ({e})"))
    };
    written.map_err(refused)?;
    Ok(png.into_inner())
}

fn channels(n: usize) -> Error {
    Error::argument("number of channels of a picture", n, "1 or 3")
}

/// The nearest pixel; what is outside [-1, 1] is cut off.
fn byte(value: f32) -> u8 {
    // the cast saturates, and a value that is no number becomes 0
    ((value + 1.0) * 127.5).round() as u8
}
