//! Random crops, flips and operations, a function of seed, epoch and sample alone.
//!
//! Definition. With padding p and images h x w, sample i of epoch e draws row offset dy and column offset dx uniformly from
//! {0, …, 2p} and a coin f. Its augmented image is
//!
//! ```text
//! out[c, y, x] = padded[c, y + dy, x' + dx],    x' = w - 1 - x where f, else x
//! ```
//!
//! where `padded` is the image with p zeros on every side: a random crop of the padded image, then a mirror image. Without
//! flips there is no coin, without padding no offset. [`RandAugment`] changes the cropped image, where it is asked for.
//!
//! Guarantee: the draw reads block i of the ChaCha8 stream 2⁶³ + e with key `seed`. It depends on neither the order of the
//! samples nor the thread that asks, so that a resumed run sees the same images, and it shares no word with the
//! order of the batches, which reads stream e.
//!
//! Source: Li et al. 2019, the authors' settings for CIFAR-10: padding 4, flips.

mod pixel_operation;
mod rand_augment;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use self::pixel_operation::PixelOperation;
pub use self::rand_augment::RandAugment;

/// What is drawn for every image; the default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Augmentation {
    /// Zeros on every side before the crop, p.
    pub crop_padding: u32,
    /// Whether every second image, on average, is mirrored left to right.
    pub flip: bool,
    /// Operations on the pixels of the cropped image.
    pub random: Option<RandAugment>,
}

/// The crop and the flip that were drawn for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Row offset in the padded image, at most 2p.
    pub dy: usize,
    /// Column offset.
    pub dx: usize,
    /// Whether the image is mirrored.
    pub flipped: bool,
}

impl Augmentation {
    /// The paper's for CIFAR-10.
    pub const CROP_FLIP: Self = Self { crop_padding: 4, flip: true, random: None };

    /// Whether images stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The crop and the flip of sample `sample` of epoch `epoch`.
    pub fn draw(&self, seed: u64, epoch: u64, sample: usize) -> Draw {
        /// Words in a block of ChaCha, more than a draw needs.
        const BLOCK: u128 = 16;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 << 63 | epoch);
        rng.set_word_pos(BLOCK * sample as u128);
        let mut offset = || rng.random_range(0..=2 * self.crop_padding) as usize;
        let (dy, dx) = (offset(), offset());
        Draw { dy, dx, flipped: self.flip && rng.random() }
    }

    /// Appends the cropped and mirrored image to `out`; `pixels` is [c, h, w], and `value` maps a pixel to what the network sees.
    ///
    /// Padding becomes `value(0)`.
    pub fn apply<T: Copy>(
        &self,
        draw: Draw,
        pixels: &[u8],
        [c, h, w]: [usize; 3],
        value: impl Fn(u8) -> T,
        out: &mut Vec<T>,
    ) {
        let p = self.crop_padding as usize;
        let zero = value(0);
        // columns of the output, before mirroring, that lie on the image
        let (first, last) =
            (p.saturating_sub(draw.dx).min(w), (w + p).saturating_sub(draw.dx).min(w));
        for channel in 0..c {
            for y in 0..h {
                let start = out.len();
                out.resize(start + w, zero);
                // y + dy - p is the row of the image
                let Some(row) = (y + draw.dy).checked_sub(p).filter(|&row| row < h) else {
                    continue;
                };
                let line = &pixels[(channel * h + row) * w..][..w];
                let from = (first + draw.dx).saturating_sub(p).min(w);
                for (target, &pixel) in
                    out[start + first..start + last].iter_mut().zip(&line[from..])
                {
                    *target = value(pixel);
                }
                if draw.flipped {
                    out[start..].reverse();
                }
            }
        }
    }
}
