//! Shapes of images and of what flows between layers.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Shape of one image: channels, height and width, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// Number of channels, `c`.
    pub channels: usize,
    /// Height, `h`.
    pub height: usize,
    /// Width, `w`.
    pub width: usize,
}

impl ImageShape {
    /// An image of `channels` x `height` x `width`.
    #[must_use]
    pub const fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// A vector of `features`, a point, as an image of one pixel: networks of dense layers take it after `Flatten`, and batches
    /// of points may be b x features.
    #[must_use]
    pub const fn vector(features: usize) -> Self {
        Self::new(features, 1, 1)
    }

    /// A batch in the shape b x c x h x w: of points that are b x features with their two missing axes, any other as it is.
    pub(crate) fn batch(&self, images: &Tensor) -> Result<Tensor> {
        match *images.dims() {
            [b, c] if (c, 1, 1) == (self.channels, self.height, self.width) => {
                Ok(images.reshape((b, c, 1, 1))?)
            }
            _ => Ok(images.clone()),
        }
    }

    /// Number of pixels of one channel, `h·w`.
    #[must_use]
    pub const fn n_pixels(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// Number of values, `c·h·w`.
    #[must_use]
    pub const fn n_values(&self) -> usize {
        self.channels.saturating_mul(self.n_pixels())
    }

    /// The shape after invertible downsampling by `factor`: `c·factor²` x `h/factor` x `w/factor`.
    ///
    /// # Errors
    /// [`Error::StrideDoesNotDivide`] when `factor` does not divide height and width,
    /// [`Error::Zero`] when it is 0.
    pub fn downsampled(&self, factor: usize, layer: &str) -> Result<Self> {
        if factor == 0 {
            return Err(Error::Zero { what: format!("{layer}: stride") });
        }
        for (what, size) in [("image height", self.height), ("image width", self.width)] {
            if !size.is_multiple_of(factor) {
                let layer = layer.to_owned();
                return Err(Error::StrideDoesNotDivide { layer, what, size, stride: factor });
            }
        }
        let channels = self.channels.saturating_mul(factor).saturating_mul(factor);
        Ok(Self::new(channels, self.height / factor, self.width / factor))
    }
}

/// Most values of an image or of a layer's output: 64 channels of 256 x 256 pixels.
///
/// A file of a few bytes can describe an image of any size. What no network here has is refused before anything is allocated.
const MAX_VALUES: usize = 1 << 22;

/// What flows between two layers: an image before [`Flatten`](crate::PlainLayer::Flatten), a vector after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalShape {
    /// An image.
    Image(ImageShape),
    /// A vector with this number of features.
    Vector(usize),
}

impl SignalShape {
    /// Number of values.
    #[must_use]
    pub const fn n_values(&self) -> usize {
        match self {
            Self::Image(shape) => shape.n_values(),
            Self::Vector(n) => *n,
        }
    }

    /// Refuses more than [`MAX_VALUES`]; `what` names the signal.
    pub(crate) fn check_size(&self, what: impl FnOnce() -> String) -> Result<()> {
        let n_values = self.n_values();
        if n_values <= MAX_VALUES {
            return Ok(());
        }
        Err(Error::TooManyValues { what: what(), n_values, most: MAX_VALUES })
    }

    /// Number of channels of an image, of features of a vector: what activations group.
    #[must_use]
    pub const fn n_channels(&self) -> usize {
        match self {
            Self::Image(shape) => shape.channels,
            Self::Vector(n) => *n,
        }
    }
}
