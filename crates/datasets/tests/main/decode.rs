//! Image files: kinds, orientation, transparency, limits and damage.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::{DynamicImage, GrayAlphaImage, ImageFormat, LumaA, Rgb, RgbImage, Rgba, RgbaImage};
use lipconv_datasets::{Picture, decode_image, has_colour};

use crate::support::write;

/// 12 x 8, every pixel another colour.
fn drawing() -> RgbImage {
    RgbImage::from_fn(12, 8, |x, y| Rgb([20 * x as u8, 30 * y as u8, (x * y) as u8]))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// What `decode` makes of these bytes under a name that says nothing.
fn decoded(bytes: &[u8]) -> Result<Picture, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "file.dat", bytes);
    decode_image(&path).map_err(|e| e.to_string().replace(&format!("{}: ", path.display()), ""))
}

fn planes(image: &RgbImage) -> Vec<u8> {
    (0..3).flat_map(|c| image.pixels().map(move |p| p.0[c])).collect()
}

const LOSSLESS: [ImageFormat; 4] =
    [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];

#[test]
fn every_kind_is_told_by_its_content() {
    let image = DynamicImage::ImageRgb8(drawing());
    for format in LOSSLESS {
        let expected = Picture { shape: [3, 8, 12], pixels: planes(&drawing()) };
        assert_eq!(decoded(&encoded(&image, format)).unwrap(), expected, "{format:?}");
    }
    // lossy: another palette, another transform
    for format in [ImageFormat::Gif, ImageFormat::Jpeg] {
        assert_eq!(decoded(&encoded(&image, format)).unwrap().shape, [3, 8, 12], "{format:?}");
    }
    let grey = DynamicImage::ImageLuma8(image.to_luma8());
    for format in [ImageFormat::Png, ImageFormat::Tiff, ImageFormat::Jpeg] {
        assert_eq!(decoded(&encoded(&grey, format)).unwrap().shape, [1, 8, 12], "{format:?}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused_in_every_kind() {
    // noise, so that no half holds all there is
    let value = |x: u32, y: u32| (x * 7919 + y * 104_729 + x * y * 31) as u8;
    let image = RgbImage::from_fn(64, 64, |x, y| Rgb([value(x, y), value(y, x), value(x + y, 3)]));
    let image = DynamicImage::ImageRgb8(image);
    for format in LOSSLESS.into_iter().chain([ImageFormat::Gif, ImageFormat::Jpeg]) {
        let whole = encoded(&image, format);
        assert!(decoded(&whole).is_ok(), "{format:?}");
        for len in [whole.len() / 2, whole.len() * 9 / 10] {
            let text = decoded(&whole[..len]).expect_err(&format!("{format:?} of {len} bytes"));
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn transparency_is_laid_on_white() {
    let ink = |x: u32| [0, 0, 0, 255 * u8::from(x == 1)];
    let image = DynamicImage::ImageRgba8(RgbaImage::from_fn(3, 1, |x, _| Rgba(ink(x))));
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let picture = decoded(&encoded(&image, format)).unwrap();
        assert_eq!(picture.pixels, [255, 0, 255].repeat(3), "{format:?}");
    }
    let grey = GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([100, 255 * x as u8]));
    let picture = decoded(&encoded(&DynamicImage::ImageLumaA8(grey), ImageFormat::Png)).unwrap();
    assert_eq!(picture, Picture { shape: [1, 1, 2], pixels: vec![255, 100] });
}

/// A JPEG with an orientation in its EXIF segment.
fn oriented(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn a_picture_is_turned_upright() {
    let image = DynamicImage::ImageRgb8(drawing());
    let plain = encoded(&image, ImageFormat::Jpeg);
    let upright = decoded(&plain).unwrap();
    assert_eq!(decoded(&oriented(&plain, 1)).unwrap(), upright);
    let turned = decoded(&oriented(&plain, 6)).unwrap();
    assert_eq!(turned.shape, [3, 12, 8]);
    // turned clockwise, the first row is the first column from below
    let row: Vec<u8> = (0..8).map(|x| upright.pixels[(7 - x) * 12]).collect();
    assert_eq!(turned.pixels[..8], row);
    let mirrored = decoded(&oriented(&plain, 2)).unwrap();
    let row: Vec<u8> = upright.pixels[..12].iter().rev().copied().collect();
    assert_eq!(mirrored.pixels[..12], row);
}

#[test]
fn sizes_in_a_header_allocate_nothing() {
    let mut png = encoded(&DynamicImage::ImageRgb8(drawing()), ImageFormat::Png);
    let sized = |width: u32, height: u32, png: &mut Vec<u8>| {
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&png[12..29]);
        let sum = crc.sum().to_be_bytes();
        png[29..33].copy_from_slice(&sum);
    };
    for (width, height) in [(1 << 30, 1), (16_385, 1), (16_384, 16_384), (u32::MAX, u32::MAX)] {
        sized(width, height, &mut png);
        assert!(decoded(&png).is_err(), "{width} x {height}");
    }
}

#[test]
fn a_picture_has_a_pixel() {
    let image = DynamicImage::ImageRgb8(drawing());
    let gif = encoded(&image, ImageFormat::Gif);
    for (at, expected) in [(6, "0 x 8"), (8, "12 x 0")] {
        let mut gif = gif.clone();
        gif[at..at + 2].fill(0);
        let text = decoded(&gif).unwrap_err();
        assert_eq!(text, format!("the image is {expected}, expected at least one pixel"));
    }
    for (format, place) in [(ImageFormat::Png, 16..20), (ImageFormat::Bmp, 18..22)] {
        let mut bytes = encoded(&image, format);
        bytes[place].fill(0);
        assert!(decoded(&bytes).is_err());
    }
}

#[test]
fn what_is_no_image_file_is_named() {
    assert_eq!(
        decoded(b"hello").unwrap_err(),
        "not an image, expected PNG, JPEG, GIF, WebP, BMP or TIFF"
    );
    assert!(decoded(b"").is_err() && decoded(b"\x89PNG\r\n\x1a\n").is_err());
    let dir = tempfile::tempdir().unwrap();
    let text = decode_image(dir.path()).unwrap_err().to_string();
    assert_eq!(text, format!("{}: is a folder, expected an image file", dir.path().display()));
    assert!(has_colour(Path::new("nowhere.png")).is_err());
    let path = dir.path().join("grey.png");
    fs::write(&path, encoded(&DynamicImage::new_luma8(2, 2), ImageFormat::Png)).unwrap();
    assert!(!has_colour(&path).unwrap());
}

#[test]
fn a_few_bytes_are_not_a_picture_of_a_hundred_million() {
    let mut bytes = encoded(&DynamicImage::ImageRgb8(drawing()), ImageFormat::Bmp);
    for at in [18, 22] {
        bytes[at..at + 4].copy_from_slice(&10_000_u32.to_le_bytes());
    }
    let text = decoded(&bytes).unwrap_err();
    let expected = format!(
        "the image is 10000 x 10000, more than 4096 times the file's {} bytes",
        bytes.len()
    );
    assert_eq!(text, expected);
}

#[test]
fn a_colour_profile_does_not_unpack_to_gigabytes() {
    let png = encoded(&DynamicImage::ImageRgb8(drawing()), ImageFormat::Png);
    let with_profile = |length: usize| {
        let mut packed = ZlibEncoder::new(b"iCCPx\0\0".to_vec(), Compression::best());
        packed.write_all(&vec![b'x'; length]).unwrap();
        let chunk = packed.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        let length = (chunk.len() as u32 - 4).to_be_bytes();
        // after the header
        [&png[..33], &length, &chunk, &crc.sum().to_be_bytes(), &png[33..]].concat()
    };
    // beyond its limit it is left out, and the pixels do not need it
    for length in [1 << 20, 1 << 26] {
        assert_eq!(decoded(&with_profile(length)), decoded(&png));
    }
}

#[test]
fn a_palette_of_parts_of_colours_is_refused() {
    let bytes = include_bytes!("../data/palette.png").to_vec();
    assert_eq!(decoded(&bytes).unwrap().shape, [3, 7, 9]);
    let at = bytes.windows(4).position(|name| name == b"PLTE").unwrap();
    let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    for n in [1, 2, 4, 100, length + 1] {
        let mut chunk = b"PLTE".to_vec();
        chunk.extend(bytes[at + 4..at + 4 + length].iter().cycle().take(n));
        let mut crc = flate2::Crc::new();
        crc.update(&chunk);
        let mut file = bytes[..at - 4].to_vec();
        file.extend((n as u32).to_be_bytes());
        file.extend(&chunk);
        file.extend(crc.sum().to_be_bytes());
        file.extend(&bytes[at + 8 + length..]);
        let text = decoded(&file).unwrap_err();
        let by_decoder = text.starts_with("the image cannot be decoded: ");
        assert!(
            by_decoder || text == "the palette of the PNG file is not made of colours",
            "{text}"
        );
    }
}
