//! Images inside the page.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::Sample;
use super::base64::encode;
use crate::error::{Error, Result};

/// The image as a `data:` address of a PNG, one pixel for one pixel; the page scales it.
///
/// # Errors
/// [`Error::Draw`] for images with neither 1 nor 3 channels.
pub fn data_url(sample: &Sample) -> Result<String> {
    let draw_error = |reason: String| Error::Draw { what: "a test image", reason };
    let [c, h, w] = sample.shape;
    let colour = match c {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(draw_error(format!("it has {c} channels, expected 1 or 3"))),
    };
    if sample.pixels.len() != c * h * w {
        return Err(draw_error(format!(
            "it has {} values, expected {}",
            sample.pixels.len(),
            c * h * w
        )));
    }
    // PNG wants the channels of a pixel side by side
    let interleaved: Vec<u8> = (0..h * w)
        .flat_map(|p| (0..c).map(move |channel| channel * h * w + p))
        .map(|i| sample.pixels[i])
        .collect();
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new(&mut png)
        .write_image(&interleaved, w as u32, h as u32, colour)
        .map_err(|e| draw_error(e.to_string()))?;
    Ok(png_data_url(png.get_ref()))
}

/// A PNG file as a `data:` address.
#[must_use]
pub fn png_data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", encode(png))
}
