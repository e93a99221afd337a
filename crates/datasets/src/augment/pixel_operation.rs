//! The fourteen operations of RandAugment on the pixels of an image.
//!
//! Definition. An operation has a level λ in [-1, 1]. An image is c x h x w bytes, row-major.
//!
//! | operation | pixel of the result |
//! |---|---|
//! | identity | the pixel |
//! | shear in x, in y | the pixel at (x + 0.3 λ y, y), at (x, y + 0.3 λ x) |
//! | translate in x, in y | the pixel ⌊150/331 · \|λ\| w⌋ columns away, ⌊150/331 · \|λ\| h⌋ rows away |
//! | rotate | the pixel of the image turned by 30 λ degrees around its centre |
//! | brightness, colour, contrast, sharpness | d + (1 + 0.9 λ)(p - d), clipped to [0, 255], without its fraction |
//! | posterize | the pixel's highest 8 - ⌊4 \|λ\| + 1/2⌋ bits |
//! | solarize | p below 255 (1 - \|λ\|), 255 - p from there on |
//! | autocontrast | each channel stretched to [0, 255] |
//! | equalize | each channel with a histogram as even as can be |
//!
//! Here p is the pixel and d its *degenerate* value: 0 for brightness, the grey value for colour, the image's mean grey value for
//! contrast, a mean of the 3 x 3 pixels around it for sharpness. Geometric operations take the nearest pixel of the image, and 0 outside.
//!
//! Source: Cubuk, Zoph, Shlens and Le 2020, with the ranges of torchvision. The arithmetic is that of Pillow, to the bit; only at a tie
//! between two pixels may a geometric operation choose the other one.

/// An operation on the pixels of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of the module defines them")]
pub enum PixelOperation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Colour,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

/// Channels, height and width.
type Shape = [usize; 3];

impl PixelOperation {
    /// Every operation.
    pub const ALL: [Self; 14] = [
        Self::Identity,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
        Self::Rotate,
        Self::Brightness,
        Self::Colour,
        Self::Contrast,
        Self::Sharpness,
        Self::Posterize,
        Self::Solarize,
        Self::AutoContrast,
        Self::Equalize,
    ];

    /// The image changed at level `level`, λ, which is clipped to [-1, 1].
    ///
    /// # Panics
    /// If `pixels` has not as many values as `shape` says.
    #[must_use]
    pub fn apply(self, level: f64, shape: [usize; 3], pixels: &[u8]) -> Vec<u8> {
        let ([c, h, w], level) = (shape, level.clamp(-1.0, 1.0));
        assert_eq!(pixels.len(), c * h * w, "one byte for each value of the shape");
        let away = |side: usize| (150.0 / 331.0 * level * side as f64).trunc();
        let enhanced = |degenerate: &dyn Fn(usize) -> u8| {
            let factor = (1.0 + 0.9 * level) as f32;
            let blend = |(i, &p): (usize, &u8)| {
                let d = f32::from(degenerate(i));
                // conversion from floating point drops the fraction and clips
                (d + factor * (f32::from(p) - d)) as u8
            };
            pixels.iter().enumerate().map(blend).collect()
        };
        match self {
            Self::Identity => pixels.to_vec(),
            Self::ShearX => moved(shape, pixels, [1.0, 0.3 * level, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY => moved(shape, pixels, [1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.0]),
            Self::TranslateX => moved(shape, pixels, [1.0, 0.0, -away(w), 0.0, 1.0, 0.0]),
            Self::TranslateY => moved(shape, pixels, [1.0, 0.0, 0.0, 0.0, 1.0, -away(h)]),
            Self::Rotate => moved(shape, pixels, rotation((30.0 * level).to_radians(), shape)),
            Self::Brightness => enhanced(&|_| 0),
            Self::Colour => {
                let grey = grey(shape, pixels);
                enhanced(&|i| grey[i % (h * w).max(1)])
            }
            Self::Contrast => {
                let grey = grey(shape, pixels);
                let sum: f64 = grey.iter().map(|&g| f64::from(g)).sum();
                let mean = (sum / grey.len().max(1) as f64 + 0.5) as u8;
                enhanced(&|_| mean)
            }
            Self::Sharpness => {
                let smooth = smoothed(shape, pixels);
                enhanced(&|i| smooth[i])
            }
            Self::Posterize => {
                let dropped = (4.0 * level.abs()).round() as u32;
                pixels.iter().map(|p| p >> dropped << dropped).collect()
            }
            Self::Solarize => {
                let threshold = 255.0 * (1.0 - level.abs());
                let inverted = |&p: &u8| if f64::from(p) < threshold { p } else { 255 - p };
                pixels.iter().map(inverted).collect()
            }
            Self::AutoContrast => by_channel(shape, pixels, stretched),
            Self::Equalize => by_channel(shape, pixels, equalized),
        }
    }
}

/// The image with the pixel (x, y) taken from (a x + b y + c, d x + e y + f), for the six numbers a to f; a pixel's place is its centre.
fn moved([channels, h, w]: Shape, pixels: &[u8], [a, b, c, d, e, f]: [f64; 6]) -> Vec<u8> {
    let inside = |place: f64, side: usize| {
        (place >= 0.0).then_some(place as usize).filter(|&place| place < side)
    };
    let mut out = vec![0; pixels.len()];
    for row in 0..h {
        for column in 0..w {
            let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
            let from = inside(a * x + b * y + c, w).zip(inside(d * x + e * y + f, h));
            let Some((from_x, from_y)) = from else { continue };
            for start in (0..channels).map(|channel| channel * h * w) {
                out[start + row * w + column] = pixels[start + from_y * w + from_x];
            }
        }
    }
    out
}

/// The six numbers of a counterclockwise turn around the centre, the y axis pointing down.
fn rotation(angle: f64, [_, h, w]: Shape) -> [f64; 6] {
    let (sin, cos) = (-angle).sin_cos();
    let (x, y) = (w as f64 / 2.0, h as f64 / 2.0);
    [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]
}

/// The grey values: 0.299 R + 0.587 G + 0.114 B of three channels, the mean of any other number.
fn grey([channels, h, w]: Shape, pixels: &[u8]) -> Vec<u8> {
    let n = h * w;
    let value = |i: usize, channel: usize| u32::from(pixels[channel * n + i]);
    let of = |i: usize| match channels {
        // weights in units of 2^-16
        3 => (19_595 * value(i, 0) + 38_470 * value(i, 1) + 7_471 * value(i, 2) + 0x8000) >> 16,
        _ => (0..channels).map(|channel| value(i, channel)).sum::<u32>() / channels.max(1) as u32,
    };
    (0..n).map(|i| of(i) as u8).collect()
}

/// Each pixel the mean of the 3 x 3 around it, its own weight being 5; pixels on the edge stay.
fn smoothed([channels, h, w]: Shape, pixels: &[u8]) -> Vec<u8> {
    let mut out = pixels.to_vec();
    for start in (0..channels).map(|channel| channel * h * w) {
        for row in 1..h.saturating_sub(1) {
            for column in 1..w.saturating_sub(1) {
                let place = start + row * w + column;
                let rows = [place - w, place, place + w];
                let nine = rows.iter().flat_map(|&centre| &pixels[centre - 1..=centre + 1]);
                let sum = nine.map(|&p| u32::from(p)).sum::<u32>() + 4 * u32::from(pixels[place]);
                out[place] = ((2 * sum + 13) / 26) as u8;
            }
        }
    }
    out
}

fn by_channel(
    [_, h, w]: Shape,
    pixels: &[u8],
    table: impl Fn(&[u32; 256]) -> [u8; 256],
) -> Vec<u8> {
    let channels = pixels.chunks((h * w).max(1)).flat_map(|channel| {
        let mut histogram = [0; 256];
        channel.iter().for_each(|&p| histogram[usize::from(p)] += 1);
        let table = table(&histogram);
        channel.iter().map(move |&p| table[usize::from(p)])
    });
    channels.collect()
}

fn stretched(histogram: &[u32; 256]) -> [u8; 256] {
    let occurs = |&p: &usize| histogram[p] > 0;
    let (low, high) = ((0..256).find(occurs), (0..256).rev().find(occurs));
    let (low, high) = (low.unwrap_or(0) as f64, high.unwrap_or(0) as f64);
    if low == high {
        return std::array::from_fn(|p| p as u8);
    }
    let scale = 255.0 / (high - low);
    std::array::from_fn(|p| (p as f64 * scale - low * scale) as u8)
}

fn equalized(histogram: &[u32; 256]) -> [u8; 256] {
    let last = histogram.iter().rev().find(|&&n| n > 0).copied().unwrap_or(0);
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return std::array::from_fn(|p| p as u8);
    }
    let mut below = step / 2;
    histogram.map(|n| {
        let level = (below / step).min(255) as u8;
        below += n;
        level
    })
}
