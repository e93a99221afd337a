//! Images written as PNG files, read back.

use std::io::Cursor;

use candle_core::{DType, Device, Tensor};
use image::{ImageFormat, RgbImage};
use lipconv_datasets::{Picture, data_url, decode_image, png, png_grid};

use crate::support::write;

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for shape in [[1, 1, 1], [1, 3, 5], [3, 7, 2]] {
        let n = shape.iter().product::<usize>();
        let pixels: Vec<u8> = (0..n).map(|i| (i * 37 % 256) as u8).collect();
        let path = write(dir.path(), "image.png", &png(shape, &pixels).unwrap());
        assert_eq!(decode_image(&path).unwrap(), Picture { shape, pixels });
    }
}

#[test]
fn images_stand_in_rows_with_white_between() {
    let values: Vec<f32> = vec![-1.0, 1.0, 0.0, -3.0, 0.5, 0.5];
    let images = Tensor::from_vec(values, (3, 1, 1, 2), &Device::Cpu).unwrap();
    let png = png_grid(&images, 2).unwrap();
    let mut reader = image::ImageReader::new(Cursor::new(&png));
    reader.set_format(ImageFormat::Png);
    let grid: RgbImage = reader.decode().unwrap().into_rgb8();
    assert_eq!(grid.dimensions(), (10, 8));
    let at = |x, y| grid.get_pixel(x, y).0[1];
    assert_eq!((at(2, 2), at(3, 2), at(4, 2), at(6, 2), at(7, 2)), (0, 255, 255, 128, 0));
    assert_eq!((at(2, 5), at(6, 5)), (191, 255));
    assert!(data_url(&png).starts_with("data:image/png;base64,iVBORw0KGgo"));
}

#[test]
fn an_image_that_is_no_image_is_an_error() {
    let text = |shape, pixels: &[u8]| png(shape, pixels).unwrap_err().to_string();
    assert_eq!(text([2, 2, 1], &[0; 4]), "number of channels of a picture is 2, expected 1 or 3");
    assert_eq!(text([1, 3, 3], &[0; 4]), "number of pixels is 4, expected 9");
    let empty = text([1, 0, 3], &[]);
    assert!(empty.starts_with("picture is 1 x 0 x 3, expected one that PNG can hold"), "{empty}");
    let images = Tensor::zeros((1, 2, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let text = png_grid(&images, 8).unwrap_err().to_string();
    assert_eq!(text, "number of channels of a picture is 2, expected 1 or 3");
}
