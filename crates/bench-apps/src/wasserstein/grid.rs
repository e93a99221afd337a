//! Images side by side, as a PNG.
//!
//! Definition: n images c x h x w with values in [-1, 1] become 8-bit pixels round((x + 1) · 127.5), in rows, with two pixels of
//! white between.
//!
//! Errors: [`Error::Draw`] for images with neither 1 nor 3 channels, [`Error::Write`].

use std::io::Cursor;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::{ImageFormat, Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::files::write_atomic;

const GAP: u32 = 2;

/// The images as one PNG, `n_columns` in a row.
pub fn grid_png(images: &Tensor, n_columns: usize) -> Result<Vec<u8>> {
    let draw_error = |reason: String| Error::Draw { what: "a grid of samples", reason };
    let (n, c, h, w) = images.dims4()?;
    if c != 1 && c != 3 {
        return Err(draw_error(format!("images have {c} channels, expected 1 or 3")));
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
    let mut png = Cursor::new(Vec::new());
    grid.write_to(&mut png, ImageFormat::Png).map_err(|e| draw_error(e.to_string()))?;
    Ok(png.into_inner())
}

/// Writes the grid to a file.
pub fn write_grid(path: &Path, images: &Tensor, n_columns: usize) -> Result<()> {
    write_atomic(path, &grid_png(images, n_columns)?)
}

/// The nearest pixel; what is outside [-1, 1] is cut off.
fn byte(value: f32) -> u8 {
    // the cast saturates, and a value that is no number becomes 0
    ((value + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_rows_with_white_between() {
        let values: Vec<f32> = vec![-1.0, 1.0, 0.0, -3.0, 0.5, 0.5];
        let images = Tensor::from_vec(values, (3, 1, 1, 2), &Device::Cpu).unwrap();
        let png = grid_png(&images, 2).unwrap();
        let grid = image::load_from_memory(&png).unwrap().into_rgb8();
        assert_eq!(grid.dimensions(), (10, 8));
        let at = |x, y| grid.get_pixel(x, y).0[1];
        assert_eq!((at(2, 2), at(3, 2), at(4, 2), at(6, 2), at(7, 2)), (0, 255, 255, 128, 0));
        assert_eq!((at(2, 5), at(6, 5)), (191, 255));
    }

    #[test]
    fn other_channels_are_refused() {
        let images = Tensor::zeros((1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let text = grid_png(&images, 8).unwrap_err().to_string();
        assert_eq!(text, "cannot draw a grid of samples: images have 2 channels, expected 1 or 3");
    }
}
