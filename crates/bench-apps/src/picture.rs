//! Images as addresses: PNG files inside a page or a JSON file.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::{Error, Result};

/// An image.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Channels (1 or 3), height and width.
    pub shape: [usize; 3],
    /// Pixels [c, h, w].
    pub pixels: &'a [u8],
}

/// The image as a `data:` address of a PNG, one pixel for one pixel; the page scales it.
///
/// # Errors
/// [`Error::Draw`] for images with neither 1 nor 3 channels.
pub fn data_url(picture: Picture<'_>) -> Result<String> {
    let draw_error = |reason: String| Error::Draw { what: "a test image", reason };
    let Picture { shape: [c, h, w], pixels } = picture;
    let colour = match c {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => return Err(draw_error(format!("it has {c} channels, expected 1 or 3"))),
    };
    if pixels.len() != c * h * w {
        return Err(draw_error(format!("it has {} values, expected {}", pixels.len(), c * h * w)));
    }
    // PNG wants the channels of a pixel side by side
    let interleaved: Vec<u8> = (0..h * w)
        .flat_map(|p| (0..c).map(move |channel| channel * h * w + p))
        .map(|i| pixels[i])
        .collect();
    let mut png = Cursor::new(Vec::new());
    PngEncoder::new(&mut png)
        .write_image(&interleaved, w as u32, h as u32, colour)
        .map_err(|e| draw_error(e.to_string()))?;
    Ok(png_data_url(png.get_ref()))
}

/// A PNG file as a `data:` address.
pub fn png_data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_no_image_is_an_error() {
        let draw = |shape, pixels: &[u8]| data_url(Picture { shape, pixels });
        let text = draw([2, 2, 1], &[0; 4]).unwrap_err().to_string();
        assert_eq!(text, "cannot draw a test image: it has 2 channels, expected 1 or 3");
        let text = draw([1, 3, 3], &[0; 4]).unwrap_err().to_string();
        assert_eq!(text, "cannot draw a test image: it has 4 values, expected 9");
        let address = draw([1, 2, 2], &[0, 50, 100, 255]).unwrap();
        assert!(address.starts_with("data:image/png;base64,iVBORw0KGgo"), "{address}");
    }
}
