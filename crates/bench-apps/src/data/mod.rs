//! Image sets: 8-bit images with labels, where they come from and how they are cut into batches.
//!
//! Definition: a set holds n images of c channels and h x w pixels, p in {0, …, 255}, and n labels in
//! {0, …, n_classes - 1}. A network sees p / 255 in [0, 1], never shifted or scaled further, so that a certified radius
//! is in pixel units.
//!
//! Shapes: pixels are stored [n, c, h, w], row-major; a batch is a tensor (b, c, h, w) and a tensor (b) of u32 labels.
//!
//! Guarantee: every set that exists has as many labels as images, and every label is a class.
//!
//! Errors: [`crate::Error`]; reading never allocates on a header's word alone.
//!
//! Not here: training and certification, which know nothing of data sets.

mod archive;
pub mod augment;
pub mod batches;
pub mod cifar10;
mod dataset;
pub mod decode;
pub mod download;
pub mod folders;
pub mod idx;
mod image_set;
pub mod known;
pub mod locate;
pub mod manifest;
pub mod mnist;
pub mod resize;
pub mod stl10;
pub mod synthetic;

pub use augment::Augmentation;
pub use batches::{BatchOrder, BatchProducer, EpochOrder};
pub use dataset::{DataSource, Dataset};
pub(crate) use image_set::PixelTable;
pub use image_set::{ImageSet, ImageSetParts};
pub use locate::{Fallback, LocateOptions, locate_cifar10, locate_mnist, locate_stl10};
