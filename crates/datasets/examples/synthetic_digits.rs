//! Draws a sheet of synthetic digits, 20 of each class, into a PNG.
//!
//!     cargo run -p lipconv-datasets --example synthetic_digits -- digits.png
//!
//! Expected: ten rows, one digit each, in visibly different hands, pen widths and slants, a few with stray marks.

use image::{GrayImage, Luma};
use lipconv_datasets::synthetic::{self, SIDE, SyntheticDigits};

const N_COLUMNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: synthetic_digits FILE.png")?;
    let digits = SyntheticDigits { seed: 0, n_train: 10 * N_COLUMNS, n_test: 0 };
    let set = synthetic::dataset(&digits)?.train;
    let mut sheet = GrayImage::new((N_COLUMNS * SIDE) as u32, (10 * SIDE) as u32);
    for i in 0..set.len() {
        // image i is a digit i mod 10
        let (row, column) = (i % 10, i / 10);
        for (pixel, &value) in set.image(i)?.iter().enumerate() {
            let (x, y) = (column * SIDE + pixel % SIDE, row * SIDE + pixel / SIDE);
            sheet.put_pixel(x as u32, y as u32, Luma([value]));
        }
    }
    sheet.save(&path).map_err(|e| format!("cannot write {path}: {e}"))?;
    println!("wrote {path}: {} digits", set.len());
    Ok(())
}
