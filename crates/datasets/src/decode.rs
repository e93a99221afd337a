//! Image files of any common kind as 8-bit planes.
//!
//! Definition. The kind (PNG, JPEG, GIF, WebP, BMP, TIFF) is decided by the content, whatever the file is called. The picture is
//! turned as its EXIF orientation says, transparent pixels are laid on white, samples of 16 bits become samples of 8 bits, and of an
//! animation the first frame is taken.
//!
//! Guarantee: a file that is cut off is an error. Nothing is decoded whose sides exceed 16,384 or whose samples exceed 480
//! million bytes, and nothing but a plain file is read. A colour profile has at most 16 MiB.
//!
//! Errors: [`Error::Read`], [`Error::Malformed`].

use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::error::{Error, Result};

const MAX_SIDE: u32 = 16_384;
/// A picture of 12,000 x 10,000 in 8-bit colour with transparency is the largest.
const MAX_BYTES: u64 = 480_000_000;
/// Bytes of pixels that are not held against the file's length.
const SMALL: u64 = 64 << 20;
/// An empty page is compressed a thousandfold at most by deflate, and three times that by the other kinds.
const EXPANSION: u64 = 4096;
/// Compressed, a picture is hardly ever longer.
const MAX_FILE: u64 = 256 << 20;
/// Limit of a PNG's decompressed metadata, such as a colour profile.
const MAX_BESIDE: u64 = 16 << 20;
/// Enough to tell the kind.
const HEAD: u64 = 64;

const KINDS: [ImageFormat; 6] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::Gif,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
];

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// 1 for grey, 3 for colour; then height and width.
    pub shape: [usize; 3],
    /// Pixels [c, h, w].
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The pixels with 1 channel or 3.
    ///
    /// Grey becomes colour of three equal planes; colour becomes grey by the weights of Rec. 709, as the `image` crate does.
    pub fn with_channels(self, channels: usize) -> Result<Vec<u8>> {
        match (self.shape[0], channels) {
            (from, to) if from == to => Ok(self.pixels),
            (1, 3) => Ok(self.pixels.repeat(3)),
            (3, 1) => {
                let [_, h, w] = self.shape;
                let mut samples = vec![0; 3 * h * w];
                for (channel, plane) in self.pixels.chunks_exact(h * w).enumerate() {
                    let places = samples[channel..].iter_mut().step_by(3);
                    places.zip(plane).for_each(|(sample, &pixel)| *sample = pixel);
                }
                let image = RgbImage::from_raw(w as u32, h as u32, samples);
                let image = image.map(DynamicImage::ImageRgb8).unwrap_or_default();
                Ok(image.into_luma8().into_raw())
            }
            (_, to) => {
                Err(Error::argument("number of channels", to, "1 or 3, as image files have"))
            }
        }
    }
}

/// Whether a file is an image of a kind that can be decoded, by its first bytes.
pub fn is_image(path: &Path) -> Result<bool> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(Error::read(path))?;
    file.take(HEAD).read_to_end(&mut head).map_err(Error::read(path))?;
    Ok(kind(&head).is_some())
}

/// Whether a file has colour, from its header.
pub fn has_colour(path: &Path) -> Result<bool> {
    let bytes = read(path)?;
    let decoder = reader(path, &bytes)?.into_decoder().map_err(|e| refused(path, e))?;
    Ok(decoder.color_type().has_color())
}

/// The picture in a file, as the module says.
pub fn decode_image(path: &Path) -> Result<Picture> {
    decode_bytes(path, &read(path)?)
}

/// The picture in bytes from elsewhere; `path` names it in messages.
pub fn decode_bytes(path: &Path, bytes: &[u8]) -> Result<Picture> {
    let mut decoder = reader(path, bytes)?.into_decoder().map_err(|e| refused(path, e))?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MAX_BYTES {
        let what = format!(
            "the image is {width} x {height}, expected at most {MAX_BYTES} bytes of pixels"
        );
        return Err(Error::malformed(path, what));
    }
    let bytes_of_pixels = decoder.total_bytes();
    if bytes_of_pixels == 0 {
        let what = format!("the image is {width} x {height}, expected at least one pixel");
        return Err(Error::malformed(path, what));
    }
    if bytes_of_pixels > SMALL && bytes_of_pixels / EXPANSION > bytes.len() as u64 {
        let what = format!(
            "the image is {width} x {height}, more than {EXPANSION} times the file's {} bytes",
            bytes.len()
        );
        return Err(Error::malformed(path, what));
    }
    if kind(bytes) == Some(ImageFormat::Jpeg) && !jpeg_is_complete(bytes) {
        return Err(Error::malformed(path, "the JPEG file is cut off: it has no end marker"));
    }
    if kind(bytes) == Some(ImageFormat::Png) && !png_palette_is_whole(bytes) {
        return Err(Error::malformed(path, "the palette of the PNG file is not made of colours"));
    }
    // what an orientation cannot be read from has none
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| refused(path, e))?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let (height, width) = (image.height() as usize, image.width() as usize);
    let pixels = if image.color().has_color() { colour(image) } else { grey(image).into_raw() };
    let channels = pixels.len() / (height * width).max(1);
    Ok(Picture { shape: [channels, height, width], pixels })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let read_error = Error::read(path);
    let metadata = fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "is a folder" } else { "is no plain file" };
        return Err(Error::malformed(path, format!("{what}, expected an image file")));
    }
    if metadata.len() > MAX_FILE {
        let what = format!("{} bytes long, expected at most {MAX_FILE}", metadata.len());
        return Err(Error::malformed(path, what));
    }
    lipconv::output::protect(path);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(read_error)?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

fn kind(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes).ok().filter(|kind| KINDS.contains(kind))
}

fn reader<'a>(path: &Path, bytes: &'a [u8]) -> Result<ImageReader<Cursor<&'a [u8]>>> {
    let Some(kind) = kind(bytes) else {
        let what = "not an image, expected PNG, JPEG, GIF, WebP, BMP or TIFF";
        return Err(Error::malformed(path, what));
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), kind);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(if kind == ImageFormat::Png { MAX_BESIDE } else { MAX_BYTES });
    reader.limits(limits);
    Ok(reader)
}

fn refused(path: &Path, error: image::ImageError) -> Error {
    Error::malformed(path, format!("the image cannot be decoded: {error}"))
}

/// `value` with the opacity `alpha` on white.
fn on_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    // the nearest of 256 values
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

fn grey(image: DynamicImage) -> GrayImage {
    if !image.color().has_alpha() {
        return image.into_luma8();
    }
    let image = image.into_luma_alpha8();
    GrayImage::from_fn(image.width(), image.height(), |x, y| {
        let [value, alpha] = image.get_pixel(x, y).0;
        image::Luma([on_white(value, alpha)])
    })
}

/// Planes of red, green and blue.
fn colour(image: DynamicImage) -> Vec<u8> {
    let (samples, step) = if image.color().has_alpha() {
        let mut image = image.into_rgba8();
        for pixel in image.pixels_mut().filter(|pixel| pixel.0[3] < 255) {
            let [r, g, b, alpha] = pixel.0;
            pixel.0 = [on_white(r, alpha), on_white(g, alpha), on_white(b, alpha), 255];
        }
        (image.into_raw(), 4)
    } else {
        (image.into_rgb8().into_raw(), 3)
    };
    let n = samples.len() / step;
    let mut planes = vec![0; 3 * n];
    for (channel, plane) in planes.chunks_exact_mut(n.max(1)).enumerate() {
        let values = samples[channel..].iter().step_by(step);
        plane.iter_mut().zip(values).for_each(|(pixel, &value)| *pixel = value);
    }
    planes
}

/// Whether every palette has three bytes for each colour, which the decoder takes for granted.
fn png_palette_is_whole(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if after.starts_with(b"PLTE") && !length.is_multiple_of(3) {
            return false;
        }
        // name and checksum
        rest = after.get(length.saturating_add(8)..).unwrap_or_default();
    }
    true
}

/// Whether the end marker comes before the end of the file; decoders fill up what is missing.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // the next marker: 0xff and a byte that is neither filling, nor an escaped 0xff, nor a restart within a scan
        let is_marker = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7);
        let Some(at) = rest.windows(2).position(is_marker) else { return false };
        let (marker, after) = (rest[at + 1], &rest[at + 2..]);
        rest = match marker {
            0xd9 => return true,
            // no length follows
            0x01 | 0xd8 => after,
            _ => {
                let length =
                    after.get(..2).map_or(0, |l| usize::from(l[0]) << 8 | usize::from(l[1]));
                let Some(next) = after.get(length.max(2)..) else { return false };
                next
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_shows_through_in_proportion() {
        assert_eq!(
            [on_white(0, 0), on_white(0, 255), on_white(100, 0), on_white(100, 255)],
            [255, 0, 255, 100]
        );
        assert_eq!([on_white(0, 128), on_white(0, 127), on_white(255, 77)], [127, 128, 255]);
    }

    #[test]
    fn grey_and_colour_become_each_other() {
        let grey = Picture { shape: [1, 1, 2], pixels: vec![10, 200] };
        assert_eq!(grey.clone().with_channels(3).unwrap(), [10, 200, 10, 200, 10, 200]);
        assert_eq!(grey.clone().with_channels(1).unwrap(), [10, 200]);
        let colour = Picture { shape: [3, 1, 2], pixels: vec![10, 200, 10, 200, 10, 200] };
        assert_eq!(colour.with_channels(1).unwrap(), [10, 200]);
        let text = grey.with_channels(2).unwrap_err().to_string();
        assert_eq!(text, "number of channels is 2, expected 1 or 3, as image files have");
    }

    #[test]
    fn an_end_marker_within_a_segment_is_no_end() {
        // a comment that holds one, and a scan with an escaped 0xff and a restart
        let open =
            [0xff, 0xd8, 0xff, 0xfe, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 1, 0xff, 0, 0xff, 0xd3, 7];
        assert!(!jpeg_is_complete(&open));
        assert!(jpeg_is_complete(&[&open[..], &[0xff, 0xff, 0xd9, 0, 0]].concat()));
        assert!(!jpeg_is_complete(&[0xff]) && !jpeg_is_complete(&[0xff, 0xd8, 0xff, 0xe0, 0xff]));
    }
}
